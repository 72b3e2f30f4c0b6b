// A Go server that takes leave of its clients by package graceful.
package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/hotswap-init/entrypoint/graceful"
)

func main() {
	generation := os.Getenv("ENTRYPOINT_GENERATION")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "g%s served\n", generation)
	})
	address := ":" + cmp.Or(os.Getenv("PORT"), "8080")
	if err := graceful.ListenAndServe(address, nil); err != nil {
		log.Fatal(err)
	}
}
