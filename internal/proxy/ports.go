package proxy

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Range is a range of ports, both ends included.
type Range struct{ From, To int }

// lowest is the first port that needs no privilege anywhere.
const lowest = 1024

// ParseRange reads "10000-11000".
func ParseRange(text string) (Range, error) {
	from, to, ok := strings.Cut(text, "-")
	a, errA := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
	b, errB := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
	switch {
	case !ok || errA != nil || errB != nil:
		return Range{}, fmt.Errorf("%q is no range of ports; write for example 10000-11000", text)
	case a < lowest || b < a:
		return Range{}, fmt.Errorf("%q is no range of ports from %d to 65535, the lower one first; write for example 10000-11000", text, lowest)
	}
	return Range{int(a), int(b)}, nil
}

func (r Range) String() string { return fmt.Sprintf("%d-%d", r.From, r.To) }

// Clients tells which ports the kernel takes for connecting sockets. An app may find its port taken by one, where the ranges overlap.
func (r Range) Clients() (overlap Range, yes bool) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return Range{}, false
	}
	var c Range
	if _, err := fmt.Sscan(string(text), &c.From, &c.To); err != nil {
		return Range{}, false
	}
	return c, r.From <= c.To && c.From <= r.To
}

// taken are the ports that were given away by this process: apps of one container may share a range.
var taken struct {
	sync.Mutex
	ports map[int]bool
}

// ports gives away the ports of a range, each to one holder at a time.
type ports struct {
	Range
	next int // under taken's lock
}

func newPorts(r Range) *ports { return &ports{Range: r, next: r.From} }

// take finds a port that nobody has: neither one of ours, nor a stranger, nor a connection that is not forgotten yet. It goes round
// the range, so that a port which was given back is not used again soon.
func (p *ports) take() (int, error) {
	taken.Lock()
	defer taken.Unlock()
	if taken.ports == nil {
		taken.ports = map[int]bool{}
	}
	var last error
	for range p.To - p.From + 1 {
		port := p.next
		if p.next++; p.next > p.To {
			p.next = p.From
		}
		if taken.ports[port] {
			last = errors.New("all that are free elsewhere are in use by our own backends")
			continue
		}
		if last = vacant(port); last == nil {
			taken.ports[port] = true
			return port, nil
		}
	}
	return 0, fmt.Errorf("no port from %s is free for a backend: %w; set ENTRYPOINT_PROXY_RANGE to another range", p.Range, last)
}

// give takes a port back.
func (p *ports) give(port int) {
	taken.Lock()
	defer taken.Unlock()
	delete(taken.ports, port)
}

// vacant tries to bind the port on every address, without SO_REUSEADDR: that fails for a listener on any address of it, and for a connection of
// a former one in TIME_WAIT. IPv6 sockets stand for IPv4 too, where there is IPv6.
func vacant(port int) error {
	syscall.ForkLock.RLock() // a child has a copy of the socket until it executes, and would keep the port
	defer syscall.ForkLock.RUnlock()
	err := bindAny(unix.AF_INET6, &unix.SockaddrInet6{Port: port})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		err = bindAny(unix.AF_INET, &unix.SockaddrInet4{Port: port})
	}
	return err
}

func bindAny(family int, at unix.Sockaddr) error {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) // nothing was connected
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return err
		}
	}
	return unix.Bind(fd, at)
}
