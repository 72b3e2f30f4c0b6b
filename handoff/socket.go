package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// place is where the slots of an internet address are bound: known after the first one is open.
type place struct {
	family int // AF_INET or AF_INET6
	ip     netip.Addr
	v6only bool
	port   int
}

// candidates lists the places that an address may mean, best first.
func candidates(a *Address) ([]place, error) {
	v6only := a.Options.V6Only != nil && *a.Options.V6Only
	any4 := place{family: unix.AF_INET, ip: netip.IPv4Unspecified(), port: a.Port}
	any6 := place{family: unix.AF_INET6, ip: netip.IPv6Unspecified(), v6only: v6only, port: a.Port}
	version := a.Scheme[len(a.Scheme)-1]
	if version == '6' && a.Options.V6Only == nil {
		any6.v6only = true
	}
	switch {
	case a.Host == "" && version == '4':
		return []place{any4}, nil
	case a.Host == "" && (version == '6' || v6only):
		return []place{any6}, nil
	case a.Host == "":
		return []place{any6, any4}, nil
	}
	ip, err := hostAddr(a.Host, version)
	if err != nil {
		return nil, err
	}
	if ip.Is4() {
		return []place{{family: unix.AF_INET, ip: ip, port: a.Port}}, nil
	}
	any6.ip = ip
	return []place{any6}, nil
}

// hostAddr is the address of a literal or of a name in the hosts file. DNS is not asked: a process that is the
// container's init reads nothing from the network.
func hostAddr(host string, version byte) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip, nil
	}
	for _, ip := range lookupHosts(host) {
		if (version != '4' || ip.Is4()) && (version != '6' || ip.Is6()) {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("host %q is neither an IP address nor in the hosts file", host)
}

// lookupHosts asks the hosts file only.
func lookupHosts(name string) []netip.Addr {
	refuse := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no DNS") }
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	ips, _ := (&net.Resolver{PreferGo: true, Dial: refuse}).LookupNetIP(ctx, "ip", name)
	if len(ips) == 0 && name == "localhost" {
		ips = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips
}

// sockaddr is the place in the kernel's form.
func (p place) sockaddr() (unix.Sockaddr, error) { return sockaddrOf(p.ip, p.port, p.family) }

func sockaddrOf(ip netip.Addr, port, family int) (unix.Sockaddr, error) {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: port, Addr: ip.Unmap().As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: port, Addr: ip.As16()}
	if z := ip.Zone(); z != "" {
		n, err := strconv.ParseUint(z, 10, 32)
		if err != nil {
			ifc, err := net.InterfaceByName(z)
			if err != nil {
				return nil, fmt.Errorf("unknown interface %q", z)
			}
			n = uint64(ifc.Index)
		}
		sa.ZoneId = uint32(n)
	}
	return sa, nil
}

// addrPortOf reads a socket address of the kernel; invalid for other families.
func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// String is the address as people write it.
func (p place) String() string { return joinHostPort(p.ip.String(), p.port) }

// openSocket makes one bound socket at p, listening if it is TCP. The descriptor is blocking, close-on-exec, and
// belongs to the caller. group makes it a member of the SO_REUSEPORT group there; extra is set before it is bound.
func openSocket(a *Address, p place, group bool, color uint8, extra ...setting) (int, error) {
	typ, proto := unix.SOCK_DGRAM, unix.IPPROTO_UDP
	if a.stream() {
		typ, proto = unix.SOCK_STREAM, unix.IPPROTO_TCP
	}
	var fd int
	var err error
	if group {
		fd, err = groupSocket(p.family, typ, proto)
	} else {
		fd, err = unix.Socket(p.family, typ|unix.SOCK_CLOEXEC, proto)
	}
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := setUpSocket(fd, a, p, group, color, extra); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setUpSocket(fd int, a *Address, p place, group bool, color uint8, extra []setting) error {
	if err := setInetOptions(fd, a, p, group); err != nil {
		return err
	}
	replay(fd, extra)
	sa, err := p.sockaddr()
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, sa); err != nil {
		return bindError(p, err)
	}
	if !a.stream() {
		return nil
	}
	setColor(fd, color) // after bind: one of its flags would keep bind from choosing a port
	if err := unix.Listen(fd, backlog(a)); err != nil {
		return bindError(p, err)
	}
	return nil
}

// bindError adds the remedy to the two errors that people meet.
func bindError(p place, err error) error {
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w; a low port needs CAP_NET_BIND_SERVICE or the sysctl net.ipv4.ip_unprivileged_port_start=%d", err, p.port)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w; the machine has no such address (freebind=true takes it all the same)", err)
	}
	return err
}

