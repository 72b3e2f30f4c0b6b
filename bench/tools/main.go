// Command tools are the programs that the measurements need beside the test app, in one static file that can be put into a
// container:
//
//	tools serve            a lean server on the socket that it inherits: two goroutines' worth of memory a connection is too
//	                       much when there are fifty thousand
//	tools hold ADDR FROM N opens N connections, each with a request that is never answered, says so, and ends with its input
//	tools ask N            asks the init N times for its health, and prints the median, the 99th percentile and the longest
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
}

func run(words []string) error {
	switch {
	case len(words) == 1 && words[0] == "serve":
		return serve()
	case len(words) == 4 && words[0] == "hold":
		n, err := strconv.Atoi(words[3])
		if err != nil {
			return err
		}
		return hold(words[1], words[2], n)
	case len(words) == 2 && words[0] == "ask":
		n, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		return ask(n)
	}
	return fmt.Errorf("cannot make sense of %q", words)
}
