package watch

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// isolated runs the calling test once more in a process with a user and a mount namespace of its own, where it may mount
// and set limits of its own without anybody noticing. It is true in that process; the outer one has nothing left to do.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv("WATCH_TEST_ISOLATED") != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), "WATCH_TEST_ISOLATED=1", "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil && cmd.ProcessState == nil:
		t.Skipf("SKIPPED: no user namespace: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("SKIPPED: %s", out)
	}
	return false
}

func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Skipf("cannot mount %s at %s: %v", kind, target, err)
	}
}

// setLimit sets a limit of this user namespace.
func setLimit(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/user/"+name, []byte(value), 0); err != nil {
		t.Skipf("no limits of our own: %v", err)
	}
}

// waitFor repeats a question until it is answered by yes.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// count tells how many lines of the log have text in them.
func (g *watching) count(text string) int { return strings.Count(g.logged(), text) }

// TestNoInstanceAtStart has no inotify at first, gets it when it can be had, and says each once.
func TestNoInstanceAtStart(t *testing.T) {
	if !isolated(t) {
		return
	}
	_, app := place(t)
	setLimit(t, "max_inotify_instances", "0")
	g := start(t, Options{Paths: only(app), Poll: 50 * time.Millisecond}, 0)
	for i := range 3 {
		body := fmt.Sprint("polled ", i)
		replace(t, app, body)
		g.want(body)
	}
	if n := g.count("max_user_instances"); n != 1 {
		t.Errorf("said %d times: %s", n, g.logged())
	}
}

// TestInstancesComeBack takes inotify as soon as it can be had again, and says so once.
func TestInstancesComeBack(t *testing.T) {
	if !isolated(t) {
		return
	}
	_, app := place(t)
	setLimit(t, "max_inotify_instances", "0")
	w, err := newWatcher(Options{Paths: only(app), Poll: 20 * time.Millisecond, Settle: testSettle})
	must(t, err)
	defer w.close()
	var said []string
	w.logf = func(format string, _ ...any) { said = append(said, format) }
	must(t, w.begin(t.Context()))
	must(t, w.poll())
	if w.inotify != nil {
		t.Fatal("inotify without an instance")
	}
	setLimit(t, "max_inotify_instances", "10")
	must(t, w.poll())
	if w.inotify != nil {
		t.Fatal("it is tried before its time")
	}
	w.limits.retryAt = time.Now()
	must(t, w.poll())
	must(t, w.poll())
	if w.inotify == nil || len(said) != 1 || !strings.Contains(said[0], "available again") {
		t.Errorf("inotify %v, said %q", w.inotify, said)
	}
}

// TestWatchesRunOut finds changes in a directory that could not be watched any more.
func TestWatchesRunOut(t *testing.T) {
	if !isolated(t) {
		return
	}
	dir, _ := place(t)
	deep := filepath.Join(dir, "a", "b", "c", "server")
	setLimit(t, "max_inotify_watches", fmt.Sprint(strings.Count(dir, "/")+2)) // as far as dir
	g := start(t, Options{Paths: only(deep), Poll: 50 * time.Millisecond}, 0)
	if n := g.count("max_user_watches"); n != 0 {
		t.Fatalf("the limit is hit before its time: %s", g.logged())
	}
	for i := range 3 {
		body := fmt.Sprint("polled ", i)
		replace(t, deep, body)
		g.want(body)
	}
	if n := g.count("max_user_watches"); n != 1 {
		t.Errorf("said %d times: %s", n, g.logged())
	}
	setLimit(t, "max_inotify_watches", "100")
	waitFor(t, "all is watched again", func() bool { return g.count("available again") == 1 })
}

// TestOverlayUpper edits the upper directory behind an overlay: no event comes, the poll finds it. TestPollingAlone shows
// on a fake clock that it takes two periods at most.
func TestOverlayUpper(t *testing.T) {
	if !isolated(t) {
		return
	}
	base := t.TempDir()
	mount(t, "tmpfs", base, "tmpfs", 0, "")
	t.Cleanup(func() { unix.Unmount(base, unix.MNT_DETACH) })
	for _, dir := range []string{"lower", "upper", "work", "merged"} {
		must(t, os.Mkdir(filepath.Join(base, dir), 0o755))
	}
	write(t, filepath.Join(base, "upper", "server"), "one", 0o755)
	merged := filepath.Join(base, "merged")
	mount(t, "overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work,userxattr", base))
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	g := start(t, Options{Paths: only(filepath.Join(merged, "server")), Poll: 100 * time.Millisecond}, 0)
	for _, body := range []string{"behind", "behind it"} {
		began := time.Now()
		overwrite(t, filepath.Join(base, "upper", "server"), body)
		g.want(body)
		t.Logf("found after %v", time.Since(began))
	}
}