// backlog is the configured one or the kernel's maximum.
func backlog(a *Address) int {
	if a.Options.Backlog > 0 {
		return a.Options.Backlog
	}
	b, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	n, convErr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || convErr != nil || n < 1 {
		return 4096
	}
	return n
}

// sockopt is one setsockopt of an int, skipped unless wanted.
type sockopt struct {
	name              string
	level, opt, value int
	want              bool
}

// applyOptions sets the wanted ones and names the first that fails.
func applyOptions(fd int, opts []sockopt) error {
	for _, o := range opts {
		if !o.want {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return fmt.Errorf("option %q: %w", o.name, err)
		}
	}
	return nil
}

func setInetOptions(fd int, a *Address, p place, group bool) error {
	o, stream := &a.Options, a.stream()
	keep := int(o.KeepAlive / time.Second)
	v6only := 0
	if p.v6only {
		v6only = 1
	}
	return applyOptions(fd, []sockopt{
		{"reuseaddr", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, stream},
		{"reuseport", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, group},
		{"v6only", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only, p.family == unix.AF_INET6},
		{"freebind", unix.IPPROTO_IP, unix.IP_FREEBIND, 1, o.FreeBind},
		{"rcvbuf", unix.SOL_SOCKET, unix.SO_RCVBUF, o.RcvBuf, o.RcvBuf > 0},
		{"sndbuf", unix.SOL_SOCKET, unix.SO_SNDBUF, o.SndBuf, o.SndBuf > 0},
		{"nodelay", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1, o.NoDelay},
		{"keepalive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, keep > 0},
		{"keepalive", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keep, keep > 0},
		{"keepalive", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keep, keep > 0},
		{"defer_accept", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(o.DeferAccept / time.Second), o.DeferAccept > 0},
		{"fastopen", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, o.FastOpen, o.FastOpen > 0},
	})
}

// vacant fails if anybody is at p already. SO_REUSEPORT alone would not tell: it lets us join the group of another
// process of our uid.
func vacant(a *Address, p place) error {
	if p.port == 0 && a.stream() {
		return nil
	}
	fd, err := openGuard(a, p)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// openGuard binds a socket at p that shares with nobody, and does not listen.
func openGuard(a *Address, p place) (int, error) {
	typ := unix.SOCK_DGRAM
	if a.stream() {
		typ = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(p.family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	plain := *a
	plain.Options = Options{FreeBind: a.Options.FreeBind}
	if err = setInetOptions(fd, &plain, p, false); err == nil {
		var sa unix.Sockaddr
		if sa, err = p.sockaddr(); err == nil {
			if err = unix.Bind(fd, sa); err != nil {
				err = bindError(p, err)
			}
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// udpPort lets the kernel choose a free UDP port: bound with SO_REUSEPORT it might choose a taken one of our uid.
func udpPort(a *Address, p place) (int, error) {
	fd, err := openGuard(a, p)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return portOf(fd)
}

// portOf is the local port of a socket.
func portOf(fd int) (int, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("getsockname: %w", err)
	}
	return int(addrPortOf(sa).Port()), nil
}

// inodeOf is the inode number of a socket, its name in /proc and sock_diag.
func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// colors is how many colours there are besides none.
const colors = 15

// setColor marks a TCP socket through four flags that mean nothing for TCP: two of multicast sending, one of ICMP error
// queues, one of bind. Connections accepted from it inherit them, and sock_diag shows them for every socket (INET_DIAG_SOCKOPT,
// Linux 5.10), so the colour says which slot a connection came from. Every flag is set or cleared explicitly: IPv4 and
// IPv6 sockets begin with different ones. It is a help, not a need: whether it worked is seen by reading it back.
func setColor(fd int, color uint8) {
	for bit, opt := range []int{unix.IP_MULTICAST_ALL, unix.IP_MULTICAST_LOOP, unix.IP_RECVERR_RFC4884, unix.IP_BIND_ADDRESS_NO_PORT} {
		value := int(color >> bit & 1)
		if bit < 2 { // on by default
			value = 1 - value
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, opt, value)
	}
}

// colorOf reads the colour out of struct inet_diag_sockopt, a bit field of two bytes.
func colorOf(b []byte) uint8 {
	if len(b) < 2 {
		return 0
	}
	var c uint8
	if b[0]&(1<<6) == 0 { // mc_all
		c |= 1
	}
	if b[0]&(1<<4) == 0 { // mc_loop
		c |= 2
	}
	return c | b[1]>>1&1<<2 | b[1]&1<<3
}
