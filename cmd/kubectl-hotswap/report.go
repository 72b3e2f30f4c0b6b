package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The words of the column RESULT.
const (
	done      = "done"
	unchanged = "unchanged" // these bytes ran already
	refused   = "refused"
	busy      = "busy"
	noAnswer  = "no answer"
	tookBack  = "rolled back" // by the pod itself, after its promotion
	timedOut  = "timed out"
	gone      = "gone"
	skipped   = "skipped" // not Ready
	untouched = "not touched"
	undone    = "put back"
	notUndone = "not put back"
	would     = "would swap"
)

// resultOf is the word for a code.
var resultOf = map[int]string{codeRejected: refused, codeUsage: refused, codeBusy: busy, codeNoInit: noAnswer, codeRolledBack: tookBack, codeTimeout: timedOut}

// report is what --json prints. Fields may be added.
type report struct {
	Schema int      `json:"schema"` // 1
	Action string   `json:"action"`
	Target string   `json:"target"`
	SHA256 string   `json:"sha256,omitempty"` // of the pushed program
	Code   int      `json:"code"`             // the exit code
	Text   string   `json:"text,omitempty"`
	Pods   []*row   `json:"pods"`
	Notes  []string `json:"notes,omitempty"`
}

// row is one pod of it.
type row struct {
	pod        pod
	open       bool            // what became of it is not known, or not over
	Pod        string          `json:"pod"`
	Node       string          `json:"node,omitempty"`
	Container  string          `json:"container"`
	Result     string          `json:"result"`
	Code       int             `json:"code"`
	Before     int             `json:"generation_before,omitempty"`
	After      int             `json:"generation,omitempty"`
	HashBefore string          `json:"sha256_before,omitempty"`
	Hash       string          `json:"sha256,omitempty"`
	Seconds    float64         `json:"seconds"`
	Text       string          `json:"text,omitempty"`
	Phase      string          `json:"phase,omitempty"`
	Output     string          `json:"output,omitempty"` // the last lines of a candidate that failed
	Undone     *bool           `json:"undone,omitempty"`
	Status     json.RawMessage `json:"status,omitempty"`
}

// refuse fills a row that did not end well.
func (r *row) refuse(code int, text string) {
	r.Code, r.Text, r.Result = code, text, resultOf[code]
	if r.Result == "" {
		r.Result = refused
	}
}

func (r *row) skip(why string) { r.Result, r.Text = skipped, why }

// line is the row as progress.
func (r *row) line() string {
	text := fmt.Sprintf("%s: %s after %.1fs", r.Pod, r.Result, r.Seconds)
	if r.Text != "" {
		text += ": " + r.Text
	}
	return text
}

// sentence is what `status` says of a pod.
func (st *status) sentence(p pod) string {
	var parts []string
	if p.notServing != "" {
		parts = append(parts, p.notServing)
	}
	if st.Candidate != 0 {
		parts = append(parts, fmt.Sprintf("generation %d is a candidate", st.Candidate))
	}
	if st.Drift {
		parts = append(parts, "drift: not the program of its image")
	}
	if n := len(st.LastSwaps); n > 0 && st.LastSwaps[n-1].At.After(time.Time{}) {
		last := st.LastSwaps[0]
		for _, swap := range st.LastSwaps {
			if swap.At.After(last.At) {
				last = swap
			}
		}
		parts = append(parts, "last: "+last.Text)
	}
	return strings.Join(parts, "; ")
}

// finish shows the report and returns its code.
func finish(o *options, out, errs io.Writer, rep *report) int {
	rep.Schema = 1
	if o.json {
		if rep.Pods == nil {
			rep.Pods = []*row{}
		}
		b, err := json.MarshalIndent(rep, "", "  ")
		if err != nil {
			b = fmt.Appendf(nil, `{"schema":1,"code":%d,"text":%q}`, rep.Code, "internal error: "+err.Error())
		}
		fmt.Fprintf(out, "%s\n", b)
		return rep.Code
	}
	if len(rep.Pods) > 0 {
		io.WriteString(out, rep.table())
	}
	for _, r := range rep.Pods {
		r.tail(errs)
	}
	for _, n := range rep.Notes {
		fmt.Fprintln(errs, "kubectl hotswap: "+printable(n))
	}
	if rep.Text != "" {
		fmt.Fprintln(errs, "kubectl hotswap: "+printable(rep.Text))
	}
	return rep.Code
}

// tail shows the last lines of a candidate that failed.
func (r *row) tail(errs io.Writer) {
	output := strings.TrimRight(r.Output, "\n")
	if output == "" {
		return
	}
	fmt.Fprintf(errs, "the last lines that it wrote in %s:\n", r.Pod)
	for line := range strings.SplitSeq(output, "\n") {
		fmt.Fprintln(errs, "  | "+printable(strings.TrimRight(line, "\r")))
	}
}

// table has a line a pod; the sentence, which may be long, stands last.
func (rep *report) table() string {
	lines := [][]string{{"POD", "NODE", "GENERATION", "SHA256", "SECONDS", "RESULT", ""}}
	for _, r := range rep.Pods {
		lines = append(lines, []string{r.Pod, dash(r.Node), r.generations(), short(r.Hash), r.seconds(), r.Result, r.Text})
	}
	widths := make([]int, len(lines[0]))
	for _, cells := range lines {
		for i := range cells {
			cells[i] = printable(cells[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(cells[i]))
		}
	}
	var b strings.Builder
	for _, cells := range lines {
		var line strings.Builder
		for i, cell := range cells {
			line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

func (r *row) generations() string {
	switch {
	case r.Before == 0 && r.After == 0:
		return "-"
	case r.Before == r.After:
		return fmt.Sprint(r.Before)
	}
	return fmt.Sprintf("%d→%d", r.Before, r.After)
}

func (r *row) seconds() string {
	if r.Seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", r.Seconds)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short is what people compare.
func short(sum string) string { return dash(sum[:min(12, len(sum))]) }

// printable makes text from elsewhere harmless: nothing that an app or a server wrote can move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return '�'
	}, s)
}
