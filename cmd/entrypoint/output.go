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

// Every byte that a client command shows to its user is written through this file. Its rules:
//
//   - Standard output is the answer: what was asked for. Standard error is all the rest: phases, faults, hints.
//   - A fault is one sentence after "entrypoint: ", without a capital and without a full stop, and a remedy comes last in it.
//   - Wrong usage is a fault and one more line that begins with "usage: ".
//   - Text that comes from elsewhere (the app, the init, the system) is made printable first: nothing that an app wrote can
//     move the cursor or colour the terminal. A fault never ends in the middle of a word because of it.
//   - With --json, standard output is exactly one JSON object, also for a fault, and standard error is empty.
//   - Tables and sentences fit into 80 columns, unless a single word does not.
//   - The exit code says the same as the text, see codes.go.

// width is the number of columns that tables and wrapped sentences keep to.
const width = 80

// printer writes what the user sees. A write that fails is ignored: whoever closed our output does not want it.
type printer struct {
	out, err io.Writer
	json     bool
}

// answer writes a line to standard output.
func (p *printer) answer(format string, a ...any) {
	fmt.Fprintln(p.out, printable(fmt.Sprintf(format, a...)))
}

// text writes a prepared page, whose foreign words were made printable when it was laid out, to standard output.
func (p *printer) text(page string) {
	fmt.Fprint(p.out, page)
}

// object writes the one JSON object of --json.
func (p *printer) object(v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		b = fmt.Appendf(nil, `{"code":1,"text":%q}`, "internal error: "+err.Error())
	}
	fmt.Fprintf(p.out, "%s\n", b)
}

// fault writes a sentence to standard error. Further lines of it, as of several faults at once, are set below the first.
func (p *printer) fault(sentence string) {
	lines := strings.Split(strings.TrimRight(sentence, "\n"), "\n")
	for i, line := range lines {
		prefix := "entrypoint: "
		if i > 0 {
			prefix = "  "
		}
		fmt.Fprintln(p.err, prefix+printable(line))
	}
}

// note writes a line to standard error that is no fault.
func (p *printer) note(sentence string) {
	fmt.Fprintln(p.err, "entrypoint: "+printable(sentence))
}

// faults writes several faults, a line each, below one sentence that counts them.
func (p *printer) faults(summary string, sentences []string) {
	p.fault(summary)
	for _, s := range sentences {
		fmt.Fprintln(p.err, "  "+printable(s))
	}
}

// wrongUsage writes why and the usage line of c.
func (p *printer) wrongUsage(c *command, why string) {
	p.fault(why)
	fmt.Fprintln(p.err, "usage: "+c.line())
}

// wrongWord is wrong usage of no command in particular.
func (p *printer) wrongWord(why string) {
	p.fault(why)
	fmt.Fprintln(p.err, "usage: entrypoint COMMAND, or entrypoint [--] CMD…; `entrypoint help` lists the commands")
}

// phase writes a step of a swap to standard error, with the time since the first one.
func (p *printer) phase(since time.Duration, gen int, phase, text string) {
	line := fmt.Sprintf("%+8.3fs  ", max(since, 0).Seconds())
	if gen != 0 { // else it has no number yet
		line += fmt.Sprintf("generation %d  ", gen)
	}
	line += phase
	if text != "" {
		line += ": " + text
	}
	fmt.Fprintln(p.err, printable(line))
}

// tail writes the last lines of a failed candidate to standard error, marked as such.
func (p *printer) tail(output string) {
	output = strings.TrimRight(output, "\n")
	if output == "" {
		return
	}
	fmt.Fprintln(p.err, "the last lines that it wrote:")
	for line := range strings.SplitSeq(output, "\n") {
		fmt.Fprintln(p.err, "  | "+printable(strings.TrimRight(line, "\r")))
	}
}

// printable replaces what is not a printable character: control characters as Go would write them, broken UTF-8 as \x.., and tabs
// by a space.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := fmt.Sprintf("%q", r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}

// wrap lays text out behind a label, in lines of at most width columns; further lines stand below the first. A word that is longer
// than that is not cut: whoever copies a path gets all of it.
func wrap(label string, indent int, text string) string {
	return lay(label, indent, strings.Fields(printable(text)), width)
}

// wrapTo is wrap for a page that keeps to columns whatever is in it: a long word is cut into lines.
func wrapTo(columns int, label string, indent int, text string) string {
	room := max(1, columns-max(indent, utf8.RuneCountInString(label)))
	var words []string
	for _, word := range strings.Fields(printable(text)) {
		for runes := []rune(word); len(runes) > 0; runes = runes[min(room, len(runes)):] {
			words = append(words, string(runes[:min(room, len(runes))]))
		}
	}
	return lay(label, indent, words, columns)
}

// lay fills lines with words.
func lay(label string, indent int, words []string, columns int) string {
	var b strings.Builder
	line := fmt.Sprintf("%-*s", indent, label)
	empty := true
	for _, word := range words {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
			b.WriteString(line + "\n")
			line, empty = strings.Repeat(" ", indent), true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	return b.String()
}

// column is one column of a table; numbers stand at the right.
type column struct {
	head  string
	right bool
}

// table lays rows out below their heads, two spaces apart. Each line is cut at limit columns, unless that is 0: the last column
// is the one to hold what may be long.
func table(columns []column, rows [][]string, limit int) string {
	widths := make([]int, len(columns))
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i] = c.head
	}
	lines := append([][]string{head}, rows...)
	for _, row := range lines {
		for i := range row {
			row[i] = printable(row[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	for _, row := range lines {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if columns[i].right {
				cell, pad = pad+cell, ""
			}
			line.WriteString("  " + cell + pad)
		}
		b.WriteString(clip(strings.TrimRight(line.String(), " "), limit) + "\n")
	}
	return b.String()
}

// clip cuts s to n columns and marks the cut; 0 cuts nothing.
func clip(s string, n int) string {
	if n == 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// age writes a duration in at most two units, for people: 4s, 2m10s, 3h4m, 12d3h.
func age(d time.Duration) string {
	d = max(d, 0)
	switch s := int(d.Seconds()); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
	}
}
