package graceful

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// running is a server under test, with a process of its own.
type running struct {
	t    *testing.T
	s    *Server
	addr string
	err  chan error
}

// listenLocal gives the server's test an address.
func listenLocal(t *testing.T, s *Server) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
	}
	s.Addr = l.Addr().String()
	return l
}

// serveTest runs serve and returns when the server is ready.
func serveTest(t *testing.T, s *Server, serve func(*Server) error) *running {
	t.Helper()
	if s.process == nil {
		s.process = newProcess(notifier{})
	}
	s.Signals = []os.Signal{}
	ready, hooks := make(chan struct{}), s.Hooks
	s.Hooks.After = func(p Phase) {
		if hooks.After != nil {
			hooks.After(p)
		}
		if p == PhaseReady {
			close(ready)
		}
	}
	r := &running{t: t, s: s, err: make(chan error, 1)}
	go func() { r.err <- serve(s) }()
	receive(t, ready, "the server")
	r.addr = s.Addr
	t.Cleanup(func() { _ = s.Server.Close() })
	return r
}

func serve(t *testing.T, s *Server) *running {
	t.Helper()
	return serveTest(t, s, func(s *Server) error { return s.Serve(listenLocal(t, s)) })
}

func (r *running) result() error {
	r.t.Helper()
	return receive(r.t, r.err, "the end of Serve")
}

// drain begins the drain and expects a good end.
func (r *running) drain() {
	r.t.Helper()
	r.s.process.drain()
	if err := r.result(); err != nil {
		r.t.Errorf("Serve returned %v", err)
	}
}

// browser is a client on one connection.
type browser struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (r *running) dial() *browser {
	r.t.Helper()
	c, err := net.DialTimeout("tcp", r.addr, deadline)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(deadline))
	r.t.Cleanup(func() { _ = c.Close() })
	return &browser{r.t, c, bufio.NewReader(c)}
}

func (b *browser) send(path string) {
	b.t.Helper()
	if _, err := fmt.Fprintf(b.conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		b.t.Fatal(err)
	}
}

// answer reads one and tells whether it says Connection: close.
func (b *browser) answer() (closes bool) {
	b.t.Helper()
	res, err := http.ReadResponse(b.r, nil)
	if err != nil {
		b.t.Fatalf("no answer: %v", err)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		b.t.Fatalf("half an answer: %v", err)
	}
	return res.Close
}

func (b *browser) get(path string) (closes bool) {
	b.t.Helper()
	b.send(path)
	return b.answer()
}

// closed waits for the end of the connection.
func (b *browser) closed() {
	b.t.Helper()
	if n, err := b.r.Read(make([]byte, 1)); err != io.EOF {
		b.t.Errorf("not closed: %d, %v", n, err)
	}
}

func ok(http.ResponseWriter, *http.Request) {}

// reached returns a hook that closes the channel before the phase.
func reached(want Phase) (Hooks, <-chan struct{}) {
	c := make(chan struct{})
	return Hooks{Before: func(p Phase) {
		if p == want {
			close(c)
		}
	}}, c
}

func TestIdleConnectionIsTold(t *testing.T) {
	s := NewServer("", http.HandlerFunc(ok))
	s.Linger = 2 * deadline // longer than the test waits
	hooks, lingering := reached(PhaseLinger)
	s.Hooks = hooks
	r := serve(t, s)
	b := r.dial()
	if b.get("/") {
		t.Error("closes before the drain")
	}
	s.process.drain()
	receive(t, lingering, "the linger")
	if !b.get("/") {
		t.Error("does not say close in the drain")
	}
	b.closed()
	if err := r.result(); err != nil { // long before the linger is over: nobody is left
		t.Error(err)
	}
}

func TestStopsAcceptingBeforeLinger(t *testing.T) {
	s := NewServer("", http.HandlerFunc(ok))
	hooks, lingering := reached(PhaseLinger)
	s.Hooks = hooks
	r := serve(t, s)
	b := r.dial()
	b.get("/")
	s.process.drain()
	receive(t, lingering, "the linger")
	if c, err := net.Dial("tcp", r.addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("still accepts: %v, %v", c, err)
	}
	b.closed()
	if err := r.result(); err != nil {
		t.Error(err)
	}
}

