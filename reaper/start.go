package reaper

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Spec describes a process to start. The child leads a process group of its own: its group number is its process number.
type Spec struct {
	Path string // file to execute; a relative one is resolved against Dir by the kernel
	// FD, when greater than 0, is a descriptor to execute instead (execveat with an empty path, Linux 3.19). Path then
	// only names it in errors. Not for scripts: their interpreter would find no descriptor to read (ENOENT).
	FD   int
	Args []string // argv, Args[0] included
	Env  []string // the complete environment
	// PIDVars are variables whose value is the child's own process number, in the place of those in Env: LISTEN_PID.
	PIDVars []string
	Dir     string // working directory, entered with the child's credentials; "": ours
	// Files are the child's descriptors: number i is a copy of Files[i], not close-on-exec; -1: closed. They stay the
	// caller's. nil: our 0, 1 and 2. The child has no others.
	Files      []int
	Session    bool        // lead a new session, without a terminal
	Foreground bool        // make the child's group the foreground group of TTY before it runs
	TTY        int         // a descriptor of ours for a terminal
	Credential *Credential // nil: ours
	Umask      int         // -1: ours
	NoNewPrivs bool        // PR_SET_NO_NEW_PRIVS, Linux 3.5
	// OOMScoreAdj is the child's oom_score_adj (proc(5), Linux 2.6.36), which it has before it runs: -1000 to 1000; 0: ours. To
	// raise it needs no privilege. Where it cannot be set, because there is no /proc or we may not, the child has ours.
	OOMScoreAdj int
	// Own marks a process that belongs to the init and not to the app: Descendants leaves it out, with all that is below it.
	Own bool
	// ParentDeathSignal is sent to the child when this process is gone; 0: none. Children that have one are forked from
	// one thread that lives as long as Run, because the kernel means the thread that forked.
	ParentDeathSignal syscall.Signal
	// Thread, if not nil, is called first on a fresh thread, from which the child is then forked, and which ends
	// afterwards (with a ParentDeathSignal: after the child): for what a child inherits from a thread alone and that the
	// thread cannot get rid of, such as a seccomp filter. It is called again if the start has to be tried again. Its
	// error is the start's.
	Thread func() error
}

// Credential is whom a child runs as.
type Credential struct {
	UID, GID uint32
	Groups   []uint32 // supplementary; replaces ours
}

// StartError says why a process was not started.
type StartError struct {
	Op   string // what failed: exec, chdir, setuid, ...
	Path string
	Err  error
}

func (e *StartError) Error() string {
	if e.Op == "exec" {
		return fmt.Sprintf("cannot start %q: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("cannot start %q: %s: %v", e.Path, e.Op, e.Err)
}

func (e *StartError) Unwrap() error { return e.Err }

// ExitCode is what a shell would exit with: 127 when the program is not there, 126 when it cannot be run.
func (e *StartError) ExitCode() int {
	if e.Op == "exec" && errors.Is(e.Err, unix.ENOENT) {
		return 127
	}
	return 126
}

const (
	// busyFor bounds the retries while the file is open for writing somewhere: another thread that forked at the wrong
	// moment holds a copy of the descriptor until its exec.
	busyFor = 500 * time.Millisecond
	busyGap = 2 * time.Millisecond
)

// Start forks and executes s and returns once the new program runs. It blocks for that, usually well below a millisecond.
func (r *Reaper) Start(s Spec) (*Process, error) {
	until := time.Now().Add(busyFor)
	for gap := busyGap; ; gap *= 2 {
		p, err := r.start(s)
		if !errors.Is(err, unix.ETXTBSY) || time.Now().After(until) {
			return p, err
		}
		time.Sleep(gap)
	}
}

func (r *Reaper) start(s Spec) (*Process, error) {
	a, err := newForkArgs(&s)
	if err != nil {
		return nil, &StartError{Op: "arguments", Path: s.Path, Err: err}
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, &StartError{Op: "pipe", Path: s.Path, Err: err}
	}
	a.pipe = uintptr(pipe[1])
	var p *Process
	fork := func() { p, err = r.fork(a) }
	switch {
	case s.Thread != nil:
		if err = r.room(); err == nil {
			p, err = r.onOwnThread(s, a)
			r.tight.Store(errors.Is(err, unix.EAGAIN))
			if err == nil {
				keepThreads(spareThreads)
			}
		}
	case s.ParentDeathSignal != 0:
		r.onForkThread(fork)()
	default:
		fork()
	}
	unix.Close(pipe[1])
	defer unix.Close(pipe[0])
	if err != nil {
		return nil, &StartError{Op: "fork", Path: s.Path, Err: err}
	}
	if err := r.outcome(p, pipe[0], s.Path); err != nil {
		return nil, err
	}
	return p, nil
}

// fork makes the child and registers it in one step.
func (r *Reaper) fork(a *forkArgs) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a.setNoFile(r.nofile)
	syscall.ForkLock.Lock()
	pid, pidfd, errno := forkExec(a)
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(a)
	if errno != 0 {
		return nil, errno
	}
	p := &Process{r: r, own: a.own, pid: int(pid), pidfd: int(pidfd), done: make(chan struct{}), stopped: make(chan syscall.Signal, 1)}
	if p.pidfd < 0 {
		if fd, err := unix.PidfdOpen(p.pid, 0); err == nil { // 5.3; older kernels: kill under the lock
			p.pidfd = fd
		}
	}
	r.processes[p.pid] = p
	return p, nil
}

// onForkThread makes f run on the one thread that forks children with a parent-death signal.
func (r *Reaper) onForkThread(f func()) func() {
	r.forkOnce.Do(func() {
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its children with it
			for {
				select {
				case g := <-r.forks:
					g()
				case <-r.done:
					return
				}
			}
		}()
	})
	return func() {
		ran := make(chan struct{})
		select {
		case r.forks <- func() { f(); close(ran) }:
			<-ran
		case <-r.done:
			f() // Run is over: nothing lives much longer
		}
	}
}

