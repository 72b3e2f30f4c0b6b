package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// checks parses a list that is right.
func checks(t *testing.T, list string) []Check {
	t.Helper()
	c, err := Parse(list)
	must(t, err)
	return c
}

// forever blocks until its context ends.
func forever(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// pipe is a Dial that always succeeds; the test ends with every connection closed.
type pipe struct{ open, dialled atomic.Int64 }

type counted struct {
	net.Conn
	open *atomic.Int64
}

func (c counted) Close() error { c.open.Add(-1); return nil }

func (p *pipe) dial(context.Context, string, string) (net.Conn, error) {
	p.open.Add(1)
	p.dialled.Add(1)
	return counted{open: &p.open}, nil
}

// TestWait plays an app against a list of checks, at the speed of a fake clock.
func TestWait(t *testing.T) {
	closed := make(chan struct{})
	close(closed)
	never := make(chan struct{})
	accepted := func(d time.Duration) func(context.Context) error {
		return func(ctx context.Context) error { return pause(ctx, d) }
	}
	answers := func(d time.Duration, last string) func(context.Context, net.Conn, Request) error {
		began := time.Time{}
		return func(context.Context, net.Conn, Request) error {
			if began.IsZero() {
				began = time.Now()
			}
			if d < 0 || time.Since(began) < d {
				return errors.New(last)
			}
			return nil
		}
	}
	p := &pipe{}
	cases := []struct {
		name   string
		list   string
		target Target
		after  time.Duration // how long it takes; with an error: 30 s, or at once
		want   string        // "" when it holds
	}{
		{"nothing", "", Target{}, 0, ""},
		{"auto by accept", "auto", Target{Accept: accepted(3 * time.Second), Notified: never}, 3 * time.Second, ""},
		{"auto by message", "auto", Target{Accept: forever, Notified: closed}, 0, ""},
		{"auto by message, no socket", "auto", Target{Notified: closed}, 0, ""},
		{"auto without a socket", "auto", Target{Notified: never}, time.Second, ""},
		{"auto of a silent app", "auto", Target{Accept: forever, Notified: never}, 30 * time.Second,
			"auto: the app has neither accepted a connection nor said READY=1"},
		{"notify", "notify", Target{Notified: closed}, 0, ""},
		{"notify never", "notify", Target{Notified: never}, 30 * time.Second, "notify: the app has not said READY=1"},
		{"notify impossible", "notify", Target{}, 0, "notify: the app has no way to say READY=1"},
		{"accept", "accept", Target{Accept: accepted(20 * time.Second)}, 20 * time.Second, ""},
		{"accept impossible", "accept,notify", Target{Notified: never}, 0, "accept: no stream socket is held that could show it"},
		{"accept fails", "accept", Target{Accept: func(context.Context) error { return errors.New("no queue") }}, 30 * time.Second,
			"accept: no queue"},
		{"delay", "delay:2s", Target{}, 2 * time.Second, ""},
		{"delay too long", "delay:1m", Target{}, 30 * time.Second, "delay:1m: 1m0s are not over"},
		{"tcp", "tcp://h:1", Target{Dial: p.dial}, 0, ""},
		{"tcp impossible", "tcp://h:1", Target{}, 0, "tcp://h:1: there is no way to reach the app"},
		{"http", "http://h/x", Target{Dial: p.dial, Ask: answers(time.Second, "answered 503")}, time.Second, ""},
		{"http 503", "http://h/x", Target{Dial: p.dial, Ask: answers(-1, "answered 503")}, 30 * time.Second, "http://h/x answered 503"},
		{"exec impossible", "exec:x", Target{}, 0, "exec:x: there is no way to run a command"},
		{"exec", "exec:x", Target{Exec: func(context.Context, []string) error { return nil }}, 0, ""},
		{"exec fails", "exec:x", Target{Exec: func(context.Context, []string) error { return errors.New("exited with code 3") }},
			30 * time.Second, "exec:x: exited with code 3"},
		{"all at once", "delay:2s,accept,notify", Target{Accept: accepted(3 * time.Second), Notified: closed}, 3 * time.Second, ""},
		{"two of three", "notify,delay:2s,http://h/x",
			Target{Notified: never, Dial: p.dial, Ask: answers(-1, "answered 500")}, 30 * time.Second,
			"notify: the app has not said READY=1; http://h/x answered 500"},
		{"nonsense", "-", Target{}, 0, "-: unknown kind of check"},
	}
	for _, c := range cases {
		list := []Check{{Kind: "-", Text: "-"}}
		if c.list != "-" {
			list = checks(t, c.list)
		}
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				target := c.target
				if target.Notified == never {
					target.Notified = make(chan struct{})
				}
				ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
				defer stop()
				began := time.Now()
				err := Wait(ctx, list, target)
				if took := time.Since(began); took != c.after {
					t.Errorf("it took %v", took)
				}
				if got := fmt.Sprint(err); got != c.want && !(err == nil && c.want == "") {
					t.Errorf("error %q", got)
				}
				if err != nil && errors.Is(err, context.DeadlineExceeded) != (c.after > 0) {
					t.Errorf("cause %v", errors.Unwrap(err))
				}
			})
		})
	}
	if n := p.open.Load(); n != 0 {
		t.Errorf("%d connections are still open", n)
	}
}

