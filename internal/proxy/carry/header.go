package carry

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"

	"github.com/hotswap-init/entrypoint/internal/proxy"
)

// signature begins every header of version 2 of the PROXY protocol.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

// proxyHeader is what a backend is told of a client: src is where the client is, dst where it connected to. Those that are no TCP addresses, as of
// unix sockets, are said to be unknown.
func proxyHeader(p proxy.Protocol, src, dst net.Addr) []byte {
	from, to := pairOf(src, dst)
	switch p {
	case proxy.ProtocolV1:
		return headerV1(from, to)
	case proxy.ProtocolV2:
		return headerV2(from, to)
	}
	return nil
}

// pairOf gives both addresses in one family, or two invalid ones.
func pairOf(src, dst net.Addr) (from, to netip.AddrPort) {
	s, okS := src.(*net.TCPAddr)
	d, okD := dst.(*net.TCPAddr)
	if !okS || !okD {
		return
	}
	from, to = plain(s.AddrPort()), plain(d.AddrPort())
	if !from.IsValid() || !to.IsValid() || from.Addr().Is4() != to.Addr().Is4() {
		return netip.AddrPort{}, netip.AddrPort{}
	}
	return from, to
}

// plain is the address without zone, IPv4 as IPv4.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func headerV1(from, to netip.AddrPort) []byte {
	if !from.IsValid() {
		return []byte("PROXY UNKNOWN\r\n")
	}
	family := "TCP6"
	if from.Addr().Is4() {
		family = "TCP4"
	}
	return []byte("PROXY " + family + " " + from.Addr().String() + " " + to.Addr().String() + " " +
		strconv.Itoa(int(from.Port())) + " " + strconv.Itoa(int(to.Port())) + "\r\n")
}

func headerV2(from, to netip.AddrPort) []byte {
	const (
		proxied     = 0x21 // version 2, on behalf of somebody
		unspecified = 0x00
		tcp4, tcp6  = 0x11, 0x21
	)
	b := append([]byte(signature), proxied)
	if !from.IsValid() {
		return append(b, unspecified, 0, 0)
	}
	family := byte(tcp6)
	if from.Addr().Is4() {
		family = tcp4
	}
	addresses := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	addresses = binary.BigEndian.AppendUint16(addresses, from.Port())
	addresses = binary.BigEndian.AppendUint16(addresses, to.Port())
	b = append(b, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)))
	return append(b, addresses...)
}