func TestIdleConnectionIsClosedAfterLinger(t *testing.T) {
	s := NewServer("", http.HandlerFunc(ok))
	s.Linger = 300 * time.Millisecond
	r := serve(t, s)
	b := r.dial()
	b.get("/")
	begun := time.Now()
	r.drain()
	b.closed()
	if d := time.Since(begun); d < s.Linger {
		t.Errorf("closed after %v", d)
	}
}

// An answer that began before the drain has promised to keep the connection. Its client must get one more chance.
func TestLongAnswerThenOneMoreRequest(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "part")
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-finish
	})
	mux.HandleFunc("/", ok)
	s := NewServer("", mux)
	s.Linger = 50 * time.Millisecond
	hooks, draining := reached(PhaseDrain)
	s.Hooks.Before = func(p Phase) {
		if p == PhaseDrain {
			s.Linger = 2 * deadline // its connection's own: longer than the test waits
		}
		hooks.Before(p)
	}
	r := serve(t, s)
	b := r.dial()
	b.send("/long")
	receive(t, begun, "the long request")
	s.process.drain()
	receive(t, draining, "the end of the linger")
	close(finish)
	if b.answer() {
		t.Error("the test is wrong: the long answer says close")
	}
	if !b.get("/") {
		t.Error("the last answer does not say close")
	}
	if err := r.result(); err != nil {
		t.Error(err)
	}
}

func TestHammer(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for _, c := range []struct {
		name string
		end  func(*Server)
		set  time.Duration
	}{
		{"deadline", func(s *Server) { s.process.drain() }, 50 * time.Millisecond},
		{"second signal", func(s *Server) { s.process.drain(); s.process.cut(); s.process.cut() }, -1},
		{"context", func(s *Server) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			result := make(chan error, 1)
			go func() { result <- s.Shutdown(ctx) }()
			if err := receive(t, result, "Shutdown"); !errors.Is(err, ErrHammer) {
				t.Errorf("Shutdown returned %v", err)
			}
		}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inside := make(chan struct{}, 2)
			s := NewServer("", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/hijack" {
					if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
						t.Error(err)
					}
				}
				inside <- struct{}{}
				<-release
			}))
			s.Hammer, s.Linger = c.set, -1
			r := serve(t, s)
			stuck, hijacked := r.dial(), r.dial()
			stuck.send("/")
			hijacked.send("/hijack")
			receive(t, inside, "the first request")
			receive(t, inside, "the second request")
			c.end(s)
			if err := r.result(); !errors.Is(err, ErrHammer) || !strings.Contains(err.Error(), "2 connections") {
				t.Errorf("Serve returned %v", err)
			}
			stuck.closed()
			hijacked.closed()
		})
	}
}

func TestTimes(t *testing.T) {
	for _, c := range []struct{ set, linger, hammer time.Duration }{
		{0, DefaultLinger, DefaultHammer}, {-1, 0, -1}, {5, 5, 5},
	} {
		s := &Server{Linger: c.set, Hammer: c.set}
		if s.lingerTime() != c.linger || s.hammerTime() != c.hammer {
			t.Errorf("%v: %v, %v", c.set, s.lingerTime(), s.hammerTime())
		}
	}
}

func TestHijackedHandlerAndHoldAreWaitedFor(t *testing.T) {
	told := make(chan struct{})
	s := NewServer("", nil)
	s.Linger = -1
	hooks, draining := reached(PhaseDrain)
	s.Hooks = hooks
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "hello")
		<-s.Draining()
		<-told
		_, _ = io.WriteString(c, "bye")
	})
	r := serve(t, s)
	b := r.dial()
	b.send("/")
	if _, err := io.ReadFull(b.r, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	release := s.Hold()
	s.process.drain()
	receive(t, draining, "the drain")
	r.stillServing()
	close(told)
	if rest, err := io.ReadAll(b.r); string(rest) != "bye" {
		t.Errorf("got %q, %v", rest, err)
	}
	r.stillServing()
	release()
	release()
	if err := r.result(); err != nil {
		t.Error(err)
	}
}

