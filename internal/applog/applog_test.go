package applog

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a desk in this process, with what it tells.
type bench struct {
	*desk
	t    *testing.T
	mu   sync.Mutex
	told []answer
	next int
}

func sit(t *testing.T, spec string, first bool) *bench {
	t.Helper()
	s, err := Parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t}
	b.desk = newDesk(s, first, [2]int{1, 2}, func(v any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = append(b.told, v.(answer))
	})
	t.Cleanup(b.finish)
	return b
}

// pipe begins a source and returns its writing end.
func (b *bench) pipe(o Origin) *os.File {
	b.t.Helper()
	r, w, err := newPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.next++
	b.add(b.next, o, r)
	return w
}

func (b *bench) answers() []answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.told)
}

// wait waits until ok says so.
func (b *bench) wait(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("not within 30s: %s; told %+v", what, b.answers())
		}
	}
}

func (b *bench) ended(id int) func() bool {
	return func() bool {
		return slices.ContainsFunc(b.answers(), func(a answer) bool { return a.Ended == id })
	}
}

// all reads a log with its rotated files, in order.
func all(t *testing.T, path string) string {
	t.Helper()
	names, err := rotated(path)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, name := range append(names, path) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = f
		if strings.HasSuffix(name, packed) {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.Copy(&text, r); err != nil {
			t.Fatal(name, err)
		}
		f.Close()
	}
	return text.String()
}

// numbered checks that text is the lines 0 to n-1, each once and in order.
func numbered(t *testing.T, text string, n int) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, fmt.Sprintf("line %d ", i)) {
			t.Fatalf("line %d of %d (of %d) is %.80q", i, len(lines), n, line)
		}
	}
	if len(lines) != n {
		t.Fatalf("%d lines, want %d", len(lines), n)
	}
}

// write writes numbered lines.
func write(t *testing.T, w io.Writer, from, to int) {
	t.Helper()
	var buf bytes.Buffer
	for i := from; i < to; i++ {
		fmt.Fprintf(&buf, "line %d %s\n", i, strings.Repeat("x", i%200))
		if buf.Len() > 10000 || i == to-1 {
			if _, err := w.Write(buf.Bytes()); err != nil {
				t.Error(err)
				return
			}
			buf.Reset()
		}
	}
}

func TestRotationLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "app.log")
	b := sit(t, "file://"+path+"?size=64KiB&count=0&compress=gzip", true)
	w := b.pipe(Origin{Generation: 1})
	const lines = 100_000
	write(t, w, 0, lines)
	w.Close()
	b.wait("all is written", b.ended(1))
	b.wait("all is packed", func() bool {
		names, _ := rotated(path)
		return !slices.ContainsFunc(names, func(n string) bool { return !strings.HasSuffix(n, packed) })
	})
	numbered(t, all(t, path), lines)
	names, _ := rotated(path)
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || !strings.HasSuffix(name, packed) && info.Size() > 64<<10 {
			t.Errorf("%s has %d bytes, %v", name, info.Size(), err)
		}
	}
	if len(names) < 100 {
		t.Errorf("%d rotated files", len(names))
	}
}

func TestCountIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	b := sit(t, "file://"+path+"?size=8KiB&count=3&compress=gzip", true)
	w := b.pipe(Origin{Generation: 1})
	write(t, w, 0, 2000)
	w.Close()
	b.wait("the end", b.ended(1)) // before it, three may be packed that are not the last ones
	b.wait("three packed files are left", func() bool {
		names, _ := rotated(path)
		return len(names) == 3 && !slices.ContainsFunc(names, func(n string) bool { return !strings.HasSuffix(n, packed) })
	})
	text := all(t, path)
	if !strings.HasSuffix(text, "line 1999 "+strings.Repeat("x", 199)+"\n") || strings.Contains(text, "line 0 ") {
		t.Error("the newest lines are not those that are kept")
	}
}

