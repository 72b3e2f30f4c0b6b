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
)

// script makes an Exec that ends as the next word of a text says: y, n, or h for one that hangs; the last word stays.
func script(words string) (func(context.Context, []string) error, *atomic.Int64) {
	var n atomic.Int64
	return func(ctx context.Context, _ []string) error {
		switch words[min(int(n.Add(1)), len(words))-1] {
		case 'y':
			return nil
		case 'n':
			return errors.New("no")
		}
		return forever(ctx)
	}, &n
}

// TestThresholds counts tries; a period is 100 ms.
func TestThresholds(t *testing.T) {
	for _, c := range []struct {
		list, words string
		tries       int64
		after       time.Duration
		want        string
	}{
		{"exec:x;successes=3", "nyynyyy", 7, 600 * time.Millisecond, ""},
		{"exec:x;failures=3", "nnynny", 3, 200 * time.Millisecond, ""},
		{"exec:x;failures=3;successes=2", "nnynnn", 6, 500 * time.Millisecond, "exec:x: no, 3 times in a row"},
		{"exec:x;failures=1", "n", 1, 0, "exec:x: no"},
		{"exec:x;period=2s", "nny", 3, 4 * time.Second, ""},
		{"exec:x;timeout=1s;failures=2", "h", 2, 2100 * time.Millisecond, "exec:x did not come to an end within 1s, 2 times in a row"},
		{"exec:x;deadline=1050ms", "n", 11, 1050 * time.Millisecond, "exec:x: no, and its deadline of 1.05s is over"},
		{"exec:x;deadline=1s;timeout=1s", "h", 1, time.Second, "exec:x: not finished, and its deadline of 1s is over"},
		{"exec:x;successes=9", "y", 9, 800 * time.Millisecond, ""},
		{"exec:x;successes=900", "y", 300, 30 * time.Second, "exec:x: held 300 of 900 times in a row"},
		{"notify;deadline=2s", "y", 0, 2 * time.Second, "notify: the app has not said READY=1, and its deadline of 2s is over"},
		{"delay:3s;deadline=2s", "y", 0, 2 * time.Second, "delay:3s: 3s are not over, and its deadline of 2s is over"},
		{"accept;timeout=1s;failures=1", "y", 0, time.Second, "accept did not come to an end within 1s"},
		{"auto;successes=2", "y", 0, 2100 * time.Millisecond, "-"},
	} {
		t.Run(c.list, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.want == "" && strings.Contains(c.list, "failures") {
					c.words, c.tries = "nny", 3 // one failure less than is too many
				}
				run, tries := script(c.words)
				target := Target{Exec: run, Notified: make(chan struct{}), Accept: forever}
				if c.want == "-" {
					c.want, target.Accept = "", nil
				}
				ctx, stop := context.WithTimeout(t.Context(), 30*time.Second-time.Millisecond)
				defer stop()
				began := time.Now()
				err := Wait(ctx, checks(t, c.list), target)
				if took := time.Since(began).Round(10 * time.Millisecond); took != c.after || tries.Load() != c.tries {
					t.Errorf("%d tries in %v", tries.Load(), took)
				}
				if text(err) != c.want {
					t.Errorf("error %v", err)
				}
				if err != nil && errors.Is(err, context.DeadlineExceeded) != strings.HasSuffix(c.list, "900") {
					t.Errorf("cause %v", errors.Unwrap(err))
				}
			})
		})
	}
}

// TestGivenUpStopsAll does not let other checks go on, nor blames them.
func TestGivenUpStopsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, _ := script("n")
		began := time.Now()
		err := Wait(t.Context(), checks(t, "notify,exec:x;failures=2"), Target{Exec: run, Notified: make(chan struct{})})
		if text(err) != "exec:x: no, 2 times in a row" || time.Since(began) != 100*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// TestRun asks each once, in order, and stops at the first that fails.
func TestRun(t *testing.T) {
	for _, c := range []struct {
		list, words string
		tries       int64
		after       time.Duration
		want        string
	}{
		{"", "n", 0, 0, ""},
		{"exec:a,exec:b", "yy", 2, 0, ""},
		{"exec:a,exec:b,exec:c", "yny", 2, 0, "exec:b: no"},
		{"exec:a;failures=3,exec:b", "nnyy", 4, 200 * time.Millisecond, ""},
		{"exec:a;successes=3", "yyn", 3, 200 * time.Millisecond, "exec:a: no"},
		{"exec:a", "h", 1, 5 * time.Second, "exec:a did not come to an end within 5s"},
		{"notify,exec:a", "y", 0, 5 * time.Second, "notify: the app has not said READY=1, and its deadline of 5s is over"},
		{"accept;timeout=2s", "y", 0, 2 * time.Second, "accept did not come to an end within 2s"},
		{"accept", "y", 0, 5 * time.Second, "accept did not come to an end within 5s"},
		{"delay:7s", "y", 0, 7 * time.Second, ""},
		{"tcp://h:1", "y", 0, 0, "tcp://h:1: there is no way to reach the app"},
	} {
		t.Run(c.list, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				run, tries := script(c.words)
				began := time.Now()
				err := Run(t.Context(), checks(t, c.list), Target{Exec: run, Notified: make(chan struct{}), Accept: forever})
				if took := time.Since(began); took != c.after || tries.Load() != c.tries || text(err) != c.want {
					t.Errorf("%d tries in %v: %v", tries.Load(), took, err)
				}
				if err != nil && errors.Unwrap(err) != nil {
					t.Errorf("cause %v", errors.Unwrap(err))
				}
			})
		})
	}
}

