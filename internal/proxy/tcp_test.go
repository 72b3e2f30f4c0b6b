package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/proxy"
)

func dial(t *testing.T, network, addr string) interface {
	net.Conn
	CloseWrite() error
} {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if u, ok := c.(*net.UnixConn); ok {
		return u
	}
	return c.(*net.TCPConn)
}

// carrying is a stage of TCP with one generation that handles each connection.
func carrying(t *testing.T, listen string, o proxy.Options, handle func(*net.TCPConn)) *stage {
	t.Helper()
	o.Kind = proxy.TCP
	s := presentAt(t, listen, o)
	g := s.start(func(_ int, l net.Listener) func() {
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { defer c.Close(); c.SetDeadline(time.Now().Add(patience)); handle(c.(*net.TCPConn)) })
			}
		})
		return func() { l.Close(); wg.Wait() }
	})
	s.steer(g)
	t.Cleanup(g.stop)
	return s
}

const anyPort = "web=tcp://127.0.0.1:0"

// TestHalfClose: each direction ends by itself, in both orders.
func TestHalfClose(t *testing.T) {
	s := carrying(t, anyPort, proxy.Options{}, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "%d bytes", len(b))
	})
	c := dial(t, "tcp", s.addr)
	c.Write(make([]byte, 12345))
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "12345 bytes" {
		t.Errorf("%q %v", b, err)
	}
	got := make(chan int, 1)
	s = carrying(t, anyPort, proxy.Options{}, func(c *net.TCPConn) {
		io.WriteString(c, "bye")
		c.CloseWrite()
		b, _ := io.ReadAll(c)
		got <- len(b)
	})
	c = dial(t, "tcp", s.addr)
	if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
		t.Errorf("%q %v", b, err)
	}
	c.Write(make([]byte, 54321))
	c.CloseWrite()
	if n := <-got; n != 54321 {
		t.Errorf("%d bytes after the backend had said its last word", n)
	}
}

// TestBulk: much in both directions at once is the same at the other end.
func TestBulk(t *testing.T) {
	s := carrying(t, anyPort, proxy.Options{}, func(c *net.TCPConn) { io.Copy(c, c); c.CloseWrite() })
	sent := make([]byte, 16<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	c := dial(t, "tcp", s.addr)
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes: %v", len(got), len(sent), err)
	}
}

// TestEarlyAnswer: a backend that answers and closes without reading all does not cost the client the answer.
func TestEarlyAnswer(t *testing.T) {
	s := carrying(t, anyPort, proxy.Options{}, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 10))
		io.WriteString(c, "too large")
		c.CloseWrite()
		time.Sleep(20 * time.Millisecond) // the answer is on its way; then the rest of the request meets a closed socket
	})
	c := dial(t, "tcp", s.addr)
	go c.Write(make([]byte, 4<<20))
	got := make([]byte, 9)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "too large" {
		t.Errorf("%q %v", got, err)
	}
}

// TestReset: a connection that breaks does not look like one that ends.
func TestReset(t *testing.T) {
	passed := make(chan struct{})
	s := carrying(t, anyPort, proxy.Options{}, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 1))
		io.WriteString(c, "part of")
		<-passed
		c.SetLinger(0)
	})
	c := dial(t, "tcp", s.addr)
	c.Write([]byte("x"))
	_, err := io.ReadFull(c, make([]byte, len("part of")))
	close(passed)
	if err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("%q, and an orderly end", b)
	}
}

// TestUnixClients are carried as well.
func TestUnixClients(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := carrying(t, "web=unix://"+path, proxy.Options{Protocol: proxy.ProtocolV1}, func(c *net.TCPConn) { io.Copy(c, c); c.CloseWrite() })
	_ = s
	c := dial(t, "unix", path)
	io.WriteString(c, "hello")
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "PROXY UNKNOWN\r\nhello" {
		t.Errorf("%q %v", b, err)
	}
}

