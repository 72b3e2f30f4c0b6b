package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/internal/helper"
	"github.com/hotswap-init/entrypoint/internal/proxy"
)

// rounds is how many swaps a storm has, and clients how many there are at once.
const rounds, clients = 50, 64

// storm counts what clients lost, word for word.
type storm struct {
	ok     atomic.Int64
	mu     sync.Mutex
	failed []string
	stop   chan struct{}
	wg     sync.WaitGroup
}

func (s *storm) fail(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, fmt.Sprintf(format, a...))
}

// begin lets n clients ask again and again.
func begin(n int, client func(s *storm, i int, stop <-chan struct{})) *storm {
	s := &storm{stop: make(chan struct{})}
	for i := range n {
		s.wg.Go(func() { client(s, i, s.stop) })
	}
	return s
}

// lossless ends the storm and fails the test for every request lost.
func (s *storm) lossless(t *testing.T) {
	t.Helper()
	close(s.stop)
	s.wg.Wait()
	t.Logf("%d answered, %d failed", s.ok.Load(), len(s.failed))
	if len(s.failed) > 0 || s.ok.Load() == 0 {
		t.Errorf("%d failed: %.10q", len(s.failed), s.failed)
	}
}

// poster sends one POST after another over kept-alive connections and never tries again.
func poster(url string) func(s *storm, i int, stop <-chan struct{}) {
	return func(s *storm, i int, stop <-chan struct{}) {
		t := &http.Transport{MaxIdleConnsPerHost: 1, DisableCompression: true}
		defer t.CloseIdleConnections()
		body := bytes.Repeat([]byte{byte('a' + i%26)}, 100+i*37)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Without GetBody and with a method that may not be repeated, net/http does not try again by itself.
			r, _ := http.NewRequest(http.MethodPost, url, io.MultiReader(bytes.NewReader(body)))
			r.ContentLength = int64(len(body))
			a, err := t.RoundTrip(r)
			if err != nil {
				s.fail("%v", err)
				continue
			}
			got, err := io.ReadAll(a.Body)
			a.Body.Close()
			if err != nil || a.StatusCode != 200 || !bytes.Equal(got, body) {
				s.fail("status %d, %d of %d bytes: %v", a.StatusCode, len(got), len(body), err)
				continue
			}
			s.ok.Add(1)
		}
	}
}

// mirror answers with the body that it got.
var mirror = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Write(b)
})

// TestHTTPStorm: clients that keep their connections and never try again lose nothing over swaps of a server without any grace.
func TestHTTPStorm(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.HTTP})
	old := s.start(naive(mirror))
	s.steer(old)
	storm := begin(clients, poster("http://"+s.addr+"/"))
	for range rounds {
		s.answers(storm, clients)
		next := s.start(naive(mirror))
		s.steer(next)
		s.end(old)
		old = next
	}
	storm.lossless(t)
	s.end(old)
}

// answers waits for so many more answers, so that what follows happens under load.
func (s *stage) answers(storm *storm, n int64) {
	s.t.Helper()
	goal := storm.ok.Load() + n
	s.eventually("the clients are answered", func() error {
		if now := storm.ok.Load(); now < goal {
			return fmt.Errorf("%d answers are missing", goal-now)
		}
		return nil
	})
}

// shouter makes a connection for each word, and wants it back, to the end of the connection.
func shouter(addr string) func(s *storm, i int, stop <-chan struct{}) {
	return func(s *storm, i int, stop <-chan struct{}) {
		word := bytes.Repeat([]byte{byte('a' + i%26)}, 10+i*100)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := shout(addr, word); err != nil {
				s.fail("%v", err)
			} else {
				s.ok.Add(1)
			}
		}
	}
}

func shout(addr string, word []byte) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(word); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, word) {
		err = fmt.Errorf("%d of %d bytes", len(got), len(word))
	}
	return err
}

// echo sends back what it gets, and closes without waiting for anybody when it is ended.
func echo(_ int, l net.Listener) func() {
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				io.Copy(c, c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	return func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	}
}

// TestTCPStorm: no connection is lost over swaps of a server that closes all that it has.
func TestTCPStorm(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.TCP})
	old := s.start(echo)
	s.steer(old)
	storm := begin(16, shouter(s.addr))
	for range rounds {
		s.answers(storm, clients)
		next := s.start(echo)
		s.steer(next)
		s.empty(old) // a client that gets no time to speak for a second is idle to us, and could be cut
		s.end(old)
		old = next
	}
	storm.lossless(t)
	s.end(old)
}

// TestReplace: the proxy itself is replaced under load, without a loss.
func TestReplace(t *testing.T) {
	t.Run("http", func(t *testing.T) {
		s := present(t, proxy.Options{Kind: proxy.HTTP})
		old := s.start(naive(mirror))
		s.steer(old)
		s.replaces(begin(clients/4, poster("http://"+s.addr+"/")))
		s.end(old)
	})
	t.Run("tcp", func(t *testing.T) {
		s := present(t, proxy.Options{Kind: proxy.TCP})
		old := s.start(echo)
		s.steer(old)
		s.replaces(begin(16, shouter(s.addr)))
		s.end(old)
	})
}

// TestReplacedSaysClose: who is connected to a run that was replaced is told to go, by an answer.
func TestReplacedSaysClose(t *testing.T) {
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP}, mirror)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	ask := func() bool {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		a, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		return a.Close
	}
	if ask() {
		t.Error("told to go before the time")
	}
	if err := s.front.Replace(context.Background(), helper.Program{}); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); !ask(); { // it may not know yet
		if time.Since(began) > patience {
			t.Fatal("not told to go")
		}
	}
}

func (s *stage) replaces(storm *storm) {
	s.t.Helper()
	pids := map[int]bool{}
	for range 5 {
		s.answers(storm, clients)
		pids[s.front.PID()] = true
		if err := s.front.Replace(context.Background(), helper.Program{}); err != nil {
			s.t.Fatal(err)
		}
	}
	if len(pids) != 5 {
		s.t.Errorf("the runs were %v", pids)
	}
	s.eventually("the old runs are gone", func() error {
		for pid := range pids {
			if syscall.Kill(pid, 0) == nil {
				return fmt.Errorf("%d is there", pid)
			}
		}
		return nil
	})
	storm.lossless(s.t)
}

// TestKilledHelper: what goes through it dies with it, and nobody else is refused.
func TestKilledHelper(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.TCP})
	g := s.start(echo)
	s.steer(g)
	if err := shout(s.addr, []byte("first")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		through, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		through.Write([]byte("hello"))
		io.ReadFull(through, make([]byte, 5))
		pid := s.front.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// No pause: nobody may be accepting now.
		for range 20 {
			if err := shout(s.addr, []byte("word")); err != nil {
				t.Fatalf("a new connection was lost: %v", err)
			}
		}
		through.SetDeadline(time.Now().Add(patience))
		if n, err := through.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes from a connection whose carrier is dead", n)
		}
		through.Close()
		if s.front.PID() == pid {
			t.Error("the dead one is not replaced")
		}
	}
	s.end(g)
}
