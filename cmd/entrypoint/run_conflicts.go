package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
)

// conflicts finds what each of two variables allows and both together do not: it is looked at when everything is understood, and
// nothing of it could ever work. Each is named by the variable that is the more likely mistake.
func (s *setup) conflicts() error {
	c := s.cfg
	overlaps := c.Handoff != "exclusive" && c.Handoff != "none"
	canary, waits := overlaps && len(s.canary) > 0, false
	for _, step := range s.canary {
		waits = waits || step.For == 0
	}
	var faults []error
	for _, f := range []struct {
		found bool
		name  string
		text  string
	}{
		{canary && c.Steer == "off", "CANARY", "with ENTRYPOINT_STEER=off all generations share one socket, of which nobody can be given a share; unset one of the two"},
		{canary && c.Handoff == "inherit" && len(s.addresses) > 0 && !slices.ContainsFunc(s.addresses, shareable), "CANARY",
			"only unix paths are held, and a path leads to one generation at a time; hold a TCP address too, or unset ENTRYPOINT_CANARY"},
		{waits && c.Control == "off", "CANARY", "a step without a time waits for `entrypoint promote`, which ENTRYPOINT_CONTROL=off keeps away; give each step a time, as in 5%:30s"},
		{len(s.command) == 0 && c.Control == "off", "COMMAND", "there is no command, and ENTRYPOINT_CONTROL=off keeps `entrypoint run` away: nothing could ever run; set one of the two"},
		{c.Watchdog > 0 && s.protocols&handoff.NotifySocket == 0, "WATCHDOG", "the app feeds it through NOTIFY_SOCKET, which ENTRYPOINT_PROTOCOLS leaves out; add notify there"},
		{s.verify != nil && c.Exec == "path", "VERIFY", "what runs from its path cannot be verified; set ENTRYPOINT_EXEC to auto or copy"},
		{c.Rollback == "auto" && c.Keep < 2, "ROLLBACK", fmt.Sprintf("with ENTRYPOINT_KEEP=%d no bytes are kept that could be gone back to; set it to 2 or more", c.Keep)},
	} {
		if f.found {
			faults = append(faults, s.fault("ENTRYPOINT_"+f.name, errors.New(f.text)))
		}
	}
	for _, check := range s.checks {
		if why := s.never(check); why != "" {
			faults = append(faults, s.fault("ENTRYPOINT_READY", errors.New(why)))
		}
	}
	return errors.Join(faults...)
}

// shareable tells whether a candidate can have a share of an address.
func shareable(a handoff.Address) bool { return a.Path == "" }

// never says why a generation could not become ready by this check.
func (s *setup) never(c probe.Check) string {
	const speaks = handoff.NotifySocket | handoff.Crank | handoff.Einhorn
	limit := time.Duration(s.cfg.StartTimeout)
	switch {
	case c.Kind == probe.Delay && c.Delay >= limit:
		return fmt.Sprintf("%s is not over before ENTRYPOINT_START_TIMEOUT %v: no generation would ever be ready; raise that, or shorten the delay", c, limit)
	case c.Kind == probe.Notify && s.protocols&speaks == 0:
		return "notify waits for a word of the app, and ENTRYPOINT_PROTOCOLS leaves out every way to say it; add notify there"
	case c.Kind == probe.Accept && s.cfg.Handoff == "none":
		return "accept is shown by a held socket, and ENTRYPOINT_HANDOFF=none holds none; use delay:2s, or a check that connects"
	}
	return ""
}
