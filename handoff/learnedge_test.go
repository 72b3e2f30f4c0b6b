package handoff

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/puppet"
	"github.com/hotswap-init/entrypoint/handoff/transparent"
)

func setOf(inode uint64, level, name int) *transparent.Call {
	return &transparent.Call{Op: transparent.Set, Inode: inode, Protocol: "TCP", Level: level, Name: name, Value: []byte{1, 0, 0, 0}}
}

// TestAnyPortPasses: a port that the kernel chooses is the program's own business.
func TestAnyPortPasses(t *testing.T) {
	s, _ := learning(t, "")
	p := run(t, s, 1)
	p.listens("a", "tcp4", "127.0.0.1:0")
	wantGen(t, "tcp", p.Do("name a"), 1)
	if st := s.Status(); len(st) != 0 {
		t.Errorf("held: %+v", st)
	}
}

// TestFixedPortClient: a client that binds before it connects is none of ours: its peer sees it close, and the port is free.
func TestFixedPortClient(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	own := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	p := run(t, s, 1)
	for range 3 {
		p.OK("socket a tcp4\nset a %d %d 1\nbind a %s\nconnect a %s", unix.SOL_SOCKET, unix.SO_REUSEADDR, own, server.Addr())
		peer, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if peer.RemoteAddr().String() != own {
			t.Errorf("it came from %v", peer.RemoteAddr())
		}
		peer.SetDeadline(time.Now().Add(20 * time.Second))
		p.OK("close a")
		if n, err := peer.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("the peer reads %d, %v", n, err)
		}
		_ = peer.(*net.TCPConn).SetLinger(0)
		peer.Close()
		until(t, "its end is gone", func() bool { // or the next one could not connect from there
			left := 0
			at, _ := netip.ParseAddrPort(own)
			err := procTCP(unix.AF_INET, int(at.Port()), 0xfff, func(*tcpConn) { left++ })
			return err == nil && left == 0
		})
	}
	if st := s.Status(); len(st) != 0 {
		t.Errorf("held: %+v", st)
	}
	p.listens("b", "tcp4", own)
	wantGen(t, "tcp", own, 1)
}

// TestLowPort: a program without any privilege gets a port below 1024, for it is we who open it.
func TestLowPort(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root")
	}
	address := "127.0.0.1:1019"
	if l, err := net.Listen("tcp", address); err != nil {
		t.Skipf("SKIPPED: %v", err)
	} else {
		l.Close()
	}
	s, _ := learning(t, "")
	for gen := 1; gen <= 2; gen++ {
		run(t, s, gen, puppet.As(65534, 65534)).listens("a", "tcp4", address)
		steer(t, s, gen)
		wantGen(t, "tcp", address, gen)
	}
}

