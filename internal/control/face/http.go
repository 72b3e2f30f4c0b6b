package face

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// littleEndian tells the order of bytes in this machine's words.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// limits are what a client may take. They are fields so that tests need not wait.
type limits struct {
	connections int
	streams     int
	header      int64         // bytes of a request
	request     time.Duration // from the first byte, or the connection, to the end of the header
	idle        time.Duration // between two requests
	answer      time.Duration // until the kernel has taken an answer, or an event
	heartbeat   time.Duration // between two signs of life on a stream
	farewell    time.Duration // for answers under way at the end
}

var defaultLimits = limits{
	connections: 64, streams: 16, header: 16 << 10, request: 5 * time.Second, idle: time.Minute,
	answer: 10 * time.Second, heartbeat: 15 * time.Second, farewell: 250 * time.Millisecond,
}

// reply is an answer to one request.
type reply struct {
	code   int
	kind   string // media type
	body   []byte
	header [][2]string
	// stream, if not nil, writes the body until ctx ends, which it does when the client leaves. The connection is closed afterwards.
	stream func(ctx context.Context, w io.Writer) error
}

// server answers GET and HEAD over HTTP/1. It is small because it does little: no bodies of requests, no chunks, no upgrade.
// Requests are parsed by net/http.
type server struct {
	l      net.Listener
	answer func(ctx context.Context, r *http.Request) reply
	limit  limits

	mu      sync.Mutex
	conns   map[*conn]struct{}
	room    chan struct{} // a word when a connection has gone
	streams int
	ending  bool
	wg      sync.WaitGroup
}

// conn is one connection. Its silent fields are the server's, under its lock.
type conn struct {
	net.Conn
	silent bool      // it waits for a request, or for the rest of one
	since  time.Time // when it began to
}

func newServer(l net.Listener, answer func(context.Context, *http.Request) reply) *server {
	return &server{l: l, answer: answer, limit: defaultLimits, conns: map[*conn]struct{}{}, room: make(chan struct{}, 1)}
}

// serve accepts until ctx ends. Then it gives the answers under way a moment, and closes everything.
func (s *server) serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.l.Close() })
	defer stop()
	for {
		s.makeRoom(ctx)
		c, err := s.l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			break
		}
		if err != nil { // no descriptors or memory left: it passes, or PID 1 sees us do nothing
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		k := &conn{Conn: c, silent: true, since: time.Now()}
		s.mu.Lock()
		s.conns[k] = struct{}{}
		s.mu.Unlock()
		s.wg.Go(func() { s.talk(ctx, k) })
	}
	s.end()
}

// end closes who is silent, waits a moment for the others, and closes them.
func (s *server) end() {
	late := time.AfterFunc(s.limit.farewell, func() { s.hangUp(func(*conn) bool { return true }) })
	defer late.Stop()
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	s.hangUp(func(c *conn) bool { return c.silent })
	s.wg.Wait()
}

func (s *server) hangUp(which func(*conn) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if which(c) {
			_ = c.Close()
		}
	}
}

// makeRoom blocks until one more connection may come. Who has been silent the longest gives way: so those who say nothing cannot keep out
// those who ask.
func (s *server) makeRoom(ctx context.Context) {
	for {
		s.mu.Lock()
		var oldest *conn
		full := len(s.conns) >= s.limit.connections
		for c := range s.conns {
			if full && c.silent && (oldest == nil || c.since.Before(oldest.since)) {
				oldest = c
			}
		}
		if oldest != nil {
			oldest.silent = false // it is on its way out
			_ = oldest.Close()
		}
		s.mu.Unlock()
		if !full {
			return
		}
		select {
		case <-s.room:
		case <-ctx.Done():
			return
		}
	}
}

// mark notes whether a connection is silent. It is false at the end: then nothing more is read.
func (s *server) mark(c *conn, silent bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.silent, c.since = silent, time.Now()
	return !s.ending
}

