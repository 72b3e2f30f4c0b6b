package artifact

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// program is a file that was found and opened. Whoever holds it closes file.
type program struct {
	path     string
	file     *os.File // O_RDONLY, or O_PATH when not readable
	stat     unix.Stat_t
	readable bool
}

// openTries bounds how often a path is opened again because it was replaced between two looks at it.
const openTries = 5

// openProgram opens a regular file without ever waiting for it. With run, it must be executable by us as well.
func openProgram(path string, run bool) (*program, error) {
	var err error
	for range openTries {
		var p *program
		if p, err = openOnce(path, run); err == nil || err != errReplaced {
			return p, err
		}
	}
	return nil, err
}

var errReplaced error = &fault{text: "it is replaced faster than it can be opened", errno: syscall.EAGAIN}

func openOnce(path string, run bool) (*program, error) {
	fd, err := open(path, unix.O_PATH)
	if err != nil {
		return nil, cannotOpen(path, err)
	}
	p := &program{path: path, file: os.NewFile(uintptr(fd), path)}
	if err := p.admit(fd, run); err != nil {
		p.file.Close()
		return nil, err
	}
	return p.reopen()
}

// admit checks what can be known without opening the file: its type and who may run it.
func (p *program) admit(fd int, run bool) error {
	if err := retry(func() error { return unix.Fstat(fd, &p.stat) }); err != nil {
		return plain("it cannot be looked at", err)
	}
	if err := regular(&p.stat); err != nil {
		return err
	}
	if !run {
		return nil
	}
	return executable(p.path, &p.stat)
}

// reopen trades the O_PATH descriptor for one that can be read, or keeps it when we may not read the file.
func (p *program) reopen() (*program, error) {
	fd, err := open(p.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	switch err {
	case nil:
	case unix.EACCES, unix.EPERM:
		return p, nil
	case unix.ENOENT, unix.ENXIO, unix.ENOTDIR, unix.ELOOP:
		p.file.Close()
		return nil, errReplaced
	default:
		p.file.Close()
		return nil, plain("it cannot be opened", err)
	}
	p.file.Close()
	q := &program{path: p.path, readable: true}
	err = retry(func() error { return unix.Fstat(fd, &q.stat) })
	if err != nil || q.stat.Dev != p.stat.Dev || q.stat.Ino != p.stat.Ino {
		unix.Close(fd)
		return nil, errReplaced
	}
	if err := unix.SetNonblock(fd, false); err != nil { // it becomes the app's, by way of execveat
		unix.Close(fd)
		return nil, plain("it cannot be opened", err)
	}
	q.file = os.NewFile(uintptr(fd), p.path)
	return q, nil
}

func open(path string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func cannotOpen(path string, err error) error {
	switch err {
	case unix.ENOENT:
		if to, e := os.Readlink(path); e == nil {
			return missing("it is a symbolic link to %q, which does not exist", to)
		}
		return missing("it does not exist")
	case unix.EACCES:
		return denied("it is in a directory that uid %d may not enter", os.Geteuid())
	}
	return plain("it cannot be opened", err)
}

func regular(st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		return &fault{text: "it is a directory", errno: syscall.EISDIR}
	case unix.S_IFIFO:
		return denied("it is a FIFO, not a regular file")
	case unix.S_IFSOCK:
		return denied("it is a socket, not a regular file")
	default:
		return denied("it is a device, not a regular file")
	}
}

// executable tells whether we may execute the file. Root may when anybody may.
func executable(path string, st *unix.Stat_t) error {
	if st.Mode&0o111 == 0 {
		return denied("it is not executable (mode %04o); chmod +x it", st.Mode&0o7777)
	}
	err := retry(func() error { return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, 0) })
	switch err {
	case nil:
		return nil
	case unix.ENOENT, unix.ENOTDIR:
		return errReplaced
	case unix.EACCES:
		if mountedNoExec(path) {
			return denied("it lies on a filesystem that is mounted noexec; mount it with the option exec")
		}
		return denied("uid %d may not execute it (mode %04o, owner uid %d)", os.Getuid(), st.Mode&0o7777, st.Uid)
	}
	return plain("it cannot be executed", err)
}

func mountedNoExec(path string) bool {
	var fs unix.Statfs_t
	err := retry(func() error { return unix.Statfs(path, &fs) })
	return err == nil && int64(fs.Flags)&unix.ST_NOEXEC != 0
}

// runnable tells whether the interpreter of kind ("program interpreter", "script interpreter") at path can be executed.
func runnable(kind, path string) error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(path, &st) }); err != nil {
		if err == unix.ENOENT {
			return missing("its %s %q does not exist", kind, path)
		}
		return plain(fmt.Sprintf("its %s %q cannot be used", kind, path), err)
	}
	err := regular(&st)
	if err == nil {
		err = executable(path, &st)
	}
	if err != nil {
		return denied("its %s %q cannot be used: %v", kind, path, err)
	}
	return nil
}
