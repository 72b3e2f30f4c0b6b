package main

import (
	"runtime"
	"runtime/debug"
	"strings"
)

var versionCommand = &command{
	name:    "version",
	summary: "print the version of this binary",
	run: func(c *call) int {
		if len(c.args) > 0 {
			return c.usage("version takes no words: got %q", c.args[0])
		}
		c.answer("entrypoint %s (%s)", version, strings.Join(buildFacts(), ", "))
		return codeDone
	},
}

// buildFacts are the commit, if the build knew it, the compiler and the platform.
func buildFacts() []string {
	var facts []string
	commit, modified := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = "commit " + s.Value[:min(len(s.Value), 12)]
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = " modified"
			}
		}
	}
	if commit != "" {
		facts = append(facts, commit+modified)
	}
	return append(facts, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
}
