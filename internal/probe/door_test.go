package probe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// echo accepts until the test ends; each connection gets back what it sent, after its end.
func echo(t *testing.T) (address string, accepted *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	accepted = &atomic.Int64{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				_, _ = c.Write(b)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String(), accepted
}

func dialTo(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", address) }
}

// exchange sends text through a door, ends, and reads the answer.
func exchange(door, text string) (string, error) {
	c, err := net.Dial("tcp", door)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err = io.WriteString(c, text); err != nil {
		return "", err
	}
	_ = c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestDoors(t *testing.T) {
	address, accepted := echo(t)
	var strangers atomic.Bool
	d := NewDoors(2, func(net.Conn) bool { return !strangers.Load() })
	door, err := d.Open(dialTo(address))
	must(t, err)
	shut, err := d.Open(func(context.Context) (net.Conn, error) { return nil, errors.New("nobody there") })
	must(t, err)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	if got, err := exchange(door, big); err != nil || got != big {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(big), err)
	}
	if got, err := exchange(shut, ""); got != "" || err != nil {
		t.Errorf("behind a door to nowhere: %q, %v", got, err)
	}
	strangers.Store(true)
	before := accepted.Load()
	if got, _ := exchange(door, "hello"); got != "" || accepted.Load() != before {
		t.Errorf("a stranger was let in: %q", got)
	}
	strangers.Store(false)
	// Two connections that stay open are all that there may be at once; Close ends them.
	var open []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", door)
		must(t, err)
		defer c.Close()
		open = append(open, c)
	}
	for end := time.Now().Add(10 * time.Second); accepted.Load() < before+2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections were relayed", accepted.Load()-before)
		}
	}
	must(t, d.Close())
	if n := accepted.Load() - before; n != 2 {
		t.Errorf("%d connections at once instead of 2", n)
	}
	for _, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	if _, err := net.Dial("tcp", door); err == nil {
		t.Error("the door is still open")
	}
}

// TestDoorWithCurl is what doors are for.
func TestDoorWithCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl here")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			b := make([]byte, 4096)
			n, _ := c.Read(b)
			if bytes.HasPrefix(b[:n], []byte("GET /healthz ")) {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwell")
			}
			c.Close()
		}
	}()
	defer func() { l.Close(); <-served }()
	d := NewDoors(4, func(net.Conn) bool { return true })
	defer d.Close()
	door, err := d.Open(dialTo(l.Addr().String()))
	must(t, err)
	if out, err := exec.Command(curl, "-fsS", "--noproxy", "*", "http://"+door+"/healthz").CombinedOutput(); err != nil || string(out) != "well" {
		t.Errorf("%v: %q", err, out)
	}
}
