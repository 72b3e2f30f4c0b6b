package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary play a user without rights: it re-runs itself under another uid.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "open-as-stranger" {
		os.Exit(openAsStranger(os.Args[2]))
	}
	if role, ok := strings.CutPrefix(os.Args[0], "role:"); ok {
		roles[role](os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tempDir is a directory under its physical name, which strangers may enter.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	return dir
}

func write(t testing.TB, path, body string, mode os.FileMode) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(body), mode))
	must(t, os.Chmod(path, mode))
	return path
}

func contents(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// self is the test binary: a static Go program.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	return path
}

// refused opens something that must be refused and returns the error.
func refused(t *testing.T, name, dir, path string) *Error {
	t.Helper()
	a, err := Open(name, dir, path)
	if err == nil {
		a.Close()
		t.Fatalf("%q is accepted", name)
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %T: %v", err, err)
	}
	return e
}

func TestOpen(t *testing.T) {
	a, err := Open(self(t), "", "")
	must(t, err)
	defer a.Close()
	st, err := os.Stat(self(t))
	must(t, err)
	if a.Path() != self(t) || a.Size() != st.Size() || a.Script() || !a.Same() {
		t.Errorf("path %q, size %d, script %v, same %v", a.Path(), a.Size(), a.Script(), a.Same())
	}
	flags, err := unix.FcntlInt(uintptr(a.FD()), unix.F_GETFL, 0)
	must(t, err)
	cloexec, err := unix.FcntlInt(uintptr(a.FD()), unix.F_GETFD, 0)
	must(t, err)
	if flags&(unix.O_ACCMODE|unix.O_NONBLOCK) != unix.O_RDONLY || cloexec != unix.FD_CLOEXEC {
		t.Errorf("flags %#x, descriptor flags %#x", flags, cloexec)
	}
}

// TestRefusals has one case for each thing that can be wrong with a file.
func TestRefusals(t *testing.T) {
	dir := tempDir(t)
	file := func(name, body string, mode os.FileMode) string {
		return write(t, filepath.Join(dir, name), body, mode)
	}
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o755))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	must(t, os.Symlink("circle", filepath.Join(dir, "circle")))
	cases := []struct {
		name string
		code int
		is   syscall.Errno
		part string
	}{
		{filepath.Join(dir, "missing"), 127, syscall.ENOENT, "does not exist"},
		{filepath.Join(dir, "dangling"), 127, syscall.ENOENT, `symbolic link to "nowhere"`},
		{filepath.Join(dir, "circle"), 126, syscall.ELOOP, "symbolic links"},
		{dir, 126, syscall.EISDIR, "is a directory"},
		{filepath.Join(dir, "fifo"), 126, syscall.EACCES, "is a FIFO"},
		{"/dev/null", 126, syscall.EACCES, "is a device"},
		{file("plain", "#!/bin/sh\n", 0o644), 126, syscall.EACCES, "chmod +x"},
		{filepath.Join(dir, "plain", "below"), 126, syscall.ENOTDIR, "not a directory"},
		{file("empty", "", 0o755), 126, syscall.ENOEXEC, "is empty"},
		{file("text", "hello world, no program\n", 0o755), 126, syscall.ENOEXEC, "no known format"},
		{file("mac", "\xcf\xfa\xed\xfe\x07\x00", 0o755), 126, syscall.ENOEXEC, "macOS"},
		{file("exe", "MZ\x90\x00", 0o755), 126, syscall.ENOEXEC, "Windows"},
		{file("gz", "\x1f\x8b\x08\x00", 0o755), 126, syscall.ENOEXEC, "gzip"},
		{file("magic", "\x7fEL", 0o755), 126, syscall.ENOEXEC, "cut short"},
		{file("crlf", "#!/bin/sh\r\necho\r\n", 0o755), 126, syscall.ENOEXEC, "CR LF"},
		{file("crlf env", "#!/usr/bin/env sh\r\n", 0o755), 126, syscall.ENOEXEC, "CR LF"},
		{file("nointerp", "#!/no/such/shell -e\n", 0o755), 127, syscall.ENOENT, `"/no/such/shell" does not exist`},
		{file("dirinterp", "#!/tmp\n", 0o755), 126, syscall.EACCES, "is a directory"},
		{file("plaininterp", "#!"+dir+"/plain\n", 0o755), 126, syscall.EACCES, "chmod +x"},
		{file("blank", "#! \n", 0o755), 126, syscall.ENOEXEC, "names no interpreter"},
		{file("long", "#!/"+strings.Repeat("x", 300)+"\n", 0o755), 126, syscall.ENOEXEC, "longer than 256"},
		{"", 127, syscall.ENOENT, "no program is named"},
	}
	for _, c := range cases {
		e := refused(t, c.name, "", "")
		if e.Code != c.code || !errors.Is(e, c.is) || !strings.Contains(e.Error(), c.part) {
			t.Errorf("%q: code %d, %v", c.name, e.Code, e)
		}
		if !strings.HasPrefix(e.Error(), fmt.Sprintf("cannot run %q: ", c.name)) || strings.Contains(e.Error(), "\n") {
			t.Errorf("%q: not one sentence about it: %v", c.name, e)
		}
	}
}

