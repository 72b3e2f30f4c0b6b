package handoff

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// splitting is the share that a candidate has now.
type splitting struct {
	candidate int
	share     Share
	seed      uint32
}

// aim is where the new connections of an address go: to the current slot and its others, evenly, less what the share gives to the part
// and its partners.
type aim struct {
	current  *slot
	others   []*slot // of the other workers
	part     *slot   // nil: nobody has a share
	partners []*slot // of the candidate's other workers
	given    Share   // to part and partners
	seed     uint32
}

// main are the slots that the share leaves the rest to.
func (a *aim) main() []*slot { return append([]*slot{a.current}, a.others...) }

// all are the slots to which new connections may go.
func (a *aim) all() []*slot {
	list := a.main()
	if a.part != nil {
		list = append(append(list, a.part), a.partners...)
	}
	return list
}

// same tells whether two aims without a share lead to the same slots.
func (a *aim) same(b *aim) bool {
	return a.current == b.current && slices.Equal(a.others, b.others) && a.part == nil && b.part == nil
}

// whyWhole says why a unix path takes no part in a split.
const whyWhole = "a path leads to one socket at a time, so its clients stay with the active generation"

// Split gives the candidate a share of the new connections from now on, and the active generation, the one that was
// steered to last, the rest. It replaces any share given before; Steer ends it, to whichever of the two, and so does the
// candidate's Release. It is atomic for each address, and all or nothing over the addresses. It does not block.
//
// Addresses on which the candidate listens only later are split then. One that only the candidate has is shown to nobody before
// it is promoted. Unix paths, and addresses on which the candidate does not listen, stay with the active generation. Datagrams
// are told apart by the client's address even if the share is by chance.
//
// The error is a sentence (see CanSplit); nothing has changed then.
func (s *Set) Split(active, candidate int, sh Share) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case active == candidate || active != s.active:
		return fmt.Errorf("internal error: generation %d cannot share with generation %d, which was not steered to", candidate, active)
	case len(s.seats(candidate)) == 0:
		return fmt.Errorf("internal error: generation %d has no lease", candidate)
	}
	if err := s.canSplit(sh); err != nil {
		return err
	}
	former := s.split
	s.split = &splitting{candidate: candidate, share: sh, seed: rand.Uint32()}
	if former != nil && former.candidate == candidate {
		s.split.seed = former.seed // whom it has stays with it when the share grows
	}
	if err := s.aimAll(s.splitAim); err != nil {
		s.split = former
		return err
	}
	return nil
}

// CanSplit reports, in a sentence, why a share cannot be given on what is held now; nil if it can. It does not tell whether a
// candidate listens anywhere.
func (s *Set) CanSplit(sh Share) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	return s.canSplit(sh)
}

func (s *Set) canSplit(sh Share) error {
	if err := sh.check(); err != nil {
		return fmt.Errorf("cannot give a candidate the share %s: %w", quoteShort(sh.String()), err)
	}
	steered, paths := 0, 0
	for _, h := range s.held {
		switch {
		case h.addr.Scheme == "": // no socket that clients come to
		case h.mode == modeShared:
			return fmt.Errorf("%w: a candidate cannot have a share of %q, which is one socket for all generations (%s); leave out ENTRYPOINT_CANARY, or this address",
				ErrNotSteerable, h.String(), h.why)
		case h.mode == modeSteered:
			steered++
		default:
			paths++
		}
	}
	switch learns := s.cfg.Learn && s.cfg.Steer && !s.cfg.Shared; {
	case steered > 0 || learns && paths == 0:
		return nil
	case paths > 0:
		return fmt.Errorf("%w: a candidate cannot have a share of unix paths, for %s; leave out ENTRYPOINT_CANARY, or hold a TCP address too", ErrNotSteerable, whyWhole)
	}
	return fmt.Errorf("%w: no TCP or UDP address is held of which a candidate could have a share; name it in ENTRYPOINT_LISTEN, or leave out ENTRYPOINT_CANARY", ErrNotSteerable)
}

