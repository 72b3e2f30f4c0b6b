package watch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testSettle = 40 * time.Millisecond
	patience   = 15 * time.Second // only a broken test waits so long
)

// watching is a Run under test that has taken down what the paths hold.
type watching struct {
	t      *testing.T
	events chan Event
	mu     sync.Mutex
	lines  []string
}

// start watches as Run does, and returns once a change will be seen.
func start(t *testing.T, o Options, queue int) *watching {
	t.Helper()
	g := &watching{t: t, events: make(chan Event, queue)}
	if o.Settle == 0 {
		o.Settle = testSettle
	}
	o.Logf = func(format string, args ...any) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.lines = append(g.lines, fmt.Sprintf(format, args...))
	}
	w, err := newWatcher(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	if err := w.begin(ctx); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.loop(ctx, g.events) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("loop: %v", err)
		}
		w.close()
	})
	return g
}

func (g *watching) logged() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.lines, "\n")
}

func (g *watching) next() Event {
	g.t.Helper()
	select {
	case e := <-g.events:
		return e
	case <-time.After(patience):
		g.t.Fatalf("no event came; log:\n%s", g.logged())
		return Event{}
	}
}

// want waits for one event and checks that it is about these bytes. An event too many is found by the next want.
func (g *watching) want(body string) Event {
	g.t.Helper()
	e := g.next()
	if e.Hash != sum(body) {
		g.t.Fatalf("event %+v is not about %.20q", e, body)
	}
	return e
}

func sum(body string) string {
	s := sha256.Sum256([]byte(body))
	return hex.EncodeToString(s[:])
}

func write(t *testing.T, path, body string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(body), mode))
	must(t, os.Chmod(path, mode))
}

// overwrite puts new content into a file in one step; it is not to be shorter than the old one.
func overwrite(t *testing.T, path, body string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(body)
	must(t, err)
}

// looks are a Whole that takes everything for whole, and a way to wait until the watcher looks at a file with these bytes. An event of before
// cannot be had from then on.
func looks(t *testing.T) (whole func(path string) error, await func(body string)) {
	seen := make(chan string, 1000)
	whole = func(path string) error {
		if body, err := os.ReadFile(path); err == nil {
			seen <- string(body)
		}
		return nil
	}
	await = func(body string) {
		t.Helper()
		for late := time.After(patience); ; {
			select {
			case got := <-seen:
				if got == body {
					return
				}
			case <-late:
				t.Fatalf("nobody looks at %q", body)
			}
		}
	}
	return whole, await
}

// replace puts new content under a path in one step.
func replace(t *testing.T, path, body string) {
	t.Helper()
	write(t, path+".tmp", body, 0o755)
	must(t, os.Rename(path+".tmp", path))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// place is a directory with a program in it, under its physical path.
func place(t *testing.T) (dir, app string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	app = filepath.Join(dir, "app", "server")
	write(t, app, "one", 0o755)
	return dir, app
}

func only(path string) []Path { return []Path{{Path: path, Action: ActionSwap}} }

// big is content that no tool writes in one piece.
func big(c string) string { return strings.Repeat(c, 5<<20) }

// TestOneSaveOneEvent replaces a file in every way known, and counts.
func TestOneSaveOneEvent(t *testing.T) {
	ways := map[string]func(t *testing.T, from, to string){
		"mv":        func(t *testing.T, from, to string) { command(t, "mv", from, to) },
		"cp":        func(t *testing.T, from, to string) { command(t, "cp", from, to) },
		"cp -p":     func(t *testing.T, from, to string) { command(t, "cp", "-p", from, to) },
		"cp remove": func(t *testing.T, from, to string) { command(t, "cp", "--remove-destination", from, to) },
		"install":   func(t *testing.T, from, to string) { command(t, "install", "-m", "755", from, to) },
		"ln -f":     func(t *testing.T, from, to string) { command(t, "ln", "-f", from, to) },
		"ln -sf":    func(t *testing.T, from, to string) { command(t, "ln", "-sf", from, to) },
		"ln -sfn": func(t *testing.T, from, to string) {
			command(t, "sh", "-c", `ln -s "$0" "$1.l" && mv -T "$1.l" "$1"`, from, to)
		},
		"tar":   tarOver,
		"rsync": rsyncLike,
		"cat": func(t *testing.T, from, to string) {
			command(t, "sh", "-c", `cat "$0" > "$1"`, from, to)
		},
		"dd": func(t *testing.T, from, to string) {
			command(t, "dd", "if="+from, "of="+to, "bs=64k", "status=none")
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, app := place(t)
			g := start(t, Options{Paths: only(app), Settle: wideSettle}, 0)
			from := filepath.Join(dir, "build", "server")
			write(t, from, big("2"), 0o755)
			way(t, from, app)
			g.want(big("2"))
			must(t, os.RemoveAll(app)) // it may be a link now
			replace(t, app, "three")
			g.want("three")
		})
	}
}

