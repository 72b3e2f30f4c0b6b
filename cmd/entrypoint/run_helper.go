package main

import (
	"fmt"
	"os"

	"github.com/hotswap-init/entrypoint/handoff/transparent"
	"github.com/hotswap-init/entrypoint/internal/probe/httpget"
)

// helper is this binary in a role of its own, started by the init and never by a user.
func helper(role string, args []string) int {
	switch role {
	case "http-probe":
		return httpget.Main(args[1:], 3)
	case "bind-probe":
		return transparent.RehearsalMain()
	case "nothing": // exists to be looked at and killed
		select {}
	}
	fmt.Fprintf(os.Stderr, "entrypoint: unknown role %q\n", role)
	return 2
}
