package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRoster(t *testing.T) {
	for _, c := range []struct {
		start, leave, want string
	}{
		{"a", "a", ""},
		{"ab", "a", "b"},
		{"ab", "b", "a"},
		{"abc", "a", "cb"},
		{"abc", "b", "ac"},
		{"abc", "c", "ab"},
		{"abcd", "bd", "ac"},
		{"abcd", "ab", "dc"},
		{"abc", "x", "abc"},
	} {
		var r roster[rune]
		for i, m := range c.start {
			if got := r.join(m); got != i {
				t.Errorf("%q: join gave %d, want %d", c.start, got, i)
			}
		}
		for _, m := range c.leave {
			if moved := r.moves(r.members[len(r.members)-1], m); moved != (r.index(m) >= 0 && r.index(m) < len(r.members)-1) {
				t.Errorf("%s less %c: moves = %v", string(r.members), m, moved)
			}
			r.leave(m)
		}
		if got := string(r.members); got != c.want {
			t.Errorf("%q less %q = %q, want %q", c.start, c.leave, got, c.want)
		}
	}
}

// TestRosterIsTheKernels opens and closes members at random and asks the kernel, by connecting, where each index leads.
func TestRosterIsTheKernels(t *testing.T) {
	a := &Address{Scheme: "tcp"}
	p := place{family: unix.AF_INET, ip: loopback4}
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	var r roster[int]
	join := func() {
		fd, err := openSocket(a, p, true, 0)
		if err != nil {
			t.Fatal(err)
		}
		if p.port == 0 {
			p.port, _ = portOf(fd)
		}
		r.join(fd)
	}
	join()
	defer func() {
		for _, fd := range r.members {
			unix.Close(fd)
		}
	}()
	for range 60 {
		if n := len(r.members); n < 2 || n < 6 && rng.IntN(2) == 0 {
			join()
		} else {
			fd := r.members[rng.IntN(n)]
			unix.Close(fd)
			r.leave(fd)
		}
		i := rng.IntN(len(r.members))
		if err := attachProgram(r.members[0], (&plan{current: i}).build()); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", p.String())
		if err != nil {
			t.Fatal(err)
		}
		until(t, "it waits", func() bool { // the client may be there before its last packet is
			return slices.ContainsFunc(r.members, func(fd int) bool { n, _ := acceptQueue(fd); return n > 0 })
		})
		for j, fd := range r.members {
			n, _ := acceptQueue(fd)
			if (n == 1) != (j == i) {
				t.Fatalf("index %d of %v: member %d has %d waiting", i, r.members, j, n)
			}
		}
		fd, _, err := unix.Accept(r.members[i])
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		c.Close()
	}
}

func TestSteerEveryFamily(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		listen  string
		clients []string // network address, %d is the port
		mode    string
	}{
		{"tcp4://127.0.0.1:0", []string{"tcp 127.0.0.1:%d"}, modeSteered},
		{"tcp6://[::1]:0", []string{"tcp [::1]:%d"}, modeSteered},
		{"tcp://:0", []string{"tcp 127.0.0.1:%d", "tcp [::1]:%d", "tcp localhost:%d"}, modeSteered},
		{"tcp6://:0", []string{"tcp [::1]:%d"}, modeSteered},
		{"tcp4://:0", []string{"tcp4 localhost:%d"}, modeSteered},
		{"tcp://0.0.0.0:0?nodelay&keepalive=30s&fastopen=16&rcvbuf=64KiB&sndbuf=64KiB&freebind&backlog=7", []string{"tcp 127.0.0.1:%d"}, modeSteered},
		{"unix://" + dir + "/s", []string{"unix " + dir + "/s"}, modeRenamed},
		{"unixpacket://" + dir + "/p", []string{"unixpacket " + dir + "/p"}, modeRenamed},
	} {
		t.Run(c.listen, func(t *testing.T) {
			s := open(t, c.listen, Config{Steer: true})
			if st := s.Status()[0]; st.Mode != c.mode {
				t.Fatalf("mode %s (%s)", st.Mode, st.Why)
			}
			one := serve(t, lease(t, s, 1))
			l2 := lease(t, s, 2)
			two := serve(t, l2)
			for _, client := range c.clients {
				network, address, _ := strings.Cut(client, " ")
				if strings.Contains(address, "%d") {
					address = fmt.Sprintf(address, port(s))
				}
				steer(t, s, 1)
				checkDial := func(gen int) {
					t.Helper()
					if got, err := ask(s.Dial(deadline(t, 5*time.Second), gen, network, address)); err != nil || got != gen {
						t.Fatalf("Dial(%d, %s) reached %d, %v", gen, address, got, err)
					}
				}
				wantGen(t, network, address, 1)
				checkDial(2)
				wantGen(t, network, address, 1)
				steer(t, s, 2)
				wantGen(t, network, address, 2)
				checkDial(1)
			}
			for gen := 1; gen <= 2; gen++ {
				if err := s.Accepted(deadline(t, 5*time.Second), gen, nil); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = one, two
		})
	}
}

