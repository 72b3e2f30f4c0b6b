package swap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/reaper"
)

// maxStarting bounds the workers of a generation that are being started at the same time: a generation of 64 must not fork 64
// programs that all read their configuration at once.
const maxStarting = 16

// member is what is known of one worker of a generation.
type member struct {
	Worker
	Ending *Ending `json:"ending,omitempty"` // of its main process
	Sick   bool    `json:"sick,omitempty"`
	// Alone says that it is being started, or ends, by itself and not with its generation.
	Alone bool `json:"alone,omitempty"`
	// Joining and Leaving say that it has, or has not, its part of the traffic from the next switch on.
	Joining bool `json:"joining,omitempty"`
	Leaving bool `json:"leaving,omitempty"`
	// Starts are those after it ended, inside the limit's interval; Delay is the next back-off in nanoseconds.
	Starts []time.Time `json:"starts,omitempty"`
	Delay  int64       `json:"delay,omitempty"`
	// Lost says that it was started too often: it is not started again before the next swap.
	Lost bool `json:"lost,omitempty"`
}

// worker holds the handles of one process of a generation, and of what is done for it. One that is started again gets new ones.
type worker struct {
	k        int
	inst     *Instance // nil until it is started
	ctx      context.Context
	cancel   context.CancelFunc // of everything that was started for it
	notReady context.CancelCauseFunc
	start    *time.Timer        // START_TIMEOUT
	unwatch  context.CancelFunc // ends the health checks; nil: not begun
	watchdog time.Duration
	hungry   *time.Timer        // the watchdog
	counting context.CancelFunc // as that of a generation, of one that drains alone
	deadline *time.Timer        // of one that ends alone
	armed    int                // how often: a timer that was replaced is too late
	again    *time.Timer        // starts its successor
	awaited  bool               // watchGone runs
	over     bool               // nothing of it is left, or it was never there
	unsent   []syscall.Signal
}

// seat is the place of a worker.
func seat(n, k int) handoff.Seat { return handoff.Seat{Generation: n, Worker: k} }

// named begins a sentence about a worker where there are several.
func (g *record) named(k int, text string) string {
	if len(g.Crew) < 2 {
		return text
	}
	return fmt.Sprintf("worker %d: %s", k, text)
}

// startWorker starts worker k of a generation, for the first time or again.
func (s *Supervisor) startWorker(g *record, k int, alone bool) *worker {
	n, l := g.Number, s.live[g.Number]
	for i := len(l.crew); i <= k; i++ {
		l.crew = append(l.crew, &worker{k: i, over: true})
		g.Crew = append(g.Crew, &member{Worker: Worker{Number: i, State: Exited}})
	}
	if w := l.crew[k]; !w.over { // it would be lost, and nobody would end it
		s.log.Error("internal error: a worker is started that is there already", "gen", n, "worker", k, "pid", g.Crew[k].PID)
		return w
	}
	m := g.Crew[k]
	*m = member{Worker: Worker{Number: k, State: Starting, StartedAt: time.Now(), Restarts: m.Restarts}, Starts: m.Starts, Delay: m.Delay, Alone: alone}
	w := &worker{k: k}
	w.ctx, w.cancel = context.WithCancel(l.ctx)
	s.stopAgain(l.crew[k])
	l.crew[k] = w
	p := l.prog
	s.spawn(func() {
		i, err := s.opt.Launcher.Start(w.ctx, seat(n, k), p.Program)
		if !s.post(func() { s.started(n, w, i, err) }) && i != nil {
			s.retire(i)
		}
	})
	return w
}

// fill starts the workers below want that are missing, a few at a time. One that is to be started again later is not missing.
func (s *Supervisor) fill(g *record, want int) {
	l := s.live[g.Number]
	if l == nil {
		return
	}
	busy := 0
	for k, w := range l.crew {
		if !w.over && g.Crew[k].State == Starting {
			busy++
		}
	}
	for k := 0; k < want && busy < maxStarting; k++ {
		if k < len(l.crew) && (!l.crew[k].over || l.crew[k].again != nil || g.Crew[k].Lost) {
			continue
		}
		s.startWorker(g, k, g.State != Starting)
		busy++
	}
}

