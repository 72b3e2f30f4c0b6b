//go:build amd64 || arm64

package transparent

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/puppet"
)

// helpers are the roles in which TestMain re-runs the test binary, by argv[0].
var helpers = map[string]func() int{"puppet": puppet.Main, "rehearsal": RehearsalMain}

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

// patience is how long a test waits for anything that should happen at once.
const patience = 30 * time.Second

// within wants the channel closed or filled in time.
func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
	}
	return v
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root")
	}
}

// recorder keeps what it is asked, and answers by a function, or with the zero Answer.
type recorder struct {
	mu     sync.Mutex
	calls  []Call
	logs   []string
	answer func(c *Call) Answer
}

// Unlinks is true.
func (r *recorder) Unlinks() bool { return true }

func (r *recorder) Handle(c *Call) Answer {
	r.mu.Lock()
	r.calls = append(r.calls, *c)
	answer := r.answer
	r.mu.Unlock()
	if answer == nil {
		return Answer{}
	}
	return answer(c)
}

func (r *recorder) logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs = append(r.logs, fmt.Sprintf(format, args...))
}

// take returns what it was asked since the last time. The caller has its reply by then, so nothing is missing.
func (r *recorder) take() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

// one is take where one call is wanted.
func (r *recorder) one(t *testing.T) Call {
	t.Helper()
	calls := r.take()
	if len(calls) != 1 {
		t.Fatalf("the handler saw %d calls, want one: %+v", len(calls), calls)
	}
	return calls[0]
}

func (r *recorder) said() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.logs)
}

// subject is a puppet whose calls a recorder answers.
type subject struct {
	*puppet.Puppet
	*recorder
	filter *Filter
	served chan error // gets what Serve returned
}

func watch(t *testing.T, answer func(c *Call) Answer, change ...func(*exec.Cmd)) *subject {
	t.Helper()
	w := &subject{recorder: &recorder{answer: answer}, served: make(chan error, 1)}
	install := func() (err error) { w.filter, err = Install(); return err }
	w.Puppet = puppet.Start(t, install, change...)
	go func() { w.served <- w.filter.Serve(w.recorder, w.logf) }()
	return w
}

// end lets the puppet end; Serve must notice, and must have had nothing to complain of.
func (w *subject) end(t *testing.T) {
	t.Helper()
	w.End()
	if err := within(t, "the end of Serve", w.served); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if logs := w.said(); len(logs) > 0 {
		t.Errorf("it complained: %q", logs)
	}
}

// ephemeral is a bound socket of ours and its name.
func ephemeral(t *testing.T) (fd int, name string) {
	t.Helper()
	fd, err := loopbackSocket()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
}
