package transparent

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification is struct seccomp_notif (linux/seccomp.h).
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// addFD is struct seccomp_notif_addfd.
type addFD struct {
	id         uint64
	flags      uint32
	src        uint32
	new        uint32
	newFDFlags uint32
}

// Serve answers all calls until no process of the program and its descendants is left, however they were re-parented, and
// returns nil; or until Close, and returns os.ErrClosed. It blocks, parks no thread while nothing happens, and closes
// the descriptor at its end. logf gets what goes wrong with single calls.
func (f *Filter) Serve(h Handler, logf func(format string, args ...any)) error {
	defer f.file.Close()
	err := f.serve(h, logf)
	if err != nil && f.closed.Load() {
		return os.ErrClosed
	}
	return err
}

func (f *Filter) serve(h Handler, logf func(format string, args ...any)) error {
	rc, err := f.file.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var n notification
		var gone bool
		var failed error
		err := rc.Read(func(fd uintptr) bool {
			gone, failed = receive(fd, &n)
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return err
		case failed != nil:
			return fmt.Errorf("cannot receive bind calls: %w", failed)
		case gone:
			return nil
		}
		if err := rc.Control(func(fd uintptr) { f.serveOne(int(fd), &n, h, logf) }); err != nil {
			return err
		}
	}
}

// receive takes the next notification. EAGAIN: none waits. It never blocks: RECV does, whatever the descriptor's mode, so
// the descriptor is polled first.
func receive(fd uintptr, n *notification) (gone bool, err error) {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 0); err != nil && err != unix.EINTR {
			return false, err
		}
		switch {
		case p[0].Revents&unix.POLLIN != 0:
		case p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0:
			return true, nil
		default:
			return false, unix.EAGAIN
		}
		*n = notification{}
		err := ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
		if err != unix.ENOENT && err != unix.EINTR { // the caller is gone, or was interrupted
			return false, err
		}
	}
}

func ioctl(fd, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// serveOne looks, asks, and answers.
func (f *Filter) serveOne(fd int, n *notification, h Handler, logf func(string, ...any)) {
	unlink := n.nr == sysUnlink || n.nr == unix.SYS_UNLINKAT
	var c *Call
	known := false
	if !unlink || h.Unlinks() {
		c, known = f.look(n)
	}
	var a Answer
	if known {
		a = ask(h, c, logf)
	}
	if a.Owned {
		defer unix.Close(a.FD)
	}
	if a.Replace {
		a.Done = f.replace(fd, n, c, a.FD, logf)
	}
	r := response{id: n.id}
	switch {
	case a.Errno != 0:
		r.errno = -int32(a.Errno)
	case !a.Done:
		r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	// ENOENT: the caller is gone or was interrupted; there is nobody to answer.
	if err := ioctl(uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && err != unix.ENOENT {
		logf("cannot answer a call of process %d: %v", n.pid, err)
	}
}

// ask calls the handler; what it panics with is only logged.
func ask(h Handler, c *Call, logf func(string, ...any)) (a Answer) {
	defer func() {
		if p := recover(); p != nil {
			logf("internal error while answering a call: %v\n%s", p, debug.Stack())
			a = Answer{}
		}
	}()
	return h.Handle(c)
}

// replace puts src in the place of the program's descriptor. The kernel does it only if the call that we looked at still
// waits (else ENOENT): then what we read was of that process, and not of a later one with the same number.
func (f *Filter) replace(fd int, n *notification, c *Call, src int, logf func(string, ...any)) bool {
	a := addFD{id: n.id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, src: uint32(src), new: uint32(c.FD)}
	if c.CloseOnExec {
		a.newFDFlags = unix.O_CLOEXEC
	}
	err := ioctl(uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a))
	if err != nil && err != unix.ENOENT {
		logf("cannot hand a socket to process %d: %v", n.pid, err)
	}
	return err == nil
}

// look reads what the call is about. Calls that no handler wants to see are not known.
func (f *Filter) look(n *notification) (c *Call, known bool) {
	c = &Call{TID: int(n.pid), FD: int(int32(n.args[0]))}
	if n.pid == 0 { // of a pid namespace that we cannot see into
		c.Blind = errors.New("it is not in our pid namespace")
	}
	switch n.nr {
	case unix.SYS_BIND:
		c.Op = Bind
	case unix.SYS_LISTEN:
		c.Op = Listen
	case unix.SYS_SETSOCKOPT:
		c.Op, c.Level, c.Name = Set, int(int32(n.args[1])), int(int32(n.args[2]))
	case sysUnlink, unix.SYS_UNLINKAT:
		c.Op, c.FD = Unlink, -1
	case unix.SYS_SECCOMP:
		c.Op = Nested
		return c, true
	default:
		return c, false
	}
	if c.Blind == nil {
		c.Blind = c.inspect(n)
	}
	if errors.Is(c.Blind, os.ErrNotExist) || errors.Is(c.Blind, unix.ESRCH) || errors.Is(c.Blind, unix.EFAULT) {
		return c, false // it is gone, the descriptor is none, or the address: the kernel says so better
	}
	return c, c.Blind != nil || c.Inode != 0 || c.Op == Unlink && c.Path != ""
}
