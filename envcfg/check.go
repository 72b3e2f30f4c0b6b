package envcfg

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// check finds what no single Decode can see. It runs after all decoding, so
// that every fault is found in one go; a variable that is at fault already has
// its default here and is left alone.
func (l *loader) check() {
	l.checkChoices()
	l.checkTexts()
	l.checkNumbers()
	if !l.faulted[Prefix+"ENV_FILE"] {
		if _, err := l.config.ReadEnvFile(); err != nil {
			l.reject(Prefix+"ENV_FILE", err.Error())
		}
	}
}

func (l *loader) checkChoices() {
	for _, f := range l.table.fields {
		if f.choices == nil {
			continue
		}
		v := l.fieldValue(f)
		if choice, ok := foldChoice(v.String(), f.choices); ok {
			v.SetString(choice)
			continue
		}
		l.fault(f.name, problem{"not one of its values", "", "write " + orList(f.choices)})
	}
}

// foldChoice finds the choice that value names in any case. The spellings of a
// boolean stand for the choices true and false, or off and no.
func foldChoice(value string, choices []string) (string, bool) {
	value = strings.ToLower(strings.TrimSpace(value))
	names := []string{value}
	if yes, ok := parseBool(value); ok && yes {
		names = append(names, "true")
	} else if ok {
		names = append(names, "false", "off", "no")
	}
	for _, n := range names {
		if slices.Contains(choices, n) {
			return n, true
		}
	}
	return "", false
}

func orList(items []string) string {
	last := len(items) - 1
	return strings.Join(items[:last], ", ") + " or " + items[last]
}

func (l *loader) checkTexts() {
	c := l.config
	if _, off := foldChoice(c.Watch, []string{"off"}); off {
		c.Watch = ""
	}
	user, group, colon := strings.Cut(c.User, ":")
	if c.User != "" && (user == "" || colon && group == "" || strings.ContainsAny(c.User, " \t\n,=") || strings.Contains(group, ":")) {
		l.fault(Prefix+"USER", problem{"not a user", "", "write user or user:group, names or numbers"})
	}
	if c.StateDir != "" && !filepath.IsAbs(c.StateDir) {
		l.fault(Prefix+"STATE_DIR", problem{"not an absolute path", "", "begin it with /"})
	}
	for root := range strings.SplitSeq(c.TarRoots, ",") {
		if root = strings.TrimSpace(root); root != "" && !filepath.IsAbs(root) {
			l.fault(Prefix+"TAR_ROOTS", problem{"not a list of absolute paths", "", "begin each with /"})
			break
		}
	}
	l.checkControl()
}

// socketPathLimit is sizeof(sun_path) less the closing zero byte: unix(7).
const socketPathLimit = 107

func (l *loader) checkControl() {
	c := l.config
	choice, ok := foldChoice(c.Control, []string{"auto", "off"})
	switch {
	case ok:
		c.Control = choice
	case !filepath.IsAbs(c.Control) && !strings.HasPrefix(c.Control, "@"):
		l.fault(Prefix+"CONTROL", problem{"not the place of a socket", "", "write auto, off, an absolute path, or an abstract name that begins with @"})
	case len(c.Control) > socketPathLimit:
		l.fault(Prefix+"CONTROL", problem{fmt.Sprintf("longer than the %d bytes that the kernel allows for a socket's path", socketPathLimit), "", "choose a shorter path"})
	}
}

// maxWorkers is what the kernel's program for a held address has room for beside everything else: handoff.MaxWorkers.
const maxWorkers = 64

