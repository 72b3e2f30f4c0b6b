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
const forms = "auto, notify, accept, delay:2s, tcp://host:port, unix:///path, http://host:port/path, https://…, h2c://…, " +
	"grpc://host:port/service, grpcs://… (over a unix socket: http+unix:///run/app.sock:/path) or exec:COMMAND"

// maxUnixPath is what fits into a socket address beside its final NUL.
const maxUnixPath = 107

// Parse reads a comma-separated list of checks, each with options behind semicolons:
//
//	auto  notify  accept  delay:2s  exec:COMMAND  tcp://host:port  unix:///path
//	http://host:port/path  https://…  h2c://…  grpc://host:port/service  grpcs://…  http+unix:///path/of/socket:/path
//	https://localhost/healthz;insecure;status=200-299+404;body="all, of it";successes=2;timeout=1s
//
// Durations are Go's, or a plain number of seconds. COMMAND is words, quoted as for a shell but with no shell behind
// them, or a JSON array of strings; a comma or semicolon inside quotes or brackets does not end it. Options are described
// in docs/checks.md. Empty elements are skipped, an empty list is no checks at all. All faults are reported at once, joined.
func Parse(list string) ([]Check, error) {
	var checks []Check
	var faults []error
	for _, parts := range split(list) {
		text := strings.TrimSpace(parts[0])
		if text == "" && len(parts) == 1 {
			continue
		}
		c, err := parseOne(text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if err := c.parseOptions(parts[1:]); err != nil {
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
	scheme, unix := strings.CutSuffix(strings.ToLower(word), "+unix")
	kind := Kind(scheme)
	switch {
	case !unix && (kind == Auto || kind == Notify || kind == Accept):
		if text != word {
			return Check{}, fmt.Errorf("cannot use check %q: %s takes no argument", text, kind)
		}
		return Check{Kind: kind, Text: text}, nil
	case !unix && kind == Delay:
		return parseDelay(text, rest)
	case !unix && kind == Exec:
		return parseExec(text, rest)
	case unix && kind.asks(), kind == Unix:
		return parseUnix(kind, text, rest)
	case !unix && kind.connects():
		return parseURL(kind, text)
	}
	return Check{}, fmt.Errorf("cannot use check %q: it is none of %s; quote a comma or semicolon that belongs to a command", redact(text), forms)
}

func parseDelay(text, rest string) (Check, error) {
	d, err := duration(rest)
	if err != nil {
		return Check{}, fmt.Errorf("cannot use check %q: it needs a duration like 2s", text)
	}
	return Check{Kind: Delay, Text: text, Delay: d}, nil
}

// duration reads a duration of Go, or a plain number of seconds.
func duration(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if _, err := strconv.ParseUint(text, 10, 32); err == nil {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("below zero")
	}
	return d, err
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
	u.Scheme = string(kind)
	shown := u.Redacted()
	if u.Hostname() == "" && u.Port() == "" || u.Opaque != "" {
		return Check{}, fmt.Errorf("cannot use check %q: write %s://host:port", shown, kind)
	}
	port, err := portOf(kind, u)
	if err != nil {
		return Check{}, fmt.Errorf("cannot use check %q: %w", shown, err)
	}
	if kind == TCP && (u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "") {
		return Check{}, fmt.Errorf("cannot use check %q: tcp takes a host and a port, nothing else", shown)
	}
	c := Check{Kind: kind, Text: shown, Network: "tcp", Address: net.JoinHostPort(u.Hostname(), port)}
	if kind.asks() {
		return c.asking(u)
	}
	return c, nil
}

// parseUnix reads unix:///path, and http+unix:///path:/page with what follows the socket as in a URL.
func parseUnix(kind Kind, text, rest string) (Check, error) {
	refuse := func(why string) (Check, error) {
		return Check{}, fmt.Errorf("cannot use check %q: %s", redact(text), why)
	}
	rest, ok := strings.CutPrefix(rest, "//")
	if !ok || rest == "" || rest[0] != '/' && rest[0] != '@' {
		return refuse(fmt.Sprintf("write %s and the path of a socket, or @ and an abstract name", text[:strings.IndexByte(text+":", ':')]+"://"))
	}
	page := ""
	if kind != Unix {
		if i := strings.Index(rest, ":/"); i >= 0 {
			rest, page = rest[:i], rest[i+1:]
		}
	}
	path, err := url.PathUnescape(rest)
	switch {
	case err != nil:
		return refuse(err.Error())
	case strings.ContainsRune(path, 0), len(path) < 2, len(path) > maxUnixPath:
		return refuse(fmt.Sprintf("the path of a socket has from 2 to %d bytes and no NUL", maxUnixPath))
	}
	c := Check{Kind: kind, Text: text, Network: "unix", Address: path}
	if kind == Unix {
		return c, nil
	}
	u, err := url.Parse(string(kind) + "://localhost" + page)
	if err != nil {
		return refuse("what follows the socket is no path of a URL")
	}
	return c.asking(u)
}

// asking adds the request.
func (c Check) asking(u *url.URL) (Check, error) {
	if !c.Kind.web() && (u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Contains(strings.Trim(u.Path, "/"), "/")) {
		return Check{}, fmt.Errorf("cannot use check %q: write %s://host:port, and behind it nothing or /service", c.Text, c.Kind)
	}
	if u.Hostname() == "" { // ":8080", as listeners are written
		u.Host = "localhost" + u.Host
	}
	c.Request = &Request{Kind: c.Kind, URL: u.String()}
	return c, nil
}

// portOf is the port to connect to.
func portOf(kind Kind, u *url.URL) (string, error) {
	port := u.Port()
	if port == "" && !strings.HasSuffix(u.Host, ":") {
		switch kind {
		case HTTP, H2C:
			return "80", nil
		case HTTPS:
			return "443", nil
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("a port from 1 to 65535 is needed, not %q", port)
	}
	return port, nil
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