func TestSteerUDP(t *testing.T) {
	for _, scheme := range []string{"udp4://127.0.0.1:0", "udp6://[::1]:0", "udp://:0"} {
		s := open(t, scheme, Config{Steer: true})
		l1, l2 := lease(t, s, 1), lease(t, s, 2)
		addr := local(s)
		if strings.HasPrefix(scheme, "udp6") {
			addr = "[::1]:" + strconv.Itoa(port(s))
		}
		c, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 20 {
			l := []*Lease{l1, l2}[i%2]
			steer(t, s, l.gen)
			fmt.Fprintf(c, "%d", i)
			b := make([]byte, 8)
			fd := l.Files()[0].FD
			until(t, "datagram", func() bool { return readable(fd) })
			if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); err != nil || string(b[:n]) != strconv.Itoa(i) {
				t.Fatalf("%s: %q %v", scheme, b[:max(n, 0)], err)
			}
		}
		l1.Release()
		steer(t, s, 2)
		fmt.Fprint(c, "x")
		until(t, "datagram", func() bool { return readable(l2.Files()[0].FD) })
	}
}

// failures counts what clients met, by kind.
type failures struct {
	mu    sync.Mutex
	kinds map[string]int
	total atomic.Int64
}

func (f *failures) add(err error) {
	kind := "other: " + err.Error()
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		kind = "refused"
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		kind = "reset"
	case errors.Is(err, io.ErrUnexpectedEOF), strings.HasPrefix(err.Error(), "answer"):
		kind = "cut off"
	case errors.Is(err, os.ErrDeadlineExceeded):
		kind = "timeout"
	case errors.Is(err, unix.ENOENT):
		kind = "no such path"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kinds == nil {
		f.kinds = map[string]int{}
	}
	f.kinds[kind]++
}

// hammer lets clients connect without pause until the returned function is called, which returns what failed.
func hammer(clients int, network, address string) func() *failures {
	f := &failures{}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for !stop.Load() {
				f.total.Add(1)
				if _, err := ask(net.Dial(network, address)); err != nil {
					f.add(err)
				}
			}
		}()
	}
	return func() *failures { stop.Store(true); wg.Wait(); return f }
}

