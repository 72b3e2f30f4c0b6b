package reaper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEveryExitCode(t *testing.T) {
	var ps [256]*Process
	for code := range ps {
		ps[code] = start(t, shell("exit "+strconv.Itoa(code)))
	}
	for code, p := range ps {
		st := wait(t, p)
		if st != ExitStatus(code) || st.Code() != code || st.ExitCode() != code || st.Signal() != 0 || st.Success() != (code == 0) {
			t.Errorf("code %d: %v", code, st)
		}
	}
}

func TestEveryDeadlySignal(t *testing.T) {
	harmless := map[syscall.Signal]bool{
		syscall.SIGCHLD: true, syscall.SIGCONT: true, syscall.SIGURG: true, syscall.SIGWINCH: true,
		syscall.SIGSTOP: true, syscall.SIGTSTP: true, syscall.SIGTTIN: true, syscall.SIGTTOU: true,
	}
	for sig := syscall.Signal(1); sig <= maxSignal; sig++ {
		if harmless[sig] {
			continue
		}
		p := start(t, Spec{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Umask: -1, Dir: t.TempDir()})
		if err := p.Signal(sig); err != nil {
			t.Fatal(err)
		}
		st := wait(t, p)
		if st.Signal() != sig || st.ExitCode() != 128+int(sig) || st.Code() != -1 || st.Success() {
			t.Errorf("%v: %v", sig, st)
		}
		if err := p.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal to a dead process: %v", err)
		}
	}
	for st, want := range map[Status]string{ExitStatus(3): "exited with code 3", SignalStatus(syscall.SIGTERM): "killed by SIGTERM"} {
		if st.String() != want {
			t.Errorf("%q, want %q", st, want)
		}
	}
}

// A child that failed leaves nothing: no descriptor, no zombie, no count, no matter who collected it. It is looked for in a process to which
// the orphans of other tests do not come.
func TestExecFailures(t *testing.T) { output(t, helperSpec(t, helperFailures, t.TempDir())) }

var helperFailures = helper("failures", func(args []string) {
	must(BecomeSubreaper())
	r, end := running()
	defer end()
	dir := args[0]
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, []byte(text), mode))
		return path
	}
	closed := Credential{UID: 65534, GID: 65534}
	secret := filepath.Join(dir, "secret")
	must(os.Mkdir(secret, 0o700))
	type failure struct {
		spec Spec
		code int
		err  error
	}
	tests := map[string]failure{
		"missing":     {Spec{Path: dir + "/nothing"}, 127, unix.ENOENT},
		"many files":  {Spec{Path: dir + "/nothing", Files: slices.Repeat([]int{0}, 60)}, 127, unix.ENOENT},
		"denied":      {Spec{Path: file("plain", "x", 0o644)}, 126, unix.EACCES},
		"directory":   {Spec{Path: dir}, 126, unix.EACCES},
		"no format":   {Spec{Path: file("words", "just words\n", 0o755)}, 126, unix.ENOEXEC},
		"interpreter": {Spec{Path: file("script", "#!/no/such\n", 0o755)}, 127, unix.ENOENT},
		"directory 2": {Spec{Path: "/bin/true", Dir: dir + "/nothing"}, 126, unix.ENOENT},
		"descriptor":  {Spec{Path: "/bin/true", Files: []int{0, 1, 987}}, 126, unix.EBADF},
		"nul":         {Spec{Path: "/bin/true", Args: []string{"a\x00b"}}, 126, unix.EINVAL},
		"name":        {Spec{Path: "/bin/true", PIDVars: []string{"A=B"}}, 126, unix.EINVAL},
		"signal":      {Spec{Path: "/bin/true", ParentDeathSignal: 99}, 126, unix.EINVAL},
		"exec fd":     {Spec{Path: "x", FD: 987}, 126, unix.EBADF},
	}
	if os.Getuid() == 0 {
		tests["their rights"] = failure{Spec{Path: "/bin/true", Dir: secret, Credential: &closed}, 126, unix.EACCES}
		tests["bad user"] = failure{Spec{Path: "/bin/true", Credential: &Credential{UID: ^uint32(0)}}, 126, unix.EINVAL}
	} else {
		tests["not root"] = failure{Spec{Path: "/bin/true", Credential: &Credential{}}, 126, unix.EPERM}
	}
	var before map[int]string
	for round := range 20 {
		for name, test := range tests {
			test.spec.Umask = -1
			p, err := r.Start(test.spec)
			var se *StartError
			check(p == nil && errors.As(err, &se) && errors.Is(err, test.err) && se.ExitCode() == test.code, "%s: %v", name, err)
		}
		if round == 0 { // what the first start opens for good is open
			var err error
			before, err = descriptorsOf(os.Getpid())
			must(err)
		}
	}
	after, err := descriptorsOf(os.Getpid())
	must(err)
	check(reflect.DeepEqual(before, after), "descriptors\nbefore %v\nafter  %v", before, after)
	check(zombies(os.Getpid()) == 0, "zombies")
	check(r.Stats() == Stats{}, "counted %+v", r.Stats())
})

