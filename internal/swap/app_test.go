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

// TestRealSwapsLeaveNothing swaps real processes on real sockets 200 times: goroutines and descriptors stay as many.
func TestRealSwapsLeaveNothing(t *testing.T) {
	addrs, err := handoff.ParseAddresses("tcp://127.0.0.1:0,unix://" + t.TempDir() + "/s")
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := handoff.Open(addrs, handoff.Config{Steer: true})
	if err != nil {
		t.Fatal(err)
	}
	defer sockets.Close()
	r := reaper.New()
	ctx, stop := context.WithCancel(context.Background())
	reaped := make(chan error, 1)
	go func() { reaped <- r.Run(ctx) }()
	checks, err := probe.Parse("delay:1ms")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{
		Command: []string{"/bin/sleep", "1000"}, DrainTimeout: time.Minute, StopSignal: syscall.SIGTERM, MaxDraining: 50,
		ShutdownTimeout: time.Minute, StartTimeout: time.Minute, Group: true,
		Launcher: &App{
			Reaper: r, Sockets: sockets, Protocols: handoff.AllProtocols, Checks: checks, Umask: -1, TTY: -1,
			Stdout: os.Stdout, Stderr: os.Stderr,
			Environ: func() ([]string, []string, error) { return []string{"PATH=/bin"}, nil, nil },
		},
	})
	ended := make(chan Ending, 1)
	go func() { ended <- s.Run(context.Background()) }()
	swapOnce := func() {
		if res := s.Swap(t.Context(), Request{Kind: Reload, Cause: "test"}, nil); res.Code != CodeDone {
			t.Fatalf("%+v", res)
		}
	}
	settled(t, s, func() bool { return true })
	for range 10 {
		swapOnce()
	}
	settled(t, s, func() bool { return true })
	g0, d0 := footprint(t)
	for range 200 {
		swapOnce()
	}
	const spare = 2 // an address may have spare slots
	settled(t, s, func() bool { g, d := footprint(t); return g <= g0 && d <= d0+spare })
	g1, d1 := footprint(t)
	t.Logf("200 swaps: %d -> %d goroutines, %d -> %d descriptors", g0, g1, d0, d1)
	s.Stop(context.Background(), false)
	<-ended
	stop()
	<-reaped
}

// bindingRole makes the test binary a program that binds by itself and accepts at the address in its second argument.
const bindingRole = "swap-test:binds"

func TestMain(m *testing.M) {
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

// TestWatchedSwapsLeaveNothing is TestRealSwapsLeaveNothing for a program that binds by itself: each generation has a filter and a
// thread that forked it, and both go with it.
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
	defer sockets.Close()
	r := reaper.New()
	ctx, stop := context.WithCancel(context.Background())
	reaped := make(chan error, 1)
	go func() { reaped <- r.Run(ctx) }()
	checks, err := probe.Parse("auto")
	if err != nil {
		t.Fatal(err)
	}
	a := &App{
		Reaper: r, Sockets: sockets, Checks: checks, Umask: -1, TTY: -1, Stdout: os.Stdout, Stderr: os.Stderr,
		Interception: MustIntercept, Logf: t.Logf, Helper: "/proc/self/exe",
		Environ: func() ([]string, []string, error) { return []string{"PATH=/bin"}, nil, nil },
	}
	s := New(Options{
		Command: []string{os.Args[0], bindingRole, address}, DrainQuiet: time.Minute, DrainTimeout: time.Minute, StopSignal: syscall.SIGKILL, MaxDraining: 50,
		ShutdownTimeout: time.Minute, StartTimeout: time.Minute, Group: true, Launcher: a,
	})
	ended := make(chan Ending, 1)
	go func() { ended <- s.Run(context.Background()) }()
	settled(t, s, func() bool { return true })
	swapOnce := func() {
		if res := s.Swap(t.Context(), Request{Kind: Reload, Cause: "test"}, nil); res.Code != CodeDone {
			t.Fatalf("%+v", res)
		}
	}
	for range 5 {
		swapOnce()
	}
	settled(t, s, func() bool { return true })
	g0, d0 := footprint(t)
	for range 50 {
		swapOnce()
	}
	const spare = 2 // an address may have spare slots
	settled(t, s, func() bool { g, d := footprint(t); return g <= g0 && d <= d0+spare })
	g1, d1 := footprint(t)
	t.Logf("50 swaps: %d -> %d goroutines, %d -> %d descriptors", g0, g1, d0, d1)
	s.Stop(context.Background(), false)
	<-ended
	a.Close()
	stop()
	<-reaped
}
