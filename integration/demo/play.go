package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// step is one change of the binary.
type step struct {
	binary   string // what the new app says of itself
	settings string
	byHUP    bool
	broken   bool
}

var steps = []step{
	{binary: "v2", byHUP: true},
	{binary: "v3"},
	{binary: "v4", byHUP: true},
	{binary: "broken", settings: "lines=1 fail=1", broken: true},
	{binary: "v5", byHUP: true},
}

// result is what a step did.
type result struct {
	binary, trigger, outcome string
	took                     time.Duration
	requests                 int
	failed                   string
}

// play runs all steps under load. Every fault is in the error; the results are there
// even so.
func (s *stage) play(ctx context.Context) (results []result, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	var faults []error
	for _, st := range steps {
		r, err := s.step(ctx, st)
		results = append(results, r)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", st.binary, err))
		}
	}
	s.report = s.load.Stop()
	s.load = nil
	if n := s.report.Failures(load.Fresh, load.Slow, load.Reused); n > 0 {
		faults = append(faults, fmt.Errorf("%d requests failed: %s", n, strings.Join(s.report.Samples, "; ")))
	}
	if len(faults) > 0 {
		faults = append(faults, fmt.Errorf("log of the container:\n%s", s.container.Logs()))
	}
	return results, errors.Join(faults...)
}

func (s *stage) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		probe := load.Start(ctx, load.Options{Address: s.address, Fresh: 1, MaxRequests: 1})
		probe.Wait()
		if probe.Report().Failures(load.Fresh) == 0 {
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the app does not answer: %s\n%s", probe.Report().Samples, s.container.Logs())
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.load = load.Start(context.WithoutCancel(ctx), load.Options{
		Address: s.address, Fresh: 4, Slow: 4, Reused: 4, SlowPath: "/slow?ms=200", Pace: time.Millisecond,
	})
	return s.load.WaitRequests(ctx, 100)
}

// step changes the binary, triggers, and waits for the outcome.
func (s *stage) step(ctx context.Context, st step) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	before := s.load.Report().Requests()
	file := filepath.Join(s.dir, st.binary)
	if err := s.binaries.Stamp(file, "version="+st.binary+" "+st.settings); err != nil {
		return result{}, err
	}
	if err := s.container.Copy(file, app); err != nil {
		return result{}, err
	}
	r := result{binary: st.binary}
	begin := time.Now()
	err := s.trigger(ctx, st, &r)
	r.took = time.Since(begin)
	if err == nil {
		err = s.load.WaitRequests(ctx, 500)
	}
	report := s.load.Report()
	r.requests, r.failed = report.Requests()-before, report.FailedText()
	return r, err
}

func (s *stage) trigger(ctx context.Context, st step, r *result) error {
	if st.byHUP {
		r.trigger = "kill -s HUP"
		if err := s.container.Signal(syscall.SIGHUP); err != nil {
			return err
		}
		if err := s.load.WaitVersion(ctx, st.binary); err != nil {
			return err
		}
		r.outcome = "swapped"
		return nil
	}
	r.trigger = "exec /entrypoint reload"
	code, output, err := engine.Exec(ctx, s.container, "/entrypoint", "reload")
	if err != nil {
		return err
	}
	return s.judge(ctx, st, r, code, output)
}

// judge compares the exit code of reload with what really happened.
func (s *stage) judge(ctx context.Context, st step, r *result, code int, output string) error {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	switch {
	case st.broken && code == 1:
		r.outcome = "refused (1)"
		fmt.Printf("the broken binary: %s\n\n", strings.Join(lines, "\n    "))
		return nil
	case st.broken:
		r.outcome = fmt.Sprintf("NOT REFUSED (%d)", code)
		return fmt.Errorf("reload ended with %d: %s", code, output)
	case code != 0:
		r.outcome = fmt.Sprintf("FAILED (%d)", code)
		return fmt.Errorf("reload ended with %d: %s", code, output)
	}
	r.outcome = "swapped (0)"
	return s.load.WaitVersion(ctx, st.binary)
}
