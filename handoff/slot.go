package handoff

import (
	"golang.org/x/sys/unix"
)

// phase is where a slot stands in its life.
type phase int

const (
	spare    phase = iota // open, never leased
	leased                // a generation has it
	idle                  // its generation is gone, but it has the traffic: the next lease takes it
	retiring              // its generation is gone and the traffic too: what is left in its queue is relayed
	spent                 // nothing is left; closed as soon as its index may go
)

// slot is one socket of a held address. All fields belong to the Set's lock; fd is open until the slot is closed.
type slot struct {
	fd     int
	inode  uint64
	color  uint8  // 0: cannot be told by colour
	hidden string // unix: a name of the socket's own beside the path
	name   string // unix: the name that it is bound to, if that is another one
	node   node   // unix: what that name refers to
	phase  phase
	gen    int  // of the lease, 0 without one
	worker int  // of the lease
	served bool // ever had the traffic
	joined int  // the number of its joining among those of the group

	// left holds the keys of connections that were this slot's when it lost the traffic: with a colour only the half-open
	// ones, which do not show theirs; without one all of them. nil before that.
	// It is mixed if it may hold connections of another generation too, for both were served at the time.
	left  map[uint64]struct{}
	mixed bool
	// unsettled is the loss after which handshakes may still turn up that had begun before it; nil: there are none, or they are in late, with
	// some that are not this slot's.
	unsettled *loss
	late      map[uint64]struct{}
	// blurred: without a colour, and was served side by side with another generation. What it has cannot be known again.
	blurred bool
}

// queue is how many connections wait to be accepted (for datagrams: 1 if any waits).
func (sl *slot) queue(a *Address) int {
	switch {
	case sl.fd < 0:
		return 0
	case a.inet() && a.stream():
		if n, ok := acceptQueue(sl.fd); ok {
			return n
		}
	case a.stream():
		if c, err := findUnix(sl.inode); err == nil {
			return int(c.rqueue)
		}
	}
	if readable(sl.fd) {
		return 1
	}
	return 0
}

// acceptQueue reads sk_ack_backlog of a listening TCP socket, which TCP_INFO shows as tcpi_unacked (Linux 2.6.24).
func acceptQueue(fd int) (int, bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != tcpListen {
		return 0, err == nil
	}
	return int(info.Unacked), true
}

// readable polls without waiting: a connection to accept, or a datagram.
func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0
}

// listening reports whether the socket still is a listener: a program may have called shutdown on it.
func (sl *slot) listening() bool {
	n, err := unix.GetsockoptInt(sl.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err != nil || n != 0
}

// refresh gives a slot that is leased again the mode of a fresh one. Its former processes are gone and nobody
// else has its open file description.
func (sl *slot) refresh() error {
	flags, err := unix.FcntlInt(uintptr(sl.fd), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK != 0 {
		_, err = unix.FcntlInt(uintptr(sl.fd), unix.F_SETFL, flags&^unix.O_NONBLOCK)
	}
	return err
}
