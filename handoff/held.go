package handoff

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Modes of a held address, as Status shows them.
const (
	modeSteered = "steered" // a SO_REUSEPORT group with a program
	modeRenamed = "renamed" // a unix path that is renamed over
	modeShared  = "shared"  // one socket for all generations
)

// held is one address of a Set. All fields belong to the Set's lock.
type held struct {
	addr    Address
	mode    string
	why     string // of modeShared
	adopted bool
	at      place         // internet addresses
	order   roster[*slot] // of the group, modeSteered
	slots   []*slot
	current *slot
	pairs   []pair
	lost    bool // the unix path was reported to be somebody else's

	proved  bool          // some generation has accepted a connection of ours
	grouped bool          // even a shared socket has SO_REUSEPORT: others stand beside it until they listen
	learned bool          // from a program's bind, not configured
	owned   bool          // learned, and some generation had the traffic
	extra   []setting     // what the program that listened last had set on its own socket
	lag     time.Duration // from that generation's lease until it listened
	claims  int           // how many generations have listened
	expiry  *time.Timer   // gives the address up
}

// swappable reports whether generations have slots of their own.
func (h *held) swappable() bool { return h.mode != modeShared }

// slotOf is the slot that a generation has, nil if none. A shared socket is everybody's.
func (h *held) slotOf(gen int) *slot {
	if !h.swappable() {
		return h.current
	}
	for _, sl := range h.slots {
		if sl.phase == leased && sl.gen == gen {
			return sl
		}
	}
	return nil
}

// String is the address with the port that it really has.
func (h *held) String() string {
	switch {
	case h.addr.Scheme == "":
		return h.addr.Raw
	case !h.addr.inet():
		return h.addr.Scheme + "://" + h.addr.Path
	case h.addr.Host == "":
		return h.addr.Scheme + "://" + joinHostPort("", h.at.port)
	}
	return h.addr.Scheme + "://" + joinHostPort(h.addr.Host, h.at.port)
}

// addSlot opens a fresh slot. It gets no traffic: it joins behind a program that names another one.
func (s *Set) addSlot(h *held) (*slot, error) {
	var sl *slot
	var err error
	if h.mode == modeRenamed {
		sl, err = openUnixSlot(&h.addr)
	} else {
		sl, err = s.joinGroup(h)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", h.String(), err)
	}
	sl.inode = inodeOf(sl.fd)
	h.slots = append(h.slots, sl)
	return sl, nil
}

func (s *Set) joinGroup(h *held) (*slot, error) {
	sl := &slot{color: s.freeColor(h)}
	fd, err := openSocket(&h.addr, h.at, true, sl.color, h.extra...)
	if err != nil {
		return nil, err
	}
	sl.fd = fd
	h.order.join(sl)
	return sl, nil
}

// freeColor is a colour that no live slot of the port has, by turns, so that one is not used again soon; 0 if all are
// taken or colours cannot be read here.
func (s *Set) freeColor(h *held) uint8 {
	if !s.colored || !h.addr.stream() {
		return 0
	}
	used := [colors + 1]bool{}
	for _, other := range s.held {
		if other.at.port != h.at.port || !other.addr.stream() {
			continue
		}
		for _, sl := range other.slots {
			used[sl.color] = true
		}
	}
	for i := 0; i < colors; i++ {
		s.lastColor = s.lastColor%colors + 1
		if !used[s.lastColor] {
			return s.lastColor
		}
	}
	return 0
}

// program attaches what the group needs now: the current slot, and the pairs of our probes.
func (h *held) program(current *slot) error {
	i := h.order.index(current)
	if i < 0 {
		return errors.New("the slot is not listening: was shutdown called on it?")
	}
	var routes []route
	for _, p := range h.pairs {
		if j := h.order.index(p.slot); j >= 0 {
			routes = append(routes, route{src: p.src, index: j})
		}
	}
	return attachProgram(current.fd, buildProgram(i, routes))
}

