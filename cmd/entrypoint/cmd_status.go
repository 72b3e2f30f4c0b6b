package main

import (
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

var statusCommand = &command{
	name:    "status",
	summary: "show generations, sockets, the last swap and what to do next",
	args:    "[APP]",
	options: []option{
		jsonOption,
		{"watch", "[D]", "show it again every two seconds, or every D, until interrupted"},
		{"history", "", "show the swaps that are remembered, at most 50, the newest first"},
	},
	details: "The pages are for people and may change; programs read --json, whose field \"schema\" says its version (docs/status.md).",
	run:     runStatus,
}

// historyObject is what status --history --json prints.
type historyObject struct {
	Schema    int               `json:"schema"`
	App       string            `json:"app,omitempty"`
	LastSwaps []swap.SwapRecord `json:"last_swaps"`
}

// appsObject is what --json prints of several apps.
type appsObject struct {
	Schema int `json:"schema"`
	Apps   any `json:"apps"`
}

func runStatus(c *call) int {
	app, code, ok := c.app()
	switch {
	case !ok:
		return code
	case c.json && c.has("watch"):
		return c.usage("--json and --watch exclude each other")
	}
	every := 2 * time.Second
	if text := c.values["watch"]; text != "" {
		var err error
		if every, err = duration(text); err != nil {
			return c.usage("--watch: %v", err)
		}
	}
	request := control.Request{Op: control.OpStatus, App: app}
	r := c.ask(request)
	switch {
	case r.Code != codeDone || r.Status == nil:
		return c.end(r)
	case c.json:
		c.object(c.statusObject(r))
	case c.has("watch"):
		return c.watchStatus(request, r, every)
	default:
		columns, _ := terminalSize(c.getenv)
		c.text(c.statusText(statuses(r), columns))
	}
	return codeDone
}

// statuses are those of all apps that were asked for.
func statuses(r control.Result) []swap.Status {
	if len(r.Apps) > 0 {
		return r.Apps
	}
	return []swap.Status{*r.Status}
}

// statusObject is the answer to --json.
func (c *call) statusObject(r control.Result) any {
	if !c.has("history") {
		if len(r.Apps) == 0 {
			return r.Status
		}
		return appsObject{r.Status.Schema, r.Apps}
	}
	var all []historyObject
	for _, s := range statuses(r) {
		all = append(all, historyObject{s.Schema, s.App, s.LastSwaps})
	}
	if len(r.Apps) == 0 {
		return all[0]
	}
	return appsObject{r.Status.Schema, all}
}

// statusText is the page that was asked for, of each app.
func (c *call) statusText(all []swap.Status, columns int) string {
	var pages []string
	for _, s := range all {
		switch {
		case c.has("history") && s.App != "":
			pages = append(pages, wrapTo(columns, "app", labelWidth, s.App)+historyPage(&s, columns))
		case c.has("history"):
			pages = append(pages, historyPage(&s, columns))
		default:
			pages = append(pages, statusPage(&s, time.Now(), columns))
		}
	}
	return strings.Join(pages, "\n")
}
