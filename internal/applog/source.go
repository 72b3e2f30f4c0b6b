package applog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pipeRoom is what a pipe shall hold: more than two of the longest lines, for a page of a pipe may be half full.
	pipeRoom = 256 << 10
	// lookAgain is when a pipe that holds part of a line is looked at without having been woken: kernels from 5.5 to 5.13 wake a
	// reader only when a pipe was empty.
	lookAgain = 100 * time.Millisecond
	// tailRoom is what is remembered of what was said last.
	tailRoom = 4 << 10
)

// errNothing says that there is nothing to read, and that nothing more is waited for.
var errNothing = errors.New("nothing is left in the pipe")

// tee is replaced by tests.
var tee = unix.Tee

// source is the reading end of a pipe of a generation.
type source struct {
	Origin
	id   int
	r    *os.File
	raw  syscall.RawConn
	copy [2]int // a pipe into which what waits is copied, to be looked at
	buf  []byte // what waits, as it was seen last
	most int    // the longest line in one piece

	reads    bool // a sandbox refuses to look: what waits is taken, into buf[from:to], and would be lost with us
	from, to int

	mu        sync.Mutex
	finishing bool   // what is there is all
	tail      []byte // of what was taken
	rest      []byte // of what waits
	waits     int    // how much that is
}

