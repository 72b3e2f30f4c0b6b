package handoff

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// option is one that a program may set.
type option struct {
	name                    string
	kind                    string
	level, option, readback int
	value                   string
}

func tcpOption(name string, level, number int, value string) option {
	return option{name, "tcp4", level, number, number, value}
}

// surviving are options that a program sets before bind and finds again on what it was given.
var surviving = []option{
	tcpOption("SO_BROADCAST", unix.SOL_SOCKET, unix.SO_BROADCAST, "1"),
	tcpOption("SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, "70000"),
	tcpOption("SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, "70000"),
	{"SO_SNDBUFFORCE", "tcp4", unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, "90000"},
	{"SO_RCVBUFFORCE", "tcp4", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, "90000"},
	tcpOption("SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, "3"),
	tcpOption("SO_RCVLOWAT", unix.SOL_SOCKET, unix.SO_RCVLOWAT, "7"),
	tcpOption("SO_TIMESTAMP", unix.SOL_SOCKET, unix.SO_TIMESTAMP, "1"),
	tcpOption("SO_TIMESTAMPNS", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, "1"),
	tcpOption("SO_TIMESTAMPING", unix.SOL_SOCKET, unix.SO_TIMESTAMPING, "16"),
	tcpOption("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, "9"),
	tcpOption("SO_RXQ_OVFL", unix.SOL_SOCKET, unix.SO_RXQ_OVFL, "1"),
	tcpOption("SO_BUSY_POLL", unix.SOL_SOCKET, unix.SO_BUSY_POLL, "50"),
	tcpOption("TCP_MAXSEG", unix.IPPROTO_TCP, unix.TCP_MAXSEG, "1000"),
	tcpOption("TCP_SYNCNT", unix.IPPROTO_TCP, unix.TCP_SYNCNT, "3"),
	tcpOption("TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, "7"),
	tcpOption("TCP_WINDOW_CLAMP", unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, "40000"),
	tcpOption("TCP_CONGESTION", unix.IPPROTO_TCP, unix.TCP_CONGESTION, ":reno"),
	tcpOption("TCP_FASTOPEN", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, "17"),
	tcpOption("TCP_SAVE_SYN", unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, "1"),
	tcpOption("TCP_FASTOPEN_NO_COOKIE", unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE, "1"),
	tcpOption("IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, "16"),
	tcpOption("IP_TTL", unix.IPPROTO_IP, unix.IP_TTL, "5"),
	tcpOption("IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND, "1"),
	tcpOption("IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT, "1"),
	tcpOption("IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, "2"),
	{"IPV6_V6ONLY", "tcp6", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, unix.IPV6_V6ONLY, "1"},
	{"IPV6_UNICAST_HOPS", "tcp6", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_UNICAST_HOPS, "9"},
	{"IPV6_TCLASS", "tcp6", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, unix.IPV6_TCLASS, "16"},
	{"IP_PKTINFO", "udp4", unix.IPPROTO_IP, unix.IP_PKTINFO, unix.IP_PKTINFO, "1"},
	{"IPV6_RECVPKTINFO", "udp6", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, unix.IPV6_RECVPKTINFO, "1"},
	{"UDP_GRO", "udp4", unix.IPPROTO_UDP, unix.UDP_GRO, unix.UDP_GRO, "1"},
	{"TCP_NODELAY", "tcp4", unix.IPPROTO_TCP, unix.TCP_NODELAY, unix.TCP_NODELAY, "1"},
}

// lost are options that are not looked at, for programs set them on every connection: before bind they are in vain. That is
// documented; this pins it.
var lost = []option{
	tcpOption("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, "1"),
	tcpOption("SO_LINGER", unix.SOL_SOCKET, unix.SO_LINGER, ":\x01\x00\x00\x00\x07\x00\x00\x00"),
	tcpOption("TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, "33"),
	tcpOption("TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, "33"),
	tcpOption("TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, "3"),
	tcpOption("TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, "3300"),
}

func (o option) address(port string) string {
	if o.kind[3] == '6' {
		return "[::1]:" + port
	}
	return "127.0.0.1:" + port
}

// listen binds, and listens where that is known.
func (o option) listen(p *program, port string) {
	p.OK("bind a %s", o.address(port))
	if o.kind[:3] == "tcp" {
		p.OK("listen a 5")
	}
}

func TestOptionsSurvive(t *testing.T) {
	for _, o := range surviving {
		t.Run(o.name, func(t *testing.T) {
			port := vacantPort(t)
			s, _ := learning(t, "")
			for gen := 1; gen <= 2; gen++ { // the second one gets a slot that is made for it
				p := run(t, s, gen)
				p.OK("socket a %s", o.kind)
				byDefault := p.Do("get a %d %d", o.level, o.readback)
				if reply := p.Do("set a %d %d %s", o.level, o.option, o.value); reply != "ok" {
					t.Skipf("SKIPPED: this kernel does not take it: %s", reply)
				}
				native := p.Do("get a %d %d", o.level, o.readback)
				if native == byDefault {
					t.Errorf("%s is the default: it shows nothing", native)
				}
				o.listen(p, port)
				p.Want(native, "get a %d %d", o.level, o.readback)
				steer(t, s, gen)
			}
			if st := s.Status(); len(st) != 1 || !st[0].Learned {
				t.Errorf("not learned: %+v", st)
			}
		})
	}
}

func TestOptionsThatAreLost(t *testing.T) {
	for _, o := range lost {
		t.Run(o.name, func(t *testing.T) {
			s, _ := learning(t, "")
			p := run(t, s, 1)
			p.OK("socket a %s", o.kind)
			byDefault := p.Do("get a %d %d", o.level, o.readback)
			p.OK("set a %d %d %s", o.level, o.option, o.value)
			native := p.Do("get a %d %d", o.level, o.readback)
			o.listen(p, vacantPort(t))
			p.Want(byDefault, "get a %d %d", o.level, o.readback)
			p.OK("set a %d %d %s", o.level, o.option, o.value)
			p.Want(native, "get a %d %d", o.level, o.readback)
		})
	}
}

// TestNoDelayIsAssumed: it is not seen whether a program set it, so it is on; what the program says after listen holds, also
// when another of its processes listens.
func TestNoDelayIsAssumed(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	p := run(t, s, 1)
	p.OK("socket a tcp4\nbind a %s\nlisten a 5", address)
	p.Want("1", "get a %d %d", unix.IPPROTO_TCP, unix.TCP_NODELAY)
	p.OK("set a %d %d 0", unix.IPPROTO_TCP, unix.TCP_NODELAY)
	p.OK("socket b tcp4\nbind b %s\nlisten b 5", address)
	p.Want("0", "get b %d %d", unix.IPPROTO_TCP, unix.TCP_NODELAY)
}

// TestLastOptionCounts: each generation has what it set itself, before bind or after, and what it set last.
func TestLastOptionCounts(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	for gen := 1; gen <= 2; gen++ {
		p := run(t, s, gen)
		set := func(option, value int) { p.OK("set a %d %d %d", unix.IPPROTO_TCP, option, value) }
		want := func(option, value int) { p.Want(fmt.Sprint(value), "get a %d %d", unix.IPPROTO_TCP, option) }
		p.OK("socket a tcp4")
		set(unix.TCP_SYNCNT, 3)
		set(unix.TCP_SYNCNT, 10*gen)
		p.OK("bind a %s", address)
		want(unix.TCP_SYNCNT, 10*gen)
		set(unix.TCP_SYNCNT, 10*gen+1)
		set(unix.TCP_MAXSEG, 1000*gen)
		p.OK("listen a 5")
		want(unix.TCP_SYNCNT, 10*gen+1)
		want(unix.TCP_MAXSEG, 1000*gen)
		steer(t, s, gen)
	}
}

// TestGroupOptionsAreOurs: who gets a connection is decided here; the program is told that it has its way.
func TestGroupOptionsAreOurs(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	one, two := run(t, s, 1), (*program)(nil)
	reuse := fmt.Sprintf("set a %d %d ", unix.SOL_SOCKET, unix.SO_REUSEPORT)
	one.OK("socket a tcp4\n%s1\nbind a %s\n%s0\nlisten a 5\n%s0\nserve a 1", reuse, address, reuse, reuse)
	one.Want("1", "get a %d %d", unix.SOL_SOCKET, unix.SO_REUSEPORT)
	steer(t, s, 1)
	two = run(t, s, 2)
	two.listens("a", "tcp4", address)
	for _, option := range []int{unix.SO_ATTACH_REUSEPORT_CBPF, unix.SO_ATTACH_REUSEPORT_EBPF, unix.SO_DETACH_REUSEPORT_BPF, unix.SO_INCOMING_CPU} {
		two.OK("set a %d %d 0", unix.SOL_SOCKET, option)
	}
	for range 20 {
		wantGen(t, "tcp", address, 1)
	}
}

// TestBacklogIsOurs: a queue of one would refuse clients during a swap.
func TestBacklogIsOurs(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	p := run(t, s, 1)
	p.OK("socket a tcp4\nbind a %s\nlisten a 1\nlisten a 1", address)
	for range 20 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	until(t, "all of them wait", func() bool { return s.queued(t, "tcp://"+address) == 20 })
}

// TestListenAfterShutdown: a slot that a program has shut listens again when the program does.
func TestListenAfterShutdown(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	one := run(t, s, 1)
	one.listens("a", "tcp4", address)
	steer(t, s, 1)
	two := run(t, s, 2)
	two.OK("socket a tcp4\nbind a %s\nlisten a 5\nshutdown a\nlisten a 5\nserve a 2", address)
	wantGen(t, "tcp", address, 1)
	steer(t, s, 2)
	for range 5 {
		wantGen(t, "tcp", address, 2)
	}
	two.OK("shutdown a\nlisten a 5")
	early := later(address)
	two.OK("serve a 2")
	wantAnswer(t, early, 2)
}

// TestNotesAreBounded: a program that opens sockets for ever costs a bounded memory.
func TestNotesAreBounded(t *testing.T) {
	s, _ := learning(t, "")
	l := lease(t, s, 1)
	for inode := uint64(1); inode <= 10_000; inode++ {
		for option := range 100 {
			if l.set1(setOf(inode, unix.IPPROTO_IP, option)); option > 2 && inode != 10_000 {
				break
			}
		}
	}
	n := &l.notes
	if len(n.options) != maxNoted || len(n.order) != maxNoted || len(n.bound) > maxNoted {
		t.Errorf("%d options, %d bound, %d in order", len(n.options), len(n.bound), len(n.order))
	}
	if got := len(n.options[10_000]); got != maxOptions {
		t.Errorf("%d options of one socket", got)
	}
	if n.options[10_000-maxNoted] != nil || n.options[10_001-maxNoted] == nil {
		t.Error("it was not the oldest that made room")
	}
}
