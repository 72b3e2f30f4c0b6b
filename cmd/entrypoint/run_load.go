package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hotswap-init/entrypoint/envcfg"
	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/internal/watch"
	"github.com/hotswap-init/entrypoint/reaper"
)

// setup is the configuration, parsed to the end: nothing in it can fail for its form any more.
type setup struct {
	cfg       *envcfg.Config
	command   []string
	addresses []handoff.Address
	protocols handoff.Protocols
	checks    []probe.Check
	watched   []watch.Path
	user      *reaper.Credential
	home      string
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
	{"ENTRYPOINT_WATCH", func(c *envcfg.Config) string { return c.Watch },
		func(s *setup, text string) (err error) { s.watched, err = watch.ParsePaths(text); return }},
	{"ENTRYPOINT_CONTROL", func(c *envcfg.Config) string { return c.Control },
		func(s *setup, text string) error { return control.CheckAddress(text) }},
	{"ENTRYPOINT_USER", func(c *envcfg.Config) string { return c.User }, (*setup).findUser},
}

// load reads everything that the environment and the arguments say. All faults are in the error, joined: where envcfg found
// some and so gives no Config, the other packages' texts are read from the environment as they are.
func load(environ, arguments []string) (*setup, error) {
	cfg, err := envcfg.Load(environ)
	s := &setup{cfg: cfg, command: arguments}
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
	if err != nil {
		return nil, err
	}
	if len(s.command) == 0 {
		s.command = cfg.Command
	}
	return s, nil
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
