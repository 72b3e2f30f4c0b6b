package main

import "github.com/hotswap-init/entrypoint/internal/control"

var reloadCommand = &command{
	name:    "reload",
	summary: "swap to the program that is at the app's path now",
	args:    "[APP]",
	options: []option{{"force", "", "also where the file has bytes that were rolled back"}, waitOption, timeoutOption, jsonOption},
	details: "Starts a new generation of the app from the bytes that its path has now, shows each phase as it happens, and returns when it is " +
		"active or refused. Until it is active the old one serves, and if it is refused nothing has happened. An interrupt ends the waiting, not the swap.",
	run: func(c *call) int {
		app, code, ok := c.app()
		if !ok {
			return code
		}
		return c.change(control.Request{Op: control.OpReload, App: app, Force: c.has("force")})
	},
}
