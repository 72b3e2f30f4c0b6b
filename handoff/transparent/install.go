package transparent

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Filter is the notification descriptor of an installed filter: where the calls of one program and its descendants are
// answered. Make one with Install, then call Serve once.
type Filter struct {
	file   *os.File
	closed atomic.Bool // by Close
	// NoNewPrivs tells that the thread, and so the program, had to be given no_new_privs for it.
	NoNewPrivs bool
	// Killable tells that only a deadly signal interrupts a call that is being answered (Linux 5.19).
	Killable bool
}

// Install puts the filter on the calling thread, for good: the goroutine must be locked to a thread (runtime.LockOSThread) that
// ends with it, and must not be on the main thread. What is forked from the thread inherits the filter. It blocks for some
// microseconds. The error says what the kernel or a sandbox does not allow, with the remedy.
func Install() (*Filter, error) {
	if auditArch == 0 {
		return nil, fmt.Errorf("cannot watch bind on %s: only amd64 and arm64 are supported", runtime.GOARCH)
	}
	if err := ownProc(); err != nil {
		return nil, err
	}
	f := &Filter{Killable: true}
	fd, err := f.install()
	if err != nil {
		return nil, explain(err)
	}
	if err := canReplace(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	// A wake-up on the same processor makes the round trip shorter where waker and sleeper take turns (Linux 6.6).
	_, _, _ = syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), setFlags, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot wait for bind calls: %w", err)
	}
	f.file = os.NewFile(uintptr(fd), "seccomp")
	return f, nil
}

// ownProc makes sure that /proc shows our pid namespace: else we would look into somebody else's processes.
func ownProc() error {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return fmt.Errorf("cannot watch bind without /proc: %w", err)
	}
	if self != strconv.Itoa(os.Getpid()) {
		return errors.New("cannot watch bind: /proc is of another pid namespace; mount one of ours (unshare --mount-proc does)")
	}
	return nil
}

// setFlags is SECCOMP_IOCTL_NOTIF_SET_FLAGS, _IOW('!', 4, __u64).
const setFlags = 0x40082104

// install tries the best way first: without no_new_privs (CAP_SYS_ADMIN), and not to be interrupted (5.19).
func (f *Filter) install() (int, error) {
	code := program()
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	for {
		fd, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
		runtime.KeepAlive(code)
		switch {
		case errno == 0:
			return int(fd), nil
		case errno == unix.EACCES && !f.NoNewPrivs:
			if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
				return -1, errno
			}
			f.NoNewPrivs = true
		case errno == unix.EINVAL && f.Killable:
			f.Killable = false
			flags &^= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		default:
			return -1, errno
		}
	}
}

// canReplace asks for a descriptor of a call that does not exist: a kernel that can do it says that there is none.
func canReplace(fd int) error {
	a := addFD{id: ^uint64(0), flags: unix.SECCOMP_ADDFD_FLAG_SETFD}
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&a)))
	if errno == unix.ENOENT || errno == unix.EBADF {
		return nil
	}
	return fmt.Errorf("cannot put a socket under a program's bind: %w; it needs Linux 5.9", errno)
}

// explain says what the errors of the installation mean.
func explain(err error) error {
	var hint string
	switch {
	case errors.Is(err, unix.EBUSY):
		hint = "a filter with a notification descriptor is in force here already: the container runtime uses one itself"
	case errors.Is(err, unix.EPERM):
		hint = "the container's seccomp profile does not allow the seccomp system call; Docker's default profile does"
	case errors.Is(err, unix.ENOSYS):
		hint = "the kernel has no seccomp system call, as under user-mode emulation (qemu-user), or the container's seccomp profile hides it"
	case errors.Is(err, unix.EINVAL):
		hint = "the kernel (before 5.0) or the sandbox knows no notification descriptors"
	default:
		hint = "unexpected"
	}
	return fmt.Errorf("cannot watch bind by seccomp user notification: %w (%s)", err, hint)
}

// Close ends Serve. Calls that wait, and all later ones of processes that still have the filter, fail with ENOSYS: it
// is for the end of everything only. It waits for a Handler that is at work.
func (f *Filter) Close() error {
	f.closed.Store(true)
	return f.file.Close()
}

// onFreshThread runs f on a thread that ends with it, and returns at once. The main thread would be parked instead of
// ended: if the goroutine is on it, another one is tried while this one keeps it.
func onFreshThread(f func()) {
	var run func()
	run = func() {
		runtime.LockOSThread() // never unlocked but from the main thread
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		next := make(chan struct{})
		go func() { defer close(next); run() }()
		<-next
		runtime.UnlockOSThread()
	}
	go run()
}
