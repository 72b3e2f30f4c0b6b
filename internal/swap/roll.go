package swap

import (
	"fmt"
	"slices"
	"time"
)

// rolling is how far a roll is: the candidate takes the place of the active generation worker by worker.
type rolling struct {
	At   int    `json:"at"`             // the worker whose place is being taken
	Back bool   `json:"back,omitempty"` // the old ones take their places again
	Why  string `json:"why,omitempty"`
	// Event is what the candidate is told when they have.
	Event Event `json:"event,omitempty"`
	// Lost are old workers that did not start again.
	Lost []int `json:"lost,omitempty"`
}

// roll is the roll under way, nil if there is none.
func (s *Supervisor) roll() *rolling {
	if s.st.Swap == nil {
		return nil
	}
	return s.st.Swap.Roll
}

// rolls tells whether a request is answered worker by worker.
func (s *Supervisor) rolls(k Kind, crash bool) bool {
	return s.opt.Rolling && !crash && s.st.Workers > 1 && s.st.Active != 0 && (k == Reload || k == Run || k == Put || k == Rollback)
}

// beginRoll starts the first worker of the candidate, once there is room for it.
func (s *Supervisor) beginRoll() {
	g := s.gen(s.st.Active)
	for _, w := range s.live[g.Number].crew {
		s.stopAgain(w) // its successor is the next start
	}
	s.nextPlace()
}

// nextPlace goes on with the worker that is to be replaced next: one that nobody has the place of now, or else the lowest.
func (s *Supervisor) nextPlace() {
	sw := s.st.Swap
	old, fresh := s.fit(sw.From), s.fit(s.st.Candidate)
	at := -1
	for k := range s.st.Workers {
		if slices.Contains(fresh, seat(s.st.Candidate, k)) {
			continue
		}
		if !slices.Contains(old, seat(sw.From, k)) {
			at = k
			break
		}
		if at < 0 {
			at = k
		}
	}
	if at < 0 {
		return // all have changed: the candidate is being promoted
	}
	sw.Roll.At = at
	if w := s.worker(sw.From, at); sw.Sequential && w != nil && !w.over {
		g := s.gen(sw.From)
		if g.Crew[at].Alone {
			return // it ends already
		}
		s.phase("stop", sw.From, "stopping", fmt.Sprintf("stopping worker %d of generation %d first", at, sw.From))
		s.dismiss(g, w, "a new one takes its place")
		s.respread()
		s.fireWorker(sw.From, w, EvStop, "a new one takes its place")
		return
	}
	s.takePlace()
}

// worker is the handle of a worker, nil if its generation has no such number.
func (s *Supervisor) worker(n, k int) *worker {
	if l := s.live[n]; l != nil && k < len(l.crew) {
		return l.crew[k]
	}
	return nil
}

// takePlace starts the candidate's worker for the place that is next; the first one starts the candidate.
func (s *Supervisor) takePlace() {
	if s.st.Candidate == 0 {
		s.launch()
		return
	}
	s.startWorker(s.gen(s.st.Candidate), s.st.Swap.Roll.At, true)
}

// joinRoll is told of a worker that is ready to take its place in a roll, forwards or back.
func (s *Supervisor) joinRoll(g *record, w *worker) {
	r := s.roll()
	g.Crew[w.k].Joining = true
	switch {
	case g.Number == s.st.Candidate && !r.Back:
		s.fire(g.Number, EvStep, fmt.Sprintf("worker %d is ready", w.k))
	case g.Number == s.st.Active && r.Back:
		s.putBack(g, w)
	default:
		s.fireWorker(g.Number, w, EvAbort, "the roll goes the other way")
	}
}

// advanceRoll gives the candidate the place that its newest worker is ready for; with the last one it has everything.
func (s *Supervisor) advanceRoll(g *record) {
	sw, r := s.st.Swap, s.st.Swap.Roll
	n, old := g.Number, s.gen(sw.From)
	was := false
	if m := crewOf(old, r.At); m != nil {
		was, m.Leaving = m.Leaving, true
	}
	have, rest := s.fit(n), s.fit(sw.From)
	var err error
	last := len(have) >= s.st.Workers || len(rest) == 0 || sw.Hasten || s.st.Active == 0
	if last {
		s.switches++
		err = s.steerTo(n)
	} else {
		err = s.spread()
	}
	if err != nil {
		if m := crewOf(old, r.At); m != nil {
			m.Leaving = was
		}
		why := "cannot give it the traffic: " + err.Error()
		if g.State == Canary {
			s.unroll(why, EvNotSteered)
		} else {
			s.fire(n, EvNotSteered, why)
		}
		return
	}
	joined := s.worker(n, r.At)
	if m := crewOf(g, r.At); m != nil && m.Alone {
		s.fireWorker(n, joined, EvPromoted, "")
	}
	if last {
		sw.Phase, g.Share = "promote", ""
		s.fire(n, EvPromoted, "")
		return
	}
	sw.Phase, g.Share = "roll", shareOf(len(have), s.st.Workers)
	s.fire(n, EvShared, "")
}

