package graceful

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// warning is a GOAWAY without an error whose last stream is 2^31-1: begin nothing more here, and what is on its way will be
// answered (RFC 9113, section 6.8).
var warning = []byte{0, 0, 8, frameGoAway, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// h2Conn is the connection that the HTTP/2 server of net/http is given. It puts the first of two GOAWAYs between the frames
// that the server writes; the second is the server's own.
type h2Conn struct {
	net.Conn
	told atomic.Pointer[time.Time] // when the client was warned; nil: not yet

	mu     sync.Mutex
	frames frames
	asked  bool   // the warning is, or was, to be written
	warn   []byte // what is left of it
}

// h2TLSConn is one with the method by which the server gets to know its TLS state.
type h2TLSConn struct{ *h2Conn }

func (c h2TLSConn) ConnectionState() tls.ConnectionState {
	return c.Conn.(*tls.Conn).ConnectionState()
}

// accepted is the connection as the program knows it.
func (c *h2Conn) accepted() net.Conn { return c.Conn }

// ask makes the next write bring the warning. For a connection that nobody writes to yet.
func (c *h2Conn) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked {
		c.asked, c.warn = true, warning
	}
}

// announce writes the warning: now, or in the course of the next write if a frame is not complete. It blocks as long as the
// client does not read.
func (c *h2Conn) announce() {
	c.ask()
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.flush() // the server meets the same error
}

func (c *h2Conn) Write(p []byte) (written int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		if err := c.flush(); err != nil {
			return written, err
		}
		part := p
		if c.warn != nil {
			part = p[:c.frames.gap(p)]
		}
		n, err := c.Conn.Write(part)
		c.frames.pass(part[:n])
		written, p = written+n, p[n:]
		if err != nil {
			return written, err
		}
	}
	_ = c.flush() // all of p is written; an error comes again with the next write
	return written, nil
}

// flush writes the warning if it is due and may come here. The caller holds the lock. A part of it that could not be written, because
// a deadline passed, comes before anything else.
func (c *h2Conn) flush() error {
	if c.frames.left {
		c.warn = nil // a number may not be raised again, and the client knows
	}
	if c.warn == nil || !c.frames.between() {
		return nil
	}
	n, err := c.Conn.Write(c.warn)
	if c.warn = c.warn[n:]; len(c.warn) == 0 {
		now := time.Now()
		c.warn = nil
		c.told.Store(&now)
	}
	return err
}

// toldFor tells that the client was warned at least d ago.
func (c *h2Conn) toldFor(d time.Duration) bool {
	told := c.told.Load()
	return told != nil && time.Since(*told) >= d
}
