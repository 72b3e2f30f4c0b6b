package swap

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A worker that is started, or ends, while its siblings go on lives by the same table as a generation. What the actions mean for one is here.

// goesAlone tells whether the end of a worker that serves concerns nobody but itself: it is to be started again, or a roll has a successor for
// it.
func (s *Supervisor) goesAlone(g *record, m *member, e Ending) bool {
	switch r := s.roll(); {
	case s.st.Mode == modeStopping:
		return false
	case r != nil && g.Number == s.st.Candidate:
		return g.State == Canary
	case g.Number != s.st.Active || g.State != Active:
		return false
	case r != nil:
		return true
	}
	return s.st.Workers > 1 && s.restarts(e) && !s.limitedWorker(m)
}

// restarts tells whether the policy starts again what ended so.
func (s *Supervisor) restarts(e Ending) bool {
	return s.opt.Restart == RestartAlways || s.opt.Restart == RestartOnFailure && !e.Success()
}

// fireWorker is the only place where a worker that is alone changes state.
func (s *Supervisor) fireWorker(n int, w *worker, e Event, why string) {
	g, l := s.gen(n), s.live[n]
	if g == nil || l == nil || l.crew[w.k] != w {
		return
	}
	m := g.Crew[w.k]
	from := m.State
	to, acts := next(from, e)
	if to == from && len(acts) == 0 {
		s.log.Debug("ignored", "gen", n, "worker", w.k, "state", string(from), "event", e.String(), "why", table[from][e].note)
		return
	}
	if to != from {
		m.State = to
		if to == Ready {
			m.ReadyAt = time.Now()
		}
		if to != Active {
			s.endWatch(w)
		}
		s.log.Info("worker", "gen", n, "worker", w.k, "pid", m.PID, "from", string(from), "to", string(to), "event", e.String(), "why", why)
	}
	for _, a := range acts {
		s.actWorker(g, w, a, why)
	}
}

func (s *Supervisor) actWorker(g *record, w *worker, a Action, why string) {
	switch a {
	case ActSmoke: // its generation has passed the tests
		s.fireWorker(g.Number, w, EvPassed, "")
	case ActAdvance:
		s.join(g, w)
	case ActActive:
		s.serves(g, w)
	case ActReject:
		s.workerFailed(g, w, why)
	case ActDied:
		s.workerDied(g, w, why)
	case ActWatch:
		s.watchWorker(g, w)
	case ActSignal:
		s.signalWorker(g, w)
	case ActArm:
		s.armWorker(g, w)
	case ActKill:
		s.killWorker(g, w)
	case ActRelease:
		s.freeWorker(g.Number, w)
		s.left(g, w)
	}
}

// join gives a worker that is ready its part of the traffic.
func (s *Supervisor) join(g *record, w *worker) {
	m := g.Crew[w.k]
	switch {
	case s.roll() != nil:
		s.joinRoll(g, w)
		return
	case g.State != Active:
		s.fireWorker(g.Number, w, EvStop, "its generation ends")
		return
	}
	m.Joining = true
	if err := s.spread(); err != nil {
		s.fireWorker(g.Number, w, EvNotSteered, "cannot give it the traffic: "+err.Error())
		return
	}
	s.fireWorker(g.Number, w, EvPromoted, "")
}

// serves is told of a worker that has its part of the traffic, and lives with its generation from now on.
func (s *Supervisor) serves(g *record, w *worker) {
	m := g.Crew[w.k]
	m.Alone, m.Joining, m.Leaving, m.Load = false, false, false, nil
	s.endCount(&w.counting)
	if w.k == 0 {
		g.PID = m.PID
	}
	s.watchWorkerHealth(g, w)
	if g.State == Active && s.roll() == nil {
		s.fill(g, s.wanted())
	}
	s.scaled(g)
	s.changed()
}

// wanted is how many workers the active generation is to have.
func (s *Supervisor) wanted() int {
	if sw := s.st.Swap; sw != nil && sw.Request.Kind == Scale {
		return max(s.st.Workers, sw.Request.Workers)
	}
	return s.st.Workers
}

