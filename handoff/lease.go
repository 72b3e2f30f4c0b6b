package handoff

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"
)

// MaxWorkers bounds the workers of a generation: so many fit beside the largest share into a group's program.
const MaxWorkers = 64

// Seat is the place of one process of the app: a worker, numbered from 0, of a generation, numbered from 1.
type Seat struct{ Generation, Worker int }

// Lease is one worker's right to its slots. Make one with Set.Lease or Set.LeaseWorker. All methods are safe for concurrent use.
type Lease struct {
	set *Set
	gen int
	at  Seat
	own func() []int // its processes; nil: not told

	// What follows is for programs that bind by themselves, and belongs to the Set's lock.
	since time.Time
	notes notes
	met   map[*held]bool // learned addresses on which the generation has listened
}

// errClosed is what methods return after Close.
var errClosed = errors.New("the sockets are closed")

// Lease gives a generation of one process, numbered from 1, slots of every address: it is LeaseWorker of its worker 0.
func (s *Set) Lease(gen int) (*Lease, error) { return s.LeaseWorker(gen, 0) }

// LeaseWorker gives one worker of a generation slots of every address. A slot that has the traffic and no process (at the
// beginning, or after a crash) is leased again with everything that waits in its queue, unless another generation serves beside
// it; else the worker gets fresh slots, which take no traffic until Steer or Spread. The workers of a generation share the socket of
// a unix path. On error the worker has no lease.
func (s *Set) LeaseWorker(gen, worker int) (*Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	at := Seat{gen, worker}
	if gen < 1 || worker < 0 || worker >= MaxWorkers || s.leases[at] != nil {
		return nil, fmt.Errorf("internal error: generation %d has a lease already or is no generation", gen)
	}
	for _, h := range s.held {
		if h.learned {
			continue // when it listens
		}
		if err := s.leaseOne(h, at); err != nil {
			s.release(at)
			return nil, err
		}
	}
	l := &Lease{set: s, gen: gen, at: at, since: time.Now(), met: map[*held]bool{}}
	s.leases[at] = l
	return l, nil
}

// Processes tells which processes have the lease's sockets, from the function's own list at each call. It lets Load tell the
// connections of one worker from those of its siblings where neither socket nor colour does.
func (l *Lease) Processes(own func() []int) {
	l.set.mu.Lock()
	defer l.set.mu.Unlock()
	l.own = own
}

// seats are those of a generation that have a lease, in the order of their numbers.
func (s *Set) seats(gen int) []Seat {
	var list []Seat
	for at := range s.leases {
		if at.Generation == gen {
			list = append(list, at)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Worker < list[j].Worker })
	return list
}

func (s *Set) leaseOne(h *held, at Seat) error {
	if !h.swappable() || h.slotOf(at) != nil { // a path of which a sibling has the socket
		return nil
	}
	if err := s.check(h); err != nil {
		return err
	}
	sl := h.deserted(at.Generation)
	if sl != nil {
		if err := sl.refresh(); err != nil {
			return fmt.Errorf("cannot lease %q again: %w", h.String(), err)
		}
	} else {
		if sl = h.spare(); sl == nil {
			var err error
			if sl, err = s.addSlot(h); err != nil {
				return err
			}
		}
		s.paint(h, sl, at.Generation)
	}
	sl.phase, sl.gen, sl.worker = leased, at.Generation, at.Worker
	s.guard(h)
	return nil
}

// deserted is a slot that has the traffic and no process, nil if there is none, or if a generation other than the one that asks
// serves beside it: a candidate must not get traffic so.
func (h *held) deserted(gen int) *slot {
	var found *slot
	for _, sl := range h.main() {
		switch {
		case sl.phase == leased && sl.gen != gen:
			return nil
		case sl.phase == idle && found == nil:
			found = sl
		}
	}
	return found
}

// spare is the open slot of the lowest index that nobody ever had, nil if there is none.
func (h *held) spare() *slot {
	for _, sl := range h.spares() {
		if h.mode != modeSteered || h.order.index(sl) >= 0 {
			return sl
		}
	}
	return nil
}

// Steer gives all new connections to a generation that has a lease, evenly to all of its workers that have one, and ends any share that
// Split gave. It is atomic for each
// address, and all or nothing over the addresses: on error those already switched are switched back. It does not block. Shared
// addresses are left as they are.
func (s *Set) Steer(gen int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case len(s.seats(gen)) == 0:
		return fmt.Errorf("internal error: generation %d has no lease", gen)
	}
	seats := s.seats(gen)
	if err := s.aimAll(func(h *held) aim { return leadAim(h, seats) }); err != nil {
		return err
	}
	s.split = nil
	s.led(gen, seats)
	return nil
}