func (l *loader) checkNumbers() {
	c := l.config
	for _, name := range []string{"START_TIMEOUT", "DRAIN_TIMEOUT", "SHUTDOWN_TIMEOUT", "RESTART_DELAY", "RESTART_MAX_DELAY", "HEALTH_INTERVAL", "HEALTH_TIMEOUT", "WATCH_POLL", "HOOK_TIMEOUT", "PROXY_CONNECT_TIMEOUT"} {
		if l.number(Prefix+name) == 0 {
			l.fault(Prefix+name, problem{"it must be longer than 0s", "", durationRemedy})
		}
	}
	for _, name := range []string{"MAX_DRAINING", "START_LIMIT_BURST", "HEALTH_FAILURES"} {
		if l.number(Prefix+name) == 0 {
			l.fault(Prefix+name, problem{"it must be at least 1", "", ""})
		}
	}
	if c.Workers < 1 || c.Workers > maxWorkers {
		l.fault(Prefix+"WORKERS", problem{"a generation has 1 to " + strconv.Itoa(maxWorkers) + " workers", "", ""})
	}
	switch syscall.Signal(c.StopSignal) {
	case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT, syscall.SIGCHLD:
		l.fault(Prefix+"STOP_SIGNAL", problem{"a signal that never ends a program", "", "write TERM, INT, QUIT or what the app documents"})
	}
}

// checkPairs compares variables with each other.
func (l *loader) checkPairs() {
	c := l.config
	if c.Handoff == "none" && c.Listen != "" && !l.faulted[Prefix+"HANDOFF"] {
		l.reject(Prefix+"LISTEN", fmt.Sprintf("cannot hold the addresses of %sLISTEN with %sHANDOFF=none: unset one of them", Prefix, Prefix))
	}
	if c.Main != "" && len(c.Apps) == 0 && !l.faulted[Prefix+"APPS"] {
		l.reject(Prefix+"MAIN", fmt.Sprintf("cannot use %sMAIN: there are no several apps: set %sAPPS, or unset it", Prefix, Prefix))
	}
	if c.Handoff == "proxy" && c.Listen == "" && !l.faulted[Prefix+"LISTEN"] {
		l.reject(Prefix+"HANDOFF", fmt.Sprintf("cannot use %sHANDOFF=proxy without addresses for the proxy: set %sLISTEN, such as tcp://:8080", Prefix, Prefix))
	}
	delay, most := Prefix+"RESTART_DELAY", Prefix+"RESTART_MAX_DELAY"
	if c.RestartDelay > c.RestartMaxDelay && !l.faulted[delay] && !l.faulted[most] {
		l.reject(most, fmt.Sprintf("cannot use %s %s: it is shorter than %s %s: raise it to that or more",
			most, c.show("RESTART_MAX_DELAY", c.RestartMaxDelay.String()), delay, c.show("RESTART_DELAY", c.RestartDelay.String())))
	}
}

// show quotes a value for a message, unless it came from a file. The name is
// without prefix.
func (c *Config) show(name, value string) string {
	if c.Source(Prefix+name) == FromFile {
		return "(not shown)"
	}
	return quote(value)
}

// Fault is for those who parse what is only a text here (LISTEN, READY, …): it
// makes a sentence about the named variable (with prefix) of their error, and
// leaves the error out if the value may not be shown. It returns nil for nil;
// of a joined error each part becomes a *Fault.
func (c *Config) Fault(name string, err error) error {
	if err == nil {
		return nil
	}
	return respell(c.faultOf(name, err), c.spelled)
}

func (c *Config) faultOf(name string, err error) error {
	if c.Source(name) == FromFile || name == Prefix+"APP_ENV" {
		return &Fault{Name: name, Text: fmt.Sprintf("cannot use %s: it is not understood; its value is not shown: set %s itself to see more", name, name)}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return &Fault{Name: name, Text: fmt.Sprintf("cannot use %s: %v", name, err)}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, c.faultOf(name, e))
	}
	return errors.Join(all...)
}

// Warnings returns sentences about what works but is probably not meant. They
// hold no secret.
func (c *Config) Warnings() []string {
	out := c.warnings()
	for i, text := range out {
		out[i] = respellText(text, c.spelled)
	}
	return out
}

