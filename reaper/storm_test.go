package reaper

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperAtOnce starts n children that end before Start is back.
var helperAtOnce = helper("at-once", func(args []string) {
	n, err := strconv.Atoi(args[0])
	must(err)
	r, stop := running()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range n / 4 {
				p, err := r.Start(Spec{Path: "/bin/true", Umask: -1, Files: []int{}})
				must(err)
				select {
				case <-p.Done():
				case <-time.After(limit):
					must(fmt.Errorf("lost the status of %d", p.PID()))
				}
				check(p.Status().Success(), "%v", p.Status())
			}
		})
	}
	group.Wait()
	stop()
	check(r.Stats() == Stats{Children: uint64(n)}, "%+v", r.Stats())
	check(len(r.processes)+len(r.lingering) == 0, "remembered: %d and %d groups", len(r.processes), len(r.lingering))
})

// A child that ends before Start is back is found all the same, and its status comes once. In a process of its own: what
// an earlier test has left to be collected would be counted.
func TestDieAtOnce(t *testing.T) { output(t, helperSpec(t, helperAtOnce, "2000")) }

// helperStorm starts n children, each of which makes an orphan and exits with a code of its own.
var helperStorm = helper("storm", func(args []string) {
	n, err := strconv.Atoi(args[0])
	must(err)
	must(BecomeSubreaper())
	r, stop := running()
	r.Descendants() // reading /proc opens what the runtime keeps
	first, err := r.Start(Spec{Path: "/bin/true", Umask: -1, Files: []int{}})
	must(err)
	<-first.Done() // Run has all that it needs
	fds, routines := countFDs(), runtime.NumGoroutine()
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := w; i < n; i += 8 {
				p, err := r.Start(shell(": & exit " + strconv.Itoa(i%256)))
				must(err)
				select {
				case <-p.Done():
				case <-time.After(limit):
					must(fmt.Errorf("lost the status of %d", p.PID()))
				}
				check(p.Status() == ExitStatus(i%256), "%d: %v", i, p.Status())
			}
		})
	}
	group.Wait()
	for until := time.Now().Add(limit); len(r.Descendants()) > 0; time.Sleep(time.Millisecond) {
		check(time.Now().Before(until), "left: %v", r.Descendants())
	}
	for until := time.Now().Add(limit); countFDs() != fds; time.Sleep(time.Millisecond) { // groups end with their orphans
		check(time.Now().Before(until), "%d descriptors, %d before", countFDs(), fds)
	}
	for until := time.Now().Add(limit); runtime.NumGoroutine() > routines; time.Sleep(time.Millisecond) { // one that is done is counted until it is gone
		check(time.Now().Before(until), "%d goroutines, %d before", runtime.NumGoroutine(), routines)
	}
	stop()
	check(zombies(os.Getpid()) == 0, "zombies are left")
	st := r.Stats()
	check(st.Children == uint64(n)+1 && st.Orphans > 0 && st.Orphans <= uint64(n), "%+v", st)
	fmt.Printf("%+v", st)
})

// countFDs counts our descriptors without opening one.
func countFDs() int {
	n := 0
	for fd := range 1024 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			n++
		}
	}
	return n
}

func TestSpawnsInOrphanStorm(t *testing.T) {
	n := 5200
	if testing.Short() {
		n = 500
	}
	since := time.Now()
	out := output(t, helperSpec(t, helperStorm, strconv.Itoa(n)))
	t.Logf("%d spawns in %v: %s", n, time.Since(since).Round(time.Millisecond), out)
}

// helperBurst lets n orphans end at the same moment and starts children meanwhile.
var helperBurst = helper("burst", func(args []string) {
	n, err := strconv.Atoi(args[0])
	must(err)
	must(BecomeSubreaper())
	r, stop := running()
	var gate [2]int
	must(unix.Pipe2(gate[:], unix.O_CLOEXEC))
	const each = 500
	var makers []*Process
	for range n / each {
		s := shell(fmt.Sprintf("i=0; while [ $i -lt %d ]; do (read x <&3) & i=$((i+1)); done", each))
		s.Files = []int{0, 1, 2, gate[0]}
		p, err := r.Start(s)
		must(err)
		makers = append(makers, p)
	}
	for _, p := range makers {
		<-p.Done()
		check(p.Status().Success(), "cannot make orphans: %v", p.Status())
	}
	check(r.Stats().Orphans == 0, "%+v", r.Stats())

	since := time.Now()
	unix.Close(gate[1])
	for r.Stats().Orphans == 0 {
		check(time.Since(since) < limit, "no orphan is collected")
		runtime.Gosched()
	}
	// The processor is everybody's now, so time says nothing: whoever starts a child must not wait for the last orphan.
	var started []*Process
	var longest time.Duration
	meanwhile := 0
	for r.Stats().Orphans < uint64(n) {
		check(time.Since(since) < 3*limit, "%+v", r.Stats())
		if len(started) == 20 {
			time.Sleep(time.Millisecond)
			continue
		}
		begin := time.Now()
		p, err := r.Start(Spec{Path: "/bin/true", Umask: -1})
		must(err)
		longest = max(longest, time.Since(begin))
		started = append(started, p)
		if r.Stats().Orphans < uint64(n) {
			meanwhile++
		}
	}
	took := time.Since(since)
	for _, p := range started {
		<-p.Done()
	}
	stop()
	_, err = unix.Wait4(-1, nil, unix.WNOHANG, nil)
	check(err == unix.ECHILD, "children are left: %v", err)
	fmt.Printf("%d orphans in %v, %d starts meanwhile took up to %v",
		n, took.Round(time.Millisecond), meanwhile, longest.Round(time.Microsecond))
	check(meanwhile > 0, ": starts wait for the orphans")
})

func TestOrphansAtOnce(t *testing.T) {
	n := 20000
	if testing.Short() {
		n = 2000
	}
	// One at a time on this machine: two would use up its process numbers, of which there may be just 32768.
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "entrypoint-orphans.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Log(output(t, helperSpec(t, helperBurst, strconv.Itoa(n))))
}

// One that starts and one that stops running at the same time: the last ones are collected before Run returns.
var helperEnd = helper("end", func([]string) {
	for range 50 {
		r, stop := running()
		p, err := r.Start(Spec{Path: "/bin/true", Umask: -1, ParentDeathSignal: syscall.SIGKILL})
		must(err)
		<-p.Done()
		stop()
		_, err = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		check(err == unix.ECHILD, "children are left: %v", err)
	}
	for until := time.Now().Add(limit); runtime.NumGoroutine() > 2; time.Sleep(time.Millisecond) { // and os/signal's
		check(time.Now().Before(until), "%d goroutines", runtime.NumGoroutine())
	}
})

func TestRunLeavesNothing(t *testing.T) { output(t, helperSpec(t, helperEnd)) }

// The time until the new program runs, without that until it was collected.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p, err := all.Start(Spec{Path: "/bin/true", Args: []string{"true"}, Umask: -1})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		<-p.Done()
		b.StartTimer()
	}
}

// BenchmarkForkExec is the same by the standard library, which shares the memory until exec.
func BenchmarkForkExec(b *testing.B) {
	for b.Loop() {
		pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		for unix.Kill(pid, 0) == nil { // the one Reaper of this process collects it
			time.Sleep(100 * time.Microsecond)
		}
		b.StartTimer()
	}
}
