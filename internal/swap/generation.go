package swap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
)

const (
	// refusedGrace bounds what a refused candidate gets between its stop signal and KILL: nobody waits for its work.
	refusedGrace = 5 * time.Second
	// killAgain is when KILL is repeated: a group that forks while it is being killed may have a survivor.
	killAgain = time.Second
	// goneFirst and goneMost pace the look at a group whose leader is gone while members are left.
	goneFirst, goneMost = 10 * time.Millisecond, 250 * time.Millisecond
	// loadFirst and loadMost pace the look at what is left of a draining generation's traffic.
	loadFirst, loadMost = 5 * time.Millisecond, 100 * time.Millisecond
	// loadShare keeps counting below a tenth of a processor where there are very many connections.
	// loadRare bounds that: a count may have taken long because the machine stood still.
	loadShare, loadRare = 10, 5 * time.Second
)

// fire is the only place where a generation changes state.
func (s *Supervisor) fire(n int, e Event, why string) {
	g := s.gen(n)
	if g == nil {
		return
	}
	from := g.State
	to, acts := next(from, e)
	if to == from && len(acts) == 0 {
		s.log.Debug("ignored", "gen", n, "state", string(from), "event", e.String(), "why", table[from][e].note)
		return
	}
	if to != from {
		g.State = to
		g.stamp(to)
		if to != Canary && to != Baking && to != Active {
			s.endWatches(s.live[n])
		}
		if from == Active {
			s.endAlone(g)
		}
		s.news.publish(News{Kind: NewsGeneration, Generation: n, From: string(from), To: string(to), Text: why})
		s.count(g, to)
		s.log.Info("generation", "gen", n, "pid", g.PID, "from", string(from), "to", string(to), "event", e.String(), "why", why)
	}
	for _, a := range acts {
		s.act(g, a, why)
	}
	if to == Stopping || to == Failed || to == Killed {
		s.settle(n) // all of its workers may have ended before, to be started again later: nobody else would say that it is gone
	}
}

func (g *record) stamp(to State) {
	switch to {
	case Ready:
		g.ReadyAt = time.Now()
	case Canary, Baking:
		if g.TriedAt.IsZero() {
			g.TriedAt = time.Now()
		}
	case Active:
		g.ActiveAt, g.StepEnds, g.DrainingAt = time.Now(), time.Time{}, time.Time{}
	case Draining:
		g.DrainingAt = time.Now()
	case Stopping, Failed:
		g.SignalledAt = time.Now()
	case Killed:
		g.KilledAt = time.Now()
	case Exited:
		g.EndedAt = time.Now()
	}
}

// count notes how a generation that was replaced went: how long it drained, and what KILL cut.
func (s *Supervisor) count(g *record, to State) {
	if g.Refused || g.DrainingAt.IsZero() {
		return
	}
	switch {
	case to == Killed && g.Load != nil:
		s.st.Counters.Cut += uint64(max(0, g.Load.Open))
	case to == Exited:
		s.st.Counters.spent("drain", g.EndedAt.Sub(g.DrainingAt))
	}
}

func (s *Supervisor) act(g *record, a Action, why string) {
	switch a {
	case ActSmoke:
		s.smoke(g)
	case ActAdvance:
		s.advance(g)
	case ActStep:
		s.step(g)
	case ActBack:
		s.back(g)
	case ActUnwell:
		s.unwell(g, why)
	case ActActive:
		s.activated(g)
	case ActReject:
		s.rejected(g, why)
	case ActDied:
		s.died(g, why)
	case ActWatch:
		s.watchTraffic(g)
	case ActSignal:
		s.signalEnd(g)
	case ActArm:
		s.arm(g)
	case ActKill:
		s.kill(g)
	case ActRelease:
		s.release(g)
	}
}

// signalEnd sends the stop signal. What is left of a group without its main process gets it in any case.
func (s *Supervisor) signalEnd(g *record) {
	s.eachWorker(g, EvStop, s.signalWorker)
}

func (s *Supervisor) kill(g *record) {
	s.eachWorker(g, EvKill, s.killWorker)
}

// eachWorker does something to the workers that live with their generation, and tells those that are alone.
func (s *Supervisor) eachWorker(g *record, alone Event, do func(*record, *worker)) {
	l := s.live[g.Number]
	if l == nil {
		return
	}
	for k, w := range l.crew {
		switch {
		case w.over:
		case g.Crew[k].Alone:
			s.fireWorker(g.Number, w, alone, "its generation ends")
		default:
			do(g, w)
		}
	}
}

var errEnding = errors.New("it is being ended")

// arm sets the one deadline that a generation has: until KILL, or until KILL is repeated.
func (s *Supervisor) arm(g *record) {
	l := s.live[g.Number]
	if l == nil {
		return
	}
	if l.deadline != nil {
		l.deadline.Stop()
	}
	l.armed++
	n, d, mine := g.Number, s.patience(g.State), l.armed
	l.deadline = time.AfterFunc(d, func() {
		s.post(func() {
			if s.live[n] == l && l.armed == mine {
				s.fire(n, EvDeadline, fmt.Sprintf("still there %s after the signal", d))
			}
		})
	})
}

func (s *Supervisor) patience(state State) time.Duration {
	switch {
	case state == Killed:
		return killAgain
	case s.st.Mode == modeStopping && !s.st.StopBy.IsZero():
		return max(0, time.Until(s.st.StopBy))
	case state == Failed:
		return min(s.opt.DrainTimeout, refusedGrace)
	}
	return s.opt.DrainTimeout
}

