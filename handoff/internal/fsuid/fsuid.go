// Package fsuid does single system calls under another filesystem identity.
package fsuid

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// mu keeps two callers from restoring the dumpable flag, which belongs to the process, in the wrong order.
var mu sync.Mutex

// As runs f on a thread whose filesystem uid and gid are these; -1 leaves one as it is. f must be short: callers wait for
// each other. It needs CAP_SETUID and CAP_SETGID for any identity but our own; without them f runs as we are, for
// setfsuid(2) reports no failure. f should make nothing but raw system calls whose result depends on that identity.
func As(uid, gid int, f func()) {
	mu.Lock()
	defer mu.Unlock()
	// Changing the identity makes the process undumpable (its /proc files then belong to root); put back what was.
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err == nil && dumpable == 1 {
		defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }()
	}
	runtime.LockOSThread()
	ownGID, _ := unix.SetfsgidRetGid(gid)
	ownUID, _ := unix.SetfsuidRetUid(uid)
	f()
	_, _ = unix.SetfsuidRetUid(ownUID)
	_, _ = unix.SetfsgidRetGid(ownGID)
	// Both calls return the identity that was in force. A thread that could not go back stays locked, and the runtime
	// ends it with its goroutine.
	nowUID, _ := unix.SetfsuidRetUid(-1)
	nowGID, _ := unix.SetfsgidRetGid(-1)
	if nowUID == ownUID && nowGID == ownGID {
		runtime.UnlockOSThread()
	}
}
