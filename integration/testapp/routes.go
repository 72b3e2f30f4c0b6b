package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

// routes are the pages of the app: / (who answers), /healthz, /slow?ms=N, /state (JSON),
// /exit?code=N (negative: die of a signal), /orphans?n=N&life=D, /busy?ms=N.
func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", a.who)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(a.health) })
	mux.HandleFunc("/slow", a.slow)
	mux.HandleFunc("/busy", a.busy)
	mux.HandleFunc("/state", a.state)
	mux.HandleFunc("/exit", a.exitNow)
	mux.HandleFunc("/orphans", a.leave)
	return a.closing(mux)
}

// closing adds `Connection: close` to every answer once the app drains.
func (a *app) closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

func (a *app) who(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s\n", a.name())
}

func (a *app) slow(w http.ResponseWriter, r *http.Request) {
	time.Sleep(millis(r))
	if a.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	a.who(w, r)
}

// busy burns processor time, so that a runtime under load can be watched.
func (a *app) busy(w http.ResponseWriter, r *http.Request) {
	for end := time.Now().Add(millis(r)); time.Now().Before(end); {
		_ = make([]byte, 1024)
	}
	a.who(w, r)
}

func (a *app) leave(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("n"))
	life, _ := time.ParseDuration(r.FormValue("life"))
	leaveOrphans(n, life)
	a.who(w, r)
}

func (a *app) exitNow(w http.ResponseWriter, r *http.Request) {
	code, _ := strconv.Atoi(r.FormValue("code"))
	a.who(w, r)
	http.NewResponseController(w).Flush()
	a.crashed <- code
}

func millis(r *http.Request) time.Duration {
	ms, _ := strconv.Atoi(r.FormValue("ms"))
	return time.Duration(ms) * time.Millisecond
}

func (a *app) state(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	seen := append([]string{}, a.seen...)
	a.mu.Unlock()
	dir, _ := os.Getwd()
	groups, _ := os.Getgroups()
	sid, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"version": a.version, "generation": a.generation,
		"pid": os.Getpid(), "ppid": os.Getppid(), "pgid": syscall.Getpgrp(), "sid": int(sid),
		"args": os.Args, "env": os.Environ(), "dir": dir,
		"uid": os.Getuid(), "gid": os.Getgid(), "groups": groups,
		"inherited": inherited, "status": status, "signals": seen,
	})
}
