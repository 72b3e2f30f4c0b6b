package handoff

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// leaseWorkers leases n seats of a generation.
func leaseWorkers(t *testing.T, s *Set, gen, n int) []*Lease {
	t.Helper()
	var all []*Lease
	for i := range n {
		l, err := s.LeaseWorker(gen, i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// serveWorker answers with 100 times the generation, plus the worker.
func serveWorker(t *testing.T, l *Lease) *app {
	t.Helper()
	a := serveLater(l)
	a.begin(t, l)
	return a
}

func serveLater(l *Lease) *app { return &app{gen: 100*l.at.Generation + l.at.Worker} }

func (a *app) begin(t *testing.T, l *Lease) {
	t.Helper()
	for _, f := range l.Files() {
		ln, err := listenerOf(f.FD)
		if err != nil {
			t.Fatal(err)
		}
		a.lns = append(a.lns, ln)
		a.loops.Add(1)
		go a.accept(ln)
	}
	t.Cleanup(a.stop)
}

func spread(t *testing.T, s *Set, active int, seats ...Seat) {
	t.Helper()
	if err := s.Spread(active, seats); err != nil {
		t.Fatal(err)
	}
}

// TestLargestProgramOfWorkers: 64 workers beside 64 others, all networks and all probes fit, and the kernel takes it.
func TestLargestProgramOfWorkers(t *testing.T) {
	p := plan{hashed: true, others: make([]int, MaxWorkers-1), split: &division{others: make([]int, MaxWorkers-1), share: Share{Portion: 0.5, Sticky: true}}}
	for i := range maxPairs {
		p.routes = append(p.routes, route{src: netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i))})
	}
	for range MaxNetworks {
		n, _ := netip.IPv6Loopback().Prefix(127)
		p.split.share.Never = append(p.split.share.Never, n)
	}
	prog := p.build()
	t.Logf("%d instructions", len(prog))
	if len(prog) > unix.BPF_MAXINSNS || 8*len(prog) > 20000 { // net.core.optmem_max of older kernels is 20 KiB
		t.Fatalf("%d instructions are too many", len(prog))
	}
	s := open(t, "tcp://:0", Config{Steer: true})
	if err := attachProgram(s.held[0].current.fd, prog); err != nil {
		t.Error(err)
	}
}

// withinMany is within99 for what is left to chance, at each run anew: one of a million true counts is outside.
func withinMany(t *testing.T, what string, got, n int, p float64) {
	t.Helper()
	mean, spread := float64(n)*p, 4.9*math.Sqrt(float64(n)*p*(1-p))+1
	if d := math.Abs(float64(got) - mean); d > spread {
		t.Errorf("%s: %d of %d, want %.0f within %.0f", what, got, n, mean, spread)
	}
}

// TestWorkersGetEvenParts: each of eight workers gets an eighth, on IPv4 and IPv6; and what a share leaves to them, and gives to a
// candidate's workers, is divided evenly too.
func TestWorkersGetEvenParts(t *testing.T) {
	const workers = 8
	for _, c := range []struct{ listen, address string }{
		{"tcp4://127.0.0.1:0", "127.0.0.1:%d"}, {"tcp://:0", "[::1]:%d"}, {"tcp://:0", "127.0.0.1:%d"},
	} {
		t.Run(c.listen+" "+c.address, func(t *testing.T) {
			s := open(t, c.listen, Config{Steer: true})
			for _, l := range leaseWorkers(t, s, 1, workers) {
				serveWorker(t, l)
			}
			steer(t, s, 1)
			n, address := manyConnections(), fmt.Sprintf(c.address, port(s))
			got := tally(t, n, 4, "tcp", address, nil)
			t.Logf("%v", got)
			for w := range workers {
				withinMany(t, fmt.Sprint("worker ", w), got[100+w], n, 1.0/workers)
			}
			for _, l := range leaseWorkers(t, s, 2, 4) {
				serveWorker(t, l)
			}
			split(t, s, 1, 2, "40%")
			got = tally(t, n, 4, "tcp", address, nil)
			t.Logf("%v", got)
			for w := range workers {
				withinMany(t, fmt.Sprint("worker beside a share ", w), got[100+w], n, 0.6/workers)
			}
			for w := range 4 {
				withinMany(t, fmt.Sprint("worker with a share ", w), got[200+w], n, 0.4/4)
			}
			for _, sl := range s.Status()[0].Slots {
				if want := map[int]float64{1: 0.6 / workers, 2: 0.1}[sl.Generation]; sl.Portion < want-1e-9 || sl.Portion > want+1e-9 || sl.Current != (sl.Generation == 1) {
					t.Errorf("status %+v", sl)
				}
			}
		})
	}
}

// TestWorkersDatagrams: a conversation meets one worker, many of them meet all.
func TestWorkersDatagrams(t *testing.T) {
	for _, listen := range []string{"udp4://127.0.0.1:0", "udp://:0", "udp6://[::1]:0"} {
		s := open(t, listen, Config{Steer: true})
		const workers, clients = 4, 600
		leases := leaseWorkers(t, s, 1, workers)
		steer(t, s, 1)
		addr, count := local(s), [workers]int{}
		if listen[:4] == "udp6" {
			addr = "[::1]:" + strconv.Itoa(port(s))
		}
		for i := range clients {
			c, err := net.Dial("udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				fmt.Fprint(c, i)
			}
			got := [workers]int{}
			until(t, "three datagrams", func() bool {
				sum, b := 0, make([]byte, 8)
				for w, l := range leases {
					if n, _, err := unix.Recvfrom(l.Files()[0].FD, b, unix.MSG_DONTWAIT); err == nil && string(b[:n]) == strconv.Itoa(i) {
						got[w]++
					}
					sum += got[w]
				}
				return sum == 3
			})
			w := slices.Index(got[:], 3)
			if w < 0 {
				t.Fatalf("%s: client %d was torn: %v", listen, i, got)
			}
			count[w]++
			c.Close()
		}
		for w := range workers {
			withinMany(t, fmt.Sprint(listen, " worker ", w), count[w], clients, 1.0/workers)
		}
	}
}

// TestWorkerIsReplacedUnderLoad takes worker after worker out, by a successor in another generation or by itself, with what waits in its
// queue: no connection fails, and one who has left gets none.
func TestWorkerIsReplacedUnderLoad(t *testing.T) {
	s := open(t, "tcp://:0,tcp4://127.0.0.1:0", Config{Steer: true})
	const workers = 5
	type place struct {
		l *Lease
		a *app
	}
	var now [workers]place
	var seats [workers]Seat
	for w, l := range leaseWorkers(t, s, 1, workers) {
		now[w], seats[w] = place{l, serveWorker(t, l)}, l.at
	}
	steer(t, s, 1)
	finish := hammer(4, "tcp", local(s))
	second := hammer(1, "tcp", "127.0.0.1:"+strconv.Itoa(s.held[1].at.port))
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		w := rng.IntN(workers)
		old := now[w]
		gen := old.l.at.Generation + 1
		alone := round%3 == 0
		if alone { // as after a crash: nobody takes its place for a while, and its queue is not empty
			gen--
			var rest []Seat
			for i := range seats {
				if i != w {
					rest = append(rest, seats[i])
				}
			}
			old.a.stop()
			before := s.Status()[0]
			until(t, "clients wait", func() bool { before = s.Status()[0]; return queueOf(before, old.l.at) > 0 })
			spread(t, s, 100, rest...)
			old.l.Release()
		}
		l, err := s.LeaseWorker(gen, w)
		if err != nil {
			t.Fatal(err)
		}
		now[w], seats[w] = place{l, serveWorker(t, l)}, l.at
		spread(t, s, 100, seats[:]...)
		got := now[w].a.accepted()
		until(t, "the new one serves", func() bool { return now[w].a.accepted() > got+5 })
		if !alone {
			gone(t, old.l)
			got = old.a.accepted()
			wantAny(t, local(s))
			if n := old.a.accepted() - got; n != 0 {
				t.Fatalf("one that had left got %d connections", n)
			}
			old.a.stop()
			old.l.Release()
		}
	}
	f, g := finish(), second()
	t.Logf("%d connections, failed %v %v, %d slots", f.total.Load()+g.total.Load(), f.kinds, g.kinds, slotCount(s))
	if len(f.kinds)+len(g.kinds) > 0 {
		t.Errorf("failures: %v %v", f.kinds, g.kinds)
	}
}

