package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/reaper"
)

// store makes a Store that is closed in the end, with all that it said.
func store(t testing.TB, o StoreOptions) (*Store, *[]string) {
	t.Helper()
	said := new([]string)
	o.Logf = func(format string, args ...any) { *said = append(*said, fmt.Sprintf(format, args...)) }
	s, err := NewStore(o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s, said
}

// opened is a program opened by a Store and closed in the end.
func opened(t testing.TB, s *Store, path string) *Artifact {
	t.Helper()
	a, err := s.Open(t.Context(), path, "", "")
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

// refusedBy opens what the Store must refuse with a sentence that contains part.
func refusedBy(t testing.TB, s *Store, path, part string) {
	t.Helper()
	a, err := s.Open(t.Context(), path, "", "")
	if err == nil {
		a.Close()
		t.Errorf("%q is accepted; expected: %s", path, part)
		return
	}
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v; expected: %s", err, part)
	}
}

// small is a static program of a few megabytes, of the app's own.
var small = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "small")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	source := "package main\nimport \"os\"\nfunc main() { os.Exit(len(os.Args)) }\n"
	err = errors.Join(os.WriteFile(dir+"/main.go", []byte(source), 0o600), os.WriteFile(dir+"/go.mod", []byte("module x\n\ngo 1.26\n"), 0o600))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", "x", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w: %s", err, out)
	}
	return os.ReadFile(dir + "/x")
})

func server(t testing.TB, dir string) string {
	t.Helper()
	body, err := small()
	must(t, err)
	return write(t, filepath.Join(dir, "server"), string(body), 0o755)
}

// run executes what Exec says, and returns the exit status.
func run(t testing.TB, a *Artifact) int {
	t.Helper()
	path, fd := a.Exec()
	if fd != 0 {
		path = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	cmd := exec.Command(path, "one", "two")
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// TestCopies runs from both kinds of copy while the file is rewritten in place, replaced and removed.
func TestCopies(t *testing.T) {
	state := tempDir(t)
	for kind, dir := range map[string]string{inMemory: "", inFile: state} {
		s, said := store(t, StoreOptions{StateDir: dir})
		path := server(t, tempDir(t))
		a := opened(t, s, path)
		if i := a.Info(); i.Exec != kind || i.Why != "" || i.Size != a.Size() || i.Modified.IsZero() || (i.Memory >= i.Size) != (kind == inMemory) {
			t.Errorf("%s: %+v", kind, i)
		}
		if !a.Same() || a.Path() != path || len(*said) > 0 {
			t.Errorf("%s: same %v, path %q, said %q", kind, a.Same(), a.Path(), *said)
		}
		before, err := a.Hash(t.Context())
		must(t, err)
		write(t, path, "garbage", 0o755) // in place
		if code := run(t, a); code != 3 || a.Same() {
			t.Errorf("%s: status %d, same %v", kind, code, a.Same())
		}
		must(t, os.Remove(path))
		if after, err := a.Hash(t.Context()); err != nil || after != before || run(t, a) != 3 {
			t.Errorf("%s: without the file: %v", kind, err)
		}
		must(t, a.Close())
	}
}

// TestNoTextBusy writes to the file of a program that runs.
func TestNoTextBusy(t *testing.T) {
	path := filepath.Join(tempDir(t), "sleeper")
	must(t, os.WriteFile(path, contents(t, "/bin/sleep"), 0o755))
	for _, dir := range []string{"", tempDir(t)} {
		s, _ := store(t, StoreOptions{StateDir: dir})
		a := opened(t, s, path)
		run, fd := a.Exec()
		if fd != 0 {
			run = fmt.Sprintf("/proc/self/fd/%d", fd)
		}
		cmd := exec.Command(run, "1000")
		must(t, cmd.Start())
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("\x7fELF"), 0)
			f.Close()
		}
		if err != nil {
			t.Errorf("the writer is told: %v", err)
		}
		if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
			t.Error(err)
		}
		must(t, a.Close())
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
}

// TestSealed tries to change a copy in memory.
func TestSealed(t *testing.T) {
	s, _ := store(t, StoreOptions{})
	a := opened(t, s, server(t, tempDir(t)))
	seals, err := unix.FcntlInt(uintptr(a.FD()), unix.F_GET_SEALS, 0)
	flags, ferr := unix.FcntlInt(uintptr(a.FD()), unix.F_GETFL, 0)
	if err != nil || ferr != nil || seals&allSeals != allSeals || flags&unix.O_ACCMODE != unix.O_RDONLY {
		t.Errorf("seals %#x, flags %#x, %v, %v", seals, flags, err, ferr)
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", a.FD()), os.O_RDWR, 0)
	if err != nil {
		return // as good
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("written to: %v", err)
	}
	if err := f.Truncate(1); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncated: %v", err)
	}
}

