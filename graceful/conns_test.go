package graceful

import (
	"net"
	"net/http"
	"testing"
	"time"
)

type fakeConn struct{ net.Conn }

func (*fakeConn) Close() error { return nil }

func TestSweep(t *testing.T) {
	begun := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return begun.Add(d) }
	for _, c := range []struct {
		name     string
		conn     conn
		now      time.Duration
		expired  int
		busy     int
		nextWait time.Duration
	}{
		{"active", conn{state: http.StateActive, since: at(-time.Hour)}, time.Hour, 0, 1, 0},
		{"idle, not yet", conn{state: http.StateIdle, since: at(-time.Hour), http1: true}, 900 * time.Millisecond, 0, 1, time.Second},
		{"idle since long, from the beginning of the drain", conn{state: http.StateIdle, since: at(-time.Hour), http1: true}, time.Second, 1, 0, 0},
		{"idle only now", conn{state: http.StateIdle, since: at(10 * time.Second), http1: true}, 10500 * time.Millisecond, 0, 1, 11 * time.Second},
		{"idle only now, over", conn{state: http.StateIdle, since: at(10 * time.Second), http1: true}, 11 * time.Second, 1, 0, 0},
		{"idle HTTP/2, not yet", conn{state: http.StateIdle, since: at(0)}, 0, 0, 1, time.Second},
		{"idle HTTP/2 is left to GOAWAY", conn{state: http.StateIdle, since: at(0)}, time.Second, 0, 0, 0},
		{"idle with a handler", conn{state: http.StateIdle, since: at(0), handlers: 1}, time.Hour, 0, 1, 0},
		{"new has more time", conn{state: http.StateNew, since: at(0)}, 4 * time.Second, 0, 1, newGrace},
		{"new, over", conn{state: http.StateNew, since: at(0)}, newGrace, 1, 0, 0},
		{"new for long", conn{state: http.StateNew, since: at(-time.Hour)}, 900 * time.Millisecond, 0, 1, time.Second},
		{"hijacked", conn{state: http.StateHijacked, handlers: 1}, time.Hour, 0, 1, 0},
		{"closed by us, not yet noticed", conn{state: http.StateIdle, since: at(0), closed: true}, 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := newConnTable()
			c.conn.net = &fakeConn{}
			table.conns[c.conn.net] = &c.conn
			expired, busy, next := table.sweep(at(c.now), begun, time.Second)
			wait := time.Duration(0)
			if !next.IsZero() {
				wait = next.Sub(begun)
			}
			if len(expired) != c.expired || busy != c.busy || wait != c.nextWait {
				t.Errorf("%d expired, %d busy, next %v", len(expired), busy, wait)
			}
		})
	}
}

func TestConnTableForgets(t *testing.T) {
	now := time.Now()
	table := newConnTable()
	closed, hijacked := &fakeConn{}, &fakeConn{}
	c := table.add(closed, now)
	table.begin(c, true)
	table.set(closed, http.StateClosed, now)
	if table.empty() {
		t.Error("forgot a connection whose handler runs")
	}
	table.end(c)
	if !table.empty() {
		t.Error("remembers a closed connection")
	}
	h := table.add(hijacked, now)
	table.begin(h, true)
	table.set(hijacked, http.StateHijacked, now)
	if n := table.cut(); n != 1 {
		t.Errorf("cut %d", n)
	}
	table.end(h)
	table.begin(nil, true)
	if table.empty() {
		t.Error("forgot a loose handler")
	}
	table.end(nil)
	table.set(&fakeConn{}, http.StateIdle, now) // of a stranger: nothing
	if !table.empty() {
		t.Error("not empty")
	}
}
