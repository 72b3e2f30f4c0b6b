package main

import "github.com/hotswap-init/entrypoint/internal/control"

var reopenCommand = &command{
	name:    "reopen",
	summary: "open the log files of the app anew",
	options: []option{jsonOption},
	details: "For a logrotate outside, after it has renamed the files of ENTRYPOINT_APP_LOG: lines go to new files under the old names from " +
		"here on, and none is lost. With rotation of our own (size, age) this is not needed.",
	run: func(c *call) int {
		if len(c.args) > 0 {
			return c.usage("reopen takes no words: got %q", c.args[0])
		}
		return c.end(c.ask(control.Request{Op: control.OpReopen}))
	},
}