// TestPolicy is the table of what is copied, run from its path and refused.
func TestPolicy(t *testing.T) {
	dir := tempDir(t)
	own := server(t, dir)
	script := write(t, filepath.Join(dir, "script"), "#!/bin/sh\nexit 3\n", 0o755)
	setuid := write(t, filepath.Join(dir, "setuid"), string(contents(t, own)), 0o755)
	must(t, unix.Chmod(setuid, 0o4755))
	python := write(t, filepath.Join(dir, "python3.11"), string(contents(t, own)), 0o755)
	var pins []string
	for _, path := range []string{own, script, "/bin/true"} {
		a, err := Open(path, "", "")
		must(t, err)
		sum, err := a.Hash(t.Context())
		must(t, err)
		must(t, a.Close())
		pins = append(pins, "sha256:"+sum)
	}
	v, err := ParseVerify(strings.Join(pins, ","))
	must(t, err)
	cases := []struct {
		exec   Exec
		verify bool
		path   string
		want   string // the kind of Info, or else what the refusal says
		why    string
	}{
		{ExecAuto, false, own, inMemory, ""}, {ExecCopy, false, own, inMemory, ""}, {ExecPath, false, own, atPath, "ENTRYPOINT_EXEC is path"},
		{ExecAuto, true, own, inMemory, ""}, {ExecPath, true, own, "cannot be verified", ""},
		{ExecAuto, false, script, atPath, "its interpreter opens it"}, {ExecCopy, false, script, "ENTRYPOINT_STATE_DIR", ""},
		{ExecAuto, true, script, "cannot be verified", ""}, {ExecCopy, true, script, "ENTRYPOINT_STATE_DIR", ""},
		{ExecAuto, false, setuid, atPath, "set-uid"}, {ExecCopy, false, setuid, "set-uid", ""}, {ExecAuto, true, setuid, "set-uid", ""},
		{ExecAuto, false, "/bin/true", atPath, "distribution"}, {ExecCopy, false, "/bin/true", inMemory, ""}, {ExecAuto, true, "/bin/true", inMemory, ""},
		{ExecAuto, false, python, atPath, "python3.11 runs"}, {ExecCopy, false, python, inMemory, ""},
	}
	for _, c := range cases {
		o := StoreOptions{Exec: c.exec}
		if c.verify {
			o.Verify = v
		}
		s, said := store(t, o)
		if c.want != inMemory && c.want != atPath {
			refusedBy(t, s, c.path, c.want)
			continue
		}
		a := opened(t, s, c.path)
		if i := a.Info(); i.Exec != c.want || !strings.Contains(i.Why, c.why) || (i.Verified == "sha256 pin") != c.verify {
			t.Errorf("%s, verify %v, %q: %+v", c.exec, c.verify, c.path, i)
		}
		if len(*said) > 0 {
			t.Errorf("%s %q: %q", c.exec, c.path, *said)
		}
	}
}

// TestScriptAsFile runs a script from a copy that has a name.
func TestScriptAsFile(t *testing.T) {
	path := write(t, filepath.Join(tempDir(t), "script"), "#!/bin/sh\nexit $(($# + 5))\n", 0o755)
	s, _ := store(t, StoreOptions{Exec: ExecCopy, StateDir: tempDir(t)})
	a := opened(t, s, path)
	must(t, os.Remove(path))
	if i := a.Info(); i.Exec != inFile || !a.Script() || run(t, a) != 7 {
		t.Errorf("%+v", i)
	}
	if path, fd := a.Exec(); fd != 0 || filepath.Base(path) != "script" {
		t.Errorf("%q, %d", path, fd)
	}
}

func TestCapabilities(t *testing.T) {
	path := server(t, tempDir(t))
	value := make([]byte, 20) // VFS_CAP_REVISION_2, CAP_NET_BIND_SERVICE
	copy(value, []byte{1, 0, 0, 2, 0, 4, 0, 0})
	if err := unix.Setxattr(path, "security.capability", value, 0); err != nil {
		t.Skipf("file capabilities cannot be set here: %v", err)
	}
	s, _ := store(t, StoreOptions{})
	if i := opened(t, s, path).Info(); i.Exec != atPath || !strings.Contains(i.Why, "file capabilities") {
		t.Errorf("%+v", i)
	}
}

