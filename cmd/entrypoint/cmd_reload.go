package main

import "github.com/hotswap-init/entrypoint/internal/control"

var reloadCommand = &command{
	name:    "reload",
	summary: "swap to the program that is at the app's path now",
	options: []option{timeoutOption, jsonOption},
	details: "Starts a new generation of the app from the bytes that its path has now, shows each phase as it happens, and returns when it is " +
		"active or refused. Until it is active the old one serves, and if it is refused nothing has happened. An interrupt ends the waiting, not the swap.",
	run: func(c *call) int {
		if len(c.args) > 0 {
			return c.usage("reload takes no words: got %q; for another command line: entrypoint run -- %s", c.args[0], c.args[0])
		}
		return c.change(control.Request{Op: control.OpReload})
	},
}
