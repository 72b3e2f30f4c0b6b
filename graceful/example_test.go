package graceful_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/graceful"
)

func handler(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }

// The smallest program. It returns nil after a drain, so main ends with status 0.
func ExampleListenAndServe() {
	if err := graceful.ListenAndServe(":8080", http.HandlerFunc(handler)); err != nil {
		log.Fatal(err)
	}
}

// The certificate is read again when its files change.
func ExampleListenAndServeTLS() {
	if err := graceful.ListenAndServeTLS(":8443", "/etc/tls/tls.crt", "/etc/tls/tls.key", nil); err != nil {
		log.Fatal(err)
	}
}

// A drain from beginning to end, begun by Shutdown instead of a signal.
func ExampleServer() {
	s := graceful.NewServer("127.0.0.1:0", http.HandlerFunc(handler))
	s.ReadHeaderTimeout = 10 * time.Second
	ready := make(chan struct{})
	s.Hooks.After = func(p graceful.Phase) {
		fmt.Println("done:", p)
		if p == graceful.PhaseReady {
			close(ready)
		}
	}
	go func() {
		<-ready
		_ = s.Shutdown(context.Background()) // Serve returns the same
	}()
	fmt.Println(s.ListenAndServe())
	// Output:
	// done: listen
	// done: ready
	// done: announce
	// done: stop accepting
	// done: linger
	// done: drain
	// <nil>
}

// Several servers: READY=1 is said when all sockets are there, and main waits for every drain.
func ExampleServer_several() {
	web := graceful.NewServer(":8080", http.HandlerFunc(handler))
	admin := graceful.NewServer("127.0.0.1:9090", http.DefaultServeMux)
	admin.Name = "admin" // ENTRYPOINT_LISTEN=tcp://:8080,admin=tcp://127.0.0.1:9090
	web.ManualReady, admin.ManualReady = true, true

	var listening, done sync.WaitGroup
	for _, s := range []*graceful.Server{web, admin} {
		listening.Add(1)
		s.Hooks.After = func(p graceful.Phase) {
			if p == graceful.PhaseListen {
				listening.Done()
			}
		}
		done.Go(func() {
			if err := s.ListenAndServe(); err != nil {
				log.Print(err)
			}
		})
	}
	listening.Wait()
	if err := graceful.Ready(); err != nil {
		log.Print(err)
	}
	done.Wait()
}

// Any other server: a listener, and the messages. Signals are its own affair: it calls Drain on TERM, or waits for Draining if
// a Server of the program catches them.
func ExampleListen() {
	l, err := graceful.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	var conns sync.WaitGroup
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { fmt.Fprintln(c, "hello"); c.Close() })
		}
	}()
	if err := graceful.Ready(); err != nil {
		log.Print(err)
	}
	// …wait for TERM, or for <-graceful.Draining()…
	l.Close()
	conns.Wait()
	fmt.Println("drained")
	// Output: drained
}

// A WebSocket, or any other stream, says good-bye at a moment of its own within ten seconds after the beginning of the drain.
func ExampleWaitDraining() {
	stream := func(w http.ResponseWriter, r *http.Request) {
		// …Hijack or Accept…
		go func() {
			if graceful.WaitDraining(r.Context(), 10*time.Second) == nil {
				// write the close frame, status 1001 "going away"
			}
		}()
		// …read messages until the peer has closed; the drain waits for this handler…
	}
	http.HandleFunc("/ws", stream)
}

// Certificates that are renewed, for any TLS server.
func ExampleReloadCertificate() {
	get, err := graceful.ReloadCertificate("/etc/tls/tls.crt", "/etc/tls/tls.key")
	if err != nil {
		log.Print(err)
		return
	}
	_ = &tls.Config{GetCertificate: get}
}

// Work that goes on after the handler has returned.
func ExampleServer_Hold() {
	s := graceful.NewServer(":8080", nil)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		release := s.Hold()
		go func() {
			defer release()
			// …write the audit record…
		}()
		w.WriteHeader(http.StatusAccepted)
	})
}
