package handoff

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Repair puts back unix paths that somebody unlinked. The Set does so by itself when inotify tells it; Repair is for
// callers that look at times all the same. A path that now is another process's socket is left alone and reported, once.
func (s *Set) Repair() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	var errs []error
	for _, h := range s.held {
		errs = append(errs, s.check(h), h.repairPath())
	}
	return errors.Join(errs...)
}

// repairPath restores whichever of the current slot's two names is missing from the other one.
func (h *held) repairPath() error {
	sl := h.current
	if sl.hidden == "" {
		return nil
	}
	path, hidden := nodeOf(h.addr.Path), nodeOf(sl.hidden)
	switch {
	case path == sl.node && hidden == sl.node:
		h.lost = false
		return nil
	case path == sl.node:
		return unix.Link(h.addr.Path, sl.hidden)
	case path != node{}:
		if h.lost {
			return nil
		}
		h.lost = true
		return fmt.Errorf("cannot put back %q: another file is there now", h.addr.Path)
	case hidden != sl.node:
		return fmt.Errorf("cannot put back %q: its second name %q was removed too", h.addr.Path, sl.hidden)
	}
	return placeUnix(sl.hidden, h.addr.Path)
}

// watchPaths watches the folders of all held paths.
func (s *Set) watchPaths() error {
	for _, h := range s.held {
		if h.current.hidden == "" {
			continue
		}
		if err := s.watchFolder(filepath.Dir(h.addr.Path)); err != nil {
			return err
		}
	}
	return nil
}

// watchFolder makes Repair be called when a name disappears from a folder. Watching one twice does nothing more.
func (s *Set) watchFolder(dir string) error {
	if s.watch == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return fmt.Errorf("inotify: %w", err)
		}
		s.watchFD, s.watch = fd, os.NewFile(uintptr(fd), "inotify")
		s.wg.Add(1)
		go func(f *os.File) {
			defer s.wg.Done()
			s.repairOnEvents(f)
		}(s.watch)
	}
	if _, err := unix.InotifyAddWatch(s.watchFD, dir, unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_ONLYDIR); err != nil {
		return fmt.Errorf("inotify %q: %w", dir, err)
	}
	return nil
}

// repairOnEvents reads until the file is closed. Our own temporary names (they end in "~") are no news.
func (s *Set) repairOnEvents(f *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		if !namesGone(buf[:n]) {
			continue
		}
		if err := s.Repair(); err != nil && !errors.Is(err, errClosed) {
			s.logf("%v", err)
		}
	}
}

// namesGone reports whether any of the events is about a name other than a temporary one of ours.
func namesGone(b []byte) bool {
	for len(b) >= unix.SizeofInotifyEvent {
		size := unix.SizeofInotifyEvent + int(native.Uint32(b[12:]))
		if size > len(b) {
			return true
		}
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:size]), "\x00")
		if !strings.HasSuffix(name, "~") {
			return true
		}
		b = b[size:]
	}
	return false
}
