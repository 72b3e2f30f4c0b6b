package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/hotswap-init/entrypoint/envcfg"
	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/applog"
	"github.com/hotswap-init/entrypoint/internal/artifact"
	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/internal/proxy"
	"github.com/hotswap-init/entrypoint/internal/render"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/internal/syslog"
	"github.com/hotswap-init/entrypoint/internal/watch"
	"github.com/hotswap-init/entrypoint/reaper"
)

// setup is the configuration, parsed to the end: nothing in it can fail for its form any more.
type setup struct {
	name      string // of several apps; "" of one
	cfg       *envcfg.Config
	shown     func() ([]byte, error) // the configuration of the container, as JSON
	command   []string
	addresses []handoff.Address
	protocols handoff.Protocols
	checks    []probe.Check
	smoke     []probe.Check
	health    []probe.Check
	canary    []swap.Step
	verify    *artifact.Verifier
	watched   []watch.Path
	rendered  []render.Target
	appLog    applog.Spec
	logTo     syslog.Target
	user      *reaper.Credential
	home      string
	metrics   *handoff.Address // nil: nowhere

	proxyRange proxy.Range
	proxyTLS   []proxy.Files
	proxyTrust []netip.Prefix
}

// texts are the variables whose value another package reads.
var texts = []struct {
	name  string
	of    func(*envcfg.Config) string
	parse func(*setup, string) error
}{
	{"ENTRYPOINT_LISTEN", func(c *envcfg.Config) string { return c.Listen },
		func(s *setup, text string) (err error) { s.addresses, err = handoff.ParseAddresses(text); return }},
	{"ENTRYPOINT_PROTOCOLS", func(c *envcfg.Config) string { return c.Protocols },
		func(s *setup, text string) (err error) { s.protocols, err = handoff.ParseProtocols(text); return }},
	{"ENTRYPOINT_READY", func(c *envcfg.Config) string { return c.Ready },
		func(s *setup, text string) (err error) { s.checks, err = probe.Parse(text); return }},
	{"ENTRYPOINT_SMOKE", func(c *envcfg.Config) string { return c.Smoke },
		func(s *setup, text string) (err error) { s.smoke, err = probe.Parse(text); return }},
	{"ENTRYPOINT_HEALTH", func(c *envcfg.Config) string { return c.Health }, (*setup).parseHealth},
	{"ENTRYPOINT_CANARY", func(c *envcfg.Config) string { return c.Canary }, (*setup).parseCanary},
	{"ENTRYPOINT_WATCH", func(c *envcfg.Config) string { return c.Watch },
		(*setup).parseWatch},
	{"ENTRYPOINT_VERIFY", func(c *envcfg.Config) string { return c.Verify },
		func(s *setup, text string) (err error) { s.verify, err = artifact.ParseVerify(text); return }},
	{"ENTRYPOINT_RENDER", func(c *envcfg.Config) string { return c.Render }, (*setup).parseRender},
	{"ENTRYPOINT_APP_LOG", func(c *envcfg.Config) string { return c.AppLog },
		func(s *setup, text string) (err error) { s.appLog, err = applog.Parse(text); return }},
	{"ENTRYPOINT_LOG", func(c *envcfg.Config) string { return c.Log },
		func(s *setup, text string) (err error) { s.logTo, err = syslog.Parse(text); return }},
	{"ENTRYPOINT_CONTROL", func(c *envcfg.Config) string { return c.Control },
		func(s *setup, text string) error { return control.CheckAddress(text) }},
	{"ENTRYPOINT_METRICS", func(c *envcfg.Config) string { return c.Metrics }, (*setup).parseMetrics},
	{"ENTRYPOINT_PROXY_RANGE", func(c *envcfg.Config) string { return c.ProxyRange }, (*setup).parseProxyRange},
	{"ENTRYPOINT_PROXY_TLS", func(c *envcfg.Config) string { return c.ProxyTLS }, (*setup).parseProxyTLS},
	{"ENTRYPOINT_PROXY_TRUST", func(c *envcfg.Config) string { return c.ProxyTrust }, (*setup).parseProxyTrust},
	{"ENTRYPOINT_USER", func(c *envcfg.Config) string { return c.User }, (*setup).findUser},
}

