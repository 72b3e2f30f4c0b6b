// A Go server as people write it: it binds its own port and handles no signal.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	generation := os.Getenv("ENTRYPOINT_GENERATION")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "g%s served\n", generation)
	})
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(200 * time.Millisecond)
		fmt.Fprintf(w, "g%s served\n", generation)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
