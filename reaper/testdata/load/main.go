// Load says which signals arrive while all processors are busy and memory is collected all the time.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/hotswap-init/entrypoint/reaper"
)

var kept [64][]byte

func main() {
	c := make(chan os.Signal, 4096)
	reaper.Notify(c)
	fmt.Println("preempts", reaper.RuntimePreempts())
	if len(os.Args) > 1 && os.Args[1] == "busy" {
		for range runtime.NumCPU() {
			go busy()
		}
		go func() {
			for {
				runtime.GC()
			}
		}()
	}
	for s := range c {
		fmt.Println(int(s.(syscall.Signal)))
	}
}

func busy() {
	for i := 0; ; i++ {
		kept[i%len(kept)] = make([]byte, 4096)
		for x := 0; x < 100000; x++ { // a loop that only a signal could interrupt
		}
	}
}