// workerFailed is told of one that did not become ready, before it is ended.
func (s *Supervisor) workerFailed(g *record, w *worker, why string) {
	s.log.Warn("a worker did not become ready", "gen", g.Number, "worker", w.k, "why", why)
	r := s.roll()
	switch {
	case r != nil && g.Number == s.st.Candidate && !r.Back:
		s.unroll(fmt.Sprintf("worker %d: %s", w.k, why), EvUnhealthy)
	case r == nil:
		s.unscale(fmt.Sprintf("worker %d did not become ready: %s", w.k, why), w.k)
	}
}

// workerDied is told of one that served and ended by itself. Its siblings take the new connections at once.
func (s *Supervisor) workerDied(g *record, w *worker, why string) {
	s.log.Warn("a worker ended by itself", "gen", g.Number, "worker", w.k, "pid", g.Crew[w.k].PID, "why", why)
	s.respread()
	r := s.roll()
	switch {
	case r == nil:
	case g.Number == s.st.Candidate && !r.Back:
		s.unroll(fmt.Sprintf("worker %d %s while its generation was rolled out", w.k, why), EvUnhealthy)
	case g.Number == s.st.Active:
		s.oldGone(fmt.Sprintf("generation %d is gone: %s", g.Number, why))
	}
}

// left is told when nothing of a worker is left that was alone.
func (s *Supervisor) left(g *record, w *worker) {
	m := g.Crew[w.k]
	l := s.live[g.Number]
	switch {
	case l == nil || l.crew[w.k] != w:
	case g.State != Active && (s.roll() == nil || g.Number != s.st.Candidate):
		s.settle(g.Number)
	case s.st.Mode == modeStopping:
	case s.roll() != nil:
		s.leftRoll(g, w)
	case w.k >= s.wanted() || g.State != Active:
	case m.Leaving: // it was told to go, to make room for its successor
		s.startWorker(g, w.k, true)
	default:
		s.startAgainLater(g, w)
	}
}

// startAgainLater starts a worker again, unless it was started too often: then that is the end of its generation.
func (s *Supervisor) startAgainLater(g *record, w *worker) {
	m := g.Crew[w.k]
	if s.limitedWorker(m) {
		e := Ending{Code: 1}
		if m.Ending != nil {
			e = *m.Ending
		}
		s.noteEnding(g, w.k, e, e.String())
		s.st.Starts = s.allowance()
		s.fire(g.Number, EvExited, fmt.Sprintf("worker %d %s, and was started %d times in %s", w.k, e, s.opt.StartLimitBurst, s.opt.StartLimitInterval))
		s.settle(g.Number)
		return
	}
	d := s.workerDelay(m)
	m.AgainAt = time.Now().Add(d)
	s.log.Info("a worker is started again", "gen", g.Number, "worker", w.k, "in", d.String())
	n := g.Number
	w.again = time.AfterFunc(d, func() {
		s.post(func() {
			l := s.live[n]
			if l == nil || l.crew[w.k] != w || w.again == nil || s.st.Mode == modeStopping {
				return
			}
			w.again = nil
			if r := s.roll(); r != nil && !r.Back {
				return // its successor comes
			}
			m.Starts = append(m.Starts, time.Now())
			m.Restarts++
			s.st.Restarts++
			if m.Ending != nil {
				add(&s.st.Counters.Restarts, restartReason(*m.Ending))
			}
			s.startWorker(g, w.k, true)
		})
	})
}

// allowance is as many starts as the limit allows.
func (s *Supervisor) allowance() []time.Time {
	list := make([]time.Time, s.opt.StartLimitBurst)
	for i := range list {
		list[i] = time.Now()
	}
	return list
}

// limitedWorker tells whether one more start of a worker would be too many: the limit is counted for each.
func (s *Supervisor) limitedWorker(m *member) bool {
	if s.opt.StartLimitBurst <= 0 || s.opt.StartLimitInterval <= 0 {
		return false
	}
	ago := time.Now().Add(-s.opt.StartLimitInterval)
	m.Starts = slices.DeleteFunc(m.Starts, func(t time.Time) bool { return t.Before(ago) })
	return len(m.Starts) >= s.opt.StartLimitBurst
}

