package graceful

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// h2Client is a client that sees every frame.
type h2Client struct {
	t       *testing.T
	conn    net.Conn
	r       *bufio.Reader
	secure  bool
	last    []uint32 // streams that the GOAWAYs named
	streams []uint32 // that were answered
}

// serveH2 serves HTTP/2 with TLS or without.
func serveH2(t *testing.T, s *Server, secure bool) *running {
	t.Helper()
	if secure {
		cert, key := writeCert(t, t.TempDir(), 1)
		return serveTest(t, s, func(s *Server) error { return s.ServeTLS(listenLocal(t, s), cert, key) })
	}
	s.Protocols = new(http.Protocols)
	s.Protocols.SetUnencryptedHTTP2(true)
	return serve(t, s)
}

// h2 connects; the client has said nothing of HTTP/2 yet.
func (r *running) h2(secure bool) *h2Client {
	r.t.Helper()
	c := r.dial().conn
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	}
	return &h2Client{t: r.t, conn: c, r: bufio.NewReader(c), secure: secure}
}

func (c *h2Client) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *h2Client) hello() *h2Client {
	c.t.Helper()
	c.send(append([]byte(preface), frame{kind: kindSettings}.bytes()...))
	return c
}

// request is GET / on a new stream.
func (c *h2Client) request(stream uint32) {
	c.t.Helper()
	scheme := byte(0x86) // in the static table of RFC 7541: :scheme http, then https
	if c.secure {
		scheme = 0x87
	}
	head := []byte{0x82, scheme, 0x84, 0x41, 1, 'x'} // GET, scheme, /, :authority x
	c.send(frame{kindHeaders, endStream | endHeaders, stream, head}.bytes())
}

// next reads a frame and notes what it says; the end of the connection is false.
func (c *h2Client) next() bool {
	c.t.Helper()
	f, err := readFrame(c.r)
	if errors.Is(err, io.EOF) {
		return false
	}
	if err != nil {
		c.t.Fatalf("after GOAWAYs %v and answers %v: %v", c.last, c.streams, err)
	}
	switch {
	case f.kind == kindGoAway:
		c.last = append(c.last, binary.BigEndian.Uint32(f.payload))
		if code := binary.BigEndian.Uint32(f.payload[4:]); code != 0 {
			c.t.Errorf("GOAWAY says error %d", code)
		}
	case f.flags&endStream != 0 && (f.kind == kindData || f.kind == kindHeaders):
		c.streams = append(c.streams, f.stream)
	}
	return true
}

func (c *h2Client) until(what string, done func() bool) {
	c.t.Helper()
	for !done() {
		if !c.next() {
			c.t.Fatalf("the end of the connection before %s", what)
		}
	}
}

func (c *h2Client) goAways(n int) {
	c.t.Helper()
	c.until("a GOAWAY", func() bool { return len(c.last) == n })
}

func (c *h2Client) answers(n int) {
	c.t.Helper()
	c.until("an answer", func() bool { return len(c.streams) == n })
}

func bothH2(t *testing.T, test func(t *testing.T, secure bool)) {
	t.Run("tls", func(t *testing.T) { test(t, true) })
	t.Run("h2c", func(t *testing.T) { test(t, false) })
}

const anyStream = 1<<31 - 1

func TestTwoGoAways(t *testing.T) {
	bothH2(t, func(t *testing.T, secure bool) {
		s := NewServer("", http.HandlerFunc(ok))
		s.Linger = deadline // the client has time for two requests
		answered := make(chan struct{})
		s.Hooks.Before = func(p Phase) {
			if p == PhaseLinger {
				<-answered
				s.Linger = time.Millisecond
			}
		}
		r := serveH2(t, s, secure)
		c := r.h2(secure).hello()
		c.request(1)
		c.answers(1)
		s.process.drain()
		c.goAways(1)
		c.request(3) // has crossed the first
		c.answers(2)
		c.request(5)
		c.answers(3)
		close(answered)
		c.goAways(2)
		for c.next() { // to the end
		}
		if len(c.last) != 2 || c.last[0] != anyStream || c.last[1] != 5 {
			t.Errorf("GOAWAYs name the streams %v", c.last)
		}
		if err := r.result(); err != nil {
			t.Error(err)
		}
	})
}

