package handoff

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBusy(t *testing.T) {
	for _, c := range []struct {
		name string
		conn tcpConn
		want bool
	}{
		{"nothing said, just accepted", tcpConn{timed: true, sentAge: 5, recvAge: 5}, true},
		{"nothing said for long", tcpConn{timed: true, sentAge: 1500, recvAge: 1500}, false},
		{"no times known", tcpConn{}, true},
		{"unread", tcpConn{timed: true, rqueue: 1}, true},
		{"unsent", tcpConn{timed: true, wqueue: 1}, true},
		{"first request", tcpConn{timed: true, segsIn: 1, sentAge: 9000, recvAge: 9000}, true},
		{"request after answer", tcpConn{timed: true, segsIn: 2, segsOut: 1, sentAge: 9000, recvAge: 8000}, true},
		{"answered just now", tcpConn{timed: true, segsIn: 2, segsOut: 2, sentAge: 50, recvAge: 90}, true},
		{"answered", tcpConn{timed: true, segsIn: 2, segsOut: 2, sentAge: 1500, recvAge: 1900}, false},
		{"an answer in pieces", tcpConn{timed: true, segsIn: 2, segsOut: 2, sentAge: 600, recvAge: 1900}, true},
		{"one tick, lately", tcpConn{timed: true, segsIn: 2, segsOut: 2, sentAge: 500, recvAge: 500}, true},
		{"one tick, long ago", tcpConn{timed: true, segsIn: 2, segsOut: 2, sentAge: 1500, recvAge: 1500}, false},
	} {
		if got := busy(&c.conn); got != c.want {
			t.Errorf("%s: busy = %v", c.name, got)
		}
	}
}

// TestLoadTellsGenerationsApart counts by colour, by snapshot (as on older kernels) and out of /proc.
func TestLoadTellsGenerationsApart(t *testing.T) {
	for _, colored := range []bool{true, false} {
		s := open(t, "tcp://:0", Config{Steer: true})
		if !s.colored {
			t.Fatal("no colours on this kernel")
		}
		if !colored {
			s.Close()
			var err error
			if s, err = openUncolored(t, "tcp://:0"); err != nil {
				t.Fatal(err)
			}
		}
		l1, l2 := lease(t, s, 1), lease(t, s, 2)
		wantLoad(t, l1, Load{Known: true})
		one := keep(t, l1, s, 7)
		wantLoad(t, l1, Load{Open: 7, Known: true})
		wantLoad(t, l2, Load{Known: true})
		if _, err := one.clients[0].Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		until(t, "request seen", func() bool { l, err := l1.Load(); return err == nil && l.Busy == 1 })
		steer(t, s, 2)
		two := keep(t, l2, s, 3)
		wantLoad(t, l1, Load{Open: 7, Busy: 1, Known: true})
		if colored {
			wantLoad(t, l2, Load{Open: 3, Known: true})
		}
		for _, c := range one.servers[1:] {
			c.Close()
		}
		until(t, "closed ones gone", func() bool { l, err := l1.Load(); return err == nil && l.Open == 1 })
		one.servers[0].Close()
		wantLoad(t, l1, Load{Known: true})
		steer(t, s, 1) // back
		wantLoad(t, l2, Load{Open: 3, Known: true})
		for _, c := range two.servers {
			c.Close()
		}
		l1.Release()
		if _, err := l1.Load(); err == nil {
			t.Error("a released lease has a load")
		}
	}
}

func openUncolored(t *testing.T, list string) (*Set, error) {
	s := open(t, "", Config{Steer: true})
	s.colored = false
	var none []*held
	h, err := s.openAddress(addresses(t, list)[0], &none)
	if err == nil {
		s.held = append(s.held, h)
	}
	return s, err
}

type kept struct{ clients, servers []net.Conn }

// keep makes n connections to the generation with the traffic and accepts them.
func keep(t *testing.T, l *Lease, s *Set, n int) kept {
	t.Helper()
	return keepAt(t, l, s, 0, n)
}

// keepAt does it at an address.
func keepAt(t *testing.T, l *Lease, s *Set, at, n int) (k kept) {
	t.Helper()
	ln, err := listenerOf(l.Files()[at].FD)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	h := s.held[at]
	network, address := "unix", h.addr.Path
	if h.addr.inet() {
		host := "127.0.0.1" // of the wildcard too
		if !h.at.host().IsUnspecified() {
			host = h.at.host().String()
		}
		network, address = "tcp", net.JoinHostPort(host, strconv.Itoa(h.at.port))
	}
	for range n {
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		sc, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); sc.Close() })
		k.clients, k.servers = append(k.clients, c), append(k.servers, sc)
	}
	return k
}

// wantLoad waits until the load is as wanted: a connection on which nobody has said anything is idle only after a while.
func wantLoad(t *testing.T, l *Lease, want Load) {
	t.Helper()
	var got Load
	var err error
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if got, err = l.Load(); err == nil && got == want {
			return
		}
		if time.Now().After(end) {
			t.Errorf("generation %d: load %+v, %v; want %+v", l.gen, got, err, want)
			return
		}
	}
}