// Spread gives the new connections that Split does not give to a candidate evenly to these workers, and to no other; all must have a
// lease. They may be of two generations, while one takes the place of the other worker by worker: active is the one that counts as steered
// to. A unix path, which leads to one socket, goes to the generation that has more of them. Else it is as Steer.
func (s *Set) Spread(active int, workers []Seat) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if len(workers) == 0 {
		return errors.New("internal error: the traffic cannot be spread over no workers")
	}
	for _, at := range workers {
		if s.leases[at] == nil {
			return fmt.Errorf("internal error: worker %d of generation %d has no lease", at.Worker, at.Generation)
		}
	}
	if s.split != nil && slices.ContainsFunc(workers, func(at Seat) bool { return at.Generation == s.split.candidate }) {
		return fmt.Errorf("internal error: generation %d has a share and cannot have the rest too", s.split.candidate)
	}
	seats := slices.Clone(workers)
	if err := s.aimAll(func(h *held) aim { return s.withShare(h, leadAim(h, seats)) }); err != nil {
		return err
	}
	s.led(active, seats)
	return nil
}

// led notes who has the traffic from now on.
func (s *Set) led(gen int, seats []Seat) {
	if gen > s.active {
		s.steered++
	}
	s.active, s.lead = gen, seats
	for _, h := range s.held {
		h.owned = h.owned || !h.swappable() && s.activeHas(h)
	}
}

// leadAim is the slots of these workers. Where none of them has listened, or ever will, those that have the traffic keep it: see
// expire.
func leadAim(h *held, seats []Seat) aim {
	if !h.swappable() {
		return aim{current: h.current}
	}
	var list []*slot
	votes := map[*slot]int{}
	for _, at := range seats {
		sl := h.slotOf(at)
		if sl == nil {
			continue
		}
		if votes[sl]++; votes[sl] == 1 {
			list = append(list, sl)
		}
	}
	switch {
	case len(list) == 0:
		return aim{current: h.current, others: h.others}
	case h.mode == modeRenamed:
		return aim{current: slices.MaxFunc(list, func(a, b *slot) int { return cmp.Or(votes[a]-votes[b], a.gen-b.gen) })}
	}
	return aim{current: list[0], others: list[1:]}
}

// trade is a switch of one address from before to the aim that it has now.
type trade struct {
	h      *held
	before aim
}

// traded does the book-keeping after switches: a slot with traffic owes nothing, that of a loser is written down, and a loser
// without a generation is retired at once.
func (s *Set) traded(trades ...trade) {
	var losses []*loss
	for _, t := range trades {
		if t.h.mode == modeSteered && t.h.addr.stream() {
			t.h.blur(t.before)
		}
		s.guard(t.h)
		all := t.before.all()
		for _, sl := range all {
			if !t.h.leads(sl) {
				losses = append(losses, &loss{h: t.h, sl: sl, mixed: len(all) > 1})
			}
		}
	}
	writeDown(losses)
	s.settle(losses)
	for _, l := range losses {
		if l.sl.phase == idle {
			s.retire(l.h, l.sl)
		}
	}
}

// blur notes what a switch has made of the slots with traffic: they owe nothing, and those without a colour that have been served
// side by side cannot be told apart any more.
func (h *held) blur(before aim) {
	all := h.all()
	for _, sl := range all {
		if !before.leads(sl) {
			sl.left, sl.mixed, sl.unsettled, sl.late = nil, false, nil, nil
		}
		sl.blurred = sl.blurred || sl.color == 0 && len(all) > 1
	}
}

// Release ends a lease, after all processes of the worker are gone. A slot with the traffic stays for the next Lease.
// What waits in the queues of the others is relayed to the current slot, in the background; then they are closed.
// Releasing twice does nothing.
func (l *Lease) Release() {
	s := l.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[l.at] != l {
		return
	}
	delete(s.leases, l.at)
	l.dropUnlistened()
	if !s.closed {
		s.splitOver(l.gen)
		s.release(l.at)
	}
}

