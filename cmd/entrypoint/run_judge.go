package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// parseHealth reads ENTRYPOINT_HEALTH.
func (s *setup) parseHealth(text string) (err error) {
	if s.health, err = probe.Parse(text); err != nil {
		return err
	}
	return probe.Watchable(s.health)
}

// parseCanary reads ENTRYPOINT_CANARY: steps separated by commas, each a share and, behind its last colon, a time. All faults are
// reported at once.
func (s *setup) parseCanary(text string) error {
	var faults []error
	for _, word := range strings.Split(text, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		step, err := parseStep(word)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		s.canary = append(s.canary, step)
	}
	return errors.Join(faults...)
}

// followFaults says which variables make no sense where generations follow each other.
func (s *setup) followFaults() error {
	h := s.cfg.Handoff
	why := ""
	switch {
	case h == "exclusive" || h == "none":
		why = fmt.Sprintf("with ENTRYPOINT_HANDOFF=%s a generation ends before the next one starts, and cannot take its traffic back; unset one of the two", h)
	case s.cfg.Rollout == "rolling":
		why = "with ENTRYPOINT_ROLLOUT=rolling a new generation gets its traffic worker by worker, and the old one is gone by then; unset one of the two"
	default:
		return nil
	}
	var faults []error
	if len(s.canary) > 0 {
		faults = append(faults, s.fault("ENTRYPOINT_CANARY", errors.New(why)))
	}
	if s.cfg.Bake > 0 {
		faults = append(faults, s.fault("ENTRYPOINT_BAKE", errors.New(why)))
	}
	return errors.Join(faults...)
}

// parseStep reads "5%:30s" or "5%". An IPv6 address is taken whole where it can be.
func parseStep(word string) (swap.Step, error) {
	share, err := handoff.ParseShare(word)
	if err == nil {
		return swap.Step{Share: share}, nil
	}
	i := strings.LastIndexByte(word, ':')
	d, isTime := stepTime(word[i+1:])
	if i < 0 || !isTime {
		return swap.Step{}, err
	}
	share, err = handoff.ParseShare(strings.TrimSpace(word[:i]))
	return swap.Step{Share: share, For: d}, err
}

// stepTime reads a duration, or a bare number of seconds.
func stepTime(text string) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if _, err := strconv.ParseUint(text, 10, 31); err == nil {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d > 0
}
