package handoff

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Lease is one generation's right to its slots. Make one with Set.Lease. All methods are safe for concurrent use.
type Lease struct {
	set *Set
	gen int

	// What follows is for programs that bind by themselves, and belongs to the Set's lock.
	since time.Time
	notes notes
	met   map[*held]bool // learned addresses on which the generation has listened
}

// errClosed is what methods return after Close.
var errClosed = errors.New("the sockets are closed")

// Lease gives a generation, numbered from 1, slots of every address. A slot that has the traffic and no generation (at the
// beginning, or after a crash) is leased again with everything that waits in its queue; else the generation gets fresh
// slots, which take no traffic until Steer. On error the generation has no lease.
func (s *Set) Lease(gen int) (*Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if gen < 1 || s.leases[gen] != nil {
		return nil, fmt.Errorf("internal error: generation %d has a lease already or is no generation", gen)
	}
	for _, h := range s.held {
		if h.learned {
			continue // when it listens
		}
		if err := s.leaseOne(h, gen); err != nil {
			s.release(gen)
			return nil, err
		}
	}
	l := &Lease{set: s, gen: gen, since: time.Now(), met: map[*held]bool{}}
	s.leases[gen] = l
	return l, nil
}

func (s *Set) leaseOne(h *held, gen int) error {
	if !h.swappable() {
		return nil
	}
	if err := h.check(); err != nil {
		return err
	}
	sl := h.current
	if sl.phase == idle {
		if err := sl.refresh(); err != nil {
			return fmt.Errorf("cannot lease %q again: %w", h.String(), err)
		}
	} else if sl = h.spare(); sl == nil {
		var err error
		if sl, err = s.addSlot(h); err != nil {
			return err
		}
	}
	sl.phase, sl.gen = leased, gen
	s.guard(h)
	return nil
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

// Steer gives all new connections to a generation that has a lease. It is atomic for each address, and all or nothing over
// the addresses: on error those already switched are switched back. It does not block. Shared addresses are left as
// they are.
func (s *Set) Steer(gen int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.leases[gen] == nil:
		return fmt.Errorf("internal error: generation %d has no lease", gen)
	}
	before := make([]*slot, len(s.held))
	for i, h := range s.held {
		before[i] = h.current
		if err := s.steerOne(h, gen); err != nil {
			return errors.Join(err, s.steerBack(before[:i]))
		}
	}
	if gen > s.active {
		s.steered++
	}
	s.active = gen
	for i, h := range s.held {
		h.owned = h.owned || !h.swappable() && s.activeHas(h)
		if before[i] != h.current {
			h.owned = true
			s.traded(h, before[i])
		}
	}
	return nil
}

func (s *Set) steerOne(h *held, gen int) error {
	if !h.swappable() {
		return nil
	}
	if err := h.check(); err != nil {
		return err
	}
	to := h.slotOf(gen)
	if to == h.current || to == nil && h.learned { // it has not listened there, or never will: see expire
		return nil
	}
	if err := h.point(to); err != nil {
		return fmt.Errorf("cannot switch %q to generation %d: %w", h.String(), gen, err)
	}
	return nil
}

// steerBack undoes a Steer that failed on a later address.
func (s *Set) steerBack(before []*slot) error {
	var errs []error
	for i, sl := range before {
		if h := s.held[i]; h.current != sl {
			errs = append(errs, h.point(sl))
		}
	}
	return errors.Join(errs...)
}

// traded does the book-keeping after a switch: the winner owes nothing any more, the loser's traffic is written down,
// and a loser without a generation is retired at once.
func (s *Set) traded(h *held, loser *slot) {
	h.current.left = nil
	s.guard(h)
	if h.mode == modeSteered && h.addr.stream() {
		loser.left = h.snapshot(loser)
	}
	if loser.phase == idle {
		s.retire(h, loser)
	}
}

// Release ends a lease, after all processes of the generation are gone. A slot with the traffic stays for the next Lease.
// What waits in the queues of the others is relayed to the current slot, in the background; then they are closed.
// Releasing twice does nothing.
func (l *Lease) Release() {
	s := l.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[l.gen] != l {
		return
	}
	delete(s.leases, l.gen)
	l.dropUnlistened()
	if !s.closed {
		s.release(l.gen)
	}
}

func (s *Set) release(gen int) {
	for _, h := range slices.Clone(s.held) {
		if !h.swappable() {
			s.releaseShared(h)
			continue
		}
		sl := h.slotOf(gen)
		if sl == nil {
			continue
		}
		if err := h.check(); err != nil {
			s.logf("%v", err)
		}
		switch sl.gen = 0; {
		case sl == h.current:
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
	sl.phase, sl.gen = retiring, 0
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
	if s.closed || s.leases[l.gen] != l {
		return nil
	}
	var out []File
	for _, h := range s.held {
		if sl := h.slotOf(l.gen); sl != nil && !h.learned {
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
	// Mode is "steered", "renamed" or "shared"; Why says why an address is shared.
	Mode string `json:"mode"`
	Why  string `json:"why,omitempty"`
	// Learned is true if the address is not configured but one that the app binds by itself.
	Learned bool `json:"learned,omitempty"`
	// Slots are the sockets behind the address; a shared one has a single slot of generation 0.
	Slots []SlotStatus `json:"slots"`
}

// SlotStatus describes one slot.
type SlotStatus struct {
	// Generation that has it; 0 for nobody.
	Generation int `json:"generation"`
	// Queue is the number of connections waiting to be accepted (datagrams: 1 if any waits).
	Queue int `json:"queue"`
	// Current is true where new connections go.
	Current bool `json:"current"`
}

// Status describes all addresses in configured order. Spare slots are left out.
func (s *Set) Status() []SocketStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []SocketStatus
	for _, h := range s.held {
		if err := h.check(); err != nil {
			s.logf("%v", err)
		}
		out = append(out, h.status())
	}
	return out
}

func (h *held) status() SocketStatus {
	st := SocketStatus{Name: h.addr.Name, Address: h.String(), Mode: h.mode, Why: h.why, Learned: h.learned, Slots: []SlotStatus{}}
	for _, sl := range h.slots {
		if sl.phase != spare {
			st.Slots = append(st.Slots, SlotStatus{Generation: sl.gen, Queue: sl.queue(&h.addr), Current: sl == h.current})
		}
	}
	return st
}
