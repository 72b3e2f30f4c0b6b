package main

import (
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/envcfg"
)

// manPage is the manual page, in the language of man(7): made of the table of commands and of the reference of the variables.
func manPage() string {
	m := &roff{}
	fmt.Fprintf(m, ".\\\" made by: entrypoint help --man\n.TH ENTRYPOINT 1 %s %s \"entrypoint\"\n", buildDate(), quoted("entrypoint "+version))
	m.section("NAME")
	m.text("entrypoint \\- init of a container that swaps the app's program in place")
	m.section("SYNOPSIS")
	m.WriteString(".B entrypoint\n.RI [ \\-\\- ] \" CMD\" ...\n.br\n.B entrypoint\n.I COMMAND\n.RI [ ARGUMENT \" ...]\"\n")
	m.section("DESCRIPTION")
	m.plain("As the ENTRYPOINT of a container it runs CMD, reaps and forwards signals as PID 1, holds the listening sockets for the container's whole life, " +
		"and swaps the app's program in place without losing a connection: on a signal, on a change of the file, or by a command. With a COMMAND it is a client of the " +
		"running init. It is configured by environment variables alone. An app that has the name of a command is run with -- before it.")
	m.section("COMMANDS")
	for _, c := range commands() {
		m.WriteString(".SS " + quoted(escape(c.line())) + "\n")
		m.plain(capital(c.summary) + ".")
		if c.details != "" {
			m.WriteString(".PP\n")
			m.plain(c.details)
		}
		for _, o := range c.options {
			m.item(o.spelling(), o.help)
		}
	}
	m.section("ENVIRONMENT")
	m.plain("Durations are 30 (seconds), 30s or 1m30s; switches true, false, yes, no, on, off, 1 or 0; an empty variable is unset. " +
		"Every variable can come from a file: ENTRYPOINT_X_FILE names it.")
	group := ""
	for _, e := range envcfg.Reference() {
		if e.Group != group {
			group = e.Group
			m.WriteString(".SS " + quoted(escape(envcfg.GroupTitle(group))) + "\n")
		}
		text := e.Doc
		if e.Default != "" {
			text += " Default: " + e.Default + "."
		}
		m.item(e.Name, text)
	}
	m.section("EXIT STATUS")
	m.plain("As init: that of the app, 128 plus the number of the signal that killed it, 126 or 127 if it cannot be executed or is not found, 78 if the configuration has faults. Of a command:")
	for _, c := range exitCodes {
		m.item(c[0], capital(c[1])+".")
	}
	return m.String()
}

// roff collects lines of a manual page.
type roff struct{ strings.Builder }

func (m *roff) section(name string) { m.WriteString(".SH " + quoted(name) + "\n") }

// text writes a line that is in the language of the page already.
func (m *roff) text(line string) { m.WriteString(line + "\n") }

// manColumns is the width of the source's lines.
const manColumns = 78

// plain writes a paragraph of plain text, in lines: none may begin like a request.
func (m *roff) plain(text string) {
	line := ""
	end := func() {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		m.text(line)
		line = ""
	}
	for _, word := range strings.Fields(text) {
		word = escape(word)
		if line != "" && len(line)+1+len(word) > manColumns {
			end()
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		end()
	}
}

// item is a term and what it means.
func (m *roff) item(term, text string) {
	m.WriteString(".TP\n.B " + quoted(escape(term)) + "\n")
	m.plain(text)
}

// escape makes plain text of what the language would take for its own, and ASCII of the rest.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '`':
			b.WriteString(`\(ga`)
		case r == '"':
			b.WriteString(`\(dq`)
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r > 126:
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// quoted is an argument of a request.
func quoted(s string) string { return `"` + s + `"` }

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// buildDate is the day of the commit, where the build knows it: the page of one commit is always the same.
func buildDate() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return t.Format(time.DateOnly)
			}
		}
	}
	return "2026-11-21"
}