// tarOver unpacks an archive over the path, as kubectl cp does.
func tarOver(t *testing.T, from, to string) {
	archive := to + ".tar"
	command(t, "tar", "-C", filepath.Dir(from), "-cf", archive, filepath.Base(from))
	command(t, "tar", "-C", filepath.Dir(to), "-xf", archive)
}

// rsyncLike writes beside the file, under a hidden name, sets times, and renames.
func rsyncLike(t *testing.T, from, to string) {
	body, err := os.ReadFile(from)
	must(t, err)
	hidden := filepath.Join(filepath.Dir(to), ".server.Xy12")
	write(t, hidden, string(body), 0o600)
	must(t, os.Chtimes(hidden, time.Now(), time.Now().Add(-time.Hour)))
	must(t, os.Chmod(hidden, 0o755))
	must(t, os.Rename(hidden, to))
}

// TestSlowWriter is one save in many pieces, first with pauses below the settle time, then with a long one: as long as
// the file is not closed it is not done.
func TestSlowWriter(t *testing.T) {
	_, app := place(t)
	g := start(t, Options{Paths: only(app)}, 0)
	must(t, os.Remove(app))
	f, err := os.OpenFile(app, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	must(t, err)
	var body strings.Builder
	for i := range 30 {
		fmt.Fprintf(&body, "piece %d\n", i)
		_, err := fmt.Fprintf(f, "piece %d\n", i)
		must(t, err)
		time.Sleep(testSettle / 4) // the pauses are the case
		if i == 20 {
			time.Sleep(3 * testSettle)
		}
	}
	must(t, f.Close())
	g.want(body.String())
	replace(t, app, "next")
	g.want("next")
}

// TestWriterThatNeverCloses gives a file that stays open its event in the end.
func TestWriterThatNeverCloses(t *testing.T) {
	_, app := place(t)
	g := start(t, Options{Paths: only(app), Settle: 10 * time.Millisecond}, 0)
	f, err := os.OpenFile(app, os.O_WRONLY, 0) // in one write: half of it could be taken for all
	must(t, err)
	defer f.Close()
	began := time.Now()
	_, err = f.WriteString("open end")
	must(t, err)
	g.want("open end")
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("the event came after %v, while the file was open", took)
	}
}

// TestNoNews changes everything but the content. The event that follows is the proof that none came before.
func TestNoNews(t *testing.T) {
	ways := map[string]func(t *testing.T, app string){
		"touch":      func(t *testing.T, app string) { command(t, "touch", app) },
		"same bytes": func(t *testing.T, app string) { replace(t, app, "one") },
		"chmod":      func(t *testing.T, app string) { must(t, os.Chmod(app, 0o600)); must(t, os.Chmod(app, 0o755)) },
		"unlink":     func(t *testing.T, app string) { must(t, os.Remove(app)) },
		"read":       func(t *testing.T, app string) { _, err := os.ReadFile(app); must(t, err) },
		"neighbour":  func(t *testing.T, app string) { write(t, app+".log", "noise", 0o644) },
		"a fifo": func(t *testing.T, app string) {
			must(t, os.Remove(app))
			command(t, "mkfifo", app)
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, app := place(t)
			g := start(t, Options{Paths: only(app)}, 0)
			way(t, app)
			quietFor(t, g, 4*testSettle)
			replace(t, app, "two")
			if e := g.want("two"); e.Reason != "content changed" {
				t.Errorf("reason %q", e.Reason)
			}
		})
	}
}

// quietFor waits so long that an event would have come, and fails if it does.
func quietFor(t *testing.T, g *watching, d time.Duration) {
	t.Helper()
	select {
	case e := <-g.events:
		t.Fatalf("event %+v", e)
	case <-time.After(d):
	}
}

