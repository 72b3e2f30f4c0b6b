package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// MonitorOptions say how Watch watches. The zero value of each is its default.
type MonitorOptions struct {
	Interval time.Duration // pause between the end of a round and the next one; 0: 10 s
	Timeout  time.Duration // bounds each check of a round that does not say; 0: that of the Target
	Failures int           // so many failed rounds in a row make it unhealthy; 0: 3
}

// Health is what a round of checks has shown.
type Health struct {
	Healthy  bool   // from the beginning, until Failures rounds in a row have failed; and again after one that has not
	Changed  bool   // Healthy was the opposite before
	Failures int    // failed rounds in a row, this one included; 0 after a good one
	Reason   string // of a failed round: its first check that did not hold, in their order; "": it held
}

// Watchable reports the checks that say nothing when they are asked again and again, and options that a watch does not
// heed, all in one error; nil if there are none.
func Watchable(checks []Check) error {
	var faults []error
	for _, c := range checks {
		switch {
		case c.Kind == Auto || c.Kind == Notify || c.Kind == Delay:
			faults = append(faults, fmt.Errorf("cannot use check %q for health: it holds once and for all; use accept, tcp, http, grpc or exec", c.Text))
		case c.Successes > 0 || c.Failures > 0 || c.Period > 0:
			faults = append(faults, fmt.Errorf("cannot use check %q for health: successes, failures and period of a health check are those of all; use ENTRYPOINT_HEALTH_FAILURES and ENTRYPOINT_HEALTH_INTERVAL", c.Text))
		}
	}
	return errors.Join(faults...)
}

// Watch asks the checks round after round until ctx ends, and returns when all that it started has ended. In a round all
// are asked side by side, each once and within its timeout; the next round begins Interval after the end of the last, the
// first at once, so rounds never overlap. report is called on the goroutine of Watch after each round that failed and the first
// good one after it, which is every one that changed the verdict; while it blocks there is no new round. What ctx interrupts is not reported.
func Watch(ctx context.Context, checks []Check, t Target, o MonitorOptions, report func(Health)) {
	if o.Timeout > 0 {
		t.Timeout = o.Timeout
	}
	t, o = t.withDefaults(), o.withDefaults()
	failures, healthy := 0, true
	for ctx.Err() == nil {
		err := t.round(ctx, checks)
		if ctx.Err() != nil {
			return
		}
		was, failed := healthy, failures > 0
		if err == nil {
			failures, healthy = 0, true
		} else {
			failures++
			healthy = healthy && failures < o.Failures
		}
		if err != nil || failed {
			report(Health{Healthy: healthy, Changed: healthy != was, Failures: failures, Reason: text(err)})
		}
		_ = pause(ctx, o.Interval) // the end of ctx is looked for above
	}
}

func (o MonitorOptions) withDefaults() MonitorOptions {
	if o.Interval <= 0 {
		o.Interval = 10 * time.Second
	}
	if o.Failures <= 0 {
		o.Failures = 3
	}
	return o
}

// round asks each check once, side by side, and returns the error of the first that did not hold.
func (t Target) round(ctx context.Context, checks []Check) error {
	missing := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			if c.Timeout == 0 {
				c.Timeout = t.Timeout
			}
			missing[i] = t.single(ctx, c)
		})
	}
	wg.Wait()
	for _, err := range missing {
		if err != nil {
			return err
		}
	}
	return nil
}

// single is one try with its reason.
func (t Target) single(ctx context.Context, c Check) error {
	c.Successes, c.Failures = 0, 1
	if c.Kind == Notify && c.Deadline == 0 {
		c.Deadline = c.Timeout
	}
	return t.until(ctx, c)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
