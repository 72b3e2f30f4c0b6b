package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// backlog is how many clients the kernel lets wait while all places are taken. Four times the places: a burst of health checks waits
// for some milliseconds instead of being refused.
const backlog = 4 * maxClients

// lockWait bounds the wait for another init that is opening a socket in the same directory, which takes microseconds.
const lockWait = time.Second

// listener is the held socket; for a path it remembers which file is its own.
type listener struct {
	*net.UnixListener
	address string
	file    fileID // of the socket file, zero for an abstract name
}

// listen opens the address: an abstract name, or a path.
func listen(address string) (*listener, error) {
	var l *listener
	var err error
	if strings.HasPrefix(address, "@") {
		l, err = bind(address)
	} else {
		l, err = listenPath(address)
	}
	if err == nil {
		return l, nil
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("cannot listen on control socket %q: %w: another process has it; ENTRYPOINT_CONTROL sets another address", address, err)
	}
	return nil, fmt.Errorf("cannot listen on control socket %q: %w", address, err)
}

// listenPath puts a socket of mode 0600 at path. A socket file that nobody listens on any more is replaced, a live one and
// any other kind of file is refused. The directory is locked meanwhile, so that of two inits that
// find the same stale file only one replaces it.
func listenPath(path string) (*listener, error) {
	unlock, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		return nil, err
	}
	if l.file, err = fileAt(path); err != nil {
		return nil, errors.Join(err, l.UnixListener.Close())
	}
	return l, nil
}

// bind makes the socket and listens. The mode is set on the socket before bind creates the file from it, so
// there is no moment at which the file has another one.
func bind(address string) (*listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), address)
	defer file.Close()
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, err
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return &listener{UnixListener: l.(*net.UnixListener), address: address}, nil
}

// removeStale makes room at path, if what is there is a socket without a listener.
func removeStale(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return errors.New("there is a file that is not a socket, and it will not be replaced")
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return errors.New("another process listens there: is a second init running?")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("cannot tell whether the socket there is still used: %w", err)
	}
	return unix.Unlink(path)
}

// lockDirectory locks dir against other inits. No writable lock file is needed: the directory itself is locked.
func lockDirectory(dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open directory %q: %w", dir, err)
	}
	for give := time.Now().Add(lockWait); ; time.Sleep(time.Millisecond) {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return func() { _ = unix.Close(fd) }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(give) {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("cannot lock directory %q: %w", dir, err)
		}
	}
}

// fileAt identifies the file at path without following a symbolic link.
func fileAt(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, err
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// Close ends listening and removes the socket file, if the file at the path is still ours. Only the first call does something.
func (l *listener) Close() error {
	err := l.UnixListener.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	if l.file == (fileID{}) {
		return err
	}
	if now, statErr := fileAt(l.address); statErr == nil && now == l.file {
		err = errors.Join(err, unix.Unlink(l.address))
	}
	return err
}
