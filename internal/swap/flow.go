package swap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// waiter is a caller that wants to see a swap and its end.
type waiter struct {
	progress chan Progress // more room than a swap has phases
	result   chan Result   // room for the one result
}

func (w *waiter) finish(r Result) { w.result <- r }

// Swap asks for a swap and blocks until it is decided: the new generation is active, or it was refused and why. When ctx
// ends first the answer is CodeTimeout and the swap goes on. progress, if not nil, is called in order on the caller's
// goroutine.
func (s *Supervisor) Swap(ctx context.Context, r Request, progress func(Progress)) Result {
	w := &waiter{progress: make(chan Progress, 32), result: make(chan Result, 1)}
	if err := s.ask(ctx, func() { s.begin(r, w) }); err != nil {
		if errors.Is(err, ErrEnded) {
			return Result{Code: CodeNoInit, Text: err.Error()}
		}
		return Result{Code: CodeTimeout, Text: "gave up before the swap was begun"}
	}
	for {
		select {
		case p := <-w.progress:
			tell(progress, p)
		case res := <-w.result:
			for len(w.progress) > 0 {
				tell(progress, <-w.progress)
			}
			return res
		case <-ctx.Done():
			return Result{Code: CodeTimeout, Text: "stopped waiting; the swap goes on"}
		}
	}
}

func tell(f func(Progress), p Progress) {
	if f != nil {
		f(p)
	}
}

// Trigger asks for a swap and waits for nothing: from a signal or a watch.
func (s *Supervisor) Trigger(r Request) {
	s.post(func() { s.begin(r, nil) })
}

// begin starts a swap, remembers the request, or answers at once.
func (s *Supervisor) begin(r Request, w *waiter) {
	switch {
	case s.st.Mode == modeStopping:
		answer(w, Result{Code: CodeRejected, Phase: "stop", Text: "the container is ending"})
	case s.st.Swap != nil && r.Remember:
		s.remember(r, w)
	case s.st.Swap != nil:
		answer(w, Result{Code: CodeBusy, Generation: s.st.Candidate, Text: s.busyText()})
	case r.Kind == Run && len(r.Command) == 0:
		answer(w, Result{Code: CodeUsage, Text: "no command to run was given"})
	case r.Kind != Run && len(s.st.Command) == 0:
		answer(w, Result{Code: CodeUsage, Text: "there is no command yet: give one with `entrypoint run -- CMD`"})
	default:
		s.open(r, w, false)
	}
}

func answer(w *waiter, r Result) {
	if w != nil {
		w.finish(r)
	}
}

func (s *Supervisor) busyText() string {
	sw := s.st.Swap
	return fmt.Sprintf("another swap is under way (%s, %s ago, phase %s)", sw.Request.Cause, since(sw.At), sw.Phase)
}

// remember keeps one request for after this swap: the newest words, all the callers.
func (s *Supervisor) remember(r Request, w *waiter) {
	if old := s.st.Remembered; old != nil && old.Kind == Run && r.Kind != Run {
		r = *old // a command line that was asked for is not lost to a later plain reload
	}
	s.st.Remembered = &r
	if w != nil {
		s.queued = append(s.queued, w)
	}
	s.log.Info("remembered", "cause", r.Cause)
}

// open begins a swap; crash says that the restart policy asked for it.
func (s *Supervisor) open(r Request, w *waiter, crash bool) {
	if s.backoff != nil {
		s.backoff.Stop()
		s.backoff = nil
	}
	s.st.Swap = &swapping{Request: r, At: time.Now(), From: s.st.Active, Phase: "check", Crash: crash, Sequential: s.mode().Sequential}
	if w != nil {
		s.waiters = append(s.waiters, w)
	}
	s.setMode(modeIdle, r.Cause)
	s.changed()
	if r.Kind == Restart && s.prog != nil {
		s.checked(s.prog, nil)
		return
	}
	command := s.st.Command
	if r.Kind == Run {
		command = slices.Clone(r.Command)
	}
	sw := s.st.Swap
	s.spawn(func() {
		p, err := s.opt.Launcher.Check(s.ctx, command)
		if !s.post(func() { s.checkedFor(sw, p, err) }) && p != nil {
			p.Close()
		}
	})
}