// TestRunIsInterrupted tells why, when the candidate is gone in the midst of it.
func TestRunIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run, _ := script("h")
		gone := errors.New("the app exited")
		ctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { stop(gone) })
		if err := Run(ctx, checks(t, "exec:a,exec:b"), Target{Exec: run}); !errors.Is(err, gone) || err.Error() != "exec:a: not finished" {
			t.Error(err)
		}
	})
}

// TestWatch follows rounds of one check every ten seconds.
func TestWatch(t *testing.T) {
	for words, want := range map[string]string{
		"y":      "",
		"nnyn":   "+1 +2 +0 +1 ", // the second failure does not count any more, and nobody is left with its reason
		"nnnn":   "+1 +2 -3! -4 ",
		"nnnnyy": "+1 +2 -3! -4 +0! ",
		"nnnyny": "+1 +2 -3! +0! +1 +0 ",
		"nyyny":  "+1 +0 +1 +0 ",
		"yhhhy":  "+1 +2 -3! +0! ",
	} {
		t.Run(words, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				run, tries := script(words)
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				got := ""
				Watch(ctx, checks(t, "exec:x"), Target{Exec: func(ctx context.Context, argv []string) error {
					if tries.Load() == int64(len(words)) {
						stop() // this round is not reported any more
					}
					return run(ctx, argv)
				}}, MonitorOptions{Timeout: time.Second}, func(h Health) {
					sign, mark := "-", ""
					if h.Healthy {
						sign = "+"
					}
					if h.Changed {
						mark = "!"
					}
					if (h.Failures > 0) != (h.Reason != "") {
						t.Errorf("%+v", h)
					}
					got += fmt.Sprint(sign, h.Failures, mark, " ")
				})
				if got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		})
	}
}

// TestRoundsDoNotOverlap gives a check more time than there is between two rounds.
func TestRoundsDoNotOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second+time.Millisecond)
		defer stop()
		var running, most, tries atomic.Int64
		slow := func(ctx context.Context, _ []string) error {
			tries.Add(1)
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			return forever(ctx)
		}
		reports := 0
		Watch(ctx, checks(t, "exec:x"), Target{Exec: slow}, MonitorOptions{Interval: time.Second, Timeout: 4 * time.Second, Failures: 1}, func(h Health) {
			reports++
			if h.Healthy || h.Reason != "exec:x did not come to an end within 4s" {
				t.Errorf("%+v", h)
			}
		})
		if most.Load() != 1 || tries.Load() != 5 || reports != 4 || running.Load() != 0 {
			t.Errorf("%d tries, %d at once, %d reports, %d left", tries.Load(), most.Load(), reports, running.Load())
		}
	})
}

// TestRoundIsSideBySide asks all checks of a round at the same time and blames the first in their order.
func TestRoundIsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		began := time.Now()
		run := func(ctx context.Context, argv []string) error {
			_ = pause(ctx, map[string]time.Duration{"a": 3 * time.Second, "b": time.Second, "c": 2 * time.Second}[argv[0]])
			return errors.New("failed")
		}
		p := &pipe{}
		Watch(ctx, checks(t, "tcp://h:1,exec:a,exec:b,exec:c"), Target{Exec: run, Dial: p.dial}, MonitorOptions{}, func(h Health) {
			if h.Reason != "exec:a: failed" || time.Since(began) != 3*time.Second {
				t.Errorf("after %v: %+v", time.Since(began), h)
			}
			stop()
		})
		if p.open.Load() != 0 || p.dialled.Load() != 1 {
			t.Errorf("%d connections, %d open", p.dialled.Load(), p.open.Load())
		}
	})
}

func TestWatchable(t *testing.T) {
	must(t, Watchable(checks(t, "accept,tcp://h:1,http://h;timeout=1s,exec:x;deadline=2s,grpc://h:1")))
	err := Watchable(checks(t, "auto,notify,delay:1s,exec:x;successes=2,tcp://h:1;failures=2"))
	if n := strings.Count(fmt.Sprint(err), "for health: "); n != 5 {
		t.Errorf("%d faults: %v", n, err)
	}
}

// TestNotAccepted says whose fault it is that nothing was asked.
func TestNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, forever(ctx) }
		ask := func(context.Context, net.Conn, Request) error { return nil }
		err := Run(t.Context(), checks(t, "http://h/x;timeout=2s"), Target{Dial: dial, Ask: ask})
		if text(err) != "http://h/x did not accept a connection within 2s" {
			t.Error(err)
		}
	})
}
