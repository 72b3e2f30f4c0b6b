package handoff

import (
	"slices"
	"time"
)

// expire gives a learned address up if after some time the active generation still has not listened on it.
func (s *Set) expire(h *held) {
	if !h.learned || h.expiry != nil {
		return
	}
	wait := min(max(2*h.lag, s.unclaimedAtLeast), s.unclaimedAtMost)
	h.expiry = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		h.expiry = nil
		taken := slices.ContainsFunc(h.main(), func(sl *slot) bool { return sl.phase != idle })
		if s.closed || !slices.Contains(s.held, h) || taken || !h.swappable() && s.anyoneHas(h) {
			return
		}
		if len(s.seats(s.active)) == 0 || s.active == 0 || s.anyoneHas(h) {
			s.expire(h) // nobody serves at all, or a candidate may be promoted: clients wait for it
			return
		}
		s.logf("%s is given up: generation %d has not listened on it for %v", h.String(), s.active, wait)
		s.dropAddress(h)
	})
}

// Progress is how far a generation has come in listening on what it binds by itself.
type Progress struct {
	// Streams is on how many addresses it listens by itself, Datagrams how many it has bound.
	Streams, Datagrams int
	// Configured is how many configured addresses it could accept connections from, and Unproved those among them on which no
	// generation has ever done so.
	Configured int
	Unproved   []string
	// Claimed is how many addresses of the active generation it has too.
	Claimed int
	// Missing are addresses of the active generation on which this one is expected to listen too, until Patience has
	// passed since its lease: twice what the active one had needed, five seconds at least.
	Missing  []string
	Patience time.Duration
	// Changed is closed when any generation has got a slot.
	Changed <-chan struct{}
}

// Progress tells how far the generation is.
func (l *Lease) Progress() Progress {
	s := l.set
	s.mu.Lock()
	defer s.mu.Unlock()
	p := Progress{Changed: s.growth}
	for _, h := range s.held {
		if h.addr.Scheme == "" {
			continue
		}
		mine := l.slotOf(h)
		if mine != nil && h.learned && !slices.Contains(s.lead, l.at) && s.activeHas(h) {
			p.Claimed++
		}
		switch {
		case !h.learned && h.addr.stream():
			p.Configured++
			if !h.proved {
				p.Unproved = append(p.Unproved, h.String())
			}
		case !h.learned:
		case mine != nil && h.addr.stream():
			p.Streams++
		case mine != nil:
			p.Datagrams++
		case s.expected(l, h):
			p.Missing = append(p.Missing, h.String())
			p.Patience = max(p.Patience, 2*h.lag, expectedAtLeast)
		}
	}
	return p
}