// checkedFor drops the result of a check that nobody waits for any more.
func (s *Supervisor) checkedFor(sw *swapping, p Program, err error) {
	if s.st.Swap != sw {
		if p != nil {
			p.Close()
		}
		s.checkEnd()
		return
	}
	var h *program
	if p != nil {
		h = &program{Program: p}
	}
	s.checked(h, err)
}

func (s *Supervisor) checked(p *program, err error) {
	sw := s.st.Swap
	if err != nil {
		s.refuse(Result{Code: CodeRejected, Phase: "check", Text: err.Error()}, Ending{Code: exitCode(err)})
		return
	}
	s.next = s.hold(p)
	s.phase("check", 0, "checked", p.Path()+" can be started")
	if !sw.Sequential && (sw.Request.Kind != Restart || sw.Crash) {
		s.launch()
		return
	}
	sw.Phase = "stop"
	if s.st.Active != 0 {
		s.phase("stop", s.st.Active, "stopping", fmt.Sprintf("stopping generation %d first", s.st.Active))
		s.fire(s.st.Active, EvStop, "a new generation takes its place")
	}
	s.proceed()
}

// exitCode is 126 or 127 where the error knows better than 126.
func exitCode(err error) int {
	var e interface{ ExitCode() int }
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return 126
}

// proceed goes on with a sequential swap once nothing of the app runs any more, or with a restart once the generation
// that it replaces has ended.
func (s *Supervisor) proceed() {
	sw := s.st.Swap
	if sw == nil || sw.Phase != "stop" || s.st.Mode == modeStopping {
		return
	}
	if from := s.gen(sw.From); !sw.Sequential && (from == nil || from.State == Exited) || !s.running() {
		s.launch()
	}
}

// running tells whether any generation still has processes, or may have.
func (s *Supervisor) running() bool {
	return slices.ContainsFunc(s.st.Generations, func(g *record) bool { return g.State != Exited })
}

// launch starts the candidate.
func (s *Supervisor) launch() {
	p := s.next
	g := s.addGeneration(p.Command(), p.Path())
	ctx, cancel := context.WithCancel(s.ctx)
	s.live[g.Number] = &live{ctx: ctx, cancel: cancel, prog: s.hold(p), unsent: s.pending}
	s.pending = nil
	s.st.Candidate, s.st.Swap.To, s.st.Swap.Phase = g.Number, g.Number, "start"
	s.spawn(func() {
		i, err := s.opt.Launcher.Start(ctx, g.Number, p.Program)
		if !s.post(func() { s.started(g.Number, i, err) }) && i != nil {
			s.retire(i)
		}
	})
}

// started is told once for each launch.
func (s *Supervisor) started(n int, i *Instance, err error) {
	g, l := s.gen(n), s.live[n]
	if err != nil {
		g.Ending, g.Exit = &Ending{Code: exitCode(err)}, "not started"
		s.fire(n, EvExited, err.Error())
		s.fire(n, EvGone, "")
		return
	}
	l.inst, g.PID = i, i.Process.PID()
	s.attend(n, l)
	for _, sig := range l.unsent {
		s.logSignal(g, sig, s.send(i.Process, sig))
	}
	switch g.State {
	case Starting:
		s.phase("ready", n, "started", fmt.Sprintf("generation %d is pid %d", n, g.PID))
		s.awaitReady(g, l)
	case Killed:
		s.kill(g)
		s.arm(g)
	default: // it was stopped or refused before it had a process
		s.signalEnd(g)
		s.arm(g)
	}
}

// attend starts what listens to a generation: its end, its messages, its hash.
func (s *Supervisor) attend(n int, l *live) {
	i := l.inst
	s.spawn(func() {
		<-i.Process.Done()
		out := ""
		if i.Output != nil {
			out = i.Output()
		}
		e := endingOf(i.Process.Status())
		s.post(func() { s.exited(n, e, out) })
	})
	if i.Messages != nil {
		s.spawn(func() {
			for m := range i.Messages {
				s.post(func() { s.said(n, m) })
			}
		})
	}
}