// TestLoadOfManyAddresses has more ports than are asked for one by one, of both families: nothing is counted twice, and nothing of others.
func TestLoadOfManyAddresses(t *testing.T) {
	const list = "tcp://127.0.0.1:0,tcp://127.0.0.1:0,tcp://127.0.0.1:0,tcp://127.0.0.1:0,tcp://127.0.0.1:0,tcp://[::1]:0"
	if strings.Count(list, "127.0.0.1") <= fewPorts {
		t.Fatal("too few ports for the case")
	}
	s := open(t, list+",tcp://:0", Config{Steer: true})
	l1 := lease(t, s, 1)
	var all []kept
	wanted := Load{Known: true}
	for i := range s.held {
		all = append(all, keepAt(t, l1, s, i, i))
		wanted.Open += i
	}
	wantLoad(t, l1, wanted)
	l2 := lease(t, s, 2)
	steer(t, s, 2)
	wantLoad(t, l1, wanted)
	wantLoad(t, l2, Load{Known: true})
	for i, k := range all {
		for _, c := range k.servers {
			c.Close()
		}
		wanted.Open -= i
		wantLoad(t, l1, wanted)
	}
}

func TestUnixLoad(t *testing.T) {
	s := open(t, "unix://"+t.TempDir()+"/s", Config{Steer: true})
	l1, l2 := lease(t, s, 1), lease(t, s, 2)
	one := keep(t, l1, s, 4)
	steer(t, s, 2)
	keep(t, l2, s, 2)
	wantLoad(t, l1, Load{Open: 4, Busy: 4, Known: true})
	wantLoad(t, l2, Load{Open: 2, Busy: 2, Known: true})
	for _, c := range one.servers {
		c.Close()
	}
	wantLoad(t, l1, Load{Known: true})
}

// TestLoadAllocatesNothing for connections, its own or foreign ones.
func TestLoadAllocatesNothing(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	l1 := lease(t, s, 1)
	count := func() float64 {
		return testing.AllocsPerRun(20, func() {
			if _, err := l1.Load(); err != nil {
				t.Fatal(err)
			}
		})
	}
	none := count()
	keep(t, l1, s, 200)
	if many := count(); many > none+3 {
		t.Errorf("%v allocations with 200 connections, %v without", many, none)
	}
}

func TestProcTCPAgreesWithSockDiag(t *testing.T) {
	for _, listen := range []string{"tcp4://127.0.0.1:0", "tcp://:0"} {
		s := open(t, listen, Config{Steer: true})
		keep(t, lease(t, s, 1), s, 5)
		type row struct {
			state uint8
			inode uint32
		}
		read := func(f func(int, int, uint32, func(*tcpConn)) error) map[string]row {
			rows := map[string]row{}
			if err := f(s.held[0].at.family, port(s), 0xfff, func(c *tcpConn) {
				if c.state != tcpListen {
					rows[c.local.String()+" "+c.remote.String()] = row{c.state, c.inode}
				}
			}); err != nil {
				t.Fatal(err)
			}
			return rows
		}
		diag, proc := read(dumpTCP), read(procTCP)
		if len(diag) != 5 || len(proc) != 5 {
			t.Fatalf("sock_diag %v\n/proc %v", diag, proc)
		}
		for k, v := range diag {
			if proc[k] != v {
				t.Errorf("%s: sock_diag %v, /proc %v", k, v, proc[k])
			}
		}
	}
}

func TestDeferAcceptIsProbed(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0?defer_accept=60", Config{Steer: true})
	l1 := lease(t, s, 1)
	a := serve(t, l1)
	if err := s.Accepted(deadline(t, 5*time.Second), 1, nil); err != nil {
		t.Fatal(err)
	}
	until(t, "the program counts what the kernel says it accepted", func() bool { return a.accepted() > 0 })
	lease(t, s, 2)
	c, err := net.Dial("tcp", local(s)) // silent: stays half open
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until(t, "half open", func() bool { l, err := l1.Load(); return err == nil && l.HalfOpen == 1 })
	steer(t, s, 2)
	settled(t, s)
	if l, err := l1.Load(); err != nil || l.HalfOpen != 1 {
		t.Errorf("after the switch: %+v %v", l, err)
	}
}

// settled waits until no handshake can turn up that had begun before the last switch.
func settled(t *testing.T, s *Set) {
	t.Helper()
	until(t, "the handshakes are known", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !slices.ContainsFunc(s.held[0].slots, func(sl *slot) bool { return sl.unsettled != nil })
	})
}

func TestEverySlotHasTheOptions(t *testing.T) {
	s := open(t, "tcp://:0?nodelay&keepalive=33s&backlog=9", Config{Steer: true})
	for gen := 1; gen <= 2; gen++ {
		fd := lease(t, s, gen).Files()[0].FD
		for _, o := range []struct{ level, opt, want int }{
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 33}, {unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0},
			{unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP}, {unix.SOL_SOCKET, unix.SO_ACCEPTCONN, 1},
		} {
			if got, err := unix.GetsockoptInt(fd, o.level, o.opt); err != nil || got != o.want {
				t.Errorf("generation %d option %d/%d = %d, %v; want %d", gen, o.level, o.opt, got, err, o.want)
			}
		}
	}
	if strings.Contains(s.Status()[0].Address, ":0") {
		t.Error("no actual port in the status")
	}
}