// TestOneTryAtATime hangs every try: each is cut off, and only then comes the next.
func TestOneTryAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, tries atomic.Int64
		hang := func(ctx context.Context, _ []string) error {
			tries.Add(1)
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			return forever(ctx)
		}
		ctx, stop := context.WithTimeout(t.Context(), 18*time.Second)
		defer stop()
		err := Wait(ctx, checks(t, "exec:x"), Target{Exec: hang, Timeout: 3 * time.Second, Period: time.Second})
		if most.Load() != 1 || tries.Load() != 5 {
			t.Errorf("%d tries, %d at once", tries.Load(), most.Load())
		}
		if err == nil || err.Error() != "exec:x did not come to an end within 3s" {
			t.Errorf("error %v", err)
		}
	})
}

// TestLastReasonStays does not let the end of the waiting hide what was seen before.
func TestLastReasonStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		run := func(ctx context.Context, _ []string) error {
			if first {
				first = false
				return errors.New("exited with code 7")
			}
			return forever(ctx)
		}
		ctx, stop := context.WithCancelCause(t.Context())
		gone := errors.New("the app exited")
		time.AfterFunc(2*time.Second, func() { stop(gone) })
		err := Wait(ctx, checks(t, "exec:x"), Target{Exec: run})
		if !errors.Is(err, gone) || err.Error() != "exec:x: exited with code 7" {
			t.Errorf("error %v", err)
		}
	})
}

// TestMessageAfterAWhile lets READY=1 end a wait for accept, and takes the waiting for accept down with it.
func TestMessageAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said, ended := make(chan struct{}), false
		time.AfterFunc(4*time.Second, func() { close(said) })
		accept := func(ctx context.Context) error { defer func() { ended = true }(); return forever(ctx) }
		must(t, Wait(t.Context(), checks(t, "auto"), Target{Accept: accept, Notified: said}))
		if !ended {
			t.Error("accept is still waited for")
		}
	})
}

// TestRealSockets dials a port that nobody listens on, until somebody does.
func TestRealSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	var d net.Dialer
	target := Target{Dial: d.DialContext, Period: 5 * time.Millisecond}
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	impatient, tries := target, 0
	impatient.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if tries++; tries == 3 { // the time is over when two tries have come to their end, however long they took
			stop(context.DeadlineExceeded)
		}
		return d.DialContext(ctx, network, address)
	}
	err = Wait(ctx, checks(t, "tcp://"+address), impatient)
	if err == nil || !strings.Contains(err.Error(), "connection refused") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	l, err = net.Listen("tcp", address)
	must(t, err)
	defer l.Close()
	must(t, Wait(t.Context(), checks(t, "tcp://"+address), target))
}
