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
	"syscall"

	"golang.org/x/sys/unix"
)

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// errAmbiguous tells what to do where a shared socket hides who answers.
func errAmbiguous(h *held) error {
	why := h.why
	if h.mode == modeRenamed {
		why = "the workers of a generation share that of a path"
	}
	return fmt.Errorf("%w: %q is one socket shared by several generations (%s); let the app say READY=1, or set ENTRYPOINT_READY=delay:…",
		ErrNotSteerable, h.String(), why)
}

// Dial connects to a held address as a client names it (localhost, this machine's name or any of its addresses for
// a wildcard; a path for unix) and reaches that generation only, whoever has the traffic. network is tcp, tcp4, tcp6, unix or
// unixpacket. The error is ErrNotHeld if the address is none of ours, ErrNotSteerable if it cannot be certain who
// answers. The connection belongs to the caller.
func (s *Set) Dial(ctx context.Context, gen int, network, address string) (net.Conn, error) {
	h, dst, err := s.find(network, address)
	if err != nil {
		return nil, err
	}
	return s.dialSeat(ctx, h, Seat{Generation: gen}, dst)
}

// dialSeat connects to a worker's slot of h. dst is only used for internet addresses.
func (s *Set) dialSeat(ctx context.Context, h *held, at Seat, dst netip.AddrPort) (net.Conn, error) {
	s.mu.Lock()
	sl, certain := h.slotOf(at), s.certain(h, at)
	leased := s.leases[at] != nil && sl != nil
	s.mu.Unlock()
	switch {
	case !leased:
		return nil, fmt.Errorf("%v has no socket for %q", at, h.String())
	case !certain:
		return nil, errAmbiguous(h)
	}
	return s.dialSlot(ctx, h, sl, dst)
}

// dialSlot connects to a slot, or to whoever accepts from a shared socket.
func (s *Set) dialSlot(ctx context.Context, h *held, sl *slot, dst netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if !h.addr.inet() {
		name := h.addr.Path
		if sl.hidden != "" {
			name = sl.hidden
		}
		return d.DialContext(ctx, h.addr.Scheme, name)
	}
	if h.mode != modeSteered {
		return d.DialContext(ctx, "tcp", dst.String())
	}
	for {
		c, astray, err := s.dialRouted(ctx, h, sl, dst)
		if !astray {
			return c, err
		}
		_ = c.Close()
	}
}

// dialRouted makes one connection through the program. It is astray if a program has taken its slot out of the group since the
// group was last looked at: the indexes were others than the program says, and anybody may have it.
func (s *Set) dialRouted(ctx context.Context, h *held, sl *slot, dst netip.AddrPort) (c net.Conn, astray bool, err error) {
	var src netip.AddrPort
	losses := 0
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		ctlErr := rc.Control(func(fd uintptr) { src, losses, err = s.bindPair(int(fd), h, sl, dst.Addr()) })
		return errors.Join(ctlErr, err)
	}}
	defer func() { s.dropPair(h, src) }()
	if c, err = d.DialContext(ctx, "tcp", dst.String()); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return nil, false, errClosed
	}
	if err := s.check(h); err != nil {
		_ = c.Close()
		return nil, false, err
	}
	return c, h.losses != losses, nil
}

// bindPair binds a connecting socket to a source of its own and lets the group's program send that source to sl. losses are the
// members that the group is known to have lost.
func (s *Set) bindPair(fd int, h *held, sl *slot, local netip.Addr) (src netip.AddrPort, losses int, err error) {
	family := unix.AF_INET6
	if local.Is4() {
		family = unix.AF_INET
	}
	sa, err := sockaddrOf(local, 0, family)
	if err != nil {
		return netip.AddrPort{}, 0, err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return netip.AddrPort{}, 0, fmt.Errorf("cannot bind the probe's source: %w", err)
	}
	if sa, err = unix.Getsockname(fd); err != nil {
		return netip.AddrPort{}, 0, err
	}
	src = addrPortOf(sa)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return netip.AddrPort{}, 0, errClosed
	case len(h.pairs) >= maxPairs:
		return netip.AddrPort{}, 0, fmt.Errorf("%d probes of %q at once are too many", maxPairs, h.String())
	case h.order.index(sl) < 0:
		return netip.AddrPort{}, 0, fmt.Errorf("generation %d does not listen on %q any more", sl.gen, h.String())
	}
	h.pairs = append(h.pairs, pair{src: src, slot: sl})
	if err := h.program(h.aim); err != nil {
		h.pairs = h.pairs[:len(h.pairs)-1]
		return netip.AddrPort{}, 0, err
	}
	return src, h.losses, nil
}

