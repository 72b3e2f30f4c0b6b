package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// option is an option of a command, written --name, or --name VALUE, or --name=VALUE.
type option struct {
	name  string
	value string // what the value is called in help; empty: a switch
	help  string
}

var (
	helpOption    = option{"help", "", "print this"}
	jsonOption    = option{"json", "", "print the result as one JSON object"}
	timeoutOption = option{"timeout", "D", "wait at most so long (30, 30s, 2m); the swap goes on after it"}
)

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
