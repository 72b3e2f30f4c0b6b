package handoff

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func share(t *testing.T, text string) Share {
	t.Helper()
	sh, err := ParseShare(text)
	if err != nil {
		t.Fatal(err)
	}
	return sh
}

func split(t *testing.T, s *Set, active, candidate int, text string) {
	t.Helper()
	if err := s.Split(active, candidate, share(t, text)); err != nil {
		t.Fatal(err)
	}
}

// tally connects n times and counts who answers. from, if given, is the client's address.
func tally(t *testing.T, n, workers int, network, address string, from net.Addr) map[int]int {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var started atomic.Int64
	got := map[int]int{}
	for range workers {
		wg.Go(func() {
			d := net.Dialer{LocalAddr: from, Timeout: 20 * time.Second}
			for started.Add(1) <= int64(n) {
				c, err := d.Dial(network, address)
				if err == nil {
					_ = c.(*net.TCPConn).SetLinger(0) // no port is kept for a minute after
				}
				gen, err := ask(c, err)
				if err != nil {
					t.Errorf("%s: %v", address, err)
					return
				}
				mu.Lock()
				got[gen]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return got
}

// manyConnections is how many a share is measured over. ENTRYPOINT_TEST_CONNECTIONS=100000 takes half a minute more.
func manyConnections() int {
	if n, err := strconv.Atoi(os.Getenv("ENTRYPOINT_TEST_CONNECTIONS")); err == nil && n > 0 {
		return n
	}
	return 7000
}

// TestSplitByChance: the portion is what was asked for, on IPv4, IPv6 and both, and nothing fails.
func TestSplitByChance(t *testing.T) {
	for _, c := range []struct{ listen, address, share string }{
		{"tcp4://127.0.0.1:0", "127.0.0.1:%d", "5%"},
		{"tcp://:0", "[::1]:%d", "1%"},
		{"tcp://:0", "127.0.0.1:%d", "25%"},
	} {
		t.Run(c.share+" of "+c.address, func(t *testing.T) {
			s := open(t, c.listen, Config{Steer: true})
			serve(t, lease(t, s, 1))
			steer(t, s, 1)
			serve(t, lease(t, s, 2))
			split(t, s, 1, 2, c.share)
			n := manyConnections()
			got := tally(t, n, 4, "tcp", fmt.Sprintf(c.address, port(s)), nil)
			t.Logf("%v", got)
			withinMany(t, c.share, got[2], n, share(t, c.share).Portion)
			st := s.Status()[0]
			if st.Share != c.share || st.Slots[0].Portion != 1-st.Slots[1].Portion || !st.Slots[0].Current || st.Slots[1].Current {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// TestSplitByNetwork sends the named clients, and only those, to the candidate.
func TestSplitByNetwork(t *testing.T) {
	for _, c := range []struct {
		share string
		want  map[string]int // client -> generation
	}{
		{"127.1.0.0/16", map[string]int{"127.1.2.3": 2, "127.2.0.1": 1, "::1": 1}},
		{"127.1.0.0/16+!127.1.0.7", map[string]int{"127.1.2.3": 2, "127.1.0.7": 1}},
		{"100%+!127.0.0.0/30", map[string]int{"127.0.0.3": 1, "127.0.0.4": 2, "::1": 2}},
		{"::1", map[string]int{"127.0.0.1": 1, "::1": 2}},
		{"::/0", map[string]int{"127.0.0.1": 1, "::1": 2}},
		{"100%+!::/10", map[string]int{"127.0.0.1": 2, "::1": 1}},
	} {
		s := open(t, "tcp://:0", Config{Steer: true})
		serve(t, lease(t, s, 1))
		steer(t, s, 1)
		serve(t, lease(t, s, 2))
		split(t, s, 1, 2, c.share)
		for client, gen := range c.want {
			from := &net.TCPAddr{IP: net.ParseIP(client)}
			if got := tally(t, 20, 1, "tcp", net.JoinHostPort(localOf(client), strconv.Itoa(port(s))), from); got[gen] != 20 {
				t.Errorf("%s: %s met %v, want generation %d alone", c.share, client, got, gen)
			}
		}
		// Our own probes go where they are meant to, whoever the client is.
		for gen := 1; gen <= 2; gen++ {
			if got, err := ask(s.Dial(deadline(t, 5*time.Second), gen, "tcp", local(s))); err != nil || got != gen {
				t.Errorf("Dial(%d) met %d, %v", gen, got, err)
			}
		}
	}
}

func localOf(client string) string {
	if netip.MustParseAddr(client).Is4() {
		return "127.0.0.1"
	}
	return "::1"
}

// TestSplitSticky: a client meets the same generation each time, on every address, and stays with the candidate when the share
// grows.
func TestSplitSticky(t *testing.T) {
	s := open(t, "tcp4://:0,tcp4://:0", Config{Steer: true})
	serve(t, lease(t, s, 1))
	steer(t, s, 1)
	serve(t, lease(t, s, 2))
	met := func() map[string]int {
		out := map[string]int{}
		for i := range 200 {
			client := fmt.Sprintf("127.7.%d.%d", i%3, i)
			from := &net.TCPAddr{IP: net.ParseIP(client)}
			for _, h := range s.held {
				for gen := range tally(t, 3, 1, "tcp", "127.0.0.1:"+strconv.Itoa(h.at.port), from) {
					if was := out[client]; was != 0 && was != gen {
						t.Fatalf("%s met %d and %d", client, was, gen)
					}
					out[client] = gen
				}
			}
		}
		return out
	}
	split(t, s, 1, 2, "20%@source")
	before := met()
	split(t, s, 1, 2, "60%@source")
	after, grew := met(), 0
	for client, gen := range before {
		if gen == 2 && after[client] == 1 {
			t.Errorf("%s was taken back", client)
		}
		if after[client] != gen {
			grew++
		}
	}
	if grew == 0 {
		t.Error("nobody changed to the candidate")
	}
}

// TestSplitUDP: all datagrams of a client meet one generation, although the share is by chance.
func TestSplitUDP(t *testing.T) {
	for _, listen := range []string{"udp4://:0", "udp://:0"} {
		s := open(t, listen, Config{Steer: true})
		l1, l2 := lease(t, s, 1), lease(t, s, 2)
		steer(t, s, 1)
		split(t, s, 1, 2, "50%")
		if st := s.Status()[0]; st.Share != "50%@source" {
			t.Errorf("status %+v", st)
		}
		fds, counts := []int{l1.Files()[0].FD, l2.Files()[0].FD}, [2]int{}
		const clients = 200
		for i := range clients {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 8, byte(i>>8), byte(i))}}
			for range 3 { // three ports of one client
				c, err := d.Dial("udp4", local(s))
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(c, i)
				c.Close()
			}
			got := [2]int{}
			until(t, "three datagrams", func() bool {
				b := make([]byte, 8)
				for g, fd := range fds {
					if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); err == nil && string(b[:n]) == strconv.Itoa(i) {
						got[g]++
					}
				}
				return got[0]+got[1] == 3
			})
			if got[0]*got[1] != 0 {
				t.Fatalf("client %d was torn in two: %v", i, got)
			}
			counts[got[1]/3]++
		}
		withinMany(t, listen, counts[1], clients, 0.5)
	}
}

// TestSplitAndBackUnderLoad changes shares without pause: no connection fails, and none reaches a candidate without a share.
func TestSplitAndBackUnderLoad(t *testing.T) {
	s := open(t, "tcp://:0,tcp4://127.0.0.1:0", Config{Steer: true})
	active := serve(t, lease(t, s, 1))
	steer(t, s, 1)
	l2 := lease(t, s, 2)
	candidate := serve(t, l2)
	finish := hammer(4, "tcp", local(s))
	second := hammer(1, "tcp", "127.0.0.1:"+strconv.Itoa(s.held[1].at.port))
	for i := range 100 {
		split(t, s, 1, 2, []string{"5%", "50%", "127.0.0.0/8", "30%@source", "1%+!127.0.0.1"}[i%5])
		one, two := active.accepted(), candidate.accepted()
		until(t, "clients are served", func() bool { return active.accepted()+candidate.accepted() > one+two+40 })
		if i%5 == 1 {
			until(t, "both serve", func() bool { return active.accepted() > one && candidate.accepted() > two })
		}
		if i%10 == 9 {
			steer(t, s, 1)
			gone(t, l2)
			two = candidate.accepted()
			wantGen(t, "tcp", local(s), 1)
			if got := candidate.accepted(); got != two {
				t.Fatalf("the candidate got %d connections after its share was over", got-two)
			}
		}
	}
	steer(t, s, 2)
	f, g := finish(), second()
	t.Logf("%d connections, failed %v %v, %d slots", f.total.Load()+g.total.Load(), f.kinds, g.kinds, slotCount(s))
	if len(f.kinds)+len(g.kinds) > 0 {
		t.Errorf("failures: %v %v", f.kinds, g.kinds)
	}
}

// gone waits until nothing of the generation is left, as a drain does.
func gone(t *testing.T, l *Lease) {
	t.Helper()
	until(t, "no connections left", func() bool {
		load, err := l.Load()
		return err == nil && load.Known && load.Queued+load.HalfOpen+load.Open == 0
	})
}

// TestSplitLoad: while both have the traffic, and after, it is known whose connection is whose.
func TestSplitLoad(t *testing.T) {
	for _, c := range []struct{ listen, client string }{
		{"tcp4://127.0.0.1:0", "127.0.0.1"}, {"tcp6://[::1]:0", "::1"}, {"tcp://:0", "127.0.0.1"}, {"tcp://:0", "::1"},
	} {
		s := open(t, c.listen, Config{Steer: true})
		l1, l2 := lease(t, s, 1), lease(t, s, 2)
		steer(t, s, 1)
		dial := func() net.Conn {
			conn, err := net.Dial("tcp", net.JoinHostPort(c.client, strconv.Itoa(port(s))))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		dial()
		split(t, s, 1, 2, "50%")
		for range 60 {
			dial()
		}
		mine := func(l *Lease) (queued int) {
			until(t, "no handshakes", func() bool {
				load, err := l.Load()
				queued = load.Queued
				return err == nil && load == Load{Queued: queued, Known: true}
			})
			return queued
		}
		one, two := mine(l1), mine(l2)
		if one+two != 61 || two == 0 || s.Status()[0].Slots[1].Queue != two {
			t.Fatalf("%d and %d of 61 connections, status %+v", one, two, s.Status())
		}
		kept := acceptAll(t, l2, two)
		split(t, s, 1, 2, "!10.0.0.1+10.0.0.0/8") // nobody here
		dial()
		wantCounts(t, l2, 0, two)
		steer(t, s, 1)
		dial()
		wantCounts(t, l1, one+2, 0)
		wantCounts(t, l2, 0, two)
		for _, k := range kept {
			k.Close()
		}
		wantLoad(t, l2, Load{Known: true})
	}
}

// wantCounts is wantLoad for those who do not care how busy it is.
func wantCounts(t *testing.T, l *Lease, queued, open int) {
	t.Helper()
	until(t, fmt.Sprintf("%d queued and %d open connections of generation %d", queued, open, l.gen), func() bool {
		load, err := l.Load()
		load.Busy = 0
		return err == nil && load == Load{Queued: queued, Open: open, Known: true}
	})
}

func acceptAll(t *testing.T, l *Lease, n int) (out []net.Conn) {
	t.Helper()
	ln, err := listenerOf(l.Files()[0].FD)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for range n {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		out = append(out, c)
	}
	return out
}

// TestSplitHalfOpen: a handshake that was open when the split ended may be either's, so both wait for it.
func TestSplitHalfOpen(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0?defer_accept=30", Config{Steer: true})
	l1 := lease(t, s, 1)
	serve(t, l1)
	steer(t, s, 1)
	l2 := lease(t, s, 2)
	split(t, s, 1, 2, "100%")
	c, err := net.Dial("tcp", local(s))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "half open", func() bool { l, err := l2.Load(); return err == nil && l.HalfOpen == 1 })
	steer(t, s, 1)
	settled(t, s)
	for _, l := range []*Lease{l1, l2} {
		if load, err := l.Load(); err != nil || load.HalfOpen != 1 {
			t.Errorf("generation %d: %+v, %v", l.gen, load, err)
		}
	}
	l2.Release()
	if n, err := ask(c, nil); err != nil || n != 1 { // its first byte ends the handshake, in the slot of the candidate
		t.Errorf("answered by %d, %v", n, err)
	}
	until(t, "the slot is closed", func() bool { return len(s.Status()[0].Slots) == 1 })
}

// TestSplitWithoutColours: an older kernel does not show whose connection is whose, and that is said.
func TestSplitWithoutColours(t *testing.T) {
	s, err := openUncolored(t, "tcp4://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l1, l2 := lease(t, s, 1), lease(t, s, 2)
	serve(t, l1)
	serve(t, l2)
	steer(t, s, 1)
	wantLoad(t, l1, Load{Known: true})
	split(t, s, 1, 2, "50%")
	tally(t, 50, 1, "tcp", local(s), nil)
	unknown := func(l *Lease, want bool) {
		t.Helper()
		if load, err := l.Load(); err != nil || load.Known == want {
			t.Errorf("generation %d: %+v, %v", l.gen, load, err)
		}
	}
	unknown(l1, true)
	unknown(l2, true)
	steer(t, s, 2)
	l3 := lease(t, s, 3)
	steer(t, s, 3)
	unknown(l1, true)
	unknown(l2, true)
	unknown(l3, false)
}

func TestSplitRefusals(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		listen string
		config Config
		want   string
	}{
		{"tcp4://127.0.0.1:0", Config{}, "one socket for all generations"},
		{"tcp4://127.0.0.1:0,unix://@entrypoint-split-" + strconv.Itoa(os.Getpid()), Config{Steer: true}, "abstract"},
		{"unix://" + dir + "/a", Config{Steer: true}, "unix paths"},
		{"", Config{Steer: true}, "no TCP or UDP address is held"},
		{"", Config{Steer: true, Learn: true}, ""},
		{"tcp4://127.0.0.1:0,unix://" + dir + "/b", Config{Steer: true}, ""},
	} {
		s := open(t, c.listen, c.config)
		lease(t, s, 1)
		steer(t, s, 1)
		lease(t, s, 2)
		err := s.CanSplit(Share{Portion: 0.5})
		if again := s.Split(1, 2, Share{Portion: 0.5}); fmt.Sprint(again) != fmt.Sprint(err) {
			t.Errorf("%s: CanSplit %v, Split %v", c.listen, err, again)
		}
		switch {
		case c.want == "" && err != nil, c.want != "" && (!errors.Is(err, ErrNotSteerable) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v; want %q", c.listen, err, c.want)
		}
	}
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	lease(t, s, 1)
	steer(t, s, 1)
	lease(t, s, 2)
	for _, c := range []struct {
		active, candidate int
		share             Share
	}{{1, 1, Share{Portion: 1}}, {2, 1, Share{Portion: 1}}, {1, 3, Share{Portion: 1}}, {1, 2, Share{}}} {
		if s.Split(c.active, c.candidate, c.share) == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

// TestSplitPathStays: clients of a unix path are not divided, and status says why.
func TestSplitPathStays(t *testing.T) {
	path := t.TempDir() + "/s"
	s := open(t, "tcp4://127.0.0.1:0,unix://"+path, Config{Steer: true})
	serve(t, lease(t, s, 1))
	steer(t, s, 1)
	serve(t, lease(t, s, 2))
	split(t, s, 1, 2, "100%")
	wantGen(t, "tcp", local(s), 2)
	wantGen(t, "unix", path, 1)
	if st := s.Status(); st[0].Why != "" || st[1].Why != whyWhole {
		t.Errorf("status %+v", st)
	}
	steer(t, s, 2)
	wantGen(t, "unix", path, 2)
	if st := s.Status(); st[1].Why != "" || st[0].Share != "" {
		t.Errorf("status %+v", st)
	}
}

// TestSplitIsAllOrNothing: where one address cannot be split, none is, and a share given before stays.
func TestSplitIsAllOrNothing(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0,tcp4://127.0.0.1:0", Config{Steer: true})
	serve(t, lease(t, s, 1))
	steer(t, s, 1)
	serve(t, lease(t, s, 2))
	split(t, s, 1, 2, "127.3.0.0/16")
	broken := s.held[1].part.fd
	s.held[1].part.fd = -1 // no call can fail on it but ours
	s.held[1].current.fd, broken = -1, s.held[1].current.fd|broken<<16
	err := s.Split(1, 2, share(t, "100%"))
	s.held[1].part.fd, s.held[1].current.fd = broken>>16, broken&0xffff
	if err == nil {
		t.Fatal("no error")
	}
	for _, h := range s.held {
		wantGen(t, "tcp", "127.0.0.1:"+strconv.Itoa(h.at.port), 1)
		if h.given.String() != "127.3.0.0/16" {
			t.Errorf("the share is %s", h.given)
		}
	}
}

// TestSplitSurvivesShutdown: a candidate, or an old generation, that calls shutdown on its socket changes nothing for the others.
func TestSplitSurvivesShutdown(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	l1 := lease(t, s, 1)
	serve(t, lease(t, s, 2))
	steer(t, s, 2)
	l3 := lease(t, s, 3)
	serve(t, l3)
	split(t, s, 2, 3, "127.5.0.0/16")
	from := &net.TCPAddr{IP: net.IPv4(127, 5, 0, 1)}
	both := func(pinned int) {
		t.Helper()
		wantGen(t, "tcp", local(s), 2)
		if got := tally(t, 10, 1, "tcp", local(s), from); got[pinned] != 10 {
			t.Fatalf("pinned clients met %v, want %d", got, pinned)
		}
	}
	both(3)
	if err := unix.Shutdown(l1.Files()[0].FD, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	both(3) // before anybody can have noticed
	s.Status()
	both(3)
	if err := unix.Shutdown(l3.Files()[0].FD, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{LocalAddr: from}
	astray, err := d.Dial("tcp", local(s)) // before anybody can have noticed
	if err != nil {
		t.Fatal(err)
	}
	if st := s.Status()[0]; st.Share != "" {
		t.Errorf("status %+v", st)
	}
	both(2)
	if gen, err := ask(astray, nil); err != nil || gen != 2 {
		t.Errorf("a client that went astray met %d, %v", gen, err)
	}
}

// TestSplitOldOnesLeave closes slots of older generations while a share is given: no index with traffic moves.
func TestSplitOldOnesLeave(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	s.quiesce = func() {} // so fast as it is here, slots would wait for one another
	old := map[int]*Lease{}
	from := &net.TCPAddr{IP: net.IPv4(127, 5, 0, 1)}
	for gen := 1; gen <= 60; gen++ {
		old[gen] = lease(t, s, gen)
		a := serve(t, old[gen])
		if gen > 1 {
			split(t, s, gen-1, gen, "127.5.0.0/16")
		}
		for g, l := range old { // in no order
			if g < gen-1 && len(old) > 3 {
				l.Release()
				delete(old, g)
			}
		}
		if gen > 1 {
			wantGen(t, "tcp", local(s), gen-1)
			if got := tally(t, 3, 1, "tcp", local(s), from); got[gen] != 3 {
				t.Fatalf("generation %d: pinned clients met %v", gen, got)
			}
		}
		if gen%4 == 0 { // it fails
			a.stop()
			old[gen].Release()
			delete(old, gen)
			wantGen(t, "tcp", local(s), gen-1)
			old[gen] = lease(t, s, gen)
			serve(t, old[gen])
		}
		steer(t, s, gen)
		wantGen(t, "tcp", local(s), gen)
	}
	until(t, "ten slots are left", func() bool { return slotCount(s) <= 10 })
}

func init() { helpers["canary"] = canary }

// canary is a candidate as a process of its own: it answers every line with "2", after a moment, and says how many it has accepted.
func canary() int {
	ln, err := listenerOf(3)
	if err != nil {
		return 1
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return 1
		}
		fmt.Println(c.RemoteAddr())
		go func() {
			defer c.Close()
			if _, err := c.Read(make([]byte, 16)); err == nil {
				time.Sleep(3 * time.Millisecond) // work, so that it dies with some
				fmt.Fprint(c, "2")
			}
		}()
	}
}

// TestSplitCandidateKilled kills the candidate's process under load: what it had accepted is lost, and nothing else.
func TestSplitCandidateKilled(t *testing.T) {
	const kills = 5
	s := open(t, "tcp://:0", Config{Steer: true})
	serve(t, lease(t, s, 1))
	steer(t, s, 1)
	accepted, failed, total := 0, 0, 0
	for gen := 2; gen < 2+kills; gen++ {
		l := lease(t, s, gen)
		cmd := helper(t, "canary", []int{l.Files()[0].FD}, nil)
		out := &lines{}
		cmd.Stdout = out
		start(t, cmd)
		split(t, s, 1, gen, "20%")
		finish := clients(t, 6, local(s))
		until(t, "some are accepted", func() bool { return out.count() > 30 })
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		until(t, "some wait for the dead candidate", func() bool { return s.served(gen) > 0 })
		l.Release()
		lost, n := finish()
		strangers := 0
		for client, err := range lost {
			if !out.has(client) {
				strangers++
				t.Logf("%s: %v", client, err)
			}
		}
		if strangers > 1 { // it may have been killed between accept and telling us
			t.Errorf("%d connections failed that the candidate had not accepted", strangers)
		}
		accepted, failed, total = accepted+out.count(), failed+len(lost), total+n
		wantGen(t, "tcp", local(s), 1)
	}
	t.Logf("%d candidates killed under %d connections: they had accepted %d, and %d of these failed", kills, total, accepted, failed)
}

// clients connect without pause until the returned function is called, which returns what failed, by the client's address, and how
// many there were.
func clients(t *testing.T, n int, address string) func() (map[string]error, int) {
	var stop atomic.Bool
	var mu sync.Mutex
	var wg sync.WaitGroup
	lost, total := map[string]error{}, 0
	for range n {
		wg.Go(func() {
			for !stop.Load() {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Errorf("refused: %v", err)
					return
				}
				from := c.LocalAddr().String()
				_, err = ask(c, nil)
				mu.Lock()
				if total++; err != nil {
					lost[from] = err
				}
				mu.Unlock()
			}
		})
	}
	return func() (map[string]error, int) { stop.Store(true); wg.Wait(); return lost, total }
}

// lines collects what a helper writes.
type lines struct {
	mu   sync.Mutex
	text string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(b)
	return len(b), nil
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text, "\n")
}

func (l *lines) has(line string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(strings.Split(l.text, "\n"), line)
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// TestSplitRelaysPastTheCandidate: what an older generation left is given to the active one, whoever the client was.
func TestSplitRelaysPastTheCandidate(t *testing.T) {
	s := open(t, "tcp://:0", Config{Steer: true})
	l1 := lease(t, s, 1) // hung
	steer(t, s, 1)
	var waiting []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", local(s))
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}
	serve(t, lease(t, s, 2))
	steer(t, s, 2)
	serve(t, lease(t, s, 3))
	split(t, s, 2, 3, "100%")
	t.Cleanup(func() {
		for _, c := range waiting { // or those who serve them would wait for a word
			c.Close()
		}
	})
	l1.Release()
	for _, c := range waiting {
		if n, err := ask(c, nil); err != nil || n != 2 {
			t.Fatalf("answered by %d, %v", n, err)
		}
	}
}

// TestSplitLearned: addresses that programs bind by themselves are split, also those that come later; one that only the candidate
// has is shown to nobody.
func TestSplitLearned(t *testing.T) {
	first, late, fresh := "127.0.0.1:"+vacantPort(t), "127.0.0.1:"+vacantPort(t), "127.0.0.1:"+vacantPort(t)
	s, j := learning(t, "")
	one := run(t, s, 1)
	one.listens("a", "tcp4", first)
	one.listens("b", "tcp4", late)
	steer(t, s, 1)
	two := run(t, s, 2)
	two.listens("a", "tcp4", first)
	split(t, s, 1, 2, "100%")
	wantGen(t, "tcp", first, 2)
	wantGen(t, "tcp", late, 1)
	two.listens("b", "tcp4", late)
	wantGen(t, "tcp", late, 2)
	two.listens("c", "tcp4", fresh)
	early := later(fresh)
	until(t, "the client waits", func() bool { return s.queued(t, "tcp://"+fresh) == 1 })
	two.OK("shutdown b\nclose b") // and takes it up again
	s.Status()
	wantGen(t, "tcp", late, 1)
	two.listens("d", "tcp4", late)
	wantGen(t, "tcp", late, 2)
	one.listens("c", "tcp4", fresh) // now it is the active generation's too
	wantAnswer(t, early, 1)
	wantGen(t, "tcp", fresh, 2)
	two.leave(t)
	for _, address := range []string{first, late, fresh} {
		wantGen(t, "tcp", address, 1)
	}
	if j.all() != "" {
		t.Errorf("it was said: %s", j.all())
	}
}

// served is how many connections wait for a generation on the first address.
func (s *Set) served(gen int) int {
	for _, sl := range s.Status()[0].Slots {
		if sl.Generation == gen {
			return sl.Queue
		}
	}
	return 0
}
