package main

import "github.com/hotswap-init/entrypoint/internal/control"

var rollbackCommand = &command{
	name:    "rollback",
	summary: "swap back to the bytes before the present ones",
	args:    "[APP]",
	options: []option{waitOption, timeoutOption, jsonOption},
	details: "Starts a new generation from the bytes, and the command line, that were active before the present ones; the app's file is not needed for it. The bytes of " +
		"ENTRYPOINT_KEEP generations are kept. As long as the file still has the bytes that were rolled back, no reload, signal or watch brings them in again: " +
		"`entrypoint reload --force` does.",
	run: func(c *call) int {
		app, code, ok := c.app()
		if !ok {
			return code
		}
		return c.change(control.Request{Op: control.OpRollback, App: app})
	},
}
