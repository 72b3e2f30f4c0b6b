package handoff

import (
	"encoding/binary"
	"errors"
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

// Offset bases of loads beyond the packet (linux/filter.h).
const (
	netOff   = 0xfff00000      // SKF_NET_OFF: from the network header on
	adRandom = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM: 32 bits of chance
)

// Cells of the program's memory. What a connection comes from is loaded once; comparing cells is cheaper in the kernel,
// which makes several instructions of each load from a packet.
const (
	cellAddr = 0 // the source address: one cell, or four
	cellPort = 4
	cellHash = 5 // of both, where it chooses the worker
)

// route is a pair with its slot's index at the time the program was built.
type route struct {
	src   netip.AddrPort
	index int
}

// plan is what the program of a group shall do, in the order in which it is looked at: routes, then what the share says,
// then the current slot and its others, which get as many each.
type plan struct {
	current int
	others  []int // the slots of the other workers
	routes  []route
	split   *division // nil: everybody goes to current and others
	hashed  bool      // source address and port choose among several, not chance
	seed    uint32    // of that hash
}

// division is a share with the index of the slot that gets it, and of the other workers' slots that have their part of it.
type division struct {
	index  int
	others []int
	share  Share
	seed   uint32 // of the hash
}

func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

// skipUnless is "go on if the accumulator is k, else skip n instructions".
func skipUnless(k uint32, n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(n), K: k}
}

func ret(index int) unix.SockFilter           { return stmt(unix.BPF_RET|unix.BPF_K, uint32(index)) }
func load(at uint32) unix.SockFilter          { return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, netOff+at) }
func store(cell int) unix.SockFilter          { return stmt(unix.BPF_ST, uint32(cell)) }
func recall(cell int) unix.SockFilter         { return stmt(unix.BPF_LD|unix.BPF_MEM, uint32(cell)) }
func jump(n int) unix.SockFilter              { return stmt(unix.BPF_JMP|unix.BPF_JA, uint32(n)) }
func alu(op uint16, k uint32) unix.SockFilter { return stmt(unix.BPF_ALU|op|unix.BPF_K, k) }

// build makes the classic-BPF program. The source is read from the IP header, whose version comes first, for a dual-stack
// socket sees both.
func (p *plan) build() []unix.SockFilter {
	if len(p.routes) == 0 && p.split == nil && (len(p.others) == 0 || !p.hashed) {
		return p.link([]unix.SockFilter{exit(p.current, p.others, toCurrent)})
	}
	v4, v6 := p.branch(true), p.branch(false)
	prog := []unix.SockFilter{
		stmt(unix.BPF_LD|unix.BPF_B|unix.BPF_ABS, netOff),
		alu(unix.BPF_RSH, 4),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: 4},
		jump(len(v4)), // of 32 bits, unlike a conditional one
	}
	return p.link(append(append(prog, v4...), v6...))
}

// Jumps to where one of several slots is chosen, which link places behind everything else. No jump of ours is as long.
const (
	toCurrent = 1<<31 + iota
	toPart
)

// exit is the end of a way through the program: the only slot of its side, or the jump to where one of several is chosen.
func exit(index int, others []int, to uint32) unix.SockFilter {
	if len(others) == 0 {
		return ret(index)
	}
	return stmt(unix.BPF_JMP|unix.BPF_JA, to)
}

// rest is the way of those who do not go to the candidate.
func (p *plan) rest() unix.SockFilter { return exit(p.current, p.others, toCurrent) }

// part is the way of those who do.
func (p *plan) part() unix.SockFilter { return exit(p.split.index, p.split.others, toPart) }

// several reports whether there is anything to choose on any side.
func (p *plan) several() bool {
	return len(p.others) > 0 || p.split != nil && len(p.split.others) > 0
}

// link adds the choices among several slots, once for all ways that lead to them, and makes the jumps lead there.
func (p *plan) link(prog []unix.SockFilter) []unix.SockFilter {
	prog = p.choice(prog, toCurrent, p.current, p.others)
	if p.split != nil {
		prog = p.choice(prog, toPart, p.split.index, p.split.others)
	}
	return prog
}

func (p *plan) choice(prog []unix.SockFilter, to uint32, index int, others []int) []unix.SockFilter {
	used, end := false, len(prog)
	for i := range prog {
		if prog[i].Code == unix.BPF_JMP|unix.BPF_JA && prog[i].K == to {
			prog[i].K, used = uint32(end-i-1), true
		}
	}
	if !used {
		return prog
	}
	dice := stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, adRandom)
	if p.hashed {
		dice = recall(cellHash)
	}
	list := append([]int{index}, others...)
	return append(append(prog, dice, alu(unix.BPF_MOD, uint32(len(list)))), pick(0, list)...)
}

// pick returns the index whose place in the list, counted from a number, the accumulator holds. Half of the list is always less
// than the 255 instructions that a conditional jump reaches: see MaxWorkers.
func pick(from int, list []int) []unix.SockFilter {
	if len(list) == 1 {
		return []unix.SockFilter{ret(list[0])}
	}
	half := len(list) / 2
	low, high := pick(from, list[:half]), pick(from+half, list[half:])
	prog := []unix.SockFilter{{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: uint8(len(low)), K: uint32(from + half)}}
	return append(append(prog, low...), high...)
}