func queueOf(st SocketStatus, at Seat) int {
	for _, sl := range st.Slots {
		if sl.Generation == at.Generation && sl.Worker == at.Worker {
			return sl.Queue
		}
	}
	return 0
}

func wantAny(t *testing.T, address string) {
	t.Helper()
	if _, err := ask(net.Dial("tcp", address)); err != nil {
		t.Fatal(err)
	}
}

// TestWorkersQueuesAreLeasedAgain: when nobody of a generation is left, what waits in each queue waits for the next one.
func TestWorkersQueuesAreLeasedAgain(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	old := leaseWorkers(t, s, 1, 3)
	steer(t, s, 1)
	answers := make(chan error, 60)
	for range cap(answers) {
		go func() {
			n, err := ask(net.Dial("tcp", local(s)))
			if err == nil && n/100 != 2 {
				err = fmt.Errorf("%d answered", n)
			}
			answers <- err
		}()
	}
	waiting := func() (n int) {
		for _, sl := range s.Status()[0].Slots {
			n += sl.Queue
		}
		return n
	}
	until(t, "all wait", func() bool { return waiting() == cap(answers) })
	for _, l := range old {
		l.Release()
	}
	if n := waiting(); n != cap(answers) {
		t.Fatalf("%d of %d wait after the generation's end", n, cap(answers))
	}
	for _, l := range leaseWorkers(t, s, 2, 3) {
		serveWorker(t, l)
	}
	for range cap(answers) {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	steer(t, s, 2)
}

// TestACandidateGetsNoDesertedSlot: while siblings serve, the slot of a worker that is gone waits for one of its own generation.
func TestACandidateGetsNoDesertedSlot(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	old := leaseWorkers(t, s, 1, 2)
	steer(t, s, 1)
	fd := old[1].Files()[0].FD
	old[1].Release() // nobody has spread the traffic over the rest
	l2 := lease(t, s, 2)
	if l2.Files()[0].FD == fd {
		t.Error("the candidate has a slot with traffic")
	}
	again, err := s.LeaseWorker(1, 1)
	if err != nil || again.Files()[0].FD != fd {
		t.Errorf("the worker's own successor has another slot than the one with its queue: %v", err)
	}
}

// TestWorkersLoad: what each of many workers has is known, by its colour or by its descriptors, and so is what all of them have.
func TestWorkersLoad(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	const workers = 20
	all := leaseWorkers(t, s, 1, workers)
	steer(t, s, 1)
	for range 300 {
		c, err := net.Dial("tcp", local(s))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	until(t, "no handshakes", func() bool {
		load, err := all[0].LoadAll()
		return err == nil && load.Queued == 300 && load.HalfOpen == 0
	})
	shared := 0
	for w, l := range all {
		alone := sameColor(s, w) == 1
		if !alone {
			shared++
		}
		queued := queueOf(s.Status()[0], l.at)
		acceptAll(t, l, queued/2)
		l.Processes(func() []int { return nil }) // this process has the connections of all of them
		if alone {
			wantCounts(t, l, queued-queued/2, queued/2)
		}
	}
	if shared == 0 {
		t.Error("no colour is shared by twenty workers: the test shows nothing")
	}
	next := leaseWorkers(t, s, 2, workers)
	steer(t, s, 2)
	kept := 0
	for range 40 {
		c, err := net.Dial("tcp", local(s))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		kept++
	}
	until(t, "the generations are told apart", func() bool {
		one, err1 := all[0].LoadAll()
		two, err2 := next[0].LoadAll()
		return err1 == nil && err2 == nil && one.Known && two.Known && one.Queued+one.Open == 300 && two.Queued+two.Open == kept
	})
}

func sameColor(s *Set, worker int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[0]
	color, n := h.slotOf(Seat{1, worker}).color, 0
	for _, sl := range h.slots {
		if sl.color == color {
			n++
		}
	}
	return n
}

// TestWorkersLoadByDescriptors: of workers with one colour, the one that is asked about has what is among its descriptors.
func TestWorkersLoadByDescriptors(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	all := leaseWorkers(t, s, 1, MaxWorkers)
	a, b := all[MaxWorkers-2], all[MaxWorkers-1]
	if s.held[0].slotOf(a.at).color == 0 {
		t.Skip("no colours here")
	}
	for _, sl := range s.held[0].slots { // one colour for all but the first
		if sl.gen == 1 && sl.worker > 0 {
			sl.color = s.held[0].slotOf(a.at).color
			setColor(sl.fd, sl.color)
		}
	}
	spread(t, s, 1, a.at)
	dialed := func(l *Lease, n int) {
		spread(t, s, 1, l.at)
		for range n {
			c, err := net.Dial("tcp", local(s))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
		until(t, "they wait", func() bool { return queueOf(s.Status()[0], l.at) == n })
	}
	dialed(a, 7)
	dialed(b, 5)
	a.Processes(func() []int { return []int{os.Getpid()} })
	b.Processes(func() []int { return nil })
	acceptAll(t, a, 4)
	wantCounts(t, a, 3, 4)
	wantCounts(t, b, 5, 0)
	a.Processes(nil)
	if load, err := a.Load(); err != nil || load.Known {
		t.Errorf("load %+v, %v without anybody to tell", load, err)
	}
}

// TestWorkersPath: the workers of a generation share the socket of a path, which goes to the generation that has more of them.
func TestWorkersPath(t *testing.T) {
	path := t.TempDir() + "/s"
	s := open(t, "unix://"+path, Config{Steer: true})
	one, two := leaseWorkers(t, s, 1, 3), leaseWorkers(t, s, 2, 3)
	for _, l := range append(slices.Clone(one), two...) {
		a := serveLater(l)
		a.gen = l.at.Generation
		a.begin(t, l)
	}
	if one[0].Files()[0].FD != one[2].Files()[0].FD || one[0].Files()[0].FD == two[0].Files()[0].FD {
		t.Fatal("workers do not share the socket of their path, or generations do")
	}
	steer(t, s, 1)
	wantGen(t, "unix", path, 1)
	spread(t, s, 1, two[0].at, one[1].at, one[2].at)
	wantGen(t, "unix", path, 1)
	spread(t, s, 1, two[0].at, two[1].at, one[2].at)
	wantGen(t, "unix", path, 2)
	two[0].Release()
	spread(t, s, 2, two[1].at)
	wantGen(t, "unix", path, 2)
}

// TestWorkersManySlots: leases of workers come and go, and slots with traffic never change their index.
func TestWorkersManySlots(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0,tcp4://127.0.0.1:0", Config{Steer: true})
	rng := rand.New(rand.NewPCG(5, 6))
	live := map[Seat]*Lease{}
	for _, l := range leaseWorkers(t, s, 1, 4) {
		live[l.at] = l
	}
	steer(t, s, 1)
	for i := range 400 {
		at := Seat{1, rng.IntN(12)}
		if l := live[at]; l == nil {
			l, err := s.LeaseWorker(at.Generation, at.Worker)
			if err != nil {
				t.Fatal(err)
			}
			live[at] = l
		} else if len(live) > 1 {
			delete(live, at)
			spread(t, s, 1, keys(live)...)
			l.Release()
		}
		spread(t, s, 1, keys(live)...)
		s.mu.Lock()
		for _, h := range s.held {
			if len(h.main()) != len(live) {
				t.Fatalf("round %d: %d slots have the traffic, %d workers live", i, len(h.main()), len(live))
			}
			for _, sl := range h.main() {
				if h.order.index(sl) < 0 || sl.phase != leased || live[Seat{sl.gen, sl.worker}] == nil {
					t.Fatalf("round %d: slot %+v has traffic", i, sl)
				}
			}
		}
		s.mu.Unlock()
	}
	c, err := net.Dial("tcp", local(s))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func keys(m map[Seat]*Lease) []Seat {
	var list []Seat
	for at := range m {
		list = append(list, at)
	}
	return list
}

// TestWorkersLearn: what each worker binds by itself is its own slot of the address, which a successor is expected to have too, also one
// that takes the place of a single worker.
func TestWorkersLearn(t *testing.T) {
	s, _ := learning(t, "")
	address := "127.0.0.1:" + vacantPort(t)
	start := func(l *Lease) *program {
		p := runOn(t, l)
		p.OK("socket a tcp4\nbind a %s\nlisten a 5\nserve a %d", address, 100*l.at.Generation+l.at.Worker)
		return p
	}
	var one []*program
	for _, l := range leaseWorkers(t, s, 1, 3) {
		if p := l.Progress(); l.at.Worker > 0 && !slices.Equal(p.Missing, []string{"tcp://" + address}) {
			t.Errorf("worker %d of the first generation is expected on %q", l.at.Worker, p.Missing)
		}
		one = append(one, start(l))
	}
	steer(t, s, 1)
	all := func(what string, n int, want ...int) {
		t.Helper()
		got := tally(t, n, 2, "tcp", address, nil)
		if len(got) != len(want) {
			t.Errorf("%s: answers %v, want some of each of %v", what, got, want)
		}
		for _, w := range want {
			if got[w] == 0 {
				t.Errorf("%s: answers %v, want some of each of %v", what, got, want)
			}
		}
	}
	all("the first generation", 100, 100, 101, 102)
	spread(t, s, 1, one[0].at, one[2].at)
	one[1].leave(t)
	all("without one", 100, 100, 102)
	again, err := s.LeaseWorker(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if p := again.Progress(); !slices.Equal(p.Missing, []string{"tcp://" + address}) {
		t.Errorf("a worker that is started again is expected on %q", p.Missing)
	}
	one[1] = start(again)
	all("before it is ready", 100, 100, 102)
	spread(t, s, 1, one[0].at, one[1].at, one[2].at)
	all("when it is", 100, 100, 101, 102)

	next := leaseWorkers(t, s, 2, 1)[0]
	if p := next.Progress(); !slices.Equal(p.Missing, []string{"tcp://" + address}) {
		t.Errorf("a successor is expected on %q", p.Missing)
	}
	two := start(next)
	all("before it has a part", 100, 100, 101, 102)
	spread(t, s, 1, two.at, one[1].at, one[2].at)
	all("when it has one", 100, 200, 101, 102)
	one[0].leave(t)
}