func TestScripts(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "sh"), "#!/bin/sh\n", 0o755)
	for i, first := range []string{
		"#!/bin/sh\necho\n", "#! /bin/sh -e\n", "#!/bin/sh", "#!\t/bin/sh\t-x\n", "#!./sh\n",
		"#!/bin/sh " + strings.Repeat("x", 400) + "\n",
	} {
		name := fmt.Sprintf("./script%d", i)
		write(t, filepath.Join(dir, name), first, 0o755)
		a, err := Open(name, dir, "")
		if err != nil {
			t.Errorf("%.20q: %v", first, err)
			continue
		}
		if !a.Script() {
			t.Errorf("%.20q is not taken for a script", first)
		}
		must(t, a.Close())
	}
}

// TestSearch walks PATH like execvp.
func TestSearch(t *testing.T) {
	dir := tempDir(t)
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	good := write(t, at("good", "server"), "#!/bin/sh\n", 0o755)
	write(t, at("plain", "server"), "#!/bin/sh\n", 0o644)
	write(t, at("bad", "server"), "garbage, not a program", 0o755)
	must(t, os.MkdirAll(at("folder", "server"), 0o755))
	must(t, os.MkdirAll(at("none"), 0o755))
	write(t, at("file"), "x", 0o644)
	found := map[string]string{
		at("good"): good,
		at("none") + ":" + at("missing") + ":" + at("file") + ":" + at("good"): good,
		at("plain") + ":" + at("folder") + ":" + at("good"):                    good,
		"missing:good": good, // relative to the working directory of the app
	}
	for path, want := range found {
		a, err := Open("server", dir, path)
		if err != nil {
			t.Errorf("PATH %q: %v", path, err)
			continue
		}
		if a.Path() != want {
			t.Errorf("PATH %q leads to %q", path, a.Path())
		}
		must(t, a.Close())
	}
	if e := refused(t, "server", dir, at("plain")+":"+at("folder")); e.Code != 126 || e.Path != at("plain", "server") {
		t.Errorf("remembered: %v", e)
	}
	if e := refused(t, "server", dir, at("bad")+":"+at("good")); e.Code != 126 || !errors.Is(e, syscall.ENOEXEC) {
		t.Errorf("the first that is found decides: %v", e)
	}
	if e := refused(t, "server", at("good"), at("none")); e.Code != 127 || !strings.Contains(e.Error(), `write "./server"`) {
		t.Errorf("hint: %v", e)
	}
	sh, err := Open("sh", "", "")
	must(t, err)
	must(t, sh.Close())
}