// TestPartsAndGenerations: the two outputs apart, each generation a file; modes are as asked for.
func TestPartsAndGenerations(t *testing.T) {
	dir := t.TempDir()
	b := sit(t, "file://"+dir+"/{app}-{generation}.log?stderr="+dir+"/errors.log&mode=0600", true)
	for gen := 1; gen <= 2; gen++ {
		for _, stream := range []string{"stdout", "stderr"} {
			w := b.pipe(Origin{App: "web", Generation: gen, Stream: stream})
			fmt.Fprintf(w, "%s of %d", stream, gen) // no end
			w.Close()
			b.wait("the end", b.ended(b.next))
		}
	}
	for name, want := range map[string]string{"web-1.log": "stdout of 1\n", "web-2.log": "stdout of 2\n", "errors.log": "stderr of 1\nstderr of 2\n"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		info, _ := os.Stat(filepath.Join(dir, name))
		if err != nil || string(text) != want || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %q, %v, %v", name, text, info.Mode(), err)
		}
	}
}

// TestLinesStayWhole: several write into one file, in pieces.
func TestLinesStayWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	b := sit(t, "file://"+path, true)
	var writers sync.WaitGroup
	const each, pieces = 50, 20
	for n := range 4 {
		w := b.pipe(Origin{Generation: n})
		writers.Go(func() {
			defer w.Close()
			for range each {
				for range pieces {
					fmt.Fprintf(w, "<%d>", n)
					time.Sleep(50 * time.Microsecond)
				}
				fmt.Fprintln(w)
			}
		})
	}
	writers.Wait()
	for id := 1; id <= 4; id++ {
		b.wait("the end", b.ended(id))
	}
	count := 0
	for line := range strings.Lines(all(t, path)) {
		count++
		if line != strings.Repeat(line[:3], pieces)+"\n" {
			t.Fatalf("a line is mixed: %q", line)
		}
	}
	if count != 4*each {
		t.Errorf("%d lines", count)
	}
}

// TestLongLines: up to the bound in one piece, then cut and marked; nothing of it is lost.
func TestLongLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	b := sit(t, "file://"+path+"?size=4KiB&count=0", true)
	w := b.pipe(Origin{Generation: 1})
	whole, long := strings.Repeat("a", 60<<10), strings.Repeat("ü", 300<<10)
	fmt.Fprintf(w, "%s\nshort\n%s\nend\n", whole, long)
	w.Close()
	b.wait("the end", b.ended(1))
	text := all(t, path)
	if want := whole + "\nshort\n" + long + "\nend\n"; strings.ReplaceAll(text, splitMark, "") != want {
		t.Errorf("%d bytes, want %d", len(text), len(want))
	}
	if n := strings.Count(text, splitMark); n < 2 {
		t.Errorf("cut %d times", n)
	}
	for line := range strings.Lines(text) {
		if len(line) > pipeRoom+len(splitMark) || !bytes.Equal([]byte(line), bytes.ToValidUTF8([]byte(line), nil)) {
			t.Errorf("a line of %d bytes, or one that is cut inside a letter", len(line))
		}
	}
}

