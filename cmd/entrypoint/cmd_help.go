package main

import (
	"fmt"
	"strings"
)

var helpCommand = &command{
	name:    "help",
	summary: "print this, or more about one command",
	args:    "[COMMAND]",
	options: []option{{"man", "", "print all of it as a manual page, for man"}},
}

// The table of commands holds help, and help prints the table: only so is it no loop.
func init() { helpCommand.run = runHelp }

func runHelp(c *call) int {
	if c.has("man") {
		if len(c.args) > 0 {
			return c.usage("--man is about all commands: got %q", c.args[0])
		}
		c.text(manPage())
		return codeDone
	}
	switch len(c.args) {
	case 0:
		c.text(overview())
		return codeDone
	case 1:
		if about := find(c.args[0]); about != nil {
			c.text(about.help())
			return codeDone
		}
		return c.usage("there is no command %q", c.args[0])
	}
	return c.usage("help takes one command, got %d words", len(c.args))
}

// line is the usage line of a command, without "usage: ".
func (c *command) line() string {
	words := []string{"entrypoint", c.name}
	if c.usage != "" {
		words = append(words, c.usage)
	}
	for _, o := range c.options {
		if c.usage == "" {
			words = append(words, "["+o.spelling()+"]")
		}
	}
	if c.args != "" {
		words = append(words, c.args)
	}
	return strings.Join(words, " ")
}

func (o option) spelling() string {
	if o.value == "" {
		return "--" + o.name
	}
	if o.optional() {
		return "--" + o.name + "[=" + strings.Trim(o.value, "[]") + "]"
	}
	return "--" + o.name + " " + o.value
}

// help is the page about one command.
func (c *command) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s\n\n", c.line())
	b.WriteString(wrap("", 0, "entrypoint "+c.name+": "+c.summary+"."))
	if c.details != "" {
		b.WriteString("\n" + wrap("", 0, c.details))
	}
	b.WriteString("\n")
	options := append(c.options[:len(c.options):len(c.options)], helpOption)
	indent := 0
	for _, o := range options {
		indent = max(indent, len("  "+o.spelling()+"  "))
	}
	for _, o := range options {
		b.WriteString(wrap("  "+o.spelling(), indent, o.help))
	}
	return b.String()
}

// overview is what help prints.
func overview() string {
	var b strings.Builder
	b.WriteString("usage: entrypoint [--] CMD…       run CMD as the init of this container\n")
	b.WriteString("       entrypoint COMMAND         talk to the init of this container\n\ncommands:\n")
	for _, c := range commands() {
		b.WriteString(wrap("  "+c.name, 14, c.summary))
	}
	b.WriteString("\nexit codes of the commands:\n")
	for _, c := range exitCodes {
		b.WriteString(wrap("  "+c[0], 14, c[1]))
	}
	b.WriteString("\n" + wrap("", 0, "As init it is configured by ENTRYPOINT_ variables: `entrypoint config --markdown` explains each, `entrypoint config` "+
		"shows those in effect, `entrypoint check` finds faults in them. An app that has the name of a command is run by `entrypoint -- CMD`. "+
		"`entrypoint help COMMAND` says more about one command."))
	return b.String()
}