func (s *Supervisor) awaitReady(g *record, l *live) {
	n, patience := g.Number, s.opt.StartTimeout
	ctx, cancel := context.WithCancelCause(l.ctx)
	l.notReady = cancel
	if patience > 0 {
		l.start = time.AfterFunc(patience, func() { cancel(context.DeadlineExceeded) })
	}
	s.spawn(func() {
		err := l.inst.Ready(ctx)
		late := errors.Is(context.Cause(ctx), context.DeadlineExceeded)
		s.post(func() { s.readiness(n, err, late) })
	})
}

func (s *Supervisor) readiness(n int, err error, late bool) {
	g, l := s.gen(n), s.live[n]
	if l == nil {
		return
	}
	if l.start != nil {
		l.start.Stop()
	}
	switch {
	case err == nil:
		s.fire(n, EvReady, "")
		s.learnHash(n, l)
	case late:
		s.fire(n, EvNotReady, fmt.Sprintf("not ready after %s: %v", since(g.StartedAt), err))
	default:
		s.fire(n, EvNotReady, err.Error())
	}
}

// learnHash reads the bytes of the program once, off the path of everything. A program that is closed meanwhile gives an
// error, and nobody misses the hash.
func (s *Supervisor) learnHash(n int, l *live) {
	s.spawn(func() {
		sum, err := l.prog.Hash(l.ctx)
		s.post(func() {
			if g := s.gen(n); g != nil && err == nil {
				g.SHA256 = sum
			}
		})
	})
}

// phase notes where the swap is and tells the callers.
func (s *Supervisor) phase(phase string, gen int, name, text string) {
	if s.st.Swap == nil {
		return
	}
	s.st.Swap.Phase = phase
	p := Progress{Time: time.Now(), Generation: gen, Phase: name, Text: text}
	for _, w := range s.waiters {
		select {
		case w.progress <- p:
		default: // a swap has fewer phases than there is room
		}
	}
}

// activated makes g the active generation: its predecessor drains, the callers hear of it.
func (s *Supervisor) activated(g *record) {
	prev := s.st.Active
	recalled := s.st.Candidate != g.Number
	s.st.Active, s.st.Served = g.Number, g.Number
	s.keep(s.live[g.Number].prog)
	if prev != 0 && prev != g.Number {
		s.fire(prev, EvSuperseded, fmt.Sprintf("generation %d is active", g.Number))
	}
	s.limitDraining()
	if recalled {
		s.changed()
		return
	}
	s.st.Candidate = 0
	s.st.Command = slices.Clone(g.Command)
	s.promoted(g, prev)
}

func (s *Supervisor) promoted(g *record, prev int) {
	sw := s.st.Swap
	s.phase("promote", g.Number, "promoted", "new connections go to it")
	if sw.Request.Kind == Run && s.opt.Commanded != nil {
		command := slices.Clone(g.Command)
		s.spawn(func() { s.opt.Commanded(command) })
	}
	if sw.Fallback {
		r := *sw.First
		r.Text += fmt.Sprintf("; what ran before was started again as generation %d", g.Number)
		s.finish(r)
		return
	}
	text := fmt.Sprintf("generation %d is active (pid %d, ready after %s)", g.Number, g.PID, g.ReadyAt.Sub(g.StartedAt).Round(time.Millisecond))
	if prev != 0 {
		text += fmt.Sprintf("; generation %d drains", prev)
	}
	s.finish(Result{Code: CodeDone, Generation: g.Number, Text: text})
}

// limitDraining ends the oldest of too many draining generations: one that waited for its connections gets its stop signal
// now, one that had it is killed.
func (s *Supervisor) limitDraining() {
	var draining []*record
	for _, g := range s.st.Generations {
		if !g.Refused && !g.ActiveAt.IsZero() && (g.State == Draining || g.State == Stopping) {
			draining = append(draining, g)
		}
	}
	for _, g := range draining[:max(0, len(draining)-max(1, s.opt.MaxDraining))] {
		open := 0
		if g.Load != nil {
			open = g.Load.Open
		}
		s.log.Warn("too many generations drain: ending the oldest", "gen", g.Number, "pid", g.PID, "connections", open, "limit", s.opt.MaxDraining)
		if g.State == Draining {
			s.fire(g.Number, EvQuiet, "too many generations drain")
		} else {
			s.fire(g.Number, EvKill, "too many generations drain")
		}
	}
}

