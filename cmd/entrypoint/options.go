package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/internal/control"
)

// option is an option of a command, written --name, or --name VALUE, or --name=VALUE.
type option struct {
	name  string
	value string // what the value is called in help; empty: a switch; in brackets: only --name=VALUE gives one
	help  string
}

// optional tells whether the option may stand without its value.
func (o option) optional() bool { return strings.HasPrefix(o.value, "[") }

// choices are the only values of the option; nil: it may have others.
func (o option) choices() []string {
	if o.value == waitOption.value {
		return []string{control.UntilPromoted, control.UntilDrained}
	}
	return nil
}

var (
	helpOption    = option{"help", "", "print this"}
	jsonOption    = option{"json", "", "print the result as one JSON object"}
	waitOption    = option{"wait", "WHEN", "promoted: until it is active (default); drained: until the old one has ended too"}
	appOption     = option{"app", "NAME", "of several apps, which one"}
	timeoutOption = option{"timeout", "D", "wait at most so long (30, 30s, 2m); the swap goes on after it"}
)

// app is which of several apps is meant: the one word of a command that takes no other. Not ok: there are too many words, and the code is
// the answer.
func (c *call) app() (name string, code int, ok bool) {
	if len(c.args) > 1 {
		return "", c.usage("%s takes the name of one app: got %q as well", c.command.name, c.args[1]), false
	}
	if len(c.args) == 1 {
		return c.args[0], 0, true
	}
	return "", 0, true
}

// parse splits the arguments of a command into options and words. Options may stand before or after words; "--" ends them. For a
// command that takes a command line the first word ends them.
func parse(c *command, args []string) (values map[string]string, words []string, err error) {
	values = map[string]string{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return values, append(words, args...), nil
		case arg == "-h":
			values["help"] = ""
		case strings.HasPrefix(arg, "-") && arg != "-":
			if args, err = parseOption(c, arg, args, values); err != nil {
				return nil, nil, err
			}
		case c.words:
			return values, append([]string{arg}, args...), nil
		default:
			words = append(words, arg)
		}
	}
	return values, words, nil
}

// parseOption takes one option, and its value from the arguments that follow, which it returns without what it took.
func parseOption(c *command, arg string, rest []string, values map[string]string) ([]string, error) {
	name, value, given := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
	for _, o := range append([]option{helpOption}, c.options...) {
		if o.name != name || !strings.HasPrefix(arg, "--") {
			continue
		}
		switch {
		case o.value == "" && given:
			return nil, fmt.Errorf("--%s takes no value: got %q", o.name, value)
		case o.optional() && given && value == "":
			return nil, fmt.Errorf("--%s= has no value: leave out the = or give one", o.name)
		case o.optional():
		case o.value != "" && !given && len(rest) == 0:
			return nil, fmt.Errorf("--%s needs a value", o.name)
		case o.value != "" && !given:
			value, rest = rest[0], rest[1:]
		}
		values[o.name] = value
		return rest, nil
	}
	return nil, fmt.Errorf("%s has no option %q", c.name, arg)
}

// duration reads a time as the variables do: a bare number is seconds. It must be more than nothing.
func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if _, bare := strconv.ParseFloat(s, 64); bare == nil {
		d, err = time.ParseDuration(s + "s")
	}
	if err != nil || d < time.Millisecond {
		return 0, fmt.Errorf("cannot use %q as a time: write 30, 30s or 1m30s", s)
	}
	return d, nil
}
