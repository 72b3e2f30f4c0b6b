package pages

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Step is what is typed at once, and what shall come of it.
type Step struct {
	Line    int
	Command string
	Output  string // what the page shows
	Compare bool   // the output is shown, so it counts
	May     bool   // the command may fail: the page shows the status behind it, by `echo $?`
}

// Steps are the commands of a block. A block of `sh` is one step, all of whose commands have to succeed. In one of `console` each
// line that begins with `$ ` is one, together with those behind it that begin with `> `; what follows is its output.
func (b *Block) Steps() ([]Step, error) {
	if b.Language == "sh" {
		return []Step{{Line: b.Line, Command: b.Text}}, nil
	}
	var all []Step
	for i, line := range strings.Split(strings.TrimSuffix(b.Text, "\n"), "\n") {
		n := len(all)
		switch command, ok := strings.CutPrefix(line, "$ "); {
		case ok:
			all = append(all, Step{Line: b.Line + i, Command: command + "\n", Compare: true})
			if n > 0 {
				all[n-1].May = strings.HasPrefix(command, "echo $?")
			}
		case n == 0:
			return nil, fmt.Errorf("line %d: a block of console begins with a command: `$ …`", b.Line+i)
		case strings.HasPrefix(line, "> ") && all[n-1].Output == "":
			all[n-1].Command += strings.TrimPrefix(line, "> ") + "\n"
		default:
			all[n-1].Output += line + "\n"
		}
	}
	return all, nil
}

// Matches compares what a command wrote, on one stream or several, with what the page shows. The streams may be mixed in any way, for
// `docker exec` does not keep their order; the lines of each come in theirs. `…` in a line stands for anything in that line, a line of
// nothing but `…` for any lines. Space at the end of lines, and empty lines at the end, do not count.
func Matches(shown string, streams ...string) bool {
	m := matcher{shown: trimmed(shown), failed: map[string]bool{}}
	for _, text := range streams {
		m.streams = append(m.streams, trimmed(text))
	}
	return m.from(0, make([]int, len(m.streams)))
}

// matcher tries the ways in which the streams can be mixed.
type matcher struct {
	shown   []string
	streams [][]string
	failed  map[string]bool // from these positions it is not to be done
}

// from tells whether the shown lines from i on are what the streams have from their positions on.
func (m *matcher) from(i int, at []int) bool {
	here := fmt.Sprint(i, at)
	if m.failed[here] {
		return false
	}
	if m.step(i, at) {
		return true
	}
	m.failed[here] = true
	return false
}

func (m *matcher) step(i int, at []int) bool {
	any := i < len(m.shown) && strings.TrimSpace(m.shown[i]) == "…"
	if any && m.from(i+1, at) {
		return true
	}
	ended := true
	for n, lines := range m.streams {
		if at[n] == len(lines) {
			continue
		}
		ended = false
		next := slices.Clone(at)
		next[n]++
		switch {
		case any && m.from(i, next):
			return true
		case !any && i < len(m.shown) && sameLine(m.shown[i], lines[at[n]]) && m.from(i+1, next):
			return true
		}
	}
	return ended && i == len(m.shown)
}

// sameLine compares one line.
func sameLine(shown, got string) bool {
	pieces := strings.Split(shown, "…")
	for i := range pieces {
		pieces[i] = regexp.QuoteMeta(pieces[i])
	}
	return regexp.MustCompile("^" + strings.Join(pieces, ".*") + "$").MatchString(got)
}

// trimmed are the lines without space at their end, up to the last that has something.
func trimmed(text string) []string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\r")
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

var held = regexp.MustCompile(`^not, (.+); held by (Test[A-Z]\w*(?:/[\w./-]+)?|make [a-z0-9-]+)$`)

// NotRun reads `not, REASON; held by TestX`, or `held by make demo`: why a block is not run, and what shows instead that it is right.
func NotRun(run string) (reason, by string, ok bool) {
	m := held.FindStringSubmatch(run)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}
