package probe

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxCount bounds successes and failures: more is a slip of the pen.
const maxCount = 1000

// Whom an option is for.
func anyKind(Kind) bool         { return true }
func triedKind(k Kind) bool     { return k != Notify && k != Delay }
func webKind(k Kind) bool       { return k.web() }
func askingKind(k Kind) bool    { return k.asks() }
func encryptedKind(k Kind) bool { return k.Encrypted() }

// option is one that may follow a check.
type option struct {
	of   func(Kind) bool
	flag bool // has no value
	set  func(c *Check, value string) error
}

// options by name. What a refusal says must not repeat the value: it may be a secret.
var options = map[string]option{
	"successes": {of: triedKind, set: func(c *Check, v string) error { return count(&c.Successes, v) }},
	"failures":  {of: triedKind, set: func(c *Check, v string) error { return count(&c.Failures, v) }},
	"period":    {of: triedKind, set: func(c *Check, v string) error { return positive(&c.Period, v) }},
	"timeout":   {of: triedKind, set: func(c *Check, v string) error { return positive(&c.Timeout, v) }},
	"deadline":  {of: anyKind, set: func(c *Check, v string) error { return positive(&c.Deadline, v) }},

	"method": {of: webKind, set: setMethod},
	"host":   {of: askingKind, set: setHost},
	"header": {of: askingKind, set: addHeader},
	"status": {of: webKind, set: setStatus},
	"body":   {of: webKind, set: func(c *Check, v string) error { c.Request.Body = v; return nil }},
	"body~":  {of: webKind, set: setPattern},

	"insecure":   {of: encryptedKind, flag: true, set: func(c *Check, _ string) error { c.Request.Insecure = true; return nil }},
	"ca":         {of: encryptedKind, set: setCA},
	"servername": {of: encryptedKind, set: func(c *Check, v string) error { c.Request.ServerName = v; return nil }},
}

// parseOptions reads what follows the semicolons of a check. All faults are in the error.
func (c *Check) parseOptions(texts []string) error {
	var faults []error
	seen := map[string]bool{}
	for _, text := range texts {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		name, value, given := strings.Cut(text, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if err := c.parseOption(name, value, given, seen[name]); err != nil {
			faults = append(faults, fmt.Errorf("cannot use check %q: %w", c.Text, err))
		}
		seen[name] = true
	}
	if len(faults) == 0 {
		if err := c.contradiction(); err != nil {
			faults = append(faults, fmt.Errorf("cannot use check %q: %w", c.Text, err))
		}
	}
	return errors.Join(faults...)
}

func (c *Check) parseOption(name, value string, given, again bool) error {
	o, known := options[name]
	switch {
	case !known && c.Kind == Exec:
		return fmt.Errorf("there is no option %q; quote a semicolon that belongs to the command", name)
	case !known:
		return fmt.Errorf("there is no option %q; a semicolon of a URL is written %%3B", name)
	case !o.of(c.Kind):
		return fmt.Errorf("the option %q is not for %s", name, c.Kind)
	case again && name != "header":
		return fmt.Errorf("the option %q is given twice", name)
	case o.flag && given:
		return fmt.Errorf("the option %q takes no value", name)
	case o.flag:
		return o.set(c, "")
	}
	value, err := unquote(value)
	if err == nil && value == "" {
		err = errors.New("a value is missing")
	}
	if err == nil {
		err = o.set(c, value)
	}
	if err != nil {
		return fmt.Errorf("option %q: %w", name, err)
	}
	return nil
}

// contradiction finds options that cannot hold together.
func (c *Check) contradiction() error {
	switch r := c.Request; {
	case r != nil && r.Insecure && (r.CA != "" || r.ServerName != ""):
		return errors.New("insecure does not go with ca or servername: nothing would be verified")
	case r != nil && r.Method == "HEAD" && (r.Body != "" || r.Pattern != ""):
		return errors.New("an answer to HEAD has no body")
	case c.Deadline > 0 && c.Timeout > c.Deadline:
		return errors.New("its timeout is longer than its deadline")
	}
	return nil
}

// unquote takes a shell's quotes off a value that begins with one.
func unquote(value string) (string, error) {
	value = strings.TrimSpace(value)
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return value, nil
	}
	quote := value[0]
	var b strings.Builder
	for i := 1; i < len(value); i++ {
		switch ch := value[i]; {
		case ch == quote && i == len(value)-1:
			return b.String(), nil
		case ch == quote:
			return "", errors.New("something follows the closing quote")
		case ch == '\\' && quote == '"' && i+1 < len(value) && (value[i+1] == '"' || value[i+1] == '\\'):
			i++
			b.WriteByte(value[i])
		default:
			b.WriteByte(ch)
		}
	}
	return "", errors.New("a quote is not closed")
}

func count(n *int, v string) error {
	i, err := strconv.Atoi(v)
	if err != nil || i < 1 || i > maxCount {
		return fmt.Errorf("a number from 1 to %d is needed", maxCount)
	}
	*n = i
	return nil
}

func positive(d *time.Duration, v string) error {
	got, err := duration(v)
	if err != nil || got <= 0 {
		return errors.New("a duration like 2s is needed")
	}
	*d = got
	return nil
}

func setMethod(c *Check, v string) error {
	if !isToken(v) {
		return errors.New("that is no method of HTTP")
	}
	c.Request.Method = strings.ToUpper(v)
	if c.Request.Method == "CONNECT" {
		return errors.New("CONNECT asks for a tunnel, not for an answer")
	}
	return nil
}

func setHost(c *Check, v string) error {
	u, err := url.Parse("http://" + v + "/")
	if err != nil || u.Host != v || u.User != nil {
		return errors.New("a host, or host:port, is needed")
	}
	c.Request.Host = v
	return nil
}

// reserved headers frame the request: two of them, or a wrong one, would make it another request.
var reserved = map[string]string{
	"host": "use the option host", "content-length": "the request has no body", "transfer-encoding": "the request has no body",
	"connection": "each check has a connection of its own", "te": "it belongs to the connection", "trailer": "the request has no body",
	"upgrade": "each check is one request",
}

func addHeader(c *Check, v string) error {
	name, value, ok := strings.Cut(v, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || !isToken(name) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return errors.New("write it as Name: value, without control characters")
	}
	if why := reserved[strings.ToLower(name)]; why != "" {
		return fmt.Errorf("%s cannot be set: %s", name, why)
	}
	c.Request.Header = append(c.Request.Header, Field{name, value})
	return nil
}

// isToken tells whether s is a token of RFC 9110.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// setStatus reads 200-299+404.
func setStatus(c *Check, v string) error {
	c.Request.Status = nil
	for _, part := range strings.Split(v, "+") {
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		from, err1 := strconv.Atoi(strings.TrimSpace(low))
		to, err2 := strconv.Atoi(strings.TrimSpace(high))
		if err1 != nil || err2 != nil || from < 200 || to > 599 || from > to {
			return errors.New("write codes from 200 to 599 as 200-299+404")
		}
		c.Request.Status = append(c.Request.Status, Range{from, to})
	}
	return nil
}

func setPattern(c *Check, v string) error {
	if _, err := regexp.Compile(v); err != nil {
		return err
	}
	c.Request.Pattern = v
	return nil
}

func setCA(c *Check, v string) error {
	if !strings.HasPrefix(v, "/") || strings.ContainsRune(v, 0) {
		return errors.New("an absolute path of a PEM file is needed")
	}
	c.Request.CA = v
	return nil
}
