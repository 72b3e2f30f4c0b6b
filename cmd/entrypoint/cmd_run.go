package main

import "github.com/hotswap-init/entrypoint/internal/control"

var runCommand = &command{
	name:    "run",
	summary: "swap to another command line",
	args:    "[--] CMD…",
	usage:   "[OPTION…]",
	options: []option{appOption, waitOption, timeoutOption, jsonOption},
	words:   true,
	details: "Like reload, with another command line, which becomes the current one only if it succeeds. It is forgotten when " +
		"the container restarts, unless ENTRYPOINT_STATE_DIR is set. A relative program is looked up by the init, not in your directory.",
	run: func(c *call) int {
		if len(c.args) == 0 || c.args[0] == "" {
			return c.usage("run needs a command line")
		}
		return c.change(control.Request{Op: control.OpRun, App: c.values["app"], Command: c.args})
	},
}
