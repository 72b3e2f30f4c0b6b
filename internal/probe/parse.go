package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/shlex"
)

// forms is what a user may write, for error messages.
const forms = "auto, notify, accept, delay:2s, http://host:port/path, tcp://host:port or exec:COMMAND"

// Parse reads a comma-separated list of checks:
//
//	auto  notify  accept  delay:2s  http://host:port/path  tcp://host:port  exec:COMMAND
//
// Durations are Go's, or a plain number of seconds. COMMAND is words, quoted as for a shell but with no shell behind
// them, or a JSON array of strings; a comma inside quotes or brackets does not end it. Empty elements are skipped, an
// empty list is no checks at all. All faults are reported at once, joined.
func Parse(list string) ([]Check, error) {
	var checks []Check
	var faults []error
	for _, text := range split(list) {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		c, err := parseOne(text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		checks = append(checks, c)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return checks, nil
}

func parseOne(text string) (Check, error) {
	word, rest, _ := strings.Cut(text, ":")
	switch kind := Kind(strings.ToLower(word)); kind {
	case Auto, Notify, Accept:
		if text != word {
			return Check{}, fmt.Errorf("cannot use check %q: %s takes no argument", text, kind)
		}
		return Check{Kind: kind, Text: text}, nil
	case Delay:
		return parseDelay(text, rest)
	case HTTP, TCP:
		return parseURL(kind, text)
	case Exec:
		return parseExec(text, rest)
	case "https", "grpc", "grpcs":
		return Check{}, fmt.Errorf("cannot use check %q: %s checks are not in this version; use http, tcp or exec", redact(text), kind)
	}
	return Check{}, fmt.Errorf("cannot use check %q: it is none of %s (quote a comma that belongs to a command)", redact(text), forms)
}

func parseDelay(text, rest string) (Check, error) {
	rest = strings.TrimSpace(rest)
	if _, err := strconv.ParseUint(rest, 10, 32); err == nil {
		rest += "s"
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return Check{}, fmt.Errorf("cannot use check %q: a delay needs a duration, such as delay:2s", text)
	}
	return Check{Kind: Delay, Text: text, Delay: d}, nil
}

func parseURL(kind Kind, text string) (Check, error) {
	u, err := url.Parse(text)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // its own text would repeat the URL, with the password
			err = ue.Err
		}
		return Check{}, fmt.Errorf("cannot use check %q: %w", redact(text), err)
	}
	shown := u.Redacted()
	if u.Hostname() == "" || u.Opaque != "" {
		return Check{}, fmt.Errorf("cannot use check %q: write %s://host:port", shown, kind)
	}
	if err := checkPort(kind, u); err != nil {
		return Check{}, fmt.Errorf("cannot use check %q: %w", shown, err)
	}
	if kind == TCP && (u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "") {
		return Check{}, fmt.Errorf("cannot use check %q: tcp takes a host and a port, nothing else", shown)
	}
	return Check{Kind: kind, Text: shown, URL: u}, nil
}

func checkPort(kind Kind, u *url.URL) error {
	port := u.Port()
	if port == "" && kind == HTTP && !strings.HasSuffix(u.Host, ":") {
		return nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("a port from 1 to 65535 is needed, not %q", port)
	}
	return nil
}

// hostPort is the address to dial for a check with a URL.
func (c Check) hostPort() string {
	port := c.URL.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(c.URL.Hostname(), port)
}

func parseExec(text, rest string) (Check, error) {
	argv, err := words(strings.TrimSpace(rest))
	if err != nil {
		return Check{}, fmt.Errorf("cannot use check %q: %w", text, err)
	}
	if len(argv) == 0 || argv[0] == "" {
		return Check{}, fmt.Errorf("cannot use check %q: it names no command; write for example exec:/bin/check", text)
	}
	for _, arg := range argv {
		if strings.ContainsRune(arg, 0) {
			return Check{}, fmt.Errorf("cannot use check %q: a word of a command cannot hold a NUL", text)
		}
	}
	return Check{Kind: Exec, Text: text, Argv: argv}, nil
}

// words reads a command: a JSON array of strings, or words with a shell's quotes.
func words(command string) (argv []string, err error) {
	if strings.HasPrefix(command, "[") {
		if err := json.Unmarshal([]byte(command), &argv); err != nil {
			return nil, fmt.Errorf("not a JSON array of strings: %w", err)
		}
		return argv, nil
	}
	if argv, err = shlex.Split(command); err != nil {
		return nil, fmt.Errorf("a quote is not closed: %w", err)
	}
	return argv, nil
}

// redact hides what stands between "//" and "@" in something that was not accepted as a URL.
func redact(text string) string {
	before, rest, ok := strings.Cut(text, "//")
	if !ok {
		return text
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		authority = "xxxxx" + authority[at:]
	}
	return before + "//" + authority + path
}