var helperAlone = helper("alone", func([]string) {
	r := New() // does not run
	for range 20 {
		_, err := r.Start(Spec{Path: "/no/such", Umask: -1})
		check(errors.Is(err, unix.ENOENT), "%v", err)
	}
	_, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
	check(err == unix.ECHILD, "children are left: %v", err)
	check(len(r.processes)+len(r.lingering) == 0, "registered: %v %v", r.processes, r.lingering)
	check(r.Stats() == Stats{}, "%+v", r.Stats())

	// The same with the child collected before Start looks.
	a, err := newForkArgs(&Spec{Path: "/no/such", Umask: -1})
	must(err)
	var pipe [2]int
	must(unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	a.pipe = uintptr(pipe[1])
	p, err := r.fork(a)
	must(err)
	unix.Close(pipe[1])
	for p.Status() == (Status{}) {
		r.collect()
		runtime.Gosched()
	}
	err = r.outcome(p, pipe[0], "/no/such")
	check(errors.Is(err, unix.ENOENT), "%v", err)
	check(r.Stats() == Stats{}, "counted: %+v", r.Stats())
	check(len(r.processes)+len(r.lingering) == 0 && p.pidfd < 0, "registered: %v %v", r.processes, r.lingering)
})

func TestExecFailureWithoutRun(t *testing.T) { output(t, helperSpec(t, helperAlone)) }

// The child has exactly the descriptors it was promised, in the right places.
func TestFiles(t *testing.T) {
	var files []*os.File
	for i := range 16 {
		files = append(files, temporary(t, "f"+strconv.Itoa(i)))
	}
	loud, err := unix.Open("/dev/zero", unix.O_RDONLY, 0) // without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(loud)
	for i, want := 3, 0; i < 10; i++ { // a block of low descriptors that are sources and targets at once
		var st unix.Stat_t
		if unix.Fstat(i, &st) == unix.EBADF && unix.Dup3(int(files[want].Fd()), i, unix.O_CLOEXEC) == nil {
			defer unix.Close(i)
			want++
		}
	}
	all16 := make([]int, 16)
	for i := range all16 {
		all16[i] = int(files[15-i].Fd())
	}
	tests := [][]int{
		nil, {}, {-1}, {-1, -1, -1, 0}, {0}, {0, 1}, {5, 3, 4, 0}, {4, 3, 5, 5, 3, 0, 1}, {-1, 2, -1, 3, -1, 4, -1, 5}, {3, 4, 5, 6, 7, 8, 9},
		{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}, {1, 2, 0}, {7, -1, 6, 6, 6, -1, 3}, all16, {int(files[3].Fd()), loud, int(files[3].Fd())},
	}
	many := slices.Repeat([]int{3, int(files[1].Fd()), 0}, 20) // targets that are free with us
	tests = append(tests, many, many[1:59])
	t.Run("range", func(t *testing.T) { filesArrive(t, tests) })
	t.Run("old kernel", func(t *testing.T) {
		defer func(f func() bool) { closeRange = f }(closeRange)
		closeRange = func() bool { return false }
		closeAllOnExec()
		filesArrive(t, tests)
	})
}

func filesArrive(t *testing.T, tests [][]int) {
	t.Helper()
	for _, spec := range tests {
		want := map[int]string{}
		ours := descriptors(t, os.Getpid())
		for i, fd := range spec {
			if fd >= 0 {
				want[i] = ours[fd]
			}
		}
		if spec == nil {
			want = map[int]string{0: ours[0], 1: ours[1], 2: ours[2]}
		}
		p := start(t, Spec{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Umask: -1, Files: spec})
		var got map[int]string
		eventually(t, fmt.Sprintf("%v gives %v", spec, want), func() bool { // the dynamic linker opens and closes some
			got = descriptors(t, p.PID())
			return reflect.DeepEqual(got, want)
		})
		_ = p.Signal(syscall.SIGKILL)
		wait(t, p)
	}
}

func TestEnvironment(t *testing.T) {
	s := Spec{
		Path: "/bin/cat", Args: []string{"cat", "/proc/self/environ", "/proc/self/stat"}, Umask: -1,
		Env: []string{"Z=1", "A=2", "Z=3", "empty=", "odd"}, PIDVars: []string{"LISTEN_PID", "X"},
	}
	out := output(t, s)
	stat := out[strings.LastIndexByte(out, 0)+1:]
	pid := stat[:strings.IndexByte(stat, ' ')]
	want := "Z=1\x00A=2\x00Z=3\x00empty=\x00odd\x00LISTEN_PID=" + pid + "\x00X=" + pid + "\x00"
	if got := out[:len(out)-len(stat)]; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSessionAndGroup(t *testing.T) {
	sid, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, session := range []bool{false, true} {
		p := start(t, Spec{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Umask: -1, Session: session})
		want := sid
		if session {
			want = p.PID()
		}
		pgid, err1 := unix.Getpgid(p.PID())
		got, err2 := unix.Getsid(p.PID())
		if err := errors.Join(err1, err2); err != nil || pgid != p.PID() || got != want {
			t.Errorf("session %v: group %d, session %d of %d: %v", session, pgid, got, p.PID(), err)
		}
	}
}

func TestAttributes(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "d")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(top, 0o755), os.Chmod(filepath.Dir(top), 0o755)); err != nil {
		t.Fatal(err)
	}
	s := shell(`umask; pwd -P; cat /proc/self/oom_score_adj /proc/self/status`)
	s.Umask, s.NoNewPrivs, s.Dir, s.OOMScoreAdj = 0o37, true, dir, 987
	if os.Getuid() == 0 {
		s.Credential = &Credential{UID: 4321, GID: 8765, Groups: []uint32{11, 70000}}
	}
	out := output(t, s)
	lines := strings.SplitN(out, "\n", 4)
	if lines[0] != "0037" || lines[1] != dir || lines[2] != "987" {
		t.Errorf("umask %s, directory %s, oom_score_adj %s", lines[0], lines[1], lines[2])
	}
	want := map[string]string{"NoNewPrivs": "1"}
	if s.Credential != nil {
		want["Uid"], want["Gid"], want["Groups"] = "4321 4321 4321 4321", "8765 8765 8765 8765", "11 70000"
		want["CapEff"] = "0000000000000000"
	}
	for key, value := range want {
		if got := field(out, key); got != value {
			t.Errorf("%s: %q, want %q", key, got, value)
		}
	}
	if os.Getuid() == 0 {
		s := helperSpec(t, helperGroups)
		s.Credential = &Credential{Groups: []uint32{11, 12}}
		if out := output(t, s); field(out, "Groups") != "" || field(out, "Uid") != "1 1 1 1" || field(out, "NoNewPrivs") != "0" {
			t.Errorf("groups %q of %q, no-new-privileges %q", field(out, "Groups"), field(out, "Uid"), field(out, "NoNewPrivs"))
		}
	}
}

