package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Gates hold a moment still for as long as a test wants: a pipe with a name, at which whoever passes waits until it was opened for
// writing and closed again. A test knows by its own open, which finds a reader, that the moment has come.

// gates is where the pipes are.
const gates = "/gates"

// hold waits at a gate. With make it is made if it is not there, otherwise one that is not there holds nobody. What is written
// before the gate opens is an error.
func hold(name string, make bool) error {
	path := filepath.Join(gates, name)
	if make {
		_ = os.MkdirAll(gates, 0o777) // opening it tells
		if err := syscall.Mkfifo(path, 0o666); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	gate, err := os.Open(path)
	if !make && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer gate.Close()
	words, err := io.ReadAll(gate)
	if err == nil && len(words) > 0 {
		err = errors.New(strings.TrimSpace(string(words)))
	}
	return err
}

// hold holds the app where its settings say so; code is what it exits with when a stop signal ends the wait, else -1.
func (a *app) hold(name string) (code int) {
	if !slices.Contains(strings.Split(a.holds, ","), name) {
		return -1
	}
	opened := make(chan error, 1)
	go func() { opened <- hold(a.version+"-"+name, true) }()
	for {
		select {
		case err := <-opened:
			if err != nil {
				a.say("held at %s: %v", name, err)
			}
			return -1
		case sig := <-a.signals:
			a.record(sig)
			if sig == syscall.SIGTERM && name != "term" {
				return a.exit
			}
		}
	}
}

// held answers when the gate of the form value opens: /hold?gate=NAME.
func (a *app) held(w http.ResponseWriter, r *http.Request) {
	if err := hold(r.FormValue("gate"), true); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	a.who(w, r)
}
