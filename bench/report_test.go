package main

import (
	"encoding/xml"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func parse(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// verdictRows are the cells of the rows below "## Budgets".
func verdictRows(markdown string) (out [][]string) {
	_, after, _ := strings.Cut(markdown, "## Budgets\n")
	section, _, _ := strings.Cut(after, "\n## ")
	for row := range strings.Lines(section) {
		if cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), " | "); len(cells) == 4 && cells[0] != " what" {
			out = append(out, cells)
		}
	}
	return out
}

// everyBudget fails unless each budget has a row, with a limit and a verdict.
func everyBudget(t *testing.T, markdown string) {
	t.Helper()
	rows := verdictRows(markdown)
	for _, b := range budgets {
		found := false
		for _, cells := range rows {
			found = found || strings.HasPrefix(strings.TrimSpace(cells[0]), b.what) && cells[1] == b.text() && cells[3] != ""
		}
		if !found {
			t.Errorf("no row for the budget %q (%s)", b.what, b.text())
		}
	}
}

// TestEveryBudgetHasARow: also of what was not measured, and of what failed.
func TestEveryBudgetHasARow(t *testing.T) {
	r := report{quick: true}
	everyBudget(t, r.markdown())
	b := &bench{report: &r}
	b.judge("start", "", count(3))
	b.judge("requests", "inherited", figure{0.97, 0.96, 0.99})
	b.judge("requests", "bound", figure{0.99, 0.985, 1})
	everyBudget(t, r.markdown())
	if n := len(verdictRows(r.markdown())); n != len(budgets)+1 {
		t.Errorf("want a row for each budget and one more, got %d", n)
	}
}