// TestSwitchUnderLoad swaps generations while clients connect without pause, and stops each old generation the moment
// that its traffic is gone.
func TestSwitchUnderLoad(t *testing.T) {
	for _, c := range []struct {
		listen   string
		switches int
	}{{"tcp://:0", 45}, {"tcp4://127.0.0.1:0", 45}, {"unix://" + t.TempDir() + "/s", 40}} {
		t.Run(c.listen[:4], func(t *testing.T) {
			s := open(t, c.listen, Config{Steer: true})
			network, address := "tcp", local(s)
			if !s.held[0].addr.inet() {
				network, address = "unix", s.held[0].addr.Path
			}
			old := lease(t, s, 1)
			running := serve(t, old)
			finish := hammer(4, network, address)
			var took []time.Duration
			for gen := 2; gen <= c.switches+1; gen++ {
				if gen%5 == 0 { // a candidate that fails: nobody notices
					failed := lease(t, s, 1000+gen)
					serve(t, failed).stop()
					failed.Release()
				}
				next := lease(t, s, gen)
				serving := serve(t, next)
				if err := s.Accepted(deadline(t, 10*time.Second), gen, nil); err != nil {
					t.Fatal(err)
				}
				until(t, "probe counted", func() bool { return serving.accepted() > 0 })
				if n := serving.accepted(); n != 1 {
					t.Fatalf("generation %d had %d connections before the switch, want our probe alone", gen, n)
				}
				start := time.Now()
				steer(t, s, gen)
				took = append(took, time.Since(start))
				until(t, "old traffic gone", func() bool {
					load, err := old.Load()
					return err == nil && load.Known && load.Queued+load.HalfOpen+load.Open == 0
				})
				running.stop()
				old.Release()
				old, running = next, serving
				until(t, "traffic", func() bool { return running.accepted() > 50 })
			}
			f := finish()
			slices.Sort(took)
			t.Logf("%s: %d switches (Steer median %v, max %v), %d connections, failed %v, %d sockets open",
				network, len(took), took[len(took)/2], took[len(took)-1], f.total.Load(), f.kinds, slotCount(s))
			if len(f.kinds) > 0 || len(took) != c.switches {
				t.Errorf("failures: %v in %d switches", f.kinds, len(took))
			}
			until(t, "few slots are open for one generation", func() bool { return slotCount(s) <= 4 })
		})
	}
}

// TestManyGenerations drains in random order: the current slot never moves, so no connection goes astray.
func TestManyGenerations(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	s.quiesce = func() {} // so fast as it is here, slots would wait for one another
	rng := rand.New(rand.NewPCG(7, 7))
	apps, leases := map[int]*app{}, map[int]*Lease{}
	current := 0
	for gen := 1; gen <= 40; gen++ {
		leases[gen] = lease(t, s, gen)
		apps[gen] = serve(t, leases[gen])
		if current == 0 || rng.IntN(3) > 0 {
			steer(t, s, gen)
			current = gen
		}
		for g := range leases {
			if g != current && (len(leases) > 4 || rng.IntN(3) == 0) {
				apps[g].stop()
				leases[g].Release()
				delete(leases, g)
				wantGen(t, "tcp", local(s), current)
			}
		}
		wantGen(t, "tcp", local(s), current)
	}
	until(t, "twelve slots are left", func() bool { return slotCount(s) <= 12 })
}

func TestCrashIsLeasedAgain(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	l1 := lease(t, s, 1)
	first := serve(t, l1)
	wantGen(t, "tcp", local(s), 1)
	fd := l1.Files()[0].FD
	first.stop()
	l1.Release()
	answers := make(chan error, 20)
	for range cap(answers) {
		go func() {
			n, err := ask(net.Dial("tcp", local(s)))
			if err == nil && n != 2 {
				err = fmt.Errorf("generation %d answered", n)
			}
			answers <- err
		}()
	}
	until(t, "queue", func() bool { return s.Status()[0].Slots[0].Queue == cap(answers) })
	l2 := lease(t, s, 2)
	if l2.Files()[0].FD != fd {
		t.Error("the new generation has another slot than the one with the traffic")
	}
	if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK != 0 {
		t.Error("the slot is in the dead generation's mode")
	}
	serve(t, l2)
	for range cap(answers) {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

// TestLeftoverIsRelayed kills a generation with connections in its queue after the switch.
func TestLeftoverIsRelayed(t *testing.T) {
	for _, listen := range []string{"tcp://:0", "unix://" + t.TempDir() + "/s"} {
		s := open(t, listen, Config{Steer: true})
		network, address := "tcp", local(s)
		if strings.HasPrefix(listen, "unix") {
			network, address = "unix", s.held[0].addr.Path
		}
		l1 := lease(t, s, 1) // hung: accepts nothing
		var waiting []net.Conn
		for range 50 {
			c, err := net.Dial(network, address)
			if err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, c)
		}
		l2 := lease(t, s, 2)
		serve(t, l2)
		steer(t, s, 2)
		until(t, "50 are queued", func() bool { load, err := l1.Load(); return err == nil && load.Queued == 50 })
		l1.Release()
		for _, c := range waiting {
			if n, err := ask(c, nil); err != nil || n != 2 {
				t.Errorf("%s: answered by %d, %v", listen, n, err)
			}
		}
		until(t, "slot closed", func() bool { return len(s.Status()[0].Slots) == 1 })
	}
}

// slotCount is how many sockets the first address has open, spares included.
func slotCount(s *Set) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held[0].slots)
}

