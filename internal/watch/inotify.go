package watch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What is asked of a directory on the way, and of the one that holds the file.
const (
	maskWay = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	maskLast  = maskWay | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB
	maskFlags = unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK | unix.IN_MASK_ADD
)

// rearranged are the events after which a path may lead somewhere else.
const rearranged = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_UNMOUNT | unix.IN_IGNORED | unix.IN_Q_OVERFLOW

// readBuffer holds some hundred events; the kernel keeps the rest.
const readBuffer = 16 << 10

// event is one struct inotify_event.
type event struct {
	wd   int
	mask uint32
	name string // "" when it is about the directory itself
}

// parseEvents reads what the kernel wrote. A record that does not fit ends it with an error: what came before is good.
func parseEvents(buf []byte) (events []event, err error) {
	for len(buf) > 0 {
		if len(buf) < unix.SizeofInotifyEvent {
			return events, errors.New("internal error: an inotify event is cut off")
		}
		e := event{wd: int(int32(binary.NativeEndian.Uint32(buf))), mask: binary.NativeEndian.Uint32(buf[4:])}
		size := uint64(binary.NativeEndian.Uint32(buf[12:]))
		buf = buf[unix.SizeofInotifyEvent:]
		if size > uint64(len(buf)) {
			return events, fmt.Errorf("internal error: an inotify event has a name of %d bytes", size)
		}
		name, _, _ := bytes.Cut(buf[:size], []byte{0})
		e.name = string(name)
		events = append(events, e)
		buf = buf[size:]
	}
	return events, nil
}

// use is why a directory is watched: for one name in it, or for all when name is "".
type use struct {
	target *target
	at     link
}

// notifier is one inotify instance. Only batches, failed and its reader are used outside of Run's goroutine.
type notifier struct {
	fd      int
	file    *os.File
	uses    map[int][]use // by watch descriptor
	refused map[string]bool
	batches chan []event
	failed  chan error // one, if reading fails
	quit    chan struct{}
	ended   chan struct{}
}

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	n := &notifier{
		fd: fd, file: os.NewFile(uintptr(fd), "inotify"),
		uses: map[int][]use{}, refused: map[string]bool{},
		batches: make(chan []event), failed: make(chan error, 1),
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
	go n.read()
	return n, nil
}

// close ends the reader and waits for it.
func (n *notifier) close() {
	close(n.quit)
	n.file.Close() // nothing is ever written to it
	<-n.ended
}

// read hands on what the kernel reports, until close or an error.
func (n *notifier) read() {
	defer close(n.ended)
	buf := make([]byte, readBuffer)
	for {
		size, err := n.file.Read(buf)
		if err != nil {
			n.failed <- err
			return
		}
		events, err := parseEvents(buf[:size])
		if err != nil { // treat it as lost events
			events = append(events, event{wd: -1, mask: unix.IN_Q_OVERFLOW})
		}
		select {
		case n.batches <- events:
		case <-n.quit:
			return
		}
	}
}

// sync makes the watches be those that the targets need now. fresh tells that a directory was not watched before: then
// what happened in it until now was not seen. Directories that vanished meanwhile are left to the next sync.
func (n *notifier) sync(targets []*target, logf func(string, ...any)) (fresh bool, err error) {
	uses := map[int][]use{}
	for dir, d := range wanted(targets) {
		wd, e := unix.InotifyAddWatch(n.fd, dir, d.mask|maskFlags)
		switch e {
		case nil:
		case unix.ENOENT, unix.ENOTDIR:
			continue
		case unix.EACCES:
			if !n.refused[dir] {
				n.refused[dir] = true
				logf("cannot watch directory %q by inotify: uid %d may not read it", dir, os.Geteuid())
			}
			continue
		default:
			err = e
			continue
		}
		if _, known := n.uses[wd]; !known {
			fresh = true
		}
		uses[wd] = append(uses[wd], d.uses...)
	}
	for wd := range n.uses {
		if _, still := uses[wd]; !still {
			unix.InotifyRmWatch(n.fd, uint32(wd)) // EINVAL: the kernel has removed it already
		}
	}
	n.uses = uses
	return fresh, err
}

// directory is one that must be watched.
type directory struct {
	mask uint32
	uses []use
}

func wanted(targets []*target) map[string]*directory {
	dirs := map[string]*directory{}
	need := func(t *target, at link, mask uint32) {
		d := dirs[at.dir]
		if d == nil {
			d = &directory{}
			dirs[at.dir] = d
		}
		d.mask |= mask
		d.uses = append(d.uses, use{t, at})
	}
	for _, t := range targets {
		for i, at := range t.chain.links {
			mask := uint32(maskWay)
			if i == len(t.chain.links)-1 {
				mask = maskLast
			}
			need(t, at, mask)
		}
		if t.chain.isDir() {
			need(t, link{dir: t.chain.final}, maskLast)
		}
	}
	return dirs
}

// limitHint names the setting behind an error of inotify.
func limitHint(err error) string {
	switch err {
	case unix.EMFILE:
		return "; raise the sysctl fs.inotify.max_user_instances (or our limit of open files)"
	case unix.ENOSPC:
		return "; raise the sysctl fs.inotify.max_user_watches"
	}
	return ""
}
