// Command entrypoint is the ENTRYPOINT of a container: it starts the app, reaps and forwards as PID 1, holds the listening
// sockets, and swaps the app's binary in place. Called with a word of its own it is a client of the running init.
package main

import (
	"os"
	"strings"
)

// version is set by the linker.
var version = "0.1.0-dev"

func main() { os.Exit(run(os.Args)) }

// run is the whole program; os.Exit is called nowhere else.
func run(args []string) int {
	if role, ok := strings.CutPrefix(args[0], "entrypoint:"); ok {
		return helper(role, args)
	}
	if isApplet(args[0], os.Getpid()) {
		return runApplet(args)
	}
	words := args[1:]
	if len(words) > 0 && words[0] == "--" {
		return runInit(words[1:])
	}
	if len(words) > 0 {
		if code, handled := clientMain(words[0], words[1:]); handled {
			return code
		}
	}
	return runInit(words)
}
