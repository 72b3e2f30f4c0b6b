// Multiport is a program for endless with servers on several addresses, with another import and nothing else.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"sync"

	endless "github.com/hotswap-init/entrypoint/graceful"
)

func hello(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "WORLD from", name) })
	return mux
}

func main() {
	first := flag.String("addr", "localhost:4242", "first address")
	second := flag.String("addr2", "localhost:4243", "second address")
	flag.Parse()

	var servers sync.WaitGroup
	servers.Go(func() { log.Println("first:", endless.ListenAndServe(*first, hello("first"))) })
	servers.Go(func() {
		server := endless.NewServer(*second, hello("second"))
		log.Println("second:", server.ListenAndServe())
	})
	servers.Wait()
	log.Println("all stopped")
}
