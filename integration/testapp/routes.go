package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// routes are the pages of the app: / (who answers), /healthz, /slow?ms=N, /state (JSON),
// /exit?code=N (negative: die of a signal), /orphans?n=N&life=D, /busy?ms=N, /notify?n=N, /set (see
// setNow), /hold?gate=NAME, and gRPC's health check.
func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", a.who)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(int(a.healthNow.Load())) })
	mux.HandleFunc("/slow", a.slow)
	mux.HandleFunc("/busy", a.busy)
	mux.HandleFunc("/state", a.state)
	mux.HandleFunc("/exit", a.exitNow)
	mux.HandleFunc("/orphans", a.leave)
	mux.HandleFunc("/set", a.setNow)
	mux.HandleFunc("/notify", a.chatter)
	mux.HandleFunc("/hold", a.held)
	mux.HandleFunc("/grpc.health.v1.Health/Check", a.grpcHealth)
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

// chatter tells the init of its state, n times without a pause.
func (a *app) chatter(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("n"))
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	for i := range n {
		fmt.Fprintf(c, "STATUS=message %d of many\nWATCHDOG=1\nX_OWN=%s", i, strings.Repeat("x", i%2000))
	}
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
	link, _ := os.Readlink("/proc/self/exe")
	own := strings.TrimSuffix(link, " (deleted)") // as the library's own function; a program that calls that runs from its path
	sid, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"version": a.version, "generation": a.generation,
		"pid": os.Getpid(), "ppid": os.Getppid(), "pgid": syscall.Getpgrp(), "sid": int(sid),
		"executable": own, "exe": link, "args": os.Args, "env": os.Environ(), "dir": dir,
		"uid": os.Getuid(), "gid": os.Getgid(), "groups": groups,
		"inherited": inherited, "status": status, "signals": seen,
	})
}
