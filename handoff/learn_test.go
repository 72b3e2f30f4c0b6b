package handoff

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLearnSwap is the life of a learned address: the first generation gets the traffic at once, the second one when it is
// steered to, and neither knows of it.
func TestLearnSwap(t *testing.T) {
	for _, c := range []struct{ kind, address, client string }{
		{"tcp4", "127.0.0.1:%s", "127.0.0.1:%s"},
		{"tcp4 nonblock", "0.0.0.0:%s", "127.0.0.1:%s"},
		{"tcp6", "[::1]:%s", "[::1]:%s"},
		{"tcp6", "[::]:%s", "127.0.0.1:%s"},
		{"tcp6", "[::ffff:127.0.0.1]:%s", "127.0.0.1:%s"}, // as Java does
		{"mptcp6", "[::]:%s", "[::1]:%s"},                 // as Go does
	} {
		t.Run(c.kind+" "+c.address, func(t *testing.T) {
			port := vacantPort(t)
			address, client := fmt.Sprintf(c.address, port), fmt.Sprintf(c.client, port)
			var learned []string
			s, _ := learning(t, "", func(c *Config) {
				c.Learned = func(gen int, st SocketStatus) { learned = append(learned, fmt.Sprint(gen, " ", st.Address)) }
			})
			one := run(t, s, 1)
			one.listens("a", c.kind, address)
			one.Want(address, "name a")
			wantGen(t, "tcp", client, 1)
			steer(t, s, 1)
			two := run(t, s, 2)
			two.listens("a", c.kind, address)
			for range 20 {
				wantGen(t, "tcp", client, 1)
			}
			steer(t, s, 2)
			for range 20 {
				wantGen(t, "tcp", client, 2)
			}
			one.leave(t)
			wantGen(t, "tcp", client, 2)
			if st := s.named(t, "tcp://"+address); !st.Learned || st.Mode != modeSteered || len(learned) != 1 || learned[0] != "1 tcp://"+address {
				t.Errorf("status %+v, learned %q", st, learned)
			}
		})
	}
}

// TestLearnNewAddress: clients of an address that only the candidate has wait until it is promoted.
func TestLearnNewAddress(t *testing.T) {
	old, fresh := "127.0.0.1:"+vacantPort(t), "127.0.0.1:"+vacantPort(t)
	s, _ := learning(t, "")
	one := run(t, s, 1)
	one.listens("a", "tcp4", old)
	steer(t, s, 1)
	two := run(t, s, 2)
	two.listens("a", "tcp4", old)
	two.listens("b", "tcp4", fresh)
	early := later(fresh)
	until(t, "the client waits", func() bool { return s.queued(t, "tcp://"+fresh) == 1 })
	if p := two.Progress(); p.Streams != 2 || p.Claimed != 1 || len(p.Missing) != 0 {
		t.Errorf("progress %+v", p)
	}
	if got := len(early); got != 0 {
		t.Errorf("the candidate answered: %s", <-early)
	}
	steer(t, s, 2)
	wantAnswer(t, early, 2)
	wantGen(t, "tcp", fresh, 2)
}

// TestLearnRefused: what only a refused candidate had is given up, and what the others have stays.
func TestLearnRefused(t *testing.T) {
	old, fresh := "127.0.0.1:"+vacantPort(t), "127.0.0.1:"+vacantPort(t)
	s, _ := learning(t, "")
	one := run(t, s, 1)
	one.listens("a", "tcp4", old)
	steer(t, s, 1)
	for gen := 2; gen <= 4; gen++ {
		p := run(t, s, gen)
		p.listens("a", "tcp4", old)
		p.listens("b", "tcp4", fresh)
		p.leave(t)
		wantRefused(t, fresh)
		wantGen(t, "tcp", old, 1)
	}
	if st := s.Status(); len(st) != 1 || len(st[0].Slots) != 1 {
		t.Errorf("status %+v", st)
	}
}

// TestLearnLate: what the active generation binds long after its start is served at once.
func TestLearnLate(t *testing.T) {
	first, second := "127.0.0.1:"+vacantPort(t), "127.0.0.1:"+vacantPort(t)
	s, _ := learning(t, "")
	one := run(t, s, 1)
	one.listens("a", "tcp4", first)
	steer(t, s, 1)
	growth := one.Progress().Changed
	one.listens("b", "tcp4", second)
	select {
	case <-growth:
	default:
		t.Error("nobody was told of the new address")
	}
	wantGen(t, "tcp", second, 1)
	if p := run(t, s, 2).Progress(); len(p.Missing) != 2 || p.Patience < expectedAtLeast {
		t.Errorf("expected of the next generation: %+v", p)
	}
}

