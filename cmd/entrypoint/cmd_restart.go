package main

import "github.com/hotswap-init/entrypoint/internal/control"

var restartCommand = &command{
	name:    "restart",
	summary: "stop the app and start it again",
	args:    "[APP]",
	options: []option{timeoutOption, jsonOption},
	details: "The old generation ends before the new one starts; clients wait in the held sockets meanwhile.",
	run: func(c *call) int {
		app, code, ok := c.app()
		if !ok {
			return code
		}
		return c.change(control.Request{Op: control.OpRestart, App: app})
	},
}
