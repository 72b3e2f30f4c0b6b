package artifact

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/hotswap-init/entrypoint/reaper"
)

// roles are what the test binary is, beside a test, when its argv[0] is "role:NAME".
var roles = map[string]func(args []string){"init": asInit, "storm": asStorm, "mirror": asMirror}

func orPanic(err error) {
	if err != nil {
		panic(err)
	}
}

// play runs this binary in a role of its own, because a reaper waits for all children, and returns what it prints.
func play(t *testing.T, role string, args ...string) string {
	t.Helper()
	cmd := exec.Command(self(t), args...)
	cmd.Args[0] = "role:" + role
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// reaping has a Reaper at work until stop.
func reaping() (r *reaper.Reaper, stop func()) {
	r = reaper.New()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		_ = r.Run(ctx)
		close(done)
	}()
	return r, func() { cancel(); <-done }
}

// spec is how the init starts what an Artifact holds.
func spec(a *Artifact, args ...string) reaper.Spec {
	path, fd := a.Exec()
	return reaper.Spec{Path: path, FD: fd, Args: args, Env: os.Environ(), Umask: -1}
}

// asInit starts a program as an init would: arguments are the kind of Exec, the state directory, the program.
func asInit(args []string) {
	s, err := NewStore(StoreOptions{Exec: Exec(args[0]), StateDir: args[1], Try: reaper.New().TryExec})
	orPanic(err)
	a, err := s.Open(context.Background(), args[2], "", "")
	orPanic(err)
	if len(args) > 3 {
		orPanic(os.Remove(args[2]))
	}
	r, stop := reaping()
	p, err := r.Start(spec(a, "role:mirror"))
	orPanic(err)
	<-p.Done()
	stop()
	orPanic(a.Close())
	orPanic(s.Close())
}

// reflection is what a program reads of itself.
type reflection struct{ Argv0, Exe, Executable, Comm, ExecFn string }

func asMirror([]string) {
	exe, err := os.Readlink("/proc/self/exe")
	orPanic(err)
	executable, _ := os.Executable()
	comm, err := os.ReadFile("/proc/self/comm")
	orPanic(err)
	orPanic(json.NewEncoder(os.Stdout).Encode(reflection{os.Args[0], exe, executable, strings.TrimSpace(string(comm)), execFn()}))
}

// execFn is what the kernel says was executed (AT_EXECFN of the auxiliary vector).
func execFn() string {
	const atExecFn = 31
	auxv, err := os.ReadFile("/proc/self/auxv")
	orPanic(err)
	memory, err := os.Open("/proc/self/mem")
	orPanic(err)
	defer memory.Close()
	words := unsafe.Slice((*uintptr)(unsafe.Pointer(&auxv[0])), len(auxv)/int(unsafe.Sizeof(uintptr(0))))
	for i := 0; i+1 < len(words); i += 2 {
		if words[i] == atExecFn {
			text, _ := io.ReadAll(io.NewSectionReader(memory, int64(words[i+1]), 4096))
			name, _, _ := strings.Cut(string(text), "\x00")
			return name
		}
	}
	return ""
}

// TestReflection is the table of docs/artifact.md.
func TestReflection(t *testing.T) {
	state := tempDir(t)
	for name, c := range map[string]struct {
		exec  Exec
		state string
		gone  bool
		want  func(path string, r reflection) bool
	}{
		"path": {ExecPath, "", false, func(path string, r reflection) bool {
			return r.Exe == path && r.Executable == path && r.Comm == "server" && r.ExecFn == path
		}},
		"path, file removed": {ExecPath, "", true, func(path string, r reflection) bool {
			return r.Exe == path+" (deleted)" && r.Executable == path && strings.HasPrefix(r.ExecFn, "/dev/fd/")
		}},
		"memfd": {ExecCopy, "", true, func(path string, r reflection) bool {
			return r.Exe == "/memfd:server (deleted)" && r.Executable == "/memfd:server" && strings.HasPrefix(r.ExecFn, "/dev/fd/")
		}},
		"file": {ExecCopy, state, true, func(path string, r reflection) bool {
			return filepath.Dir(filepath.Dir(filepath.Dir(r.Exe))) == state && filepath.Base(r.Exe) == "server" &&
				r.Executable == r.Exe && r.ExecFn == r.Exe && r.Comm == "server"
		}},
	} {
		path := write(t, filepath.Join(tempDir(t), "server"), string(contents(t, self(t))), 0o755)
		args := []string{string(c.exec), c.state, path}
		if c.gone {
			args = append(args, "gone")
		}
		out := play(t, "init", args...)
		var r reflection
		if err := json.Unmarshal([]byte(out), &r); err != nil || r.Argv0 != "role:mirror" || !c.want(path, r) {
			t.Errorf("%s: %v %s", name, err, out)
		}
		t.Logf("%s: %+v", name, r)
	}
	if left, _ := os.ReadDir(state); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// asStorm makes copies and starts each at once, while other threads fork all the time.
func asStorm(args []string) {
	r, stop := reaping()
	var wg sync.WaitGroup
	ctx, calm := context.WithCancel(context.Background())
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				p, err := r.Start(reaper.Spec{Path: "/bin/true", Args: []string{"true"}, Umask: -1, Files: []int{}})
				orPanic(err)
				<-p.Done()
			}
		})
	}
	for _, dir := range []string{"", args[0]} {
		s, err := NewStore(StoreOptions{StateDir: dir, Exec: ExecCopy, Try: r.TryExec})
		orPanic(err)
		for range 100 {
			a, err := s.Open(ctx, args[1], "", "")
			orPanic(err)
			p, err := r.Start(spec(a, "server", "two"))
			orPanic(err)
			<-p.Done()
			if code := p.Status().Code(); code != 2 {
				panic(fmt.Sprint("status ", code))
			}
			orPanic(a.Close())
		}
		orPanic(s.Close())
	}
	calm()
	wg.Wait()
	stop()
}

// TestStorm starts 200 fresh copies under a storm of forks, each of which may hold a descriptor that the copy is written
// through (ETXTBSY).
func TestStorm(t *testing.T) {
	if out := play(t, "storm", tempDir(t), server(t, tempDir(t))); out != "" {
		t.Error(out)
	}
}

// TestEveryBeginning cuts a small static program at every length.
func TestEveryBeginning(t *testing.T) {
	dir := tempDir(t)
	source := write(t, filepath.Join(dir, "x.c"), "void _start(void) { for (;;); }\n", 0o644)
	path := filepath.Join(dir, "server")
	if out, err := exec.Command("gcc", "-static", "-nostdlib", "-s", "-o", path, source).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	s, _ := store(t, StoreOptions{})
	must(t, opened(t, s, path).Close())
	body := contents(t, path)
	for n := len(body) - 1; n >= 0; n-- {
		must(t, os.Truncate(path, int64(n)))
		refusedBy(t, s, path, "cannot run")
		if n%16 == 0 {
			if a, err := s.Adopt(t.Context(), upload(t, body[:n], allSeals), "x", dir, Want{}); err == nil {
				a.Close()
				t.Fatalf("%d bytes of %d are accepted", n, len(body))
			}
		}
	}
}
