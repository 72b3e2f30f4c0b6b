package reaper

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a child that Start made.
type Process struct {
	r       *Reaper
	own     bool // Spec.Own
	pid     int
	done    chan struct{}
	stopped chan syscall.Signal

	// under r.mu:
	pidfd     int  // -1: the kernel has none, or the group is gone
	running   bool // got to its program: Start has returned it
	reaped    bool
	groupGone bool
	status    Status
}

// PID is the process number, and that of its group.
func (p *Process) PID() int { return p.pid }

// Done is closed once the process has ended and was collected.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stopped gives the signal each time that the process was stopped (SIGTSTP, SIGSTOP, ...); of several that nobody took the
// newest is kept, until the process is continued. It is never closed.
func (p *Process) Stopped() <-chan syscall.Signal { return p.stopped }

func (p *Process) stoppedBy(sig syscall.Signal) {
	for {
		select {
		case p.stopped <- sig:
			return
		default:
		}
		select {
		case <-p.stopped:
		default:
		}
	}
}

// continued takes a stop back that nobody has taken: whoever acted on it now would stop behind a process that runs.
func (p *Process) continued() {
	select {
	case <-p.stopped:
	default:
	}
}

// Status says how the process ended. It is valid once Done is closed; before, it is the zero Status.
func (p *Process) Status() Status {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	return p.status
}

// Signal sends sig to the process, by its descriptor where the kernel has them (5.1). It never reaches a stranger.
// os.ErrProcessDone: it has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.reaped {
		return os.ErrProcessDone
	}
	err := unix.ENOSYS
	if p.pidfd >= 0 {
		err = errnoOf(unix.PidfdSendSignal(p.pidfd, sig, nil, 0))
	}
	if err == unix.ENOSYS || err == unix.EPERM { // a filter may refuse what it does not know
		err = errnoOf(unix.Kill(p.pid, sig))
	}
	return gone(err)
}

// SignalGroup sends sig to every member of the process's group, also when the process itself has ended. It never reaches
// strangers: by the descriptor where the kernel can (6.9). Before that a number that was given away again is noticed, but
// not if its new owner ended too and left members in a group of its own: that takes one turn through all numbers.
// os.ErrProcessDone: no member is left; it stays so for ever.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.groupGone {
		return os.ErrProcessDone
	}
	err := p.killGroup(sig)
	if err == unix.ESRCH && p.reaped {
		p.r.forget(p)
	}
	return gone(err)
}

// GroupAlive tells whether the process is not collected yet or any member of its group is left that is not a zombie. It
// looks again each time, and for a group without its leader it reads /proc.
func (p *Process) GroupAlive() bool {
	p.r.mu.Lock()
	known, alive := p.lookAtGroup()
	p.r.mu.Unlock()
	return alive && (known || groupLives(p.pid))
}

// lookAtGroup says whether there is a group, and whether it is known to have more than zombies.
func (p *Process) lookAtGroup() (known, alive bool) {
	switch {
	case p.groupGone:
		return true, false
	case !p.reaped:
		return true, true
	}
	p.r.lookAtGroup(p)
	return p.groupGone, !p.groupGone
}

// pidfdGroup means the group that the descriptor's process leads or led (PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9).
const pidfdGroup = 1 << 2

// killGroup is kill(-group). A collected leader's descriptor still stands for the group, while the bare number could be
// that of a new group: if any process has it, ours is empty, because a number is kept while its group has a member.
func (p *Process) killGroup(sig syscall.Signal) unix.Errno {
	if p.pidfd >= 0 {
		err := errnoOf(unix.PidfdSendSignal(p.pidfd, sig, nil, pidfdGroup))
		if err != unix.EINVAL && err != unix.ENOSYS && err != unix.EPERM {
			return err
		}
	}
	if p.reaped && errnoOf(unix.Kill(p.pid, 0)) != unix.ESRCH {
		return unix.ESRCH
	}
	return errnoOf(unix.Kill(-p.pid, sig))
}

func errnoOf(err error) unix.Errno {
	var e unix.Errno
	errors.As(err, &e)
	return e
}

func gone(e unix.Errno) error {
	switch e {
	case 0:
		return nil
	case unix.ESRCH:
		return os.ErrProcessDone
	}
	return e
}

// Status is how a process ended.
type Status struct{ ws unix.WaitStatus }

// ExitStatus is the status of a process that exited with code, 0 to 255.
func ExitStatus(code int) Status { return Status{ws: unix.WaitStatus(code&0xff) << 8} }

// SignalStatus is the status of a process that was killed by sig.
func SignalStatus(sig syscall.Signal) Status { return Status{ws: unix.WaitStatus(sig & 0x7f)} }

// Code is the exit code, -1 for a process that was killed by a signal.
func (s Status) Code() int { return s.ws.ExitStatus() }

// Signal is the signal that killed the process, 0 if it exited.
func (s Status) Signal() syscall.Signal {
	if s.ws.Signaled() {
		return s.ws.Signal()
	}
	return 0
}

// ExitCode says the same in one number as shells do: the exit code, or 128 plus the signal.
func (s Status) ExitCode() int {
	if sig := s.Signal(); sig != 0 {
		return 128 + int(sig)
	}
	return s.Code()
}

// CoreDump tells whether the signal left a core file.
func (s Status) CoreDump() bool { return s.ws.CoreDump() }

// Success tells exit code 0.
func (s Status) Success() bool { return s.ws == 0 }

func (s Status) String() string {
	sig := s.Signal()
	switch {
	case sig == 0:
		return fmt.Sprintf("exited with code %d", s.Code())
	case s.CoreDump():
		return "killed by " + SignalName(sig) + " (core dumped)"
	}
	return "killed by " + SignalName(sig)
}
