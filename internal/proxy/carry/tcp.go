package carry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/proxy"
)

const (
	// chunk is read at once; a stream that fills it more than once is left to the kernel, see pump.
	chunk = 32 << 10
	// farewell is how long what a client still sends is thrown away after its backend has closed: closed at once, the connection would be reset, and
	// the client might lose what it has not read.
	farewell = 2 * time.Second
	// mostResets is how often a connection is made anew that the backend has reset before a byte was passed.
	mostResets = 3
	// halfClosed is how long a client may be silent when its backend has closed its side.
	halfClosed = 30 * time.Second
	// busyAge is how old the last byte of an idle connection is at least, as for those that the kernel leads (package handoff).
	busyAge = 1000 // ms
)

// tunnel carries connections.
type tunnel struct {
	table  *table
	setup  *proxy.Setup
	places places
	ctx    context.Context // ends when what is left is cut
	open   atomic.Int64

	accepting, carrying sync.WaitGroup
}

// half is a connection whose directions end one by one: TCP, or unix.
type half interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// link is a client and its backend.
type link struct {
	client  half
	visitor *visitor
	begun   time.Time
	until   time.Time // so long it may wait for a backend

	mu      sync.Mutex
	seat    *seat // nil: it has none
	backend half
	passed  bool // a byte has gone one way or the other: nobody else can serve this client
	resets  int
}

// serve accepts on l until it is closed.
func (p *tunnel) serve(l net.Listener) {
	for {
		if !p.places.take(p.ctx) {
			return
		}
		c, err := l.Accept()
		if err != nil {
			p.places.give()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select { // such as: too many open files
			case <-time.After(downFor):
			case <-p.ctx.Done():
				return
			}
			continue
		}
		p.open.Add(1)
		p.carrying.Go(func() {
			defer p.places.give()
			defer p.open.Add(-1)
			p.carry(c)
		})
	}
}

// carry serves one client.
func (p *tunnel) carry(c net.Conn) {
	defer c.Close()
	client, ok := c.(half)
	if !ok {
		return
	}
	now := time.Now()
	l := &link{client: client, visitor: visitorOf(c), begun: now, until: now.Add(p.setup.ConnectTimeout)}
	if !p.connect(l) {
		return
	}
	defer p.leave(l)
	stop := context.AfterFunc(p.ctx, l.cut)
	defer stop()
	sent, answered := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(answered)
		if p.answers(l) {
			l.lastWords(sent)
		}
	}()
	p.requests(l)
	close(sent)
	<-answered
}

// connect finds a backend for a client, and waits for one. Nobody else may use the link's seat and backend meanwhile.
func (p *tunnel) connect(l *link) bool {
	for {
		s, err := p.table.enter(p.ctx, l.visitor, l.until)
		if err != nil {
			return false
		}
		b, err := p.dial(s.at, l.client)
		if err != nil {
			s.failed()
			continue
		}
		l.seat, l.backend = s, b
		s.carries(l)
		return true
	}
}

// leave gives up the place of a link.
func (p *tunnel) leave(l *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.backend.Close()
	if l.seat != nil {
		l.seat.drops(l)
		l.seat.leave()
	}
}

// dial connects to a worker and tells it of the client.
func (p *tunnel) dial(at netip.AddrPort, client net.Conn) (half, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	c, err := d.DialContext(p.ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	b := c.(*net.TCPConn)
	if header := proxyHeader(p.setup.Protocol, client.RemoteAddr(), client.LocalAddr()); header != nil {
		if _, err := b.Write(header); err != nil {
			_ = b.Close()
			return nil, err
		}
	}
	return b, nil
}

// requests passes on what the client sends.
func (p *tunnel) requests(l *link) {
	err := pump(l.client, l.toBackend)
	switch {
	case err == nil:
		_ = l.current().CloseWrite()
	case errors.Is(err, errTo):
		// The backend takes no more. What it has said may still be on its way to the client, and would be lost if the connection were closed over
		// bytes that nobody has read.
		_ = l.client.SetReadDeadline(time.Now().Add(farewell))
		_, _ = io.Copy(io.Discard, l.client)
	default:
		abort(l.current())
	}
}

// answers passes on what the backend sends. It is true if that came to an orderly end, and the client may go on.
func (p *tunnel) answers(l *link) bool {
	for {
		b := l.current()
		err := pump(b, l.toClient)
		switch {
		case err == nil:
			_ = l.client.CloseWrite()
			return true
		case errors.Is(err, errTo):
			abort(b)
			_ = l.client.Close()
			return false
		case !p.anew(l):
			abort(l.client)
			return false
		}
	}
}

// lastWords lets a client go on whose backend has said all that it has to say, as long as it goes on. Many clients do not close a connection of
// which the other side is closed before they need it.
func (l *link) lastWords(sent <-chan struct{}) {
	for {
		select {
		case <-sent:
			return
		case <-time.After(time.Second):
		}
		if l.stillFor() >= halfClosed {
			l.cut()
			return
		}
	}
}

// abort closes a connection so that the peer does not take it for an orderly end.
func abort(c half) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// cut ends both sides.
func (l *link) cut() {
	abort(l.client)
	abort(l.current())
}

func (l *link) current() half {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.backend
}

// toBackend is where the client's bytes go. From now on nobody else can have them.
func (l *link) toBackend() half {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passed = true
	return l.backend
}

func (l *link) toClient() half {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passed = true
	return l.client
}

// anew gives a client another backend whose own has reset the connection before a byte was passed: most likely it was in the queue of one that
// has ended.
func (p *tunnel) anew(l *link) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.passed || l.resets >= mostResets || p.ctx.Err() != nil {
		return false
	}
	l.resets++
	_ = l.backend.Close()
	l.seat.drops(l)
	l.seat.failed()
	l.seat = nil
	return p.connect(l)
}

