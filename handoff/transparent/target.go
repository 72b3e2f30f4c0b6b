package transparent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/fsuid"
)

const (
	maxValue   = 128  // of an option
	maxAddress = 128  // sizeof(struct sockaddr_storage)
	maxLooked  = 4096 // descriptors that are searched for epoll sets
)

// ownNet is our network namespace.
var ownNet = sync.OnceValue(func() string {
	name, _ := os.Readlink("/proc/thread-self/ns/net")
	return name
})

// ownMounts is our mount namespace.
var ownMounts = sync.OnceValue(func() string {
	name, _ := os.Readlink("/proc/thread-self/ns/mnt")
	return name
})

// inspect fills in what the program's memory and /proc say of the call: as we are, and if that is not allowed with the
// filesystem identity of the program, as it is now. That is what the kernel compares, so neither its memory nor its
// descriptors need a privilege then.
func (c *Call) inspect(n *notification) error {
	err := c.read(n, true)
	if !denied(err) {
		return err
	}
	uid, gid, idErr := identity(c.TID)
	if idErr != nil {
		return err
	}
	fsuid.As(uid, gid, func() { err = c.read(n, false) })
	return err
}

func denied(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) }

// read does all the looking. direct says that process_vm_readv may be used, which goes by the real identity.
func (c *Call) read(n *notification, direct bool) error {
	dir := "/proc/" + strconv.Itoa(c.TID)
	if c.Op == Unlink {
		return c.readUnlink(n, dir, direct)
	}
	fd := dir + "/fd/" + strconv.Itoa(c.FD)
	link, err := readlink(fd)
	if err != nil {
		return err
	}
	inode, isSocket := strings.CutPrefix(link, "socket:[")
	if !isSocket {
		return nil
	}
	c.Inode, _ = strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 64)
	if c.Op == Set {
		c.Value = make([]byte, min(n.args[4], maxValue))
		return peek(c.TID, dir, n.args[3], c.Value, direct)
	}
	var name [32]byte
	size, err := unix.Getxattr(fd, "system.sockprotoname", name[:])
	if err != nil {
		return err
	}
	c.Protocol = strings.TrimRight(string(name[:size]), "\x00")
	if err := c.flags(dir); err != nil {
		return err
	}
	if c.Op == Bind {
		return c.readAddress(n, dir, direct)
	}
	return nil
}

func readlink(path string) (string, error) { return readlinkAt(unix.AT_FDCWD, path) }

func readlinkAt(dir int, path string) (string, error) {
	var b [256]byte
	size, err := unix.Readlinkat(dir, path, b[:])
	if err != nil {
		return "", err
	}
	return string(b[:size]), nil
}

// flags reads the descriptor's flags from fdinfo, octal.
func (c *Call) flags(dir string) error {
	info, err := readFile(dir + "/fdinfo/" + strconv.Itoa(c.FD))
	if err != nil {
		return err
	}
	flags, _ := strconv.ParseUint(field(info, "flags:"), 8, 64)
	c.NonBlocking, c.CloseOnExec = flags&unix.O_NONBLOCK != 0, flags&unix.O_CLOEXEC != 0
	return nil
}

// field is the value in the line of a file in /proc that begins with name.
func field(text []byte, name string) string {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return strings.TrimSpace(string(rest))
		}
	}
	return ""
}

// readFile reads a file of /proc that is one record, as status and fdinfo are: less than was asked for is its end. It makes raw
// system calls: os.File would leave the thread whose identity this needs.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var out []byte
	var b [4096]byte
	for len(out) < 1<<20 {
		n, err := unix.Read(fd, b[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return out, err
		}
		out = append(out, b[:n]...)
		if n < len(b) {
			break
		}
	}
	return out, nil
}

func (c *Call) readAddress(n *notification, dir string, direct bool) error {
	size := min(n.args[2], maxAddress)
	if int64(n.args[2]) < 0 || size < 2 {
		return nil // the kernel knows the error
	}
	b := make([]byte, size)
	if err := peek(c.TID, dir, n.args[1], b, direct); err != nil {
		return err
	}
	c.Family, c.Addr, c.Path = parseSockaddr(b)
	if c.Family == unix.AF_UNIX && c.Path != "" && c.Path[0] != '@' {
		if err := c.readIdentity(); err != nil {
			return err
		}
		return c.resolve(dir)
	}
	if c.Family != unix.AF_INET && c.Family != unix.AF_INET6 {
		return nil
	}
	name, err := readlink(dir + "/ns/net")
	if err != nil {
		return err
	}
	c.Foreign = name != ownNet()
	c.Polled = c.Addr.Port() != 0 && polled(dir, c.Inode)
	return nil
}

// readUnlink reads what is to be removed. Folders are nobody's socket.
func (c *Call) readUnlink(n *notification, dir string, direct bool) error {
	path := n.args[0]
	if n.nr != sysUnlink {
		path = n.args[1]
	}
	b := make([]byte, unix.PathMax)
	size, err := peekString(c.TID, dir, path, b, direct)
	if err != nil || size == 0 {
		return err
	}
	c.Path = string(b[:size])
	return c.resolve(dir)
}

