//go:build !s390x

package reaper

import (
	"syscall"
	"unsafe"
)

// rawClone is fork with a process descriptor for the parent. Kernels before 5.2 leave pidfd as it is.
//
//go:nosplit
//go:norace
//go:nocheckptr
func rawClone(flags uintptr, pidfd *int32) (uintptr, syscall.Errno) {
	pid, _, err := syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, uintptr(unsafe.Pointer(pidfd)), 0, 0, 0)
	return pid, err
}
