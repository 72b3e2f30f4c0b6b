package main

import (
	"strings"

	"github.com/hotswap-init/entrypoint/handoff"
)

var notifyCommand = &command{
	name:    "notify",
	summary: "tell the init something on behalf of the app, such as READY=1",
	args:    "K=V…",
	details: "Sends the assignments, in one message, to the socket in NOTIFY_SOCKET, which the app and its children inherit from the init: for " +
		"apps that are scripts. READY=1, STATUS=text, STOPPING=1, EXTEND_TIMEOUT_USEC=n; what means nothing to the init is ignored by it.",
	run: func(c *call) int {
		if len(c.args) == 0 {
			return c.usage("notify needs an assignment, such as READY=1")
		}
		for _, a := range c.args {
			if key, _, ok := strings.Cut(a, "="); !ok || key == "" || strings.ContainsAny(a, "\n\x00") {
				return c.usage("%q is not an assignment: write READY=1", a)
			}
		}
		path := c.getenv("NOTIFY_SOCKET")
		if path == "" {
			c.fault("no init to notify: NOTIFY_SOCKET is not set; only the app and what it started can notify")
			return codeNoInit
		}
		if err := handoff.SdNotify(path, c.args); err != nil {
			c.fault(err.Error())
			return codeNoInit
		}
		return codeDone
	},
}