// resolve makes Path absolute, as the program sees it, and tells whether we see the same.
func (c *Call) resolve(dir string) error {
	if !strings.HasPrefix(c.Path, "/") {
		from, err := readlink(dir + "/cwd")
		if err != nil {
			return err
		}
		c.Path = from + "/" + c.Path
	}
	c.Path = filepath.Clean(c.Path)
	root, err := readlink(dir + "/root")
	if err != nil {
		return err
	}
	mounts, err := readlink(dir + "/ns/mnt")
	if err != nil {
		return err
	}
	c.Elsewhere = root != "/" || mounts != ownMounts()
	return nil
}

// readIdentity reads which process it is, whom a new file of it would belong to, and the umask (Linux 4.7).
func (c *Call) readIdentity() error {
	status, err := readFile("/proc/" + strconv.Itoa(c.TID) + "/status")
	if err != nil {
		return err
	}
	uids, gids := strings.Fields(field(status, "Uid:")), strings.Fields(field(status, "Gid:"))
	if len(uids) < 4 || len(gids) < 4 {
		return errors.New("no identity in /proc")
	}
	c.PID, _ = strconv.Atoi(field(status, "Tgid:"))
	c.Parent, _ = strconv.Atoi(field(status, "PPid:"))
	c.UID, _ = strconv.Atoi(uids[3])
	c.GID, _ = strconv.Atoi(gids[3])
	umask, err := strconv.ParseUint(field(status, "Umask:"), 8, 32)
	c.Umask = int(umask)
	return err
}

// peekString reads a string that ends with a zero, and returns its length; 0 if there is no end in b. It reads up to the end of
// the page first: the next one may not be there.
func peekString(tid int, dir string, address uint64, b []byte, direct bool) (int, error) {
	for have := 0; have < len(b); {
		const page = 4096
		size := min(len(b)-have, page-int((address+uint64(have))%page))
		if err := peek(tid, dir, address+uint64(have), b[have:have+size], direct); err != nil {
			return 0, err
		}
		if i := bytes.IndexByte(b[have:have+size], 0); i >= 0 {
			return have + i, nil
		}
		have += size
	}
	return 0, nil
}

// peek reads the program's memory. An address that is none is left to the kernel: what it says of it is the answer.
func peek(tid int, dir string, address uint64, b []byte, direct bool) error {
	if len(b) == 0 {
		return nil
	}
	if direct {
		local := []unix.Iovec{{Base: &b[0]}}
		local[0].SetLen(len(b))
		remote := []unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}
		n, err := unix.ProcessVMReadv(tid, local, remote, 0)
		switch {
		case err == nil && n == len(b):
			return nil
		case err == nil, err == unix.EFAULT:
			return unix.EFAULT
		case err == unix.ESRCH:
			return err
		}
	}
	fd, err := unix.Open(dir+"/mem", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := unix.Pread(fd, b, int64(address))
	switch {
	case err == unix.EIO || err == nil && n < len(b):
		return unix.EFAULT
	case err != nil:
		return err
	}
	return nil
}

// parseSockaddr reads struct sockaddr_in, _in6 or _un. The port of an unknown family is 0.
func parseSockaddr(b []byte) (family int, addr netip.AddrPort, path string) {
	family = int(binary.NativeEndian.Uint16(b))
	switch {
	case family == unix.AF_INET && len(b) >= 16:
		addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
	case family == unix.AF_INET6 && len(b) >= 24:
		ip := netip.AddrFrom16([16]byte(b[8:24]))
		if len(b) >= 28 {
			if zone := binary.NativeEndian.Uint32(b[24:]); zone != 0 && !ip.Is4In6() {
				ip = ip.WithZone(strconv.FormatUint(uint64(zone), 10))
			}
		}
		addr = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:]))
	case family == unix.AF_UNIX && len(b) > 2 && b[2] == 0:
		path = "@" + string(b[3:])
	case family == unix.AF_UNIX:
		path, _, _ = strings.Cut(string(b[2:]), "\x00")
	}
	return family, addr, path
}

// identity reads the real uid and gid of a process. They are what the kernel compares; the four are the same in a process
// that can be looked into at all.
func identity(tid int) (uid, gid int, err error) {
	status, err := readFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return 0, 0, err
	}
	uids, gids := strings.Fields(field(status, "Uid:")), strings.Fields(field(status, "Gid:"))
	if len(uids) == 0 || len(gids) == 0 {
		return 0, 0, errors.New("no identity in /proc")
	}
	uid, err = strconv.Atoi(uids[0])
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(gids[0])
	return uid, gid, err
}

// polled tells whether one of the process's epoll sets holds the socket: it would lose that entry with the old descriptor.
func polled(dir string, inode uint64) bool {
	found := false
	_ = eachFD(dir, func(name, link string) bool {
		if link == "anon_inode:[eventpoll]" {
			info, err := readFile(dir + "/fdinfo/" + name)
			found = err == nil && lists(info, inode)
		}
		return !found
	})
	return found
}

// lists looks for the inode, hexadecimal, in the lines of an epoll set: "tfd: 5 events: ... pos:0 ino:1f2e sdev:8".
func lists(info []byte, inode uint64) bool {
	return bytes.Contains(info, []byte(" ino:"+strconv.FormatUint(inode, 16)+" "))
}