func (s *Set) release(at Seat) {
	for _, h := range slices.Clone(s.held) {
		if !h.swappable() {
			s.releaseShared(h)
			continue
		}
		sl := h.slotOf(at)
		if sl == nil || h.mode == modeRenamed && len(s.seats(at.Generation)) > 0 {
			continue // nothing there, or what a sibling has too
		}
		if err := s.check(h); err != nil {
			s.logf("%v", err)
		}
		switch sl.gen, sl.worker = 0, 0; {
		case slices.Contains(h.main(), sl):
			sl.phase = idle
			s.expire(h)
		case h.learned && !h.owned:
			s.dropAddress(h) // only a refused candidate ever had it
		default:
			s.retire(h, sl)
		}
	}
}

// releaseShared looks after a learned address with one socket for all, when a generation has gone: nobody may be left who
// listens there.
func (s *Set) releaseShared(h *held) {
	switch {
	case !h.learned || s.anyoneHas(h):
	case !h.owned:
		s.dropAddress(h) // only a refused candidate ever had it
	default:
		s.expire(h)
	}
}

// retire empties a slot without traffic and without a generation, then closes it.
func (s *Set) retire(h *held, sl *slot) {
	sl.phase, sl.gen, sl.worker = retiring, 0, 0
	if !h.addr.stream() || !sl.served && sl.queue(&h.addr) == 0 {
		sl.phase = spent
		s.sweep(h)
		return
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.relay(h, sl)
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed {
			sl.phase = spent
			s.sweep(h)
		}
	}()
}

// File is one descriptor of a lease, for a program to inherit.
type File struct {
	// Name is the address's name, Raw how it was configured.
	Name, Raw string
	// FD is a descriptor of ours: close-on-exec and owned by the Set. It must not be used by the Go runtime.
	FD int
	// Port is the actual port, 0 for unix sockets.
	Port int
}

// Files lists the generation's descriptors of configured addresses in their order, adopted ones last. It is empty after
// Release.
func (l *Lease) Files() []File {
	s := l.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.leases[l.at] != l {
		return nil
	}
	var out []File
	for _, h := range s.held {
		if sl := h.slotOf(l.at); sl != nil && !h.learned {
			out = append(out, File{Name: h.addr.Name, Raw: h.addr.Raw, FD: sl.fd, Port: h.at.port})
		}
	}
	return out
}

// SocketStatus describes one held address.
type SocketStatus struct {
	Name string `json:"name"`
	// Address is scheme and address with the actual port.
	Address string `json:"address"`
	// Mode is "steered", "renamed" or "shared"; Why says why an address is shared, or has no part in a split.
	Mode string `json:"mode"`
	Why  string `json:"why,omitempty"`
	// Share is what a candidate has of the new connections here, as ParseShare reads it; empty if all go one way.
	Share string `json:"share,omitempty"`
	// Learned is true if the address is not configured but one that the app binds by itself.
	Learned bool `json:"learned,omitempty"`
	// Slots are the sockets behind the address; a shared one has a single slot of generation 0.
	Slots []SlotStatus `json:"slots"`
}

// SlotStatus describes one slot.
type SlotStatus struct {
	// Generation that has it; 0 for nobody.
	Generation int `json:"generation"`
	// Worker of the generation that has it; of a unix path, the first of them.
	Worker int `json:"worker,omitempty"`
	// Queue is the number of connections waiting to be accepted (datagrams: 1 if any waits).
	Queue int `json:"queue"`
	// Current is true where new connections go, but for a share of them.
	Current bool `json:"current"`
	// Portion, 0 to 1, is how much of the new connections goes here, less those of named networks.
	Portion float64 `json:"portion"`
}

// Status describes all addresses in configured order. Spare slots are left out.
func (s *Set) Status() []SocketStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []SocketStatus
	for _, h := range s.held {
		if err := s.check(h); err != nil {
			s.logf("%v", err)
		}
		st := h.status()
		if s.split != nil && h.mode == modeRenamed {
			st.Why = whyWhole
		}
		out = append(out, st)
	}
	return out
}

func (h *held) status() SocketStatus {
	st := SocketStatus{Name: h.addr.Name, Address: h.String(), Mode: h.mode, Why: h.why, Learned: h.learned, Slots: []SlotStatus{}}
	if h.part != nil {
		st.Share = h.given.String()
	}
	main := h.main()
	for _, sl := range h.slots {
		if sl.phase != spare && sl.phase != spent {
			st.Slots = append(st.Slots, SlotStatus{Generation: sl.gen, Worker: sl.worker, Queue: sl.queue(&h.addr), Current: slices.Contains(main, sl), Portion: h.portion(sl)})
		}
	}
	return st
}
