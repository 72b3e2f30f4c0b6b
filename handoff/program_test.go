package handoff

import (
	"encoding/binary"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// machine runs a classic-BPF program as the kernel does, for the instructions that programs here are made of. Anything else, a
// jump out of the program, or more steps than it has instructions, is a fault.
type machine struct {
	a, x uint32
	mem  [16]uint32
	fail string
}

func (m *machine) run(prog []unix.SockFilter, packet []byte, random uint32) uint32 {
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		switch in.Code & 0x07 {
		case unix.BPF_RET:
			return in.K
		case unix.BPF_LD, unix.BPF_LDX:
			m.load(in, packet, random)
		case unix.BPF_ST:
			m.mem[in.K] = m.a
		case unix.BPF_ALU:
			m.compute(in)
		case unix.BPF_MISC:
			m.x = m.a // TAX is the only one
		case unix.BPF_JMP:
			pc += m.jump(in)
		default:
			m.fail = "unknown class"
		}
		if m.fail != "" {
			return 0
		}
	}
	m.fail = "it ran off the end"
	return 0
}

func (m *machine) load(in unix.SockFilter, packet []byte, random uint32) {
	at := int(in.K - netOff)
	switch in.Code {
	case unix.BPF_LD | unix.BPF_IMM:
		m.a = in.K
	case unix.BPF_LD | unix.BPF_MEM:
		m.a = m.mem[in.K]
	case unix.BPF_LDX | unix.BPF_MEM:
		m.x = m.mem[in.K]
	case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
		if in.K == adRandom {
			m.a = random
		} else {
			m.a = binary.BigEndian.Uint32(packet[at:])
		}
	case unix.BPF_LD | unix.BPF_H | unix.BPF_ABS:
		m.a = uint32(binary.BigEndian.Uint16(packet[at:]))
	case unix.BPF_LD | unix.BPF_H | unix.BPF_IND:
		m.a = uint32(binary.BigEndian.Uint16(packet[at+int(m.x):]))
	case unix.BPF_LD | unix.BPF_B | unix.BPF_ABS:
		m.a = uint32(packet[at])
	case unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH:
		m.x = uint32(packet[at]&0xf) * 4
	default:
		m.fail = "unknown load"
	}
}

func (m *machine) compute(in unix.SockFilter) {
	switch in.Code &^ unix.BPF_ALU {
	case unix.BPF_RSH:
		m.a >>= in.K
	case unix.BPF_AND:
		m.a &= in.K
	case unix.BPF_MUL:
		m.a *= in.K
	case unix.BPF_MOD:
		m.a %= in.K
	case unix.BPF_XOR | unix.BPF_X:
		m.a ^= m.x
	default:
		m.fail = "unknown operation"
	}
}

func (m *machine) jump(in unix.SockFilter) int {
	taken := false
	switch in.Code &^ unix.BPF_JMP {
	case unix.BPF_JA:
		return int(in.K)
	case unix.BPF_JEQ:
		taken = m.a == in.K
	case unix.BPF_JGE:
		taken = m.a >= in.K
	default:
		m.fail = "unknown jump"
	}
	if taken {
		return int(in.Jt)
	}
	return int(in.Jf)
}

// decide is what a program shall do, said in plain Go: dice is the chance of the share, and of the choice among workers.
func (p *plan) decide(src netip.AddrPort, dice uint32) int {
	for _, r := range p.routes {
		if r.src == src {
			return r.index
		}
	}
	list := append([]int{p.current}, p.others...)
	if p.shared(src, dice) {
		list = append([]int{p.split.index}, p.split.others...)
	}
	if p.hashed {
		dice = mixInGo(hashInGo(src.Addr(), p.seed), uint32(src.Port()))
	}
	return list[dice%uint32(len(list))]
}

// shared tells whether a client goes to the candidate.
func (p *plan) shared(src netip.AddrPort, dice uint32) bool {
	if p.split == nil {
		return false
	}
	sh := p.split.share
	for _, n := range sh.Never {
		if n.Contains(src.Addr()) {
			return false
		}
	}
	for _, n := range sh.Always {
		if n.Contains(src.Addr()) {
			return true
		}
	}
	if sh.Sticky {
		dice = hashInGo(src.Addr(), p.split.seed)
	}
	return float64(dice)/(1<<32) < math.Round(sh.Portion*(1<<32))/(1<<32)
}

func hashInGo(a netip.Addr, x uint32) uint32 {
	for b := a.AsSlice(); len(b) > 0; b = b[4:] {
		x = mixInGo(x, binary.BigEndian.Uint32(b))
	}
	return x
}

func mixInGo(x, word uint32) uint32 {
	x ^= word
	x ^= x >> 16
	x *= 0x85ebca6b
	x ^= x >> 13
	x *= 0xc2b2ae35
	return x ^ x>>16
}

