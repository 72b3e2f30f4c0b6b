package main

import "github.com/hotswap-init/entrypoint/internal/control"

var healthCommand = &command{
	name:    "health",
	summary: "succeed if the app is ready, for HEALTHCHECK and exec probes",
	args:    "[APP]",
	details: "Code 0 while an active generation is ready and the container is not stopping, also during a swap; 1 otherwise; 4 " +
		"if there is no init to ask.",
	run: func(c *call) int {
		app, code, ok := c.app()
		if !ok {
			return code
		}
		return c.end(c.ask(control.Request{Op: control.OpHealth, App: app}))
	},
}