// TestDirIsResolvedOnce keeps a release when the link to it is flipped.
func TestDirIsResolvedOnce(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "r1", "server"), "#!/bin/sh\n", 0o755)
	current := filepath.Join(dir, "current")
	must(t, os.Symlink("r1", current))
	a, err := Open("./server", current, "")
	must(t, err)
	defer a.Close()
	must(t, os.Remove(current))
	if a.Path() != filepath.Join(dir, "r1")+"/./server" || !a.Same() {
		t.Errorf("path %q, same %v", a.Path(), a.Same())
	}
	if e := refused(t, "./server", current, ""); e.Code != 127 || !strings.Contains(e.Error(), "working directory") {
		t.Errorf("missing directory: %v", e)
	}
	if e := refused(t, "./server", filepath.Join(dir, "r1", "server"), ""); !errors.Is(e, syscall.ENOTDIR) {
		t.Errorf("a file as directory: %v", e)
	}
}

func TestSame(t *testing.T) {
	changes := map[string]func(t *testing.T, path string){
		"rename over": func(t *testing.T, path string) {
			must(t, os.Rename(write(t, path+".new", "#!/bin/sh\n", 0o755), path))
		},
		"rewrite": func(t *testing.T, path string) { write(t, path, "#!/bin/sh -e\n", 0o755) },
		"chmod":   func(t *testing.T, path string) { must(t, os.Chmod(path, 0o700)) },
		"remove":  func(t *testing.T, path string) { must(t, os.Remove(path)) },
	}
	for name, change := range changes {
		path := write(t, filepath.Join(tempDir(t), "server"), "#!/bin/sh\n", 0o755)
		must(t, os.Chtimes(path, time.Now(), time.Now().Add(-time.Hour)))
		a, err := Open(path, "", "")
		must(t, err)
		if !a.Same() {
			t.Errorf("%s: not the same before", name)
		}
		time.Sleep(5 * time.Millisecond) // file times have the grain of a clock tick
		change(t, path)
		if a.Same() {
			t.Errorf("%s: still the same", name)
		}
		must(t, a.Close())
	}
}

func TestHash(t *testing.T) {
	a, err := Open(self(t), "", "")
	must(t, err)
	sum := sha256.Sum256(contents(t, self(t)))
	done, stop := context.WithCancel(t.Context())
	stop()
	if _, err := a.Hash(done); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			got, err := a.Hash(t.Context())
			if err != nil || got != hex.EncodeToString(sum[:]) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	must(t, a.Close())
	if got, err := a.Hash(t.Context()); err != nil || got == "" {
		t.Errorf("what is known is not computed again: %v", err)
	}
}

func TestHashOfRewrittenFile(t *testing.T) {
	path := write(t, filepath.Join(tempDir(t), "server"), "#!/bin/sh\n", 0o755)
	a, err := Open(path, "", "")
	must(t, err)
	defer a.Close()
	write(t, path, "#!/bin/sh -x\n", 0o755)
	if _, err := a.Hash(t.Context()); err == nil || !strings.Contains(err.Error(), "written to") {
		t.Errorf("rewritten: %v", err)
	}
}

// TestNeverBlocks gives Open a FIFO that becomes one between the two looks.
func TestNeverBlocks(t *testing.T) {
	dir := tempDir(t)
	path := filepath.Join(dir, "server")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			unix.Mkfifo(path+".fifo", 0o755)
			os.Rename(path+".fifo", path)
			os.WriteFile(path+".file", []byte("#!/bin/sh\n"), 0o755)
			os.Rename(path+".file", path)
		}
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 2000 {
			if a, err := Open(path, "", ""); err == nil {
				a.Close()
			}
		}
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("Open blocks")
	}
	close(stop)
	wg.Wait()
}