// splitAim is where the split wants an address to lead.
func (s *Set) splitAim(h *held) aim {
	return s.withShare(h, leadAim(h, s.lead))
}

// withShare adds the candidate's share to an aim, if it has one and listens there.
func (s *Set) withShare(h *held, to aim) aim {
	if s.split == nil || h.mode != modeSteered || h.learned && !h.owned {
		return to
	}
	var parts []*slot
	for _, at := range s.seats(s.split.candidate) {
		if sl := h.slotOf(at); sl != nil && !to.leads(sl) {
			parts = append(parts, sl)
		}
	}
	if len(parts) == 0 {
		return to
	}
	to.part, to.partners, to.given, to.seed = parts[0], parts[1:], s.split.share, s.split.seed
	to.given.Sticky = to.given.Sticky || !h.addr.stream()
	return to
}

// splitLate lets an address take part on which the candidate, or the active generation, listens only now, or listens again. It is
// no reason to refuse the program its listen: without it the address stays with the active generation.
func (s *Set) splitLate(h *held) {
	if s.split == nil {
		return
	}
	to := s.splitAim(h)
	if to.part == nil || h.part == to.part && slices.Equal(h.partners, to.partners) {
		return
	}
	before := h.aim
	if err := h.point(to); err != nil {
		s.logf("generation %d has no share of %q: %v", s.split.candidate, h.String(), err)
		return
	}
	s.traded(trade{h, before})
}

// splitOver gives everything back to the active generation before the candidate's slots go.
func (s *Set) splitOver(gen int) {
	if s.split == nil || s.split.candidate != gen {
		return
	}
	s.split = nil
	var trades []trade
	for _, h := range s.held {
		if h.part == nil {
			continue
		}
		before := h.aim
		if err := h.point(aim{current: h.current, others: h.others}); err != nil {
			s.logf("generation %d keeps its share of %q until the next switch: %v", gen, h.String(), err)
			continue
		}
		trades = append(trades, trade{h, before})
	}
	s.traded(trades...)
}

// aimAll points every address where want says, or leaves all as they are. The book-keeping follows when all are done.
func (s *Set) aimAll(want func(*held) aim) error {
	before := make([]aim, len(s.held))
	for i, h := range s.held {
		before[i] = h.aim
		if err := s.aimOne(h, want(h)); err != nil {
			return errors.Join(err, s.aimBack(before[:i]))
		}
	}
	trades := make([]trade, len(s.held))
	for i, h := range s.held {
		h.owned = h.owned || before[i].current != h.current
		trades[i] = trade{h, before[i]}
	}
	s.traded(trades...)
	return nil
}

func (s *Set) aimOne(h *held, to aim) error {
	if !h.swappable() {
		return nil
	}
	if err := s.check(h); err != nil {
		return err
	}
	if to.same(&h.aim) {
		return nil
	}
	if err := h.point(to); err != nil {
		return fmt.Errorf("cannot switch %q to generation %d: %w", h.String(), to.gen(), err)
	}
	return nil
}

// aimBack undoes what was done before a later address failed.
func (s *Set) aimBack(before []aim) error {
	var errs []error
	for i, to := range before {
		if h := s.held[i]; !to.same(&h.aim) {
			errs = append(errs, h.point(to))
		}
	}
	return errors.Join(errs...)
}

// gen is the generation that a switch to this aim is about.
func (a *aim) gen() int {
	if a.part != nil {
		return a.part.gen
	}
	return a.current.gen
}

// leads tells whether new connections may go to the slot.
func (a *aim) leads(sl *slot) bool { return sl != nil && slices.Contains(a.all(), sl) }

// portion is how much of what no network names goes to the slot.
func (a *aim) portion(sl *slot) float64 {
	switch main := a.main(); {
	case sl != nil && (sl == a.part || slices.Contains(a.partners, sl)):
		return a.given.Portion / float64(1+len(a.partners))
	case !slices.Contains(main, sl):
		return 0
	case a.part != nil:
		return (1 - a.given.Portion) / float64(len(main))
	default:
		return 1 / float64(len(main))
	}
}