// TestOrigin compiles programs with and without libraries beside them.
func TestOrigin(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "x.c"), "int main(void) { return 3; }\n", 0o644)
	for name, c := range map[string]struct {
		flags []string
		want  string
	}{
		"none": {nil, inMemory}, "static": {[]string{"-static"}, inMemory}, "fixed": {[]string{"-Wl,-rpath,/opt/lib"}, inMemory},
		"runpath": {[]string{"-Wl,--enable-new-dtags,-rpath,/opt:$ORIGIN/lib"}, atPath},
		"rpath":   {[]string{"-Wl,--disable-new-dtags,-rpath,${ORIGIN}"}, atPath},
	} {
		out := filepath.Join(dir, name)
		if text, err := exec.Command("gcc", append(c.flags, "-o", out, filepath.Join(dir, "x.c"))...).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v: %s", err, text)
		}
		s, _ := store(t, StoreOptions{})
		a := opened(t, s, out)
		if i := a.Info(); i.Exec != c.want || strings.Contains(i.Why, "ORIGIN") != (c.want == atPath) || run(t, a) != 3 {
			t.Errorf("%s: %+v", name, i)
		}
		up, err := s.Adopt(t.Context(), upload(t, contents(t, out), allSeals), out, "", Want{})
		if c.want == inMemory {
			must(t, err)
			must(t, up.Close())
		} else if err == nil || !strings.Contains(err.Error(), "beside its file") {
			t.Errorf("%s, uploaded: %v", name, err)
		}
	}
}

// TestTooLarge stays out of memory, and is quick about it.
func TestTooLarge(t *testing.T) {
	path := server(t, tempDir(t))
	must(t, os.Truncate(path, 2<<30)) // sparse: a hole behind the program
	s, said := store(t, StoreOptions{})
	for range 3 {
		if i := opened(t, s, path).Info(); i.Exec != atPath || !strings.Contains(i.Why, "2048 MiB are more than the 256 MiB") || i.Memory != 0 {
			t.Errorf("%+v", i)
		}
	}
	if len(*said) != 1 {
		t.Errorf("said %q", *said)
	}
	s.verify = &Verifier{}
	refusedBy(t, s, path, "ENTRYPOINT_STATE_DIR")
}

// TestMemoryLimits reads control groups as the kernel prints them.
func TestMemoryLimits(t *testing.T) {
	const mib = 1 << 20
	files := func(t *testing.T, list map[string]string) memoryView {
		root := tempDir(t)
		for name, text := range list {
			write(t, filepath.Join(root, name), text, 0o644)
		}
		return memoryView{filepath.Join(root, "proc"), filepath.Join(root, "cg")}
	}
	for name, c := range map[string]struct {
		files map[string]string
		free  int64
	}{
		"nothing known": {nil, 1<<63 - 1},
		"machine":       {map[string]string{"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   2048 kB\n"}, 2 * mib},
		"two": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "cg/a/memory.max": "104857600\n", "cg/a/memory.current": "94371840\n",
			"cg/a/b/memory.max": "max\n", "cg/a/b/memory.current": "1\n", "cg/memory.max": "max\n",
		}, 10 * mib},
		"two, with idle pages": {map[string]string{
			"proc/self/cgroup": "0::/\n", "cg/memory.max": "104857600\n", "cg/memory.current": "104857600\n",
			"cg/memory.stat": "anon 1\ninactive_file 52428800\n",
		}, 50 * mib},
		"one": {map[string]string{
			"proc/self/cgroup":                "3:cpu:/x\n4:memory:/docker/1\n0::/\n", // the directory is the container's own
			"cg/memory/memory.limit_in_bytes": "20971520\n", "cg/memory/memory.usage_in_bytes": "22020096\n",
		}, 0},
		"hostile": {map[string]string{"proc/self/cgroup": "0::/../../..\n:::\n", "cg/memory.max": "-5\n"}, 1<<63 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			if free := files(t, c.files).free(1 << 62); free != c.free {
				t.Errorf("%d, expected %d", free, c.free)
			}
		})
	}
	s := &Store{exec: ExecAuto, memory: files(t, map[string]string{"proc/meminfo": "MemAvailable: 40960 kB\n"})}
	for size, fits := range map[int64]bool{10 * mib: true, 10*mib + 1: false} {
		if err := s.fits(size); (err == nil) != fits {
			t.Errorf("%d: %v", size, err)
		}
	}
	s.exec = ExecCopy
	for size, fits := range map[int64]bool{40 * mib: true, 40*mib + 1: false} {
		if err := s.fits(size); (err == nil) != fits {
			t.Errorf("copy, %d: %v", size, err)
		}
	}
}

