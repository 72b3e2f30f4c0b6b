package main

import "github.com/hotswap-init/entrypoint/internal/control"

var healthCommand = &command{
	name:    "health",
	summary: "succeed if the app is ready, for HEALTHCHECK and exec probes",
	details: "Code 0 while an active generation is ready and the container is not stopping, also during a swap; 1 otherwise; 4 " +
		"if there is no init to ask.",
	run: func(c *call) int {
		if len(c.args) > 0 {
			return c.usage("health takes no words: got %q", c.args[0])
		}
		return c.end(c.ask(control.Request{Op: control.OpHealth}))
	},
}
