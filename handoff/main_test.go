package handoff

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/puppet"
)

// helpers are the roles in which TestMain re-runs the test binary, by argv[0].
var helpers = map[string]func() int{"puppet": puppet.Main}

func TestMain(m *testing.M) {
	if role, ok := strings.CutPrefix(os.Args[0], "helper:"); ok {
		f := helpers[role]
		if f == nil {
			fmt.Fprintln(os.Stderr, "no helper", role)
			os.Exit(99)
		}
		os.Exit(f())
	}
	os.Exit(m.Run())
}

// helper starts a role with descriptors 3.. and exactly that environment. LISTEN_PID is written by the helper itself, which
// stands in for the step between fork and exec.
func helper(t *testing.T, role string, fds []int, env []string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: exe, Args: []string{"helper:" + role}, Env: env, Stderr: os.Stderr}
	for _, fd := range fds {
		c, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(c), "")
		t.Cleanup(func() { f.Close() })
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return cmd
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// until waits for a condition that other goroutines or the kernel bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func addresses(t *testing.T, list string) []Address {
	t.Helper()
	a, err := ParseAddresses(list)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func open(t *testing.T, list string, c Config) *Set {
	t.Helper()
	if c.Logf == nil {
		c.Logf = t.Logf
	}
	s, err := Open(addresses(t, list), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func lease(t *testing.T, s *Set, gen int) *Lease {
	t.Helper()
	l, err := s.Lease(gen)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func steer(t *testing.T, s *Set, gen int) {
	t.Helper()
	if err := s.Steer(gen); err != nil {
		t.Fatal(err)
	}
}

// app stands for a generation's processes: it accepts on its own copies of a lease's descriptors, answers every line
// with its generation, and closes.
type app struct {
	gen   int
	lns   []net.Listener
	conns sync.WaitGroup
	loops sync.WaitGroup
	mu    sync.Mutex
	got   int
}

func serve(t *testing.T, l *Lease) *app {
	t.Helper()
	a := &app{gen: l.gen}
	a.begin(t, l)
	return a
}

func (a *app) accept(ln net.Listener) {
	defer a.loops.Done()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		a.mu.Lock()
		a.got++
		a.mu.Unlock()
		a.conns.Add(1)
		go a.answer(c)
	}
}

func (a *app) answer(c net.Conn) {
	defer a.conns.Done()
	defer c.Close()
	if _, err := c.Read(make([]byte, 16)); err == nil {
		fmt.Fprintf(c, "%d", a.gen)
	}
}

func (a *app) accepted() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.got
}

// stop closes the listeners at once and lets accepted connections finish.
func (a *app) stop() {
	for _, ln := range a.lns {
		ln.Close()
	}
	a.loops.Wait()
	a.conns.Wait()
}

// ask is one client: connect, one question, the number of the generation that answered.
func ask(c net.Conn, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("?")); err != nil {
		return 0, err
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return 0, fmt.Errorf("answer %q", b)
	}
	return n, nil
}

func wantGen(t *testing.T, network, address string, want int) {
	t.Helper()
	if got, err := ask(net.Dial(network, address)); err != nil || got != want {
		t.Fatalf("%s answered: generation %d, %v; want %d", address, got, err, want)
	}
}

// port is the actual port of the first address.
func port(s *Set) int { return s.held[0].at.port }

func local(s *Set) string { return "127.0.0.1:" + strconv.Itoa(port(s)) }

func openFDs(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