// TestHalfOpenIsRelayed releases a slot while a handshake of it is open, which ends afterwards.
func TestHalfOpenIsRelayed(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0?defer_accept=30", Config{Steer: true})
	l1 := lease(t, s, 1)
	c, err := net.Dial("tcp", local(s))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "half open", func() bool { l, err := l1.Load(); return err == nil && l.HalfOpen == 1 })
	l2 := lease(t, s, 2)
	serve(t, l2)
	steer(t, s, 2)
	l1.Release()
	for end := time.Now().Add(5 * relayLook); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if len(s.Status()[0].Slots) < 2 {
			t.Fatal("the slot was closed with a handshake open")
		}
	}
	if n, err := ask(c, nil); err != nil || n != 2 { // the client's first byte ends the handshake
		t.Errorf("answered by %d, %v", n, err)
	}
}

// TestLeavesUnseen: the listener that the kernel finds first in a group is not closed: of IPv4 the last that joined, until another one has
// been there for a while; of IPv6 the first, ever.
func TestLeavesUnseen(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0,tcp6://[::1]:0", Config{Steer: true})
	still := make(chan struct{})
	s.quiesce = func() { <-still }
	first := lease(t, s, 1)
	steer(t, s, 1)
	oldest := s.held[1].current
	failed := lease(t, s, 2)
	latest := failed.slotOf(s.held[0])
	failed.Release()
	open := func(h *held, sl *slot) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Contains(h.slots, sl) && sl.listening()
	}
	if !open(s.held[0], latest) {
		t.Error("the front of the IPv4 group is closed at once")
	}
	close(still)
	until(t, "it is closed behind another one", func() bool { return !open(s.held[0], latest) })
	for gen := 3; gen <= 8; gen++ {
		next := lease(t, s, gen)
		steer(t, s, gen)
		first.Release()
		first = next
		until(t, "the old slots are gone", func() bool { return len(s.Status()[0].Slots) == 1 && len(s.Status()[1].Slots) == 1 })
		if !open(s.held[1], oldest) {
			t.Fatal("the front of the IPv6 group is closed")
		}
	}
	until(t, "few are left", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.held[0].slots) <= 3 && len(s.held[1].slots) <= 3
	})
}

