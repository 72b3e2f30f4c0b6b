package graceful

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"
)

const (
	stormBody = 2000
	// stormDraining is how many generations may be on their way out at a time, so that a hundred swaps take less than a
	// hundred lingers.
	stormDraining = 4
)

// setting is a number from the environment, or a usual value. `make storm` sets them.
func setting(name string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return usual
}

// rounds is how many swaps each storm has: GRACEFUL_ROUNDS, or a few.
func rounds() int {
	if testing.Short() {
		return setting("GRACEFUL_ROUNDS", 1)
	}
	return setting("GRACEFUL_ROUNDS", 3)
}

// TestStorm swaps generations on one socket under keep-alive clients that never try again: not one request may fail.
// With GRACEFUL_HELPER_NAME=plain it shows what http.Server.Shutdown alone loses, and fails.
func TestStorm(t *testing.T) {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "storm\tclients\tswaps\trequests\tfailed\tunsent\tslowest drain\t")
	for _, proto := range stormProtocols() {
		t.Run(proto, func(t *testing.T) {
			s := newStorm(t, proto)
			s.run(rounds())
			s.report()
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%v\t\n", proto, s.size, rounds(), s.done.Load(), len(s.failures), s.unsent.Load(), s.slowest.Round(time.Millisecond))
		})
	}
	_ = w.Flush()
	t.Logf("\n%s", table.String())
}

type storm struct {
	t        *testing.T
	proto    string
	helper   string
	sock     held
	env      []string
	size     int          // number of clients
	between  int64        // requests between two swaps
	done     atomic.Int64 // requests answered
	unsent   atomic.Int64 // see errUnsent
	h2once   sync.Once
	shared   *http.Client // of all clients, for protocols that end in shared
	mu       sync.Mutex
	failures []error
	slowest  time.Duration // drain
}

func newStorm(t *testing.T, proto string) *storm {
	s := &storm{t: t, proto: proto, sock: holdSocket(t), helper: "serve", size: setting("GRACEFUL_CLIENTS", 32)}
	s.between = int64(setting("GRACEFUL_REQUESTS", 10*s.size))
	if name := os.Getenv("GRACEFUL_HELPER_NAME"); name != "" {
		s.helper = name
	}
	s.env = []string{"TEST_ADDR=" + s.sock.addr, "TEST_LINGER=3s"} // clients may stand still for most of the usual second
	switch {
	case proto == "http1":
	case s.unencrypted():
		s.env = append(s.env, "TEST_H2C=1")
	default:
		cert, key := writeCert(t, t.TempDir(), 1)
		s.env = append(s.env, "TEST_CERT="+cert, "TEST_KEY="+key)
	}
	return s
}

func (s *storm) unencrypted() bool { return strings.HasPrefix(s.proto, "h2c") }

// run swaps n times while the clients are at work.
func (s *storm) run(n int) {
	active := s.start()
	var draining []*generation // the oldest first
	s.clients(func() {
		for range n {
			s.awaitTraffic()
			next := s.start()
			active.term()
			draining, active = append(draining, active), next
			if len(draining) == stormDraining {
				s.awaitEnd(draining[0])
				draining = draining[1:]
			}
		}
	})
	active.term()
	for _, g := range append(draining, active) {
		s.awaitEnd(g)
	}
}

func (s *storm) awaitEnd(g *generation) {
	g.wait()
	s.slowest = max(s.slowest, g.ended.Sub(g.begun))
}

// clients are at work during swap, and get some answers before and after it.
func (s *storm) clients(swap func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for i := range s.size {
		clients.Go(func() { s.client(ctx, i) })
	}
	defer clients.Wait()
	defer cancel()
	swap()
	s.awaitTraffic()
}

func (s *storm) start() *generation {
	g := startGeneration(s.t, s.helper, []*os.File{s.sock.file}, s.env...)
	g.await("READY=1")
	return g
}

