package handoff

import (
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/transparent"
)

// placeOf is where a program binds. Whether an IPv6 socket takes IPv4 too is the program's last word, or the system's.
func placeOf(c *transparent.Call, options []setting) place {
	p := place{family: c.Family, ip: c.Addr.Addr(), port: int(c.Addr.Port())}
	if p.family != unix.AF_INET6 {
		return p
	}
	p.v6only = systemV6Only()
	for _, o := range options {
		if o.level == unix.IPPROTO_IPV6 && o.name == unix.IPV6_V6ONLY {
			p.v6only = strings.Trim(o.value, "\x00") != ""
		}
	}
	return p
}

// systemV6Only is the default of IPV6_V6ONLY in this network namespace.
func systemV6Only() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/bindv6only")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

func scheme(c *transparent.Call) string {
	if c.TCP() {
		return "tcp"
	}
	return "udp"
}

// overlaps tells whether one socket at p and one at q, of the same protocol, would want the same connections.
func (p place) overlaps(q place) bool {
	if p.port != q.port {
		return false
	}
	a, b := p.host(), q.host()
	switch {
	case a == b:
		return !a.IsUnspecified() || p.family == q.family
	case p.wild(b), q.wild(a):
		return true
	}
	return false
}

// host is the address without the prefix of IPv4 in IPv6.
func (p place) host() netip.Addr { return p.ip.Unmap() }

// wild tells whether p is a wildcard that takes connections to ip, which may be a wildcard itself.
func (p place) wild(ip netip.Addr) bool {
	switch {
	case !p.host().IsUnspecified():
		return false
	case p.host().Is4():
		return ip.Is4()
	}
	return !ip.Is4() || !p.v6only
}
