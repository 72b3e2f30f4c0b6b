package reaper

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestGroupOutlivesLeader(t *testing.T) {
	p := startReading(t, shell("sleep 600 & a=$!; sleep 600 & echo $a $!; exit 3"))
	var members [2]int
	if _, err := fmt.Sscan(p.line(t), &members[0], &members[1]); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, p.Process); st.Code() != 3 {
		t.Fatal(st)
	}
	if !p.GroupAlive() {
		t.Fatal("the group has two members")
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the leader: %v", err)
	}
	if err := p.SignalGroup(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the group ends", func() bool { return !p.GroupAlive() })
	for _, member := range members { // a signal reaches a group of zombies
		eventually(t, "its member is collected", func() bool { return unix.Kill(member, 0) == unix.ESRCH })
	}
	for range 3 {
		if err := p.SignalGroup(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("the empty group: %v", err)
		}
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if _, ok := all.lingering[p.Process]; ok || p.pidfd != -1 {
		t.Error("the group is remembered")
	}
}

// A member that ended but is not collected, by a parent outside that never waits, is no life. It ends when its parent is no shell any more,
// which would collect it.
func TestGroupOfZombies(t *testing.T) {
	p := startReading(t, shell(`(sh -c 'until grep -qx sleep /proc/$PPID/comm; do sleep 0.01; done' & echo $!; exec setsid sleep 600 >/dev/null) & exit 0`))
	member, err := strconv.Atoi(p.line(t))
	if err != nil {
		t.Fatal(err)
	}
	wait(t, p.Process)
	t.Cleanup(func() {
		if s, ok := readStat(member); ok {
			_ = unix.Kill(s.parent, unix.SIGKILL)
			eventually(t, "both are collected", func() bool { return unix.Kill(member, 0) == unix.ESRCH })
		}
	})
	eventually(t, "no life in the group", func() bool { return !p.GroupAlive() })
	if s, ok := readStat(member); !ok || !s.zombie() || s.group != p.PID() {
		t.Errorf("the member is not a zombie of the group: %+v", s)
	}
}

// helperReuse makes a number of a dead leader be given to a stranger.
var helperReuse = helper("reuse", func(args []string) {
	r := New()
	p, err := r.Start(Spec{Path: "/bin/true", Umask: -1})
	must(err)
	r.mu.Lock()
	old := p.pidfd
	if p.pidfd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0); err != nil || args[0] == "old kernel" {
		p.pidfd = -1
	}
	_, err = unix.Wait4(p.pid, nil, 0, nil)
	must(err)
	delete(r.processes, p.pid) // as after over, when a member was left
	p.reaped = true
	r.lingering[p] = struct{}{}
	r.mu.Unlock()
	var q *Process
	for range 1000 {
		must(os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(p.pid-1)), 0))
		s := Spec{Path: "/bin/sleep", Args: []string{"sleep", "600"}, Umask: -1, Files: []int{}}
		if args[0] == "new kernel" { // whose stranger is no more, but its group is
			s.Path, s.Args = "/bin/sh", []string{"sh", "-c", "sleep 600 & exit 0"}
		}
		q, err = r.Start(s)
		must(err)
		if q.pid == p.pid {
			break
		}
		must(q.SignalGroup(syscall.SIGKILL))
	}
	if args[0] == "new kernel" {
		_, err = unix.Wait4(q.pid, nil, 0, nil)
		must(err)
		check(unix.Kill(q.pid, 0) == unix.ESRCH, "the stranger is still there")
	}
	check(q.pid == p.pid, "the number did not come again")
	err = p.SignalGroup(syscall.SIGKILL)
	check(errors.Is(err, os.ErrProcessDone), "the dead group: %v", err)
	check(!p.GroupAlive(), "the dead group is alive")
	time.Sleep(50 * time.Millisecond) // for a stranger to die
	check(groupLives(q.pid), "a stranger was killed")
	must(unix.Kill(-q.pid, syscall.SIGKILL))
})

func TestGroupNumberReused(t *testing.T) {
	if unix.Access("/proc/sys/kernel/ns_last_pid", unix.W_OK) != nil {
		t.Skip("needs root and a kernel that lets the next number be chosen")
	}
	for _, kernel := range []string{"new kernel", "old kernel"} {
		output(t, helperSpec(t, helperReuse, kernel))
	}
}

