package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// labelWidth is where the text behind a label begins.
const labelWidth = 12

// shownExited is how many ended generations the table shows: the last one is the news, the others are history.
const shownExited = 2

// page collects the labelled lines of a page of so many columns. No line of it is longer.
type page struct {
	strings.Builder
	columns int
}

// label writes a line; without a text nothing.
func (b *page) label(name, format string, a ...any) {
	if text := fmt.Sprintf(format, a...); text != "" {
		b.WriteString(wrapTo(b.columns, name, labelWidth, text))
	}
}

// statusPage is the status for people, as of now.
func statusPage(s *swap.Status, now time.Time, columns int) string {
	b := &page{columns: columns}
	b.label("app", "%s", s.App)
	b.label("state", "%s", stateLine(s))
	b.label("next", "%s", strings.Join(nextSteps(s), "; or "))
	b.label("init", "entrypoint %s, pid %d, up %s", s.Version, s.PID, age(now.Sub(s.StartedAt)))
	b.label("command", "%s", commandLine(s.Command))
	b.label("handoff", "%s", withWhy(s.Handoff, s.HandoffWhy))
	b.label("proxy", "%s", proxyLine(s.Proxy))
	b.label("artifact", "%s", artifactLine(s))
	b.label("kept", "%s", keptLine(s))
	b.swaps(s, now)
	b.label("reaped", "%s, %s; %s", countOf(s.Reaped.Children, "child", "children"), countOf(s.Reaped.Orphans, "orphan", "orphans"),
		countOf(uint64(s.Restarts), "restart", "restarts"))
	if len(s.Generations) > 0 {
		b.WriteString("\n")
		b.generations(s, now)
		b.workers(s, now)
	}
	if len(s.Sockets) > 0 {
		b.WriteString("\n")
		b.sockets(s.Sockets)
	}
	if len(s.NotHeld) > 0 {
		b.WriteString("\n")
		b.notHeld(s.NotHeld)
	}
	return b.String()
}

func withWhy(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
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

// nextSteps are the commands that would change something now, most fitting first: none where all is well.
func nextSteps(s *swap.Status) []string {
	steps := stepsNext(s)
	if s.App == "" {
		return steps
	}
	names := strings.NewReplacer("entrypoint run", "entrypoint run --app "+s.App, "entrypoint promote", "entrypoint promote "+s.App, "entrypoint abort", "entrypoint abort "+s.App,
		"entrypoint reload", "entrypoint reload "+s.App, "entrypoint rollback", "entrypoint rollback "+s.App, "entrypoint restart", "entrypoint restart "+s.App)
	for i, step := range steps {
		steps[i] = names.Replace(step)
	}
	return steps
}

func stepsNext(s *swap.Status) []string {
	active, candidate := generation(s, s.Active), generation(s, s.Candidate)
	last := newest(s.LastSwaps, func(swap.SwapRecord) bool { return true })
	switch {
	case s.State == "stopping":
		return nil
	case len(s.Command) == 0 && s.Active == 0 && s.Candidate == 0:
		return []string{"`entrypoint run -- CMD` starts an app"}
	case candidate != nil && candidate.Share != "" && candidate.StepEnds.IsZero():
		return []string{"`entrypoint promote` gives the candidate more of the traffic", "`entrypoint abort` takes it out"}
	case candidate != nil && s.Active != 0:
		return []string{"`entrypoint abort` cancels the swap"}
	case s.State == "backoff", s.State == "waiting":
		return append([]string{"`entrypoint reload` starts it now"}, goBack(s)...)
	case active != nil && active.Unhealthy != "":
		return append(goBack(s), "`entrypoint restart` starts the same bytes again")
	case last != nil && last.Code != codeDone && s.Barred != "":
		return []string{"put other bytes there and `entrypoint reload`", "`entrypoint reload --force` takes those that were rolled back"}
	case last != nil && last.Code != codeDone && s.Active != 0:
		return []string{"mend what was refused and `entrypoint reload`"}
	}
	return nil
}

func goBack(s *swap.Status) []string {
	if len(s.Kept) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("`entrypoint rollback` goes back to the bytes of generation %d", s.Kept[0].Generation)}
}