// stillServing looks for a moment; it can only miss a fault, not see one that is not there.
func (r *running) stillServing() {
	r.t.Helper()
	select {
	case err := <-r.err:
		r.t.Fatalf("Serve returned %v too early", err)
	case <-time.After(20 * time.Millisecond):
	}
}

func TestUpgradeKeepsItsHeader(t *testing.T) {
	for _, c := range []struct {
		upgrade, connection, want string
	}{
		{"", "", "close"}, {"websocket", "keep-alive, Upgrade", ""}, {"websocket", "", "close"}, {"", "upgrade", "close"},
	} {
		s := NewServer("", http.HandlerFunc(ok))
		s.init()
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Upgrade", c.upgrade)
		r.Header.Set("Connection", c.connection)
		for _, announce := range []bool{false, true} {
			s.announce.Store(announce)
			w, want := httptest.NewRecorder(), ""
			if announce {
				want = c.want
			}
			if s.Handler.ServeHTTP(w, r); w.Header().Get("Connection") != want {
				t.Errorf("%+v, draining %v: Connection %q", c, announce, w.Header().Get("Connection"))
			}
		}
	}
}

func TestShutdownIsOfOneServer(t *testing.T) {
	m := newManager(t)
	p := newProcess(notifier{m.path})
	one, two := NewServer("", http.HandlerFunc(ok)), NewServer("", http.HandlerFunc(ok))
	one.process, two.process = p, p
	r1, r2 := serve(t, one), serve(t, two)
	var both sync.WaitGroup
	for range 2 {
		both.Add(1)
		go func() {
			defer both.Done()
			if err := one.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}()
	}
	both.Wait()
	if err := r1.result(); err != nil {
		t.Error(err)
	}
	if r2.dial().get("/") {
		t.Error("the other one drains too")
	}
	r2.drain()
	if p.servers != 0 {
		t.Errorf("%d servers are left", p.servers)
	}
	m.expect("READY=1") // once for both
	m.expect("STOPPING=1")
}

func TestServeRefusesLater(t *testing.T) {
	early := &Server{process: newProcess(notifier{})}
	early.Hooks.Before = func(p Phase) { t.Errorf("phase %q of a server that never served", p) }
	for range 2 {
		if err := early.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	drained := &Server{process: newProcess(notifier{})}
	drained.process.drain()
	for name, s := range map[string]*Server{"after Shutdown": early, "after the drain": drained} {
		l := listenLocal(t, &Server{Server: &http.Server{}})
		_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(deadline))
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener is open: %v", name, err)
		}
	}
}

func TestFailedListener(t *testing.T) {
	s := NewServer("", nil)
	l := listenLocal(t, s)
	r := serveTest(t, s, func(s *Server) error { return s.Serve(l) })
	_ = l.Close() // not by us
	if err := r.result(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown afterwards: %v", err)
	}
}

func TestTwoListeners(t *testing.T) {
	s := NewServer("", http.HandlerFunc(ok))
	s.process, s.Signals, s.Linger = newProcess(notifier{}), []os.Signal{}, -1
	var ready sync.WaitGroup
	ready.Add(2)
	s.Hooks.After = func(p Phase) {
		if p == PhaseReady {
			ready.Done()
		}
	}
	results, addrs := make(chan error, 2), []string{}
	for range 2 {
		l := listenLocal(t, s)
		addrs = append(addrs, l.Addr().String())
		go func() { results <- s.Serve(l) }()
	}
	ready.Wait()
	for _, a := range addrs {
		b := (&running{t: t, addr: a}).dial()
		b.get("/")
	}
	s.process.drain()
	for range 2 {
		if err := receive(t, results, "both"); err != nil {
			t.Error(err)
		}
	}
}