// TestReopenUnderLoad: somebody else renames the file again and again, and no line is lost.
func TestReopenUnderLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.log")
	b := sit(t, "file://"+path, true)
	w := b.pipe(Origin{Generation: 1})
	var writer sync.WaitGroup
	const lines = 50_000
	writer.Go(func() { defer w.Close(); write(t, w, 0, lines) })
	moved := 0
	for ; moved < 20; moved++ {
		if err := os.Rename(path, fmt.Sprintf("%s.%03d", path, moved)); err != nil {
			t.Fatal(err)
		}
		if n, err := b.reopen(); err != nil || n > 1 {
			t.Fatalf("reopened %d, %v", n, err)
		}
		b.wait("the file is there", func() bool { _, err := os.Stat(path); return err == nil || b.ended(1)() })
		if b.ended(1)() {
			moved++
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	writer.Wait()
	b.wait("the end", b.ended(1))
	var text strings.Builder
	for i := range moved {
		part, err := os.ReadFile(fmt.Sprintf("%s.%03d", path, i))
		if err != nil {
			t.Fatal(err)
		}
		text.Write(part)
	}
	last, _ := os.ReadFile(path)
	numbered(t, text.String()+string(last), lines)
}

// withoutTee runs a test in a sandbox that refuses it.
func withoutTee(t *testing.T, test func(t *testing.T)) {
	t.Run("without-tee", func(t *testing.T) {
		tee = func(int, int, int, int) (int64, error) { return 0, unix.ENOSYS }
		t.Cleanup(func() { tee = unix.Tee })
		test(t)
	})
}

// TestRestartContinues: another run, and another container, go on in the same file.
func TestRestartContinues(t *testing.T) {
	restartContinues(t, "line 3 four\n")
	withoutTee(t, func(t *testing.T) { restartContinues(t, "line 3 fo"+splitMark+"ur\n") })
}

func restartContinues(t *testing.T, end string) {
	path := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(path, []byte("line 0 \nline 1 hal"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := sit(t, "file://"+path+"?size=1MiB", true)
	w := b.pipe(Origin{Generation: 1})
	fmt.Fprint(w, "line 2 \nline 3 fo") // half a line stays in the pipe when the run is over
	b.wait("the first one is there", func() bool { return strings.HasSuffix(all(t, path), "line 2 \n") })
	again := sit(t, "file://"+path+"?size=1MiB", false)
	r, err := unix.FcntlInt(b.sources[1].r.Fd(), unix.F_DUPFD_CLOEXEC, 3) // as PID 1 keeps it
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(r, true); err != nil {
		t.Fatal(err)
	}
	b.finish()
	again.add(1, Origin{Generation: 1}, os.NewFile(uintptr(r), "app"))
	fmt.Fprintln(w, "ur")
	w.Close()
	again.wait("the end", again.ended(1))
	if text := all(t, path); text != "line 0 \nline 1 hal\nline 2 \n"+end {
		t.Errorf("%q", text)
	}
}

// TestDiskFull: lines are dropped and counted, said once, and written again when there is room; the app is not stopped.
func TestDiskFull(t *testing.T) {
	diskFull(t)
	withoutTee(t, diskFull)
}

func diskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("SKIPPED: cannot mount a small file system: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	path, ballast := filepath.Join(dir, "app.log"), filepath.Join(dir, "ballast")
	b := sit(t, "file://"+path, true)
	t.Cleanup(func() { b.finish() }) // before the file system goes
	w := b.pipe(Origin{Generation: 1})
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	const lines = 5000
	write(t, w, 0, lines) // far more than there is room for: it returns all the same
	dropped := func() int { b.desk.mu.Lock(); defer b.desk.mu.Unlock(); return int(b.dropped) }
	b.wait("lines are dropped", func() bool { return dropped() > 0 && b.sourceIdle(1) })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	last := lines
	b.wait("a line is written again", func() bool {
		fmt.Fprintf(w, "line %d \n", last)
		last++
		time.Sleep(10 * time.Millisecond)
		return strings.Contains(all(t, path), "lines are missing here")
	})
	w.Close()
	b.wait("the end", b.ended(1))
	text := all(t, path)
	kept := strings.Count(text, "\nline ") + 1
	if kept+dropped() != last {
		t.Errorf("%d lines kept and %d dropped of %d", kept, dropped(), last)
	}
	if !strings.Contains(text, fmt.Sprintf("[entrypoint: %d lines are missing here: no space left on device]\n", dropped())) {
		t.Errorf("the gap is not marked: %d dropped\n%.200s", dropped(), text[strings.Index(text, "[entry"):])
	}
	next := 0 // the order is kept, and no line is half there
	for line := range strings.Lines(text) {
		var i int
		if n, _ := fmt.Sscanf(line, "line %d ", &i); n == 0 {
			continue
		}
		if i < next || i < lines && line != fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", i%200)) {
			t.Fatalf("after %d comes %q", next-1, line)
		}
		next = i + 1
	}
	said := 0
	for _, a := range b.answers() {
		if strings.Contains(a.Say, "cannot write") {
			said++
		}
	}
	if said != 1 {
		t.Errorf("said %d times: %+v", said, b.answers())
	}
}

// sourceIdle tells whether nothing waits in a pipe.
func (b *bench) sourceIdle(id int) bool {
	b.desk.mu.Lock()
	s := b.sources[id]
	b.desk.mu.Unlock()
	if s == nil {
		return true
	}
	n := -1
	_ = s.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n == 0
}

// TestNoWayToWrite: a directory that cannot be had is said, and the app goes on.
func TestNoWayToWrite(t *testing.T) {
	b := sit(t, "file:///proc/nowhere/app.log", true)
	w := b.pipe(Origin{Generation: 1})
	write(t, w, 0, 20_000)
	w.Close()
	b.wait("the end", b.ended(1))
	b.wait("the count is told", func() bool {
		return slices.ContainsFunc(b.answers(), func(a answer) bool { return a.Dropped == 20_000 })
	})
}

// TestCopies: where the file system cannot splice.
func TestCopies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	b := sit(t, "file://"+path+"?size=64KiB&count=0", true)
	w := b.pipe(Origin{Generation: 1})
	b.desk.mu.Lock()
	k := b.sinks[path].sink.(*fileSink)
	b.desk.mu.Unlock()
	k.mu.Lock()
	k.copies = true
	k.mu.Unlock()
	write(t, w, 0, 20_000)
	w.Close()
	b.wait("the end", b.ended(1))
	numbered(t, all(t, path), 20_000)
}

// TestAgeRotates, also when nobody writes, and not an empty file.
func TestAgeRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "app.log")
		k := &fileSink{path: path, spec: Spec{Age: 24 * time.Hour, Mode: 0o600}, say: t.Logf, drop: func(int) {}, full: func() {}, first: true}
		k.use()
		defer k.close()
		k.mu.Lock()
		err := k.append([]byte("day 1\n"))
		k.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		count := func() int { names, _ := rotated(path); return len(names) }
		time.Sleep(23 * time.Hour)
		if n := count(); n != 0 {
			t.Errorf("%d rotated after 23 hours", n)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := count(); n != 1 {
			t.Errorf("%d rotated after 25 hours", n)
		}
		time.Sleep(72 * time.Hour)
		synctest.Wait()
		if n := count(); n != 1 {
			t.Errorf("%d rotated, though nothing was written", n)
		}
	})
}

