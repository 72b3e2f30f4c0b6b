package main

import "github.com/hotswap-init/entrypoint/internal/control"

var restartCommand = &command{
	name:    "restart",
	summary: "stop the app and start it again",
	options: []option{timeoutOption, jsonOption},
	details: "The old generation ends before the new one starts; clients wait in the held sockets meanwhile.",
	run: func(c *call) int {
		if len(c.args) > 0 {
			return c.usage("restart takes no words: got %q", c.args[0])
		}
		return c.change(control.Request{Op: control.OpRestart})
	},
}