// started is told once for each launch.
func (s *Supervisor) started(n int, w *worker, i *Instance, err error) {
	g, m := s.gen(n), s.gen(n).Crew[w.k]
	if err != nil {
		m.Ending, m.Exit = &Ending{Code: exitCode(err)}, "not started"
		if m.Alone {
			s.fireWorker(n, w, EvExited, err.Error())
		} else {
			s.noteEnding(g, w.k, *m.Ending, "not started")
			s.fire(n, EvExited, g.named(w.k, err.Error()))
		}
		s.workerGone(n, w)
		return
	}
	w.inst, m.PID, m.Address = i, i.Process.PID(), i.Address
	fresh := g.PID == 0
	if w.k == 0 || g.PID == 0 {
		g.PID = m.PID
	}
	s.attend(n, w)
	for _, sig := range w.unsent {
		s.logSignal(g, w, sig, s.send(i.Process, sig))
	}
	state := g.State
	if m.Alone {
		state = m.State
	}
	switch state {
	case Starting:
		text := fmt.Sprintf("generation %d is pid %d", n, m.PID)
		if s.st.Workers > 1 {
			text = fmt.Sprintf("worker %d of generation %d is pid %d", w.k, n, m.PID)
		}
		if !m.Alone || s.st.Swap != nil {
			s.phase("ready", n, "started", text)
		}
		if fresh {
			s.log.Info("generation", "gen", n, "pid", m.PID, "from", "", "to", string(Starting), "event", "started", "why", s.causeOf(n))
		}
		s.awaitReady(n, w)
	case Killed:
		s.killWorker(g, w)
		s.armAny(g, w)
	default: // it was stopped or refused before it had a process
		s.signalWorker(g, w)
		s.armAny(g, w)
	}
}

// causeOf is who asked for a candidate.
func (s *Supervisor) causeOf(n int) string {
	if sw := s.st.Swap; sw != nil && sw.To == n {
		return sw.Request.Cause
	}
	return ""
}

// armAny arms the deadline that a worker has: its own, or its generation's.
func (s *Supervisor) armAny(g *record, w *worker) {
	if g.Crew[w.k].Alone {
		s.armWorker(g, w)
		return
	}
	s.arm(g)
}

// attend starts what listens to a worker: its end, its messages.
func (s *Supervisor) attend(n int, w *worker) {
	i := w.inst
	s.spawn(func() {
		<-i.Process.Done()
		out := ""
		if i.Output != nil {
			out = i.Output()
		}
		e := endingOf(i.Process.Status())
		s.post(func() { s.exited(n, w, e, out) })
	})
	if i.Messages != nil {
		s.spawn(func() {
			for m := range i.Messages {
				s.post(func() { s.said(n, w, m) })
			}
		})
	}
}

func (s *Supervisor) awaitReady(n int, w *worker) {
	patience := s.opt.StartTimeout
	ctx, cancel := context.WithCancelCause(w.ctx)
	w.notReady = cancel
	if patience > 0 {
		w.start = time.AfterFunc(patience, func() { cancel(context.DeadlineExceeded) })
	}
	s.spawn(func() {
		err := w.inst.Ready(ctx)
		late := errors.Is(context.Cause(ctx), context.DeadlineExceeded)
		s.post(func() { s.readiness(n, w, err, late) })
	})
}

func (s *Supervisor) readiness(n int, w *worker, err error, late bool) {
	g, l := s.gen(n), s.live[n]
	if l == nil || l.crew[w.k] != w {
		return
	}
	m := g.Crew[w.k]
	if w.start != nil {
		w.start.Stop()
	}
	why := ""
	switch {
	case err != nil && late:
		why = fmt.Sprintf("not ready after %s: %v", since(m.StartedAt), err)
	case err != nil:
		why = err.Error()
	}
	switch {
	case m.Alone && err == nil:
		s.fireWorker(n, w, EvReady, "")
	case m.Alone:
		s.fireWorker(n, w, EvNotReady, why)
	case err != nil:
		s.fire(n, EvNotReady, g.named(w.k, why))
	default:
		s.shown(g, w)
	}
}

// shown is told of a worker that is ready with its generation: the first lets the others be started, the last makes the generation ready.
// In a roll the first is all that there is to judge.
func (s *Supervisor) shown(g *record, w *worker) {
	m := g.Crew[w.k]
	if g.State != Starting || m.Ending != nil {
		return
	}
	m.State, m.ReadyAt = Ready, time.Now()
	if s.roll() == nil {
		s.fill(g, s.st.Workers)
		ready := 0
		for _, m := range g.Crew {
			if m.State == Ready {
				ready++
			}
		}
		if ready < s.st.Workers {
			s.phase("ready", g.Number, "ready", fmt.Sprintf("worker %d is ready, %d of %d", w.k, ready, s.st.Workers))
			return
		}
	}
	s.fire(g.Number, EvReady, "")
	s.learnHash(g.Number, s.live[g.Number])
}

// exited is told once by the goroutine that waited for the main process of a worker.
func (s *Supervisor) exited(n int, w *worker, e Ending, output string) {
	g := s.gen(n)
	if g == nil {
		return
	}
	m := g.Crew[w.k]
	m.Ending, m.Exit = &e, e.String()
	s.endWatch(w)
	switch {
	case m.Alone:
		s.fireWorker(n, w, EvExited, e.String())
	case s.goesAlone(g, m, e):
		m.Alone, m.State = true, Active
		s.fireWorker(n, w, EvExited, e.String())
	default:
		s.endedWith(g, w, e, output)
	}
	s.watchGone(n, w)
}

