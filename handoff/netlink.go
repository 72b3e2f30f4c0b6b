package handoff

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// The sock_diag protocol (NETLINK_SOCK_DIAG, Linux 3.3; see sock_diag(7)) answers what exists in our network
// namespace, without any privilege. Integers are in the machine's byte order, ports and addresses in the network's.

var native = binary.NativeEndian

// dumpBuffers holds receive buffers; the kernel fills up to 32 KiB at a time.
var dumpBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// netlinkTimeout bounds one receive: the kernel answers at once or never.
const netlinkTimeout = 5

const nlHeader = unix.SizeofNlMsghdr

// diagQuery sends one request and calls each for every answer's payload, which is only valid during the call. flags may have
// NLM_F_DUMP; without it there is one answer.
func diagQuery(request []byte, flags uint16, each func(payload []byte)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: netlinkTimeout})
	msg := make([]byte, nlHeader, nlHeader+len(request))
	native.PutUint32(msg[0:], uint32(nlHeader+len(request)))
	native.PutUint16(msg[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(msg[6:], unix.NLM_F_REQUEST|flags)
	native.PutUint32(msg[8:], 1)
	if err := unix.Sendto(fd, append(msg, request...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sock_diag: %w", err)
	}
	buf := dumpBuffers.Get().(*[]byte)
	defer dumpBuffers.Put(buf)
	for {
		n, err := unix.Read(fd, *buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sock_diag: %w", err)
		}
		done, err := diagMessages((*buf)[:n], flags&unix.NLM_F_DUMP != 0, each)
		if done || err != nil {
			return err
		}
	}
}

// diagMessages walks the messages of one datagram; done after the last one of the answer.
func diagMessages(b []byte, dump bool, each func([]byte)) (done bool, err error) {
	for len(b) >= nlHeader {
		size := int(native.Uint32(b))
		if size < nlHeader || size > len(b) {
			return true, errors.New("sock_diag: malformed answer")
		}
		body := b[nlHeader:size]
		switch native.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return true, diagError(body)
		default:
			each(body)
			if !dump {
				return true, nil
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false, nil
}

func diagError(body []byte) error {
	if len(body) < 4 {
		return errors.New("sock_diag: malformed error")
	}
	if n := int32(native.Uint32(body)); n != 0 {
		return fmt.Errorf("sock_diag: %w", unix.Errno(-n))
	}
	return nil
}

// attributes calls each for every netlink attribute of b.
func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= 4 {
		size := int(native.Uint16(b))
		if size < 4 || size > len(b) {
			return
		}
		each(native.Uint16(b[2:]), b[4:size])
		b = b[min(len(b), (size+3)&^3):]
	}
}