// newSource takes over r, also if it fails. It must be non-blocking.
func newSource(id int, o Origin, r *os.File) (*source, error) {
	s := &source{Origin: o, id: id, r: r, copy: [2]int{-1, -1}}
	var err error
	if s.raw, err = r.SyscallConn(); err == nil {
		err = unix.Pipe2(s.copy[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("cannot read a pipe of the app: %w", err)
	}
	room := 0
	_ = s.raw.Control(func(fd uintptr) {
		room, _ = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
		_, err = tee(int(fd), s.copy[1], 0, unix.SPLICE_F_NONBLOCK)
	})
	s.reads = err == unix.ENOSYS || err == unix.EPERM
	if n, err := unix.FcntlInt(uintptr(s.copy[1]), unix.F_SETPIPE_SZ, room); err == nil {
		room = min(room, n)
	} else if n, err := unix.FcntlInt(uintptr(s.copy[1]), unix.F_GETPIPE_SZ, 0); err == nil {
		room = min(room, n)
	}
	s.buf, s.most = make([]byte, max(room, 4096)), min(maxLine, max(room, 8192)/2)
	return s, nil
}

func (s *source) close() {
	s.r.Close()
	unix.Close(s.copy[0])
	unix.Close(s.copy[1])
}

// finish makes peek return what is there, and errNothing when that is taken.
func (s *source) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finishing = true
	_ = s.r.SetReadDeadline(time.Unix(1, 0))
}

// patience sets when a pipe is looked at without having been woken; never, if it is empty. It tells whether what is there is all.
func (s *source) patience(seen int) (finishing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.finishing {
		at := time.Time{}
		if seen > 0 {
			at = time.Now().Add(lookAgain)
		}
		_ = s.r.SetReadDeadline(at)
	}
	return s.finishing
}

// peek waits until more than seen bytes are in the pipe and returns all of them, which stay there. With io.EOF, or errNothing after
// finish, they are the last ones.
func (s *source) peek(seen int) ([]byte, error) {
	n, end, err := 0, false, error(nil)
	look := func(fd uintptr) bool {
		n, end, err = s.look(int(fd))
		return err != nil || end || n > seen
	}
	for {
		finishing := s.patience(seen)
		if waited := s.raw.Read(look); errors.Is(waited, os.ErrDeadlineExceeded) {
			var done bool
			_ = s.raw.Control(func(fd uintptr) { done = look(fd) })
			if !done && !finishing {
				continue
			}
		} else if waited != nil {
			return nil, waited
		}
		switch {
		case err != nil:
		case end:
			err = io.EOF
		case finishing && n <= seen:
			err = errNothing
		}
		s.note(s.buf[:n])
		return s.buf[:n], err
	}
}

// look copies what waits, and tells whether that is all there will ever be. It does not block.
func (s *source) look(fd int) (n int, end bool, err error) {
	if s.reads {
		return s.take(fd)
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, _ = unix.Poll(p, 0)
	gone := p[0].Revents&unix.POLLHUP != 0 // before the look: what is there now is all
	_, err = tee(fd, s.copy[1], len(s.buf), unix.SPLICE_F_NONBLOCK)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("cannot look into a pipe: %w", err)
	}
	for n < len(s.buf) {
		m, err := unix.Read(s.copy[0], s.buf[n:])
		if err == unix.EINTR {
			continue
		}
		if m <= 0 {
			break
		}
		n += m
	}
	if gone {
		waits, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		gone = err == nil && waits == n
	}
	return n, gone, nil
}

// take is look where the bytes do not stay in the pipe. What was looked at before moves to the beginning of buf.
func (s *source) take(fd int) (n int, end bool, err error) {
	s.from, s.to = 0, copy(s.buf, s.buf[s.from:s.to])
	for s.to < len(s.buf) {
		m, err := unix.Read(fd, s.buf[s.to:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return s.to, false, nil
		case err != nil:
			return 0, false, fmt.Errorf("cannot read a pipe: %w", err)
		case m == 0:
			return s.to, true, nil
		default:
			s.to += m
		}
	}
	return s.to, false, nil
}

// move has the kernel move n bytes into a file at *off. It says how many, also with an error.
func (s *source) move(file int, off *int64, n int) (done int, err error) {
	if s.reads {
		return 0, unix.ENOSYS
	}
	ctl := s.raw.Control(func(fd uintptr) {
		for done < n {
			var m int
			m, err = splice(int(fd), file, off, n-done)
			if err == unix.EINTR {
				continue
			}
			if err == nil && m == 0 {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return
			}
			done += m
		}
	})
	return done, errors.Join(err, ctl)
}

// splice hides that its result is of another type on 32 bits.
func splice(from, to int, off *int64, n int) (int, error) {
	m, err := unix.Splice(from, nil, to, off, n, unix.SPLICE_F_NONBLOCK)
	return int(m), err
}

// discard takes n bytes that were looked at out of the pipe.
func (s *source) discard(n int) (err error) {
	if s.reads {
		s.from += n
		return nil
	}
	scratch := make([]byte, min(n, 64<<10))
	ctl := s.raw.Control(func(fd uintptr) {
		for n > 0 && err == nil {
			var m int
			m, err = unix.Read(int(fd), scratch[:min(n, len(scratch))])
			switch {
			case err == unix.EINTR:
				err = nil
			case err == nil && m == 0:
				err = io.ErrUnexpectedEOF
			default:
				n -= max(m, 0)
			}
		}
	})
	return errors.Join(err, ctl)
}

// note remembers what waits, taken what was taken, for tail.
func (s *source) note(waits []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest, s.waits = append(s.rest[:0], waits[max(0, len(waits)-tailRoom):]...), len(waits)
}

func (s *source) took(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tail = append(s.tail, text[max(0, len(text)-tailRoom):]...)
	s.tail = append(s.tail[:0], s.tail[max(0, len(s.tail)-tailRoom):]...)
	s.waits = max(0, s.waits-len(text))
	s.rest = s.rest[max(0, len(s.rest)-s.waits):]
}

// last is the end of what was said, whole lines if it is long: what was taken, and what waits.
func (s *source) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := append(append([]byte(nil), s.tail...), s.rest...)
	if len(text) > tailRoom {
		text = text[len(text)-tailRoom:]
	}
	if len(text) == tailRoom {
		if i := bytes.IndexByte(text, '\n'); i >= 0 && i+1 < len(text) {
			text = text[i+1:]
		}
	}
	return strings.ToValidUTF8(string(text), "\uFFFD")
}
