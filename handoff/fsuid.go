package handoff

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/fsuid"
)

// GroupUID is the filesystem uid under which root opens the sockets of a group (ss shows it as their owner). The
// kernel lets only sockets of one uid form a group, so another process of uid 0 in the network namespace cannot join ours
// (it gets EADDRINUSE). It lies below 65536, so that usual user namespaces map it, and outside the ranges that
// distributions and services give out. It is no uid of any file or process.
const GroupUID = 0xE470

// groupSocket is socket(2) under GroupUID where we may, else under our own uid. Only the socket call itself is made under
// that uid; everything later (bind of a low port, files) has our own credentials. The descriptor is close-on-exec and
// belongs to the caller.
func groupSocket(family, typ, proto int) (fd int, err error) {
	typ |= unix.SOCK_CLOEXEC
	if os.Geteuid() != 0 {
		return unix.Socket(family, typ, proto)
	}
	fsuid.As(GroupUID, -1, func() { fd, err = unix.Socket(family, typ, proto) })
	return fd, err
}
