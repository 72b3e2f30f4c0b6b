package here

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// memfd is whether private copies of the program can be in memory.
func (e *examination) memfd() Row {
	r := Row{Name: "memfd", State: Works, Found: "a sealed memory file can be executed"}
	e.noMemfd = e.tries.Memfd()
	if e.noMemfd == nil {
		return r
	}
	r.State, r.Found = Missing, e.noMemfd.Error()
	if e.asked.Exec == "copy" && e.tries.StateDir == nil {
		r.State, r.Found = Fails, r.Found+"; ENTRYPOINT_EXEC=copy asks for it"
	}
	r.Remedy = "allow memfd_create and execveat in the seccomp profile, or set ENTRYPOINT_STATE_DIR to a writable directory that is not mounted noexec"
	if n, ok := e.number("proc/sys/vm/memfd_noexec"); ok && n > 0 {
		r.Found += fmt.Sprintf("; the sysctl vm.memfd_noexec is %d", n)
		r.Remedy = "set the sysctl vm.memfd_noexec to 0 on the node, or ENTRYPOINT_STATE_DIR to a writable directory that is not mounted noexec"
	}
	return r
}

// stateDir is whether what must survive a restart can be kept, and private copies on disk.
func (e *examination) stateDir() Row {
	r := Row{Name: "state dir", State: Works, Found: "ENTRYPOINT_STATE_DIR is not set: nothing is written anywhere"}
	if e.tries.StateDir == nil {
		return r
	}
	r.Found = fmt.Sprintf("programs can be kept in %q and executed there", e.asked.StateDir)
	if e.noState = e.tries.StateDir(); e.noState == nil {
		return r
	}
	r.State, r.Found = Fails, e.noState.Error()
	r.Remedy = fmt.Sprintf("mount a volume at %q that uid %d may write to, without noexec (Docker: --tmpfs %s:exec), or unset ENTRYPOINT_STATE_DIR",
		e.asked.StateDir, os.Geteuid(), e.asked.StateDir)
	return r
}

// seccomp is whether what the app binds by itself can be noticed and held.
func (e *examination) seccomp() Row {
	r := Row{Name: "seccomp", State: Works, Found: "a rehearsed bind was noticed and given our socket"}
	noNewPrivs, err := e.tries.Filter()
	if err == nil {
		err = e.tries.Rehearse()
	}
	e.noFilter = err
	switch {
	case err != nil && e.asked.Handoff == "transparent":
		r.State, r.Found = Fails, err.Error()+"; ENTRYPOINT_HANDOFF=transparent asks for it"
	case err != nil:
		r.State, r.Found = Missing, err.Error()
	case noNewPrivs && e.status("NoNewPrivs:") != "1":
		r.State, r.Found = Limited, r.Found+"; for want of CAP_SYS_ADMIN it sets no_new_privs on the app, so that set-uid programs gain nothing"
		r.Remedy = "none is needed unless the app uses sudo, ping and the like: then add CAP_SYS_ADMIN"
	}
	if err != nil {
		r.Remedy = "allow the seccomp system call in the container's profile (Docker's and Kubernetes' RuntimeDefault do), or hold the addresses by ENTRYPOINT_LISTEN for an app that takes sockets by descriptor"
	}
	return r
}

// steering is whether each generation can have a socket of its own behind one address.
func (e *examination) steering() Row {
	r := Row{Name: "steering", State: Works, Found: "the kernel sends new connections to the socket that we choose"}
	if e.noSteer = e.tries.Steer(); e.noSteer == nil {
		return r
	}
	r.State, r.Found = Missing, e.noSteer.Error()
	if e.asked.Canary {
		r.State, r.Found = Fails, r.Found+"; ENTRYPOINT_CANARY needs it"
	}
	r.Remedy = "use a kernel of 4.5 or newer whose sandbox allows SO_ATTACH_REUSEPORT_CBPF; without, all generations share one socket"
	return r
}

