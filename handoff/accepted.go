package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// acceptLookFirst and acceptLookMax are the pauses between two looks at a probe connection: programs that are ready accept in
	// microseconds, others take seconds to start.
	acceptLookFirst = 200 * time.Microsecond
	acceptLookMax   = 10 * time.Millisecond
)

// verdict is what became of a probe connection.
type verdict int

const (
	waiting   verdict = iota // in the accept queue
	taken                    // accepted
	reset                    // refused, or thrown away: try again
	undecided                // the kernel does not tell
)

// Accepted blocks until the generation has accepted one connection of ours on every held stream socket (of learned
// addresses: on which it listens), or ctx ends. The
// proof is exact: the kernel shows whether the server's end of our connection has been given to a process. Clients
// notice nothing; the program sees one connection that is closed without a byte (with defer_accept: an empty line).
//
// On a shared socket that several generations serve, the accepted socket must be among the descriptors of one of
// pids(); where those cannot be read the error is ErrNotSteerable. It is ErrNoStream if no stream socket is held.
func (s *Set) Accepted(ctx context.Context, gen int, pids func() []int) error {
	return s.acceptedWhere(ctx, Seat{Generation: gen}, pids, func(*held) bool { return true })
}

// Accepted is Set.Accepted for this worker: on a shared socket the accepted one must be its own, and not a sibling's.
func (l *Lease) Accepted(ctx context.Context, pids func() []int) error {
	return l.set.acceptedWhere(ctx, l.at, pids, func(*held) bool { return true })
}

// AcceptedConfigured is Accepted for the configured addresses alone.
func (l *Lease) AcceptedConfigured(ctx context.Context, pids func() []int) error {
	return l.set.acceptedWhere(ctx, l.at, pids, func(h *held) bool { return !h.learned })
}

// AcceptedLearned is Accepted for the addresses alone that the worker listens on by itself.
func (l *Lease) AcceptedLearned(ctx context.Context, pids func() []int) error {
	return l.set.acceptedWhere(ctx, l.at, pids, func(h *held) bool { return h.learned })
}

func (s *Set) acceptedWhere(ctx context.Context, at Seat, pids func() []int, which func(*held) bool) error {
	s.mu.Lock()
	var streams []*held
	l := s.leases[at]
	for _, h := range s.held {
		if h.addr.stream() && h.addr.Scheme != "" && which(h) && (!h.learned || l != nil && l.slotOf(h) != nil) {
			streams = append(streams, h)
		}
	}
	s.mu.Unlock()
	if len(streams) == 0 {
		return ErrNoStream
	}
	for _, h := range streams {
		if err := s.acceptedOn(ctx, h, at, pids); err != nil {
			return err
		}
	}
	return nil
}

// acceptedOn tries one address until it is proved.
func (s *Set) acceptedOn(ctx context.Context, h *held, at Seat, pids func() []int) error {
	for {
		ok, err := s.probeOnce(ctx, h, at, pids)
		if ok {
			s.mu.Lock()
			h.proved = true
			s.mu.Unlock()
		}
		switch {
		case ok || errors.Is(err, ErrNotSteerable):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("%v has not accepted a connection on %q: %w", at, h.String(), ctx.Err())
		case err != nil && errors.Is(err, errClosed):
			return err
		}
		_ = sleep(ctx, acceptLookMax) // the end of ctx is reported above, after one more look
	}
}

// probeOnce makes one connection and waits until it is accepted or lost.
func (s *Set) probeOnce(ctx context.Context, h *held, at Seat, pids func() []int) (bool, error) {
	s.mu.Lock()
	sl, have := h.slotOf(at), s.leases[at] != nil
	alone := s.certain(h, at)
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return false, errClosed
	case sl == nil || !have:
		return false, fmt.Errorf("%v has no socket for %q", at, h.String())
	}
	conn, err := s.dialSlot(ctx, h, sl, netip.AddrPortFrom(h.probeAddr(), uint16(h.at.port)))
	if err != nil {
		return false, err
	}
	defer closeProbe(conn)
	if deferring(sl.fd) && h.addr.inet() {
		if _, err := conn.Write([]byte("\r\n")); err != nil {
			return false, err
		}
	}
	v, inode := s.awaitAccept(ctx, h, sl, conn, alone)
	switch {
	case v != taken && v != undecided:
		return false, ctx.Err()
	case alone && v == taken:
		return true, nil
	case v == undecided || inode == 0 && !h.addr.inet():
		return false, errAmbiguous(h)
	case inode == 0:
		return false, nil // accepted and closed before we could see by whom
	}
	return s.ownedBy(h, inode, pids())
}

