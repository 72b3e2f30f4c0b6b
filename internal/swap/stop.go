package swap

import (
	"context"
	"errors"
	"time"
)

// Stop ends everything: after Options.ShutdownDelay of serving on, every generation gets the stop signal and one deadline
// for all, then KILL. now, or a second Stop, kills at once. It blocks until nothing runs any more, or ctx ends.
func (s *Supervisor) Stop(ctx context.Context, now bool) Result {
	done := make(chan Result, 1)
	if err := s.ask(ctx, func() {
		s.stops = append(s.stops, done)
		s.stop("stop command", now)
	}); err != nil {
		return Result{Code: CodeNoInit, Text: err.Error()}
	}
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
		return Result{Code: CodeTimeout, Text: "stopped waiting; the container is ending"}
	}
}

// TriggerStop asks for a stop and waits for nothing: from a signal. A second one kills.
func (s *Supervisor) TriggerStop(cause string) {
	s.post(func() { s.stop(cause, false) })
}

func (s *Supervisor) stop(why string, now bool) {
	if s.st.Mode == modeStopping {
		s.killAll("a second stop: " + why)
		return
	}
	s.setMode(modeStopping, why)
	s.endHooks(errStopping)
	s.abandonSwap()
	if now {
		s.killAll(why)
		return
	}
	if d := s.opt.ShutdownDelay; d > 0 && s.st.Active != 0 {
		s.log.Info("serving on before the stop", "for", d.String())
		time.AfterFunc(d, func() { s.post(func() { s.stopAll(why) }) })
		return
	}
	s.stopAll(why)
}

// abandonSwap refuses the candidate at once, with an answer to those who wait.
func (s *Supervisor) abandonSwap() {
	if s.backoff != nil {
		s.backoff.Stop()
	}
	if s.st.Swap == nil {
		return
	}
	n, rolls := s.st.Candidate, s.roll() != nil && s.tried()
	if s.st.Served == 0 {
		s.st.Served = n
	}
	s.finish(Result{Code: CodeRejected, Generation: n, Phase: "stop", Text: "the container is ending"})
	if s.st.Active != 0 && !rolls { // in a roll both serve: it gets the delay too. And with nothing active the candidate is what serves, or would: it gets the delay
		s.fire(n, EvStop, "the container is ending")
	}
}

func (s *Supervisor) stopAll(why string) {
	if s.st.StopBy.IsZero() {
		s.st.StopBy = time.Now().Add(s.opt.ShutdownTimeout)
		time.AfterFunc(s.opt.ShutdownTimeout, func() { s.post(func() { s.killAll("the shutdown deadline passed") }) })
	}
	s.endFront()
	for _, g := range s.unended() {
		s.fire(g.Number, EvStop, why)
	}
	s.checkEnd()
}

func (s *Supervisor) killAll(why string) {
	if s.st.StopBy.IsZero() {
		s.st.StopBy = time.Now()
	}
	s.hurry = true
	s.endHooks(errors.New(why))
	for _, g := range s.unended() {
		if g.State != Killed {
			s.fire(g.Number, EvKill, why)
		}
	}
	s.checkEnd()
}

// unended lists the generations that may still have processes. A copy: firing changes the list.
func (s *Supervisor) unended() []*record {
	var list []*record
	for _, g := range s.st.Generations {
		if g.State != Exited {
			list = append(list, g)
		}
	}
	return list
}

// checkEnd ends Run once the last process is gone.
func (s *Supervisor) checkEnd() {
	if s.st.Mode != modeStopping || s.st.StopBy.IsZero() || s.running() {
		return
	}
	if !s.st.Decided {
		if g := s.gen(s.st.Served); g != nil && g.Ending != nil {
			s.st.Final = *g.Ending
		}
	}
	if !s.leaving() {
		s.ended = true
	}
}

// StopDeadline is when the shutdown's one deadline is over; zero before a stop. For what is done after Run.
func (s *Supervisor) StopDeadline() time.Time { return s.st.StopBy }