// point makes sl the current slot for new connections. Nothing changes if it fails.
func (h *held) point(sl *slot) error {
	var err error
	switch h.mode {
	case modeSteered:
		err = h.program(sl)
	case modeRenamed:
		h.adoptMode(sl)
		err = placeUnix(sl.hidden, h.addr.Path)
	}
	if err == nil {
		h.current, sl.served = sl, true
	}
	return err
}

// check finds slots that a program took out of the group by shutdown(2), and mends the model and the program. The
// current one is made to listen again: we promised to hold the address.
func (h *held) check() error {
	if h.mode != modeSteered || !h.addr.stream() {
		return nil
	}
	changed := false
	for _, sl := range slices.Clone(h.order.members) {
		if !sl.listening() {
			changed = h.order.leave(sl) || changed
		}
	}
	if !changed {
		return nil
	}
	if h.order.index(h.current) < 0 {
		if err := unix.Listen(h.current.fd, backlog(&h.addr)); err != nil {
			return fmt.Errorf("cannot listen on %q again: %w", h.String(), err)
		}
		h.order.join(h.current)
	}
	return h.program(h.current)
}

// guard keeps the current slot from being the last member while other programs have slots in the group: were one of
// them to call shutdown(2), the last member would move, and it must not be the current one. A spare goes behind it.
func (s *Set) guard(h *held) {
	if h.mode != modeSteered || !h.addr.stream() || h.order.index(h.current) != len(h.order.members)-1 {
		return
	}
	for _, sl := range h.order.members {
		if sl != h.current && sl.phase != spare {
			if _, err := s.addSlot(h); err != nil {
				s.logf("no spare behind the current slot: %v", err)
			}
			return
		}
	}
}

// sweep closes spent slots as far as no index in use moves by it.
func (s *Set) sweep(h *held) {
	for _, sl := range slices.Clone(h.slots) {
		if sl.phase == spent && s.mayLeave(h, sl) {
			s.closeSlot(h, sl)
		}
	}
	h.prune(s)
}

// prune closes spares but the one of the lowest index, from the top down, as far as the current slot keeps its index. A
// group is never smaller than the current slot's index, so leases take the lowest spare and it shrinks in time.
func (h *held) prune(s *Set) {
	if len(h.pairs) > 0 {
		return
	}
	spares := h.spares()
	for i := len(spares) - 1; i > 0; i-- {
		if h.mode != modeSteered || !h.order.moves(h.current, spares[i]) {
			s.closeSlot(h, spares[i])
		}
	}
}

// spares are the open slots that nobody ever had, by index.
func (h *held) spares() []*slot {
	var list []*slot
	for _, sl := range h.slots {
		if sl.phase == spare {
			list = append(list, sl)
		}
	}
	slices.SortFunc(list, func(a, b *slot) int { return h.order.index(a) - h.order.index(b) })
	return list
}

// mayLeave reports whether the slot can leave the group now. Where the current slot would move into the hole, a spare
// joins first and moves instead. While a probe's pair is in the program, no index may change at all.
func (s *Set) mayLeave(h *held, sl *slot) bool {
	if h.mode != modeSteered || h.order.index(sl) < 0 {
		return true
	}
	if len(h.pairs) > 0 {
		return false
	}
	if !h.order.moves(h.current, sl) {
		return true
	}
	if _, err := s.addSlot(h); err != nil {
		s.logf("slot kept open until later: %v", err)
		return false
	}
	return true
}

// closeSlot takes a slot out of the group and closes it. shutdown first: it leaves the group at that moment even if a process
// that escaped us still has a copy of the descriptor.
func (s *Set) closeSlot(h *held, sl *slot) {
	if h.addr.stream() && h.mode == modeSteered {
		_ = unix.Shutdown(sl.fd, unix.SHUT_RDWR)
	}
	_ = unix.Close(sl.fd)
	sl.fd = -1
	h.order.leave(sl)
	h.slots = slices.DeleteFunc(h.slots, func(x *slot) bool { return x == sl })
	if sl.hidden != "" {
		_ = unix.Unlink(sl.hidden)
	}
}