// A client that does not listen to the warning is told by an answer once the linger is over, also while another of its
// requests runs on.
func TestDeafClientIsTold(t *testing.T) {
	bothH2(t, func(t *testing.T, secure bool) {
		inside, release := make(chan struct{}), make(chan struct{})
		first := sync.OnceFunc(func() { close(inside); <-release })
		s := NewServer("", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			select {
			case <-inside:
			default:
				first()
			}
		}))
		s.Linger = -1
		r := serveH2(t, s, secure)
		c := r.h2(secure).hello()
		c.request(1)
		receive(t, inside, "the first request")
		s.process.drain()
		c.goAways(1)
		// The warning may be here before its writer has noted that it is written; then it is the next answer that tells.
		for stream := uint32(3); len(c.last) < 2; stream += 2 {
			c.request(stream)
			c.until("an answer", func() bool { return len(c.last) == 2 || slices.Contains(c.streams, stream) })
		}
		close(release)
		c.until("the first answer", func() bool { return slices.Contains(c.streams, 1) })
		if err := r.result(); err != nil {
			t.Error(err)
		}
	})
}

// A connection whose client says nothing before the drain is warned in its first moment.
func TestLateConnectionIsWarned(t *testing.T) {
	bothH2(t, func(t *testing.T, secure bool) {
		s := NewServer("", http.HandlerFunc(ok))
		s.Linger = deadline
		hooks, lingering := reached(PhaseLinger)
		accepted := make(chan struct{})
		s.Hooks = hooks
		s.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { close(accepted); return ctx }
		r := serveH2(t, s, secure)
		c := r.h2(secure)
		if secure {
			if err := c.conn.(*tls.Conn).Handshake(); err != nil {
				t.Fatal(err)
			}
		}
		receive(t, accepted, "the connection")
		s.process.drain()
		receive(t, lingering, "the linger")
		c.hello()
		c.goAways(1)
		c.request(1)
		c.answers(1)
		if c.last[0] != anyStream {
			t.Errorf("GOAWAY names the stream %d", c.last[0])
		}
		_ = c.conn.Close()
		if err := r.result(); err != nil {
			t.Error(err)
		}
	})
}

// What net/http promises to a program holds as before.
func TestH2KeepsItsPromises(t *testing.T) {
	bothH2(t, func(t *testing.T, secure bool) {
		type key struct{}
		var mu sync.Mutex
		conns, states := map[net.Conn]bool{}, []http.ConnState{}
		s := NewServer("", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.Context().Value(key{}) != "mine" || r.RemoteAddr == "" || r.ProtoMajor != 2 {
				t.Errorf("%+v", r)
			}
			if (r.TLS != nil) != secure || secure && r.TLS.NegotiatedProtocol != "h2" {
				t.Errorf("TLS is %+v", r.TLS)
			}
		}))
		s.IdleTimeout = 2 * time.Second // from the beginning, too: the request must come sooner
		s.BaseContext = func(l net.Listener) context.Context {
			if l.Addr().String() != s.Addr {
				t.Errorf("BaseContext of %v", l.Addr())
			}
			return context.WithValue(t.Context(), key{}, "mine")
		}
		closed := make(chan struct{})
		s.ConnState = func(nc net.Conn, state http.ConnState) {
			mu.Lock()
			defer mu.Unlock()
			conns[nc] = true
			if states = append(states, state); state == http.StateClosed {
				close(closed)
			}
		}
		r := serveH2(t, s, secure)
		c := r.h2(secure).hello()
		c.request(1)
		c.answers(1)
		c.goAways(1) // idle
		if c.last[0] != 1 {
			t.Errorf("GOAWAY names the stream %d", c.last[0])
		}
		_ = c.conn.Close()
		receive(t, closed, "the end of the connection")
		r.drain()
		mu.Lock()
		defer mu.Unlock()
		if len(conns) != 1 {
			t.Errorf("ConnState was called for %v", conns)
		}
		if n := len(states); n < 4 || states[0] != http.StateNew || states[n-2] != http.StateIdle || states[n-1] != http.StateClosed {
			t.Errorf("states %v", states)
		}
	})
}

// stuck is a connection whose client reads nothing.
type stuck struct {
	net.Conn
	writing, closed chan struct{}
}

func (s *stuck) Write([]byte) (int, error) {
	close(s.writing)
	<-s.closed
	return 0, net.ErrClosed
}