// echoed is who answers a datagram.
func echoed(t *testing.T, address string) string {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(c, "?")
	b := make([]byte, 16)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestLearnUDP(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	begin := func(gen int) *program {
		p := run(t, s, gen)
		p.OK("socket a udp4\nbind a %s\nserve a %d", address, gen)
		if got := p.Progress().Datagrams; got != 1 {
			t.Errorf("generation %d has bound %d", gen, got)
		}
		return p
	}
	one := begin(1)
	steer(t, s, 1)
	begin(2)
	for range 20 {
		if got := echoed(t, address); got != "1" {
			t.Fatalf("before the switch %s answers", got)
		}
	}
	steer(t, s, 2)
	for range 20 {
		if got := echoed(t, address); got != "2" {
			t.Fatalf("after the switch %s answers", got)
		}
	}
	one.leave(t)
	if got := echoed(t, address); got != "2" || s.named(t, "udp://"+address).Mode != modeSteered {
		t.Errorf("at the end %s answers: %+v", got, s.Status())
	}
}

// TestOwnBusiness: addresses that cannot be held, or mean something else, stay the program's, and are noted.
func TestOwnBusiness(t *testing.T) {
	device := fmt.Sprintf("set a %d %d :lo", unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	for _, c := range []struct {
		name, commands, address, why string
		exclusive                    bool
	}{
		{"multicast", "socket a udp4\nbind a 224.0.0.251:PORT", "udp://224.0.0.251:", "multicast", false},
		{"device", "socket a tcp4\n" + device + "\nbind a 127.0.0.1:PORT\nlisten a 5", "tcp://127.0.0.1:", "network device", true},
		{"polled", "socket a tcp4\nepoll a\nbind a 127.0.0.1:PORT\nlisten a 5", "tcp://127.0.0.1:", "epoll", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := vacantPort(t)
			s, j := learning(t, "")
			run(t, s, 1).OK("%s", strings.ReplaceAll(c.commands, "PORT", port))
			n := s.Natives()
			if len(n) != 1 || n[0].Address != c.address+port || !strings.Contains(n[0].Why, c.why) || n[0].Exclusive != c.exclusive {
				t.Errorf("noted %+v", n)
			}
			if len(s.Status()) != 0 || !j.has(c.why) {
				t.Errorf("held %+v, said %s", s.Status(), j.all())
			}
		})
	}
}

// TestDeclaredAndBound: an address in the configuration that the program binds all the same is one address.
func TestDeclaredAndBound(t *testing.T) {
	port := vacantPort(t)
	address := "127.0.0.1:" + port
	s, j := learning(t, "web=tcp://"+address)
	for gen := 1; gen <= 2; gen++ {
		p := run(t, s, gen)
		p.listens("a", "tcp4", address)
		steer(t, s, gen)
		wantGen(t, "tcp", address, gen)
	}
	if st := s.Status(); len(st) != 1 || st[0].Learned || st[0].Name != "web" {
		t.Errorf("status %+v\n%s", st, j.all())
	}
}

// TestReHomed: what is declared for both families and bound for one moves to where the program wants it.
func TestReHomed(t *testing.T) {
	port := vacantPort(t)
	s, j := learning(t, "tcp://[::]:"+port)
	for gen := 1; gen <= 2; gen++ {
		p := run(t, s, gen)
		p.listens("a", "tcp4", "0.0.0.0:"+port)
		steer(t, s, gen)
		wantGen(t, "tcp", "127.0.0.1:"+port, gen)
	}
	if st := s.Status(); len(st) != 1 || st[0].Address != "tcp://0.0.0.0:"+port || !j.has("is held in place of") {
		t.Errorf("status %+v\n%s", st, j.all())
	}
}

// TestOverlap: a new generation that wants the port for another family cannot stand beside the old one, whatever it sets.
func TestOverlap(t *testing.T) {
	for _, reuse := range []int{0, 1} {
		port := vacantPort(t)
		s, j := learning(t, "")
		one := run(t, s, 1)
		one.listens("a", "tcp6", "[::]:"+port)
		steer(t, s, 1)
		two := run(t, s, 2)
		two.OK("socket a tcp4\nset a %d %d %d", unix.SOL_SOCKET, unix.SO_REUSEPORT, reuse)
		two.Want("EADDRINUSE", "bind a 0.0.0.0:%s", port)
		if !j.has("one socket cannot serve both") {
			t.Errorf("SO_REUSEPORT %d: said %s", reuse, j.all())
		}
		wantGen(t, "tcp", "127.0.0.1:"+port, 1)
		one.leave(t)
		two.listens("b", "tcp4", "0.0.0.0:"+port)
		steer(t, s, 2)
		wantGen(t, "tcp", "127.0.0.1:"+port, 2)
	}
}

// shortLived makes unclaimed addresses expire soon.
func shortLived(s *Set, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unclaimedAtLeast, s.unclaimedAtMost = d, d
}

// TestUnclaimed: an address that the next generation does not want is given up after its time, not before, and not while nobody
// serves at all.
func TestUnclaimed(t *testing.T) {
	const life = 300 * time.Millisecond
	kept, given := "127.0.0.1:"+vacantPort(t), "127.0.0.1:"+vacantPort(t)
	s, j := learning(t, "")
	if s.unclaimedAtLeast != time.Minute || s.unclaimedAtMost != 10*time.Minute {
		t.Errorf("by default between %v and %v", s.unclaimedAtLeast, s.unclaimedAtMost)
	}
	shortLived(s, life)
	one := run(t, s, 1)
	one.listens("a", "tcp4", kept)
	one.listens("b", "tcp4", given)
	steer(t, s, 1)
	two := run(t, s, 2)
	two.listens("a", "tcp4", kept)
	steer(t, s, 2)
	wantGen(t, "tcp", given, 1)
	began := time.Now()
	one.leave(t)
	wantRefused(t, given)
	if took := time.Since(began); took < life || !j.has("is given up") {
		t.Errorf("given up after %v, said %s", took, j.all())
	}
	wantGen(t, "tcp", kept, 2)
}

func TestUnclaimedWhileNobodyServes(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	shortLived(s, time.Millisecond)
	one := run(t, s, 1)
	one.listens("a", "tcp4", address)
	steer(t, s, 1)
	one.leave(t)
	h := s.held[0]
	s.mu.Lock()
	first := h.expiry
	s.mu.Unlock()
	until(t, "the time was over once", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return h.expiry != nil && h.expiry != first })
	early := later(address)
	until(t, "the client waits", func() bool { return s.queued(t, "tcp://"+address) == 1 })
	two := run(t, s, 2)
	two.listens("a", "tcp4", address)
	wantAnswer(t, early, 2)
}

// TestCrashKeepsTheQueue: clients that came before a crash, and after it, are answered by the next generation.
func TestCrashKeepsTheQueue(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	one := run(t, s, 1)
	one.OK("socket a tcp4\nbind a %s\nlisten a 5", address) // and never accepts
	steer(t, s, 1)
	before := later(address)
	until(t, "the client waits", func() bool { return s.queued(t, "tcp://"+address) == 1 })
	one.Kill()
	one.leave(t)
	after := later(address)
	until(t, "both wait", func() bool { return s.queued(t, "tcp://"+address) == 2 })
	two := run(t, s, 2)
	two.listens("a", "tcp4", address)
	wantAnswer(t, before, 2)
	wantAnswer(t, after, 2)
	steer(t, s, 2)
	wantGen(t, "tcp", address, 2)
}

// TestLearnShared: one socket for all, because it cannot be steered or because generations never overlap.
func TestLearnShared(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"steering off": func(c *Config) { c.Steer = false },
		"exclusive":    func(c *Config) { c.Shared = true },
	} {
		t.Run(name, func(t *testing.T) {
			address, fresh := "127.0.0.1:"+vacantPort(t), "127.0.0.1:"+vacantPort(t)
			s, _ := learning(t, "", change)
			one := run(t, s, 1)
			one.listens("a", "tcp4", address)
			steer(t, s, 1)
			wantGen(t, "tcp", address, 1)
			one.leave(t)
			early := later(address)
			until(t, "the client waits", func() bool { return s.queued(t, "tcp://"+address) == 1 })
			two := run(t, s, 2)
			two.listens("a", "tcp4", address)
			wantAnswer(t, early, 2)
			steer(t, s, 2)
			if st := s.named(t, "tcp://"+address); st.Mode != modeShared || !st.Learned || st.Why == "" {
				t.Errorf("status %+v", st)
			}
			three := run(t, s, 3)
			three.listens("b", "tcp4", fresh)
			three.leave(t)
			wantRefused(t, fresh)
		})
	}
}