// endedWith is told of a worker whose end concerns its generation. While that drains the others go on with what they have.
func (s *Supervisor) endedWith(g *record, w *worker, e Ending, output string) {
	s.noteEnding(g, w.k, e, e.String())
	if g.State == Draining && s.anyBut(s.live[g.Number], w) {
		return
	}
	if m := g.Crew[w.k]; g.State == Active && s.st.Workers > 1 && s.limitedWorker(m) {
		s.st.Starts = s.allowance() // what one worker has used up is used up for the generation
	}
	why := g.named(w.k, e.String())
	switch g.State {
	case Starting:
		why, g.Output = why+" before it was ready", output
	case Ready:
		why, g.Output = why+" before it was promoted", output
	case Canary, Baking:
		why, g.Output = why+" while it was on trial", output
	}
	s.fire(g.Number, EvExited, why)
}

// anyBut tells whether any worker but w still has processes, or may have; nil: any at all.
func (s *Supervisor) anyBut(l *live, w *worker) bool {
	return l != nil && slices.ContainsFunc(l.crew, func(other *worker) bool { return other != w && !other.over })
}

// noteEnding keeps how a generation ended: as the worker that ended it, or else as the first that did not end well, or as all of them.
func (s *Supervisor) noteEnding(g *record, k int, e Ending, text string) {
	ends := g.State != Draining && g.State != Stopping && g.State != Failed && g.State != Killed
	switch {
	case g.Settled:
		return
	case g.Ending == nil, ends, g.Ending.Success() && !e.Success():
		g.Ending, g.Exit = &e, g.named(k, text)
		g.Settled = ends
	}
}

// watchGone tells workerGone when no member of the group is left, at once in the usual case.
func (s *Supervisor) watchGone(n int, w *worker) {
	if s.live[n] == nil || w.awaited {
		return
	}
	w.awaited = true
	p := w.inst.Process
	if !p.GroupAlive() {
		s.workerGone(n, w)
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
		s.post(func() { s.workerGone(n, w) })
	})
}

// workerGone is told that nothing of a worker runs any more.
func (s *Supervisor) workerGone(n int, w *worker) {
	g := s.gen(n)
	if g.Crew[w.k].Alone {
		s.fireWorker(n, w, EvGone, "")
		return
	}
	s.freeWorker(n, w)
	s.settle(n)
}

// freeWorker gives back what a worker had: its slots at once, so that what waits in them does not wait for its siblings.
func (s *Supervisor) freeWorker(n int, w *worker) {
	if w.over {
		return
	}
	w.over = true
	if g := s.gen(n); g != nil && w.k < len(g.Crew) {
		g.Crew[w.k].State, g.Crew[w.k].Load = Exited, nil
	}
	s.stopWaiting(w)
	s.endWatch(w)
	if w.deadline != nil {
		w.deadline.Stop()
	}
	w.cancel()
	if w.inst != nil {
		s.retire(w.inst)
	}
}

// settle ends a generation of which nothing is left.
func (s *Supervisor) settle(n int) {
	g, l := s.gen(n), s.live[n]
	if l == nil || s.anyBut(l, nil) {
		return
	}
	if g.State == Draining {
		s.fire(n, EvExited, "nothing of it is left")
	}
	if g.State == Stopping || g.State == Failed || g.State == Killed {
		s.fire(n, EvGone, "")
	}
}

// signalWorker sends the stop signal. What is left of a group without its main process gets it in any case.
func (s *Supervisor) signalWorker(g *record, w *worker) {
	if w.inst == nil || w.over {
		return // started() makes up for it
	}
	s.stopWaiting(w)
	if g.Crew[w.k].Ending != nil {
		_ = w.inst.Process.SignalGroup(s.opt.StopSignal) // usually there is none left
		return
	}
	s.logSignal(g, w, s.opt.StopSignal, s.send(w.inst.Process, s.opt.StopSignal))
}

func (s *Supervisor) killWorker(g *record, w *worker) {
	if w.inst == nil || w.over {
		return
	}
	s.stopWaiting(w)
	s.logSignal(g, w, syscall.SIGKILL, w.inst.Process.SignalGroup(syscall.SIGKILL))
}

func (s *Supervisor) logSignal(g *record, w *worker, sig syscall.Signal, err error) {
	if m := g.Crew[w.k]; err != nil && m.Ending == nil {
		s.log.Warn("cannot signal", "gen", g.Number, "pid", m.PID, "signal", reaper.SignalName(sig), "err", err)
	}
}

// stopWaiting ends the wait for readiness.
func (s *Supervisor) stopWaiting(w *worker) {
	if w.notReady != nil {
		w.notReady(errEnding)
	}
	if w.start != nil {
		w.start.Stop()
	}
}

