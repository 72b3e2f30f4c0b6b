package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// listen serves every connection of a new listener with f.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
	return l.Addr().String()
}

// readRequest swallows a request, so that closing afterwards ends with FIN, not RST.
func readRequest(c net.Conn) { c.Read(make([]byte, 4096)) }

// answer is a handler of bare bytes.
func answer(text string) func(net.Conn) {
	return func(c net.Conn) {
		readRequest(c)
		io.WriteString(c, text)
		c.Close()
	}
}

// bound is an address that is taken, and at which nobody listens.
func bound(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
}

func TestKinds(t *testing.T) {
	nobody := bound(t)
	silent := listen(t, func(c net.Conn) { io.Copy(io.Discard, c); c.Close() })
	reset := listen(t, func(c net.Conn) { readRequest(c); c.(*net.TCPConn).SetLinger(0); c.Close() })

	for _, c := range []struct {
		address string
		want    Kind
	}{
		{nobody, Refused},
		{silent, Timeout},
		{reset, Reset},
		{listen(t, answer("")), EOF},
		{listen(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nv1 h")), EOF},
		{listen(t, answer("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")), Status},
		{listen(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), Wrong},
		{listen(t, answer("SSH-2.0-x\r\n\r\n")), Wrong},
	} {
		timeout := 20 * time.Second
		if c.want == Timeout {
			timeout = 100 * time.Millisecond
		}
		l := Start(context.Background(), Options{Address: c.address, Fresh: 1, MaxRequests: 1, Timeout: timeout})
		r := wait(l)
		if r.Failed[Fresh][c.want] != 1 || r.Requests() != 1 {
			t.Errorf("%s: want one fresh %s, got %s (%v)", c.address, c.want, r, r.Samples)
		}
	}
}

// wait lets a load run to its own bounds.
func wait(l *Load) Report {
	l.Wait()
	return l.Report()
}

func TestReusedIsCountedApart(t *testing.T) {
	address := listen(t, func(c net.Conn) {
		readRequest(c)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nv1")
		readRequest(c)
		c.Close()
	})
	r := wait(Start(context.Background(), Options{Address: address, Reused: 1, MaxRequests: 4}))
	if r.OK[Fresh] != 2 || r.Failed[Reused][EOF] != 2 || r.Failures(Fresh) != 0 {
		t.Errorf("want 2 fresh answers and 2 reused ends, got %s %v", r, r.OK)
	}
}

func TestPost(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s-%d-%v", r.Method, len(body), err)
	}))
	defer s.Close()
	for class, o := range map[Class]Options{Fresh: {Fresh: 1}, Reused: {Reused: 1}} {
		o.Address, o.Post, o.MaxRequests = s.Listener.Addr().String(), 300, 20
		r := wait(Start(context.Background(), o))
		if r.Requests() != 20 || r.Versions["POST-300-<nil>"].Answers != 20 || r.OK[class] == 0 {
			t.Errorf("want 20 %s posts of 300 bytes, got %s %v", class, r, r.Versions)
		}
	}
}

func TestVersionsAndLatency(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "v7 1 1\n")
	}))
	defer s.Close()
	r := wait(Start(context.Background(), Options{
		Address: s.Listener.Addr().String(), Fresh: 2, Slow: 1, Reused: 1, SlowPath: "/", MaxRequests: 200,
	}))
	if r.Requests() != 200 || r.Failures(Fresh, Slow, Reused) != 0 || r.Versions["v7"].Answers != 200 {
		t.Errorf("want 200 answers of v7, got %s %v", r, r.Versions)
	}
	if got := r.Latency[Fresh]; got.Max == 0 || got.P99 > got.Max || got.P50 > got.P99 {
		t.Errorf("latency out of order: %+v", got)
	}
}

func TestUnixAndStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "u1") })}
	defer s.Close()
	go s.Serve(l)
	running := Start(context.Background(), Options{Network: "unix", Address: path, Fresh: 1, Pace: time.Millisecond})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := running.WaitVersion(ctx, "u1"); err != nil {
		t.Fatal(err)
	}
	if r := running.Stop(); r.Failures(Fresh) != 0 || r.OK[Fresh] == 0 {
		t.Errorf("unix: %s", r)
	}
}