// TestBackAgain is A -> B -> A while nobody takes events: nothing is left to tell.
func TestBackAgain(t *testing.T) {
	_, app := place(t)
	whole, await := looks(t)
	g := start(t, Options{Paths: only(app), Whole: whole}, 0)
	replace(t, app, "two")
	await("two")
	time.Sleep(testSettle) // it waits for its receiver
	replace(t, app, "one")
	await("one") // who takes an event sooner may still get the old one
	quietFor(t, g, 4*testSettle)
	replace(t, app, "three")
	g.want("three")
}

// TestGoneBeforeItWasTaken withdraws an event whose file is no longer there.
func TestGoneBeforeItWasTaken(t *testing.T) {
	_, app := place(t)
	g := start(t, Options{Paths: only(app)}, 0)
	replace(t, app, "two")
	time.Sleep(4 * testSettle) // it settles, and waits for its receiver
	must(t, os.Remove(app))
	waitFor(t, "it is missed", func() bool { return g.count("waited for") > 0 })
	quietFor(t, g, testSettle)
	write(t, app, "three", 0o755)
	g.want("three")
}

func TestUnlinkThenCreate(t *testing.T) {
	_, app := place(t)
	g := start(t, Options{Paths: only(app)}, 0)
	must(t, os.Remove(app))
	waitFor(t, "the missing file is told", func() bool { return g.count("waited for") > 0 })
	quietFor(t, g, 3*testSettle)
	write(t, app, "two", 0o755)
	g.want("two")
}

// TestDirectoriesComeLater waits for a path of which only the beginning exists, and sees it vanish and return.
func TestDirectoriesComeLater(t *testing.T) {
	dir, _ := place(t)
	deep := filepath.Join(dir, "a", "b", "c", "server")
	g := start(t, Options{Paths: only(deep)}, 0)
	replace(t, deep, "one") // whoever writes to it is not seen before its directory is watched
	if e := g.want("one"); e.Reason != "appeared" {
		t.Errorf("reason %q", e.Reason)
	}
	must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "old")))
	write(t, filepath.Join(dir, "old", "b", "c", "server"), "not me", 0o755)
	write(t, filepath.Join(dir, "new", "b", "c", "server"), "two", 0o755)
	must(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "a")))
	g.want("two")
	replace(t, deep, "three")
	g.want("three")
}

// TestLinkFlip follows a "current" link in the middle of the path.
func TestLinkFlip(t *testing.T) {
	dir, _ := place(t)
	current := filepath.Join(dir, "current")
	release := func(n string) string { return filepath.Join("releases", n) }
	flip := func(n string) {
		must(t, os.Symlink(release(n), current+".new"))
		must(t, os.Rename(current+".new", current))
	}
	write(t, filepath.Join(dir, release("1"), "bin", "server"), "one", 0o755)
	flip("1")
	g := start(t, Options{Paths: only(filepath.Join(current, "bin", "server"))}, 0)
	for i, body := range []string{"two", "three", "four"} {
		n := fmt.Sprint(i + 2)
		write(t, filepath.Join(dir, release(n), "bin", "server"), body, 0o755)
		flip(n)
		g.want(body)
	}
	write(t, filepath.Join(dir, release("1"), "bin", "server"), "no longer mine", 0o755)
	replace(t, filepath.Join(dir, release("4"), "bin", "server"), "five")
	g.want("five")
}