func shareOf(have, of int) string { return fmt.Sprintf("%d/%d", have, of) }

func crewOf(g *record, k int) *member {
	if g == nil || k >= len(g.Crew) {
		return nil
	}
	return g.Crew[k]
}

// rolled is told that the candidate has one more place: its predecessor drains, and when it is gone the next one has its turn.
func (s *Supervisor) rolled(g *record) {
	sw := s.st.Swap
	at := sw.Roll.At
	s.phase("roll", g.Number, "rolled", fmt.Sprintf("worker %d has its place, %s", at, g.Share))
	s.changed()
	s.watchHealth(g)
	s.makeRoom(sw.From, at, fmt.Sprintf("worker %d of generation %d has its place", at, g.Number))
}

// makeRoom lets a worker go that has lost its place. If it is gone already, or is on its way, that is that.
func (s *Supervisor) makeRoom(n, k int, why string) {
	w, g := s.worker(n, k), s.gen(n)
	switch {
	case w == nil || w.over:
		s.rollOn()
	case g.Crew[k].Alone && g.Crew[k].State != Ready:
	default:
		s.dismiss(g, w, why)
		s.fireWorker(n, w, EvSuperseded, why)
	}
}

// rollOn goes on in whichever direction it goes.
func (s *Supervisor) rollOn() {
	switch r := s.roll(); {
	case r == nil || s.st.Mode == modeStopping:
	case r.Back:
		s.rollBackOn()
	default:
		s.nextPlace()
	}
}

// leftRoll is told that a worker has ended during a roll.
func (s *Supervisor) leftRoll(g *record, w *worker) {
	r := s.roll()
	m := g.Crew[w.k]
	switch {
	case !r.Back && g.Number == s.st.Swap.From && w.k == r.At:
		s.rolledFrom()
	case r.Back && g.Number == s.st.Active && m.ReadyAt.IsZero() && s.limitedWorker(m):
		m.Lost = true
		r.Lost = append(r.Lost, w.k)
		s.log.Error("an old worker does not start again", "gen", g.Number, "worker", w.k, "started", s.opt.StartLimitBurst)
		s.rollBackOn()
	case r.Back && g.Number == s.st.Active && m.ReadyAt.IsZero():
		s.startAgainLater(g, w)
	case r.Back:
		s.rollBackOn()
	}
}

// rolledFrom is told that the place which is next is empty: its successor starts, or serves already and the next one has its turn.
func (s *Supervisor) rolledFrom() {
	sw := s.st.Swap
	switch w := s.worker(s.st.Candidate, sw.Roll.At); {
	case s.st.Candidate == 0, sw.Sequential && (w == nil || w.over):
		s.takePlace()
	case s.gen(s.st.Candidate).State != Canary: // its first worker has not passed yet, and takes this place when it does
	case slices.Contains(s.fit(s.st.Candidate), seat(s.st.Candidate, sw.Roll.At)):
		s.nextPlace()
	}
}

// oldGone is told that an old worker died in a roll. If it was the last one nobody is left to replace step by step.
func (s *Supervisor) oldGone(why string) {
	sw := s.st.Swap
	g := s.gen(s.st.Candidate)
	if sw.Roll.Back || len(s.fit(sw.From)) > 0 || g == nil || g.State != Canary {
		return
	}
	sw.Hasten = true
	s.fire(g.Number, EvStep, why)
}

