package swap

import (
	"context"
	"errors"
	"fmt"
	"syscall"
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
	loadShare = 10
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
		s.log.Info("generation", "gen", n, "pid", g.PID, "from", string(from), "to", string(to), "event", e.String(), "why", why)
	}
	for _, a := range acts {
		s.act(g, a, why)
	}
}

func (g *record) stamp(to State) {
	switch to {
	case Ready:
		g.ReadyAt = time.Now()
	case Active:
		g.ActiveAt = time.Now()
	case Stopping, Failed:
		g.SignalledAt = time.Now()
	case Killed:
		g.KilledAt = time.Now()
	case Exited:
		g.EndedAt = time.Now()
	}
}

func (s *Supervisor) act(g *record, a Action, why string) {
	switch a {
	case ActPromote:
		s.promote(g)
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

func (s *Supervisor) promote(g *record) {
	s.phase("promote", g.Number, "ready", fmt.Sprintf("ready after %s", since(g.StartedAt)))
	if err := s.opt.Launcher.Steer(g.Number); err != nil {
		s.fire(g.Number, EvNotSteered, "cannot give it the traffic: "+err.Error())
		return
	}
	s.fire(g.Number, EvPromoted, "")
}

// signalEnd sends the stop signal. What is left of a group without its main process gets it in any case.
func (s *Supervisor) signalEnd(g *record) {
	l := s.live[g.Number]
	if l == nil || l.inst == nil {
		return // started() makes up for it
	}
	s.stopWaiting(l)
	if g.Ending != nil {
		_ = l.inst.Process.SignalGroup(s.opt.StopSignal) // usually there is none left
		return
	}
	s.logSignal(g, s.opt.StopSignal, s.send(l.inst.Process, s.opt.StopSignal))
}

func (s *Supervisor) kill(g *record) {
	l := s.live[g.Number]
	if l == nil || l.inst == nil {
		return
	}
	s.stopWaiting(l)
	s.logSignal(g, syscall.SIGKILL, l.inst.Process.SignalGroup(syscall.SIGKILL))
}

func (s *Supervisor) logSignal(g *record, sig syscall.Signal, err error) {
	if err != nil && g.Ending == nil {
		s.log.Warn("cannot signal", "gen", g.Number, "pid", g.PID, "signal", sig.String(), "err", err)
	}
}

// stopWaiting ends the wait for readiness.
func (s *Supervisor) stopWaiting(l *live) {
	if l.notReady != nil {
		l.notReady(errEnding)
	}
	if l.start != nil {
		l.start.Stop()
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
	n, d, mine := g.Number, s.patience(g), l.armed
	l.deadline = time.AfterFunc(d, func() {
		s.post(func() {
			if s.live[n] == l && l.armed == mine {
				s.fire(n, EvDeadline, fmt.Sprintf("still there %s after the signal", d))
			}
		})
	})
}

func (s *Supervisor) patience(g *record) time.Duration {
	switch {
	case g.State == Killed:
		return killAgain
	case s.st.Mode == modeStopping && !s.st.StopBy.IsZero():
		return max(0, time.Until(s.st.StopBy))
	case g.State == Failed:
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
		s.stopWaiting(l)
		l.cancel()
		if l.inst != nil {
			s.retire(l.inst)
		}
		s.drop(l.prog)
	}
	g.Load = nil
	if s.st.Active == g.Number {
		s.st.Active = 0
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

// exited is told once by the goroutine that waited for the main process.
func (s *Supervisor) exited(n int, e Ending, output string) {
	g := s.gen(n)
	if g == nil {
		return
	}
	g.Ending, g.Exit = &e, e.String()
	why := e.String()
	if g.State == Starting || g.State == Ready {
		why += " before it was ready"
		g.Output = output
	}
	s.fire(n, EvExited, why)
	s.watchGone(n)
}

// watchGone reports EvGone when no member of the group is left, at once in the usual case.
func (s *Supervisor) watchGone(n int) {
	l := s.live[n]
	if l == nil || l.gone {
		return
	}
	l.gone = true
	p := l.inst.Process
	if !p.GroupAlive() {
		s.fire(n, EvGone, "")
		return
	}
	s.spawn(func() {
		for d := goneFirst; p.GroupAlive(); d = min(2*d, goneMost) {
			select {
			case <-time.After(d):
			case <-s.ctx.Done():
				return
			}
		}
		s.post(func() { s.fire(n, EvGone, "") })
	})
}

// watchTraffic reports EvQuiet when the generation's connections are gone or idle, or DRAIN_QUIET has passed, and keeps
// counting them for status until the generation ends.
func (s *Supervisor) watchTraffic(g *record) {
	l := s.live[g.Number]
	if l == nil || l.inst == nil {
		return
	}
	n := g.Number
	if l.inst.Traffic == nil || s.opt.DrainQuiet <= 0 {
		s.fire(n, EvQuiet, "nothing to wait for")
		return
	}
	s.spawn(func() { s.countTraffic(l.ctx, n, l.inst.Traffic) })
}

func (s *Supervisor) countTraffic(ctx context.Context, n int, t Traffic) {
	over := time.Now().Add(s.opt.DrainQuiet)
	quiet := false
	for d := loadFirst; ; d = min(2*d, loadMost) {
		begin := time.Now()
		load, err := t.Load()
		took := time.Since(begin)
		why, now := calm(load, err)
		if !now && time.Now().After(over) {
			why, now = fmt.Sprintf("not quiet after %s", s.opt.DrainQuiet), true
		}
		first := now && !quiet
		quiet = quiet || now
		if !s.post(func() { s.counted(n, load, first, why) }) {
			return
		}
		select {
		case <-time.After(max(d, loadShare*took)):
		case <-ctx.Done():
			return
		}
	}
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

func (s *Supervisor) counted(n int, load handoff.Load, quiet bool, why string) {
	g := s.gen(n)
	if g == nil || s.live[n] == nil {
		return
	}
	g.Load = &load
	if quiet {
		s.fire(n, EvQuiet, why)
	}
}

// said is a message of the app about itself.
func (s *Supervisor) said(n int, m handoff.Message) {
	g, l := s.gen(n), s.live[n]
	if g == nil || l == nil {
		return
	}
	if m.Status != "" {
		g.StatusText = m.Status
	}
	if m.ExtendTimeout > 0 && g.State == Starting && l.start != nil {
		l.start.Reset(m.ExtendTimeout)
	}
}

// since is a duration for people.
func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