// TestNoMemoryFiles has a kernel that does not execute them.
func TestNoMemoryFiles(t *testing.T) {
	path := server(t, tempDir(t))
	for exec, part := range map[Exec]string{ExecAuto: "", ExecCopy: "operation not permitted"} {
		s, said := store(t, StoreOptions{Exec: exec})
		s.sealed = func() error { return plain("the kernel executes no memory files", unix.EPERM) }
		if part != "" {
			refusedBy(t, s, path, part)
			continue
		}
		for range 2 {
			if i := opened(t, s, path).Info(); i.Exec != atPath || !strings.Contains(i.Why, "executes no memory files") {
				t.Errorf("%+v", i)
			}
		}
		if len(*said) != 1 || !strings.Contains((*said)[0], "runs from its path") {
			t.Errorf("said %q", *said)
		}
	}
}

// TestStateDirs has state directories that cannot be used.
func TestStateDirs(t *testing.T) {
	file := write(t, filepath.Join(tempDir(t), "file"), "x", 0o644)
	noexec := tempDir(t)
	mounted := unix.Mount("tmpfs", noexec, "tmpfs", unix.MS_NOEXEC, "size=1m") == nil
	if mounted {
		t.Cleanup(func() { must(t, unix.Unmount(noexec, unix.MNT_DETACH)) })
	}
	for dir, part := range map[string]string{"/nonexistent": "no such file", file: "not a directory", "/proc": "cannot keep", noexec: "mounted noexec"} {
		if dir == noexec && !mounted {
			continue
		}
		if _, err := NewStore(StoreOptions{Exec: ExecCopy, StateDir: dir, Try: reaper.New().TryExec}); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v", dir, err)
		}
		s, said := store(t, StoreOptions{StateDir: dir, Try: reaper.New().TryExec})
		if len(*said) != 1 || !strings.Contains((*said)[0], part) {
			t.Errorf("%q: said %q", dir, *said)
		}
		if i := opened(t, s, server(t, tempDir(t))).Info(); i.Exec != inMemory {
			t.Errorf("%q: %+v", dir, i)
		}
	}
	if left, _ := filepath.Glob(noexec + "/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestDiskFull falls back to memory, and says it once.
func TestDiskFull(t *testing.T) {
	dir := tempDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	path := server(t, tempDir(t))
	s, said := store(t, StoreOptions{StateDir: dir})
	for range 2 {
		if i := opened(t, s, path).Info(); i.Exec != inMemory || !strings.Contains(i.Why, "no space left") {
			t.Errorf("%+v", i)
		}
	}
	if len(*said) != 1 {
		t.Errorf("said %q", *said)
	}
	if left, _ := filepath.Glob(dir + "/*/*/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestLeftovers removes the directories of the dead, and no others.
func TestLeftovers(t *testing.T) {
	dir := tempDir(t)
	alive, _ := store(t, StoreOptions{StateDir: dir})
	a := opened(t, alive, server(t, tempDir(t)))
	old := time.Now().Add(-time.Hour)
	aged := func(name string, lock bool) string {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Join(path, "1"), 0o755))
		if lock {
			write(t, filepath.Join(path, stateLock), "", 0o600)
		}
		must(t, os.Chtimes(path, old, old))
		return path
	}
	gone := []string{aged("artifacts-0123456789abcdef", true), aged("artifacts-00112233445566ff", false)}
	stay := []string{aged("artifacts-mine", true), aged("other", false), filepath.Dir(filepath.Dir(a.copy.path))}
	young := filepath.Join(dir, "artifacts-ffffffffffffffff")
	must(t, os.Mkdir(young, 0o755)) // somebody is about to lock it
	link := filepath.Join(dir, "artifacts-eeeeeeeeeeeeeeee")
	must(t, os.Symlink(stay[1], link))
	next, _ := store(t, StoreOptions{StateDir: dir})
	for _, path := range gone {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", path, err)
		}
	}
	for _, path := range append(stay, young, link, next.files.dir) {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	if run(t, a) != 3 {
		t.Error("the copy of the living is gone")
	}
	must(t, alive.Close())
	if _, err := os.Stat(alive.files.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	refusedBy(t, alive, "/bin/true", "ending")
}

// TestChanging copies a file in which somebody keeps writing: a refusal or what it was at one time, never a mixture.
func TestChanging(t *testing.T) {
	const extra = 8 << 20
	path := server(t, tempDir(t))
	end := int64(len(contents(t, path)))
	must(t, os.Truncate(path, end+extra))
	s, _ := store(t, StoreOptions{})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := byte(1); ctx.Err() == nil; i++ {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt(bytes.Repeat([]byte{i}, extra), end)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	tail := make([]byte, extra)
	for range 6 {
		a, err := s.Open(t.Context(), path, "", "")
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ETXTBSY) {
				t.Error(err)
			}
			continue
		}
		must(t, readFull(a.file, tail, end))
		if !bytes.Equal(tail, bytes.Repeat(tail[:1], extra)) {
			t.Error("a mixture was copied")
		}
		must(t, a.Close())
	}
	stop()
	wg.Wait()
	must(t, opened(t, s, path).Close())
}

// TestOpenForWriting waits for a writer, but not for long.
func TestOpenForWriting(t *testing.T) {
	path := server(t, tempDir(t))
	s, _ := store(t, StoreOptions{})
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	if !written(openFile(t, path)) {
		t.Error("nobody is noticed")
	}
	refusedBy(t, s, path, "open for writing")
	for range 10 { // more than once only if we stand still for all the time that it waits
		begun, done := time.Now(), make(chan error)
		go func() {
			a, err := s.Open(t.Context(), path, "", "")
			if err == nil {
				err = a.Close()
			}
			done <- err
		}()
		must(t, f.Close())
		if err = <-done; err == nil || time.Since(begun) < quietFor {
			break
		}
		if f, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
			break
		}
	}
	must(t, err)
}

