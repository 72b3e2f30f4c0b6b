package swap

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/reaper"
)

// hookApp is an App that can run hooks and nothing else.
func hookApp(t *testing.T) *App {
	t.Helper()
	if err := reaper.BecomeSubreaper(); err != nil { // as the init is: what a hook leaves behind is collected
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	r := reaper.New()
	ctx, stop := context.WithCancel(context.Background())
	reaped := make(chan error, 1)
	go func() { reaped <- r.Run(ctx) }()
	t.Cleanup(func() { stop(); <-reaped })
	return &App{Reaper: r, Umask: -1, TTY: -1, Environ: func() ([]string, []string, error) {
		return []string{"PATH=/usr/bin:/bin", "APP=yes"}, []string{"MORE={port}"}, nil
	}}
}

// hook runs a shell script and returns its lines.
func (a *App) hook(t *testing.T, ctx context.Context, script string, extra ...string) ([]string, error) {
	t.Helper()
	var lines []string
	err := a.Hook(ctx, []string{"sh", "-c", script}, extra, func(text string) { lines = append(lines, text) })
	return lines, err
}

func TestHookSeesTheAppsWorldAndNoMore(t *testing.T) {
	a := hookApp(t)
	a.Dir = t.TempDir()
	open, err := os.Open(os.DevNull) // close-on-exec, as all of ours are
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	script := `echo "$APP $MORE $X"; pwd; echo problem >&2; readlink /proc/self/fd/0; ls /proc/$$/fd; printf %s unfinished` // no pipe: the shell would have it open for a moment
	lines, err := a.hook(t, t.Context(), script, "X=a b")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"yes {port} a b", a.Dir, "problem", "/dev/null", "0", "1", "2", "unfinished"}
	if !slices.Equal(lines, want) {
		t.Errorf("said %q, want %q", lines, want)
	}
}

func TestHookRunsAsTheAppsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can become somebody else")
	}
	a := hookApp(t)
	a.Credential = &reaper.Credential{UID: 65534, GID: 65534}
	if lines, err := a.hook(t, t.Context(), "id -u; id -g; id -G"); err != nil || strings.Join(lines, " ") != "65534 65534 65534" {
		t.Errorf("said %q, %v", lines, err)
	}
}

func TestHookFails(t *testing.T) {
	a := hookApp(t)
	if _, err := a.hook(t, t.Context(), "exit 3"); err == nil || !strings.Contains(err.Error(), "3") {
		t.Errorf("a status of 3: %v", err)
	}
	if _, err := a.hook(t, t.Context(), "kill -9 $$"); err == nil || !strings.Contains(err.Error(), "KILL") {
		t.Errorf("killed: %v", err)
	}
	if err := a.Hook(t.Context(), []string{"/nowhere/hook"}, nil, nil); err == nil || !strings.Contains(err.Error(), "/nowhere/hook") {
		t.Errorf("a missing file: %v", err)
	}
	if err := a.Hook(t.Context(), nil, nil, nil); err == nil {
		t.Error("no command is accepted")
	}
}

// TestHookIsEnded kills the whole group when time is up, and says why.
func TestHookIsEnded(t *testing.T) {
	a := hookApp(t)
	file := filepath.Join(t.TempDir(), "pid")
	cause := errors.New("too slow")
	ctx, cancel := context.WithCancelCause(t.Context())
	lines := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- a.Hook(ctx, []string{"sh", "-c", `sleep 1000 & echo $! ; wait`}, nil, func(text string) { lines <- text })
	}()
	child := <-lines
	cancel(cause)
	if err := <-ended; !errors.Is(err, cause) {
		t.Errorf("ended with %v (%s)", err, file)
	}
	gone(t, child)
}

// gone waits for the end of a process that is named by its number.
func gone(t *testing.T, pid string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("process %s is left", pid)
}

// TestHookLeavesNothing: what stays behind in its group is killed; who has left it may keep the pipe and is not waited for.
func TestHookLeavesNothing(t *testing.T) {
	a := hookApp(t)
	if _, err := a.hook(t, t.Context(), "true"); err != nil {
		t.Fatal(err)
	}
	footprint(t) // opens what Go keeps open
	goroutines, descriptors := footprint(t)
	lines, err := a.hook(t, t.Context(), `sleep 1001 & echo $!; setsid sleep 1002 & echo $!; sleep 0.2`)
	if err != nil || len(lines) != 2 {
		t.Fatalf("said %q, %v", lines, err)
	}
	gone(t, lines[0])
	stray, err := strconv.Atoi(lines[1])
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(stray, syscall.SIGKILL)
	for range 20 {
		if _, err := a.hook(t, t.Context(), "yes | head -n 1000"); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		g, d := footprint(t)
		if g <= goroutines && d <= descriptors {
			return
		}
		if time.Now().After(end) {
			names, _ := os.ReadDir("/proc/self/fd")
			for _, n := range names {
				to, _ := os.Readlink("/proc/self/fd/" + n.Name())
				t.Log(n.Name(), to)
			}
			t.Fatalf("%d goroutines and %d descriptors, before %d and %d", g, d, goroutines, descriptors)
		}
	}
}

func TestHookLinesAreBounded(t *testing.T) {
	a := hookApp(t)
	lines, err := a.hook(t, t.Context(), `head -c 10000 /dev/zero | tr '\0' x; echo; echo; printf 'a\r\nb'`)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for _, l := range lines {
		sizes = append(sizes, len(l))
	}
	if !slices.Equal(sizes, []int{4096, 4096, 1808, 1, 1}) {
		t.Errorf("sizes %v", sizes)
	}
}

// TestOutputBlocks: who writes faster than we read waits, and does not meet EAGAIN.
func TestOutputBlocks(t *testing.T) {
	a := hookApp(t)
	a.first, a.Stdout, a.Stderr = true, io.Discard, io.Discard
	o, err := a.newOutput(2, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	for _, fd := range o.files()[1:] {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("a generation's output has the flags %o, %v", flags, err)
		}
	}
	lines, err := a.hook(t, t.Context(), "echo begin; for i in 1 2 3 4 5; do head -c 100000 /dev/zero | tr '\\0' x; done")
	length := 0
	for _, l := range lines[1:] {
		length += len(l)
	}
	if err != nil || length != 500_000 {
		t.Errorf("%d bytes of 500000, %v", length, err)
	}
}
