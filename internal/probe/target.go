package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Defaults of a Target.
const (
	// DefaultPeriod lies between two tries: short beside the start of any app, long beside the cost of a try.
	DefaultPeriod = 100 * time.Millisecond
	// DefaultTimeout bounds one try, so that an answer lost in a starting app is asked for again.
	DefaultTimeout = 5 * time.Second
	// askGrace is what the helper process has, beyond the timeout of a try, to say that the answer did not come.
	askGrace = time.Second
	// autoDelay is all that auto can do for an app without a held stream socket.
	autoDelay = time.Second
)

// A Target leads to one generation. Functions that no check needs may be nil; a check that needs a nil one can never
// hold, and is refused at once. All functions must return soon after their context ends, and leave nothing behind.
type Target struct {
	// Dial makes a connection that this generation has accepted, or will accept and nobody else. network is tcp or unix.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Accept blocks until the generation accepted a connection on every held stream socket. In Wait it is given all the
	// time there is, not the Timeout of one try, unless the check has one of its own. nil: no stream socket is held.
	Accept func(ctx context.Context) error
	// Shown is what auto waits for where it knows more than Accept. nil: Accept, or a delay.
	Shown func(ctx context.Context) error
	// Notified is closed once the generation has sent READY=1. nil: it cannot.
	Notified <-chan struct{}
	// Exec runs a command as the app's user and waits for it; nil means that it exited with 0.
	Exec func(ctx context.Context, argv []string) error
	// Ask makes one request over conn in a helper process; nil means the right answer. Otherwise its error goes on where a
	// sentence begins with the URL: "answered 503". It has no use for conn afterwards: the caller closes it.
	Ask func(ctx context.Context, conn net.Conn, r Request) error
	// Period is the pause between two tries of a check that does not say; 0: DefaultPeriod.
	Period time.Duration
	// Timeout bounds one try of a check that does not say; 0: DefaultTimeout.
	Timeout time.Duration
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

func (t Target) period(c Check) time.Duration {
	if c.Period > 0 {
		return c.Period
	}
	return t.Period
}

// limit bounds one try, 0 does not: what waits for the app by itself has all the time there is.
func (t Target) limit(c Check) time.Duration {
	switch {
	case c.Timeout > 0:
		return c.Timeout
	case c.Kind == Auto || c.Kind == Accept:
		return 0
	}
	return t.Timeout
}

// never is the reason of a check that can never hold, or is given up.
type never struct{ text string }

func (n *never) Error() string { return n.text }

func hopeless(c Check, why string) error { return &never{fmt.Sprintf("%s: %s", c.Text, why)} }

// Late is the error of a try that had all the time there is and says what was still missing.
type Late struct{ Text string }

func (l *Late) Error() string { return l.Text }

// Said is the error of a command that has something to say about it.
type Said struct {
	Err   error
	Words string
}

func (s *Said) Error() string { return s.Err.Error() + ": " + s.Words }

// Unwrap returns Err.
func (s *Said) Unwrap() error { return s.Err }

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

// attempt is how a check is tried once: missing is what to say while no try has come to an end.
type attempt struct {
	try     func(context.Context) error
	missing string
}

// attempt finds the way, or says why there is none. Notify and Delay are not tried but waited for.
func (t Target) attempt(c Check) (attempt, error) {
	switch c.Kind {
	case Auto:
		if shown := t.shown(); shown != nil {
			return attempt{shown, "the app has neither accepted a connection nor said READY=1"}, nil
		}
		return attempt{func(ctx context.Context) error { return pause(ctx, autoDelay) }, autoDelay.String() + " are not over"}, nil
	case Accept:
		if t.Accept == nil {
			return attempt{}, hopeless(c, "no stream socket is held that could show it")
		}
		return attempt{t.Accept, "the app has not accepted a connection"}, nil
	case Exec:
		if t.Exec == nil {
			return attempt{}, hopeless(c, "there is no way to run a command")
		}
		return attempt{func(ctx context.Context) error { return t.Exec(ctx, c.Argv) }, "not finished"}, nil
	}
	switch {
	case !c.Kind.connects():
		return attempt{}, hopeless(c, "unknown kind of check")
	case t.Dial == nil || c.Kind.asks() && t.Ask == nil:
		return attempt{}, hopeless(c, "there is no way to reach the app")
	}
	return attempt{func(ctx context.Context) error { return t.connect(ctx, c) }, "no answer"}, nil
}

// shown is what shows that an app works that says nothing.
func (t Target) shown() func(context.Context) error {
	if t.Shown != nil {
		return t.Shown
	}
	return t.Accept
}

// once makes one try under the check's limit, and says so when that limit ended it.
func (t Target) once(ctx context.Context, c Check, try func(context.Context) error) error {
	limit := t.limit(c)
	if limit <= 0 {
		return try(ctx)
	}
	most := limit
	if c.Kind.connects() { // it keeps the limit itself, and can say what was missing
		most += askGrace
	}
	one, stop := context.WithTimeout(ctx, most)
	defer stop()
	err := try(one)
	if err == nil || !over(one) || over(ctx) {
		return err
	}
	text := fmt.Sprintf("did not come to an end within %v", limit)
	var said *Said
	if errors.As(err, &said) {
		text += ": " + said.Words
	}
	return &phrase{text}
}

// connect is one try of a check that connects.
func (t Target) connect(ctx context.Context, c Check) error {
	limit := t.limit(c)
	deadline := time.Now().Add(limit)
	dialling, stop := context.WithDeadline(ctx, deadline)
	defer stop()
	conn, err := t.Dial(dialling, c.Network, c.Address)
	switch {
	case err != nil && over(dialling) && !over(ctx):
		return &phrase{fmt.Sprintf("did not accept a connection within %v", limit)}
	case err != nil:
		return fmt.Errorf("cannot connect: %w", err)
	}
	defer conn.Close() // nothing was written that a failing close could lose
	if c.Request == nil {
		return nil
	}
	r := *c.Request
	r.Left, r.Timeout = time.Until(deadline), limit
	if err := t.Ask(ctx, conn, r); err != nil {
		return &phrase{err.Error()}
	}
	return nil
}

// over tells whether ctx is done. A dialer watches the deadline by a clock of its own and may be the first to notice; its
// "i/o timeout" is then no news about the app.
func over(ctx context.Context) bool {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	return ctx.Err() != nil
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