// stopAgain forgets that a worker was to be started again.
func (s *Supervisor) stopAgain(w *worker) {
	if w.again != nil {
		w.again.Stop()
		w.again = nil
	}
}

// fit are the workers of a generation that can have traffic.
func (s *Supervisor) fit(n int) []handoff.Seat {
	g, l := s.gen(n), s.live[n]
	if g == nil || l == nil {
		return nil
	}
	var list []handoff.Seat
	for k, w := range l.crew {
		m := g.Crew[k]
		serves := !m.Alone && !m.ReadyAt.IsZero() || m.Alone && (m.State == Active || m.State == Ready && m.Joining)
		if !w.over && m.Ending == nil && !m.Leaving && serves {
			list = append(list, seat(n, k))
		}
	}
	return list
}

// steerTo gives all new connections to a generation: to those of its workers that can have them.
func (s *Supervisor) steerTo(n int) error {
	if err := s.opt.Launcher.Steer(n); err != nil {
		return err
	}
	l, seats := s.live[n], s.fit(n)
	if l == nil || len(seats) == 0 {
		return nil
	}
	there := 0
	for _, w := range l.crew {
		if !w.over {
			there++
		}
	}
	if there == len(seats) {
		return nil
	}
	return s.opt.Launcher.Spread(n, seats)
}

// spread divides what no candidate's share takes among the workers of the active generation that can have it, and in a roll those of the
// candidate. Where none can it stays as it is: clients wait in the held sockets.
func (s *Supervisor) spread() error {
	n := s.st.Active
	if g := s.gen(s.st.Candidate); g != nil && g.State == Baking {
		return nil // it has all of it
	}
	seats := s.fit(n)
	if s.roll() != nil {
		seats = append(seats, s.fit(s.st.Candidate)...)
	}
	if n == 0 || len(seats) == 0 {
		return nil
	}
	s.switches++
	return s.opt.Launcher.Spread(n, seats)
}

// respread is spread for those who cannot be refused: it is tried again until it is done.
func (s *Supervisor) respread() {
	err := s.spread()
	if err == nil {
		return
	}
	s.log.Error("cannot divide the traffic among the workers: trying again", "gen", s.st.Active, "in", leadAgain.String(), "err", err)
	mine := s.switches
	time.AfterFunc(leadAgain, func() {
		s.post(func() {
			if s.switches == mine {
				s.respread()
			}
		})
	})
}

// signalCrew sends a signal to every worker, or keeps it for those that have no process yet.
func (s *Supervisor) signalCrew(l *live, sig syscall.Signal) error {
	var errs []error
	sent := false
	for _, w := range l.crew {
		switch {
		case w.over:
			continue
		case w.inst == nil:
			w.unsent = append(w.unsent, sig)
		default:
			errs = append(errs, s.send(w.inst.Process, sig))
		}
		sent = true
	}
	if !sent {
		return errNobody
	}
	return errors.Join(errs...)
}

// wholeLoad counts for a generation what its workers' Traffic counts for each, at the price of one.
type wholeLoad interface {
	LoadAll() (handoff.Load, error)
}

// loadOf counts what is left of several workers' traffic, on any goroutine.
func loadOf(list []Traffic) (handoff.Load, error) {
	if len(list) > 1 {
		if t, ok := list[0].(wholeLoad); ok {
			return t.LoadAll()
		}
	}
	sum := handoff.Load{Known: true}
	for _, t := range list {
		l, err := t.Load()
		if err != nil {
			return l, err
		}
		sum.Queued, sum.HalfOpen = sum.Queued+l.Queued, sum.HalfOpen+l.HalfOpen
		sum.Open, sum.Busy, sum.Known = sum.Open+l.Open, sum.Busy+l.Busy, sum.Known && l.Known
	}
	return sum, nil
}

// showWorkers is what status says of the workers of a generation; of one process it says nothing that it does not say anyway.
func (g *record) showWorkers(want int) []Worker {
	if len(g.Crew) < 2 && want < 2 {
		return nil
	}
	var list []Worker
	for _, m := range g.Crew {
		if m.Number >= want && m.State == Exited && g.State == Active {
			continue // scaled away
		}
		w := m.Worker
		if w.Load = clone(w.Load); !m.Alone && w.State != Exited && (g.State != Starting || w.State != Ready) {
			w.State = g.State
		}
		list = append(list, w)
	}
	return list
}

// countedText is "3 workers (0, 4, 5)".
func countedText(numbers []int) string {
	var words []string
	for _, n := range numbers {
		words = append(words, fmt.Sprint(n))
	}
	if len(words) == 1 {
		return "worker " + words[0]
	}
	return fmt.Sprintf("%d workers (%s)", len(words), strings.Join(words, ", "))
}