// TestUnmounted loses the file system under the path, gets it back, and another one over it.
func TestUnmounted(t *testing.T) {
	if !isolated(t) {
		return
	}
	base := t.TempDir()
	mount(t, "tmpfs", base, "tmpfs", 0, "")
	t.Cleanup(func() { unix.Unmount(base, unix.MNT_DETACH) })
	volume, store := filepath.Join(base, "volume"), filepath.Join(base, "store")
	file := filepath.Join(volume, "conf")
	must(t, os.Mkdir(volume, 0o755))
	write(t, filepath.Join(store, "conf"), "one", 0o644)
	mount(t, store, volume, "", unix.MS_BIND, "")
	g := start(t, Options{Paths: only(file), Poll: 50 * time.Millisecond}, 0)
	unmount := func() { // fails if the watch holds it open, and in the moment in which it looks
		t.Helper()
		waitFor(t, "it can be unmounted", func() bool { return unix.Unmount(volume, 0) == nil })
	}
	unmount()
	waitFor(t, "the file is waited for", func() bool { return g.count("is waited for") == 1 })
	write(t, filepath.Join(store, "conf"), "two", 0o644)
	mount(t, store, volume, "", unix.MS_BIND, "")
	g.want("two")
	replace(t, file, "three")
	g.want("three")
	mount(t, "tmpfs", volume, "tmpfs", 0, "") // over it, and empty
	replace(t, file, "four")
	g.want("four")
	unmount()
	g.want("three")
	unmount()
}

// TestRealOverflow makes the kernel drop events: the directory that was replaced meanwhile is found all the same.
func TestRealOverflow(t *testing.T) {
	dir, app := place(t)
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	var room int
	fmt.Sscan(string(text), &room)
	if room > 50000 {
		t.Skipf("the queue has room for %d events", room)
	}
	w, err := newWatcher(Options{Paths: only(app), Settle: testSettle}) // no polling
	must(t, err)
	defer w.close()
	must(t, w.begin(t.Context()))
	a, b := filepath.Join(dir, "app", "a"), filepath.Join(dir, "app", "b")
	write(t, a, "", 0o644)
	for range room { // two events each, and what the reader has taken meanwhile
		must(t, os.Rename(a, b))
		a, b = b, a
	}
	replace(t, app, "two")
	ctx, stop := context.WithCancel(t.Context())
	events, ended := make(chan Event), make(chan error, 1)
	go func() { ended <- w.loop(ctx, events) }()
	select {
	case e := <-events:
		if e.Hash != sum("two") {
			t.Errorf("event %+v", e)
		}
	case <-time.After(patience):
		t.Error("the change was lost with the events")
	}
	stop()
	must(t, <-ended)
}

// TestBackendIsTold names what changes are noticed by, each time that it changes.
func TestBackendIsTold(t *testing.T) {
	if !isolated(t) {
		return
	}
	_, app := place(t)
	told := make(chan string, 10)
	start(t, Options{Paths: only(app), Poll: 50 * time.Millisecond, Backend: func(name string) { told <- name }}, 0)
	setLimit(t, "max_inotify_instances", "0")
	start(t, Options{Paths: only(app), Poll: 50 * time.Millisecond, Backend: func(name string) { told <- name }}, 0)
	start(t, Options{Paths: only(app), Poll: 50 * time.Millisecond, PollOnly: true, Backend: func(name string) { told <- name }}, 0)
	for i, want := range []string{BackendInotify, BackendPoll, BackendPoll} {
		select {
		case got := <-told:
			if got != want {
				t.Errorf("no. %d: %s, want %s", i+1, got, want)
			}
		case <-time.After(patience):
			t.Fatalf("no. %d is not told", i+1)
		}
	}
	if len(told) > 0 {
		t.Errorf("and then %s", <-told)
	}
}
