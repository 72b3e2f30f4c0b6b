package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// sockets are what the app serves on.
type sockets struct {
	mu      sync.Mutex
	streams []net.Listener
	packets []net.PacketConn
}

func (s *sockets) join(more *sockets) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams, s.packets = append(s.streams, more.streams...), append(s.packets, more.packets...)
}

func (s *sockets) closeStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.streams {
		l.Close()
	}
}

// openAll finds the sockets the ways that `listen` says, separated by commas.
func openAll(listen string) (*sockets, error) {
	all := &sockets{}
	for one := range strings.SplitSeq(listen, ",") {
		s, err := openOne(one)
		if err != nil {
			return nil, err
		}
		all.streams, all.packets = append(all.streams, s.streams...), append(all.packets, s.packets...)
	}
	return all, nil
}

// openOne finds the sockets of one way; auto tries the inherit protocols in the order
// systemd, einhorn, Server::Starter.
func openOne(listen string) (*sockets, error) {
	how, what, _ := strings.Cut(listen, ":")
	switch how {
	case "none":
		return &sockets{}, nil
	case "tcp", "tcp4", "tcp6":
		l, err := net.Listen(how, what)
		if err != nil {
			return nil, err
		}
		return &sockets{streams: []net.Listener{l}}, nil
	case "unix":
		os.Remove(what) // as most programs do
		l, err := net.Listen(how, what)
		if err != nil {
			return nil, err
		}
		return &sockets{streams: []net.Listener{l}}, nil
	case "udp":
		c, err := net.ListenPacket(how, what)
		if err != nil {
			return nil, err
		}
		return &sockets{packets: []net.PacketConn{c}}, nil
	case "fd":
		fd, err := strconv.Atoi(what)
		if err != nil {
			return nil, fmt.Errorf("cannot listen on fd %q: %v", what, err)
		}
		return inherit([]int{fd})
	}
	fds, err := inheritedNumbers(how)
	if err != nil {
		return nil, err
	}
	return inherit(fds)
}

// inheritedNumbers reads one protocol, or with "auto" the first that is present.
func inheritedNumbers(protocol string) ([]int, error) {
	readers := []struct {
		name string
		read func() []int
	}{{"systemd", systemdFDs}, {"einhorn", einhornFDs}, {"starter", starterFDs}}
	for _, r := range readers {
		if protocol != "auto" && protocol != r.name {
			continue
		}
		if fds := r.read(); len(fds) > 0 {
			return fds, nil
		}
	}
	return nil, fmt.Errorf("no socket was handed over (protocol %q)", protocol)
}

// systemdFDs reads LISTEN_FDS; like every careful reader it insists on LISTEN_PID.
func systemdFDs() []int {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	var fds []int
	for i := range n {
		fds = append(fds, 3+i)
	}
	return fds
}

func einhornFDs() []int {
	n, _ := strconv.Atoi(os.Getenv("EINHORN_FD_COUNT"))
	var fds []int
	for i := range n {
		fd, err := strconv.Atoi(os.Getenv("EINHORN_FD_" + strconv.Itoa(i)))
		if err != nil {
			return nil
		}
		fds = append(fds, fd)
	}
	return fds
}

func starterFDs() []int {
	var fds []int
	for pair := range strings.SplitSeq(os.Getenv("SERVER_STARTER_PORT"), ";") {
		_, number, ok := cutLast(pair, "=")
		fd, err := strconv.Atoi(number)
		if !ok || err != nil {
			return nil
		}
		fds = append(fds, fd)
	}
	return fds
}

func cutLast(s, sep string) (before, after string, ok bool) {
	at := strings.LastIndex(s, sep)
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+len(sep):], true
}

// inherit turns descriptors into listeners and packet sockets. The descriptors are
// closed: the net package works on copies.
func inherit(fds []int) (*sockets, error) {
	s := &sockets{}
	for _, fd := range fds {
		if err := s.add(fd); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot use inherited descriptor %d: %w", fd, err))
		}
	}
	return s, nil
}

func (s *sockets) add(fd int) error {
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "inherited")
	defer f.Close()
	if kind == syscall.SOCK_DGRAM {
		c, err := net.FilePacketConn(f)
		if err == nil {
			s.packets = append(s.packets, c)
		}
		return err
	}
	l, err := net.FileListener(f)
	if err == nil {
		s.streams = append(s.streams, l)
	}
	return err
}
