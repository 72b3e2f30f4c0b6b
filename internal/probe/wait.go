package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Defaults of a Target.
const (
	// DefaultPeriod lies between two tries: short beside the start of any app, long beside the cost of a try.
	DefaultPeriod = 100 * time.Millisecond
	// DefaultTimeout bounds one try, so that an answer lost in a starting app is asked for again.
	DefaultTimeout = 5 * time.Second
	// autoDelay is all that auto can do for an app without a held stream socket.
	autoDelay = time.Second
)

// A Target leads to one candidate. Functions that no check needs may be nil; a check that needs a nil one can never
// hold, and Wait says so at once. All functions must return soon after their context ends.
type Target struct {
	// Dial makes a connection to the candidate and to nobody else.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Accept blocks until the candidate accepted a connection on every held stream socket. It is given all the time
	// there is, not the Timeout of one try. nil: no stream socket is held.
	Accept func(ctx context.Context) error
	// Shown is what auto waits for where it knows more than Accept. nil: Accept, or a delay.
	Shown func(ctx context.Context) error
	// Notified is closed once the candidate has sent READY=1. nil: it cannot.
	Notified <-chan struct{}
	// Exec runs a command as the app's user and waits for it; nil means that it exited with 0.
	Exec func(ctx context.Context, argv []string) error
	// HTTP makes one GET over c in a helper process; nil means a status from 200 to 399. Otherwise its error goes on
	// where a sentence begins with the URL: "answered 503". Wait closes c afterwards.
	HTTP func(ctx context.Context, c net.Conn, u *url.URL) error
	// Period is the pause between two tries of a check; 0: DefaultPeriod.
	Period time.Duration
	// Timeout bounds one try; 0: DefaultTimeout.
	Timeout time.Duration
}

// An Unmet error names the checks that did not hold, in the order in which they were asked for.
type Unmet struct {
	Reasons []string // "http://127.0.0.1:8080/healthz answered 503"
	Cause   error    // why the waiting ended: the cause of the context, or nil when a check can never hold
}

func (e *Unmet) Error() string { return strings.Join(e.Reasons, "; ") }

// Unwrap returns Cause.
func (e *Unmet) Unwrap() error { return e.Cause }

// Wait tries all checks side by side, each until it has held once, and returns nil as soon as all have. When ctx ends
// first, or when a check can never hold, it returns an *Unmet with what was last seen of each missing check. No checks
// at all hold at once. Whatever it started has ended when it returns.
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

func (t Target) withDefaults() Target {
	if t.Period <= 0 {
		t.Period = DefaultPeriod
	}
	if t.Timeout <= 0 {
		t.Timeout = DefaultTimeout
	}
	return t
}

// never is the reason of a check that can never hold.
type never struct{ text string }

func (n *never) Error() string { return n.text }

func hopeless(c Check, why string) error { return &never{fmt.Sprintf("%s: %s", c.Text, why)} }

// until blocks until a check has held, and returns nil; or until ctx ends, and returns what was missing.
func (t Target) until(ctx context.Context, c Check) error {
	switch c.Kind {
	case Auto:
		return t.auto(ctx, c)
	case Notify:
		if t.Notified == nil {
			return hopeless(c, "the app has no way to say READY=1")
		}
		return waitFor(ctx, t.Notified, c, "the app has not said READY=1")
	case Accept:
		if t.Accept == nil {
			return hopeless(c, "no stream socket is held that could show it")
		}
		return t.repeat(ctx, c, 0, "the app has not accepted a connection", t.Accept)
	case Delay:
		return after(ctx, c, c.Delay)
	case TCP, HTTP:
		if t.Dial == nil || (c.Kind == HTTP && t.HTTP == nil) {
			return hopeless(c, "there is no way to reach the app")
		}
		return t.repeat(ctx, c, t.Timeout, "no answer", func(ctx context.Context) error { return t.connect(ctx, c) })
	case Exec:
		if t.Exec == nil {
			return hopeless(c, "there is no way to run a command")
		}
		return t.repeat(ctx, c, t.Timeout, "not finished", func(ctx context.Context) error { return t.Exec(ctx, c.Argv) })
	}
	return hopeless(c, "unknown kind of check")
}

// auto waits for the first of two: the app says READY=1, or shows by itself that it works.
func (t Target) auto(ctx context.Context, c Check) error {
	shown, stop := context.WithCancel(ctx)
	defer stop()
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
	err := t.show(shown, c)
	select {
	case <-said:
		return nil
	default:
		return err
	}
}

// show is auto for an app that says nothing.
func (t Target) show(ctx context.Context, c Check) error {
	try := t.Shown
	if try == nil {
		try = t.Accept
	}
	if try == nil {
		return after(ctx, c, autoDelay)
	}
	return t.repeat(ctx, c, 0, "the app has neither accepted a connection nor said READY=1", try)
}

// repeat tries until a try succeeds or ctx ends. limit bounds one try, 0 does not. The reason is that of the last try
// that ended by itself, or unknown when none did.
func (t Target) repeat(ctx context.Context, c Check, limit time.Duration, unknown string, try func(context.Context) error) error {
	reason := fmt.Errorf("%s: %s", c.Text, unknown)
	for {
		err := bounded(ctx, limit, try)
		if err == nil {
			return nil
		}
		var late *Late
		switch {
		case over(ctx) && errors.As(err, &late):
			return fmt.Errorf("%s: %s", c.Text, late.Text)
		case over(ctx):
			return reason
		}
		reason = explain(c, err)
		if pause(ctx, t.Period) != nil {
			return reason
		}
	}
}

// bounded runs one try under a limit of its own, and says so when that limit ended it.
func bounded(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	if limit <= 0 {
		return try(ctx)
	}
	one, stop := context.WithTimeout(ctx, limit)
	defer stop()
	err := try(one)
	if err != nil && over(one) && !over(ctx) {
		return &phrase{fmt.Sprintf("did not come to an end within %v", limit)}
	}
	return err
}

// over tells whether ctx is done. A dialer watches the deadline by a clock of its own and may be the first to notice; its
// "i/o timeout" is then no news about the app.
func over(ctx context.Context) bool {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	return ctx.Err() != nil
}

// Late is the error of a try that had all the time there is and says what was still missing.
type Late struct{ Text string }

func (l *Late) Error() string { return l.Text }

// phrase is an error that goes on where the check's text ends.
type phrase struct{ text string }

func (p *phrase) Error() string { return p.text }

// explain puts a check and the error of a try together.
func explain(c Check, err error) error {
	if errors.As(err, new(*phrase)) {
		return fmt.Errorf("%s %w", c.Text, err)
	}
	return fmt.Errorf("%s: %w", c.Text, err)
}

// connect is one try of a check with a URL.
func (t Target) connect(ctx context.Context, c Check) error {
	conn, err := t.Dial(ctx, "tcp", c.hostPort())
	if err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	defer conn.Close() // nothing was written that a failing close could lose
	if c.Kind == TCP {
		return nil
	}
	if err := t.HTTP(ctx, conn, c.URL); err != nil {
		return &phrase{err.Error()}
	}
	return nil
}

func waitFor(ctx context.Context, done <-chan struct{}, c Check, missing string) error {
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %s", c.Text, missing)
	}
}

func after(ctx context.Context, c Check, d time.Duration) error {
	if pause(ctx, d) != nil {
		return fmt.Errorf("%s: %v are not over", c.Text, d)
	}
	return nil
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