// TestPrefix: lines of several generations on one output, and a reader that stalls holds only them up.
func TestPrefix(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := &bench{t: t}
	b.desk = newDesk(Spec{Kind: Prefix}, true, [2]int{int(w.Fd()), int(w.Fd())}, func(v any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = append(b.told, v.(answer))
	})
	one, two := b.pipe(Origin{Generation: 1, Stream: "stdout"}), b.pipe(Origin{App: "web", Generation: 2, Worker: 3, Stream: "stderr"})
	fmt.Fprint(one, "a\nb")
	fmt.Fprint(two, "c\n")
	one.Close()
	two.Close()
	b.finish()
	w.Close()
	text, _ := io.ReadAll(r)
	lines := strings.Split(string(text), "\n")
	slices.Sort(lines)
	if want := []string{"", "[gen 1] a", "[gen 1] b", "[web gen 2 worker 3] c"}; !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
}

// TestTail: what was said last, also what is no line yet.
func TestTail(t *testing.T) {
	b := sit(t, "file://"+filepath.Join(t.TempDir(), "l"), true)
	w := b.pipe(Origin{Generation: 1})
	defer w.Close()
	write(t, w, 0, 1000)
	fmt.Fprint(w, "panic: no")
	b.wait("the tail", func() bool {
		return strings.HasSuffix(b.tail(1), "\npanic: no") && strings.HasPrefix(b.tail(1), "line ")
	})
}

func TestArchiveMendsWhatWasInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	name, err := rotatedName(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{name: "old\n", name + half: "rubbish", path: "new\n", path + ".other": "not ours"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := archive(ctx, path, Spec{Gzip: true}); err != nil || all(t, path) != "old\nnew\n" {
		t.Error(err)
	}
	if err := archive(context.Background(), path, Spec{Gzip: true}); err != nil || all(t, path) != "old\nnew\n" {
		t.Error(err)
	}
	left, _ := filepath.Glob(path + "*")
	if len(left) != 3 {
		t.Errorf("left: %v", left)
	}
}

func TestParse(t *testing.T) {
	s, err := Parse("file:///var/log/{app}-{worker}.log?size=10MiB&age=24h&count=3&compress=gzip&stderr=/e.log&mode=0644")
	want := Spec{Kind: File, Path: "/var/log/{app}-{worker}.log", Stderr: "/e.log", Size: 10 << 20, Age: 24 * time.Hour, Count: 3, Gzip: true, Mode: 0o644}
	if err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	if got := s.file(Origin{App: "web", Worker: 2, Stream: "stdout"}); got != "/var/log/web-2.log" {
		t.Error(got)
	}
	for text, kind := range map[string]Kind{"": Inherit, "inherit": Inherit, "PREFIX": Prefix} {
		if s, err := Parse(text); err != nil || s.Kind != kind {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
	for text, sizes := range map[string]int64{"4096": 4096, "10k": 10 << 10, "10KB": 10 << 10, "1G": 1 << 30, "5MiB": 5 << 20} {
		if n, err := parseSize(text); err != nil || n != sizes {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for text, faults := range map[string]int{
		"syslog": 1, "file://app.log": 1, "file:///dir/": 1, "file:///a{b}": 1, "file:///a{": 1, "file:///a?size=1&age=soon&count=-1&compress=zip&stderr=/a&mode=9&x=1": 7, "file:///a?size=1MiB&size=2MiB": 1, "file:///a?size=3XiB": 1,
	} {
		_, err := Parse(text)
		if err == nil || strings.Count(err.Error(), "\n")+1 != faults {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// FuzzCut: whatever comes in whatever pieces, it comes out again, in whole lines of bounded length.
func FuzzCut(f *testing.F) {
	f.Add([]byte("a\nb\n\nlong line without an end"), 7, 3)
	f.Add([]byte("üüüüüüüüü\xff\xfe\x80\x80\x80\x80"), 5, 2)
	f.Fuzz(func(t *testing.T, text []byte, most, piece int) {
		most, piece = 4+abs(most)%100, 1+abs(piece)%50
		var waits, out []byte
		for rest := text; ; {
			n := min(piece, len(rest))
			waits, rest = append(waits, rest[:n]...), rest[n:]
			over := len(rest) == 0
			for {
				n, split := cut(waits, most, over)
				if n > len(waits) || split && (n == 0 || n > most) || n > 0 && !split && !over && waits[n-1] != '\n' {
					t.Fatalf("cut %d of %d, %v", n, len(waits), split)
				}
				out, waits = append(out, waits[:n]...), waits[n:]
				if n == 0 || over {
					break
				}
			}
			if len(waits) >= most && !over {
				t.Fatalf("%d bytes wait", len(waits))
			}
			if over {
				break
			}
		}
		if !bytes.Equal(out, text) {
			t.Fatalf("%q became %q", text, out)
		}
		room := int64(most)
		for rest := out; len(rest) > 0; {
			n := fitting(rest, room)
			if n <= 0 || n > len(rest) || int64(n) > room && bytes.IndexByte(rest[:n], '\n') != n-1 && n != len(rest) {
				t.Fatalf("%d of %q fit into %d", n, rest, room)
			}
			rest = rest[n:]
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}
