package handoff

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Options are the socket options of an address. The zero value is the kernel's default for each, except that Backlog 0
// means net.core.somaxconn. They are set once on every slot, before it is bound, and accepted connections inherit them
// as the kernel has it.
type Options struct {
	// Backlog is the length of the accept queue; the kernel caps it at net.core.somaxconn.
	Backlog int
	// Mode is the file mode of a unix path, -1 if not given (0666 less the umask then).
	Mode int
	// Owner and Group of a unix path, each a name or a number; empty is ours.
	Owner, Group string
	// V6Only restricts an IPv6 socket to IPv6; nil is false, whatever net.ipv6.bindv6only says.
	V6Only *bool
	// NoDelay switches Nagle's algorithm off.
	NoDelay bool
	// KeepAlive is the idle time and the interval of TCP keep-alive probes; 0 is off.
	KeepAlive time.Duration
	// DeferAccept holds a connection back until its first data, at most so long; 0 is off.
	DeferAccept time.Duration
	// FastOpen is the queue length of TCP Fast Open; 0 is off.
	FastOpen int
	// FreeBind permits an address that the machine does not have yet.
	FreeBind bool
	// RcvBuf and SndBuf are buffer sizes in bytes (the kernel doubles them); 0 lets the kernel tune them.
	RcvBuf, SndBuf int
}

// optionKind says for which families an option may be given.
type optionKind struct {
	families string // space-separated Address.family values
	set      func(o *Options, v string) error
}

var optionKinds = map[string]optionKind{
	"backlog":      {"tcp unix unixpacket", func(o *Options, v string) (err error) { o.Backlog, err = count(v, 1); return }},
	"mode":         {"unix unixgram unixpacket", setMode},
	"owner":        {"unix unixgram unixpacket", func(o *Options, v string) (err error) { o.Owner, err = filled(v); return }},
	"group":        {"unix unixgram unixpacket", func(o *Options, v string) (err error) { o.Group, err = filled(v); return }},
	"v6only":       {"tcp udp", setV6Only},
	"nodelay":      {"tcp", func(o *Options, v string) (err error) { o.NoDelay, err = truth(v); return }},
	"keepalive":    {"tcp", func(o *Options, v string) (err error) { o.KeepAlive, err = seconds(v); return }},
	"defer_accept": {"tcp", func(o *Options, v string) (err error) { o.DeferAccept, err = seconds(v); return }},
	"fastopen":     {"tcp", func(o *Options, v string) (err error) { o.FastOpen, err = count(v, 1); return }},
	"freebind":     {"tcp udp", func(o *Options, v string) (err error) { o.FreeBind, err = truth(v); return }},
	"rcvbuf":       {"tcp udp unix unixgram unixpacket", func(o *Options, v string) (err error) { o.RcvBuf, err = size(v); return }},
	"sndbuf":       {"tcp udp unix unixgram unixpacket", func(o *Options, v string) (err error) { o.SndBuf, err = size(v); return }},
}

// parseOptions reads option=value&option=value; all faults at once.
func (a *Address) parseOptions(text string) error {
	a.Options.Mode = -1
	var faults []error
	seen := map[string]bool{}
	for _, pair := range strings.Split(text, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		if seen[key] {
			faults = append(faults, fmt.Errorf("option %q is given twice", key))
			continue
		}
		seen[key] = true
		if err := a.setOption(key, value); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (a *Address) setOption(key, value string) error {
	kind, ok := optionKinds[key]
	if !ok {
		return fmt.Errorf("unknown option %q", key)
	}
	for _, f := range strings.Fields(kind.families) {
		if f != a.family() {
			continue
		}
		switch {
		case a.abstract() && (key == "mode" || key == "owner" || key == "group"):
			return fmt.Errorf("option %q has no meaning for an abstract name, which is no file", key)
		case key == "v6only" && strings.HasSuffix(a.Scheme, "4"):
			return fmt.Errorf("option %q has no meaning for %s", key, a.Scheme)
		}
		if err := kind.set(&a.Options, value); err != nil {
			return fmt.Errorf("option %q: %w", key, err)
		}
		return nil
	}
	return fmt.Errorf("option %q has no meaning for %s", key, a.Scheme)
}

func setMode(o *Options, v string) error {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not a file mode such as 0660", v)
	}
	o.Mode = int(n)
	return nil
}

func setV6Only(o *Options, v string) error {
	b, err := truth(v)
	o.V6Only = &b
	return err
}

func filled(v string) (string, error) {
	if v == "" {
		return "", errors.New("no name or number given")
	}
	return v, nil
}

func count(v string, least int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > math.MaxInt32 {
		return 0, fmt.Errorf("%q is not a number from %d", v, least)
	}
	return n, nil
}

// truth reads a boolean; the bare option is true.
func truth(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "", "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", v)
}

// seconds reads a duration of whole seconds, which is all that TCP's options can express; a bare number is seconds.
func seconds(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if n, e := strconv.Atoi(v); e == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < time.Second || d > math.MaxInt16*time.Second {
		return 0, fmt.Errorf("%q is not a duration from 1s to %ds", v, math.MaxInt16)
	}
	return d, nil
}

// size reads a number of bytes such as 65536, 64KiB or 1MiB.
func size(v string) (int, error) {
	unit := 1
	for _, u := range []struct {
		suffix string
		bytes  int
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"k", 1 << 10}, {"M", 1 << 20}} {
		if n, ok := strings.CutSuffix(v, u.suffix); ok {
			v, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > math.MaxInt32/2/unit {
		return 0, fmt.Errorf("%q is not a size such as 65536 or 64KiB", v)
	}
	return n * unit, nil
}