// packetFrom is the head of a packet as a group's program sees it; IPv4 has options words of options.
func packetFrom(src netip.AddrPort, options int) []byte {
	a := src.Addr()
	if a.Is4() {
		b := make([]byte, 20+4*options+8)
		b[0] = 0x45 + byte(options)
		copy(b[12:], a.AsSlice())
		binary.BigEndian.PutUint16(b[20+4*options:], src.Port())
		return b
	}
	b := make([]byte, 48)
	b[0] = 0x6f
	copy(b[8:], a.AsSlice())
	binary.BigEndian.PutUint16(b[40:], src.Port())
	return b
}

// randomSource is an address out of few, so that plans and packets meet.
func randomSource(rng *rand.Rand) netip.AddrPort {
	if rng.IntN(2) == 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(10 + rng.IntN(2)), byte(rng.IntN(3)) << 6, 0, byte(rng.IntN(4))}), uint16(rng.IntN(3)))
	}
	a := [16]byte{0: 0xfd, 3: byte(rng.IntN(2)), 7: byte(rng.IntN(2)), 11: byte(rng.IntN(3)) << 6, 15: byte(rng.IntN(4))}
	return netip.AddrPortFrom(netip.AddrFrom16(a), uint16(rng.IntN(3)))
}

func randomNetworks(rng *rand.Rand, most int, source func(*rand.Rand) netip.AddrPort) []netip.Prefix {
	var out []netip.Prefix
	for range rng.IntN(most + 1) {
		a := source(rng).Addr()
		p, _ := a.Prefix(a.BitLen() - rng.IntN(a.BitLen()*3/4))
		if rng.IntN(20) == 0 {
			p, _ = a.Prefix(rng.IntN(3))
		}
		out = append(out, p)
	}
	return out
}

func randomPlan(rng *rand.Rand, source func(*rand.Rand) netip.AddrPort) *plan {
	p := &plan{current: rng.IntN(9), hashed: rng.IntN(2) == 0, seed: rng.Uint32()}
	for range rng.IntN(3) * rng.IntN(4) {
		p.routes = append(p.routes, route{src: source(rng), index: 10 + rng.IntN(9)})
	}
	workers := func(from int) (list []int) {
		for i := range rng.IntN(2) * rng.IntN(MaxWorkers) {
			list = append(list, from+i)
		}
		return list
	}
	p.others = workers(100)
	if rng.IntN(6) > 0 {
		p.split = &division{index: 20 + rng.IntN(9), others: workers(200), seed: rng.Uint32(), share: Share{Sticky: rng.IntN(2) == 0,
			Portion: []float64{0, 1, rng.Float64(), rng.Float64(), 1.0 / (1 << 32)}[rng.IntN(5)],
			Always:  randomNetworks(rng, 4, source), Never: randomNetworks(rng, 4, source)}}
	}
	return p
}

// agree runs a program for many packets, and compares with decide.
func agree(t *testing.T, rng *rand.Rand) {
	p := randomPlan(rng, randomSource)
	prog := p.build()
	for range 40 {
		src, random := randomSource(rng), rng.Uint32()
		if p.split != nil && rng.IntN(4) == 0 { // around the limit
			random = uint32(p.split.share.threshold()) - uint32(rng.IntN(2))
		}
		var m machine
		got := m.run(prog, packetFrom(src, rng.IntN(3)), random)
		if want := p.decide(src, random); m.fail != "" || int(got) != want {
			t.Fatalf("%+v, share %+v: from %v, random %#x: program says %d (%s), want %d", p, p.split, src, random, got, m.fail, want)
		}
	}
}

func TestProgramDoesWhatThePlanSays(t *testing.T) {
	for seed := range uint64(3000) {
		agree(t, rand.New(rand.NewPCG(seed, 1)))
	}
}

func FuzzProgram(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		agree(t, rand.New(rand.NewPCG(a, b)))
		if a%16 == 0 {
			newArena(t).agree(t, rand.New(rand.NewPCG(a, b)))
		}
	})
}

// TestProgramInTheKernel has the kernel itself run programs, for real packets.
func TestProgramInTheKernel(t *testing.T) {
	arena := newArena(t)
	for seed := range uint64(300) {
		arena.agree(t, rand.New(rand.NewPCG(seed, 2)))
	}
}

// arena lets the kernel run a group's program as the filter of a socket: how much of a datagram such a filter lets pass is what it has returned.
// The kernel translates both kinds alike.
type arena struct {
	fd      int
	port    int
	clients map[netip.AddrPort]int
}

// filterBase is added to what the program returns, for the eight bytes of the UDP header always pass.
const filterBase = 100

