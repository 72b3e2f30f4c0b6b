package swap

import (
	"fmt"
	"slices"
	"time"
)

// died is told that the active generation ended by itself.
func (s *Supervisor) died(g *record, why string) {
	s.st.Active, s.st.Served = 0, g.Number
	g.Reason, g.Died = "ended by itself: "+why, true
	o := about(Failure, g)
	o.Code, o.Result = g.Ending.ExitCode(), fmt.Sprintf("generation %d %s", g.Number, g.Reason)
	s.tellHooks(o)
	switch {
	case s.st.Mode == modeStopping:
	case s.st.Swap != nil && s.st.Swap.Request.Kind == Scale:
		s.finish(Result{Code: CodeRejected, Generation: g.Number, Phase: "scale", Text: fmt.Sprintf("cannot scale: generation %d %s", g.Number, g.Reason)})
		s.died(g, why)
	case !s.tried() && s.recall(g):
	case s.st.Swap != nil:
		s.log.Warn("the active generation ended during a swap: the swap goes on, clients wait in the held sockets", "gen", g.Number, "why", why)
		s.hasten(fmt.Sprintf("generation %d is gone: %s", g.Number, why))
	default:
		s.resume(*g.Ending)
	}
}

// tried tells whether a candidate is on trial. It works, and what drains would be an older version than the one that it replaces.
func (s *Supervisor) tried() bool {
	g := s.gen(s.st.Candidate)
	return g != nil && (g.State == Canary || g.State == Baking)
}

// recall gives the traffic back to a predecessor that has been told nothing yet.
func (s *Supervisor) recall(dead *record) bool {
	for _, g := range slices.Backward(s.st.Generations) {
		if g.State != Draining || g.Refused {
			continue
		}
		if err := s.steerTo(g.Number); err != nil {
			s.log.Error("cannot roll back", "gen", g.Number, "err", err)
			return false
		}
		s.switches++
		s.log.Warn("rolled back", "from", dead.Number, "to", g.Number, "why", dead.Reason)
		s.fire(g.Number, EvRecalled, fmt.Sprintf("generation %d %s", dead.Number, dead.Reason))
		return true
	}
	return false
}

// resume decides what follows when no app serves and none is on its way: e is how the last one ended.
func (s *Supervisor) resume(e Ending) {
	switch {
	case s.opt.Restart == RestartNo || s.opt.Restart == "" || s.opt.Restart == RestartOnFailure && e.Success():
		s.fatal(e, e.ofApp())
	case s.limited():
		s.fatal(e, fmt.Sprintf("%s, and it was started %d times in %s", e.ofApp(), s.opt.StartLimitBurst, s.opt.StartLimitInterval))
	default:
		s.restartLater(e)
	}
}

// limited tells whether one more start would be too many, and forgets starts that are too long ago to count.
func (s *Supervisor) limited() bool {
	if s.opt.StartLimitBurst <= 0 || s.opt.StartLimitInterval <= 0 {
		return false
	}
	ago := time.Now().Add(-s.opt.StartLimitInterval)
	s.st.Starts = slices.DeleteFunc(s.st.Starts, func(t time.Time) bool { return t.Before(ago) })
	return len(s.st.Starts) >= s.opt.StartLimitBurst
}

// fatal ends the container with the app's ending, or keeps it for the next reload, unless there are bytes that served before.
func (s *Supervisor) fatal(e Ending, why string) {
	if s.opt.AutoRollback && !e.Success() && len(s.older) > 0 {
		s.log.Warn("rolling back", "why", why)
		s.st.Starts, s.st.Delay = nil, 0
		s.open(Request{Kind: Rollback, Cause: "crash: " + why}, nil, true)
		if s.st.Swap != nil {
			s.st.Swap.Ended = &e
		}
		return
	}
	if s.opt.Stay || s.opt.WaitOnFatal && !e.Success() {
		s.setMode(modeWaiting, why+": waiting for a reload")
		return
	}
	s.st.Final, s.st.Decided = e, true
	s.stop(why, false)
}

func (s *Supervisor) restartLater(e Ending) {
	d := s.delay()
	s.setMode(modeBackoff, fmt.Sprintf("%s: starting it again in %s", e.ofApp(), d))
	s.backoff = time.AfterFunc(d, func() {
		s.post(func() {
			if s.st.Mode == modeBackoff && s.st.Swap == nil {
				s.startAgain(e)
			}
		})
	})
}

func (s *Supervisor) startAgain(e Ending) {
	s.st.Starts = append(s.st.Starts, time.Now())
	s.st.Restarts++
	add(&s.st.Counters.Restarts, restartReason(e))
	s.backoff = nil
	s.open(Request{Kind: Restart, Cause: "restart policy"}, nil, true)
}

// delay is the next back-off: doubled each time, from the start again once a generation has been active long enough.
func (s *Supervisor) delay() time.Duration {
	if g := s.gen(s.st.Served); g != nil && !g.ActiveAt.IsZero() && time.Since(g.ActiveAt) >= max(s.opt.StartLimitInterval, s.opt.RestartMaxDelay) {
		s.st.Delay = 0
	}
	d := max(time.Duration(s.st.Delay), s.opt.RestartDelay)
	s.st.Delay = int64(min(2*d, max(s.opt.RestartMaxDelay, s.opt.RestartDelay)))
	return min(d, max(s.opt.RestartMaxDelay, s.opt.RestartDelay))
}
