//go:build unix

package graceful

import (
	"net"
	"os"
	"syscall"
)

// adopt makes a socket of a descriptor. It becomes ours (a copy is used, the original is closed) only if it is a
// listening or an unconnected datagram socket that package net knows; any other stays as it is.
func adopt(d described) (socket, bool) {
	var st syscall.Stat_t
	if syscall.Fstat(d.fd, &st) != nil {
		return socket{}, false
	}
	syscall.CloseOnExec(d.fd) // children must not keep the address busy
	typ, err := syscall.GetsockoptInt(d.fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	switch {
	case err != nil:
		return socket{}, false
	case typ == syscall.SOCK_DGRAM:
		return adoptPacket(d)
	}
	if n, err := syscall.GetsockoptInt(d.fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || n == 0 {
		return socket{}, false
	}
	return adoptListener(d)
}

func adoptListener(d described) (socket, bool) {
	f := borrow(d.fd)
	if f == nil {
		return socket{}, false
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return socket{}, false
	}
	_ = syscall.Close(d.fd)
	return socket{name: d.name, listener: l}, true
}

func adoptPacket(d described) (socket, bool) {
	if _, err := syscall.Getpeername(d.fd); err == nil {
		return socket{}, false // a connection
	}
	f := borrow(d.fd)
	if f == nil {
		return socket{}, false
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return socket{}, false
	}
	_ = syscall.Close(d.fd)
	return socket{name: d.name, packet: c}, true
}

// borrow is a copy of the descriptor as a file. An os.File of the original would close it when collected, even if
// it turns out to be none of ours. The socket is made non-blocking first: all processes that share it share the mode too,
// and one that blocks in accept could not be told to stop.
func borrow(fd int) *os.File {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	copied, err := syscall.Dup(fd)
	if err != nil {
		return nil
	}
	syscall.CloseOnExec(copied)
	return os.NewFile(uintptr(copied), "inherited")
}