// errTo says that the side written to has failed, and not the one read from.
var errTo = errors.New("cannot be written to")

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// pump passes on what from sends, until its end (nil) or an error. Where to is asked for each time that there is something. It holds no buffer while
// nothing moves. A stream that fills the buffer twice in a row is bulk: the kernel moves the rest by itself, through a pipe and without a copy
// (splice, which io.Copy between TCP connections uses); for short messages that would cost more calls than it saves.
func pump(from half, to func() half) error {
	rc, err := from.SyscallConn()
	if err != nil {
		return err
	}
	var buf *[]byte
	var n, full int
	var failed error
	read := func(fd uintptr) bool {
		if buf == nil {
			buf = chunks.Get().(*[]byte)
		}
		for {
			n, failed = syscall.Read(int(fd), *buf)
			if failed != syscall.EINTR {
				break
			}
		}
		if failed == syscall.EAGAIN {
			chunks.Put(buf)
			buf = nil
			return false
		}
		return true
	}
	defer func() {
		if buf != nil {
			chunks.Put(buf)
		}
	}()
	for {
		if err := rc.Read(read); err != nil {
			return err
		}
		switch {
		case failed != nil:
			return failed
		case n == 0:
			return nil
		}
		out := to()
		if _, err := out.Write((*buf)[:n]); err != nil {
			return errors.Join(errTo, err)
		}
		if full++; n < chunk {
			full = 0
		}
		if full >= 2 {
			return bulk(out, from)
		}
	}
}

// bulk moves the rest without looking at it.
func bulk(to, from half) error {
	_, err := io.Copy(to, from)
	if errors.Is(err, syscall.EPIPE) {
		return errors.Join(errTo, err)
	}
	return err
}

// busy tells whether there is, or may be, work on a connection, as package handoff does for those that the kernel leads: a request without an
// answer, an answer that may not be at its end, a client who has just come.
func (l *link) busy() bool {
	rc, err := l.client.SyscallConn()
	if err != nil {
		return false // closed
	}
	var info *unix.TCPInfo
	var failed error
	if err := rc.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil {
		return false
	}
	switch {
	case failed != nil:
		return true // unix: the kernel keeps no times
	case time.Since(l.begun) < busyAge*time.Millisecond, info.Unacked > 0, info.Notsent_bytes > 0:
		return true
	case info.Bytes_received == 0 && info.Bytes_acked <= 1:
		return false // nobody has ever said anything
	}
	return info.Last_data_recv < info.Last_data_sent || info.Last_data_sent < busyAge
}

// stillFor is how long nothing has moved; 0 where that is not known.
func (l *link) stillFor() time.Duration {
	rc, err := l.client.SyscallConn()
	if err != nil {
		return 0
	}
	var info *unix.TCPInfo
	var failed error
	if err := rc.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); err != nil || failed != nil {
		return 0
	}
	return time.Duration(min(info.Last_data_recv, info.Last_data_sent)) * time.Millisecond
}

// watchIdle ends connections on which nothing has moved for the idle timeout.
func (p *tunnel) watchIdle() {
	limit := p.setup.IdleTimeout
	if limit <= 0 {
		return
	}
	tick := time.NewTicker(max(limit/4, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
		_, links := p.table.report()
		for l := range links {
			if l.stillFor() >= limit {
				l.cut()
			}
		}
	}
}

// drain waits until the last connection has ended, or ctx does.
func (p *tunnel) drain(ctx context.Context) {
	done := make(chan struct{})
	go func() { // ends soon after p.ctx, which follows
		defer close(done)
		p.accepting.Wait()
		p.carrying.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
