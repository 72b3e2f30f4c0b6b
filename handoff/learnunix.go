package handoff

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/fsuid"
	"github.com/hotswap-init/entrypoint/handoff/transparent"
)

// maxPaths bounds the sockets of a generation that are bound to a path and do not listen.
const maxPaths = 64

// boundPath is a socket of ours that a program has been given for a path and has not listened on yet.
type boundPath struct {
	h  *held
	sl *slot
}

// Unlinks tells whether a unix path is held, so that what programs remove is of interest.
func (l *Lease) Unlinks() bool {
	l.set.mu.Lock()
	defer l.set.mu.Unlock()
	for _, h := range l.set.held {
		if h.addr.Scheme != "" && !h.addr.inet() && !h.addr.abstract() {
			return true
		}
	}
	return false
}

// unlink keeps a held path where it is: programs remove it before they bind and when they end, and each time there would be
// a moment without it.
func (l *Lease) unlink(c *transparent.Call) transparent.Answer {
	if c.Elsewhere || l.set.atPath(c.Path) == nil {
		return transparent.Answer{}
	}
	return transparent.Answer{Done: true}
}

// atPath is the held stream socket of a path, however its folder is called.
func (s *Set) atPath(path string) *held {
	for _, h := range s.held {
		if h.addr.Scheme == "unix" && !h.addr.abstract() && (h.addr.Path == path || filepath.Base(path) == filepath.Base(h.addr.Path) && sameFolder(path, h.addr.Path)) {
			return h
		}
	}
	return nil
}

func sameFolder(a, b string) bool {
	x, err := os.Stat(filepath.Dir(a))
	if err != nil {
		return false
	}
	y, err := os.Stat(filepath.Dir(b))
	return err == nil && os.SameFile(x, y)
}

// bindPath puts a socket of ours under the bind of a path: the first one at the path itself, a candidate's at a hidden name
// beside it, which takes the place of the path when the traffic is switched.
func (l *Lease) bindPath(c *transparent.Call) transparent.Answer {
	s := l.set
	text := "unix://" + c.Path
	switch {
	case c.Protocol != unixStream: // datagrams; and kernels before 5.14 do not tell
		return transparent.Answer{}
	case c.Path == "" || ownName(c):
		return l.leaveUnix(c, Native{})
	case strings.HasPrefix(c.Path, "@"):
		return l.leaveUnix(c, Native{Address: text, Why: "an abstract name cannot be renamed", Exclusive: true})
	case c.Elsewhere:
		return l.leaveUnix(c, Native{Address: text, Why: "it is in another mount namespace or root folder", Exclusive: true})
	}
	if _, ok := l.notes.paths[c.Inode]; ok {
		return transparent.Answer{Done: true} // once more: a signal interrupted it after it was answered
	}
	if len(l.notes.paths) >= maxPaths {
		return transparent.Answer{}
	}
	h := s.atPath(c.Path)
	if h != nil && !h.swappable() {
		return l.shareUnix(h)
	}
	b, err := s.socketAtPath(l, h, c)
	if err != nil {
		return l.leaveUnix(c, Native{Address: text, Why: err.Error(), Exclusive: true})
	}
	if c.NonBlocking {
		setNonBlocking(b.sl.fd)
	}
	l.notes.remember(b.sl.inode)
	l.notes.paths[b.sl.inode] = b
	if b.sl.phase == leased { // what a crashed generation left, with its queue: it listens already
		l.claim(b.h)
		s.grew()
	}
	return transparent.Answer{Replace: true, FD: b.sl.fd}
}

// unixStream is the kernel's name for the protocol (Linux 5.14).
const unixStream = "UNIX-STREAM"

// leaveUnix lets the program bind by itself. What that means is noted when it listens: clients bind too.
func (l *Lease) leaveUnix(c *transparent.Call, n Native) transparent.Answer {
	l.notes.remember(c.Inode)
	l.notes.left[c.Inode] = n
	return transparent.Answer{}
}

// ownName tells whether the name has the number of the process that binds it, or of its parent: then no other generation will
// ever ask for it.
func ownName(c *transparent.Call) bool {
	for _, digits := range strings.FieldsFunc(filepath.Base(c.Path), func(r rune) bool { return r < '0' || r > '9' }) {
		if n, err := strconv.Atoi(digits); err == nil && n > 1 && (n == c.PID || n == c.Parent || n == c.TID) {
			return true
		}
	}
	return false
}

// shareUnix gives a generation the one socket of a path that cannot be renamed.
func (l *Lease) shareUnix(h *held) transparent.Answer {
	l.claim(h)
	l.set.grew()
	return transparent.Answer{Replace: true, FD: h.current.fd}
}

