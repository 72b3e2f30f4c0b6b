package applog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// retryAfter is how often a file that cannot be written is tried again.
const retryAfter = time.Second

// sink takes the lines of sources. Its methods may be called from several goroutines.
type sink interface {
	// write takes text, which are the first bytes in the pipe of s, out of it. mend is put behind it.
	write(s *source, text []byte, mend string)
	reopen() error
	close()
}

// fileSink is a file that is rotated.
type fileSink struct {
	path  string
	spec  Spec
	say   func(format string, a ...any) // a line of the init's log
	drop  func(lines int)               // counts
	full  func()                        // a file was rotated: there is work for the archive
	first bool                          // the first run of the container: nobody is in the middle of a line

	mu      sync.Mutex
	f       *os.File // nil: it cannot be opened
	size    int64
	begun   time.Time
	copies  bool        // the file system cannot splice
	age     *time.Timer // until it is rotated for its age
	fault   error       // why lines are dropped; nil: they are not
	retry   time.Time
	dropped int // since the fault
	closed  bool
}

// use opens the file. One that cannot be opened drops lines, and is tried again.
func (k *fileSink) use() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.open(); err != nil {
		k.fail(err)
	}
}

func (k *fileSink) open() error {
	err := os.MkdirAll(filepath.Dir(k.path), 0o755)
	if err != nil {
		return err
	}
	// Not O_APPEND: the kernel splices into no such file. We are the only writer.
	f, err := os.OpenFile(k.path, os.O_RDWR|os.O_CREATE|unix.O_NONBLOCK|unix.O_NOCTTY, fs.FileMode(k.spec.Mode))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", k.path)
	}
	if err != nil {
		f.Close()
		return err
	}
	k.f, k.size, k.begun = f, info.Size(), time.Now()
	if k.size > 0 {
		k.begun = birth(k.path, info.ModTime())
		if last := make([]byte, 1); k.first {
			if _, err := f.ReadAt(last, k.size-1); err == nil && last[0] != '\n' {
				_ = k.append([]byte{'\n'}) // whoever wrote half a line will not go on
			}
		}
	}
	k.first = false
	k.armAge()
	return nil
}

// birth is when a file was made, as well as can be known.
func birth(path string, other time.Time) time.Time {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &st); err == nil && st.Mask&unix.STATX_BTIME != 0 {
		return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	}
	return other
}

// armAge rotates for age also when nobody writes.
func (k *fileSink) armAge() {
	if k.spec.Age <= 0 {
		return
	}
	if k.age != nil {
		k.age.Stop()
	}
	f := k.f
	k.age = time.AfterFunc(max(0, time.Until(k.begun.Add(k.spec.Age))), func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.closed || k.f != f || k.f == nil {
			return
		}
		if k.size == 0 {
			k.begun = time.Now()
			k.armAge()
			return
		}
		if err := k.rotate(); err != nil {
			k.fail(err)
		}
	})
}

// append writes what the kernel does not move from a pipe. os.File.WriteAt does not count what it has written of a piece that fails.
func (k *fileSink) append(text []byte) error {
	for len(text) > 0 {
		n, err := unix.Pwrite(int(k.f.Fd()), text, k.size)
		if n > 0 {
			k.size += int64(n)
			text = text[n:]
		} else if err != unix.EINTR {
			return err
		}
	}
	return nil
}

func (k *fileSink) write(s *source, text []byte, mend string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(text) > 0 {
		n, err := k.some(s, text)
		s.took(text[:n])
		text = text[n:]
		if err != nil {
			text = k.lose(s, text, err)
		}
	}
	if mend != "" && k.f != nil && k.fault == nil {
		_ = k.append([]byte(mend)) // what could be written; the next lines say whether there is a fault
	}
}

// some writes what fits into the present file.
func (k *fileSink) some(s *source, text []byte) (int, error) {
	if k.fault != nil {
		if time.Now().Before(k.retry) {
			return 0, k.fault
		}
		if err := k.recover(); err != nil {
			return 0, err
		}
	}
	k.truncated()
	n := len(text)
	if k.spec.Size > 0 {
		n = fitting(text, k.spec.Size-k.size)
		if k.size > 0 && k.size+int64(n) > k.spec.Size {
			if err := k.rotate(); err != nil {
				return 0, err
			}
			n = fitting(text, k.spec.Size)
		}
	}
	return k.move(s, text[:n])
}

