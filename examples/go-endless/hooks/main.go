// Hooks is a program for endless that does something before and after a signal. The import is not all that changes here: endless
// has a table of hooks by signal, graceful has them by what happens.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	endless "github.com/hotswap-init/entrypoint/graceful"
)

func hello(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "WORLD!")
}

func main() {
	addr := flag.String("addr", "localhost:4244", "address")
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", hello)

	server := endless.NewServer(*addr, mux)
	server.Hooks.Before = func(p endless.Phase) {
		switch p {
		case endless.PhaseReady: // server.BeforeBegin
			log.Println("serving with pid", os.Getpid())
		case endless.PhaseAnnounce: // SignalHooks[PRE_SIGNAL][SIGTERM]
			log.Println("before TERM")
		}
	}
	server.Hooks.After = func(p endless.Phase) {
		if p == endless.PhaseDrain { // SignalHooks[POST_SIGNAL][SIGTERM]
			log.Println("after TERM")
		}
	}
	onUser1(func() { log.Println("USR1") }) // SignalHooks[PRE_SIGNAL][SIGUSR1]

	if err := server.ListenAndServe(); err != nil {
		log.Fatal(err)
	}
	log.Println("stopped")
}

// onUser1 calls f at each USR1: only TERM and INT are the server's.
func onUser1(f func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
			f()
		}
	}()
}