// TestStranger opens files as somebody who may execute but not read them, or neither.
func TestStranger(t *testing.T) {
	dir := tempDir(t)
	body := string(contents(t, "/bin/true"))
	program := write(t, filepath.Join(dir, "stranger"), string(contents(t, self(t))), 0o755)
	foreign := os.FileMode(0o700)
	if os.Geteuid() != 0 { // we cannot become somebody else, but can take rights from ourselves
		foreign = 0o077
	}
	cases := []struct {
		mode os.FileMode
		want string
	}{
		{0o111, "opened unreadable"}, {0o555, "opened readable"}, {foreign, "may not execute it"}, {0o644, "chmod +x"},
	}
	for _, c := range cases {
		path := write(t, filepath.Join(dir, fmt.Sprintf("true%o", c.mode)), body, 0o600)
		must(t, os.Chmod(path, c.mode))
		if out := runAsStranger(t, program, path); !strings.Contains(out, c.want) {
			t.Errorf("mode %o: %s", c.mode, out)
		}
	}
	closed := write(t, filepath.Join(dir, "closed", "true"), body, 0o755)
	must(t, os.Chmod(filepath.Dir(closed), 0o600))
	if out := runAsStranger(t, program, closed); !strings.Contains(out, "may not enter") {
		t.Errorf("closed directory: %s", out)
	}
	must(t, os.Chmod(filepath.Dir(closed), 0o700))
}

func runAsStranger(t *testing.T, program, path string) string {
	t.Helper()
	cmd := exec.Command(program, "open-as-stranger", path)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func openAsStranger(path string) int {
	a, err := Open(path, "/", "")
	if err != nil {
		fmt.Println(err)
		return 0
	}
	defer a.Close()
	_, err = a.Hash(context.Background())
	if err != nil && strings.Contains(err.Error(), "execute but not read") {
		fmt.Println("opened unreadable")
		return 0
	}
	fmt.Println("opened readable", err)
	return 0
}

func TestNoExecMount(t *testing.T) {
	want := false
	for _, line := range strings.Split(string(contents(t, "/proc/self/mounts")), "\n") {
		if f := strings.Fields(line); len(f) > 3 && f[1] == "/proc" {
			want = strings.Contains(f[3], "noexec") // of the last mount, the one that is seen
		}
	}
	if mountedNoExec("/proc/self/status") != want {
		t.Errorf("/proc: noexec is not %v", want)
	}
	if mountedNoExec(self(t)) {
		t.Error("the test binary runs from a noexec mount")
	}
}

func TestWhole(t *testing.T) {
	dir := tempDir(t)
	body := contents(t, "/bin/true")
	for name, c := range map[string]struct {
		body  string
		whole bool
	}{
		"all": {string(body), true}, "half": {string(body[:len(body)/2]), false}, "begin": {"\x7fE", false},
		"text": {"a: 1\n", true}, "nothing": {"", true}, "script": {"#!/no/such\r\n", true},
	} {
		path := write(t, filepath.Join(dir, name), c.body, 0o600)
		if err := Whole(path); (err == nil) != c.whole {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	for _, name := range []string{"fifo", "missing", "."} {
		must(t, Whole(filepath.Join(dir, name)))
	}
}

// TestDescriptors counts what refusals leave behind.
func TestDescriptors(t *testing.T) {
	dir := tempDir(t)
	garbage := write(t, filepath.Join(dir, "garbage"), "garbage", 0o755)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	before := count()
	for range 50 {
		refused(t, garbage, "", "")
		refused(t, dir, "", "")
		must(t, Whole(self(t)))
		a, err := Open(self(t), "", "")
		must(t, err)
		must(t, a.Close())
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// reads counts what is read of a file.
type reads struct {
	*bytes.Reader
	calls, bytes int
}

func (r *reads) ReadAt(p []byte, off int64) (int, error) {
	r.calls++
	r.bytes += len(p)
	return r.Reader.ReadAt(p, off)
}

// TestReadsHeadersOnly keeps the start cheap.
func TestReadsHeadersOnly(t *testing.T) {
	body := contents(t, self(t))
	r := &reads{Reader: bytes.NewReader(body)}
	i := inspector{file: r, size: int64(len(body)), dir: "/"}
	_, err := i.inspect()
	must(t, err)
	if r.calls > 5 || r.bytes > 8<<10 {
		t.Errorf("%d reads of %d bytes together", r.calls, r.bytes)
	}
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		a, err := Open("/bin/true", "", "")
		must(b, err)
		a.Close()
	}
}