// generation is the one of that number, nil if there is none.
func generation(s *swap.Status, n int) *swap.Generation {
	if i := slices.IndexFunc(s.Generations, func(g swap.Generation) bool { return n != 0 && g.Number == n }); i >= 0 {
		return &s.Generations[i]
	}
	return nil
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

// artifactLine says which bytes run.
func artifactLine(s *swap.Status) string {
	g := generation(s, s.Active)
	if g == nil || g.Artifact == nil {
		return ""
	}
	a := g.Artifact
	text := fmt.Sprintf("%s, %s, %s", g.Path, shortHash(g.SHA256), sizeOf(a.Size))
	if a.Source != "file" {
		text += ", " + a.Source
	}
	text += ", runs from " + map[string]string{"memfd": "a private copy in memory", "file": "a private copy in the state directory", "path": "its path"}[a.Exec]
	if a.Why != "" {
		text += " (" + a.Why + ")"
	}
	for _, note := range []string{a.Verified, a.Comment} {
		if note != "" {
			text += ", " + note
		}
	}
	if s.Drift {
		text += "; drift: the container started with " + shortHash(s.Image)
	}
	return text
}

// keptLine says what a rollback can go back to.
func keptLine(s *swap.Status) string {
	var parts []string
	for _, k := range s.Kept {
		parts = append(parts, fmt.Sprintf("%s of generation %d", shortHash(k.SHA256), k.Generation))
	}
	if s.Barred != "" {
		parts = append(parts, "rolled back: "+shortHash(s.Barred))
	}
	if s.Memory > 0 {
		parts = append(parts, sizeOf(s.Memory)+" of memory in all")
	}
	return strings.Join(parts, ", ")
}

// shortHash is what people compare.
func shortHash(sum string) string {
	if sum == "" {
		return "not hashed yet"
	}
	return "sha256 " + hashHead(sum)
}

// hashHead is so much of a hash as people compare.
func hashHead(sum string) string { return sum[:min(12, len(sum))] }

// sizeOf is a size for people.
func sizeOf(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// generations has the newest one first. What a column has no room for stands below its line.
func (b *page) generations(s *swap.Status, now time.Time) {
	all := slices.Clone(s.Generations)
	sort.Slice(all, func(i, j int) bool { return all[i].Number > all[j].Number })
	var rows [][]string
	var notes []string
	exited := 0
	for _, g := range all {
		if g.State == swap.Exited {
			if exited++; exited > shownExited {
				continue
			}
		}
		rows = append(rows, []string{fmt.Sprint(g.Number), string(g.State), orDash(g.PID), generationAge(g, now), traffic(s, g), openOf(g.Load), orNone(hashHead(g.SHA256))})
		notes = append(notes, note(g, now))
	}
	b.tableWithNotes([]column{{"GEN", true}, {"STATE", false}, {"PID", true}, {"AGE", true}, {"TRAFFIC", true}, {"OPEN", true}, {"SHA256", false}}, rows, notes)
}

// noteIndent is where the notes below the lines of a table begin.
const noteIndent = 7

// tableWithNotes lays a table out with a text below each line that has one.
func (b *page) tableWithNotes(columns []column, rows [][]string, notes []string) {
	lines := strings.SplitAfter(table(columns, rows, b.columns), "\n")
	for i, line := range lines {
		b.WriteString(line)
		if n := i - 1; n >= 0 && n < len(notes) && notes[n] != "" { // the head has none
			b.WriteString(wrapTo(b.columns, "", noteIndent, notes[n]))
		}
	}
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

// traffic is the part of the new connections that goes to a generation, where all addresses agree about it.
func traffic(s *swap.Status, g swap.Generation) string {
	least, most, known := 2.0, -1.0, false
	for _, socket := range s.Sockets {
		for _, slot := range socket.Slots {
			if slot.Generation == 0 && slot.Current {
				return "-" // one socket for all: nobody knows
			}
			known = known || slot.Generation == g.Number
		}
		portion := 0.0
		for _, slot := range socket.Slots {
			if slot.Generation == g.Number {
				portion += slot.Portion
			}
		}
		least, most = min(least, portion), max(most, portion)
	}
	switch {
	case !known || most == 0:
		return "-"
	case least != most:
		return fmt.Sprintf("<=%.3g%%", 100*most)
	}
	return fmt.Sprintf("%.3g%%", 100*most)
}

// openOf is the number of connections that are left of a generation.
func openOf(l *handoff.Load) string {
	switch {
	case l == nil:
		return "-"
	case !l.Known:
		return "?"
	}
	return fmt.Sprint(l.Open)
}

// note is what is known of a generation beside its line: what its connections do, and the most telling thing.
func note(g swap.Generation, now time.Time) string {
	var parts []string
	if l := g.Load; l != nil && l.Known && l.Busy+l.Queued+l.HalfOpen > 0 {
		text := fmt.Sprintf("%d of its connections are busy", l.Busy)
		if waiting := l.Queued + l.HalfOpen; waiting > 0 {
			text += fmt.Sprintf(", %d wait to be accepted", waiting)
		}
		parts = append(parts, text)
	}
	if text := telling(g, now); text != "" {
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// telling is the most telling thing that is known of a generation.
func telling(g swap.Generation, now time.Time) string {
	switch {
	case g.Share != "" && g.StepEnds.IsZero():
		return g.Share + " of new connections, until it is promoted"
	case g.Share != "":
		return fmt.Sprintf("%s of new connections, until %s, in %s", g.Share, g.StepEnds.Format(time.TimeOnly), age(g.StepEnds.Sub(now)))
	case g.Unhealthy != "" && g.EndedAt.IsZero():
		return "health: " + g.Unhealthy
	case g.State == swap.Stopping && !g.SignalledAt.IsZero():
		return "got its stop signal " + age(now.Sub(g.SignalledAt)) + " ago"
	}
	for _, text := range []string{g.Reason, g.Exit, g.StatusText} {
		if text != "" {
			return text
		}
	}
	return ""
}

// sockets says where each address leads. Where all of it has no room, the addresses stand below the names.
func (b *page) sockets(all []handoff.SocketStatus) {
	var rows, short [][]string
	var notes, long []string
	for _, s := range all {
		mode := s.Mode
		if s.Learned {
			mode += ", learned"
		}
		to := slots(s.Slots)
		rows, notes = append(rows, []string{s.Name, s.Address, to, mode}), append(notes, s.Why)
		short, long = append(short, []string{s.Name, to, mode}), append(long, withWhy(s.Address, s.Why))
	}
	columns := []column{{"SOCKET", false}, {"ADDRESS", false}, {"TRAFFIC", false}, {"MODE", false}}
	if strings.Contains(table(columns, rows, b.columns), "…\n") {
		columns, rows, notes = slices.Delete(columns, 1, 2), short, long
	}
	b.tableWithNotes(columns, rows, notes)
}

func (b *page) notHeld(natives []handoff.Native) {
	var rows [][]string
	var notes []string
	for _, n := range natives {
		rows = append(rows, []string{n.Address})
		notes = append(notes, n.Why)
	}
	b.tableWithNotes([]column{{"NOT HELD", false}}, rows, notes)
}

// slots says which generation new connections go to, and where connections wait.
func slots(all []handoff.SlotStatus) string {
	var parts []string
	for _, s := range together(all) {
		to := "all generations"
		if s.Generation != 0 {
			to = fmt.Sprintf("gen %d", s.Generation)
		}
		if s.workers > 1 {
			to += fmt.Sprintf(" (%d workers)", s.workers)
		}
		if s.Portion > 0 && s.Portion < 0.9999 {
			to += fmt.Sprintf(" %.3g%%", 100*s.Portion)
		}
		if s.Queue > 0 {
			to += fmt.Sprintf(" (%d waiting)", s.Queue)
		}
		if s.Current {
			parts = slices.Insert(parts, 0, to)
		} else if s.Queue > 0 || s.Portion > 0 {
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

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func countOf(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