// helperGroups has groups of its own, which its child must not get.
var helperGroups = helper("groups", func([]string) {
	r, stop := running()
	p, err := r.Start(Spec{Path: "/bin/cat", Args: []string{"cat", "/proc/self/status"}, Umask: -1, Credential: &Credential{UID: 1, GID: 1}})
	must(err)
	<-p.Done()
	stop()
})

// An artifact that was opened is what runs, whatever happened to its name.
func TestDescriptorExec(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	b, err := os.ReadFile("/bin/cat")
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s := Spec{Path: path, FD: int(f.Fd()), Args: []string{"other", "/proc/self/cmdline"}, Umask: -1, Env: []string{"A=1"}}
	if out := output(t, s); out != "other\x00/proc/self/cmdline\x00" {
		t.Errorf("%q", out)
	}
}

// A file that somebody has open for writing for a moment is tried again.
func TestBusyProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	b, err := os.ReadFile("/bin/true")
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := all.Start(Spec{Path: path, Umask: -1}); !errors.Is(err, unix.ETXTBSY) {
		t.Errorf("while it is written: %v", err)
	}
	for {
		tries, begun := 0, time.Now()
		p, err := all.Start(Spec{Path: path, Umask: -1, Thread: func() error { // called for each try
			if tries++; tries == 2 {
				f.Close()
			}
			return nil
		}})
		if tries == 1 && time.Since(begun) >= busyFor { // we stood still: there was no time for another one
			continue
		}
		if err != nil || tries < 2 {
			t.Errorf("afterwards: %v, tried %d times", err, tries)
		} else {
			<-p.Done()
		}
		break
	}
}

