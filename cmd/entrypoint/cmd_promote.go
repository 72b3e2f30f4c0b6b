package main

import "github.com/hotswap-init/entrypoint/internal/control"

var promoteCommand = &command{
	name:    "promote",
	summary: "take the candidate on trial one step further",
	args:    "[APP]",
	options: []option{{"full", "", "through all the steps that are left"}, jsonOption},
	details: "Ends the present step of ENTRYPOINT_CANARY, or ENTRYPOINT_BAKE, now: the candidate gets the next share of the traffic, or is active. " +
		"A step without a time waits for this.",
	run: func(c *call) int {
		app, code, ok := c.app()
		if !ok {
			return code
		}
		return c.end(c.ask(control.Request{Op: control.OpPromote, App: app, Full: c.has("full")}))
	},
}

var abortCommand = &command{
	name:    "abort",
	summary: "cancel the swap under way",
	args:    "[APP]",
	options: []option{jsonOption},
	details: "The candidate is refused, and the old generation has all new connections again at once. What the candidate has accepted it may finish. " +
		"Whoever asked for the swap gets code 1, or 5 if the candidate had traffic.",
	run: func(c *call) int {
		app, code, ok := c.app()
		if !ok {
			return code
		}
		return c.end(c.ask(control.Request{Op: control.OpAbort, App: app}))
	},
}