func TestPhasesAndMessages(t *testing.T) {
	m := newManager(t)
	s := NewServer("", nil)
	s.process = newProcess(notifier{m.path})
	var got []string
	s.Hooks = Hooks{
		Before: func(p Phase) { got = append(got, "("+string(p)) },
		After:  func(p Phase) { got = append(got, ")") },
	}
	s.Addr = "127.0.0.1:0"
	r := serveTest(t, s, (*Server).ListenAndServe)
	r.drain()
	want := []string{"(listen", ")", "(ready", ")", "(announce", ")", "(stop accepting", ")", "(linger", ")", "(drain", ")"}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	m.expect("READY=1")
	m.expect("STOPPING=1")
}

func TestManualReady(t *testing.T) {
	m := newManager(t)
	s := NewServer("", http.HandlerFunc(ok))
	s.process, s.ManualReady, s.Signals = newProcess(notifier{m.path}), true, []os.Signal{}
	l := listenLocal(t, s)
	result := make(chan error, 1)
	go func() { result <- s.Serve(l) }()
	(&running{t: t, addr: s.Addr}).dial().get("/")
	s.process.drain()
	m.expect("STOPPING=1") // no READY=1 before
	if err := receive(t, result, "the end"); err != nil {
		t.Error(err)
	}
}

func TestSignals(t *testing.T) {
	p := newProcess(notifier{})
	if err := p.enter([]os.Signal{syscall.SIGUSR1}); err != nil {
		t.Fatal(err)
	}
	raise := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	raise()
	receive(t, p.draining, "the drain")
	raise()
	receive(t, p.hammer, "the hammer")
	p.leave()
	if p.signals != nil {
		t.Error("the signals are still ours")
	}
	if err := p.enter(nil); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("a server after the drain: %v", err)
	}
}

// The program's own hooks are called as before.
func TestWrapsHooks(t *testing.T) {
	type key struct{}
	var mu sync.Mutex
	var states []http.ConnState
	s := NewServer("", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Context().Value(key{}) != "mine" {
			t.Error("ConnContext is lost")
		}
	}))
	s.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, key{}, "mine") }
	idle := make(chan struct{})
	s.ConnState = func(_ net.Conn, st http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if states = append(states, st); st == http.StateIdle {
			close(idle)
		}
	}
	s.Linger = -1
	r := serve(t, s)
	r.dial().get("/")
	receive(t, idle, "the idle connection") // the drain does not wait for the program's hook
	r.drain()
	mu.Lock()
	defer mu.Unlock()
	if len(states) < 3 || !slices.Equal(states[:3], []http.ConnState{http.StateNew, http.StateActive, http.StateIdle}) {
		t.Errorf("states %v", states)
	}
}

// Without an init the program binds its address itself; TERM and INT drain it all the same.
func TestAlone(t *testing.T) {
	g := startGeneration(t, "serve", nil, "TEST_ADDR=127.0.0.1:0", "LISTEN_FDS=", "WATCHDOG_USEC=20000")
	g.await("READY=1")
	g.await("WATCHDOG=1")
	g.stop()
	addr := freeAddress(t)
	g = startGeneration(t, "serve", nil, "TEST_ADDR="+addr, "LISTEN_FDS=")
	g.await("READY=1")
	b := (&running{t: t, addr: addr}).dial() // with nothing to wait for it may be gone before it has said that it stops
	if _, err := io.WriteString(b.conn, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := b.r.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	if err := g.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	g.await("STOPPING=1")
	_ = b.conn.Close()
	g.wait()
}

// A server leaves no goroutine and no descriptor behind.
func TestLeavesNothing(t *testing.T) {
	once := func() {
		s := NewServer("", http.HandlerFunc(ok))
		s.Linger = -1
		r := serve(t, s)
		b := r.dial()
		b.get("/")
		r.drain()
		b.closed()
		_ = b.conn.Close()
	}
	once() // what is made only once
	goroutines, fds := runtime.NumGoroutine(), openFDs(t)
	for range 10 {
		once()
	}
	for end := time.Now().Add(deadline); runtime.NumGoroutine() > goroutines || openFDs(t) > fds; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("goroutines %d, then %d; descriptors %d, then %d", goroutines, runtime.NumGoroutine(), fds, openFDs(t))
		}
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}