// dropPair takes a source out of the program again; the invalid one is none.
func (s *Set) dropPair(h *held, src netip.AddrPort) {
	if !src.IsValid() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h.pairs = slices.DeleteFunc(h.pairs, func(p pair) bool { return p.src == src })
	if s.closed {
		return
	}
	if err := h.program(h.aim); err != nil {
		s.logf("%q: a probe's route stays until the next switch: %v", h.String(), err)
	}
	s.sweep(h)
}

// find is the held stream socket that an address names, and where to connect.
func (s *Set) find(network, address string) (*held, netip.AddrPort, error) {
	s.mu.Lock()
	all := slices.Clone(s.held)
	s.mu.Unlock()
	switch network {
	case "unix", "unixpacket":
		for _, h := range all {
			if h.addr.Scheme == network && samePath(h.addr.Path, address) {
				return h, netip.AddrPort{}, nil
			}
		}
	case "tcp", "tcp4", "tcp6":
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, netip.AddrPort{}, err
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, netip.AddrPort{}, fmt.Errorf("port %q is not a number", port)
		}
		for _, h := range all {
			if h.addr.family() != "tcp" || h.at.port != int(n) {
				continue
			}
			if ip := h.answersAs(host, network[len(network)-1]); ip.IsValid() {
				return h, netip.AddrPortFrom(ip, uint16(n)), nil
			}
		}
	default:
		return nil, netip.AddrPort{}, fmt.Errorf("%w: network %q has no connections to steer", ErrNotSteerable, network)
	}
	return nil, netip.AddrPort{}, fmt.Errorf("%w: %q", ErrNotHeld, address)
}

// Holds tells whether an address, as a client names it (see Dial), is a held one that accepts connections.
func (s *Set) Holds(network, address string) bool {
	_, _, err := s.find(network, address)
	return err == nil
}

func samePath(a, b string) bool {
	return a == b || a[:1] != "@" && b != "" && filepath.Clean(a) == filepath.Clean(b)
}

// answersAs is the local address at which a client that says host reaches h; invalid if it does not.
func (h *held) answersAs(host string, version byte) netip.Addr {
	for _, ip := range localAddrs(host, h.addr.Host) {
		if version == '4' && !ip.Is4() || version == '6' && ip.Is4() {
			continue
		}
		if own := h.at.host(); !own.IsUnspecified() {
			if ip.IsUnspecified() || ip == own {
				return own
			}
			continue
		}
		if ip.Is4() && (h.at.family == unix.AF_INET || !h.at.v6only) || !ip.Is4() && h.at.family == unix.AF_INET6 {
			return reachable(ip)
		}
	}
	return netip.Addr{}
}

// reachable replaces the wildcard, which some clients write, by the loopback address.
func reachable(ip netip.Addr) netip.Addr {
	switch {
	case !ip.IsUnspecified():
		return ip
	case ip.Is4():
		return loopback4
	}
	return netip.IPv6Loopback()
}

// localAddrs lists the addresses of this machine that a host name or literal stands for, unmapped. configured is the
// held address's own host, which stands for itself.
func localAddrs(host, configured string) []netip.Addr {
	self, _ := os.Hostname()
	anyLocal := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	switch {
	case host == "" || host == self || host == configured:
		return anyLocal
	case host == "localhost":
		return []netip.Addr{loopback4, netip.IPv6Loopback()}
	}
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = append(ips, ip.Unmap())
	} else {
		ips = lookupHosts(host)
	}
	return slices.DeleteFunc(ips, func(ip netip.Addr) bool { return !isLocal(ip) })
}

// isLocal reports whether the machine itself has the address.
func isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip.WithZone("") {
			return true
		}
	}
	return false
}
