package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/transparent"
)

const (
	// proofRounds and proofBurst bound the connections that are made to find one that the right processes accept: 1, 2, 4, then
	// 8 at once, 119 in all. Of two programs that wait for an idle socket, the kernel may wake the same one first every
	// time; the other one gets its turn when several connections come together.
	proofRounds = 17
	proofBurst  = 8
)

// Processes are what a proof rests on where the kernel does not choose who accepts. Both functions may be nil: none.
type Processes struct {
	// Own lists the processes of the generation that shall answer.
	Own func() []int
	// Others lists processes that must not have the accepted socket as well: those of other generations.
	Others func() []int
	// Alone says that there is no other generation: whoever answers at an address that is not held, here or on another
	// machine, is taken for the right one.
	Alone bool
}

// DialAccepted is Dial for a check: it also waits until the generation has accepted the connection, and proves that it was
// this generation where Dial cannot be certain: on a socket that several generations share, and at an address of this
// machine that is not held. The proof is that the accepted socket is among the descriptors of Own and not of Others; a
// connection that somebody else got is closed and others are made, 119 at most. It never returns a connection of which
// that is not known. Where it cannot be known the error is ErrNotSteerable; ErrNotHeld is of addresses on other machines.
//
// A steered socket with TCP_DEFER_ACCEPT shows nothing before data comes: there it does not wait. It blocks until ctx ends.
func (s *Set) DialAccepted(ctx context.Context, gen int, network, address string, p Processes) (net.Conn, error) {
	return s.dialAccepted(ctx, Seat{Generation: gen}, network, address, p)
}

// DialAccepted is Set.DialAccepted for this worker.
func (l *Lease) DialAccepted(ctx context.Context, network, address string, p Processes) (net.Conn, error) {
	return l.set.dialAccepted(ctx, l.at, network, address, p)
}

func (s *Set) dialAccepted(ctx context.Context, at Seat, network, address string, p Processes) (net.Conn, error) {
	h, dst, err := s.find(network, address)
	switch {
	case errors.Is(err, ErrNotHeld) && p.Alone:
		return new(net.Dialer).DialContext(ctx, network, address)
	case errors.Is(err, ErrNotHeld):
		return s.dialUnheld(ctx, at, network, address, p)
	case err != nil:
		return nil, err
	}
	sl, certain, err := s.slotFor(h, at)
	if err != nil {
		return nil, err
	}
	deferred := h.addr.inet() && deferring(sl.fd)
	switch {
	case deferred && certain:
		return s.dialSlot(ctx, h, sl, dst)
	case deferred:
		return nil, fmt.Errorf("%w: %q is shared by several generations and has defer_accept, so who accepts shows only after the request; leave that option out",
			ErrNotSteerable, h.String())
	}
	return s.prove(ctx, at, p, &proof{
		name: h.String(), certain: certain,
		dial:  func() (net.Conn, error) { return s.dialSlot(ctx, h, sl, dst) },
		await: func(c net.Conn) (verdict, uint32) { return s.awaitAccept(ctx, h, sl, c, certain) },
	})
}

// slotFor is the slot through which a worker is reached, and whether nobody else accepts from it.
func (s *Set) slotFor(h *held, at Seat) (*slot, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := h.slotOf(at)
	if s.leases[at] == nil || sl == nil {
		return nil, false, fmt.Errorf("%v has no socket for %q", at, h.String())
	}
	return sl, s.certain(h, at), nil
}

// proof is one way to make connections and to see what becomes of them.
type proof struct {
	name    string
	certain bool // whoever accepts is the right one
	dial    func() (net.Conn, error)
	await   func(net.Conn) (verdict, uint32)
}

// prove connects until the right processes have accepted.
func (s *Set) prove(ctx context.Context, at Seat, p Processes, w *proof) (net.Conn, error) {
	made := 0
	for round := range proofRounds {
		n := min(1<<round, proofBurst)
		if w.certain {
			n = 1 // another one only if this is reset
		}
		c, err := burst(n, p, w)
		switch made += n; {
		case c != nil:
			return c, nil
		case errors.Is(err, errNotTaken):
			return nil, fmt.Errorf("%v has not accepted a connection on %q: %w", at, w.name, ctx.Err())
		case err != nil:
			return nil, err
		}
		if sleep(ctx, acceptLookMax) != nil {
			break
		}
	}
	return nil, fmt.Errorf("%w: none of %d connections to %q was seen to be accepted by %v: another process accepts there, or descriptors cannot be read",
		ErrNotSteerable, made, w.name, at)
}

var errNotTaken = errors.New("not accepted in time")

// burst makes n connections and returns the first that the right processes have accepted; none, without an error, if all
// were accepted by others or reset.
func burst(n int, p Processes, w *proof) (net.Conn, error) {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			closeProbe(c)
		}
	}()
	for range n {
		c, err := w.dial()
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	for i, c := range conns {
		v, inode := w.await(c)
		switch {
		case v == taken && (w.certain || inode != 0 && p.has(inode)):
			conns = slices.Delete(conns, i, i+1)
			return c, nil
		case v == undecided || v == taken && inode == 0 && c.LocalAddr().Network() != "tcp":
			return nil, fmt.Errorf("%w: this system does not show who accepts from %q; let the app say READY=1, or use a delay", ErrNotSteerable, w.name)
		case v == waiting:
			return nil, errNotTaken
		}
	}
	return nil, nil
}

// has tells whether the socket is one of Own and none of Others.
func (p Processes) has(inode uint32) bool {
	return anyHas(p.Own, inode) && !anyHas(p.Others, inode)
}

