package handoff

import (
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// GroupUID is the filesystem uid under which root opens the sockets of a group (ss shows it as their owner). The
// kernel lets only sockets of one uid form a group, so another process of uid 0 in the network namespace cannot join ours
// (it gets EADDRINUSE). It lies below 65536, so that usual user namespaces map it, and outside the ranges that
// distributions and services give out. It is no uid of any file or process.
const GroupUID = 0xE470

// fsuidMu keeps two callers from restoring the dumpable flag, which belongs to the process, in the wrong order.
var fsuidMu sync.Mutex

// groupSocket is socket(2) under GroupUID where we may, else under our own uid. Only the socket call itself is made under
// that uid; everything later (bind of a low port, files) has our own credentials. The descriptor is close-on-exec and
// belongs to the caller.
func groupSocket(family, typ, proto int) (int, error) {
	typ |= unix.SOCK_CLOEXEC
	if os.Geteuid() != 0 {
		return unix.Socket(family, typ, proto)
	}
	fsuidMu.Lock()
	defer fsuidMu.Unlock()
	// Changing the fsuid makes the process undumpable (its /proc files then belong to root); put back what was.
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err == nil && dumpable == 1 {
		defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }()
	}
	runtime.LockOSThread()
	own, err := unix.SetfsuidRetUid(GroupUID)
	fd, sockErr := unix.Socket(family, typ, proto)
	if err == nil {
		_, _ = unix.SetfsuidRetUid(own)
	}
	// setfsuid reports no failure but always the uid in force. A thread that could not go back stays locked, and the
	// runtime ends it with its goroutine.
	if now, _ := unix.SetfsuidRetUid(-1); err != nil || now == own {
		runtime.UnlockOSThread()
	}
	return fd, sockErr
}