func (c *Config) warnings() []string {
	out := c.graceWarnings()
	for _, of := range []struct {
		idle   bool
		names  []string
		reason string
	}{
		{c.Restart == "no", []string{"RESTART_DELAY", "RESTART_MAX_DELAY", "START_LIMIT_BURST", "START_LIMIT_INTERVAL"}, "RESTART is no"},
		{c.Health == "", []string{"HEALTH_INTERVAL", "HEALTH_TIMEOUT"}, "HEALTH is not set"},
		{c.Watch == "", []string{"WATCH_SETTLE", "WATCH_POLL"}, "WATCH is not set"},
	} {
		if set := c.set(of.names); of.idle && len(set) > 0 {
			out = append(out, fmt.Sprintf("%s without effect while %s%s", strings.Join(set, ", "), Prefix, of.reason))
		}
	}
	if idle := c.idleProxy(); len(idle) > 0 && c.Handoff != "proxy" {
		out = append(out, fmt.Sprintf("%s without effect while %sHANDOFF is not proxy", strings.Join(idle, ", "), Prefix))
	}
	for _, name := range c.stray {
		out = append(out, fmt.Sprintf("%s is not read: it has the name of a Kubernetes service link and is passed to the app: use %sLISTEN to configure an address", name, Prefix))
	}
	if len(c.links) > len(c.stray) {
		out = append(out, fmt.Sprintf("%d variables such as %s are Kubernetes links to a Service whose name begins with entrypoint: they are passed to the app and configure nothing", len(c.links)-len(c.stray), c.firstLink()))
	}
	return out
}

// usualGrace is how long Kubernetes waits between TERM and KILL unless told otherwise; Docker waits 10 seconds.
const usualGrace = 30 * time.Second

// graceWarnings compares what a stop may take with what the container runtime waits for it. The old generations of a swap under way
// are ended within the same time, so that DRAIN_TIMEOUT adds nothing.
func (c *Config) graceWarnings() []string {
	stop, grace := time.Duration(c.ShutdownDelay)+time.Duration(c.ShutdownTimeout), time.Duration(c.Grace)
	both := fmt.Sprintf("%sSHUTDOWN_DELAY %s and %sSHUTDOWN_TIMEOUT %s together are",
		Prefix, c.show("SHUTDOWN_DELAY", c.ShutdownDelay.String()), Prefix, c.show("SHUTDOWN_TIMEOUT", c.ShutdownTimeout.String()))
	switch {
	case grace > 0 && stop > grace:
		return []string{fmt.Sprintf("%s longer than %sGRACE %s: the container may be killed before the app has ended: raise its grace period, and %sGRACE with it, or shorten the two",
			both, Prefix, c.show("GRACE", c.Grace.String()), Prefix)}
	case grace == 0 && stop >= usualGrace:
		return []string{fmt.Sprintf("%s %v or longer, and Docker kills after 10s, Kubernetes after 30s, unless told otherwise: say in %sGRACE what this container's grace period is",
			both, usualGrace, Prefix)}
	}
	return nil
}

// set lists those of the names that are set.
func (c *Config) set(names []string) []string {
	var set []string
	for _, name := range names {
		if c.Source(Prefix+name) != FromDefault {
			set = append(set, Prefix+name)
		}
	}
	return set
}

// idleProxy lists the variables that are set and matter for the proxy only.
func (c *Config) idleProxy() []string {
	var set []string
	for _, name := range []string{"PROXY", "PROXY_RANGE", "PROXY_CONNECT_TIMEOUT", "PROXY_IDLE_TIMEOUT", "PROXY_TLS", "PROXY_TRUST", "PROXY_PROTOCOL"} {
		if c.Source(Prefix+name) != FromDefault {
			set = append(set, Prefix+name)
		}
	}
	return set
}

// firstLink names one service link that is not a stray one.
func (c *Config) firstLink() string {
	for _, name := range c.links {
		if !slices.Contains(c.stray, name) {
			return name
		}
	}
	return ""
}
