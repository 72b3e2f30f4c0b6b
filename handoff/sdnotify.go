package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// barrierTimeout is how long SdNotify waits until the manager has worked through the message.
const barrierTimeout = 5 * time.Second

// SdNotify sends assignments such as READY=1 to the manager behind path, the value of NOTIFY_SOCKET (a file, or "@" and
// an abstract name), and waits at most 5 s until it has processed them: the barrier of sd_notify_barrier(3). So the sender may
// exit at once and is still known as one of the service's processes. os.ErrDeadlineExceeded if the manager knows
// no barrier or is stuck; the assignments were sent even then.
func SdNotify(path string, lines []string) error {
	if path == "" {
		return errors.New("cannot notify: no NOTIFY_SOCKET")
	}
	if path[0] != '/' && path[0] != '@' {
		return fmt.Errorf("cannot notify %q: neither a path nor an abstract name", path)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	return barrier(c)
}

// barrier sends the writing end of a pipe and waits until nobody has it any more.
func barrier(c *net.UnixConn) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot make a barrier: %w", err)
	}
	defer r.Close()
	var oob []byte
	withPipe(w, func(fd int) { oob = unix.UnixRights(fd) })

	err = sendRights(c, []byte("BARRIER=1"), oob)
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("cannot send a barrier: %w", err)
	}
	if err := r.SetReadDeadline(time.Now().Add(barrierTimeout)); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the manager did not confirm within %v: %w", barrierTimeout, err)
	}
	return nil
}

// withPipe runs f with the descriptor, without changing its mode as File.Fd would.
func withPipe(p *os.File, f func(fd int)) {
	if rc, err := p.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// sendRights sends one datagram with descriptors; net's own call refuses to do so on a connected datagram socket.
func sendRights(c *net.UnixConn, data, oob []byte) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = rc.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), data, oob, nil, 0)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	return errors.Join(err, sendErr)
}
