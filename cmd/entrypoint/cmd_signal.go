package main

import (
	"strconv"

	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/reaper"
)

var signalCommand = &command{
	name:    "signal",
	summary: "send a signal to the app",
	args:    "NAME",
	options: []option{appOption},
	details: "NAME is HUP, SIGHUP, RTMIN+3 or a number. The active generation gets it; ENTRYPOINT_SIGNALS has no say here.",
	run: func(c *call) int {
		if len(c.args) != 1 {
			return c.usage("signal needs exactly one signal, got %d words", len(c.args))
		}
		sig, err := reaper.ParseSignal(c.args[0])
		if err != nil {
			return c.usage("%v", err)
		}
		return c.end(c.ask(control.Request{Op: control.OpSignal, App: c.values["app"], Signal: strconv.Itoa(int(sig))}))
	},
}