// certain tells whether nobody but the worker accepts from the slot that it has: on a socket for all, if nobody else has a lease, or if
// generations of one process never overlap.
func (s *Set) certain(h *held, at Seat) bool {
	others, crowd := 0, false
	for seat := range s.leases {
		if seat != at && (!h.swappable() || h.mode == modeRenamed && seat.Generation == at.Generation) {
			others++
		}
		crowd = crowd || seat.Worker > 0
	}
	return others == 0 || !h.swappable() && s.cfg.Shared && !crowd
}

// String is the worker in a sentence; that of a generation of one process is the generation.
func (at Seat) String() string {
	if at.Worker == 0 {
		return fmt.Sprintf("generation %d", at.Generation)
	}
	return fmt.Sprintf("worker %d of generation %d", at.Worker, at.Generation)
}

// probeAddr is where our own probes connect.
func (h *held) probeAddr() netip.Addr {
	if h.at.family == unix.AF_INET6 && h.at.ip.IsUnspecified() && !h.at.v6only {
		return loopback4
	}
	return reachable(h.at.host())
}

// deferring reports whether the listener waits for data before it shows a connection (TCP_DEFER_ACCEPT), whoever asked for it.
func deferring(fd int) bool {
	n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
	return err == nil && n > 0
}

// awaitAccept looks at the probe until it is decided or ctx ends.
func (s *Set) awaitAccept(ctx context.Context, h *held, sl *slot, conn net.Conn, alone bool) (verdict, uint32) {
	look := acceptLookFirst
	for {
		v, inode := h.probeState(conn)
		if v == undecided && alone {
			v = waiting
			if s.emptied(h, sl) {
				v = taken // nobody else accepts from this queue
			}
		}
		if v != waiting {
			return v, inode
		}
		if sleep(ctx, look) != nil {
			return waiting, 0
		}
		look = min(2*look, acceptLookMax)
	}
}

func (s *Set) emptied(h *held, sl *slot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sl.fd >= 0 && sl.queue(&h.addr) == 0
}

// probeState asks the kernel about the server's end of conn, then conn itself.
func (h *held) probeState(conn net.Conn) (verdict, uint32) {
	var v verdict
	var inode uint32
	if h.addr.inet() {
		v, inode = h.tcpProbeState(conn)
	} else {
		v, inode = unixProbeState(conn)
	}
	if v == taken {
		return v, inode
	}
	switch end := ended(conn); end {
	case taken:
		return taken, inode
	case reset:
		return reset, 0
	}
	return v, inode
}

func (h *held) tcpProbeState(conn net.Conn) (verdict, uint32) {
	local, remote := tcpAddrPort(conn.LocalAddr()), tcpAddrPort(conn.RemoteAddr())
	c, err := lookupTCP(h.at.family, remote, local)
	switch {
	case err == unix.ENOENT:
		return waiting, 0 // gone: the client's end knows why
	case err != nil:
		return undecided, 0
	case c.inode != 0:
		return taken, c.inode
	}
	return waiting, 0
}

func tcpAddrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPort{}
}

// unixProbeState reads the inode of the peer, which an unaccepted socket does not have.
func unixProbeState(conn net.Conn) (verdict, uint32) {
	var inode uint64
	withFD(conn, func(fd int) { inode = inodeOf(fd) })
	c, err := findUnix(inode)
	switch {
	case err != nil:
		return undecided, 0
	case c.hasPeer && c.peer != 0:
		return taken, c.peer
	}
	return waiting, 0
}

// peek reads without taking: EAGAIN while nothing has come, 0 at the end.
func peek(conn net.Conn) (n int, err error) {
	n, err = -1, unix.EAGAIN
	withFD(conn, func(fd int) {
		var b [1]byte
		n, _, err = unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return n, err
}

// withFD runs f with the connection's descriptor, which f must not keep.
func withFD(conn net.Conn, f func(fd int)) {
	if sc, ok := conn.(syscall.Conn); ok {
		if rc, err := sc.SyscallConn(); err == nil {
			_ = rc.Control(func(fd uintptr) { f(int(fd)) })
		}
	}
}

// closeProbe ends the connection with FIN rather than RST, which an unread greeting would cause.
func closeProbe(conn net.Conn) {
	if n, err := peek(conn); err == nil && n > 0 {
		_ = conn.SetReadDeadline(time.Now().Add(acceptLookMax))
		_, _ = io.CopyN(io.Discard, conn, 64<<10)
	}
	_ = conn.Close()
}

// ownedBy reports whether one of the processes has the socket.
func (s *Set) ownedBy(h *held, inode uint32, pids []int) (bool, error) {
	denied := false
	for _, pid := range pids {
		has, known := hasSocket(pid, inode)
		if has {
			return true, nil
		}
		denied = denied || !known
	}
	if denied {
		return false, fmt.Errorf("%w (its descriptors cannot be read)", errAmbiguous(h))
	}
	return false, nil
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