func TestStopped(t *testing.T) {
	p := start(t, Spec{Path: "/bin/sleep", Args: []string{"sleep", "600"}, Umask: -1})
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGTSTP} {
		if err := p.SignalGroup(sig); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-p.Stopped():
			if got != sig {
				t.Errorf("stopped by %v, want %v", got, sig)
			}
		case <-time.After(limit):
			t.Fatalf("not stopped by %v", sig)
		}
		if err := p.SignalGroup(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}

// terminal opens a pty by hand.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	var unlock, n int32
	_, _, e1 := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock)))
	_, _, e2 := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), unix.TIOCGPTN, uintptr(unsafe.Pointer(&n)))
	if e1 != 0 || e2 != 0 {
		t.Fatal(e1, e2)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(n)), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

var helperTTY = helper("tty", func([]string) {
	must(unix.IoctlSetInt(0, unix.TIOCSCTTY, 0))
	c := make(chan os.Signal, 100)
	Notify(c)
	r, stop := running()
	start := func() *Process {
		p, err := r.Start(Spec{Path: "/bin/sleep", Args: []string{"sleep", "600"}, Umask: -1, Foreground: true, TTY: 0})
		must(err)
		group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
		must(err)
		check(group == p.PID(), "foreground group %d, child %d", group, p.PID())
		return p
	}
	p := start()
	fmt.Println("stop")
	fmt.Println(SignalName(<-p.Stopped()))
	must(p.SignalGroup(syscall.SIGCONT))
	q := start() // from the background by now
	fmt.Println("interrupt")
	<-q.Done()
	fmt.Println(q.Status())
	check(len(c) == 0, "we got %d signals ourselves", len(c))
	must(p.SignalGroup(syscall.SIGKILL))
	<-p.Done()

	// Without a terminal it is no error.
	d, err := os.Open("/dev/null")
	must(err)
	for _, fd := range []int{int(d.Fd()), 999} {
		p, err := r.Start(Spec{Path: "/bin/true", Umask: -1, Foreground: true, TTY: fd})
		must(err)
		<-p.Done()
	}
	stop()
	fmt.Println("end")
})

func TestTerminal(t *testing.T) {
	master, slave := terminal(t)
	s := helperSpec(t, helperTTY)
	s.Session, s.Files = true, []int{int(slave.Fd()), 1, 2}
	p := startReading(t, s)
	for _, step := range []struct{ key, want string }{{"", "stop"}, {"\x1a", "SIGTSTP"}, {"", "interrupt"}, {"\x03", "killed by SIGINT"}, {"", "end"}} {
		if _, err := master.WriteString(step.key); err != nil {
			t.Fatal(err)
		}
		if got := p.line(t); got != step.want {
			t.Fatalf("after %q: %q, want %q", step.key, got, step.want)
		}
	}
	if st := wait(t, p.Process); !st.Success() {
		t.Error(st)
	}
}

// A process may call itself anything, also the rest of a stat line. Orphans belong to us at every depth.
func TestDescendants(t *testing.T) {
	nasty := `x) S 1 1 1 (`
	script := `printf %s '` + nasty + `' >/proc/$$/comm
		/bin/sh -c 'echo $$; sleep 600 & echo $!; wait' &
		(setsid /bin/sh -c 'echo $$; sleep 600 & echo $!; wait' &)
		true & exec 2>&1; echo $$; while :; do sleep 600; done`
	p := startReading(t, shell(script))
	var want []int
	for range 5 {
		pid, err := strconv.Atoi(p.line(t))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, pid)
	}
	eventually(t, "the orphan is ours", func() bool {
		s, _ := readStat(want[4])
		return s.pid != 0
	})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID()))
	if err != nil || strings.TrimSpace(string(b)) != nasty {
		t.Fatalf("the name is %q: %v", b, err)
	}
	slices.Sort(want)
	eventually(t, "all are found", func() bool { // the loop's own sleep is a sixth, and not what the true was before it ended
		got := all.Descendants()
		others := slices.DeleteFunc(slices.Clone(got), func(pid int) bool { return slices.Contains(want, pid) })
		if len(got) != 6 || len(others) != 1 {
			return false
		}
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", others[0]))
		return string(comm) == "sleep\n"
	})
	// A stopped one counts, a zombie does not.
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-p.Stopped()
	if n := len(all.Descendants()); n != 6 {
		t.Errorf("%d while one is stopped", n)
	}
	for _, pid := range want {
		if s, ok := readStat(pid); ok && s.parent == p.PID() {
			_ = unix.Kill(pid, unix.SIGKILL)
			eventually(t, "a zombie", func() bool { s, ok := readStat(pid); return ok && s.zombie() })
			if slices.Contains(all.Descendants(), pid) {
				t.Error("a zombie was listed")
			}
		}
	}
	eventually(t, "all are gone", func() bool { // its sleep may have to be found again as an orphan
		all.SignalDescendants(syscall.SIGKILL)
		return len(all.Descendants()) == 0
	})
}