func (s *server) forget(c *conn) {
	_ = c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// talk answers the requests of one connection, one after the other.
func (s *server) talk(ctx context.Context, c *conn) {
	defer s.forget(c)
	limited := &io.LimitedReader{R: c}
	in := bufio.NewReaderSize(limited, 4<<10)
	for wait := s.limit.request; s.mark(c, true); wait = s.limit.idle {
		_ = c.SetReadDeadline(time.Now().Add(wait))
		limited.N = s.limit.header
		if _, err := in.Peek(1); err != nil {
			return
		}
		late := time.Now().Add(s.limit.request)
		_ = c.SetReadDeadline(late)
		r, err := http.ReadRequest(in)
		if !s.mark(c, false) {
			return
		}
		if r == nil {
			r = &http.Request{Method: http.MethodGet, ProtoMinor: 1}
		}
		var a reply
		keep := false
		switch {
		case err != nil && limited.N <= 0:
			a = plain(http.StatusRequestHeaderFieldsTooLarge, "the header is too long")
		case err != nil && !time.Now().Before(late), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, new(*net.OpError)):
			return // whoever is gone, or too slow, gets no answer
		case err != nil:
			a = plain(http.StatusBadRequest, "this is no request")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			a = plain(http.StatusMethodNotAllowed, "this can only be read")
			a.header = [][2]string{{"Allow", "GET, HEAD"}}
		default:
			a = s.answer(ctx, r)
			keep = !r.Close && r.ContentLength == 0 && len(r.TransferEncoding) == 0 && a.stream == nil
		}
		if !s.send(ctx, c, in, r, a, keep) {
			linger(c)
			return
		}
	}
}

func plain(code int, text string) reply {
	return reply{code: code, kind: "text/plain; charset=utf-8", body: []byte(text + "\n")}
}

// send writes one answer. It is true if the connection goes on.
func (s *server) send(ctx context.Context, c *conn, in *bufio.Reader, r *http.Request, a reply, keep bool) bool {
	streaming := a.stream != nil && r.Method == http.MethodGet
	if streaming && !s.admitStream() {
		a = plain(http.StatusServiceUnavailable, "too many readers of events")
		a.header = [][2]string{{"Retry-After", "5"}}
		streaming = false
	} else if streaming {
		defer s.endStream()
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\n", a.code, http.StatusText(a.code), time.Now().UTC().Format(http.TimeFormat), a.kind)
	for _, h := range a.header {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n")
	if a.stream == nil {
		b.WriteString("Content-Length: " + strconv.Itoa(len(a.body)) + "\r\n")
	}
	switch {
	case !keep:
		b.WriteString("Connection: close\r\n")
	case r.ProtoMinor == 0:
		b.WriteString("Connection: keep-alive\r\n")
	}
	b.WriteString("\r\n")
	if r.Method != http.MethodHead {
		b.Write(a.body)
	}
	w := timedWriter{c, s.limit.answer}
	if _, err := w.Write(b.Bytes()); err != nil {
		return false
	}
	if streaming {
		s.stream(ctx, c, in, a, w)
	}
	return keep
}

// stream lets an answer write until its client leaves or the end comes.
func (s *server) stream(ctx context.Context, c *conn, in *bufio.Reader, a reply, w io.Writer) {
	ctx, cancel := context.WithCancel(ctx)
	left := make(chan struct{})
	go func() {
		defer close(left)
		defer cancel()
		_ = c.SetReadDeadline(time.Time{})
		_, _ = in.ReadByte() // whatever comes, data or the end: it has heard enough
	}()
	_ = a.stream(ctx, w)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	<-left
}

func (s *server) admitStream() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams >= s.limit.streams || s.ending {
		return false
	}
	s.streams++
	return true
}

func (s *server) endStream() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams--
}

// timedWriter gives each write its own time.
type timedWriter struct {
	c     net.Conn
	limit time.Duration
}

func (w timedWriter) Write(b []byte) (int, error) {
	if err := w.c.SetWriteDeadline(time.Now().Add(w.limit)); err != nil {
		return 0, err
	}
	return w.c.Write(b)
}

// linger lets the client read the last answer although it has sent what we did not read: the kernel would reset the connection, and drop
// what is on its way.
func linger(c *conn) {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, _ = io.CopyN(io.Discard, c, 256<<10)
}

// fileListener listens with a socket that somebody else has opened, and closes the file.
func fileListener(f *os.File) (net.Listener, error) {
	defer f.Close()
	return net.FileListener(f) // of a copy
}