// TestLateHandshake: a processor that stood still in the middle of a packet adds a handshake to a slot that has lost the traffic and its
// processes, and whose handshakes have been looked at. Its client is answered all the same.
func TestLateHandshake(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0?defer_accept=30", Config{Steer: true})
	still := make(chan struct{})
	s.quiesce = func() { <-still }
	l1 := lease(t, s, 1)
	h, old := s.held[0], s.held[0].current
	l2 := lease(t, s, 2)
	serve(t, l2)
	steer(t, s, 2)
	if load, err := l1.Load(); err != nil || load.HalfOpen != 1 {
		t.Errorf("before all can be known: %+v, %v", load, err)
	}
	l1.Release()
	s.mu.Lock()
	before := h.aim
	err := h.program(aim{current: old}) // as it was when the packet came
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", local(s))
	s.mu.Lock()
	again := h.program(before)
	s.mu.Unlock()
	close(still)
	if err != nil || again != nil {
		t.Fatal(err, again)
	}
	for end := time.Now().Add(5 * relayLook); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if len(s.Status()[0].Slots) < 2 {
			t.Fatal("the slot was closed with a handshake open")
		}
	}
	if n, err := ask(c, nil); err != nil || n != 2 { // the client's first byte ends the handshake
		t.Errorf("answered by %d, %v", n, err)
	}
	until(t, "the slot is closed in the end", func() bool { return len(s.Status()[0].Slots) == 1 })
}

func TestSteerIsAllOrNothing(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0,tcp4://127.0.0.1:0", Config{Steer: true})
	serve(t, lease(t, s, 1))
	l2 := lease(t, s, 2)
	serve(t, l2)
	// The candidate shuts its second listener down.
	if err := unix.Shutdown(l2.Files()[1].FD, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if err := s.Steer(2); err == nil {
		t.Fatal("steered to a slot that does not listen")
	}
	for _, h := range s.held {
		wantGen(t, "tcp", "127.0.0.1:"+strconv.Itoa(h.at.port), 1)
	}
}

func TestShutdownByAnAppIsMended(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	l1 := lease(t, s, 1)
	for gen := 2; gen <= 3; gen++ {
		serve(t, lease(t, s, gen))
	}
	steer(t, s, 3)
	if err := unix.Shutdown(l1.Files()[0].FD, unix.SHUT_RDWR); err != nil { // the last member moves to 0
		t.Fatal(err)
	}
	for range 40 { // before anybody can have noticed
		wantGen(t, "tcp", local(s), 3)
	}
	s.Status()
	for range 20 {
		wantGen(t, "tcp", local(s), 3)
	}
	if err := s.Accepted(deadline(t, 5*time.Second), 2, nil); err != nil {
		t.Error(err)
	}
}

func TestStrangersCannotJoin(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: port(s), Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if os.Geteuid() == 0 && !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("another socket of uid 0 joined: %v", err)
	}
	if uid, _ := unix.SetfsuidRetUid(-1); uid != os.Geteuid() {
		t.Errorf("the thread was left with fsuid %d", uid)
	}
	if _, err := Open(addresses(t, "tcp4://127.0.0.1:"+strconv.Itoa(port(s))), Config{Steer: true}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second holder: %v, want address already in use", err)
	}
}