// awaitTraffic blocks until some requests more have been answered.
func (s *storm) awaitTraffic() {
	goal, end := s.done.Load()+s.between, time.Now().Add(deadline)
	for s.done.Load() < goal {
		if time.Now().After(end) {
			s.t.Fatal("no traffic")
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *storm) report() {
	s.t.Logf("%s: %d requests, %d failed, %d never sent, slowest drain %v", s.proto, s.done.Load(), len(s.failures), s.unsent.Load(), s.slowest.Round(time.Millisecond))
	for i, err := range s.failures {
		if i == 5 {
			break
		}
		s.t.Logf("failed: %v", err)
	}
	if len(s.failures) > 0 {
		s.t.Errorf("%d of %d requests failed", len(s.failures), s.done.Load())
	}
}

// client sends requests until ctx ends. Every second client thinks between two, so that its connection is idle
// at times.
func (s *storm) client(ctx context.Context, i int) {
	do, end := s.newClient()
	defer end()
	for ctx.Err() == nil {
		if err := do(); errors.Is(err, errUnsent) {
			s.unsent.Add(1)
			continue
		} else if err != nil {
			s.mu.Lock()
			s.failures = append(s.failures, err)
			s.mu.Unlock()
			continue
		}
		s.done.Add(1)
		if i%2 == 0 {
			time.Sleep(Jitter(20 * time.Millisecond))
		}
	}
}

func (s *storm) newClient() (do func() error, end func()) {
	switch s.proto {
	case "http1", "tls":
		c := &rawClient{addr: s.sock.addr, tls: s.proto == "tls"}
		return c.post, c.close
	default:
		s.h2once.Do(func() { s.shared = newH2(s.proto, s.sock.addr) })
		c := s.shared
		if !strings.HasSuffix(s.proto, "shared") {
			c = newH2(s.proto, s.sock.addr)
		}
		return func() error { return h2post(c, s.url(), strings.Contains(s.proto, "stream")) }, c.CloseIdleConnections
	}
}

// rawClient speaks HTTP/1.1 on one connection as long as the server lets it, and never tries again.
type rawClient struct {
	addr string
	tls  bool
	conn net.Conn
	r    *bufio.Reader
	used int
}

func (c *rawClient) post() error {
	if c.conn == nil {
		if err := c.dial(); err != nil {
			return fmt.Errorf("dial: %w", err)
		}
	}
	c.used++
	keep, err := c.exchange()
	if err != nil {
		err = fmt.Errorf("request %d of the connection: %w", c.used, err)
	}
	if err != nil || !keep {
		c.close()
	}
	return err
}

func (c *rawClient) dial() (err error) {
	d := &net.Dialer{Timeout: deadline}
	if c.tls {
		c.conn, err = tls.DialWithDialer(d, "tcp", c.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	} else {
		c.conn, err = d.Dial("tcp", c.addr)
	}
	if err != nil {
		c.conn = nil
		return err
	}
	c.r, c.used = bufio.NewReader(c.conn), 0
	return nil
}

func (c *rawClient) exchange() (keep bool, err error) {
	_ = c.conn.SetDeadline(time.Now().Add(deadline))
	body := bytes.Repeat([]byte{'x'}, stormBody)
	head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n", len(body))
	if _, err := c.conn.Write(append([]byte(head), body...)); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return false, err
	}
	return !res.Close, checkEcho(res, len(body))
}

func (c *rawClient) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func checkEcho(res *http.Response, want int) error {
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || len(got) != want {
		return fmt.Errorf("status %d, %d bytes of %d", res.StatusCode, len(got), want)
	}
	return nil
}

// newH2 is Go's own client. It repeats a request which the server's GOAWAY says was not looked at, if it has the body still: that
// is how HTTP/2 is meant.
func newH2(proto, addr string) *http.Client {
	var protocols http.Protocols
	plain := strings.HasPrefix(proto, "h2c")
	protocols.SetHTTP2(!plain)
	protocols.SetUnencryptedHTTP2(plain)
	tr := &http.Transport{Protocols: &protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	return &http.Client{Transport: tr, Timeout: deadline}
}

// url is where the HTTP/2 clients go.
func (s *storm) url() string {
	if s.unencrypted() {
		return "http://" + s.sock.addr
	}
	return "https://" + s.sock.addr
}

// errUnsent is for a request that Go's client gave up before it wrote a byte of it: GOAWAY came when it had chosen the connection and
// not begun the stream, and then it closes the body and takes it for used. No server has lost it, and none can help it.
var errUnsent = errors.New("never sent")

// h2post sends one request. A stream cannot be sent again.
func h2post(c *http.Client, url string, stream bool) error {
	var body io.Reader = bytes.NewReader(bytes.Repeat([]byte{'x'}, stormBody))
	if stream {
		body = struct{ io.Reader }{body}
	}
	var begun atomic.Bool // its HEADERS
	trace := &httptrace.ClientTrace{WroteHeaderField: func(string, []string) { begun.Store(true) }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "POST", url, body)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil && !begun.Load() && strings.Contains(err.Error(), "cannot rewind body") {
		return errUnsent
	}
	if err != nil {
		return err
	}
	if res.ProtoMajor != 2 {
		return errors.New("not HTTP/2: " + res.Proto)
	}
	return checkEcho(res, stormBody)
}

// stormProtocols are those to test: GRACEFUL_STORM, or all.
func stormProtocols() []string {
	if one := os.Getenv("GRACEFUL_STORM"); one != "" {
		return []string{one}
	}
	return []string{"http1", "tls", "http2", "h2c", "http2shared", "http2streamshared", "h2cstreamshared"}
}
