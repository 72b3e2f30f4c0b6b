package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// command is one word that makes this binary a client of the running init. Help is printed from this table.
type command struct {
	name    string
	summary string // half a sentence, for the list of commands
	args    string // of the usage line, after the options
	options []option
	usage   string // of the usage line in place of all options, where they are too many for one
	words   bool   // everything from the first word that is no option belongs to args, options included (run)
	details string
	run     func(*call) int
}

// commands is filled by init functions nowhere: it is this list, in the order that help prints.
func commands() []*command {
	return []*command{
		reloadCommand, runCommand, putCommand, rollbackCommand, promoteCommand, abortCommand, restartCommand, scaleCommand, stopCommand, signalCommand, reopenCommand, upgradeCommand,
		statusCommand, healthCommand, psCommand, doctorCommand, notifyCommand,
		checkCommand, configCommand, installCommand, versionCommand, completionCommand, helpCommand,
	}
}

// call is one use of a command.
type call struct {
	*printer
	command *command
	values  map[string]string // options that were given, by name; a switch has an empty value
	args    []string
	getenv  func(string) string
}

// has reports whether an option was given.
func (c *call) has(option string) bool {
	_, ok := c.values[option]
	return ok
}

// clientMain runs the client command named word, if it is one. Not handled means that word is the name of an app.
func clientMain(word string, args []string) (code int, handled bool) {
	return dispatch(word, args, os.Stdout, os.Stderr, os.Getenv)
}

func dispatch(word string, args []string, out, err io.Writer, getenv func(string) string) (code int, handled bool) {
	p := &printer{out: out, err: err}
	switch word {
	case "--help", "-h":
		word = "help"
	case "--version":
		word = "version"
	}
	if c := find(word); c != nil {
		return p.call(c, args, getenv), true
	}
	if strings.HasPrefix(word, "-") {
		p.wrongWord(fmt.Sprintf("unknown option %q; for an app of that name: entrypoint -- %s", word, word))
		return codeUsage, true
	}
	return 0, false
}

// find is the command of that name, nil if there is none.
func find(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return c
		}
	}
	return nil
}

// call parses the arguments and runs the command.
func (p *printer) call(c *command, args []string, getenv func(string) string) int {
	values, rest, err := parse(c, args)
	if err != nil {
		p.wrongUsage(c, err.Error())
		return codeUsage
	}
	if _, ok := values["help"]; ok {
		p.text(c.help())
		return codeDone
	}
	_, p.json = values["json"]
	return c.run(&call{printer: p, command: c, values: values, args: rest, getenv: getenv})
}

// usage ends a command whose arguments make no sense.
func (c *call) usage(format string, a ...any) int {
	c.wrongUsage(c.command, fmt.Sprintf(format, a...))
	return codeUsage
}