// socketAtPath is a socket for the program: of a held path, or of one that is learned now.
func (s *Set) socketAtPath(l *Lease, h *held, c *transparent.Call) (boundPath, error) {
	switch {
	case h == nil:
		return s.learnPath(c)
	case h.slotOf(l.at) != nil:
		return boundPath{h, h.slotOf(l.at)}, nil
	case h.current.phase == idle:
		if err := h.current.refresh(); err != nil {
			return boundPath{}, err
		}
		h.current.phase, h.current.gen, h.current.worker = leased, l.gen, l.at.Worker
		return boundPath{h, h.current}, nil
	}
	sl, err := bindAs(c, hiddenName(h.addr.Path))
	return boundPath{h, sl}, err
}

// learnPath begins to hold a path. The socket is bound to the path itself, so that is what the program reads as its address,
// and gets its hidden name as a second one.
func (s *Set) learnPath(c *transparent.Call) (boundPath, error) {
	hidden := hiddenName(c.Path)
	if hidden == "" {
		return boundPath{}, errors.New("its name is too long for a second one beside it")
	}
	if _, err := os.Lstat(c.Path); err == nil {
		return boundPath{}, os.ErrExist
	}
	sl, err := bindAs(c, c.Path)
	if err != nil {
		return boundPath{}, err
	}
	if err := unix.Link(c.Path, hidden); err != nil {
		_, _ = unix.Close(sl.fd), unix.Unlink(c.Path)
		return boundPath{}, fmt.Errorf("it cannot have a second name: %w", err)
	}
	sl.hidden, sl.name, sl.served = hidden, c.Path, true
	h := &held{learned: true, mode: modeRenamed, aim: aim{current: sl}, slots: []*slot{sl}}
	h.addr = Address{Name: s.freshName("unix"), Scheme: "unix", Path: c.Path, Raw: "unix://" + c.Path}
	return boundPath{h, sl}, nil
}

// bindAs makes a bound socket whose file is as the program would have made it: its owner, its mode, and no folder that it
// could not write.
func bindAs(c *transparent.Call, name string) (*slot, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	mode := uint32(0o777 &^ c.Umask)
	if err = unix.Fchmod(fd, mode); err == nil {
		bind := func() { err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}) }
		if os.Geteuid() == 0 {
			fsuid.As(c.UID, c.GID, bind)
		} else {
			bind()
		}
	}
	if err == nil {
		err = unix.Chmod(name, mode) // our own umask has had its say
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &slot{fd: fd, inode: inodeOf(fd), hidden: name, node: nodeOf(name)}, nil
}

// listenPath makes the socket of a path listen, and the generation's from now on.
func (l *Lease) listenPath(b boundPath) transparent.Answer {
	s, h, sl := l.set, b.h, b.sl
	if sl.phase == leased { // it listens already
		l.claim(h)
		return transparent.Answer{Done: true}
	}
	if err := unix.Listen(sl.fd, backlog(&h.addr)); err != nil {
		return transparent.Answer{}
	}
	delete(l.notes.paths, sl.inode)
	if s.atPath(h.addr.Path) == nil {
		s.held = append(s.held, h)
		h.owned = true
		if err := s.watchFolder(filepath.Dir(h.addr.Path)); err != nil {
			s.logf("unix paths are not watched: %v", err)
		}
		if s.cfg.Learned != nil {
			defer func() { s.cfg.Learned(l.gen, h.status()) }()
		}
	} else if sl != h.current {
		h.slots = append(h.slots, sl)
	}
	sl.phase, sl.gen, sl.worker = leased, l.gen, l.at.Worker
	l.claim(h)
	if err := s.catchUp(h, l.at); err != nil {
		s.logf("%v", err)
	}
	s.grew()
	return transparent.Answer{Done: true}
}

// dropUnlistened closes what the generation was given for paths and never listened on.
func (l *Lease) dropUnlistened() {
	for inode, b := range l.notes.paths {
		delete(l.notes.paths, inode)
		if b.sl.phase == leased {
			continue
		}
		_ = unix.Close(b.sl.fd)
		_ = unix.Unlink(b.sl.hidden)
		if b.sl == b.h.current && nodeOf(b.h.addr.Path) == b.sl.node {
			_ = unix.Unlink(b.h.addr.Path)
		}
	}
}

// adoptMode gives a slot's file the owner and mode that the path has now: programs set them after bind.
func (h *held) adoptMode(sl *slot) {
	var st unix.Stat_t
	if !h.learned || unix.Lstat(h.addr.Path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return
	}
	_ = unix.Lchown(sl.hidden, int(st.Uid), int(st.Gid))
	_ = unix.Chmod(sl.hidden, st.Mode&0o7777)
}
