//go:build amd64 || arm64

package transparent

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/puppet"
)

func init() {
	helpers["probe"] = probeMain
}

// TestRehearsal runs the whole path once, as the init does before it starts an app.
func TestRehearsal(t *testing.T) {
	r, err := NewRehearsal()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Verdict(0); err == nil || !strings.Contains(err.Error(), "step 0 of 2") {
		t.Errorf("before anything has happened: %v", err)
	}
	code := rehearsed(t, r)
	if err := r.Verdict(code); err != nil {
		t.Error(err)
	}
	if err := r.Verdict(1); err == nil {
		t.Error("a program that failed is no reason for doubt")
	}
}

// rehearsed runs RehearsalMain under a handler and returns its exit code.
func rehearsed(t *testing.T, h Handler) int {
	t.Helper()
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"helper:rehearsal"}, Stderr: os.Stderr, Env: []string{"GORACE=atexit_sleep_ms=0"}}
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
	_ = cmd.Wait() // the code says it
	if err := within(t, "the end of Serve", served); err != nil {
		t.Error(err)
	}
	return cmd.ProcessState.ExitCode()
}

// TestRehearsalFails: each way in which our sockets do not come underneath is noticed: at the bind by the program itself, at
// the listen only here, for the kernel lets the bound socket of ours listen.
func TestRehearsalFails(t *testing.T) {
	blind := errors.New("no look")
	for _, c := range []struct {
		name string
		op   Op // which call goes wrong
		call Call
		want string
	}{
		{"the bind cannot be looked into", Bind, Call{Blind: blind}, "no look"},
		{"the listen cannot be looked into", Listen, Call{Op: Listen, Blind: blind}, "no look"},
		{"the bind is another one", Bind, Call{Protocol: "UDP"}, "step 0 of 2"},
		{"the listen is none", Listen, Call{Op: Set}, "step 1 of 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := NewRehearsal()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			code := rehearsed(t, HandlerFunc(func(seen *Call) Answer {
				if seen.Op == c.op {
					return r.Handle(&c.call)
				}
				return r.Handle(seen)
			}))
			err = r.Verdict(code)
			if (code == 0) != (c.op == Listen) || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("code %d, verdict %v", code, err)
			}
			if c.call.Blind != nil && !errors.Is(err, blind) {
				t.Errorf("the cause is lost: %v", err)
			}
		})
	}
}

func TestRehearsalUnseen(t *testing.T) {
	r, err := NewRehearsal()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	code := rehearsed(t, HandlerFunc(func(*Call) Answer { return Answer{} }))
	if err := r.Verdict(code); code != 1 || err == nil || !strings.Contains(err.Error(), "step 0 of 2, exit code 1") {
		t.Errorf("a bind that nobody answered: code %d, verdict %v", code, err)
	}
}

// TestProbe leaves no filter on any thread of ours.
func TestProbe(t *testing.T) {
	needRoot(t)
	if noNewPrivs, err := Probe(); err != nil || noNewPrivs {
		t.Errorf("as root: no_new_privs %v, %v", noNewPrivs, err)
	}
	if n := listeners(t); n != 0 {
		t.Errorf("%d notification descriptors are left", n)
	}
	until(t, "no thread is filtered", func() bool { return filteredThreads(t) == 0 })
}

// listeners counts our own descriptors of filters.
func listeners(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range files {
		if link, err := os.Readlink(name); err == nil && strings.Contains(link, "seccomp notify") {
			n++
		}
	}
	return n
}

func filteredThreads(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(files) == 0 {
		t.Fatal("no threads", err)
	}
	n := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err == nil && field(text, "Seccomp_filters:") != "0" {
			n++
		}
	}
	return n
}

// probeMain prints what Probe says.
func probeMain() int {
	noNewPrivs, err := Probe()
	switch {
	case err != nil:
		os.Stdout.WriteString(err.Error())
	case noNewPrivs:
		os.Stdout.WriteString("no_new_privs")
	}
	return 0
}

// probed runs Probe in a process that is prepared by the thread that forks it.
func probed(t *testing.T, prepare func() error) string {
	t.Helper()
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"helper:probe"}, Stderr: os.Stderr, Env: []string{"GORACE=atexit_sleep_ms=0"}}
	var out strings.Builder
	cmd.Stdout = &out
	if err := puppet.OnThread(func() error {
		if err := prepare(); err != nil {
			return err
		}
		return cmd.Start()
	}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return out.String()
}

func TestProbeWithoutPrivilege(t *testing.T) {
	needRoot(t)
	said := probed(t, func() error { return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0) })
	if said != "no_new_privs" {
		t.Errorf("without CAP_SYS_ADMIN Probe says %q", said)
	}
}

// TestProbeInsideAnother: there can be one notification descriptor only, and the error says so.
func TestProbeInsideAnother(t *testing.T) {
	var f *Filter
	r := &recorder{}
	served := make(chan error, 1)
	said := probed(t, func() (err error) {
		if f, err = Install(); err == nil {
			go func() { served <- f.Serve(r, r.logf) }()
		}
		return err
	})
	if !strings.Contains(said, unix.EBUSY.Error()) || !strings.Contains(said, "the container runtime uses one itself") {
		t.Errorf("Probe says %q", said)
	}
	if err := within(t, "the end of Serve", served); err != nil {
		t.Error(err)
	}
	if calls := r.take(); len(calls) == 0 || calls[0].Op != Nested {
		t.Errorf("seen %+v", calls)
	}
}

// TestExplain: every refusal that is known says what to do about it.
func TestExplain(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.EBUSY: "container runtime", unix.EPERM: "seccomp profile", unix.ENOSYS: "seccomp profile", unix.EINVAL: "before 5.0", unix.ENOMEM: "unexpected",
	} {
		if err := explain(errno); !errors.Is(err, errno) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
