package face

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// dial opens a connection that is closed after the test.
func (s *served) dial() (net.Conn, *bufio.Reader) {
	s.t.Helper()
	c, err := net.Dial("tcp", s.at)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

func TestRawRequests(t *testing.T) {
	s := serveFake(t, nil)
	hasty := serveFake(t, func(s *server, _ *face) { s.limit.request = 300 * time.Millisecond }) // for what never ends, and not for what comes late
	for request, want := range map[string]string{
		"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":       "HTTP/1.1 200 OK",
		"GET /livez HTTP/1.0\r\n\r\n":                                       "HTTP/1.1 200 OK",
		"HEAD /livez HTTP/1.0\r\n\r\n":                                      "HTTP/1.1 200 OK",
		"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello": "HTTP/1.1 405 Method Not Allowed",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                  "HTTP/1.1 405 Method Not Allowed",
		"nonsense\r\n\r\n":                                                  "HTTP/1.1 400 Bad Request",
		"GET http://[::1/ HTTP/1.1\r\n\r\n":                                 "HTTP/1.1 400 Bad Request",
		"GET /%2e%2e/livez HTTP/1.0\r\n\r\n":                                "HTTP/1.1 404 Not Found",
		"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n":  "HTTP/1.1 431 Request Header Fields Too Large",
		"GET /livez HTTP/1.1\r\nHost":                                       "", // not complete in time
		"":                                                                  "",
	} {
		at := s
		if want == "" {
			at = hasty
		}
		c, in := at.dial()
		fmt.Fprint(c, request)
		all, err := io.ReadAll(in)
		if line, _, _ := strings.Cut(string(all), "\r\n"); err != nil || line != want {
			t.Errorf("%.40q: %q, %v", request, line, err)
		}
		if strings.HasPrefix(request, "HEAD") && !strings.HasSuffix(string(all), "Content-Length: 6\r\nConnection: close\r\n\r\n") {
			t.Errorf("HEAD: %q", all)
		}
	}
}

// TestKeptConnection: several requests on one connection, some at once, until it has been idle too long.
func TestKeptConnection(t *testing.T) {
	s := serveFake(t, func(s *server, _ *face) { s.limit.idle = 300 * time.Millisecond })
	c, in := s.dial()
	fmt.Fprint(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\nHEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
	for i, method := range []string{"GET", "HEAD", "GET"} {
		a, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil || a.StatusCode != 200 {
			t.Fatalf("no. %d: %v, %+v", i, err, a)
		}
		_, _ = io.Copy(io.Discard, a.Body)
		a.Body.Close()
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("after the time for idling: %v", err)
	}
}

// TestSilentOnesGiveWay: a full house never keeps out somebody who asks.
func TestSilentOnesGiveWay(t *testing.T) {
	s := serveFake(t, func(s *server, _ *face) { s.limit.connections, s.limit.request = 4, time.Minute })
	first, in := s.dial()
	for range 20 {
		c, _ := s.dial()
		fmt.Fprint(c, "GET /li")
	}
	for range 5 {
		if a, _ := s.get("/livez"); a.StatusCode != 200 {
			t.Errorf("code %d", a.StatusCode)
		}
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("the oldest is still there")
	}
	_ = first
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if n := len(s.server.conns); n > 5 {
		t.Errorf("%d connections", n)
	}
}

// TestEnd: an answer that is under way is given, everything else is closed at once.
func TestEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	s := newServer(l, func(context.Context, *http.Request) reply {
		close(entered)
		<-leave
		return plain(200, "late")
	})
	s.limit.farewell, s.limit.request = time.Minute, time.Minute
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { s.serve(ctx) })
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\n\r\n")
	<-entered
	cancel()
	_ = silent.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the silent one is still there")
	}
	close(leave)
	if b, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(b), "late\n") {
		t.Errorf("%q, %v", b, err)
	}
	all.Wait()
}