func TestCancelled(t *testing.T) {
	path := server(t, tempDir(t))
	for _, dir := range []string{"", tempDir(t)} {
		s, said := store(t, StoreOptions{StateDir: dir})
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if _, err := s.Open(ctx, path, "", ""); !errors.Is(err, context.Canceled) || len(*said) > 0 {
			t.Errorf("%v; said %q", err, *said)
		}
	}
}

// TestRounds counts what 500 programs leave behind.
func TestRounds(t *testing.T) {
	path, dir := server(t, tempDir(t)), tempDir(t)
	garbage := write(t, filepath.Join(tempDir(t), "garbage"), "garbage", 0o755)
	memory, _ := store(t, StoreOptions{})
	files, _ := store(t, StoreOptions{StateDir: dir})
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	must(t, opened(t, memory, path).Close())
	before := count()
	for range 250 {
		for _, s := range []*Store{memory, files} {
			must(t, opened(t, s, path).Close())
			refusedBy(t, s, garbage, "format")
		}
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if left, _ := filepath.Glob(dir + "/*/[0-9]*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestExecCannotHappen asks the kernel in earnest.
func TestExecCannotHappen(t *testing.T) {
	try := Try(reaper.New().TryExec)
	must(t, memoryExecutable(try))
	f, err := os.Open(write(t, filepath.Join(tempDir(t), "x"), noProgram, 0o644))
	must(t, err)
	defer f.Close()
	if err := try.why(f); !errors.Is(err, unix.EACCES) {
		t.Errorf("not executable: %v", err)
	}
}

func FuzzOrigin(f *testing.F) {
	body := contents(f, "/bin/true")
	f.Add(body)
	f.Add(bytes.ReplaceAll(body, []byte("libc.so.6"), []byte("$ORIGIN/x")))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &reads{Reader: bytes.NewReader(body)}
		head, err := readHead(r, int64(len(body)))
		if err != nil || !looksELF(head) {
			return
		}
		h, err := parseHeader(head, int64(len(body)))
		if err != nil || h.extent(r, int64(len(body))) != nil {
			return
		}
		r.bytes = 0
		if list := h.origin(r); list != "" && !strings.Contains(list, "ORIGIN") {
			t.Errorf("%q", list)
		}
		if r.bytes > maxDynamic+4*maxRunPath+tableChunk {
			t.Errorf("%d bytes read", r.bytes)
		}
	})
}

// TestPublic: a copy runs by its path only where everybody may follow that path, links in it included.
func TestPublic(t *testing.T) {
	top := tempDir(t)
	must(t, os.MkdirAll(filepath.Join(top, "closed", "state"), 0o755))
	must(t, os.Chmod(filepath.Join(top, "closed"), 0o700))
	must(t, os.Mkdir(filepath.Join(top, "open"), 0o755))
	must(t, os.Symlink("closed/state", filepath.Join(top, "link")))
	must(t, os.Symlink("open", filepath.Join(top, "good")))
	must(t, os.Symlink("../open", filepath.Join(top, "closed", "link")))
	program := server(t, tempDir(t))
	for dir, want := range map[string]bool{"open": true, "good": true, "closed/state": false, "link": false, "closed/link": false} {
		s, _ := store(t, StoreOptions{StateDir: filepath.Join(top, dir)})
		if path, fd := opened(t, s, program).Exec(); (fd == 0) != want {
			t.Errorf("%s: path %q, descriptor %d", dir, path, fd)
		}
	}
}
