package reaper

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// limit is the patience of every wait for an event.
const limit = 20 * time.Second

// helpers are the roles of this binary when a test runs it again with argv[0] "helper:NAME".
var helpers = map[string]func(args []string){}

func helper(name string, f func(args []string)) string {
	helpers[name] = f
	return name
}

// all is the one Reaper of the test process: it has to be the only one that waits.
var all = New()

func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(os.Args[0], "helper:"); ok {
		helpers[name](os.Args[1:])
		os.Exit(0)
	}
	startClean()
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0") // helpers need not wait for more reports
	if err := BecomeSubreaper(); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- all.Run(ctx) }()
	code := m.Run()
	left := all.Descendants()
	for until := time.Now().Add(limit); len(left) > 0 && time.Now().Before(until); time.Sleep(time.Millisecond) {
		left = all.Descendants() // what the last test has killed may be on its way
	}
	if len(left) > 0 {
		fmt.Fprintln(os.Stderr, "processes left behind:", left)
		all.SignalDescendants(syscall.SIGKILL)
		code = max(code, 1)
	}
	cancel()
	<-done
	os.Exit(code)
}

func executable(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// helperSpec runs this binary in the role name.
func helperSpec(t testing.TB, name string, args ...string) Spec {
	return Spec{
		Path: executable(t), Args: append([]string{"helper:" + name}, args...), Env: os.Environ(), Umask: -1,
		ParentDeathSignal: syscall.SIGKILL, // a test run that is killed leaves none
	}
}

func shell(script string) Spec {
	return Spec{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(), Umask: -1}
}

func start(t testing.TB, s Spec) *Process {
	t.Helper()
	p, err := all.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.SignalGroup(syscall.SIGKILL)
		wait(t, p)
	})
	return p
}

func wait(t testing.TB, p *Process) Status {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(limit):
		t.Fatalf("process %d did not end", p.PID())
	}
	return p.Status()
}

// eventually waits for what no descriptor announces.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for until := time.Now().Add(limit); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// started is a running process with its output.
type started struct {
	*Process
	out *os.File
}

// startReading runs s with a pipe as descriptor 1, and in the place of every 1 of s.Files.
func startReading(t testing.TB, s Spec) started {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	if s.Files == nil {
		s.Files = []int{0, 1, 2}
	}
	files := append([]int{}, s.Files...)
	for i, fd := range files {
		if fd == 1 {
			files[i] = int(w.Fd())
		}
	}
	s.Files = files
	return started{start(t, s), r}
}

func (s started) line(t testing.TB) string {
	t.Helper()
	if err := s.out.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := s.out.Read(b); err != nil {
			t.Fatalf("no line, but %q and %v", line, err)
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

// output runs s to its end.
func output(t testing.TB, s Spec) string {
	t.Helper()
	p := startReading(t, s)
	_ = p.out.SetReadDeadline(time.Now().Add(10 * limit)) // of thousands of processes
	b, err := io.ReadAll(p.out)
	if err != nil {
		t.Fatal(err)
	}
	if st := wait(t, p.Process); !st.Success() {
		t.Fatalf("%q %v:\n%s", s.Args, st, b)
	}
	return string(b)
}

// field is the value of "key:" in text such as /proc/PID/status.
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	return ""
}

// descriptors lists ours, by number, with what they are.
func descriptors(t testing.TB, pid int) map[int]string {
	t.Helper()
	fds, err := descriptorsOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	return fds
}

func descriptorsOf(pid int) (map[int]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	fds := map[int]string{}
	for _, e := range names {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to != fmt.Sprintf("/proc/%d/fd", pid) {
			n, _ := strconv.Atoi(e.Name())
			fds[n] = to
		}
	}
	return fds, nil
}

// zombies counts the children of pid that nobody has collected.
func zombies(pid int) int {
	n := 0
	for _, s := range readTable() {
		if s.parent == pid && s.zombie() {
			n++
		}
	}
	return n
}

// running makes a Reaper that runs, for helpers, and a function that ends it.
func running() (*Reaper, func()) {
	r := New()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		must(r.Run(ctx))
		close(done)
	}()
	return r, func() { cancel(); <-done }
}

// must ends a helper, whose output the test shows.
func must(err error) {
	if err != nil {
		fmt.Println("helper failed:", err)
		os.Exit(99)
	}
}

func check(ok bool, format string, args ...any) {
	if !ok {
		must(fmt.Errorf(format, args...))
	}
}

func temporary(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// startClean gives the signals that were ignored when this program was started their default action, for it and for what it
// starts: make ignores 32 and 33, nohup HUP, a background shell INT and QUIT. Helpers keep what their test gave them.
func startClean() {
	for i, sig := range ignoredAtStart {
		if sig != 0 {
			var byDefault [4]uintptr
			_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
			ignoredAtStart[i] = 0
		}
	}
}
