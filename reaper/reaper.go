package reaper

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stats counts collected processes since the beginning.
type Stats struct {
	Children uint64 `json:"children"` // made by Start
	Orphans  uint64 `json:"orphans"`  // given to us by the kernel
}

// Reaper starts and collects. All methods may be called from any goroutine.
type Reaper struct {
	mu        sync.Mutex // spans fork and registration, and every collection
	processes map[int]*Process
	lingering map[*Process]struct{} // collected, but members of their group are left
	stats     Stats
	nofile    *unix.Rlimit // what children get instead of ours; nil: ours
	tight     atomic.Bool  // the last start on a thread of its own found no place for a process

	forkOnce sync.Once
	forks    chan func() // run on the one thread that forks children with a parent-death signal
	done     chan struct{}
	doneOnce sync.Once
}

// New makes a Reaper. Nothing is collected until Run; children may be started before.
func New() *Reaper {
	return &Reaper{
		processes: map[int]*Process{}, lingering: map[*Process]struct{}{},
		forks: make(chan func()), done: make(chan struct{}),
	}
}

// Run collects until ctx ends, then once more, and returns nil. It must run once. It wakes up for SIGCHLD alone.
func (r *Reaper) Run(ctx context.Context) error {
	c := make(chan os.Signal, 1) // one is enough: each wake-up collects everything
	signal.Notify(c, syscall.SIGCHLD)
	defer signal.Stop(c)
	defer r.doneOnce.Do(func() { close(r.done) })
	for {
		r.collect()
		select {
		case <-c:
		case <-ctx.Done():
			r.collect()
			return nil
		}
	}
}

// batch is how many are collected before the lock is given up for a moment: a storm of orphans must not stall Start.
const batch = 32

func (r *Reaper) collect() {
	for r.collectSome() {
		runtime.Gosched()
	}
}

// collectSome collects up to a batch and reports whether there may be more.
func (r *Reaper) collectSome() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.lookAtGroups()
	for range batch {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED|unix.WALL, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid <= 0:
			return false
		default:
			r.collected(pid, ws)
		}
	}
	return true
}

func (r *Reaper) collected(pid int, ws unix.WaitStatus) {
	p := r.processes[pid]
	switch {
	case ws.Stopped():
		if p != nil {
			p.stoppedBy(syscall.Signal(ws.StopSignal()))
		}
	case ws.Continued():
		if p != nil {
			p.continued()
		}
	case p == nil:
		r.stats.Orphans++
	default:
		r.over(p, Status{ws: ws})
	}
}

// over is the end of a child: its number may belong to somebody else from now on. One that never got to its program is
// not counted; Start decides that, maybe later than this.
func (r *Reaper) over(p *Process, st Status) {
	delete(r.processes, p.pid)
	p.status, p.reaped = st, true
	if p.running {
		r.stats.Children++
	}
	r.lingering[p] = struct{}{}
	r.lookAtGroup(p)
	close(p.done)
}

// begun marks a child that Start hands out. It may have been collected already.
func (r *Reaper) begun(p *Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.running = true
	if p.reaped {
		r.stats.Children++
	}
}

// lookAtGroups notes which groups of collected leaders have become empty. A group's number is not given to anybody while
// the group has a member; once it was seen empty it is never used again.
func (r *Reaper) lookAtGroups() {
	for p := range r.lingering {
		r.lookAtGroup(p)
	}
}

func (r *Reaper) lookAtGroup(p *Process) {
	if p.killGroup(0) == unix.ESRCH {
		r.forget(p)
	}
}

// forget is the end of a child's group, and with it of all that we may ever signal by this Process.
func (r *Reaper) forget(p *Process) {
	delete(r.lingering, p)
	p.groupGone = true
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
}

// Stats gives the counts so far.
func (r *Reaper) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// BecomeSubreaper makes orphans below this process its children although it is not PID 1. Linux 3.4.
func BecomeSubreaper() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}
