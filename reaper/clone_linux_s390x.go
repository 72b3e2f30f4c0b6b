//go:build s390x

package reaper

import (
	"syscall"
	"unsafe"
)

// On s390 the first two arguments of clone are swapped.
//
// rawClone is fork with a process descriptor for the parent. Kernels before 5.2 leave pidfd as it is.
//
//go:nosplit
//go:norace
//go:nocheckptr
func rawClone(flags uintptr, pidfd *int32) (uintptr, syscall.Errno) {
	pid, _, err := syscall.RawSyscall6(syscall.SYS_CLONE, 0, flags, uintptr(unsafe.Pointer(pidfd)), 0, 0, 0)
	return pid, err
}