// unroll ends a roll that cannot go on: the old workers take their places again, one by one, and then the candidate is told why.
func (s *Supervisor) unroll(why string, e Event) {
	sw, r := s.st.Swap, s.st.Swap.Roll
	if r.Back {
		return
	}
	n := s.st.Candidate
	r.Back, r.Why, r.Event = true, why, e
	s.log.Warn("the roll goes back", "gen", n, "why", why)
	s.phase("back", n, "rolling back", why)
	g := s.gen(n)
	for k, w := range s.live[n].crew {
		if m := g.Crew[k]; !w.over && m.Alone && (m.State == Starting || m.State == Ready) {
			s.fireWorker(n, w, EvAbort, why)
		}
	}
	old := s.gen(sw.From)
	if l := s.live[sw.From]; l != nil {
		for k, w := range l.crew {
			if m := old.Crew[k]; !w.over && m.Alone && m.State == Draining { // it was told nothing yet
				m.Leaving = false
				s.fireWorker(sw.From, w, EvRecalled, why)
			}
		}
	}
	s.respread()
	s.rollBackOn()
}

// rollBackOn starts the next old worker again: one of a place that nobody has, or else the one that was replaced last. When all have
// their places the candidate is told.
func (s *Supervisor) rollBackOn() {
	sw := s.st.Swap
	old, l := s.gen(sw.From), s.live[sw.From]
	if old == nil || l == nil || s.st.Active != sw.From {
		s.unrolled()
		return
	}
	have, fresh := s.fit(sw.From), s.fit(s.st.Candidate)
	at, empty, waits := -1, false, false // waits: one of them is being started, or still ends
	for k := s.st.Workers - 1; k >= 0; k-- {
		w := s.worker(sw.From, k)
		switch {
		case slices.Contains(have, seat(sw.From, k)) || old.Crew[k].Lost:
		case !w.over || w.again != nil:
			waits = true
		default:
			if free := !slices.Contains(fresh, seat(s.st.Candidate, k)); at < 0 || free && !empty {
				at, empty = k, free
			}
		}
	}
	switch {
	case waits && !empty: // one at a time
	case at >= 0:
		s.startWorker(old, at, true)
	case !waits:
		s.unrolled()
	}
}

// putBack gives an old worker that is ready again its place.
func (s *Supervisor) putBack(old *record, w *worker) {
	n := s.st.Candidate
	g := s.gen(n)
	m := crewOf(g, w.k)
	if m != nil {
		m.Leaving = true
	}
	if err := s.spread(); err != nil {
		if m != nil {
			m.Leaving = false
		}
		old.Crew[w.k].ReadyAt = time.Time{} // as if it had not become ready: the next try waits
		s.fireWorker(old.Number, w, EvNotSteered, "cannot give it the traffic: "+err.Error())
		return
	}
	s.fireWorker(old.Number, w, EvPromoted, "")
	if g == nil || g.State != Canary {
		s.rollOn()
		return
	}
	g.Share = shareOf(len(s.fit(n)), s.st.Workers)
	s.phase("back", old.Number, "put back", fmt.Sprintf("worker %d of generation %d has its place again", w.k, old.Number))
	s.makeRoom(n, w.k, fmt.Sprintf("worker %d of generation %d has its place again", w.k, old.Number))
}

// unrolled is told that the old workers have their places again, as far as they start.
func (s *Supervisor) unrolled() {
	sw, r := s.st.Swap, s.st.Swap.Roll
	g := s.gen(s.st.Candidate)
	why := r.Why
	if len(r.Lost) > 0 {
		slices.Sort(r.Lost)
		why += fmt.Sprintf("; %s of generation %d did not start again", countedText(r.Lost), sw.From)
	}
	switch {
	case g != nil && len(s.fit(sw.From)) == 0 && len(s.fit(g.Number)) > 0:
		sw.Hasten = true // nobody else is left
		s.fire(g.Number, EvStep, why)
	case g != nil:
		s.fire(g.Number, r.Event, why)
	case sw.First != nil:
		s.finish(*sw.First)
	}
}

// missing tells whether the active generation lacks workers that are not given up.
func (s *Supervisor) missing() bool {
	g := s.gen(s.st.Active)
	if g == nil || g.State != Active {
		return false
	}
	have := s.fit(g.Number)
	for k := range s.st.Workers {
		if !slices.Contains(have, seat(g.Number, k)) && (k >= len(g.Crew) || !g.Crew[k].Lost) {
			return true
		}
	}
	return false
}

// waitForPlaces puts off the answer to a roll that was refused until the old workers that had made room are back.
func (s *Supervisor) waitForPlaces(r Result) bool {
	sw := s.st.Swap
	if sw.Roll == nil || sw.First != nil || s.st.Mode == modeStopping || !s.missing() {
		return false
	}
	sw.Roll.Back, sw.First, sw.Phase = true, &r, "back"
	s.rollBackOn()
	return true
}
