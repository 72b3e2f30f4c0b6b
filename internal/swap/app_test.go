package swap

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/reaper"
)

// footprint is what this process holds.
func footprint(t *testing.T) (goroutines, descriptors int) {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return runtime.NumGoroutine(), len(names)
}

// settled waits until one generation is left and what the others had is given back.
func settled(t *testing.T, s *Supervisor, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		st, err := s.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, g := range st.Generations {
			if g.State != Exited {
				left++
			}
		}
		if left == 1 && st.State == "serving" && ok() {
			return
		}
	}
	g, d := footprint(t)
	t.Fatalf("not at rest: %d goroutines, %d descriptors", g, d)
}

// rigged is a supervisor of real processes on real sockets.
type rigged struct {
	*Supervisor
	t   *testing.T
	app *App
}

// runReal runs one until the test ends. The launcher gets what every one needs.
func runReal(t *testing.T, sockets *handoff.Set, ready string, a *App, o Options) *rigged {
	t.Helper()
	checks, err := probe.Parse(ready)
	if err != nil {
		t.Fatal(err)
	}
	r := reaper.New()
	ctx, stop := context.WithCancel(context.Background())
	reaped := make(chan error, 1)
	go func() { reaped <- r.Run(ctx) }()
	a.Reaper, a.Sockets, a.Checks, a.Umask, a.TTY, a.Stdout, a.Stderr = r, sockets, checks, -1, -1, os.Stdout, os.Stderr
	a.Environ = func() ([]string, []string, error) { return []string{"PATH=/bin"}, nil, nil }
	o.Launcher, o.DrainTimeout, o.MaxDraining, o.ShutdownTimeout, o.StartTimeout, o.Group = a, time.Minute, 50, time.Minute, time.Minute, true
	s := New(o)
	ended := make(chan Ending, 1)
	go func() { ended <- s.Run(context.Background()) }()
	t.Cleanup(func() {
		s.Stop(context.Background(), false)
		<-ended
		a.Close()
		stop()
		<-reaped
		sockets.Close()
	})
	return &rigged{s, t, a}
}

// leavesNothing swaps n times, after some to warm up: goroutines and descriptors stay as many.
func (r *rigged) leavesNothing(n int) {
	r.t.Helper()
	swaps := func(n int) {
		for range n {
			if res := r.Swap(r.t.Context(), Request{Kind: Reload, Cause: "test"}, nil); res.Code != CodeDone {
				r.t.Fatalf("%+v", res)
			}
		}
	}
	still := func() bool { return true }
	settled(r.t, r.Supervisor, still)
	swaps(10)
	settled(r.t, r.Supervisor, still)
	g0, d0 := footprint(r.t)
	swaps(n)
	for range 3 { // who drained at the same time had slots of an address each: a few calm swaps give the spare ones back
		settled(r.t, r.Supervisor, still)
		swaps(1)
	}
	const spare = 4 // an address may have spare slots
	settled(r.t, r.Supervisor, func() bool { g, d := footprint(r.t); return g <= g0 && d <= d0+spare })
	g1, d1 := footprint(r.t)
	r.t.Logf("%d swaps: %d -> %d goroutines, %d -> %d descriptors", n, g0, g1, d0, d1)
}

func TestRealSwapsLeaveNothing(t *testing.T) {
	addrs, err := handoff.ParseAddresses("tcp://127.0.0.1:0,unix://" + t.TempDir() + "/s")
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := handoff.Open(addrs, handoff.Config{Steer: true})
	if err != nil {
		t.Fatal(err)
	}
	runReal(t, sockets, "delay:1ms", &App{Protocols: handoff.AllProtocols}, Options{
		Command: []string{"/bin/sleep", "1000"}, StopSignal: syscall.SIGTERM,
	}).leavesNothing(200)
}

// bindingRole makes the test binary a program that binds by itself and accepts at the address in its second argument.
const bindingRole = "swap-test:binds"

func TestMain(m *testing.M) {
	if code, ok := checkRole(); ok {
		syscall.Exit(code) // os.Exit would wait for a second for the race detector
	}
	if len(os.Args) != 3 || os.Args[1] != bindingRole {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			os.Exit(1)
		}
		c.Close()
	}
}

// Each watched generation has a filter and a thread that forked it; both go with it.
func TestWatchedSwapsLeaveNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	sockets, err := handoff.Open(nil, handoff.Config{Steer: true, Learn: true, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	runReal(t, sockets, "auto", &App{Interception: MustIntercept, Logf: t.Logf}, Options{
		Command: []string{os.Args[0], bindingRole, address}, DrainQuiet: time.Minute, StopSignal: syscall.SIGKILL,
	}).leavesNothing(50)
}

func TestAdoptNeedsAStore(t *testing.T) {
	if p, _, err := new(App).Adopt(t.Context(), []string{"/app/server"}, &Upload{}); err == nil || p != nil {
		t.Errorf("%v, %v", p, err)
	}
}