func TestSharedModes(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0,unix://@entrypoint-test-"+strconv.Itoa(os.Getpid()), Config{})
	l1 := lease(t, s, 1)
	a := serve(t, l1)
	if err := s.Accepted(deadline(t, 5*time.Second), 1, nil); err != nil {
		t.Fatal(err)
	}
	l2 := lease(t, s, 2)
	if l1.Files()[0].FD != l2.Files()[0].FD {
		t.Error("a shared socket has two descriptors")
	}
	for _, st := range s.Status() {
		if st.Mode != modeShared || st.Why == "" {
			t.Errorf("status %+v", st)
		}
	}
	if _, err := s.Dial(deadline(t, time.Second), 2, "tcp", local(s)); !errors.Is(err, ErrNotSteerable) {
		t.Errorf("Dial: %v", err)
	}
	if load, err := l1.Load(); err != nil || load.Known {
		t.Errorf("load %+v %v", load, err)
	}
	steer(t, s, 2)
	// Proof by descriptors: this process has them all, a process without any of ours has none.
	tcpOnly := open(t, "tcp4://127.0.0.1:0", Config{})
	lease(t, tcpOnly, 1)
	serve(t, lease(t, tcpOnly, 2))
	if err := tcpOnly.Accepted(deadline(t, 5*time.Second), 2, func() []int { return []int{os.Getpid()} }); err != nil {
		t.Error(err)
	}
	err := tcpOnly.Accepted(deadline(t, 100*time.Millisecond), 2, func() []int { return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("accepted by somebody else: %v", err)
	}
	a.stop()
}

func TestErrors(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	lease(t, s, 1)
	ctx := deadline(t, 5*time.Second)
	for _, c := range []struct {
		network, address string
		want             error
	}{
		{"tcp", "127.0.0.1:1", ErrNotHeld},
		{"tcp", "127.0.0.2:" + strconv.Itoa(port(s)), ErrNotHeld},
		{"tcp6", "[::1]:" + strconv.Itoa(port(s)), ErrNotHeld},
		{"unix", "/nowhere", ErrNotHeld},
		{"udp", local(s), ErrNotSteerable},
	} {
		if _, err := s.Dial(ctx, 1, c.network, c.address); !errors.Is(err, c.want) {
			t.Errorf("Dial(%s, %s): %v, want %v", c.network, c.address, err, c.want)
		}
	}
	if _, err := s.Lease(1); err == nil {
		t.Error("leased twice")
	}
	if s.Steer(9) == nil {
		t.Error("steered to nobody")
	}
	short := deadline(t, 30*time.Millisecond)
	if err := s.Accepted(short, 1, nil); err == nil || short.Err() == nil {
		t.Errorf("nobody accepts, yet: %v", err)
	}
	empty := open(t, "", Config{Steer: true})
	l := lease(t, empty, 1)
	if err := empty.Accepted(ctx, 1, nil); !errors.Is(err, ErrNoStream) || len(l.Files()) != 0 {
		t.Errorf("no sockets: %v", err)
	}
	steer(t, empty, 1)
}

func TestNoDescriptorLeaks(t *testing.T) {
	before := openFDs(t)
	dir := t.TempDir()
	for round := range 4 {
		s, err := Open(addresses(t, "tcp://:0,udp://:0,unix://"+dir+"/s,unixgram://"+dir+"/d"), Config{Steer: round%2 == 0})
		if err != nil {
			t.Fatal(err)
		}
		for gen := 1; gen <= 12; gen++ {
			l := lease(t, s, gen)
			if gen%3 > 0 {
				steer(t, s, gen)
			}
			for _, f := range l.Files() {
				if flags, err := unix.FcntlInt(uintptr(f.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Fatalf("%s is not close-on-exec: %v", f.Name, err)
				}
				if flags, err := unix.FcntlInt(uintptr(f.FD), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
					t.Fatalf("%s is not blocking: %v", f.Name, err)
				}
			}
			l.Release()
		}
		n, err := NewNotify(1, AllProtocols, func(int) bool { return true }, func(Message) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(n.Close(), s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if after := openFDs(t); after > before+1 { // Go's own epoll may be one
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// However generations come and go, after a few quiet swaps few slots are left: the current one, and spares that keep its index.
func TestSparesDoNotPileUp(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	rng := rand.New(rand.NewPCG(1, 2))
	live := []*Lease{lease(t, s, 1)}
	for gen := 2; gen <= 200; gen++ {
		l := lease(t, s, gen)
		if rng.IntN(4) == 0 {
			l.Release() // a candidate that failed
			continue
		}
		steer(t, s, gen)
		for _, old := range live {
			if rng.IntN(2) == 0 {
				old.Release()
			}
		}
		live = append(live, l)
	}
	last := live[len(live)-1]
	for _, l := range live {
		if l != last {
			l.Release()
		}
	}
	until(t, "what they had is relayed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !slices.ContainsFunc(s.held[0].slots, func(sl *slot) bool { return sl.phase == retiring || sl.phase == spent })
	})
	for gen := 201; gen <= 203; gen++ { // a few quiet swaps bring the current slot to a low index
		l := lease(t, s, gen)
		steer(t, s, gen)
		last.Release()
		last = l
	}
	until(t, "slots are closed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.held[0].slots) <= 4
	})
}