// TestConnectWaits: a client who comes while nobody is there is served when somebody is, and let go after the time for that.
func TestConnectWaits(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.TCP})
	answered := make(chan error, 1)
	go func() { answered <- shout(s.addr, []byte("early")) }()
	s.eventually("a client waits", func() error {
		if st := s.front.Status(); st.Waiting != 1 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	g := s.start(echo)
	s.steer(g)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	s.end(g)

	s = present(t, proxy.Options{Kind: proxy.TCP, ConnectTimeout: 50 * time.Millisecond})
	if b, err := io.ReadAll(dial(t, "tcp", s.addr)); len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
}

// TestResetBeforeAByte: a client whose backend ended before it had accepted is given to the next one.
func TestResetBeforeAByte(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.TCP})
	deaf := s.start(func(_ int, l net.Listener) func() { return func() { l.Close() } }) // accepts nothing
	s.steer(deaf)
	c := dial(t, "tcp", s.addr)
	s.eventually("it is in the queue", func() error {
		if l, _ := deaf.lease.Load(); l.Open != 1 {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	next := s.start(echo)
	s.steer(next)
	deaf.stop() // the kernel resets what is in its queue
	s.eventually("the next one has it", func() error {
		if l, _ := next.lease.Load(); l.Open != 1 {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	io.WriteString(c, "hello")
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("%q %v", b, err)
	}
	deaf.lease.Release()
	s.end(next)
}

// TestIdleTimeout ends connections on which nothing moves, and no others.
func TestIdleTimeout(t *testing.T) {
	s := carrying(t, anyPort, proxy.Options{IdleTimeout: 3 * time.Second}, func(c *net.TCPConn) { io.Copy(c, c) })
	busy, idle := dial(t, "tcp", s.addr), dial(t, "tcp", s.addr)
	done := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, idle); done <- err }()
	for {
		if _, err := busy.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(busy, make([]byte, 1)); err != nil {
			t.Fatalf("a busy connection: %v", err)
		}
		select {
		case <-done:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestIdleIsNotBusy: a connection on which all is said does not hold up its generation; one with a request does.
func TestIdleIsNotBusy(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.TCP})
	answer := make(chan struct{})
	g := s.start(func(_ int, l net.Listener) func() {
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			for {
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					return
				}
				<-answer
				c.Write([]byte("y"))
			}
		}()
		return func() { l.Close() }
	})
	s.steer(g)
	began := time.Now()
	c := dial(t, "tcp", s.addr)
	load := func(busy int) func() error {
		return func() error {
			if l, err := g.lease.Load(); err != nil || !l.Known || l.Open != 1 || l.Busy != busy {
				return fmt.Errorf("%+v %v", l, err)
			}
			return nil
		}
	}
	s.eventually("a client has come", func() error {
		err := load(1)()
		if err != nil && time.Since(began) > time.Second { // so long it counts as busy
			err = load(0)()
		}
		return err
	})
	s.eventually("it has nothing to say", load(0))
	c.Write([]byte("x"))
	s.eventually("it asks", load(1))
	time.Sleep(1200 * time.Millisecond) // longer than any answer is taken to be on its way
	if err := load(1)(); err != nil {
		t.Errorf("while it waits for its answer: %v", err)
	}
	answer <- struct{}{}
	io.ReadFull(c, make([]byte, 1))
	s.eventually("it has its answer", load(0))
	c.Close()
	s.end(g)
}

// TestManyWorkers: connections are spread over all workers of a generation.
func TestManyWorkers(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.TCP})
	var mu sync.Mutex
	met := map[int]int{}
	for i := range 4 {
		lease, err := s.front.Lease(handoff.Seat{Generation: 1, Worker: i})
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Release()
		l, err := net.Listen("tcp4", lease.Address().String())
		if err != nil {
			t.Fatal(err)
		}
		stop := echo(1, &counted{l, func() { mu.Lock(); met[i]++; mu.Unlock() }})
		defer stop()
	}
	if err := s.front.Steer(1); err != nil {
		t.Fatal(err)
	}
	for range 200 { // all of them stay open
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "word"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range 4 {
		if met[i] != 50 {
			t.Errorf("spread: %v", met)
		}
	}
}

type counted struct {
	net.Listener
	count func()
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.count()
	}
	return conn, err
}