// spareThreads are kept without work, so that the runtime, which ends us when it cannot make a thread, need not make one while
// whatever the app does has used up the processes of the container. Four were enough in the test that uses them up.
const spareThreads = 4

// keepThreads sees to it that the runtime has so many threads beside ours: each of n goroutines holds one until all do. It is
// called when there was room for a process a moment ago.
func keepThreads(n int) {
	var held, over sync.WaitGroup
	held.Add(n)
	release := make(chan struct{})
	for range n {
		over.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			held.Done()
			<-release
		})
	}
	held.Wait()
	close(release)
	over.Wait()
}

// room tells whether there is place for one more process, if there was none the last time: a start on a thread of its own costs that
// thread, also when the fork fails, and where no process can be made the runtime cannot make another thread either. It would end
// us over that.
func (r *Reaper) room() error {
	if !r.tight.Load() {
		return nil
	}
	var e *StartError
	if _, err := r.start(Spec{Path: "/", Args: []string{"room"}, Umask: -1}); errors.As(err, &e) && e.Op == "fork" {
		return e.Err
	}
	return nil
}

// onOwnThread forks from a thread of its own, after s.Thread has prepared it. The goroutine is never unlocked from it, so
// the runtime ends both together. The main thread would be parked instead, and would keep what it was given: if the
// goroutine happens to be on it, another one is tried while this one keeps it.
func (r *Reaper) onOwnThread(s Spec, a *forkArgs) (p *Process, err error) {
	started := make(chan struct{})
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			go run()
			<-started
			runtime.UnlockOSThread()
			return
		}
		if err = s.Thread(); err == nil {
			p, err = r.fork(a)
		}
		child := p // the caller's from now on
		close(started)
		if child != nil && s.ParentDeathSignal != 0 {
			<-child.Done() // the kernel takes the end of the thread that forked for the parent's
		}
	}
	go run()
	<-started
	return p, err
}

// outcome reads what the child says of its way to exec: nothing, if it got there.
func (r *Reaper) outcome(p *Process, fd int, path string) error {
	var msg [8]byte
	n, err := readFull(fd, msg[:])
	if err != nil || n < len(msg) {
		r.begun(p)
		return nil
	}
	step, errno := step(msg[0]), unix.Errno(*(*uint32)(unsafe.Pointer(&msg[4])))
	r.mu.Lock()
	defer r.mu.Unlock()
	if !p.reaped {
		_ = unix.Kill(p.pid, unix.SIGKILL) // somebody may have stopped it
		for {
			if _, err := unix.Wait4(p.pid, nil, unix.WALL, nil); err != unix.EINTR { // it is exiting already
				break
			}
		}
		r.over(p, ExitStatus(exitUnstarted))
	}
	return &StartError{Op: step.String(), Path: path, Err: errno}
}

func readFull(fd int, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := unix.Read(fd, b[n:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case m == 0:
			return n, nil
		default:
			n += m
		}
	}
	return n, nil
}

// RestoreNoFile makes children get the soft limit of open files (RLIMIT_NOFILE) that this process was started with. The
// Go runtime raises ours to one below the hard limit before main and does not tell the original; but it gives it back to
// a child of its own way of forking, so one such child is started from path with args and is killed at once: it should
// be a program that does no harm in its first moments. Without a raised limit nothing is started.
func (r *Reaper) RestoreNoFile(path string, args ...string) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur != lim.Max-1 {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{})
	if err != nil {
		return fmt.Errorf("cannot learn the limit of open files from a child: %w", err)
	}
	var was unix.Rlimit
	err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was)
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		if _, werr := unix.Wait4(pid, nil, 0, nil); werr != unix.EINTR {
			break
		}
	}
	if err == nil {
		r.nofile = &was
	}
	return err
}

// closeRange tells whether the kernel marks a range of descriptors close-on-exec (5.11). Where it does not, every
// descriptor that we were given without the mark gets it once, here.
var closeRange = sync.OnceValue(func() bool {
	const none = 0x7fffffff
	if unix.CloseRange(none, none, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return true
	}
	closeAllOnExec()
	return false
})

func closeAllOnExec() {
	names, err := readNames("/proc/self/fd")
	if err != nil {
		return
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}
