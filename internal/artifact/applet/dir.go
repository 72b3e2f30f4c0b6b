package applet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// dir is a directory that was opened without being read. What happens in it is named by one component that is not followed,
// so it happens there, whatever becomes of the path meanwhile.
type dir struct {
	f    *os.File
	real string // the absolute path without symbolic links, as the kernel has it
}

// openFlags need the right to search a directory and not the right to read it.
const openFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC

// newDir takes f over.
func newDir(f *os.File, err error) (*dir, error) {
	if err != nil {
		return nil, err
	}
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err == nil && !filepath.IsAbs(real) {
		err = fmt.Errorf("the kernel calls it %q", real)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot tell where it is: %w", err)
	}
	return &dir{f, real}, nil
}

func (d *dir) fd() int { return int(d.f.Fd()) }

func (d *dir) close() { d.f.Close() }

// path is the absolute path of an entry.
func (d *dir) path(base string) string { return filepath.Join(d.real, base) }

// stat looks at the entry itself, also if it is a symbolic link. It returns nil if there is none.
func (d *dir) stat(base string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := again(func() error { return unix.Fstatat(d.fd(), base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return &st, err
}

func (d *dir) unlink(base string) error {
	return again(func() error { return unix.Unlinkat(d.fd(), base, 0) })
}

func (d *dir) rmdir(base string) error {
	return again(func() error { return unix.Unlinkat(d.fd(), base, unix.AT_REMOVEDIR) })
}

func (d *dir) rename(from, to string) error {
	return again(func() error { return unix.Renameat(d.fd(), from, d.fd(), to) })
}

// create makes a new file that only its owner may use, for writing.
func (d *dir) create(base string) (*os.File, error) {
	return d.openat(base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
}

// openat opens an entry without following it. The caller closes it.
func (d *dir) openat(base string, flags int, mode uint32) (*os.File, error) {
	var fd int
	err := again(func() (err error) {
		fd, err = unix.Openat(d.fd(), base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.path(base)), nil
}

// isEmpty tells whether a directory has no entry.
func (d *dir) isEmpty(base string) (bool, error) {
	f, err := d.openat(base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0, nil
}

func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func isDir(st *unix.Stat_t) bool     { return st != nil && st.Mode&unix.S_IFMT == unix.S_IFDIR }
func isRegular(st *unix.Stat_t) bool { return st != nil && st.Mode&unix.S_IFMT == unix.S_IFREG }
func isLink(st *unix.Stat_t) bool    { return st != nil && st.Mode&unix.S_IFMT == unix.S_IFLNK }
