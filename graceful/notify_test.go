package graceful

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// manager is the other end of NOTIFY_SOCKET.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &manager{t, c, path}
}

func (m *manager) expect(want string) {
	m.t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(deadline))
	buf := make([]byte, 4096)
	n, err := m.conn.Read(buf)
	if err != nil || string(buf[:n]) != want {
		m.t.Fatalf("the manager got %q, %v, want %q", buf[:n], err, want)
	}
}

func TestNotify(t *testing.T) {
	m := newManager(t)
	p := newProcess(notifier{m.path})
	if err := errors.Join(p.firstReady(), p.firstReady(), p.sayReady()); err != nil {
		t.Fatal(err)
	}
	p.drain()
	p.drain()
	m.expect("READY=1")
	m.expect("READY=1") // the explicit one
	m.expect("STOPPING=1")
	if err := p.notify.send("STATUS=x"); err != nil {
		t.Fatal(err)
	}
	m.expect("STATUS=x")
}

func TestNotifyErrors(t *testing.T) {
	if err := (notifier{}).send("READY=1"); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	t.Chdir(filepath.Dir(newManager(t).path)) // where a socket "notify" is, which a relative name must not reach
	for _, path := range []string{"notify", "/no/such/socket", "@no-such-socket-of-graceful"} {
		if err := (notifier{path}).send("READY=1"); err == nil {
			t.Errorf("%s is no error", path)
		}
	}
}

func TestStatusIsOneLine(t *testing.T) {
	m := newManager(t)
	old := std
	defer func() { std = old }()
	std = newProcess(notifier{m.path})
	if err := Status("a\nREADY=1\r\x00b"); err != nil {
		t.Fatal(err)
	}
	m.expect("STATUS=a READY=1  b")
	if err := Stopping(); err != nil {
		t.Fatal(err)
	}
	m.expect("STOPPING=1")
	if err := Ready(); err != nil {
		t.Fatal(err)
	}
	m.expect("READY=1")
}

func TestWatchdogInterval(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
		bad       bool
	}{
		{"", "", 0, false},
		{"2000000", "", 2 * time.Second, false},
		{"2000000", "7", 2 * time.Second, false},
		{"2000000", "8", 0, false},
		{"x", "8", 0, false},
		{"x", "7", 0, true},
		{"0", "", 0, true},
		{"-1", "", 0, true},
		{"9223372036854775807", "", 0, true},
	} {
		got, err := watchdogInterval(env("WATCHDOG_USEC="+c.usec, "WATCHDOG_PID="+c.pid), 7)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%q for %q: %v, %v", c.usec, c.pid, got, err)
		}
	}
}

func TestWatchdogPings(t *testing.T) {
	m := newManager(t)
	p := newProcess(notifier{m.path})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var checks atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ping(ctx, 2*time.Millisecond, func() error {
			if checks.Add(1) < 4 {
				return errors.New("not well")
			}
			return nil
		})
	}()
	m.expect("WATCHDOG=1")
	if n := checks.Load(); n < 4 {
		t.Errorf("pinged after %d checks, of which 3 failed", n)
	}
	m.expect("WATCHDOG=1")
	cancel()
	receive(t, done, "the end of the pings")
}

func TestWatchdogPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10500*time.Millisecond)
		defer cancel()
		pings := 0
		newProcess(notifier{}).ping(ctx, 2*time.Second, func() error { pings++; return nil })
		if pings != 11 {
			t.Errorf("%d pings in 10.5 s of an interval of 2 s", pings)
		}
	})
}

func TestWatchdogIsTakenOnce(t *testing.T) {
	p := newProcess(notifier{})
	if !p.takeWatchdog() || p.takeWatchdog() {
		t.Error("not taken exactly once")
	}
	if err := Watchdog(t.Context(), nil); err != nil { // not asked for: returns at once
		t.Error(err)
	}
}

func TestJitter(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Second} {
		if got := Jitter(d); got != 0 {
			t.Errorf("Jitter(%v) = %v", d, got)
		}
	}
	seen := map[time.Duration]bool{}
	for range 1000 {
		got := Jitter(time.Second)
		if got < 0 || got >= time.Second {
			t.Fatalf("%v", got)
		}
		seen[got] = true
	}
	if len(seen) < 900 {
		t.Errorf("only %d different of 1000", len(seen))
	}
}

func TestWaitDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(notifier{})
		begun := time.Now()
		time.AfterFunc(time.Hour, p.drain)
		if err := p.waitDraining(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begun); d < time.Hour || d >= time.Hour+time.Minute {
			t.Errorf("returned after %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.waitDraining(ctx, 1e6*time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in the spread: %v", err)
		}
		if err := newProcess(notifier{}).waitDraining(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before the drain: %v", err)
		}
	})
}