// branch is the program for one version of IP. It ends with a return, or with a jump, in any case.
func (p *plan) branch(is4 bool) []unix.SockFilter {
	hashed := p.hashed && p.several()
	prog := loadSource(is4, len(p.routes) > 0 || hashed)
	if hashed {
		prog = append(append(prog, hash(is4, true, p.seed)...), store(cellHash))
	}
	for _, r := range p.routes {
		if r.src.Addr().Unmap().Is4() == is4 {
			prog = append(prog, r.clause()...)
		}
	}
	if p.split == nil {
		return append(prog, p.rest())
	}
	for _, n := range p.split.share.Never {
		prog = append(prog, within(n, is4, p.rest())...)
	}
	for _, n := range p.split.share.Always {
		prog = append(prog, within(n, is4, p.part())...)
	}
	return append(prog, p.portion(is4)...)
}

// loadSource puts the source's address into the cells, and its port if that matters. The length of an IPv4 header is its low
// nibble times four (MSH). Extension headers of IPv6 would move the port: our own probes have none.
func loadSource(is4, port bool) []unix.SockFilter {
	if is4 {
		prog := []unix.SockFilter{load(12), store(cellAddr)}
		if port {
			prog = append(prog, stmt(unix.BPF_LDX|unix.BPF_B|unix.BPF_MSH, netOff),
				stmt(unix.BPF_LD|unix.BPF_H|unix.BPF_IND, netOff), store(cellPort))
		}
		return prog
	}
	var prog []unix.SockFilter
	for i := range 4 {
		prog = append(prog, load(uint32(8+4*i)), store(cellAddr+i))
	}
	if port {
		prog = append(prog, stmt(unix.BPF_LD|unix.BPF_H|unix.BPF_ABS, netOff+40), store(cellPort))
	}
	return prog
}

// words are an address as the cells hold it.
func words(a netip.Addr) []uint32 {
	b := a.Unmap().AsSlice()
	var out []uint32
	for ; len(b) > 0; b = b[4:] {
		out = append(out, binary.BigEndian.Uint32(b))
	}
	return out
}

// clause matches source address and port.
func (r route) clause() []unix.SockFilter {
	addr := words(r.src.Addr())
	var prog []unix.SockFilter
	for i, w := range addr {
		prog = append(prog, recall(cellAddr+i), skipUnless(w, 2*(len(addr)-1-i)+3))
	}
	return append(prog, recall(cellPort), skipUnless(uint32(r.src.Port()), 1), ret(r.index))
}

// within matches the leading bits of the source address; it is empty for the other version of IP.
func within(n netip.Prefix, is4 bool, then unix.SockFilter) []unix.SockFilter {
	if n.Addr().Is4() != is4 {
		return nil
	}
	prog := []unix.SockFilter{then}
	addr := words(n.Addr())
	for i := (n.Bits() - 1) / 32; i >= 0 && n.Bits() > 0; i-- { // from the end, for each jump needs to know how far it is
		test := []unix.SockFilter{recall(cellAddr + i)}
		if rest := n.Bits() - 32*i; rest < 32 {
			test = append(test, alu(unix.BPF_AND, ^uint32(0)<<(32-rest)))
		}
		prog = append(append(test, skipUnless(addr[i], len(prog))), prog...)
	}
	return prog
}

// portion decides about everybody whom nothing before has named.
func (p *plan) portion(is4 bool) []unix.SockFilter {
	limit := p.split.share.threshold()
	switch {
	case limit == 0:
		return []unix.SockFilter{p.rest()}
	case limit >= 1<<32:
		return []unix.SockFilter{p.part()}
	}
	dice := []unix.SockFilter{stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, adRandom)}
	if p.split.share.Sticky {
		dice = hash(is4, false, p.split.seed)
	}
	return append(dice, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 1, K: uint32(limit)},
		p.part(), p.rest())
}

// hash mixes the address's words, and the port where that is asked for, into 32 bits that look like chance: the finalizer of
// MurmurHash3 after each word. Multiplying alone would leave neighbours side by side.
func hash(is4, port bool, seed uint32) []unix.SockFilter {
	cells := []int{cellAddr}
	if !is4 {
		cells = []int{cellAddr, cellAddr + 1, cellAddr + 2, cellAddr + 3}
	}
	if port {
		cells = append(cells, cellPort)
	}
	fold := func(shift uint32) []unix.SockFilter { // A ^= A >> shift
		return []unix.SockFilter{stmt(unix.BPF_MISC|unix.BPF_TAX, 0), alu(unix.BPF_RSH, shift), stmt(unix.BPF_ALU|unix.BPF_XOR|unix.BPF_X, 0)}
	}
	prog := []unix.SockFilter{stmt(unix.BPF_LD|unix.BPF_IMM, seed)}
	for _, cell := range cells {
		prog = append(prog, stmt(unix.BPF_LDX|unix.BPF_MEM, uint32(cell)), stmt(unix.BPF_ALU|unix.BPF_XOR|unix.BPF_X, 0))
		prog = append(append(prog, fold(16)...), alu(unix.BPF_MUL, 0x85ebca6b))
		prog = append(append(prog, fold(13)...), alu(unix.BPF_MUL, 0xc2b2ae35))
		prog = append(prog, fold(16)...)
	}
	return prog
}

// attachProgram replaces the program of fd's group (Linux 4.5 TCP and UDP). It is atomic and needs no privilege.
func attachProgram(fd int, prog []unix.SockFilter) error {
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &p)
	switch {
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("cannot attach a steering program of %d instructions: %w; name fewer networks, or raise the sysctl net.core.optmem_max", len(prog), err)
	case err != nil:
		return fmt.Errorf("cannot attach the steering program: %w", err)
	}
	return nil
}
