package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// copied is a private copy. Whoever holds it closes file and calls remove.
type copied struct {
	file   *os.File // O_RDONLY|O_CLOEXEC; nothing of ours can write to the bytes any more
	exec   string   // inMemory or inFile
	path   string   // of a file; else ""
	public bool     // every user may enter the directories on the way to path
	dir    string   // removed with the copy; "": nothing
}

func (c *copied) remove() error {
	if c.dir == "" {
		return nil
	}
	return os.RemoveAll(c.dir)
}

// artifact is the copy as that of f, whose file stays the caller's.
func (c *copied) artifact(f *found) *Artifact {
	a := &Artifact{
		path: f.path, file: c.file, stat: f.stat, readable: true,
		script: f.format.script, byName: f.format.script || f.format.emulated, copy: c,
		info: Info{Exec: c.exec, Size: f.stat.Size, Modified: modified(&f.stat), Changed: changed(&f.stat)},
	}
	a.measure()
	return a
}

// blockSize is the unit of st_blocks.
const blockSize = 512

// measure looks at the copy itself.
func (a *Artifact) measure() {
	_ = a.fstat(&a.own) // it cannot fail on an open descriptor, and a size of 0 is refused
	if a.info.Exec == inMemory {
		a.info.Memory = a.own.Blocks * blockSize
	}
}

// place is where copies can be put.
type place struct {
	make func(ctx context.Context, f *found) (*copied, error)
}

const (
	// quietFor is how long a file may stay open for writing before its program is refused: somebody who forked at the wrong
	// moment holds a descriptor until the exec, and whoever closes it now has written it to the end.
	quietFor = 500 * time.Millisecond
	quietGap = 2 * time.Millisecond
)

// quiet waits until nobody has the file open for writing. One long write shows in the times of a file when it begins, not
// when it ends, so that looking at them before and after is not enough; from here on it is, because whoever writes now
// began after the file was looked at.
func quiet(ctx context.Context, f *os.File) error {
	over := time.NewTimer(quietFor)
	defer over.Stop()
	for gap := quietGap; written(f); gap *= 2 {
		again := time.NewTimer(gap)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("copying it was given up: %w", context.Cause(ctx))
		case <-over.C:
			again.Stop()
			return &fault{text: "somebody has it open for writing; is it still being copied?", errno: unix.ETXTBSY}
		}
	}
	return nil
}

// written tells whether somebody has a file open for writing: then no read lease is to be had (fcntl(2), F_SETLEASE). It is
// given back at once. Where we may not ask for one (a file of somebody else, without CAP_LEASE) or the filesystem has none,
// nobody is taken to be there. If it is broken in between, the kernel tells us by the signal whose arrival means nothing.
func written(f *os.File) bool {
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETSIG, int(unix.SIGCHLD))
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return err == unix.EAGAIN
}

// places are where a program of size bytes may be copied to, the best first. Files cost no memory; but what was
// verified should be where nobody can change it, not even our own uid, and only sealed memory is such a place.
func (s *Store) places(size int64, fileOnly bool) []place {
	file := place{func(ctx context.Context, f *found) (*copied, error) { return s.files.copy(ctx, f) }}
	memory := place{func(ctx context.Context, f *found) (*copied, error) { return s.copyToMemory(ctx, f) }}
	switch {
	case fileOnly && s.files == nil:
		return nil
	case fileOnly:
		return []place{file}
	case s.files == nil:
		return []place{memory}
	case s.verify != nil:
		return []place{memory, file}
	}
	return []place{file, memory}
}

// copyToMemory makes a sealed memory file (memfd_create, Linux 3.17).
func (s *Store) copyToMemory(ctx context.Context, f *found) (*copied, error) {
	if err := s.fits(f.stat.Size); err != nil {
		return nil, err
	}
	if err := s.sealed(); err != nil {
		return nil, err
	}
	w, err := NewMemory(f.base())
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := transfer(ctx, w, f.program); err != nil {
		return nil, err
	}
	if err := Seal(w); err != nil {
		return nil, err
	}
	r, err := readOnly(w)
	if err != nil {
		return nil, err
	}
	return &copied{file: r, exec: inMemory}, nil
}

// maxMemoryName is the kernel's limit for the name of a memory file.
const maxMemoryName = 249