func newArena(t *testing.T) *arena {
	t.Helper()
	socket := func(family int) int {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	a := &arena{fd: socket(unix.AF_INET6), clients: map[netip.AddrPort]int{}}
	err := unix.SetsockoptInt(a.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	if err == nil {
		err = unix.Bind(a.fd, &unix.SockaddrInet6{})
	}
	if err == nil {
		err = unix.SetsockoptTimeval(a.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	}
	if err == nil {
		a.port, err = portOf(a.fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range []string{"127.0.0.1", "127.0.0.2", "127.64.0.1", "127.128.0.1", "127.128.0.3", "::1"} {
		addr := netip.MustParseAddr(ip)
		for range 2 {
			family, here := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(addr.AsSlice()[:4])})
			if addr.Is6() {
				family, here = unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16()}
			}
			fd := socket(family)
			if err := unix.Bind(fd, here); err != nil {
				t.Fatal(err)
			}
			port, err := portOf(fd)
			if err != nil {
				t.Fatal(err)
			}
			a.clients[netip.AddrPortFrom(addr, uint16(port))] = fd
		}
	}
	return a
}

// source is one of the clients.
func (a *arena) source(rng *rand.Rand) netip.AddrPort {
	list := slices.SortedFunc(maps.Keys(a.clients), netip.AddrPort.Compare)
	return list[rng.IntN(len(list))]
}

// agree compares what the kernel does with decide; of what is left to chance, it is one of the possible ways.
func (a *arena) agree(t *testing.T, rng *rand.Rand) {
	t.Helper()
	p := randomPlan(rng, a.source)
	prog := p.build()
	for i := range prog {
		if prog[i].Code == unix.BPF_RET|unix.BPF_K {
			prog[i].K += filterBase
		}
	}
	if err := unix.SetsockoptSockFprog(a.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		src := a.source(rng)
		if got := a.ask(t, src); !p.possible(src, got) {
			t.Fatalf("%+v, share %+v: from %v the kernel's program says %d", p, p.split, src, got)
		}
	}
}

func (p *plan) possible(src netip.AddrPort, got int) bool {
	for n := range uint32(2 * MaxWorkers) { // every remainder by so few workers, on both sides of the share's limit
		if p.decide(src, n) == got || p.decide(src, math.MaxUint32-n) == got {
			return true
		}
	}
	return false
}

// ask sends a datagram and tells what the program has returned.
func (a *arena) ask(t *testing.T, src netip.AddrPort) int {
	t.Helper()
	there := unix.Sockaddr(&unix.SockaddrInet4{Port: a.port, Addr: [4]byte{127, 0, 0, 1}})
	if src.Addr().Is6() {
		there = &unix.SockaddrInet6{Port: a.port, Addr: netip.IPv6Loopback().As16()}
	}
	if err := unix.Sendto(a.clients[src], make([]byte, 4*filterBase), 0, there); err != nil {
		t.Fatal(err)
	}
	n, err := unix.Read(a.fd, make([]byte, 5*filterBase))
	if err != nil {
		t.Fatal(err)
	}
	return n + 8 - filterBase
}

// TestLargestProgram: what the limits allow fits, and the kernel takes it.
func TestLargestProgram(t *testing.T) {
	p := plan{split: &division{share: Share{Portion: 0.5, Sticky: true}}}
	for i := range maxPairs {
		p.routes = append(p.routes, route{src: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i))})
	}
	for range MaxNetworks {
		n, _ := netip.IPv6Loopback().Prefix(127)
		p.split.share.Never = append(p.split.share.Never, n)
	}
	prog := p.build()
	t.Logf("%d instructions", len(prog))
	if len(prog) > unix.BPF_MAXINSNS {
		t.Fatalf("%d instructions are too many", len(prog))
	}
	s := open(t, "tcp://:0", Config{Steer: true})
	if err := attachProgram(s.held[0].current.fd, prog); err != nil {
		t.Error(err)
	}
}

// TestHashIsFair: neighbouring addresses are divided evenly, and another seed divides them in another way.
func TestHashIsFair(t *testing.T) {
	for _, start := range []string{"10.0.0.0", "2001:db8::"} {
		const clients, portion = 20000, 0.05
		below := func(seed uint32) map[netip.Addr]bool {
			in, a := map[netip.Addr]bool{}, netip.MustParseAddr(start)
			for range clients {
				if float64(hashInGo(a, seed)) < portion*(1<<32) {
					in[a] = true
				}
				a = a.Next()
			}
			return in
		}
		one, two := below(1), below(2)
		both := 0
		for a := range one {
			if two[a] {
				both++
			}
		}
		within99(t, start+", first seed", len(one), clients, portion)
		within99(t, start+", second seed", len(two), clients, portion)
		within99(t, start+", in both", both, clients, portion*portion)
	}
}

// within99 wants a count inside the interval in which 99.9 % of all counts of so many throws lie.
func within99(t *testing.T, what string, got, n int, p float64) {
	t.Helper()
	mean, spread := float64(n)*p, 3.29*math.Sqrt(float64(n)*p*(1-p))+1
	if d := math.Abs(float64(got) - mean); d > spread {
		t.Errorf("%s: %d of %d, want %.0f within %.0f", what, got, n, mean, spread)
	}
}
