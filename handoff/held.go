package handoff

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
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
	aim     // steered addresses: where the program leads; others have no part
	pairs   []pair
	joins   int    // how many members the group has ever had
	unseen  int    // those that joined before this one can leave unseen
	hiding  bool   // more are about to
	seed    uint32 // of the hash that divides datagrams among workers; 0: not chosen yet
	losses  int    // members that a program took out of the group
	lost    bool   // the unix path was reported to be somebody else's

	proved  bool          // some generation has accepted a connection of ours
	grouped bool          // even a shared socket has SO_REUSEPORT: others stand beside it until they listen
	learned bool          // from a program's bind, not configured
	owned   bool          // learned, and some generation had the traffic
	extra   []setting     // what the program that listened last had set on its own socket
	lag     time.Duration // from that generation's lease until it listened
	claims  int           // how many generations have listened
	claimer int           // the last of them
	expiry  *time.Timer   // gives the address up
}

// swappable reports whether generations have slots of their own.
func (h *held) swappable() bool { return h.mode != modeShared }

// slotOf is the slot that a worker has, nil if none. A shared socket is everybody's, and the socket of a path all of its generation's.
func (h *held) slotOf(at Seat) *slot {
	if !h.swappable() {
		return h.current
	}
	for _, sl := range h.slots {
		if sl.phase == leased && sl.gen == at.Generation && (sl.worker == at.Worker || h.mode == modeRenamed) {
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

// addSlot opens a fresh slot. It gets no traffic: it joins behind a program that names another one. Nor has it a colour, see paint.
func (s *Set) addSlot(h *held) (*slot, error) {
	var sl *slot
	var err error
	if h.mode == modeRenamed {
		sl, err = openUnixSlot(&h.addr)
	} else {
		sl, err = s.joinGroup(h, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", h.String(), err)
	}
	sl.inode = inodeOf(sl.fd)
	h.slots = append(h.slots, sl)
	return sl, nil
}

func (s *Set) joinGroup(h *held, color uint8) (*slot, error) {
	sl := &slot{color: color}
	fd, err := openSocket(&h.addr, h.at, true, sl.color, h.extra...)
	if err != nil {
		return nil, err
	}
	sl.fd = fd
	h.join(sl)
	return sl, nil
}

// freeColor is a colour that no live slot of the port has, by turns, so that one is not used again soon; 0 if all are
// taken or colours cannot be read here.
func (s *Set) freeColor(h *held) uint8 {
	if !s.colored || !h.addr.stream() {
		return 0
	}
	used := s.usedColors(h, nil)
	for i := 0; i < colors; i++ {
		s.lastColor = s.lastColor%colors + 1
		if used[s.lastColor] == 0 {
			return s.lastColor
		}
	}
	return 0
}

// usedColors counts the live slots of the port by their colour, but for one.
func (s *Set) usedColors(h *held, but *slot) (used [colors + 1]int) {
	for _, other := range s.held {
		if other.at.port != h.at.port || !other.addr.stream() {
			continue
		}
		for _, sl := range other.slots {
			if sl != but {
				used[sl.color]++
			}
		}
	}
	return used
}

// keptColors are as many colours as the workers of a generation leave to others: one for a successor, and two that drain.
const keptColors = 3

// paint gives a fresh slot, which nobody has connected to, a colour: that of a sibling if few are left, so that a generation of many workers
// does not take all. Generations can be told apart in any case; for single workers, see Lease.Processes.
func (s *Set) paint(h *held, sl *slot, gen int) {
	if !s.colored || h.mode != modeSteered || !h.addr.stream() {
		return
	}
	used, color, free := s.usedColors(h, sl), uint8(0), 0
	for c := 1; c <= colors; c++ {
		if used[c] == 0 {
			free++
		}
	}
	for _, sibling := range h.slots {
		if sibling.phase == leased && sibling.gen == gen && sibling.color != 0 && (color == 0 || used[sibling.color] < used[color]) {
			color = sibling.color
		}
	}
	if color == 0 || free > keptColors {
		color = s.freeColor(h)
	}
	sl.color = color
	setColor(sl.fd, color)
}

// program attaches what the group needs to lead to an aim: its slots, and the pairs of our probes.
func (h *held) program(to aim) error {
	p := plan{current: h.order.index(to.current), others: h.indexes(to.others), hashed: !h.addr.stream(), seed: h.dice()}
	if to.part != nil {
		p.split = &division{index: h.order.index(to.part), others: h.indexes(to.partners), share: to.given, seed: to.seed}
	}
	if p.current < 0 || p.split != nil && p.split.index < 0 {
		return errors.New("the slot is not listening: was shutdown called on it?")
	}
	for _, pr := range h.pairs {
		if j := h.order.index(pr.slot); j >= 0 {
			p.routes = append(p.routes, route{src: pr.src, index: j})
		}
	}
	return attachProgram(to.current.fd, p.build())
}

// indexes are the places of slots in the group; one that has left it is left out.
func (h *held) indexes(slots []*slot) []int {
	var list []int
	for _, sl := range slots {
		if i := h.order.index(sl); i >= 0 {
			list = append(list, i)
		}
	}
	return list
}

// dice is the seed of the hash for datagrams: one for the life of the address, so that a conversation stays where it is as long as
// the number of workers does.
func (h *held) dice() uint32 {
	for h.seed == 0 {
		h.seed = rand.Uint32()
	}
	return h.seed
}

// point leads new connections to an aim. Nothing changes if it fails.
func (h *held) point(to aim) error {
	var err error
	switch h.mode {
	case modeSteered:
		err = h.program(to)
	case modeRenamed:
		h.adoptMode(to.current)
		err = placeUnix(to.current.hidden, h.addr.Path)
	}
	if err != nil {
		return err
	}
	h.aim = to
	for _, sl := range to.all() {
		sl.served = true
	}
	return nil
}

// check finds slots that a program took out of the group by shutdown(2), and mends the model and the program. The
// current one is made to listen again: we promised to hold the address. One with a share has given it up. What went astray
// meanwhile is relayed: the last member had moved into the hole, and it was a spare (see guard).
func (s *Set) check(h *held) error {
	if h.mode != modeSteered || !h.addr.stream() {
		return nil
	}
	lost := false // traffic, for a moment
	changed := false
	for _, sl := range slices.Clone(h.order.members) {
		if !sl.listening() {
			if h.order.leave(sl) {
				changed = true
				h.losses++
			}
			lost = lost || h.leads(sl)
		}
	}
	if !changed {
		return nil
	}
	if h.order.index(h.current) < 0 {
		if err := unix.Listen(h.current.fd, backlog(&h.addr)); err != nil {
			return fmt.Errorf("cannot listen on %q again: %w", h.String(), err)
		}
		h.join(h.current)
	}
	to := h.aim
	gone := func(sl *slot) bool { return h.order.index(sl) < 0 }
	to.others = slices.DeleteFunc(slices.Clone(to.others), gone)
	to.partners = slices.DeleteFunc(slices.Clone(to.partners), gone)
	switch {
	case to.part == nil || !gone(to.part):
	case len(to.partners) > 0:
		to.part, to.partners = to.partners[0], to.partners[1:]
	default:
		to = aim{current: to.current, others: to.others}
	}
	if err := h.point(to); err != nil {
		return err
	}
	for _, sl := range h.spares() {
		if lost {
			sl.served = true
			s.retire(h, sl)
		}
	}
	s.guard(h)
	return nil
}

// guard keeps a slot with traffic from being the last member while other programs have slots in the group: were one of
// them to call shutdown(2), the last member would move, and it must not be one to which the program leads. A spare goes
// behind it.
func (s *Set) guard(h *held) {
	if h.mode != modeSteered || !h.addr.stream() || len(h.order.members) == 0 || !h.leads(h.order.members[len(h.order.members)-1]) {
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

// join notes that a slot has joined the group.
func (h *held) join(sl *slot) {
	h.order.join(sl)
	h.joins++
	sl.joined = h.joins
}

// leavesUnseen reports whether a slot can leave its group without any client noticing. The member that the kernel meets first when it looks
// for a listener is, in the moment in which it leaves, one without a group: a client that comes then is led to it, and reset (as of
// Linux 6.18; reuseport_detach_sock comes before the removal from the hash chain). Of IPv6 it is the one that joined first; that one
// stays for good. Of IPv4 it is the one that joined last, until a grace period after the next one has.
func (h *held) leavesUnseen(sl *slot) bool {
	if h.at.family == unix.AF_INET6 {
		return slices.ContainsFunc(h.order.members, func(other *slot) bool { return other.joined < sl.joined })
	}
	return sl.joined < h.unseen
}

// hide makes slots that have joined by now, but for the last one, ready to leave unseen, and sweeps when they are.
func (s *Set) hide(h *held) {
	if h.hiding {
		return
	}
	h.hiding = true
	upTo := h.joins
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.quiesce()
		s.mu.Lock()
		defer s.mu.Unlock()
		h.hiding, h.unseen = false, max(h.unseen, upTo)
		if !s.closed {
			s.sweep(h)
		}
	}()
}

// prune closes spares but the one of the lowest index, from the top down, as far as slots with traffic keep their index. A
// group is never smaller than such an index, so leases take the lowest spare and it shrinks in time.
func (h *held) prune(s *Set) {
	if len(h.pairs) > 0 {
		return
	}
	spares := h.spares()
	for i := len(spares) - 1; i > 0; i-- {
		if h.mode != modeSteered || !h.moved(spares[i]) && h.leavesUnseen(spares[i]) {
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
	sort.Slice(list, func(i, j int) bool { return h.order.index(list[i]) < h.order.index(list[j]) })
	return list
}

// moved reports whether a slot with traffic would get another index if gone left.
func (h *held) moved(gone *slot) bool {
	return slices.ContainsFunc(h.all(), func(sl *slot) bool { return h.order.moves(sl, gone) })
}

// mayLeave reports whether the slot can leave the group now. Where one with traffic would move into the hole, a spare
// joins first and moves instead; so does one behind the last, that it can leave unseen. While a probe's pair is in the program, no index may
// change at all.
func (s *Set) mayLeave(h *held, sl *slot) bool {
	if h.mode != modeSteered || h.order.index(sl) < 0 {
		return true
	}
	if len(h.pairs) > 0 {
		return false
	}
	unseen := h.leavesUnseen(sl)
	if !unseen && h.at.family == unix.AF_INET6 {
		sl.color = 0
		return false
	}
	if h.moved(sl) || !unseen && sl.joined == h.joins {
		if _, err := s.addSlot(h); err != nil {
			s.logf("slot kept open until later: %v", err)
			return false
		}
	}
	if !unseen {
		s.hide(h)
	}
	return unseen
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
