package handoff

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// node identifies a file.
type node struct{ dev, ino uint64 }

// nodeOf is the file at a path; the zero node if there is none.
func nodeOf(path string) node {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return node{}
	}
	return node{dev: uint64(st.Dev), ino: st.Ino}
}

// hiddenName is a fresh name beside path, empty if none fits into a socket address.
func hiddenName(path string) string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	tag := hex.EncodeToString(b[:])
	dir, base := filepath.Split(path)
	for _, name := range []string{dir + "." + base + "." + tag, dir + ".ep-" + tag} {
		if len(name) <= maxUnixPath {
			return name
		}
	}
	return ""
}

func unixType(a *Address) int {
	switch a.Scheme {
	case "unixgram":
		return unix.SOCK_DGRAM
	case "unixpacket":
		return unix.SOCK_SEQPACKET
	}
	return unix.SOCK_STREAM
}

// openUnix opens the first slot of a unix address.
func (s *Set) openUnix(h *held) error {
	if h.addr.abstract() {
		fd, err := bindUnix(&h.addr, h.addr.Path)
		if err == nil {
			h.adoptSlot(fd)
		}
		return err
	}
	if err := vacantPath(&h.addr); err != nil {
		return err
	}
	removeLeftovers(&h.addr)
	if hiddenName(h.addr.Path) == "" {
		return h.openPlainUnix()
	}
	sl, err := openUnixSlot(&h.addr)
	if err != nil {
		return err
	}
	if err := placeUnix(sl.hidden, h.addr.Path); err != nil {
		_, _ = unix.Close(sl.fd), unix.Unlink(sl.hidden)
		return err
	}
	sl.inode, sl.phase, sl.served = inodeOf(sl.fd), idle, true
	h.slots, h.current = []*slot{sl}, sl
	return nil
}

// openPlainUnix binds the path itself: there is no room for a second name.
func (h *held) openPlainUnix() error {
	if err := unix.Unlink(h.addr.Path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot remove the stale socket: %w", err)
	}
	fd, err := bindUnix(&h.addr, h.addr.Path)
	if err == nil {
		h.adoptSlot(fd)
		h.current.node = nodeOf(h.addr.Path)
	}
	return err
}

// openUnixSlot opens a socket at a hidden name, ready to be linked to the path: mode, owner and group are set.
func openUnixSlot(a *Address) (*slot, error) {
	name := hiddenName(a.Path)
	fd, err := bindUnix(a, name)
	if err != nil {
		return nil, err
	}
	return &slot{fd: fd, hidden: name, node: nodeOf(name)}, nil
}

// bindUnix makes a bound socket, listening if it is of a connected type. The descriptor belongs to the caller.
func bindUnix(a *Address, name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unixType(a)|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := setUpUnix(fd, a, name); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setUpUnix(fd int, a *Address, name string) error {
	o := &a.Options
	err := applyOptions(fd, []sockopt{
		{"rcvbuf", unix.SOL_SOCKET, unix.SO_RCVBUF, o.RcvBuf, o.RcvBuf > 0},
		{"sndbuf", unix.SOL_SOCKET, unix.SO_SNDBUF, o.SndBuf, o.SndBuf > 0},
	})
	if err != nil {
		return err
	}
	file := !a.abstract()
	if file && a.modeGiven() {
		// bind creates the file with the socket's own mode less the umask: never wider than asked for, not for a moment.
		if err := unix.Fchmod(fd, uint32(o.Mode)); err != nil {
			return fmt.Errorf("mode: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return err
	}
	if file {
		err = setOwner(a, name)
	}
	if err == nil && a.stream() {
		err = unix.Listen(fd, backlog(a))
	}
	if err != nil && file {
		_ = unix.Unlink(name)
	}
	return err
}

// modeGiven reports whether there is a mode option: an Address made by hand may have all options zero.
func (a *Address) modeGiven() bool { return a.Options.Mode > 0 }

// setOwner gives the file the configured owner, group and mode, the mode last: chown may clear bits.
func setOwner(a *Address, name string) error {
	uid, err := idOf(a.Options.Owner, lookupUser)
	if err != nil {
		return fmt.Errorf("owner: %w", err)
	}
	gid, err := idOf(a.Options.Group, lookupGroup)
	if err != nil {
		return fmt.Errorf("group: %w", err)
	}
	if uid >= 0 || gid >= 0 {
		if err := unix.Lchown(name, uid, gid); err != nil {
			return fmt.Errorf("owner: %w", err)
		}
	}
	if a.modeGiven() {
		if err := unix.Chmod(name, uint32(a.Options.Mode)); err != nil {
			return fmt.Errorf("mode: %w", err)
		}
	}
	return nil
}

// idOf is a number or a looked-up name, -1 for an empty one.
func idOf(name string, lookup func(string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	n, err := strconv.ParseUint(name, 10, 31)
	if err == nil {
		return int(n), nil
	}
	id, err := lookup(name)
	if err != nil {
		return -1, fmt.Errorf("unknown name %q; a number works without a user database", name)
	}
	return strconv.Atoi(id)
}

func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func lookupGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

// vacantPath refuses a path where anything but a dead socket is.
func vacantPath(a *Address) error {
	info, err := os.Lstat(a.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return errors.New("there is something that is not a socket; it is left alone")
	}
	return deadSocket(a.Path, unixType(a))
}

// deadSocket fails unless a connect to the socket is refused.
func deadSocket(path string, typ int) error {
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EPROTOTYPE):
		return errors.New("already served by another process")
	default:
		return fmt.Errorf("cannot tell whether another process serves it: %w", err)
	}
}

// leftover tells a hidden name: it ends in eight hexadecimal digits behind a dot or ".ep-".
func leftover(name string) bool {
	name = strings.TrimSuffix(name, "~")
	digits := len(name) - 8
	return digits > 0 && strings.Trim(name[digits:], "0123456789abcdef") == "" && (name[digits-1] == '.' || name[:digits] == ".ep-")
}

// removeLeftovers removes the dead hidden names of an earlier run that had no chance to do it itself.
func removeLeftovers(a *Address) {
	dir, base := filepath.Split(a.Path)
	for _, pattern := range []string{"." + base + ".????????*", ".ep-????????*"} {
		names, _ := filepath.Glob(globQuote(dir) + pattern)
		for _, n := range names {
			info, err := os.Lstat(n)
			if err == nil && info.Mode().Type() == os.ModeSocket && leftover(filepath.Base(n)) && deadSocket(n, unixType(a)) == nil {
				_ = unix.Unlink(n)
			}
		}
	}
}

func globQuote(s string) string {
	return strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`, `\`, `\\`).Replace(s)
}

// placeUnix makes path the socket behind hidden, atomically. rename does nothing between two names of one file, and
// then leaves both, so the temporary name is removed in any case.
func placeUnix(hidden, path string) error {
	tmp := hidden + "~"
	_ = unix.Unlink(tmp)
	if err := unix.Link(hidden, tmp); err != nil {
		return fmt.Errorf("cannot link the socket: %w", err)
	}
	defer unix.Unlink(tmp)
	if err := unix.Rename(tmp, path); err != nil {
		return fmt.Errorf("cannot rename the socket into place: %w", err)
	}
	return nil
}

// unlinkPath removes the path if it still is ours.
func (h *held) unlinkPath() error {
	if h.current == nil || nodeOf(h.addr.Path) != h.current.node {
		return nil
	}
	return unix.Unlink(h.addr.Path)
}