// A client that reads nothing does not hold up the announcement to the others.
func TestAnnouncementDoesNotBlock(t *testing.T) {
	table, nc := newConnTable(), &stuck{writing: make(chan struct{}), closed: make(chan struct{})}
	table.add(nc, time.Now())
	c := table.wrap(nc)
	go func() { _, _ = c.Write(frame{kind: kindSettings}.bytes()) }()
	receive(t, nc.writing, "the write")
	done := make(chan struct{})
	go func() { table.announce(); close(done) }()
	receive(t, done, "the announcement")
	close(nc.closed)
	table.settle()
}

// Nor does it hold up the hammer.
func TestStuckH2Client(t *testing.T) {
	bothH2(t, func(t *testing.T, secure bool) {
		writing := make(chan struct{})
		s := NewServer("", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for once := sync.OnceFunc(func() { close(writing) }); ; once() {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}))
		s.Hammer, s.Linger = 200*time.Millisecond, -1
		r := serveH2(t, s, secure)
		c := r.h2(secure)
		c.send([]byte(preface))
		wide := []byte{0, 4, 0x7f, 0xff, 0xff, 0xff} // SETTINGS_INITIAL_WINDOW_SIZE
		c.send(frame{kind: kindSettings, payload: wide}.bytes())
		c.send(frame{kind: 8, payload: []byte{0x7f, 0, 0, 0}}.bytes()) // WINDOW_UPDATE of the connection
		c.request(1)
		receive(t, writing, "the answer")
		s.process.drain()
		if err := r.result(); !errors.Is(err, ErrHammer) {
			t.Errorf("Serve returned %v", err)
		}
	})
}

// An HTTP/2 server that the program brings itself, and that has no second door, stays as it is.
func TestForeignH2IsLeftAlone(t *testing.T) {
	called := make(chan struct{})
	s := NewServer("", http.HandlerFunc(ok))
	s.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		protoTLS: func(_ *http.Server, _ *tls.Conn, _ http.Handler) { close(called) },
	}
	s.TLSConfig = &tls.Config{NextProtos: []string{"h2"}}
	r := serveH2(t, s, true)
	r.h2(true).hello()
	receive(t, called, "the program's server")
	r.drain()
}

// Something else than the preface ends the connection, and nothing more.
func TestNoPreface(t *testing.T) {
	s := NewServer("", http.HandlerFunc(ok))
	s.Linger = -1
	r := serveH2(t, s, true)
	c := r.h2(true)
	c.send([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	if n, err := c.r.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes of an answer", n)
	}
	r.drain()
}

// The HTTP/2 server knows the TLS state of the connection, and refuses a cipher that RFC 9113 forbids.
func TestForbiddenCipher(t *testing.T) {
	const forbidden = tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA
	s := NewServer("", http.HandlerFunc(ok))
	s.Linger = -1
	s.TLSConfig = &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, forbidden}}
	r := serveH2(t, s, true)
	nc := tls.Client(r.dial().conn, &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{forbidden},
	})
	c := &h2Client{t: t, conn: nc}
	c.hello()
	f, err := readFrame(nc)
	if err != nil || f.kind != kindGoAway || binary.BigEndian.Uint32(f.payload[4:]) != 0xc {
		t.Errorf("got %v, %v; want INADEQUATE_SECURITY", f, err)
	}
	r.drain()
}

// Several listeners of one Server share what is put in between.
func TestTwoH2Listeners(t *testing.T) {
	s := NewServer("", http.HandlerFunc(ok))
	s.process, s.Signals, s.Linger = newProcess(notifier{}), []os.Signal{}, deadline // it ends with the connections; without it the warning may come too late
	cert, key := writeCert(t, t.TempDir(), 1)
	get, err := ReloadCertificate(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s.TLSConfig = &tls.Config{GetCertificate: get}
	results := make(chan error, 2)
	var clients []*h2Client
	for range 2 {
		l := listenLocal(t, s)
		go func() { results <- s.ServeTLS(l, "", "") }()
		c := (&running{t: t, addr: l.Addr().String()}).h2(true).hello()
		c.request(1)
		clients = append(clients, c)
	}
	for _, c := range clients {
		c.answers(1)
	}
	s.process.drain()
	for _, c := range clients {
		c.goAways(1)
		if c.last[0] != anyStream {
			t.Errorf("GOAWAY names the stream %d", c.last[0])
		}
		_ = c.conn.Close()
	}
	for range 2 {
		if err := receive(t, results, "the end"); err != nil {
			t.Error(err)
		}
	}
}
