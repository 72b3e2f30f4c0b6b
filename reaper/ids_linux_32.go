//go:build 386 || arm

package reaper

import "syscall"

// The plain calls of these machines take 16-bit numbers.
const (
	sysSetgroups = syscall.SYS_SETGROUPS32
	sysSetgid    = syscall.SYS_SETGID32
	sysSetuid    = syscall.SYS_SETUID32
)
