package envcfg

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// fileLimit bounds what is read from a file that a variable names: far above
// any real value, far below what would hurt.
const fileLimit = 1 << 20

// ParseEnvFile reads a file of K=V lines and returns them as K=V texts in the
// order written; of lines that set the same variable only the last is
// returned.
//
// Blank lines and lines that begin with # are skipped; "export " before the
// name is allowed. A value without quotes ends at the line's end or at a # that
// follows a space, and loses the spaces around it. '…' keeps everything as it
// is, "…" knows \n, \t, \r, \", \\ and \$; both may span lines. Nothing is
// expanded: $NAME is plain text.
//
// The error joins every fault. It names lines by number and holds nothing of
// the file's text, which is taken for secret.
func ParseEnvFile(data []byte) ([]string, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	p := envFile{rest: string(data)}
	for p.rest != "" {
		p.line++
		if why := p.entry(); why != "" {
			p.faults = append(p.faults, fmt.Errorf("line %d: %s", p.line, why))
			p.skipLine()
		}
		p.line += p.inner
		p.inner = 0
	}
	if err := errors.Join(p.faults...); err != nil {
		return nil, err
	}
	return Merge(nil, p.out), nil
}

// envFile is the state of a parse; line is the number of the current entry's
// first line, inner counts the line ends inside its quotes.
type envFile struct {
	rest        string
	line, inner int
	out         []string
	faults      []error
}

// entry reads one line, or more if a quoted value spans them, with its line
// end. It returns what is wrong, or "".
func (p *envFile) entry() string {
	line, _, _ := strings.Cut(p.rest, "\n")
	if text := strings.TrimSpace(line); text == "" || text[0] == '#' {
		p.skipLine()
		return ""
	}
	name, _, found := strings.Cut(line, "=")
	if !found {
		return "not NAME=value"
	}
	after := p.rest[len(name)+1:]
	name = strings.TrimSpace(name)
	if word, ok := strings.CutPrefix(name, "export"); ok && strings.TrimSpace(word) != word {
		name = strings.TrimSpace(word)
	}
	if !validName(name) {
		return "the name before = is empty or has spaces or quotes in it"
	}
	value, rest, why := envValue(strings.TrimLeft(after, " \t"))
	if why == "" && strings.Contains(value, "\x00") {
		why = "the value has a zero byte"
	}
	if why != "" {
		return why
	}
	read := p.rest[:len(p.rest)-len(rest)]
	p.inner = strings.Count(read, "\n")
	p.rest = rest
	p.skipLine()
	p.out = append(p.out, name+"="+value)
	return ""
}

// skipLine drops what is left of the current line.
func (p *envFile) skipLine() {
	_, p.rest, _ = strings.Cut(p.rest, "\n")
}

// envValue reads the value at the front of text and returns what follows it,
// line end included.
func envValue(text string) (value, rest, why string) {
	if text == "" || (text[0] != '"' && text[0] != '\'') {
		line, _, _ := strings.Cut(text, "\n")
		return strings.TrimSpace(beforeComment(line)), text[len(line):], ""
	}
	body, rest, ok := quotedBody(text)
	if !ok {
		return "", "", "a quote is not closed"
	}
	tail, _, _ := strings.Cut(rest, "\n")
	if tail = strings.TrimSpace(tail); tail != "" && tail[0] != '#' {
		return "", "", "there is text after the closing quote"
	}
	if text[0] == '"' {
		body = unescape(body)
	}
	return body, rest, ""
}

// beforeComment cuts a comment off: a # at the front or after a blank.
func beforeComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || isBlank(line[i-1])) {
			return line[:i]
		}
	}
	return line
}

// quotedBody returns what is between the quotes at the front of text.
func quotedBody(text string) (body, rest string, ok bool) {
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == text[0]:
			return text[1:i], text[i+1:], true
		case text[i] == '\\' && text[0] == '"':
			i++
		}
	}
	return "", "", false
}

var unescape = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\r`, "\r", `\"`, `"`, `\\`, `\`, `\$`, `$`).Replace

// ReadEnvFile reads and parses the file named by ENTRYPOINT_ENV_FILE. It is
// called at each start of the app, so that a changed file counts at the next
// swap. Without the variable it returns nothing. Its errors name the file and
// lines by number, never what is in them.
func (c *Config) ReadEnvFile() ([]string, error) {
	if c.EnvFile == "" {
		return nil, nil
	}
	data, err := readBounded(c.EnvFile)
	if err == nil {
		var vars []string
		if vars, err = ParseEnvFile(data); err == nil {
			return vars, nil
		}
	}
	return nil, fmt.Errorf("cannot use the file %s of %sENV_FILE: %w", c.show("ENV_FILE", c.EnvFile), Prefix, err)
}

// readBounded reads a regular file of at most fileLimit bytes. The path is not
// in its errors. Opening does not block on a pipe: PID 1 must not hang.
func readBounded(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close() // read only: nothing can be lost
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, bare(err)
	case info.IsDir():
		return nil, errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, fileLimit+1))
	switch {
	case err != nil:
		return nil, bare(err)
	case len(data) > fileLimit:
		return nil, fmt.Errorf("it is larger than %d bytes", fileLimit)
	}
	return data, nil
}

// bare drops operation and path from an error of package os.
func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
