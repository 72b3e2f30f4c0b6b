package handoff

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A pair sends what comes from one source address and port to a slot other than the current one. Only our own probes
// have one, for the time of their connect: the address is local and the port is bound by us, so nobody else can match.
type pair struct {
	src  netip.AddrPort
	slot *slot
}

// maxPairs bounds the program: each pair takes at most 11 of the 4096 instructions.
const maxPairs = 64

// netOff is SKF_NET_OFF, the offset base of loads relative to the network header (linux/filter.h).
const netOff = 0xfff00000

// route is a pair with its slot's index at the time the program was built.
type route struct {
	src   netip.AddrPort
	index int
}

func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

// skipUnless is "go on if the accumulator is k, else skip n instructions".
func skipUnless(k uint32, n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(n), K: k}
}

// buildProgram makes the classic-BPF program of a group: the index of each route for its source, else current.
// The source is read from the IP header through SKF_NET_OFF, the version nibble first, for a dual-stack socket sees both.
func buildProgram(current int, routes []route) []unix.SockFilter {
	ret := stmt(unix.BPF_RET|unix.BPF_K, uint32(current))
	if len(routes) == 0 {
		return []unix.SockFilter{ret}
	}
	var v4, v6 []unix.SockFilter
	for _, r := range routes {
		if r.src.Addr().Unmap().Is4() {
			v4 = append(v4, clause4(r)...)
		} else {
			v6 = append(v6, clause6(r)...)
		}
	}
	prog := []unix.SockFilter{
		stmt(unix.BPF_LD|unix.BPF_B|unix.BPF_ABS, netOff),
		stmt(unix.BPF_ALU|unix.BPF_RSH|unix.BPF_K, 4),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: 4},
		stmt(unix.BPF_JMP|unix.BPF_JA, uint32(len(v4)+1)),
	}
	prog = append(prog, v4...)
	prog = append(prog, stmt(unix.BPF_JMP|unix.BPF_JA, uint32(len(v6))))
	prog = append(prog, v6...)
	return append(prog, ret)
}

// clause4 matches source address and port of IPv4; the header's length is its low nibble times four (MSH).
func clause4(r route) []unix.SockFilter {
	a := r.src.Addr().Unmap().As4()
	return []unix.SockFilter{
		stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, netOff+12),
		skipUnless(binary.BigEndian.Uint32(a[:]), 4),
		stmt(unix.BPF_LDX|unix.BPF_B|unix.BPF_MSH, netOff),
		stmt(unix.BPF_LD|unix.BPF_H|unix.BPF_IND, netOff),
		skipUnless(uint32(r.src.Port()), 1),
		stmt(unix.BPF_RET|unix.BPF_K, uint32(r.index)),
	}
}

// clause6 matches source address and port of IPv6. Extension headers would move the port: our own probes have none.
func clause6(r route) []unix.SockFilter {
	a := r.src.Addr().As16()
	var out []unix.SockFilter
	for i := 0; i < 4; i++ {
		out = append(out, stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, netOff+8+uint32(4*i)),
			skipUnless(binary.BigEndian.Uint32(a[4*i:]), 2*(3-i)+3))
	}
	return append(out, stmt(unix.BPF_LD|unix.BPF_H|unix.BPF_ABS, netOff+40),
		skipUnless(uint32(r.src.Port()), 1), stmt(unix.BPF_RET|unix.BPF_K, uint32(r.index)))
}

// attachProgram replaces the program of fd's group (Linux 4.5 TCP and UDP). It is atomic and needs no privilege.
func attachProgram(fd int, prog []unix.SockFilter) error {
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &p); err != nil {
		return fmt.Errorf("cannot attach the steering program: %w", err)
	}
	return nil
}
