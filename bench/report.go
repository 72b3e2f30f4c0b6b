package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// budget is what the design allows, or asks for, of one number.
type budget struct {
	id, what string
	least    bool // the limit is the least; else the most
	limit    float64
	unit     string
	absent   string // why there may be no number
	cause    string // why it may be missed
}

// budgets are the design's, in its order. A budget with several numbers has a row for each.
var budgets = []budget{
	{id: "lost", what: "failed connections over 1,000 swaps under load, app killed without grace", limit: 0},
	{id: "graceful", what: "failed keep-alive requests over 100 swaps, package `graceful`", limit: 0},
	{id: "http-proxy", what: "failed keep-alive requests over 100 swaps, HTTP proxy", limit: 0, absent: noProxy},
	{id: "requests", what: "requests/s through a held socket : the app alone", least: true, limit: 0.98,
		cause: "The init is not on the way of a request, so there is no reason but the machine's: with more to do than processors, turns of a quarter of a second are of unequal worth. The processor time of a request, below, hardly depends on that; look at it and at the spread, and measure again when it is calm."},
	{id: "tcp-proxy", what: "requests/s, TCP proxy : HAProxy in TCP mode", least: true, limit: 1, absent: noProxy,
		cause: "On connections that stay, 0.87 to 0.98 from run to run, a request is four reads and two writes, where HAProxy has two and two (strace): Go's poller is told of edges, so a goroutine may wait only after a read that found nothing. A new connection costs the proxy about forty system calls, counted by strace: of Go's net package six options, three names and four changes of a poll set, and five futexes that hand it from thread to thread. What carries bytes is not more than read and write."},
	{id: "trigger", what: "trigger to first request, beyond the app's own start", limit: 5, unit: "ms",
		cause: "The largest part is the private copy of the program, half a millisecond a MiB and more, most of it for the pages: of five ways of copying none was found to be faster. It is what allows the path to be overwritten; `ENTRYPOINT_EXEC=path` saves it. The phases are below; the traffic goes to the new one at the beginning of the last."},
	{id: "steer", what: "steering switch", limit: 0.1, unit: "ms"},
	{id: "start", what: "start overhead as PID 1", limit: 4.5, unit: "ms",
		cause: "*Bare Go* is the part of the language. Of what is ours, a profile of 150 starts shows no large part: the runtime setting itself up 16 % of all samples, initialization of packages 11 %, fork and exec of the app 6 %, the configuration 6 %; page faults, of which there are twice as many as in bare Go, " +
			"are a quarter of it all and in each of these."},
	{id: "forward", what: "signal forwarded, median", limit: 200, unit: "us"},
	{id: "spurious", what: "spurious signals at the app under load", limit: 0},
	{id: "idle-memory", what: "idle: resident memory", limit: 6, unit: "MiB"},
	{id: "idle-wakeups", what: "idle: wakeups", limit: 0},
	{id: "orphans", what: "20,000 orphans released at once : tini's time", limit: 1},
	{id: "size", what: "stripped binary", limit: 10, unit: "MiB"},
	{id: "draining", what: "connections draining at once while a swap goes on", least: true, limit: 50000},
}

const noProxy = "this build has no proxy, or its yardstick is not installed"

// judged is one number under a budget.
type judged struct {
	budget, label string
	figure
}

// verdict compares the median with the limit, and says when the spread of the rounds has the limit in it: then another run may say otherwise.
func (b budget) verdict(f figure) string {
	if math.IsNaN(f.value) {
		return "not measured"
	}
	text := "kept"
	if b.least && f.value < b.limit || !b.least && f.value > b.limit {
		text = "**missed**"
	}
	if f.low < b.limit && b.limit < f.high {
		text += ", the limit is within the spread"
	}
	return text
}

