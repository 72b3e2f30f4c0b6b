package envcfg

import (
	"encoding/json"
	"strings"
)

// Argv is a command line: the program and its arguments. It is written as a
// JSON array of texts, or as words.
//
// Words are separated by spaces, tabs or newlines. '…' keeps everything as it
// is; "…" keeps everything but \" \\ \$ and \`; a backslash outside quotes
// keeps the next character; a backslash before a newline joins the lines.
// There is no shell: variables, patterns and comments are plain text, and an
// unquoted word that only a shell could obey (a pipe, a redirection) is
// refused.
type Argv []string

// Decode reads a command line.
func (a *Argv) Decode(value string) error {
	if value == "" {
		return nil
	}
	var words []string
	var err error
	if strings.HasPrefix(strings.TrimSpace(value), "[") {
		words, err = jsonArgv(value)
	} else {
		words, err = splitWords(value)
	}
	if err != nil {
		return err
	}
	if len(words) == 0 || words[0] == "" {
		return refuse("a command line without a program", "", argvRemedy)
	}
	*a = words
	return nil
}

// String writes the command line as a JSON array, or nothing if it is empty.
func (a Argv) String() string {
	if len(a) == 0 {
		return ""
	}
	words := make([]string, len(a))
	for i, w := range a {
		words[i] = string([]rune(w)) // JSON has no other bytes: they are shown as what they are read back as
	}
	return jsonText(words)
}

const argvRemedy = `write ["/app/server","-addr",":8080"] or /app/server -addr :8080`

func jsonArgv(value string) ([]string, error) {
	var words []*string
	if err := json.Unmarshal([]byte(value), &words); err != nil {
		return nil, refuse("not a JSON array of texts", err.Error(),
			`quote the word if the program's name begins with "["`)
	}
	out := make([]string, len(words))
	for i, w := range words {
		if w == nil {
			return nil, refuse("not a JSON array of texts", "it has a null", "")
		}
		if strings.Contains(*w, "\x00") {
			return nil, refuse("an argument has a zero byte", "", "")
		}
		out[i] = *w
	}
	return out, nil
}

// forShell reports whether a word means something to a shell only.
func forShell(word string) bool {
	switch word {
	case "|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "&>":
		return true
	}
	return false
}

// splitWords cuts a command line as a shell would, byte by byte.
func splitWords(line string) ([]string, error) {
	s := splitter{rest: line}
	var words []string
	for s.skipBlank() {
		word, err := s.word()
		if err != nil {
			return nil, err
		}
		if !s.quoted && forShell(word) {
			return nil, refuse("a word that needs a shell", quote(word),
				`quote it, or run a shell: ["/bin/sh","-c","…"]`)
		}
		words = append(words, word)
	}
	return words, nil
}

// splitter reads words off the front of rest.
type splitter struct {
	rest   string
	quoted bool // the last word had a quote or a backslash in it
}

// skipBlank drops blanks and joined line ends; it reports whether a word is left.
func (s *splitter) skipBlank() bool {
	for s.rest != "" {
		switch {
		case isBlank(s.rest[0]):
			s.rest = s.rest[1:]
		case strings.HasPrefix(s.rest, "\\\n"):
			s.rest = s.rest[2:]
		default:
			return true
		}
	}
	return false
}

func (s *splitter) word() (string, error) {
	var b strings.Builder
	s.quoted = false
	for s.rest != "" && !isBlank(s.rest[0]) {
		c := s.rest[0]
		if c != '\'' && c != '"' && c != '\\' {
			b.WriteByte(c)
			s.rest = s.rest[1:]
			continue
		}
		s.quoted = true
		if err := s.protected(&b, c); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// protected reads one quoted part or one escaped byte; rest begins with c.
func (s *splitter) protected(b *strings.Builder, c byte) error {
	switch c {
	case '\'':
		text, rest, found := strings.Cut(s.rest[1:], "'")
		if !found {
			return refuse("a quote ' is not closed", "", "")
		}
		b.WriteString(text)
		s.rest = rest
		return nil
	case '"':
		return s.doubleQuoted(b)
	}
	if len(s.rest) == 1 {
		return refuse("it ends with a backslash", "", "")
	}
	if s.rest[1] != '\n' {
		b.WriteByte(s.rest[1])
	}
	s.rest = s.rest[2:]
	return nil
}

func (s *splitter) doubleQuoted(b *strings.Builder) error {
	for i := 1; i < len(s.rest); i++ {
		c := s.rest[i]
		switch {
		case c == '"':
			s.rest = s.rest[i+1:]
			return nil
		case c == '\\' && i+1 < len(s.rest) && strings.IndexByte("\"\\$`", s.rest[i+1]) >= 0:
			i++
			b.WriteByte(s.rest[i])
		case c == '\\' && i+1 < len(s.rest) && s.rest[i+1] == '\n':
			i++
		default:
			b.WriteByte(c)
		}
	}
	return refuse(`a quote " is not closed`, "", "")
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