// TestLearnAgain: the program closes its socket and binds once more, and clients in between wait.
func TestLearnAgain(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	one := run(t, s, 1)
	one.listens("a", "tcp4", address)
	steer(t, s, 1)
	wantGen(t, "tcp", address, 1)
	one.OK("shutdown a\nclose a")
	one.listens("b", "tcp4", address)
	early := later(address)
	wantAnswer(t, early, 1)
	one.OK("close b")
	early = later(address)
	until(t, "the client waits", func() bool { return s.queued(t, "tcp://"+address) > 0 })
	one.listens("c", "tcp4", address)
	wantAnswer(t, early, 1)
}

// TestLearnTwice: two sockets at one address are one: that is what SO_REUSEPORT servers ask for.
func TestLearnTwice(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	one := run(t, s, 1)
	one.listens("a", "tcp4", address)
	one.listens("b", "tcp4", address)
	wantGen(t, "tcp", address, 1)
	if st := s.Status(); len(st) != 1 || len(st[0].Slots) != 1 {
		t.Errorf("status %+v", st)
	}
}

// TestLearnPreFork: the parent binds, and its children listen.
func TestLearnPreFork(t *testing.T) {
	address := "127.0.0.1:" + vacantPort(t)
	s, _ := learning(t, "")
	for gen := 1; gen <= 2; gen++ {
		p := run(t, s, gen)
		p.OK("socket a tcp4\nbind a %s\nfork x a\nfork y a", address)
		for _, kid := range []string{"x", "y"} {
			p.OK("to %s listen 3 5\nto %s serve 3 %d", kid, kid, gen)
		}
		if gen == 2 {
			wantGen(t, "tcp", address, 1)
		}
		steer(t, s, gen)
		wantGen(t, "tcp", address, gen)
		if got := p.Progress().Streams; got != 1 {
			t.Errorf("generation %d listens on %d addresses", gen, got)
		}
	}
}

// TestLearnV6Only: a socket takes IPv4 too, or not, as the program says.
func TestLearnV6Only(t *testing.T) {
	for _, only := range []int{0, 1} {
		port := vacantPort(t)
		s, _ := learning(t, "")
		for gen := 1; gen <= 2; gen++ {
			p := run(t, s, gen)
			p.OK("socket a tcp6\nset a %d %d %d\nbind a [::]:%s\nlisten a 5\nserve a %d", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only, port, gen)
			p.Want(fmt.Sprint(only), "get a %d %d", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			steer(t, s, gen)
			wantGen(t, "tcp", "[::1]:"+port, gen)
			if only == 0 {
				wantGen(t, "tcp", "127.0.0.1:"+port, gen)
			} else {
				wantRefused(t, "127.0.0.1:"+port)
			}
		}
	}
}

// TestLearnBothFamilies: one port, two sockets that do not overlap, each swapped.
func TestLearnBothFamilies(t *testing.T) {
	port := vacantPort(t)
	s, j := learning(t, "")
	for gen := 1; gen <= 2; gen++ {
		p := run(t, s, gen)
		p.listens("a", "tcp4", "0.0.0.0:"+port)
		p.OK("socket b tcp6\nset b %d %d 1\nbind b [::]:%s\nlisten b 5\nserve b %d", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, port, gen)
		if gen == 2 {
			wantGen(t, "tcp", "127.0.0.1:"+port, 1)
			wantGen(t, "tcp", "[::1]:"+port, 1)
		}
		steer(t, s, gen)
		wantGen(t, "tcp", "127.0.0.1:"+port, gen)
		wantGen(t, "tcp", "[::1]:"+port, gen)
	}
	if len(s.Status()) != 2 || j.all() != "" {
		t.Errorf("status %+v\n%s", s.Status(), j.all())
	}
}

// TestLearnLinkLocal: the zone is part of the address.
func TestLearnLinkLocal(t *testing.T) {
	index, ip := linkLocal()
	if ip == "" {
		t.Skip("SKIPPED: no interface has a link-local address")
	}
	port := vacantPort(t)
	address := fmt.Sprintf("[%s%%%d]:%s", ip, index, port)
	s, _ := learning(t, "")
	for gen := 1; gen <= 2; gen++ {
		run(t, s, gen).listens("a", "tcp6", address)
		steer(t, s, gen)
		wantGen(t, "tcp", address, gen)
	}
	s.named(t, "tcp://"+address)
}

func linkLocal() (index int, ip string) {
	all, _ := net.Interfaces()
	for _, i := range all {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() && i.Flags&net.FlagUp != 0 {
				return i.Index, n.IP.String()
			}
		}
	}
	return 0, ""
}
