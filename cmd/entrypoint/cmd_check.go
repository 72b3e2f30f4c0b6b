package main

import (
	"fmt"
	"os"
	"strings"
)

var checkCommand = &command{
	name:    "check",
	summary: "check the configuration in the environment",
	args:    "[--] [CMD…]",
	words:   true,
	details: "Reads the environment exactly as the init does and prints every fault at once, code 78; or one line about what it would do.",
	run: func(c *call) int {
		s, err := load(os.Environ(), c.args)
		if err != nil {
			sentences := split(err)
			c.faults(count(len(sentences), "fault")+" in the configuration:", sentences)
			return codeConfig
		}
		c.answer("%s", s.summary())
		for _, w := range s.cfg.Warnings() {
			c.fault("warning: " + w)
		}
		return codeDone
	},
}

// summary is what the init would do with this configuration, in one line.
func (s *setup) summary() string {
	does := "hold the sockets and wait for `entrypoint run`"
	if len(s.command) > 0 {
		does = fmt.Sprintf("run %q", strings.Join(s.command, " "))
	}
	return fmt.Sprintf("the configuration is good: %s, %s, ready by %s, handoff %s", does, count(len(s.addresses), "held socket"), s.cfg.Ready, s.cfg.Handoff)
}

// split takes a joined error apart, to the single sentences. Only a join is taken apart, not an error that wraps several by a text of its own.
func split(err error) []string {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") {
		var all []string
		for _, e := range joined.Unwrap() {
			all = append(all, split(e)...)
		}
		return all
	}
	return []string{err.Error()}
}

// count writes n and the word in the right number.
func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
