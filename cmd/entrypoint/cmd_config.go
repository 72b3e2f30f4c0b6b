package main

import (
	"os"

	"github.com/hotswap-init/entrypoint/envcfg"
)

var configCommand = &command{
	name:    "config",
	summary: "print the configuration in effect and where each value comes from",
	options: []option{jsonOption, {"markdown", "", "print the reference of all variables instead"}},
	details: "The environment of this process is read, as the init reads its own; secrets are not shown.",
	run: func(c *call) int {
		switch {
		case len(c.args) > 0:
			return c.usage("config takes no words: got %q", c.args[0])
		case c.json && c.has("markdown"):
			return c.usage("--json and --markdown exclude each other")
		case c.has("markdown"):
			c.text(envcfg.Markdown())
			return codeDone
		}
		cfg, apps, err := envcfg.LoadApps(os.Environ())
		if err != nil {
			sentences := split(err)
			if c.json {
				c.object(map[string]any{"code": codeConfig, "faults": sentences})
			} else {
				c.faults(count(len(sentences), "fault")+" in the configuration:", sentences)
			}
			return codeConfig
		}
		return c.config(cfg, apps)
	},
}

// config prints the values in effect: the container's, then those that single apps have of their own.
func (c *call) config(cfg *envcfg.Config, apps []envcfg.App) int {
	if c.json {
		b, err := cfg.JSON(apps...)
		if err != nil {
			c.fault(err.Error())
			return codeConfig
		}
		c.text(string(b) + "\n")
		return codeDone
	}
	entries := cfg.Entries()
	for _, a := range apps {
		entries = append(entries, a.Config.Own()...)
	}
	var rows [][]string
	for _, e := range entries {
		value := e.Value
		if value == "" {
			value = "-"
		}
		rows = append(rows, []string{e.Name, string(e.Source), value})
	}
	c.text(table([]column{{"VARIABLE", false}, {"SOURCE", false}, {"VALUE", false}}, rows, 0)) // a value is never cut
	return codeDone
}