// load reads everything that the environment and the arguments say. All faults are in the error, joined: where envcfg found
// some and so gives no Config, the other packages' texts are read from the environment as they are.
func load(environ, arguments []string) (*setup, error) {
	cfg, err := envcfg.Load(environ)
	s := &setup{cfg: cfg}
	if err := s.parse(environ, arguments, err); err != nil {
		return nil, err
	}
	return s, nil
}

// parse reads what other packages understand. err are the faults so far; then cfg may be nil.
func (s *setup) parse(environ, arguments []string, err error) error {
	cfg := s.cfg
	s.command = arguments
	for _, t := range texts {
		var text string
		switch {
		case cfg != nil:
			text = t.of(cfg)
		default:
			text = lookupEnv(environ, t.name)
			if text == "" || complainsOf(err, t.name) {
				continue
			}
		}
		err = errors.Join(err, s.fault(t.name, t.parse(s, text)))
	}
	if cfg != nil {
		err = errors.Join(err, s.hookFaults(err))
	}
	if cfg != nil {
		err = errors.Join(err, s.followFaults(), s.proxyFaults())
		if len(s.command) == 0 {
			s.command = cfg.Command
		}
	}
	if err == nil {
		err = s.conflicts()
	}
	if err == nil {
		s.shown = func() ([]byte, error) { return cfg.JSON() }
	}
	return err
}

// parseWatch reads what is watched, and the names of the signals in it.
func (s *setup) parseWatch(text string) (err error) {
	if s.watched, err = watch.ParsePaths(text); err != nil {
		return err
	}
	for _, w := range s.watched {
		if name, ok := strings.CutPrefix(w.Action, watch.ActionSignal); ok {
			if _, bad := reaper.ParseSignal(name); bad != nil {
				err = errors.Join(err, fmt.Errorf("cannot watch %q: %w", w.Path, bad))
			}
		}
	}
	return err
}

// hookFaults compares two variables: a path with the action hook needs a hook, and a hook needs such a path. before are the
// faults so far: where the list of paths has some, nothing is known of its actions.
func (s *setup) hookFaults(before error) error {
	if complainsOf(before, "ENTRYPOINT_WATCH") {
		return nil
	}
	wanted := slices.ContainsFunc(s.watched, func(w watch.Path) bool { return w.Action == watch.ActionHook })
	switch have := len(s.cfg.HookWatch) > 0; {
	case wanted && !have:
		return s.fault("ENTRYPOINT_WATCH", errors.New("a path has the action hook, and there is no hook; set ENTRYPOINT_HOOK_WATCH to its command"))
	case have && !wanted:
		return s.fault("ENTRYPOINT_HOOK_WATCH", errors.New("no path has the action hook, so it would never run; write PATH=hook in ENTRYPOINT_WATCH"))
	}
	return nil
}

// fault names the variable in an error, and hides values that must not be shown.
func (s *setup) fault(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case s.cfg != nil:
		return s.cfg.Fault(name, err)
	}
	return &envcfg.Fault{Name: name, Text: fmt.Sprintf("cannot use %s: %v", name, err)}
}

func lookupEnv(environ []string, name string) string {
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// complainsOf reports whether one of the joined faults is about that variable.
func complainsOf(err error, name string) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if complainsOf(e, name) {
				return true
			}
		}
		return false
	}
	var f *envcfg.Fault
	return errors.As(err, &f) && f.Name == name
}

// findUser looks up whom the app runs as. Without being root the init can only stay who it is.
func (s *setup) findUser(spec string) error {
	if spec == "" {
		return nil
	}
	c, home, _, err := reaper.LookupUser(spec)
	if err != nil {
		return err
	}
	s.home = home
	if os.Geteuid() == 0 {
		s.user = &c
		return nil
	}
	if c.UID != uint32(os.Geteuid()) || c.GID != uint32(os.Getegid()) {
		return fmt.Errorf("cannot become %q without being root: start the container as root, or as that user", spec)
	}
	return nil
}
