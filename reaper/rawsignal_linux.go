//go:build amd64 || arm64

package reaper

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hasRaw = true

// What the handler reads. Set before it is installed, never changed.
var (
	//lint:ignore U1000 the assembly reads it
	rawPipe int32 // where it writes
	//lint:ignore U1000 the assembly reads it
	rawSelf int32 // our process number
	// rawOld is the runtime's handler, for the process's own SIGPIPE and signal 33.
	rawOld uintptr
)

// rawHandlerPC and rawRestorerPC are the addresses of the handler and of its way back to the kernel.
func rawHandlerPC() uintptr
func rawRestorerPC() uintptr

// kernelAction is the kernel's struct sigaction of both machines.
type kernelAction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Flags of the kernel's uapi headers.
const (
	saSigInfo  = 0x00000004
	saRestorer = 0x04000000
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
)

// catchRaw delivers the signals that os/signal is not asked for. The handler, in assembly, runs on the signal stack that the
// runtime gives each thread and does nothing but write the signal's number as one byte to a pipe.
func catchRaw(c chan<- os.Signal) {
	var p [2]int
	if unix.Pipe2(p[:], unix.O_CLOEXEC) != nil || unix.SetNonblock(p[1], true) != nil {
		return
	}
	rawPipe, rawSelf, rawOld = int32(p[1]), int32(os.Getpid()), handlerOf(syscall.SIGPIPE)
	var set unix.Sigset_t
	for _, sig := range rawList() {
		a := kernelAction{
			handler: rawHandlerPC(), flags: saOnStack | saRestart | saRestorer | saSigInfo, restorer: rawRestorerPC(), mask: ^uint64(0),
		}
		_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&a)), 0, 8, 0, 0)
		set.Val[0] |= 1 << (sig - 1)
	}
	go readRaw(p[0], &set, c)
}

// readRaw passes the bytes on, on a thread of its own that lives as long as the process. Signals that were blocked in all
// threads when the process was started are let through there.
func readRaw(fd int, set *unix.Sigset_t, c chan<- os.Signal) {
	runtime.LockOSThread()
	_ = unix.PthreadSigmask(unix.SIG_UNBLOCK, set, nil)
	var b [64]byte
	for {
		n, err := unix.Read(fd, b[:])
		if err != nil && err != unix.EINTR {
			return
		}
		for _, sig := range b[:max(n, 0)] {
			c <- syscall.Signal(sig)
		}
	}
}

// rawList is what the handler takes. The runtime has its own handler for 33 in a program without cgo; in one with cgo it
// has none, and 32 and 33 are the C library's.
func rawList() []syscall.Signal {
	cgo := handlerOf(33) != rawOld
	var list []syscall.Signal
	for sig := syscall.Signal(1); sig <= maxSignal; sig++ {
		if catchable(sig) && !fault(sig) && !(cgo && (sig == 32 || sig == 33)) {
			list = append(list, sig)
		}
	}
	return list
}

func handlerOf(sig syscall.Signal) uintptr {
	var a kernelAction
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&a)), 8, 0, 0)
	return a.handler
}
