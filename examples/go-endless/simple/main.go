// Simple is the smallest program for github.com/fvbock/endless with another import and nothing else.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"

	endless "github.com/hotswap-init/entrypoint/graceful"
)

func hello(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "WORLD!")
}

func main() {
	addr := flag.String("addr", "localhost:4242", "address")
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", hello)

	if err := endless.ListenAndServe(*addr, mux); err != nil {
		log.Fatal(err)
	}
	log.Println("stopped")
}