// TestDataFlip is what a kubelet does to a ConfigMap volume.
func TestDataFlip(t *testing.T) {
	dir, _ := place(t)
	volume := filepath.Join(dir, "config")
	update := func(stamp, body string) {
		write(t, filepath.Join(volume, stamp, "app.yaml"), body, 0o644)
		must(t, os.Symlink(stamp, filepath.Join(volume, "..data_tmp")))
		must(t, os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
	}
	update("..2026_1", "a: 1")
	must(t, os.Symlink("..data/app.yaml", filepath.Join(volume, "app.yaml")))
	g := start(t, Options{Paths: only(filepath.Join(volume, "app.yaml"))}, 0)
	for i := 2; i <= 5; i++ {
		update(fmt.Sprintf("..2026_%d", i), fmt.Sprintf("a: %d", i))
		must(t, os.RemoveAll(filepath.Join(volume, fmt.Sprintf("..2026_%d", i-1))))
		g.want(fmt.Sprintf("a: %d", i))
	}
}

// TestStorm saves fifty times without pause.
func TestStorm(t *testing.T) {
	_, app := place(t)
	g := start(t, Options{Paths: only(app)}, 0)
	for i := range 50 {
		replace(t, app, fmt.Sprintf("save %d", i))
	}
	last := sum("save 49")
	for n := 1; ; n++ {
		if n > 10 {
			t.Fatal("more than ten events for one burst")
		}
		if g.next().Hash == last {
			break
		}
	}
	replace(t, app, "end")
	g.want("end")
}

// TestSlowReceiver finds only the newest when it comes back.
func TestSlowReceiver(t *testing.T) {
	_, app := place(t)
	whole, await := looks(t)
	g := start(t, Options{Paths: only(app), Settle: 10 * time.Millisecond, Whole: whole}, 0)
	for _, body := range []string{"two", "three", "four"} {
		replace(t, app, body)
		await(body) // it settles: then there is an event to replace
	}
	g.want("four")
	replace(t, app, "five")
	g.want("five")
}

// TestHalf postpones what the hook does not take for whole.
func TestHalf(t *testing.T) {
	_, app := place(t)
	whole := func(path string) error {
		body, err := os.ReadFile(path)
		if err == nil && !strings.HasSuffix(string(body), ".") {
			return fmt.Errorf("no full stop")
		}
		return nil
	}
	g := start(t, Options{Paths: only(app), Whole: whole}, 0)
	write(t, app, "half a sent", 0o755)
	waitFor(t, "the missing half is told", func() bool { return g.count("no full stop") > 0 })
	quietFor(t, g, 5*testSettle)
	f, err := os.OpenFile(app, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("ence.")
	must(t, err)
	must(t, f.Close())
	g.want("half a sentence.")
}

func TestBecameExecutable(t *testing.T) {
	_, app := place(t)
	g := start(t, Options{Paths: only(app)}, 0)
	must(t, os.Remove(app))
	write(t, app, "two", 0o644)
	g.want("two")
	must(t, os.Chmod(app, 0o755))
	if e := g.want("two"); e.Reason != "became executable" {
		t.Errorf("reason %q", e.Reason)
	}
}

func TestDirectory(t *testing.T) {
	dir, app := place(t)
	folder := filepath.Dir(app)
	paths := []Path{{Path: folder, Action: "signal:HUP"}, {Path: filepath.Join(folder, "log"), Action: ActionIgnore}}
	g := start(t, Options{Paths: paths}, 0)
	write(t, filepath.Join(folder, "log"), "noise", 0o644)
	write(t, filepath.Join(folder, "deep", "er"), "made with its directory", 0o644)
	if e := g.next(); e.Reason != "entries changed" || e.Path != paths[0] {
		t.Errorf("event %+v", e)
	}
	write(t, filepath.Join(folder, "log"), "more noise", 0o644)
	write(t, filepath.Join(folder, "deep", "er"), "no direct entry", 0o644)
	quietFor(t, g, 4*testSettle)
	write(t, app, "a longer one", 0o755)
	g.next()
	must(t, os.Rename(folder, filepath.Join(dir, "away")))
	quietFor(t, g, 4*testSettle)
	write(t, app, "back again", 0o755)
	g.next()
}

func TestSeveralPaths(t *testing.T) {
	dir, app := place(t)
	config := filepath.Join(dir, "app", "config")
	write(t, config, "a", 0o644)
	paths := append(only(app), Path{Path: config, Action: "signal:USR1"})
	g := start(t, Options{Paths: paths}, 0)
	replace(t, config, "b")
	if e := g.want("b"); e.Path != paths[1] {
		t.Errorf("event %+v", e)
	}
	replace(t, app, "two")
	if e := g.want("two"); e.Path != paths[0] {
		t.Errorf("event %+v", e)
	}
}

// TestBegun changes a file as soon as Run says that it misses nothing any more.
func TestBegun(t *testing.T) {
	_, app := place(t)
	ctx, stop := context.WithCancel(t.Context())
	begun, events, ended := make(chan bool), make(chan Event), make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Paths: only(app), Settle: testSettle, Begun: func() { close(begun) }}, events)
	}()
	<-begun
	replace(t, app, "two")
	if e := <-events; e.Reason != "content changed" {
		t.Errorf("reason %q", e.Reason)
	}
	stop()
	must(t, <-ended)
}