// pidfd is whether a signal can be sent to a process and never to another one that got its number.
func (e *examination) pidfd() Row {
	r := Row{Name: "pidfd", State: Works, Found: "a process can be held by a descriptor and signalled by it"}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		err = unix.PidfdSendSignal(fd, 0, nil, 0)
		_ = unix.Close(fd) // it was only looked at
	}
	if err != nil {
		r.State, r.Found = Missing, fmt.Sprintf("pidfd_open and pidfd_send_signal: %v; our own children are signalled by number, under a lock", err)
		r.Remedy = "allow both in the seccomp profile, or use a kernel of 5.3 or newer"
	}
	return r
}

// eventTime bounds the wait for an event of our own making: the kernel queues it before the call that makes it returns.
const eventTime = 200 * time.Millisecond

// inotify is whether changes of files are noticed at once.
func (e *examination) inotify() Row {
	r := Row{Name: "inotify", State: Works}
	e.noInotify = tryInotify()
	if e.noInotify == nil {
		r.Found = "a directory can be watched, and an event came"
	} else {
		r.State = Missing
		r.Found = fmt.Sprintf("%v; watched files are looked at every %v", e.noInotify, e.asked.Poll)
		r.Remedy = "allow inotify in the seccomp profile, or live with the polling"
		switch {
		case errors.Is(e.noInotify, unix.EMFILE):
			r.Remedy = "raise the sysctl fs.inotify.max_user_instances on the node (or our limit of open files)"
		case errors.Is(e.noInotify, unix.ENOSPC):
			r.Remedy = "raise the sysctl fs.inotify.max_user_watches on the node"
		}
	}
	instances, ok := e.number("proc/sys/fs/inotify/max_user_instances")
	if watches, both := e.number("proc/sys/fs/inotify/max_user_watches"); ok && both {
		r.Found += fmt.Sprintf("; a user has %d instances and %d watches, shared by the whole node", instances, watches)
	}
	return r
}

// tryInotify watches the root directory and opens it, which is an event.
func tryInotify() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify_init1: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, "/", unix.IN_OPEN|unix.IN_ONLYDIR); err != nil {
		return fmt.Errorf("inotify_add_watch: %w", err)
	}
	dir, err := os.Open("/")
	if err != nil {
		return err
	}
	defer dir.Close()
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for until := time.Now().Add(eventTime); ; {
		n, err := unix.Poll(ready, max(0, int(time.Until(until).Milliseconds())))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case n == 0:
			return errors.New("no event came from a watched directory")
		}
		return nil
	}
}

// subreaper is whether orphans come to us where we are not PID 1.
func (e *examination) subreaper() Row {
	r := Row{Name: "subreaper", State: Works, Found: "orphans can be adopted without being PID 1"}
	err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	switch {
	case err == nil && e.asked.Subreaper == "false":
		r.Found = "orphans could be adopted without being PID 1; ENTRYPOINT_SUBREAPER=false forbids it"
	case err != nil && e.asked.Subreaper == "true":
		r.State, r.Found = Fails, fmt.Sprintf("PR_SET_CHILD_SUBREAPER: %v; ENTRYPOINT_SUBREAPER=true asks for it", err)
	case err != nil:
		r.State, r.Found = Missing, fmt.Sprintf("PR_SET_CHILD_SUBREAPER: %v; as PID 1 it is not needed", err)
	}
	if err != nil {
		r.Remedy = "allow prctl in the seccomp profile, or let the init be PID 1"
	}
	return r
}

