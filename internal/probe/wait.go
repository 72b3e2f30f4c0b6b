package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// An Unmet error names the checks that did not hold, in the order in which they were asked for.
type Unmet struct {
	Reasons []string // "http://127.0.0.1:8080/healthz answered 503"
	Cause   error    // why the waiting ended: the cause of the context, or nil when a check can never hold or was given up
}

func (e *Unmet) Error() string { return strings.Join(e.Reasons, "; ") }

// Unwrap returns Cause.
func (e *Unmet) Unwrap() error { return e.Cause }

// Wait tries all checks side by side, each until it has held (Successes times in a row), and returns nil as soon as all
// have. When ctx ends first, or when a check can never hold or used up its Failures or its Deadline, it returns an *Unmet
// with what was last seen of each missing check. No checks at all hold at once. Whatever it started has ended when it returns.
func Wait(ctx context.Context, checks []Check, t Target) error {
	t = t.withDefaults()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	missing := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			missing[i] = t.until(ctx, c)
			if errors.As(missing[i], new(*never)) {
				stop(errNever)
			}
		})
	}
	wg.Wait()
	return unmet(ctx, missing)
}

// Run asks each check once, in order, and stops at the first that does not hold, with an *Unmet that names it: this is a
// smoke test. A check with Successes has to hold so often in a row; one with Failures is forgiven all failures in a row but
// the last of so many. What waits by itself (auto, notify, accept) waits for the Timeout.
func Run(ctx context.Context, checks []Check, t Target) error {
	t = t.withDefaults()
	for _, c := range checks {
		c.Failures = max(c.Failures, 1)
		switch {
		case c.Kind == Notify && c.Deadline == 0:
			c.Deadline = t.Timeout
		case (c.Kind == Auto || c.Kind == Accept) && c.Timeout == 0:
			c.Timeout = t.Timeout
		}
		if err := t.until(ctx, c); err != nil {
			e := &Unmet{Reasons: []string{err.Error()}}
			if !errors.As(err, new(*never)) {
				e.Cause = context.Cause(ctx)
			}
			return e
		}
	}
	return nil
}

var errNever = errors.New("a check can never hold")

// unmet collects the checks that did not hold. If one never can, the others did nothing wrong: they are left out.
func unmet(ctx context.Context, missing []error) error {
	hopeless := context.Cause(ctx) == errNever
	e := &Unmet{}
	for _, err := range missing {
		if err == nil || (hopeless && !errors.As(err, new(*never))) {
			continue
		}
		e.Reasons = append(e.Reasons, err.Error())
	}
	if len(e.Reasons) == 0 {
		return nil
	}
	if !hopeless {
		e.Cause = context.Cause(ctx)
	}
	return e
}

// until blocks until a check has held, and returns nil; or until ctx or the check's own deadline ends, and returns what was
// missing.
func (t Target) until(ctx context.Context, c Check) error {
	if c.Deadline <= 0 {
		return t.hold(ctx, c)
	}
	own, stop := context.WithTimeout(ctx, c.Deadline)
	defer stop()
	err := t.hold(own, c)
	if err == nil || over(ctx) || !over(own) {
		return err
	}
	return &never{fmt.Sprintf("%v, and its deadline of %v is over", err, c.Deadline)}
}

func (t Target) hold(ctx context.Context, c Check) error {
	switch c.Kind {
	case Auto:
		return t.auto(ctx, c)
	case Notify:
		return t.said(ctx, c)
	case Delay:
		if pause(ctx, c.Delay) != nil {
			return fmt.Errorf("%s: %v are not over", c.Text, c.Delay)
		}
		return nil
	}
	return t.repeat(ctx, c)
}

// said waits for the app's word.
func (t Target) said(ctx context.Context, c Check) error {
	if t.Notified == nil {
		return hopeless(c, "the app has no way to say READY=1")
	}
	if t.saidAlready() {
		return nil
	}
	select {
	case <-t.Notified:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: the app has not said READY=1", c.Text)
	}
}

func (t Target) saidAlready() bool {
	select {
	case <-t.Notified:
		return true
	default:
		return false
	}
}

// auto waits for the first of two: the app says READY=1, or shows by itself that it works.
func (t Target) auto(ctx context.Context, c Check) error {
	shown, stop := context.WithCancel(ctx)
	said := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	if t.Notified != nil {
		wg.Go(func() {
			select {
			case <-t.Notified:
				close(said)
				stop()
			case <-shown.Done():
			}
		})
	}
	err := t.repeat(shown, c)
	select {
	case <-said:
		return nil
	default:
		return err
	}
}

// repeat tries until as many tries in a row as the check wants have succeeded, or failed, or ctx ends. The reason is that of
// the last try that ended by itself.
func (t Target) repeat(ctx context.Context, c Check) error {
	a, err := t.attempt(c)
	if err != nil {
		return err
	}
	reason := fmt.Errorf("%s: %s", c.Text, a.missing)
	for good, bad := 0, 0; ; {
		err := t.once(ctx, c, a.try)
		var late *Late
		switch {
		case err == nil:
			bad = 0
			if good++; good >= c.Successes {
				return nil
			}
			reason = fmt.Errorf("%s: held %d of %d times in a row", c.Text, good, c.Successes)
		case over(ctx) && errors.As(err, &late):
			return fmt.Errorf("%s: %s", c.Text, late.Text)
		case over(ctx):
			return reason
		default:
			good, reason = 0, explain(c, err)
			if bad++; c.Failures > 0 && bad >= c.Failures {
				return givenUp(reason, bad)
			}
		}
		if pause(ctx, t.period(c)) != nil {
			return reason
		}
	}
}

func givenUp(reason error, tries int) error {
	if tries == 1 {
		return &never{reason.Error()}
	}
	return &never{fmt.Sprintf("%v, %d times in a row", reason, tries)}
}
