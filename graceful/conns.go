package graceful

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// newGrace is how long a connection without a first request is kept while draining: a TLS handshake and a browser's
// early connection need some time. net/http's Shutdown has the same 5 s.
const newGrace = 5 * time.Second

// conn is what we know about a connection.
type conn struct {
	net      net.Conn
	state    http.ConnState
	since    time.Time // when it came to this state
	handlers int       // that run for it
	h2       *h2Conn   // if it is an HTTP/2 connection that can be warned
	http1    bool      // an HTTP/1 request came: it may be closed when idle. HTTP/2 needs a GOAWAY
	closed   bool      // net/http, or we, have closed it
}

// connTable knows all open connections and running handlers of a server.
type connTable struct {
	mu    sync.Mutex
	conns map[net.Conn]*conn
	loose int           // handlers without a connection of ours, and holds
	wake  chan struct{} // one token: something has changed
	warn  bool          // HTTP/2 connections are warned from their beginning
	warns sync.WaitGroup
}

func newConnTable() *connTable {
	return &connTable{conns: map[net.Conn]*conn{}, wake: make(chan struct{}, 1)}
}

// add enters an accepted connection.
func (t *connTable) add(nc net.Conn, now time.Time) *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &conn{net: nc, state: http.StateNew, since: now}
	t.conns[nc] = c
	return c
}

// set notes what net/http tells about a connection.
func (t *connTable) set(nc net.Conn, state http.ConnState, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.conns[nc]
	if c == nil {
		return
	}
	c.state, c.since = state, now
	c.closed = c.closed || state == http.StateClosed
	t.dropEnded(c)
	t.changed()
}

// begin notes a handler that starts; c is nil for a connection that is not known. end must follow. It returns the
// connection if it is one that can be warned.
func (t *connTable) begin(c *conn, http1 bool) *h2Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c == nil {
		t.loose++
		return nil
	}
	c.handlers++
	c.http1 = http1
	return c.h2
}

func (t *connTable) end(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c == nil {
		t.loose--
	} else {
		c.handlers--
		t.dropEnded(c)
	}
	t.changed()
}

// dropEnded forgets a connection that is closed, or hijacked, once no handler uses it.
func (t *connTable) dropEnded(c *conn) {
	if c.handlers == 0 && (c.closed || c.state == http.StateHijacked) {
		delete(t.conns, c.net)
	}
}

// wrap notes that a connection speaks HTTP/2.
func (t *connTable) wrap(nc net.Conn) *h2Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	h2 := &h2Conn{Conn: nc}
	if c := t.conns[nc]; c != nil {
		c.h2 = h2
	}
	if t.warn {
		h2.ask()
	}
	return h2
}

// announce warns all HTTP/2 connections, those to come too. It does not wait for clients that do not read: a goroutine
// each does, which ends with the connection at the latest. settle waits for them.
func (t *connTable) announce() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.warn = true
	for _, c := range t.conns {
		if c.h2 != nil {
			t.warns.Go(c.h2.announce)
		}
	}
}

// settle is called when all connections are closed.
func (t *connTable) settle() { t.warns.Wait() }

func (t *connTable) changed() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// empty tells that nothing is left at all.
func (t *connTable) empty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.loose == 0 && len(t.conns) == 0
}

// sweep returns the idle connections whose linger is over, for the caller to close; how many there are to wait for; and
// when the next linger is over (zero: only an event can change something). An idle HTTP/2 connection is not
// waited for once its linger is over: Shutdown takes leave of it.
func (t *connTable) sweep(now, begun time.Time, linger time.Duration) (expired []net.Conn, busy int, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	busy = t.loose
	for _, c := range t.conns {
		end, idle := c.lingerEnd(begun, linger)
		switch {
		case c.closed && c.handlers == 0:
		case !idle:
			busy++
		case now.Before(end):
			busy++
			if next.IsZero() || end.Before(next) {
				next = end
			}
		case c.http1 || c.state == http.StateNew:
			c.closed = true
			expired = append(expired, c.net)
		}
	}
	return expired, busy, next
}

// lingerEnd is when an idle connection may be closed. Each has its own time: one whose long answer began before the drain
// is idle only now, and its client has not been told.
func (c *conn) lingerEnd(begun time.Time, linger time.Duration) (end time.Time, idle bool) {
	if c.handlers > 0 {
		return end, false
	}
	from := c.since
	if from.Before(begun) {
		from = begun
	}
	switch c.state {
	case http.StateIdle:
		return from.Add(linger), true
	case http.StateNew:
		end = c.since.Add(newGrace)
		if lingered := from.Add(linger); end.Before(lingered) {
			end = lingered
		}
		return end, true
	}
	return end, false
}

// cut closes every connection, hijacked ones too, and returns how many there were.
func (t *connTable) cut() int {
	t.mu.Lock()
	var all []net.Conn
	for nc := range t.conns {
		all = append(all, nc)
	}
	t.mu.Unlock()
	for _, nc := range all {
		_ = nc.Close()
	}
	return len(all)
}
