package watch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// bubble runs Run by polling alone, on a real directory at the speed of a fake clock.
func bubble(t *testing.T, o Options, play func(o Options, events chan Event)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		events, ended := make(chan Event), make(chan error, 1)
		o.PollOnly = true
		go func() { ended <- Run(ctx, o, events) }()
		synctest.Wait()
		play(o, events)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestPollingAlone finds a change within two periods, and each change once.
func TestPollingAlone(t *testing.T) {
	_, app := place(t)
	o := Options{Paths: only(app), Settle: 300 * time.Millisecond, Poll: 2 * time.Second}
	bubble(t, o, func(o Options, events chan Event) {
		for _, body := range []string{"two", "three!", "four and more"} {
			replace(t, app, body)
			began := time.Now()
			e := <-events
			if took := time.Since(began); e.Hash != sum(body) || took > 2*o.Poll {
				t.Errorf("event %+v after %v", e, took)
			}
			must(t, os.Chtimes(app, time.Now(), time.Now()))
			select {
			case e := <-events:
				t.Errorf("event %+v for a touch", e)
			case <-time.After(5 * o.Poll):
			}
		}
	})
}

// TestPollingWaitsForStillness lets a file grow at every poll.
func TestPollingWaitsForStillness(t *testing.T) {
	_, app := place(t)
	o := Options{Paths: only(app), Settle: 300 * time.Millisecond, Poll: 2 * time.Second}
	bubble(t, o, func(o Options, events chan Event) {
		body := "one"
		for range 10 {
			body += " and more"
			write(t, app, body, 0o755)
			select {
			case e := <-events:
				t.Fatalf("event %+v while the file grows", e)
			case <-time.After(o.Poll - time.Millisecond):
			}
		}
		if e := <-events; e.Hash != sum(body) {
			t.Errorf("event %+v", e)
		}
	})
}

// TestPollingDirectory looks at the entries, but not at those that are ignored.
func TestPollingDirectory(t *testing.T) {
	_, app := place(t)
	folder := filepath.Dir(app)
	paths := append(only(folder), Path{Path: filepath.Join(folder, "log"), Action: ActionIgnore})
	o := Options{Paths: paths, Poll: time.Second}
	bubble(t, o, func(o Options, events chan Event) {
		write(t, filepath.Join(folder, "log"), "noise", 0o644)
		select {
		case e := <-events:
			t.Errorf("event %+v for an ignored entry", e)
		case <-time.After(5 * o.Poll):
		}
		write(t, filepath.Join(folder, "new"), "", 0o644)
		if e := <-events; e.Reason != "entries changed" || e.Hash != "" {
			t.Errorf("event %+v", e)
		}
	})
}

// TestPollBesideInotify finds what no event in the watched directory tells: a write through another name.
func TestPollBesideInotify(t *testing.T) {
	dir, app := place(t)
	other := filepath.Join(dir, "other")
	must(t, os.Link(app, other))
	g := start(t, Options{Paths: only(app), Poll: 30 * time.Millisecond}, 0)
	overwrite(t, other, "behind your back")
	g.want("behind your back")
}

// TestLimitOfInstances takes inotify away.
func TestLimitOfInstances(t *testing.T) {
	var lines []string
	w := &watcher{interval: time.Second, logf: func(format string, _ ...any) { lines = append(lines, format) }}
	for range 3 {
		must(t, w.pollAlone(unix.EMFILE))
	}
	if len(lines) != 1 {
		t.Errorf("%d lines instead of one", len(lines))
	}
	for errno, setting := range map[error]string{unix.EMFILE: "max_user_instances", unix.ENOSPC: "max_user_watches"} {
		err := (&watcher{}).pollAlone(errno)
		if err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("without polling: %v", err)
		}
	}
}

// TestOverflow makes everything be looked at again when the kernel lost events.
func TestOverflow(t *testing.T) {
	_, app := place(t)
	w, err := newWatcher(Options{Paths: only(app), Settle: time.Millisecond})
	must(t, err)
	defer w.close()
	must(t, w.begin(t.Context()))
	known := w.inotify.uses
	w.inotify.uses = nil // whatever comes, it is nobody's
	replace(t, app, "two")
	w.inotify.uses = known
	must(t, w.take([]event{{wd: -1, mask: unix.IN_Q_OVERFLOW}}))
	if w.targets[0].due.IsZero() {
		t.Fatal("no look is due")
	}
	w.targets[0].due = time.Now()
	must(t, w.lookAtDue(t.Context()))
	if p := w.targets[0].pending; p == nil || p.Hash != sum("two") {
		t.Errorf("pending %+v", p)
	}
}

// TestReaderFails goes on by polling when the kernel takes inotify away in mid-flight.
func TestReaderFails(t *testing.T) {
	_, app := place(t)
	w, err := newWatcher(Options{Paths: only(app), Settle: time.Millisecond, Poll: 10 * time.Millisecond})
	must(t, err)
	defer w.close()
	must(t, w.begin(t.Context()))
	w.inotify.file.Close()
	ctx, stop := context.WithCancel(t.Context())
	events, ended := make(chan Event), make(chan error, 1)
	go func() { ended <- w.loop(ctx, events) }()
	replace(t, app, "two")
	select {
	case e := <-events:
		if e.Hash != sum("two") {
			t.Errorf("event %+v", e)
		}
	case <-time.After(patience):
		t.Error("no event")
	}
	stop()
	must(t, <-ended)
}

// TestRunLeavesNothing counts descriptors; goroutines are counted for the whole package.
func TestRunLeavesNothing(t *testing.T) {
	_, app := place(t)
	before := descriptors(t)
	for range 20 {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Run(ctx, Options{Paths: only(app), Poll: time.Second}, make(chan Event)) }()
		stop()
		must(t, <-ended)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	inotify := 0
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.Contains(to, "inotify") {
			inotify++
		}
	}
	return inotify
}

func TestRunRefuses(t *testing.T) {
	dir, _ := place(t)
	sneaky := filepath.Join(dir, "sneaky")
	must(t, os.Symlink("/proc/self/mounts", sneaky))
	for _, path := range []string{"/", "/proc/self/mounts", "/sys", "/dev/null", sneaky} {
		if err := Run(t.Context(), Options{Paths: only(path)}, nil); err == nil {
			t.Errorf("%q is accepted", path)
		}
	}
	if err := Run(t.Context(), Options{Settle: -1}, nil); err == nil {
		t.Error("a negative settle time is accepted")
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	must(t, Run(ctx, Options{}, nil))
}

func TestMountPoint(t *testing.T) {
	dir, app := place(t)
	if mountPoint(app) {
		t.Error("an ordinary file is taken for a mount point")
	}
	if mountPoint(dir + "/missing") {
		t.Error("a missing file is taken for a mount point")
	}
	if !mountPoint("/proc") {
		t.Error("/proc is not taken for a mount point")
	}
}
