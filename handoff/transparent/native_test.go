//go:build amd64 || arm64

package transparent

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/puppet"
)

// compiled makes a program of testdata: static, and at low addresses. Without a compiler the test is skipped, unless
// everything is required.
func compiled(t *testing.T, name string) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		if os.Getenv("REQUIRE_ENGINES") != "" {
			t.Fatalf("gcc is required: %v", err)
		}
		t.Skipf("SKIPPED: no gcc: %v", err)
	}
	file := filepath.Join(t.TempDir(), strings.TrimSuffix(name, ".c"))
	if out, err := exec.Command(gcc, "-O1", "-static", "-no-pie", "-o", file, filepath.Join("testdata", name)).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// native runs a program to its end under a filter.
func native(t *testing.T, h Handler, file string, args ...string) (string, *Filter) {
	t.Helper()
	cmd := exec.Command(file, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	var f *Filter
	if err := puppet.OnThread(func() (err error) {
		if f, err = Install(); err == nil {
			err = cmd.Start()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(h, t.Logf) }()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v", filepath.Base(file), err)
	}
	if err := within(t, "the end of Serve", served); err != nil {
		t.Error(err)
	}
	return out.String(), f
}

// TestForeignABI: calls of the 32-bit ABI are not seen, and work as if nobody watched.
func TestForeignABI(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the 32-bit ABI of x86")
	}
	port := freePort(t)
	r := &recorder{answer: func(*Call) Answer { return Answer{Errno: unix.EACCES} }}
	if out, _ := native(t, r, compiled(t, "foreign.c"), port); out != "bind 0\nlisten 0\n" {
		t.Errorf("it says %q", out)
	}
	if calls := r.take(); len(calls) > 0 {
		t.Errorf("seen %+v", calls)
	}
}

// TestHostileSignals: under a timer that interrupts every call it can, each call has its one effect. Without SA_RESTART a
// program may see EINTR when the signal comes before we have looked; what it does again then must succeed.
func TestHostileSignals(t *testing.T) {
	const count, usec = 1000, "500"
	bound, ready := pair(t)
	file := compiled(t, "signals.c")
	for _, restart := range []bool{true, false} {
		args := []string{fmt.Sprint(count), usec}
		if restart {
			args = append(args, "restart")
		}
		out, f := native(t, HandlerFunc(func(c *Call) Answer {
			if c.Op == Listen {
				return Answer{Replace: true, FD: ready}
			}
			return Answer{Replace: true, FD: bound}
		}), file, args...)
		var interrupted, failed, wrong int
		if _, err := fmt.Sscan(out, &interrupted, &failed, &wrong); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		t.Logf("SA_RESTART %v, WAIT_KILLABLE_RECV %v: %d of %d calls interrupted", restart, f.Killable, interrupted, 2*count)
		if failed > 0 || wrong > 0 || restart && interrupted > 0 {
			t.Errorf("SA_RESTART %v: %d interrupted, %d failed, %d without our socket", restart, interrupted, failed, wrong)
		}
	}
}

// pair is a bound socket of ours and a listening one.
func pair(t *testing.T) (bound, ready int) {
	t.Helper()
	bound, _ = ephemeral(t)
	ready, _ = ephemeral(t)
	if err := unix.Listen(ready, 1); err != nil {
		t.Fatal(err)
	}
	return bound, ready
}

// freePort is one that nobody has at this moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
