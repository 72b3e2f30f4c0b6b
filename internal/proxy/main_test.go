package proxy_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/proxy"
	"github.com/hotswap-init/entrypoint/internal/proxy/carry"
	"github.com/hotswap-init/entrypoint/reaper"
)

var children = reaper.New()

// TestMain is a run of the helper too: the test binary stands for the init's.
func TestMain(m *testing.M) {
	if role, ok := strings.CutPrefix(os.Args[0], "entrypoint:"); ok {
		if role != proxy.Role {
			panic(role)
		}
		os.Exit(carry.Main())
	}
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- children.Run(ctx) }()
	code := m.Run()
	cancel()
	<-done
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// stage is a Front with its helper, and the generations behind it.
type stage struct {
	t     *testing.T
	front *proxy.Front
	addr  string
	next  int
}

// nextPort gives each stage a range of its own, below the ports that the kernel takes for clients.
var nextPort atomic.Int64

func present(t *testing.T, o proxy.Options) *stage {
	t.Helper()
	return presentAt(t, "web=tcp://127.0.0.1:0", o)
}

func presentAt(t *testing.T, listen string, o proxy.Options) *stage {
	t.Helper()
	addresses, err := handoff.ParseAddresses(listen)
	if err != nil {
		t.Fatal(err)
	}
	set, err := handoff.Open(addresses, handoff.Config{})
	if err != nil {
		t.Fatal(err)
	}
	from := 3000 + int(nextPort.Add(1)*120+int64(os.Getpid())*7%700)
	o.Range, o.Sockets, o.Reaper, o.Path, o.Stderr = proxy.Range{From: from, To: from + 119}, set, children, "/proc/self/exe", 2
	if o.Protocol == "" {
		o.Protocol = proxy.NoProtocol
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = patience
	}
	if o.Grace == 0 {
		o.Grace = patience
	}
	f, err := proxy.NewFront(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		f.Stop()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	_, at, _ := strings.Cut(set.Status()[0].Address, "://")
	return &stage{t: t, front: f, addr: at}
}

// generation is one that a test plays.
type generation struct {
	number int
	lease  *proxy.Lease
	stop   func()
}

// start starts a generation: serve is given its listener, and returns what ends it without grace.
func (s *stage) start(serve func(n int, l net.Listener) (stop func())) *generation {
	s.t.Helper()
	s.next++
	lease, err := s.front.Lease(handoff.Seat{Generation: s.next})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("tcp4", lease.Address().String())
	if err != nil {
		s.t.Fatal(err)
	}
	return &generation{number: s.next, lease: lease, stop: serve(s.next, l)}
}

func (s *stage) steer(g *generation) {
	s.t.Helper()
	if err := s.front.Steer(g.number); err != nil {
		s.t.Fatal(err)
	}
}

// end waits until nothing is left of a generation, and ends it as a program does that knows no grace.
func (s *stage) end(g *generation) {
	s.t.Helper()
	s.eventually("generation is idle", func() error {
		l, err := g.lease.Load()
		if err != nil || !l.Known || l.Busy > 0 {
			return fmt.Errorf("%+v %v", l, err)
		}
		return nil
	})
	g.stop()
	g.lease.Release()
}

// empty waits until a generation has no connection.
func (s *stage) empty(g *generation) {
	s.t.Helper()
	s.eventually("generation is empty", func() error {
		l, err := g.lease.Load()
		if err != nil || !l.Known || l.Open > 0 {
			return fmt.Errorf("%+v %v", l, err)
		}
		return nil
	})
}

func (s *stage) eventually(what string, ok func() error) {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
	}
}

// naive is net/http without any care for its clients: it is closed as if killed.
func naive(h http.Handler) func(n int, l net.Listener) func() {
	return func(n int, l net.Listener) func() {
		srv := &http.Server{Handler: numbered(n, h), Protocols: everything(), DisableGeneralOptionsHandler: true}
		done := make(chan struct{})
		go func() { defer close(done); srv.Serve(l) }()
		return func() { srv.Close(); <-done }
	}
}

// numbered says in each answer which generation it is of.
func numbered(n int, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Generation", fmt.Sprint(n))
		h.ServeHTTP(w, r)
	})
}

func everything() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}
