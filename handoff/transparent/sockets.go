package transparent

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/fsuid"
)

// Sockets lists the inodes of the sockets that a process has open, at most some thousands; what cannot be looked into has none.
func Sockets(pid int) []uint64 {
	inodes, err := sockets(pid)
	if !denied(err) {
		return inodes
	}
	if uid, gid, idErr := identity(pid); idErr == nil {
		fsuid.As(uid, gid, func() { inodes, _ = sockets(pid) })
	}
	return inodes
}

func sockets(pid int) ([]uint64, error) {
	var inodes []uint64
	err := eachFD("/proc/"+strconv.Itoa(pid), func(_, link string) bool {
		if number, ok := strings.CutPrefix(link, "socket:["); ok {
			if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64); err == nil {
				inodes = append(inodes, inode)
			}
		}
		return true
	})
	return inodes, err
}

// eachFD calls f with the number of each descriptor of a process and what it refers to, until f is false. It makes raw system
// calls only, for the thread's identity.
func eachFD(dir string, f func(name, link string) bool) error {
	fd, err := unix.Open(dir+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 8192)
	var names []string
	for looked := 0; looked < maxLooked; looked += len(names) {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil || n <= 0 {
			return err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			link, err := readlinkAt(fd, name) // a third of the time of the whole path
			if denied(err) {
				return err
			}
			if err == nil && !f(name, link) {
				return nil
			}
		}
	}
	return nil
}
