package main

import "github.com/hotswap-init/entrypoint/internal/control"

var stopCommand = &command{
	name:    "stop",
	summary: "end the app, and with it the container",
	options: []option{{"now", "", "kill at once, without grace"}},
	details: "As if the container had been sent TERM; with --now, as if it had been sent it twice.",
	run: func(c *call) int {
		if len(c.args) > 0 {
			return c.usage("stop takes no words: got %q", c.args[0])
		}
		return c.change(control.Request{Op: control.OpStop, Now: c.has("now")})
	},
}