// release is the end of a generation: nothing of it runs any more.
func (s *Supervisor) release(g *record) {
	l := s.live[g.Number]
	delete(s.live, g.Number)
	if l != nil {
		if l.deadline != nil {
			l.deadline.Stop()
		}
		for _, w := range l.crew {
			s.stopAgain(w)
		}
		s.stopStep(l)
		l.cancel()
		s.drop(l.prog)
	}
	g.Load = nil
	if s.st.Active == g.Number {
		s.st.Active = 0
	}
	s.drained(g)
	if !g.ActiveAt.IsZero() && !g.Died {
		o := about(Drained, g)
		o.Result = g.Exit
		s.tellHooks(o)
	}
	s.proceed()
	s.checkEnd()
}

// retire gives back what an instance had. Traffic first and here: its slots may be leased again at once. The rest may wait
// for somebody who is still talking to it.
func (s *Supervisor) retire(i *Instance) {
	if i.Traffic != nil {
		i.Traffic.Release()
	}
	if i.Close != nil {
		s.spawn(i.Close)
	}
}

// watchTraffic reports EvQuiet when the generation's connections are gone or idle, or DRAIN_QUIET has passed, and keeps
// counting them for status until the generation ends.
func (s *Supervisor) watchTraffic(g *record) {
	l := s.live[g.Number]
	if l == nil {
		return
	}
	n := g.Number
	if !s.anyBut(l, nil) { // a roll has taken the last one away
		s.settle(n)
		return
	}
	var list []Traffic
	for _, w := range l.crew {
		if !w.over && w.inst != nil && w.inst.Traffic != nil {
			list = append(list, w.inst.Traffic)
		}
	}
	if len(list) == 0 || s.opt.DrainQuiet <= 0 {
		s.fire(n, EvQuiet, "nothing to wait for")
		return
	}
	s.endCount(&l.counting)
	ctx, cancel := context.WithCancel(l.ctx)
	l.counting = cancel
	s.spawn(func() {
		s.countTraffic(ctx, list, func(c counted) {
			if ctx.Err() == nil {
				s.counted(n, c)
			}
		})
	})
}

// endCount ends the count of a drain that does not go on: one that was called back, or drains anew and has its whole time again. After it
// that count tells nothing any more.
func (s *Supervisor) endCount(counting *context.CancelFunc) {
	if *counting != nil {
		(*counting)()
		*counting = nil
	}
}

// counted is one look at what is left of some traffic; quiet is true once, when it does not matter any more.
type counted struct {
	load  handoff.Load
	quiet bool
	why   string
}

// countTraffic looks again and again until ctx ends, and tells each time, on the owner's goroutine.
func (s *Supervisor) countTraffic(ctx context.Context, list []Traffic, told func(counted)) {
	patience := time.Duration(0)
	for _, t := range list {
		patience = max(patience, s.quietTime(t))
	}
	over := time.Now().Add(patience)
	quiet := false
	for d := loadFirst; ; d = min(2*d, loadMost) {
		begin := time.Now()
		load, err := loadOf(list)
		took := time.Since(begin)
		why, now := calm(load, err)
		if !now && !time.Now().Before(over) {
			why, now = fmt.Sprintf("not quiet after %s%s", patience, unknown(load, err)), true
		}
		first := now && !quiet
		quiet = quiet || now
		if !s.post(func() { told(counted{load, first, why}) }) {
			return
		}
		pause := max(d, min(loadShare*took, loadRare))
		if !quiet {
			pause = min(pause, max(0, time.Until(over))) // DRAIN_QUIET is a promise
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// unknown says why nobody can tell whether it is quiet; "": it can be told.
func unknown(l handoff.Load, err error) string {
	switch {
	case err != nil:
		return ": its connections cannot be counted: " + err.Error()
	case !l.Known:
		return ": its connections cannot be told from those of others"
	}
	return ""
}

// calm tells whether nothing would be cut by a signal now. What cannot be known is not calm.
func calm(l handoff.Load, err error) (why string, ok bool) {
	if err != nil || !l.Known || l.Queued > 0 || l.HalfOpen > 0 || l.Busy > 0 {
		return "", false
	}
	if l.Open == 0 {
		return "no connection left", true
	}
	return fmt.Sprintf("%d connections left, all idle", l.Open), true
}

func (s *Supervisor) counted(n int, c counted) {
	g := s.gen(n)
	if g == nil || s.live[n] == nil {
		return
	}
	g.Load = &c.load
	if c.quiet {
		s.fire(n, EvQuiet, c.why)
	}
}

// said is a message of the app about itself.
func (s *Supervisor) said(n int, w *worker, m handoff.Message) {
	g, l := s.gen(n), s.live[n]
	if g == nil || l == nil || l.crew[w.k] != w {
		return
	}
	if m.Status != "" {
		g.StatusText = m.Status
	}
	if m.WatchdogTime > 0 {
		w.watchdog = m.WatchdogTime
	}
	if m.Watchdog || m.WatchdogTime > 0 {
		s.feed(n, w)
	}
	if m.WatchdogTrigger {
		s.unwellWorker(n, w, "it says so itself (WATCHDOG=trigger)")
	}
	if m.ExtendTimeout > 0 && g.Crew[w.k].State == Starting && w.start != nil {
		w.start.Reset(m.ExtendTimeout)
	}
}

// since is a duration for people.
func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