func TestSignalDescendants(t *testing.T) {
	p := startReading(t, shell(`setsid /bin/sh -c 'sleep 600 & echo; wait' & wait`))
	p.line(t)
	n := 0
	eventually(t, "three processes", func() bool { n = len(all.Descendants()); return n == 3 })
	if got := all.SignalDescendants(syscall.SIGTERM); got != n {
		t.Errorf("%d signalled of %d", got, n)
	}
	eventually(t, "none is left", func() bool { return len(all.Descendants()) == 0 })
	if got := all.SignalDescendants(syscall.SIGTERM); got != 0 {
		t.Errorf("%d signalled of none", got)
	}
}

func TestParseStat(t *testing.T) {
	rest := " S 7 8 9 0 -1 4194304 95 0 0 0 0 0 0 0 20 0 1 0 12345 2568192 231"
	for name, ok := range map[string]bool{"cat": true, "x) S 1 1 1": true, "": true, "a\nb": true, ") (": true, "x) S 1 1 1 (": true} {
		s, got := parseStat(5, []byte("5 ("+name+")"+rest+"\n"))
		if want := (stat{pid: 5, parent: 7, group: 8, state: 'S', start: "12345"}); got != ok || s != want {
			t.Errorf("%q: %+v %v", name, s, got)
		}
	}
	for _, line := range []string{"", ")", "5 (a) S", "5 (a" + rest, "5 (a) S x 8" + rest} {
		if s, ok := parseStat(5, []byte(line)); ok {
			t.Errorf("%q: %+v", line, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("5 (a b) S 7 8 9 0 -1 4194304 95 0 0 0 0 0 0 0 20 0 1 0 12345 2568192 231\n"))
	f.Add([]byte(")"))
	f.Add([]byte(")\x00 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if s, ok := parseStat(5, line); ok && (s.pid != 5 || s.start == "" || s.state == 0) {
			t.Errorf("%q: %+v", line, s)
		}
	})
}

// helperOne is PID 1 of a namespace whose /proc is that of its parent.
var _ = helper("one", func([]string) {
	check(os.Getpid() == 1, "number %d", os.Getpid())
	r, stop := running()
	p, err := r.Start(Spec{Path: "/bin/sleep", Args: []string{"sleep", "600"}, Umask: -1, Files: []int{}, PIDVars: []string{"A"}})
	must(err)
	got := r.Descendants()
	check(slices.Equal(got, []int{p.PID()}), "descendants %v, child %d", got, p.PID())
	check(r.SignalDescendants(syscall.SIGTERM) == 1, "not one signalled")
	<-p.Done()
	check(p.Status() == SignalStatus(syscall.SIGTERM), "%v", p.Status())

	q, err := r.Start(shell("(while kill -0 $$ 2>/dev/null; do sleep 0.01; done) & exit 7")) // its orphan comes to us without our asking
	must(err)
	<-q.Done()
	for until := time.Now().Add(limit); r.Stats().Orphans == 0; time.Sleep(time.Millisecond) {
		check(time.Now().Before(until), "no orphan")
	}
	stop()
	check(!q.GroupAlive() && r.Stats() == Stats{Children: 2, Orphans: 1}, "%+v", r.Stats())
})

func TestPIDOne(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a pid namespace needs root")
	}
	s := shell(`unshare -f -p /bin/bash -c 'exec -a helper:one "$0"' ` + executable(t))
	output(t, s)
}
