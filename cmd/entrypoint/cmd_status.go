package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

var statusCommand = &command{
	name:    "status",
	summary: "show generations, sockets and the last swap",
	options: []option{jsonOption},
	details: "The table is for people and may change; programs read --json, whose field \"schema\" says its version.",
	run: func(c *call) int {
		if len(c.args) > 0 {
			return c.usage("status takes no words: got %q", c.args[0])
		}
		r := c.ask(control.Request{Op: control.OpStatus})
		switch {
		case r.Code != codeDone || r.Status == nil:
			return c.end(r)
		case c.json:
			c.object(r.Status)
		default:
			c.text(statusPage(r.Status, time.Now()))
		}
		return codeDone
	},
}

// labelWidth is where the text behind a label begins.
const labelWidth = 12

// shownExited is how many ended generations the table shows: the last one is the news, the others are history.
const shownExited = 2

// statusPage is the status for people, as of now.
func statusPage(s *swap.Status, now time.Time) string {
	var b strings.Builder
	label := func(name, format string, a ...any) {
		b.WriteString(wrap(name, labelWidth, fmt.Sprintf(format, a...)))
	}
	label("state", "%s", stateLine(s))
	label("init", "entrypoint %s, pid %d, up %s", s.Version, s.PID, age(now.Sub(s.StartedAt)))
	label("command", "%s", commandLine(s.Command))
	if s.HandoffWhy != "" {
		label("handoff", "%s: %s", s.Handoff, s.HandoffWhy)
	} else {
		label("handoff", "%s", s.Handoff)
	}
	label("last swap", "%s", lastSwap(s, now))
	label("reaped", "%s, %s; %s", countOf(s.Reaped.Children, "child", "children"), countOf(s.Reaped.Orphans, "orphan", "orphans"),
		countOf(uint64(s.Restarts), "restart", "restarts"))
	if len(s.Generations) > 0 {
		b.WriteString("\n" + generationTable(s, now))
	}
	if len(s.Sockets) > 0 {
		b.WriteString("\n" + socketTable(s.Sockets))
	}
	if len(s.NotHeld) > 0 {
		b.WriteString("\n" + notHeldTable(s.NotHeld))
	}
	return b.String()
}

func stateLine(s *swap.Status) string {
	line := s.State
	if s.Candidate != 0 {
		line += fmt.Sprintf(", generation %d is the candidate", s.Candidate)
	}
	if s.Active != 0 {
		line += fmt.Sprintf(", generation %d is active", s.Active)
	}
	if s.Remembered {
		line += ", one more swap is to follow"
	}
	return line
}

func commandLine(argv []string) string {
	if len(argv) == 0 {
		return "none: waiting for `entrypoint run -- CMD`"
	}
	words := slices.Clone(argv)
	for i, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n\"'\\") {
			words[i] = fmt.Sprintf("%q", w)
		}
	}
	return strings.Join(words, " ")
}

func lastSwap(s *swap.Status, now time.Time) string {
	if len(s.LastSwaps) == 0 {
		return "none yet"
	}
	last := slices.MaxFunc(s.LastSwaps, func(a, b swap.SwapRecord) int { return a.At.Compare(b.At) })
	outcome := map[int]string{codeDone: "done", codeRolledBack: "rolled back"}[last.Code]
	if outcome == "" {
		outcome = "rejected"
		if last.Phase != "" {
			outcome += " in phase " + last.Phase
		}
	}
	return fmt.Sprintf("%s ago by %s, %s after %s: %s", age(now.Sub(last.At)), last.Cause, outcome,
		(time.Duration(last.ElapsedMS) * time.Millisecond).String(), last.Text)
}

// generationTable has the newest generation first.
func generationTable(s *swap.Status, now time.Time) string {
	generations := slices.Clone(s.Generations)
	slices.SortFunc(generations, func(a, b swap.Generation) int { return b.Number - a.Number })
	var rows [][]string
	exited := 0
	for _, g := range generations {
		if g.State == swap.Exited {
			if exited++; exited > shownExited {
				continue
			}
		}
		rows = append(rows, []string{fmt.Sprint(g.Number), string(g.State), orDash(g.PID), generationAge(g, now), connections(g.Load), note(g)})
	}
	return table([]column{{"GEN", true}, {"STATE", false}, {"PID", true}, {"AGE", true}, {"CONNECTIONS", false}, {"NOTE", false}}, rows, width)
}

// generationAge is how long it runs, or how long it ran.
func generationAge(g swap.Generation, now time.Time) string {
	if g.StartedAt.IsZero() {
		return "-"
	}
	if !g.EndedAt.IsZero() {
		now = g.EndedAt
	}
	return age(now.Sub(g.StartedAt))
}

// connections is what is left of a generation's traffic.
func connections(l *handoff.Load) string {
	switch {
	case l == nil:
		return "-"
	case !l.Known:
		return "not known"
	}
	parts := []string{fmt.Sprintf("%d open", l.Open)}
	if l.Busy > 0 {
		parts = append(parts, fmt.Sprintf("%d busy", l.Busy))
	}
	if waiting := l.Queued + l.HalfOpen; waiting > 0 {
		parts = append(parts, fmt.Sprintf("%d waiting", waiting))
	}
	return strings.Join(parts, ", ")
}

// note is the most telling thing that is known of a generation.
func note(g swap.Generation) string {
	for _, text := range []string{g.Reason, g.Exit, g.StatusText} {
		if text != "" {
			return text
		}
	}
	return ""
}

func socketTable(sockets []handoff.SocketStatus) string {
	var rows [][]string
	for _, s := range sockets {
		mode := s.Mode
		if s.Learned {
			mode += ", learned"
		}
		if s.Why != "" {
			mode += ": " + s.Why
		}
		rows = append(rows, []string{s.Name, s.Address, slots(s.Slots), mode})
	}
	return table([]column{{"SOCKET", false}, {"ADDRESS", false}, {"TRAFFIC", false}, {"MODE", false}}, rows, width)
}

func notHeldTable(natives []handoff.Native) string {
	var rows [][]string
	for _, n := range natives {
		rows = append(rows, []string{n.Address, n.Why})
	}
	return table([]column{{"NOT HELD", false}, {"WHY", false}}, rows, width)
}

// slots says which generation new connections go to, and where connections wait.
func slots(all []handoff.SlotStatus) string {
	var parts []string
	for _, s := range all {
		to := "all generations"
		if s.Generation != 0 {
			to = fmt.Sprintf("gen %d", s.Generation)
		}
		if s.Queue > 0 {
			to += fmt.Sprintf(" (%d waiting)", s.Queue)
		}
		if s.Current {
			parts = slices.Insert(parts, 0, to)
		} else if s.Queue > 0 {
			parts = append(parts, to)
		}
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func orDash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func countOf(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
