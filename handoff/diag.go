package handoff

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// TCP states as sock_diag and /proc/net/tcp number them (include/net/tcp_states.h).
const (
	tcpEstablished = 1
	tcpSynRecv     = 3
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpListen      = 10
	tcpClosing     = 11
)

// liveStates are the states in which a connection may still be somebody's work.
const liveStates = 1<<tcpEstablished | 1<<tcpSynRecv | 1<<tcpFinWait1 | 1<<tcpFinWait2 | 1<<tcpCloseWait | 1<<tcpLastAck | 1<<tcpClosing

// Layout of linux/inet_diag.h.
const (
	inetDiagReqLen  = 56
	inetDiagMsgLen  = 72
	inetDiagInfo    = 2
	inetDiagSockopt = 22
)

// tcpConn is one TCP socket as the kernel reports it.
type tcpConn struct {
	state         uint8
	local, remote netip.AddrPort
	key           uint64 // the same as long as the connection lives, from SYN_RECV on
	inode         uint32 // 0: no process has it (not accepted yet, or closed)
	rqueue        uint32 // bytes that nobody read; a listener's accept queue
	wqueue        uint32 // bytes that the peer did not acknowledge
	colored       bool   // color is known
	color         uint8
	timed         bool   // the four below are known
	sentAge       uint32 // milliseconds since data was sent; since the beginning if none was
	recvAge       uint32 // milliseconds since data was received
	segsIn        uint32 // segments with data, ever
	segsOut       uint32
}

// inetDiagRequest builds struct inet_diag_req_v2 for TCP.
func inetDiagRequest(family int, states uint32, local, remote netip.AddrPort) []byte {
	b := make([]byte, inetDiagReqLen)
	b[0], b[1], b[2] = uint8(family), unix.IPPROTO_TCP, 1<<(inetDiagInfo-1)
	native.PutUint32(b[4:], states)
	b[8], b[9] = byte(local.Port()>>8), byte(local.Port())
	b[10], b[11] = byte(remote.Port()>>8), byte(remote.Port())
	putAddr(b[12:28], local.Addr())
	putAddr(b[28:44], remote.Addr())
	for i := 48; i < 56; i++ {
		b[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	return b
}

func putAddr(b []byte, ip netip.Addr) {
	if ip.IsValid() {
		copy(b, ip.AsSlice())
	}
}

// dumpTCP calls each for every TCP socket of the family with that local port (0: any) in one of the states (a bit set). Only
// one tcpConn is made, so each must copy what it keeps.
func dumpTCP(family, port int, states uint32, each func(*tcpConn)) error {
	var c tcpConn
	local := netip.AddrPortFrom(netip.Addr{}, uint16(port))
	err := diagQuery(inetDiagRequest(family, states, local, netip.AddrPort{}), unix.NLM_F_DUMP, func(b []byte) {
		if c.decode(b) && (port == 0 || int(c.local.Port()) == port) && states>>c.state&1 == 1 {
			each(&c)
		}
	})
	return err
}

// findTCP looks up the one connection between local and remote. The kernel answers with the listener if there is none:
// then it reports ENOENT.
func findTCP(local, remote netip.AddrPort) (tcpConn, error) {
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	family := unix.AF_INET6
	if local.Addr().Is4() {
		family = unix.AF_INET
	}
	var c tcpConn
	found := false
	err := diagQuery(inetDiagRequest(family, 0xfff, local, remote), 0, func(b []byte) {
		found = c.decode(b) && c.state != tcpListen && c.remote.Port() == remote.Port()
	})
	if err == nil && !found {
		err = unix.ENOENT
	}
	return c, err
}

// decode reads struct inet_diag_msg and the attributes that we use. It allocates nothing.
func (c *tcpConn) decode(b []byte) bool {
	if len(b) < inetDiagMsgLen {
		return false
	}
	*c = tcpConn{
		state:  b[1],
		local:  diagAddr(b[0], b[8:24], b[4:6]),
		remote: diagAddr(b[0], b[24:40], b[6:8]),
		key:    uint64(native.Uint32(b[44:]))<<32 | uint64(native.Uint32(b[48:])),
		rqueue: native.Uint32(b[56:]),
		wqueue: native.Uint32(b[60:]),
		inode:  native.Uint32(b[68:]),
	}
	for a := b[inetDiagMsgLen:]; len(a) >= 4; {
		size := int(native.Uint16(a))
		if size < 4 || size > len(a) {
			break
		}
		c.attribute(native.Uint16(a[2:]), a[4:size])
		a = a[min(len(a), (size+3)&^3):]
	}
	return true
}

// Offsets in struct tcp_info (linux/tcp.h); the segment counters came with Linux 4.6.
const (
	infoLastSent = 44
	infoLastRecv = 52
	infoSegsIn   = 152
	infoSegsOut  = 156
)

func (c *tcpConn) attribute(kind uint16, v []byte) {
	switch kind {
	case inetDiagSockopt:
		c.color, c.colored = colorOf(v), len(v) >= 2
	case inetDiagInfo:
		if len(v) < infoSegsOut+4 {
			return
		}
		c.timed = true
		c.sentAge, c.recvAge = native.Uint32(v[infoLastSent:]), native.Uint32(v[infoLastRecv:])
		c.segsIn, c.segsOut = native.Uint32(v[infoSegsIn:]), native.Uint32(v[infoSegsOut:])
	}
}

// diagAddr reads an address; IPv4 behind a dual-stack socket becomes plain IPv4.
func diagAddr(family uint8, ip, port []byte) netip.AddrPort {
	p := uint16(port[0])<<8 | uint16(port[1])
	if family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[:4])), p)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(ip)).Unmap(), p)
}