func anyHas(pids func() []int, inode uint32) bool {
	if pids == nil {
		return false
	}
	return slices.ContainsFunc(pids(), func(pid int) bool { has, _ := hasSocket(pid, inode); return has })
}

// hasSocket tells whether a process has a socket among its descriptors; known is false if they cannot be read. Where the
// kernel keeps them from us, they are read with the filesystem identity of that process (CAP_SETUID, CAP_SETGID).
func hasSocket(pid int, inode uint32) (has, known bool) {
	want := "socket:[" + strconv.FormatUint(uint64(inode), 10) + "]"
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	f, err := os.Open(dir)
	if err == nil {
		names, _ := f.Readdirnames(-1)
		_ = f.Close()
		for _, n := range names {
			var link string
			if link, err = os.Readlink(filepath.Join(dir, n)); link == want {
				return true, true
			}
			if errors.Is(err, os.ErrPermission) {
				break
			}
		}
	}
	if !errors.Is(err, os.ErrPermission) {
		return false, true // all were read, or the process is gone
	}
	inodes := transparent.Sockets(pid)
	return slices.Contains(inodes, uint64(inode)), len(inodes) > 0
}

// dialUnheld connects to an address of this machine that nobody holds.
func (s *Set) dialUnheld(ctx context.Context, at Seat, network, address string, p Processes) (net.Conn, error) {
	w := &proof{name: network + "://" + address}
	switch network {
	case "unix", "unixpacket":
		var d net.Dialer
		w.dial = func() (net.Conn, error) { return d.DialContext(ctx, network, address) }
		w.await = func(c net.Conn) (verdict, uint32) { return awaitState(ctx, c, unixProbeState) }
	default:
		dst, err := ownAddress(network, address)
		if err != nil {
			return nil, err
		}
		var d net.Dialer
		w.dial = func() (net.Conn, error) { return d.DialContext(ctx, "tcp", dst.String()) }
		w.await = func(c net.Conn) (verdict, uint32) { return awaitState(ctx, c, ownProbeState) }
	}
	return s.prove(ctx, at, p, w)
}

// ownAddress is an address of this machine for a host and port; ErrNotHeld if it is none.
func ownAddress(network, address string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q is not a number", port)
	}
	for _, ip := range localAddrs(host, "") {
		if v4 := ip.Is4(); network == "tcp4" && !v4 || network == "tcp6" && v4 {
			continue
		}
		return netip.AddrPortFrom(reachable(ip), uint16(n)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("%w, nor one of this machine: %q", ErrNotHeld, address)
}

// ownProbeState is tcpProbeState where the family of the listener is not known: /proc/net has two files.
func ownProbeState(c net.Conn) (verdict, uint32) {
	local, remote := tcpAddrPort(c.LocalAddr()), tcpAddrPort(c.RemoteAddr())
	var last error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		found, err := lookupTCP(family, remote, local)
		if err == nil {
			if found.inode != 0 {
				return taken, found.inode
			}
			return waiting, 0
		}
		last = err
	}
	if last == unix.ENOENT {
		return waiting, 0
	}
	return undecided, 0
}

// awaitState looks at a connection until it is decided or ctx ends.
func awaitState(ctx context.Context, c net.Conn, state func(net.Conn) (verdict, uint32)) (verdict, uint32) {
	for look := acceptLookFirst; ; look = min(2*look, acceptLookMax) {
		v, inode := state(c)
		if v != waiting {
			return v, inode
		}
		if v = ended(c); v != waiting {
			return v, 0
		}
		if sleep(ctx, look) != nil {
			return waiting, 0
		}
	}
}

// ended looks at our own end of a connection.
func ended(c net.Conn) verdict {
	switch n, err := peek(c); {
	case err == nil && n >= 0:
		return taken // it was answered, or closed in an orderly way
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return reset
	}
	return waiting
}

// ConnectedBy tells whether the other end of a TCP connection that we accepted is a socket of one of the processes. known is
// false where that cannot be seen. Both ends must be in this network namespace.
func ConnectedBy(c net.Conn, pids []int) (by, known bool) {
	v, inode := ownProbeState(c)
	if v != taken {
		return false, v == waiting // closed since: of nobody
	}
	known = true
	for _, pid := range pids {
		has, read := hasSocket(pid, inode)
		if has {
			return true, true
		}
		known = known && read
	}
	return false, known
}

// Endpoint is a held address at which a generation accepts streams.
type Endpoint struct {
	Name string
	// Network and Address are what DialAccepted takes: tcp and a numeric host:port, or unix and a path.
	Network, Address string
}

// Endpoints lists where a generation accepts streams of bytes, in the order of the configuration, learned addresses last.
func (s *Set) Endpoints(gen int) []Endpoint { return s.endpoints(Seat{Generation: gen}) }

// Endpoints is Set.Endpoints for this worker.
func (l *Lease) Endpoints() []Endpoint { return l.set.endpoints(l.at) }

func (s *Set) endpoints(at Seat) []Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[at]
	var out []Endpoint
	for _, h := range s.held {
		switch {
		case l == nil, h.addr.Scheme == "", h.learned && l.slotOf(h) == nil, !h.addr.stream():
		case h.addr.inet():
			at := netip.AddrPortFrom(h.probeAddr(), uint16(h.at.port))
			out = append(out, Endpoint{h.addr.Name, "tcp", at.String()})
		case h.addr.Scheme == "unix":
			out = append(out, Endpoint{h.addr.Name, "unix", h.addr.Path})
		}
	}
	return out
}