// NewMemory makes an empty memory file with that name that may be executed (Linux 3.17). The caller closes it, and may [Seal] it.
func NewMemory(name string) (*os.File, error) {
	name = name[:min(len(name), maxMemoryName)]
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 all are executable, and nobody knows the flag
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, plain("no executable memory file can be made", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// allSeals make a memory file constant for good.
const allSeals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

// sealTime is how long pages that somebody still holds are waited for.
const sealTime = 2 * time.Second

// Seal makes a memory file constant: nobody can write to it any more, in no way (F_ADD_SEALS, Linux 3.17). The kernel refuses while
// anybody holds one of its pages, as it does itself for a moment when it moves pages, or when the cgroup is frozen while it waits for
// them. So it is asked again for up to 2 s, which blocks.
func Seal(f *os.File) error {
	for end := time.Now().Add(sealTime); ; time.Sleep(10 * time.Millisecond) {
		_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, allSeals)
		if err == unix.EBUSY && time.Now().Before(end) {
			continue
		}
		if err != nil {
			return plain("the memory file cannot be sealed", err)
		}
		return nil
	}
}

// readOnly opens a memory file again, so that it is not executed through a description that was opened for writing.
// Without /proc that one has to do: sealed it is.
func readOnly(f *os.File) (*os.File, error) {
	fd, err := open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_RDONLY)
	if err == unix.ENOENT {
		fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		return nil, plain("the memory file cannot be opened", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// memoryExecutable asks the kernel whether it would execute a memory file.
func memoryExecutable(try Try) error {
	w, err := NewMemory("entrypoint-test")
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.WriteString(noProgram); err != nil {
		return plain("no memory file can be filled", err)
	}
	if err := Seal(w); err != nil {
		return err
	}
	r, err := readOnly(w)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := try.why(r); err != nil {
		return plain("the kernel executes no memory files", err)
	}
	return nil
}

// transfer copies a whole program and makes sure that it was the same before and after.
func transfer(ctx context.Context, to *os.File, p *program) error {
	c := copier{to: int(to.Fd()), from: int(p.file.Fd()), way: copyRange}
	for c.done < p.stat.Size {
		if ctx.Err() != nil {
			return fmt.Errorf("copying it was given up: %w", context.Cause(ctx))
		}
		if err := c.piece(p.stat.Size - c.done); err != nil {
			return err
		}
	}
	var now unix.Stat_t
	if err := retry(func() error { return unix.Fstat(c.from, &now) }); err != nil {
		return plain("it cannot be looked at", err)
	}
	if !sameBytes(&now, &p.stat) {
		return errChanged
	}
	return nil
}

// sameBytes leaves the change time out: a link, a rename or a chmod changes it, but not a byte.
func sameBytes(a, b *unix.Stat_t) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Size == b.Size && a.Mtim == b.Mtim
}

// piece is what is copied between two looks at the context: some milliseconds.
const piece = 8 << 20

// The ways of copying, best first: the kernel shares blocks or copies within the filesystem, it copies pages, or we do.
const (
	copyRange = iota
	sendFile
	readWrite
)

// copier copies from the beginning of one file to that of another.
type copier struct {
	to, from int
	done     int64
	way      int
	buf      []byte
}

// piece copies some bytes, at most rest.
func (c *copier) piece(rest int64) error {
	n, err := c.step(int(min(rest, piece)))
	switch {
	case err == unix.EINTR || err == unix.EAGAIN:
		return nil
	case c.way != readWrite && unsupported(err):
		c.way++
		return nil
	case err != nil:
		return cannotCopy(err)
	case n == 0:
		return errChanged // it was truncated
	}
	c.done += int64(n)
	return nil
}

func (c *copier) step(n int) (int, error) {
	off, at := c.done, c.done
	switch c.way {
	case copyRange:
		return unix.CopyFileRange(c.from, &off, c.to, &at, n, 0)
	case sendFile:
		if _, err := unix.Seek(c.to, at, io.SeekStart); err != nil {
			return 0, err
		}
		return unix.Sendfile(c.to, c.from, &off, n)
	}
	if c.buf == nil {
		c.buf = make([]byte, hashChunk)
	}
	n, err := unix.Pread(c.from, c.buf[:min(n, len(c.buf))], off)
	if n <= 0 || err != nil {
		return n, err
	}
	return unix.Pwrite(c.to, c.buf[:n], at)
}

// unsupported tells whether another way of copying may do what this one did not.
func unsupported(err error) bool {
	switch err {
	case unix.EXDEV, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM, unix.EBADF, unix.ETXTBSY:
		return true
	}
	return false
}

func cannotCopy(err error) error {
	switch err {
	case unix.ENOSPC:
		return &fault{text: "there is no space left for it", errno: unix.ENOSPC}
	case unix.EDQUOT:
		return &fault{text: "the quota is used up", errno: unix.EDQUOT}
	case unix.ENOMEM:
		return &fault{text: "there is no memory left for it", errno: unix.ENOMEM}
	case unix.EFBIG:
		return &fault{text: "it is larger than the limit of file sizes (RLIMIT_FSIZE)", errno: unix.EFBIG}
	}
	return plain("it cannot be copied", err)
}

// oneLine joins sentences into one. The error number is that of the last; a file of ours that is missing does not mean
// that the program is.
func oneLine(errs ...error) error {
	f := &fault{errno: unix.EACCES}
	var texts []string
	for _, err := range errs {
		texts = append(texts, strings.ReplaceAll(err.Error(), "\n", "; "))
		var errno unix.Errno
		if errors.As(err, &errno) && errno != unix.ENOENT {
			f.errno = errno
		}
	}
	f.text = strings.Join(texts, "; ")
	return f
}
