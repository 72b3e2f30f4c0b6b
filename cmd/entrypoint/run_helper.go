package main

import (
	"fmt"
	"os"

	"github.com/hotswap-init/entrypoint/handoff/transparent"
	"github.com/hotswap-init/entrypoint/internal/applog"
	"github.com/hotswap-init/entrypoint/internal/probe/netprobe"
	"github.com/hotswap-init/entrypoint/internal/proxy"
	"github.com/hotswap-init/entrypoint/internal/proxy/carry"
	"github.com/hotswap-init/entrypoint/internal/syslog"
)

// helper is this binary in a role of its own, started by the init and never by a user.
func helper(role string, args []string) int {
	switch role {
	case "http-probe":
		return netprobe.Main(0, 3)
	case applog.Role:
		return applog.Main()
	case syslog.Role:
		return syslog.Main()
	case "bind-probe":
		return transparent.RehearsalMain()
	case faceRole:
		return faceMain()
	case proxy.Role:
		return carry.Main()
	case "nothing": // exists to be looked at and killed
		select {}
	}
	fmt.Fprintf(os.Stderr, "entrypoint: unknown role %q\n", role)
	return 2
}