// grace is whether the container runtime leaves us the time that we plan to take.
func (e *examination) grace() Row {
	a := e.asked
	ours := a.Delay + a.Timeout
	text := fmt.Sprintf("a stop takes at most %v: ENTRYPOINT_SHUTDOWN_TIMEOUT %v", ours, a.Timeout)
	if a.Delay > 0 {
		text += fmt.Sprintf(" after ENTRYPOINT_SHUTDOWN_DELAY %v", a.Delay)
	}
	r := Row{Name: "grace", State: Works}
	switch {
	case a.Grace > 0 && ours > a.Grace:
		r.State, r.Found = Limited, fmt.Sprintf("%s; the container is killed after %v (ENTRYPOINT_GRACE)", text, a.Grace)
		r.Remedy = fmt.Sprintf("raise the container's grace period to %v or more (docker --stop-timeout, terminationGracePeriodSeconds) and ENTRYPOINT_GRACE with it, or shorten the two", ours)
	case a.Grace > 0:
		r.Found = fmt.Sprintf("%s, within ENTRYPOINT_GRACE %v", text, a.Grace)
	case ours > dockerGrace:
		r.State, r.Found = Limited, text+"; ENTRYPOINT_GRACE is not set, and Docker kills after 10s, Kubernetes after 30s, unless told otherwise"
		r.Remedy = "say in ENTRYPOINT_GRACE what this container's grace period is"
	default:
		r.Found = text + ", less than the 10s of Docker and the 30s of Kubernetes; ENTRYPOINT_GRACE is not set"
	}
	return r
}

// dockerGrace is the shortest of the usual grace periods.
const dockerGrace = 10 * time.Second

// follows is what the init makes of it. It says the same as the init does when it starts.
func (e *examination) follows() []Choice {
	return []Choice{e.handoff(), e.exec(), e.steer(), e.watch()}
}

func (e *examination) handoff() Choice {
	c := Choice{What: "handoff", Value: e.asked.Handoff}
	if c.Value != "auto" && c.Value != "transparent" {
		c.Why = "ENTRYPOINT_HANDOFF asks for it"
	}
	switch {
	case c.Why == "" && e.noFilter == nil:
		c.Value = "transparent"
	case c.Value == "transparent":
		c.Value, c.Why = "the init does not start", e.noFilter.Error()
	case c.Value == "auto":
		c.Value, c.Why = "inherit", e.noFilter.Error()
	}
	if c.Value == "inherit" && e.asked.Held == 0 {
		c.Value, c.Why = "none", strings.TrimPrefix(c.Why+"; ENTRYPOINT_LISTEN is not set, so that nothing is held", "; ")
	}
	return c
}

func (e *examination) exec() Choice {
	c := Choice{What: "exec", Value: "private copies in memory"}
	switch {
	case e.asked.Exec == "path":
		c.Value, c.Why = "the program's own file", "ENTRYPOINT_EXEC=path asks for it"
	case e.tries.StateDir != nil && e.noState == nil:
		c.Value = fmt.Sprintf("private copies below %q", e.asked.StateDir)
	case e.noMemfd != nil && e.asked.Exec == "copy":
		c.Value, c.Why = "no program is accepted", e.noMemfd.Error()
	case e.noMemfd != nil:
		c.Value, c.Why = "the program's own file", e.noMemfd.Error()
	}
	return c
}

func (e *examination) steer() Choice {
	c := Choice{What: "steer", Value: "each generation has a socket of its own"}
	switch {
	case !e.asked.Steer:
		c.Value, c.Why = "all generations share one socket", "ENTRYPOINT_STEER=off asks for it"
	case e.noSteer != nil:
		c.Value, c.Why = "all generations share one socket", e.noSteer.Error()
	}
	return c
}

func (e *examination) watch() Choice {
	c := Choice{What: "watch", Value: fmt.Sprintf("inotify, and a look every %v", e.asked.Poll)}
	switch {
	case !e.asked.Watch:
		c.Value, c.Why = "nothing is watched", "ENTRYPOINT_WATCH is not set"
	case e.noInotify != nil:
		c.Value, c.Why = fmt.Sprintf("a look every %v", e.asked.Poll), e.noInotify.Error()
	}
	return c
}