var helperDeath = helper("death", func([]string) {
	r, _ := running()
	var p, q *Process
	var locked, ended sync.WaitGroup
	locked.Add(2)
	for _, to := range []**Process{&p, &q} { // two, because the main thread stays when its goroutine ends
		ended.Go(func() {
			runtime.LockOSThread() // the thread ends with the goroutine: the kernel must not take that for our death
			locked.Done()
			locked.Wait()
			var err error
			*to, err = r.Start(Spec{Path: "/bin/sleep", Args: []string{"sleep", "600"}, Umask: -1, Files: []int{}, ParentDeathSignal: syscall.SIGTERM})
			must(err)
		})
	}
	ended.Wait()
	select {
	case <-p.Done():
		must(fmt.Errorf("it did not survive a thread: %v", p.Status()))
	case <-q.Done():
		must(fmt.Errorf("it did not survive a thread: %v", q.Status()))
	case <-time.After(200 * time.Millisecond):
	}
	fmt.Println(p.PID())
	<-p.Done()
})

func TestParentDeathSignal(t *testing.T) {
	h := startReading(t, helperSpec(t, helperDeath))
	pid, err := strconv.Atoi(h.line(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, h.Process)
	eventually(t, "the child is gone", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
}

var _ = helper("nofile", func([]string) {
	r, stop := running()
	must(r.RestoreNoFile("/proc/self/exe", "helper:death"))
	p, err := r.Start(shell("ulimit -Sn; ulimit -Hn"))
	must(err)
	<-p.Done()
	stop()
	check(r.Stats() == Stats{Children: 1}, "%+v", r.Stats())
})

func TestRestoreNoFile(t *testing.T) {
	s := shell("ulimit -Sn 321; ulimit -Hn 5000; exec -a helper:nofile " + executable(t))
	s.Path = "/bin/bash"
	if out := output(t, s); out != "321\n5000\n" {
		t.Errorf("limits %q", out)
	}
	s = shell("ulimit -Sn 5000; ulimit -Hn 5000; exec -a helper:nofile " + executable(t)) // nothing to restore
	s.Path = "/bin/bash"
	if out := output(t, s); out != "5000\n5000\n" {
		t.Errorf("limits %q", out)
	}
}

var _ = helper("mask", func([]string) {
	r, stop := running()
	Notify(make(chan os.Signal, 100))
	p, err := r.Start(Spec{Path: "/bin/cat", Args: []string{"cat", "/proc/self/status"}, Umask: -1})
	must(err)
	<-p.Done()
	stop()
})

// What was blocked or ignored when we were started is so in the child, and nothing else.
func TestMaskAndDispositions(t *testing.T) {
	tests := map[string]struct{ trap, block, ignored string }{
		"nothing": {":", "0000000000000000", "0000000000000000"},
		"nohup":   {"trap '' HUP INT", "0000004000000800", "0000000000000003"},
	}
	for name, test := range tests {
		runtime.LockOSThread()
		var set, old unix.Sigset_t
		bits, err := strconv.ParseUint(test.block, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		setBits(&set, bits)
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &set, &old); err != nil {
			t.Fatal(err)
		}
		s := shell(test.trap + "; exec -a helper:mask " + executable(t))
		s.Path = "/bin/bash"
		p := startReading(t, s)
		err = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
		runtime.UnlockOSThread()
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for {
			line := p.line(t)
			out.WriteString(line + "\n")
			if strings.HasPrefix(line, "SigCgt") {
				break
			}
		}
		if blk, ign, cgt := field(out.String(), "SigBlk"), field(out.String(), "SigIgn"), field(out.String(), "SigCgt"); blk != test.block || ign != test.ignored || cgt != "0000000000000000" {
			t.Errorf("%s: blocked %s, ignored %s, caught %s", name, blk, ign, cgt)
		}
		wait(t, p.Process)
	}
}

// setBits fills a mask whose words have another size on 32-bit machines.
func setBits(set *unix.Sigset_t, bits uint64) {
	word := uint(reflect.TypeOf(set.Val[0]).Bits())
	for n := uint(0); n < 64; n++ {
		if bits&(1<<n) != 0 {
			set.Val[n/word] |= 1 << (n % word)
		}
	}
}

func TestLookupUser(t *testing.T) {
	c, _, _, err := LookupUser("65533:65532")
	if err != nil || !reflect.DeepEqual(c, Credential{UID: 65533, GID: 65532}) || c.String() != "65533:65532" {
		t.Errorf("%+v %v", c, err)
	}
	c, home, name, err := LookupUser("root")
	if err != nil || c.UID != 0 || home != "/root" || name != "root" {
		t.Errorf("%+v %q %q %v", c, home, name, err)
	}
	if _, _, _, err := LookupUser("no-such-user"); err == nil {
		t.Error("found nobody")
	}
}

// A start with a Thread prepares the very thread that forks, and that thread ends.
func TestStartFromItsOwnThread(t *testing.T) {
	before := threads(t)
	for _, death := range []syscall.Signal{0, syscall.SIGKILL} {
		prepared := 0
		p, err := all.Start(Spec{
			Path: "/bin/sh", Args: []string{"sh", "-c", "grep NoNewPrivs /proc/self/status"}, Umask: -1, ParentDeathSignal: death,
			Files: []int{-1, pipeTo(t, "NoNewPrivs:\t1\n"), 2},
			Thread: func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("the main thread was prepared: it would never end")
				}
				prepared++
				return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if st := wait(t, p); !st.Success() || prepared != 1 {
			t.Errorf("%v, prepared %d times", st, prepared)
		}
	}
	if got, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); got != 0 {
		t.Error("another thread of ours has it too")
	}
	for until := time.Now().Add(limit); prepared(t) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d prepared threads are left, %d threads before", prepared(t), before)
		}
	}
	_, err := all.Start(Spec{Path: "/bin/true", Umask: -1, Thread: func() error { return unix.EBUSY }})
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("a failing Thread gave %v", err)
	}
}

// threads counts the threads of this process, prepared those with no_new_privs.
func threads(t *testing.T) int { t.Helper(); return countThreads(t, "Pid:") }

func prepared(t *testing.T) int { t.Helper(); return countThreads(t, "NoNewPrivs:\t1") }

func countThreads(t *testing.T, line string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), "\n"+line) {
			n++
		}
	}
	return n
}

// pipeTo is the writing end of a pipe out of which want has to come before the test ends.
func pipeTo(t *testing.T, want string) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != want {
			t.Errorf("it wrote %q (%v), want %q", got, err, want)
		}
	})
	return int(w.Fd())
}

// After a start that found no place for a process, the next one first looks for it, and forgets that when there was.
func TestRoom(t *testing.T) {
	all.tight.Store(true)
	p, err := all.Start(Spec{Path: "/bin/true", Umask: -1, Thread: func() error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if st := wait(t, p); !st.Success() || all.tight.Load() {
		t.Errorf("%v; tight: %v", st, all.tight.Load())
	}
}