// TestReport looks at the report that is there: a row for each budget, verdicts that its numbers bear out, and every plot.
func TestReport(t *testing.T) {
	text, err := os.ReadFile("report.md")
	if err != nil {
		t.Fatal(err)
	}
	everyBudget(t, string(text))
	for _, cells := range verdictRows(string(text)) {
		if cells[2] == "-" {
			continue
		}
		value := parse(t, firstNumber.FindString(cells[2]))
		limit := parse(t, firstNumber.FindString(cells[1]))
		b := budget{least: strings.HasPrefix(cells[1], ">="), limit: limit}
		missed := strings.Contains(cells[3], "missed")
		// A number that is cut to three digits may seem to lie on its limit.
		if want := strings.Contains(b.verdict(count(value)), "missed"); missed != want && value != limit {
			t.Errorf("%q: %q is not the verdict on %s of %s", cells[0], cells[3], cells[2], cells[1])
		}
	}
	plots := regexp.MustCompile(`!\[[^]]*\]\(([^)]*)\)`).FindAllStringSubmatch(string(text), -1)
	if len(plots) < 6 {
		t.Errorf("want a plot of each amount that grows, got %d", len(plots))
	}
	for _, m := range plots {
		picture, err := os.ReadFile(m[1])
		if err != nil {
			t.Error(err)
			continue
		}
		if err := xml.Unmarshal(picture, new(struct{ XMLName xml.Name })); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
}

func TestVerdict(t *testing.T) {
	most, least, none := budget{limit: 4.5, unit: "ms"}, budget{limit: 0.98, least: true}, budget{}
	for _, c := range []struct {
		budget
		figure
		want string
	}{
		{most, count(4.5), "kept"}, {most, count(4.51), "**missed**"}, {most, figure{4, 3, 5}, "kept, the limit is within the spread"},
		{most, figure{5, 4, 6}, "**missed**, the limit is within the spread"}, {least, count(0.98), "kept"}, {least, count(0.979), "**missed**"},
		{least, figure{1, 0.99, 1.2}, "kept"}, {none, count(0), "kept"}, {none, count(1), "**missed**"}, {none, figureOf(nil), "not measured"},
	} {
		if got := c.verdict(c.figure); got != c.want {
			t.Errorf("%v of %s: want %q, got %q", c.figure, c.budget.text(), c.want, got)
		}
	}
	if most.text() != "<= 4.50 ms" || least.text() != ">= 0.980" || none.text() != "0" {
		t.Errorf("texts: %q %q %q", most.text(), least.text(), none.text())
	}
}

// TestProxyLines reads what the measurement of the proxies writes for people.
func TestProxyLines(t *testing.T) {
	b := &bench{report: &report{}}
	b.judgeProxy([]line{
		{"proxy, tcp, keep-alive", "9000/s 120 us", "HAProxy 8000/s 130 us, nginx 8100/s 128 us", "1.13, 1.11", ">= 1.0 of HAProxy"},
		{"proxy, tcp, a connection each", "9000/s 120 us", "nginx 8100/s 128 us", "1.11", ">= 1.0 of HAProxy"},
		{"proxy, http, keep-alive", "9000/s 120 us", "HAProxy 8000/s 130 us", "1.13", "-"},
	})
	if got := b.report.judged; len(got) != 1 || got[0] != (judged{"tcp-proxy", "keep-alive", count(1.13)}) {
		t.Errorf("want the one ratio to HAProxy in TCP mode, got %+v", got)
	}
}

// TestSections: every measurement has a place in the report, and a cell does not break its table.
func TestSections(t *testing.T) {
	r := report{failed: []string{"swap: nobody\nanswers"}}
	placed := map[string]bool{}
	for _, title := range titles {
		for _, name := range title.names {
			placed[name] = true
		}
	}
	for _, name := range names() {
		if !placed[name] {
			t.Errorf("the report has no place for %q", name)
		}
		r.sections = append(r.sections, &part{name: name, lines: []line{{"row of " + name, "a|b\nc", "-", "-", "-"}}})
	}
	text := r.markdown()
	for _, name := range names() {
		if !strings.Contains(text, `| row of `+name+` | a\|b c | - | - | - |`) {
			t.Errorf("no row of %s", name)
		}
	}
	if !strings.Contains(text, "- swap: nobody answers\n") {
		t.Error("it does not say what failed")
	}
}

// TestCauses: what is missed says why, once, and what is kept says nothing.
func TestCauses(t *testing.T) {
	b := &bench{report: &report{}}
	b.judge("start", "", count(9))
	b.judge("trigger", "one", count(4))
	if text := b.report.markdown(); strings.Count(text, "**Missed: ") != 1 || !strings.Contains(text, "**Missed: start overhead as PID 1.**") {
		t.Errorf("want the cause of one budget:\n%s", text)
	}
	b.judge("trigger", "two", count(6))
	b.judge("trigger", "three", count(7))
	if text := b.report.markdown(); strings.Count(text, "**Missed: trigger") != 1 {
		t.Errorf("want the cause once:\n%s", text)
	}
}

func TestParsePhases(t *testing.T) {
	got := parsePhases("{\"msg\":\"swap\",\"from\":0,\"phases\":{\"check\":\"9ms\"}}\nnot json\n{\"msg\":\"generation\",\"from\":\"\"}\n" +
		"{\"msg\":\"swap\",\"from\":1,\"phases\":{\"check\":\"2.5ms\",\"start\":\"24µs\"}}\n")
	if len(got) != 2 || len(got["check"]) != 1 || got["check"][0] != 2.5 || got["start"][0] != 0.024 {
		t.Errorf("want the phases of the one swap, got %v", got)
	}
}

func TestChoose(t *testing.T) {
	if got, err := choose(""); err != nil || len(got) != len(all()) {
		t.Errorf("all: %d, %v", len(got), err)
	}
	if got, err := choose("swap,start"); err != nil || len(got) != 2 || got[0].name != "swap" {
		t.Errorf("two: %v, %v", got, err)
	}
	if _, err := choose("start,stop"); err == nil || !strings.Contains(err.Error(), `"stop"`) {
		t.Errorf("want the one that is not there named, got %v", err)
	}
}
