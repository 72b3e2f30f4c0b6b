package envcfg

import (
	"strconv"
	"strings"
)

// Fault is one thing that is wrong with the environment. The error of Load
// joins all of them; errors.As and the Unwrap() []error of the joined error
// give them singly.
type Fault struct {
	Name string // the variable, with prefix
	Text string // the whole sentence; holds no secret
}

// Error returns the sentence.
func (f *Fault) Error() string { return f.Text }

// problem is why a value cannot be used, kept in two parts so that it can be
// told without the value: detail may hold pieces of the value or hints made
// from it, why and remedy may not.
type problem struct {
	why    string // "not a signal name"
	detail string // `"HUPP", did you mean "HUP"?`
	remedy string // "write HUP, SIGHUP or 1"
}

func (p problem) text(secret bool) string {
	s := p.why
	if p.detail != "" && !secret {
		s += ": " + p.detail
	}
	if p.remedy != "" {
		s += ": " + p.remedy
	}
	return s
}

// problems is what a Decode method returns: every fault of one value.
type problems []problem

func (ps problems) Error() string {
	texts := make([]string, len(ps))
	for i, p := range ps {
		texts[i] = p.text(false)
	}
	return strings.Join(texts, "; ")
}

// orNil keeps an empty list from becoming a non-nil error.
func (ps problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

func refuse(why, detail, remedy string) error {
	return problems{{why: why, detail: detail, remedy: remedy}}
}

// quote quotes an outside value for a message, shortened when it is long: in bytes, or in the escapes that show them.
func quote(s string) string {
	const most = 120 // enough to recognise a value, short enough for one log line
	n := min(len(s), most)
	for len(strconv.Quote(s[:n])) > 2*most {
		n /= 2
	}
	if n < len(s) {
		return strconv.Quote(s[:n]) + "…"
	}
	return strconv.Quote(s)
}