// rejected is told of a candidate that is refused, before it is ended.
func (s *Supervisor) rejected(g *record, why string) {
	g.Refused, g.Reason = true, why
	sw := s.st.Swap
	s.st.Candidate = 0
	if sw == nil {
		return
	}
	e := Ending{Code: 1}
	if g.Ending != nil {
		e = *g.Ending
	}
	if s.st.Active == 0 && s.st.Served == 0 {
		s.st.Served = g.Number
	}
	r := Result{Code: CodeRejected, Generation: g.Number, Phase: sw.Phase, Text: fmt.Sprintf("generation %d was refused: %s", g.Number, why), Output: g.Output}
	if sw.Request.Cause == causeStart && g.Ending != nil {
		r.Text = fmt.Sprintf("generation %d ended: %s", g.Number, why)
	}
	if s.fallback(r) {
		return
	}
	s.refuse(r, e)
}

// fallback puts back what a sequential swap had stopped.
func (s *Supervisor) fallback(r Result) bool {
	sw := s.st.Swap
	if sw.From == 0 || sw.Fallback || sw.Crash || s.prog == nil || !sw.Sequential || sw.Request.Kind == Restart || s.st.Mode == modeStopping {
		return false
	}
	s.drop(s.next)
	s.next = s.hold(s.prog)
	sw.Fallback, sw.First, sw.Phase = true, &r, "stop"
	s.log.Warn("rejected, starting what ran before", "gen", r.Generation, "why", r.Text)
	return true // release of the refused one proceeds
}

// refuse ends a swap without success and lets the policy decide where nothing serves.
func (s *Supervisor) refuse(r Result, e Ending) {
	sw := s.st.Swap
	switch {
	case sw.Fallback:
		first := *sw.First
		first.Text += "; and what ran before did not start again: " + r.Text
		r = first
	case s.st.Active != 0:
		r.Text += fmt.Sprintf("; generation %d serves on", s.st.Active)
	}
	s.finish(r)
	if s.st.Active == 0 && s.st.Swap == nil && s.st.Mode != modeStopping {
		s.resume(e)
	}
}

// finish ends the swap under way: one record, one line, one answer to everybody; then the remembered one begins.
func (s *Supervisor) finish(r Result) {
	sw := s.st.Swap
	took := time.Since(sw.At)
	r.ElapsedMS = took.Milliseconds()
	s.st.Swap = nil
	s.drop(s.next)
	s.next = nil
	s.st.LastSwaps = append(s.st.LastSwaps, SwapRecord{
		At: sw.At, Kind: sw.Request.Kind, Cause: sw.Request.Cause, From: sw.From, To: sw.To,
		Code: r.Code, Phase: r.Phase, Text: r.Text, ElapsedMS: r.ElapsedMS,
	})
	if n := len(s.st.LastSwaps); n > keepSwaps {
		s.st.LastSwaps = slices.Delete(s.st.LastSwaps, 0, n-keepSwaps)
	}
	s.logResult(sw, r, took)
	for _, w := range s.waiters {
		w.finish(r)
	}
	s.waiters = nil
	s.changed()
	s.follow()
}

func (s *Supervisor) logResult(sw *swapping, r Result, took time.Duration) {
	args := []any{"cause", sw.Request.Cause, "kind", string(sw.Request.Kind), "from", sw.From, "to", sw.To, "code", r.Code, "elapsed", took.Round(time.Microsecond).String(), "why", r.Text}
	if g := s.gen(sw.To); r.Code == CodeDone || sw.Request.Cause == causeStart && g != nil && g.Ending != nil && g.Ending.Success() {
		s.log.Info("swap", args...) // an app that does its work and ends is no failure
		return
	}
	s.log.Error("swap", append(args, "phase", r.Phase)...)
}

// follow begins the remembered swap.
func (s *Supervisor) follow() {
	r := s.st.Remembered
	if r == nil || s.st.Mode == modeStopping {
		return
	}
	s.st.Remembered = nil
	q := s.queued
	s.queued = nil
	s.begin(*r, nil)
	if s.st.Swap != nil {
		s.waiters = append(s.waiters, q...)
		return
	}
	for _, w := range q {
		w.finish(Result{Code: CodeRejected, Text: "the remembered swap could not be begun"})
	}
}