func (b budget) text() string {
	sign := "<="
	if b.least {
		sign = ">="
	}
	if b.limit == 0 && !b.least {
		return "0"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", sign, number(b.limit), b.unit))
}

// table is a part of the report. Plots are the names of files beside it.
type table struct {
	title string
	head  []string
	rows  [][]string
	notes []string
	plots []plot
}

// plot is a file of the report.
type plot struct {
	name string
	chart
}

// report is what has been measured.
type report struct {
	machine  [][2]string
	quick    bool
	judged   []judged
	sections []*part
	failed   []string
}

// part is what one measurement has added.
type part struct {
	name   string
	lines  []line
	tables []table
}

// judge takes a number for the budget's row; label says which, where there are several.
func (b *bench) judge(id, label string, f figure) {
	b.report.judged = append(b.report.judged, judged{id, label, f})
}

// add puts a table below the rows of the measurement that runs.
func (b *bench) add(t table) {
	s := b.report.sections[len(b.report.sections)-1]
	s.tables = append(s.tables, t)
}

// Titles of sections, each with its measurements in the order of the report.
var titles = []struct {
	title, about string
	names        []string
}{
	{"Beside the plain inits", "What every init does. The yardsticks are Debian's packages; *bare Go* is the same job written plainly in Go (bench/bareinit), so it is what the language costs. " +
		"All of them in turns; a time is a median with its quartiles, less that of the app without an init.",
		[]string{"start", "size", "idle", "forward", "spurious", "orphans"}},
	{"What handing sockets over costs", "The same app alone, under an init that leaves it alone, and with its socket inherited or held under its own bind; all of them up, asked in turns.",
		[]string{"requests", "starts", "rehearsal", "calls"}},
	{"Proxy", "The same app behind the built-in proxy, HAProxy and nginx, asked in turns.", []string{"proxy"}},
	{"Lost connections", "Clients that never try again; every failure is counted by its kind. New connections for each request, unless a row says keep-alive.", []string{"lost", "graceful"}},
	{"Swapping", "", []string{"swap", "steering", "judging", "generations"}},
	{"As the work grows", "Memory is that of the init alone, after it has given back what it does not need.", []string{"sockets", "workers", "swaps", "draining"}},
	{"Inside", "", []string{"knobs", "startup", "packages"}},
}

// markdown is the whole report.
func (r *report) markdown() string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Measured\n\n<!-- Generated by make bench -->\n\nMade by `make bench` in one run on one machine, with each yardstick measured in turns with ours. "+
		"Only ratios and counts mean anything elsewhere: a time is given to be compared with the time beside it. Spreads are quartiles.\n\n")
	if r.quick {
		out.WriteString("**This is a quick run: a tenth of the rounds, good for seeing that every row works.**\n\n")
	}
	rows(&out, []string{"machine", ""}, pairsOf(r.machine))
	out.WriteString("\n## Budgets\n\n")
	rows(&out, []string{"what", "budget", "measured", "verdict"}, r.verdicts())
	r.causes(&out)
	for _, t := range titles {
		r.section(&out, t.title, t.about, t.names)
	}
	if len(r.failed) > 0 {
		out.WriteString("\n## Not measured\n\n")
		for _, f := range r.failed {
			fmt.Fprintf(&out, "- %s\n", oneLine(f))
		}
	}
	return out.String()
}

func pairsOf(list [][2]string) (out [][]string) {
	for _, p := range list {
		out = append(out, p[:])
	}
	return out
}

// verdicts has at least one row for each budget.
func (r *report) verdicts() (out [][]string) {
	for _, b := range budgets {
		found := false
		for _, j := range r.judged {
			if j.budget != b.id {
				continue
			}
			found = true
			what := b.what
			if j.label != "" {
				what += ": " + j.label
			}
			out = append(out, []string{what, b.text(), j.text(b.unit), b.verdict(j.figure)})
		}
		if !found {
			why := "not measured"
			if b.absent != "" {
				why += ": " + b.absent
			}
			out = append(out, []string{b.what, b.text(), "-", why})
		}
	}
	return out
}

// causes says of each budget that is missed why.
func (r *report) causes(out *bytes.Buffer) {
	for _, b := range budgets {
		for _, j := range r.judged {
			if j.budget == b.id && b.cause != "" && strings.Contains(b.verdict(j.figure), "missed") {
				fmt.Fprintf(out, "\n**Missed: %s.** %s\n", b.what, b.cause)
				break
			}
		}
	}
}

func (r *report) section(out *bytes.Buffer, title, about string, names []string) {
	var lines [][]string
	var tables []table
	for _, name := range names {
		for _, s := range r.sections {
			if s.name != name {
				continue
			}
			for _, l := range s.lines {
				lines = append(lines, []string{l.what, l.value, l.yardstick, l.ratio, l.budget})
			}
			tables = append(tables, s.tables...)
		}
	}
	if len(lines)+len(tables) == 0 {
		return
	}
	fmt.Fprintf(out, "\n## %s\n", title)
	if about != "" {
		fmt.Fprintf(out, "\n%s\n", about)
	}
	if len(lines) > 0 {
		out.WriteString("\n")
		rows(out, []string{"what", "entrypoint", "yardstick", "ratio", "budget"}, lines)
	}
	for _, t := range tables {
		fmt.Fprintf(out, "\n### %s\n\n", t.title)
		rows(out, t.head, t.rows)
		for _, note := range t.notes {
			fmt.Fprintf(out, "\n%s\n", note)
		}
		for _, p := range t.plots {
			fmt.Fprintf(out, "\n![%s](%s)\n", p.title, p.name)
		}
	}
}

func rows(out *bytes.Buffer, head []string, body [][]string) {
	fmt.Fprintf(out, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range body {
		var cells []string
		for _, cell := range row {
			cells = append(cells, strings.ReplaceAll(oneLine(cell), "|", `\|`))
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
	}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// write puts the report and its plots into a folder.
func (r *report) write(dir string) error {
	for _, s := range r.sections {
		for _, t := range s.tables {
			for _, p := range t.plots {
				if err := os.WriteFile(filepath.Join(dir, p.name), []byte(p.svg()), 0o644); err != nil {
					return err
				}
			}
		}
	}
	return os.WriteFile(filepath.Join(dir, "report.md"), []byte(r.markdown()), 0o644)
}

var firstNumber = regexp.MustCompile(`-?[0-9]+(?:\.[0-9]+)?`)

// judgeProxy takes the ratios to HAProxy out of the lines of the proxies, which are for people.
func (b *bench) judgeProxy(lines []line) {
	for _, l := range lines {
		rest, ok := strings.CutPrefix(l.what, "proxy, tcp, ")
		if !ok || !strings.HasPrefix(l.yardstick, "HAProxy") {
			continue
		}
		ratio, err := strconv.ParseFloat(firstNumber.FindString(l.ratio), 64)
		if err == nil {
			b.judge("tcp-proxy", rest, count(ratio))
		}
	}
}