// workerDelay is the next back-off of a worker, from the start again once it has served long enough.
func (s *Supervisor) workerDelay(m *member) time.Duration {
	most := max(s.opt.RestartMaxDelay, s.opt.RestartDelay)
	if !m.ReadyAt.IsZero() && time.Since(m.ReadyAt) >= max(s.opt.StartLimitInterval, s.opt.RestartMaxDelay) {
		m.Delay = 0
	}
	d := max(time.Duration(m.Delay), s.opt.RestartDelay)
	m.Delay = int64(min(2*d, most))
	return min(d, most)
}

// unwellWorker is told of an unhealthy worker. A candidate's makes its generation unhealthy; one of an active generation of several is
// replaced by itself.
func (s *Supervisor) unwellWorker(n int, w *worker, why string) {
	g := s.gen(n)
	m := g.Crew[w.k]
	r := s.roll()
	switch {
	case r != nil && n == s.st.Candidate && g.State == Canary:
		s.unroll(g.named(w.k, why), EvUnhealthy)
	case n != s.st.Active || s.st.Workers < 2:
		s.fire(n, EvUnhealthy, g.named(w.k, why))
	case s.st.Mode == modeStopping || m.Alone || g.State != Active:
	case s.opt.ExitUnhealthy:
		s.fire(n, EvUnhealthy, g.named(w.k, why))
	case s.st.Swap != nil:
		s.log.Warn("unhealthy; a swap is under way", "gen", n, "worker", w.k, "why", why)
	case slices.ContainsFunc(g.Crew, func(m *member) bool { return m.Alone && m.Number < s.st.Workers }):
		s.log.Warn("unhealthy; another worker is being replaced", "gen", n, "worker", w.k, "why", why)
	case s.limitedWorker(m):
		s.log.Error("unhealthy, and replaced too often: it stays", "gen", n, "worker", w.k, "why", why)
	default:
		m.Starts = append(m.Starts, time.Now())
		m.Restarts++
		s.st.Restarts++
		add(&s.st.Counters.Restarts, "unhealthy")
		s.dismiss(g, w, why)
		s.respread()
		s.fireWorker(n, w, EvSuperseded, why)
	}
}

// dismiss takes a worker out of those that can have traffic.
func (s *Supervisor) dismiss(g *record, w *worker, why string) {
	m := g.Crew[w.k]
	m.Alone, m.Leaving, m.State, m.Reason = true, true, Active, why
	s.stopAgain(w)
}

// endAlone ends what is done for single workers of a generation that leaves the active state: they go the way of the others.
func (s *Supervisor) endAlone(g *record) {
	l := s.live[g.Number]
	if l == nil {
		return
	}
	for k, w := range l.crew {
		s.stopAgain(w)
		switch m := g.Crew[k]; {
		case w.over || !m.Alone:
		case m.State == Starting || m.State == Ready:
			s.fireWorker(g.Number, w, EvStop, "its generation ends")
		}
	}
}

// watchWorker reports EvQuiet when what a worker has is gone or idle, or DRAIN_QUIET has passed.
func (s *Supervisor) watchWorker(g *record, w *worker) {
	n := g.Number
	if w.inst == nil || w.inst.Traffic == nil || s.opt.DrainQuiet <= 0 {
		s.fireWorker(n, w, EvQuiet, "nothing to wait for")
		return
	}
	s.endCount(&w.counting)
	ctx, cancel := context.WithCancel(w.ctx)
	w.counting = cancel
	s.spawn(func() {
		s.countTraffic(ctx, []Traffic{w.inst.Traffic}, func(c counted) {
			if l := s.live[n]; l == nil || l.crew[w.k] != w || w.over || ctx.Err() != nil {
				return
			}
			g.Crew[w.k].Load = &c.load
			if c.quiet {
				s.fireWorker(n, w, EvQuiet, c.why)
			}
		})
	})
}

// armWorker sets the deadline of a worker that ends alone.
func (s *Supervisor) armWorker(g *record, w *worker) {
	if w.deadline != nil {
		w.deadline.Stop()
	}
	w.armed++
	n, d, mine := g.Number, s.patience(g.Crew[w.k].State), w.armed
	w.deadline = time.AfterFunc(d, func() {
		s.post(func() {
			if w.armed == mine && !w.over {
				s.fireWorker(n, w, EvDeadline, fmt.Sprintf("still there %s after the signal", d))
			}
		})
	})
}