// Layout of linux/unix_diag.h.
const (
	unixDiagReqLen = 24
	unixDiagMsgLen = 16
	unixDiagName   = 0
	unixDiagPeer   = 2
	unixDiagRqlen  = 4
	unixShowAll    = 1 | 4 | 16 // name, peer, queue lengths
)

// unixConn is one unix socket as the kernel reports it.
type unixConn struct {
	state          uint8
	inode          uint32
	name           []byte // valid during the call only
	peer           uint32 // inode of the other end; 0 while that was not accepted
	hasPeer        bool
	rqueue, wqueue uint32 // a listener: waiting connections and the backlog; else bytes
}

func unixDiagRequest(inode uint32) []byte {
	b := make([]byte, unixDiagReqLen)
	b[0] = unix.AF_UNIX
	native.PutUint32(b[4:], 1<<tcpEstablished|1<<tcpListen)
	native.PutUint32(b[8:], inode)
	native.PutUint32(b[12:], unixShowAll)
	for i := 16; i < 24; i++ {
		b[i] = 0xff
	}
	return b
}

// dumpUnix calls each for every unix stream or seqpacket socket that listens or is connected.
func dumpUnix(each func(*unixConn)) error {
	var c unixConn
	return diagQuery(unixDiagRequest(0), unix.NLM_F_DUMP, func(b []byte) {
		if c.decode(b) {
			each(&c)
		}
	})
}

// findUnix looks up one unix socket by its inode (CONFIG_UNIX_DIAG).
func findUnix(inode uint64) (unixConn, error) {
	if inode == 0 {
		return unixConn{}, errors.New("no inode")
	}
	var c unixConn
	found := false
	err := diagQuery(unixDiagRequest(uint32(inode)), 0, func(b []byte) { found = c.decode(b) })
	if err == nil && !found {
		err = unix.ENOENT
	}
	c.name = nil
	return c, err
}

func (c *unixConn) decode(b []byte) bool {
	if len(b) < unixDiagMsgLen {
		return false
	}
	*c = unixConn{state: b[2], inode: native.Uint32(b[4:])}
	attributes(b[unixDiagMsgLen:], func(kind uint16, v []byte) {
		switch {
		case kind == unixDiagName:
			c.name = bytes.TrimRight(v, "\x00")
		case kind == unixDiagPeer && len(v) >= 4:
			c.peer, c.hasPeer = native.Uint32(v), true
		case kind == unixDiagRqlen && len(v) >= 8:
			c.rqueue, c.wqueue = native.Uint32(v), native.Uint32(v[4:])
		}
	})
	return true
}

// sameName compares without allocating.
func (c *unixConn) sameName(path string) bool {
	return len(c.name) == len(path) && strings.Compare(string(c.name), path) == 0
}
