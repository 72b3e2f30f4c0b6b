package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// maxDescriptors is the proof of a peer, and an upload.
const maxDescriptors = 2

// descriptorRoom is room for the control message that carries them. All further ones are never installed in our table, and
// MSG_CTRUNC says so.
var descriptorRoom = unix.CmsgSpace(4 * maxDescriptors)

// received is what came with a request. The descriptors belong to whoever holds the value: close must be called.
type received struct {
	line      []byte // with its newline
	fds       []int
	truncated bool // there were descriptors that the kernel dropped
}

func (r *received) close() {
	for _, fd := range r.fds {
		_ = unix.Close(fd) // a descriptor of somebody else's: its errors are theirs
	}
	r.fds = nil
}

// readLine reads one line of at most MaxRequest bytes and the descriptors sent with it, until the connection's read deadline. The
// descriptors read so far are returned also with an error. io.EOF means that the peer sent nothing at all.
func readLine(c *net.UnixConn) (received, error) {
	var r received
	buf := make([]byte, 0, 4<<10)
	for {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), MaxRequest+1)), buf...)
		}
		n, err := r.read(c, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if i := bytes.IndexByte(buf, '\n'); i >= 0 && i < len(buf)-1 {
			return r, usagef("cannot read the request: more than one line; a connection carries one request")
		} else if i >= 0 && len(buf) <= MaxRequest {
			r.line = buf
			return r, nil
		}
		switch {
		case len(buf) > MaxRequest:
			return r, usagef("cannot read the request: longer than %d bytes", MaxRequest)
		case len(r.fds) > maxDescriptors:
			return r, nil // enough to refuse it
		case errors.Is(err, io.EOF) && len(buf) > 0:
			return r, usagef("cannot read the request: it ends without a newline")
		case err != nil:
			return r, err
		}
	}
}

// read is one recvmsg into b. Received descriptors are close-on-exec from the start.
func (r *received) read(c *net.UnixConn, b []byte) (int, error) {
	oob := make([]byte, descriptorRoom)
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	r.truncated = r.truncated || flags&unix.MSG_CTRUNC != 0
	r.fds = append(r.fds, descriptors(oob[:max(oobn, 0)])...)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

// descriptors takes the SCM_RIGHTS out of a control message.
func descriptors(oob []byte) []int {
	if len(oob) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil // the kernel wrote it: it parses
	}
	var fds []int
	for _, m := range messages {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

// write sends all of b, without ever raising SIGPIPE, and the descriptors with its first byte. With
// wait it blocks until the connection's write deadline; without, what the kernel's buffer does not take at once is an error.
func write(c *net.UnixConn, b []byte, wait bool, fds ...int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	var sendErr error
	err = raw.Write(func(s uintptr) bool {
		for len(b) > 0 {
			n, err := unix.SendmsgN(int(s), b, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN && wait:
				return false
			case err != nil:
				sendErr = err
				return true
			}
			b, oob = b[n:], nil
		}
		return true
	})
	if err = errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("cannot write to the other end: %w", err)
	}
	return nil
}