// truncated notices that somebody has cut the file, as "copytruncate" does.
func (k *fileSink) truncated() {
	if info, err := k.f.Stat(); err == nil && info.Size() < k.size {
		k.size = info.Size()
	}
}

// move takes text out of the pipe and into the file.
func (k *fileSink) move(s *source, text []byte) (int, error) {
	if !k.copies {
		n, err := s.move(int(k.f.Fd()), &k.size, len(text))
		if n > 0 || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
			return n, err
		}
		k.copies = true
	}
	was := k.size
	err := k.append(text)
	n := int(k.size - was)
	return n, errors.Join(err, s.discard(n))
}

// lose drops text, and what of the line before it is half written. It returns what is left to be written.
func (k *fileSink) lose(s *source, text []byte, err error) []byte {
	if k.fault == nil {
		k.cutBack()
		k.fail(err)
	}
	n := len(text)
	if s.discard(n) != nil { // cannot be
		return nil
	}
	s.took(text)
	k.dropped += lineCount(text)
	k.drop(lineCount(text))
	return nil
}

// cutBack takes the beginning of a line whose end finds no room out of the file.
func (k *fileSink) cutBack() {
	if k.f == nil || k.size == 0 {
		return
	}
	from := max(0, k.size-maxLine-int64(len(splitMark)))
	end := make([]byte, k.size-from)
	if _, err := k.f.ReadAt(end, from); err != nil {
		return
	}
	for i := len(end); i > 0; i-- {
		if end[i-1] == '\n' || from == 0 && i == 1 {
			if end[i-1] != '\n' {
				i--
			}
			if k.f.Truncate(from+int64(i)) == nil {
				k.size = from + int64(i)
			}
			return
		}
	}
}

// fail begins to drop lines.
func (k *fileSink) fail(err error) {
	k.retry = time.Now().Add(retryAfter)
	if k.fault == nil {
		k.say("cannot write the app's log %q: %v; its lines are dropped until it can be written", k.path, err)
		k.dropped = 0
	}
	k.fault = err
}

// recover tries the file again. It says in the file what is missing there.
func (k *fileSink) recover() error {
	k.retry = time.Now().Add(retryAfter)
	if k.f == nil {
		if err := k.open(); err != nil {
			return err
		}
	}
	k.truncated()
	// A note may find room where the lines behind it do not.
	if err := unix.Fallocate(int(k.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, k.size, maxLine); err == unix.ENOSPC || err == unix.EDQUOT {
		return err
	}
	if k.dropped > 0 {
		note := fmt.Appendf(nil, "[entrypoint: %d lines are missing here: %v]\n", k.dropped, k.fault)
		was := k.size
		if err := k.append(note); err != nil {
			_ = k.f.Truncate(was)
			k.size = was
			return err
		}
	}
	k.say("the app's log %q can be written again: %d lines were dropped", k.path, k.dropped)
	k.fault, k.dropped = nil, 0
	return nil
}

// rotate gives the present file another name and begins a new one.
func (k *fileSink) rotate() error {
	to, err := rotatedName(k.path, time.Now())
	if err == nil {
		err = os.Rename(k.path, to)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // somebody else has taken it away: that is as good
		return fmt.Errorf("cannot rotate: %w", err)
	}
	k.f.Close()
	k.f = nil
	k.full()
	return k.open()
}

// reopen begins a new file if the present one was given another name, as logrotate does.
func (k *fileSink) reopen() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.f
	if err := k.open(); err != nil {
		return err
	}
	if old != nil {
		old.Close()
	}
	k.retry = time.Time{}
	return nil
}

func (k *fileSink) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.age != nil {
		k.age.Stop()
	}
	if k.f != nil {
		k.f.Close()
		k.f = nil
	}
}
