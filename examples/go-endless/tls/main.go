// Tls is the same with a certificate, which endless reads once, and graceful again when it changes.
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
	cert, key := flag.String("cert", "cert.pem", "certificate"), flag.String("key", "key.pem", "its key")
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", hello)

	if err := endless.ListenAndServeTLS(*addr, *cert, *key, mux); err != nil {
		log.Fatal(err)
	}
	log.Println("stopped")
}
