package main

import (
	"strconv"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/control"
)

var scaleCommand = &command{
	name:    "scale",
	summary: "run more, or fewer, workers",
	args:    "N",
	options: []option{timeoutOption, jsonOption},
	details: "New workers of the active generation's bytes get connections when they are ready; of too many the highest ones drain. " +
		"The number holds for the generations that follow, until the container is started again.",
	run: func(c *call) int {
		if len(c.args) != 1 {
			return c.usage("scale needs exactly one number, got %d words", len(c.args))
		}
		n, err := strconv.Atoi(c.args[0])
		if err != nil || n < 1 || n > handoff.MaxWorkers {
			return c.usage("cannot scale to %q: write a number of 1 to %d", c.args[0], handoff.MaxWorkers)
		}
		return c.change(control.Request{Op: control.OpScale, Workers: n})
	},
}
