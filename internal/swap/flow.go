package swap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
)

// maxPhases is more than a swap has: a roll has three for each worker and as many on the way back.
const maxPhases = 32 + 8*handoff.MaxWorkers

// waiter is a caller that wants to see a swap and its end.
type waiter struct {
	progress chan Progress // more room than a swap has phases
	result   chan Result   // room for the one result
	drained  bool          // the answer is to wait for the end of what was replaced
	decided  Result        // the answer while that is waited for
}

func (w *waiter) finish(r Result) { w.result <- r }

// Swap asks for a swap and blocks until it is decided: the new generation is active, or it was refused and why. When ctx
// ends first the answer is CodeTimeout and the swap goes on. progress, if not nil, is called in order on the caller's
// goroutine.
func (s *Supervisor) Swap(ctx context.Context, r Request, progress func(Progress)) Result {
	w := &waiter{progress: make(chan Progress, maxPhases), result: make(chan Result, 1), drained: r.Drained}
	if err := s.ask(ctx, func() { s.begin(r, w) }); err != nil {
		r.Upload.close()
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
	if !s.post(func() { s.begin(r, nil) }) {
		r.Upload.close()
	}
}

// begin starts a swap, remembers the request, or answers at once.
func (s *Supervisor) begin(r Request, w *waiter) {
	if s.st.Mode == modeStopping || s.st.Swap != nil || len(s.st.Command) == 0 {
		r.Upload.close() // whatever the answer, it is not run
		r.Upload = nil
	}
	switch {
	case s.st.Mode == modeStopping:
		answer(w, Result{Code: CodeRejected, Phase: "stop", Text: "the container is ending"})
	case s.st.Swap != nil && r.Remember:
		s.remember(r, w)
	case s.st.Swap != nil:
		answer(w, Result{Code: CodeBusy, Generation: s.st.Candidate, Text: s.busyText()})
	case r.Kind == Run && len(r.Command) == 0:
		answer(w, Result{Code: CodeUsage, Text: "no command to run was given"})
	case r.Kind == Scale && (r.Workers < 1 || r.Workers > handoff.MaxWorkers):
		answer(w, Result{Code: CodeUsage, Text: fmt.Sprintf("cannot scale to %d workers: a generation has 1 to %d", r.Workers, handoff.MaxWorkers)})
	case r.Kind == Scale && s.st.Active == 0:
		answer(w, Result{Code: CodeRejected, Text: "cannot scale: no generation is active"})
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
	return fmt.Sprintf("another swap is under way (%s, %s ago, phase %s); `entrypoint abort` cancels it", sw.Request.Cause, since(sw.At), sw.Phase)
}

// remember keeps one request for after this swap: the newest words, all the callers.
func (s *Supervisor) remember(r Request, w *waiter) {
	if old := s.st.Remembered; old != nil {
		if old.Kind == Run && r.Kind != Run {
			r = *old // a command line that was asked for is not lost to a later plain reload
		}
		r.Changed = r.Changed && old.Changed // somebody wants it in any case
		r.Force = r.Force || old.Force
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
	s.st.Swap = &swapping{Request: r, At: time.Now(), From: s.st.Active, Crash: crash, Sequential: s.mode().Sequential}
	s.st.Swap.enter("check")
	if r.Kind == Restart && !crash {
		add(&s.st.Counters.Restarts, "command")
	}
	if s.rolls(r.Kind, crash) {
		s.st.Swap.Roll = &rolling{}
	}
	if w != nil {
		s.waiters = append(s.waiters, w)
	}
	s.setMode(modeIdle, r.Cause)
	s.changed()
	switch {
	case r.Kind == Scale:
		s.scale()
	case (r.Kind == Restart || r.Kind == Replace) && s.prog != nil:
		s.checked(s.prog, nil)
	case r.Kind == Rollback:
		s.choose()
	default:
		s.inspect()
	}
}

// inspection is what a look at the bytes of a swap found.
type inspection struct {
	program Program
	path    string // of an upload: the app's own file
	sum     string // SHA-256, where it was asked for
	err     error
}

// inspect looks at the bytes without touching anything that runs, on a goroutine.
func (s *Supervisor) inspect() {
	sw := s.st.Swap
	command, upload := s.st.Command, sw.Request.Upload
	if sw.Request.Kind == Run {
		command = slices.Clone(sw.Request.Command)
	}
	sw.Request.Upload = nil
	hash := sw.Request.Changed || s.st.Barred != ""
	s.spawn(func() {
		var i inspection
		if upload != nil {
			i.program, i.path, i.err = s.opt.Launcher.Adopt(s.ctx, command, upload)
			upload.close()
		} else {
			i.program, i.err = s.opt.Launcher.Check(s.ctx, command)
		}
		if i.err == nil && hash {
			i.sum, _ = i.program.Hash(s.ctx) // what cannot be read is compared with nothing
		}
		if !s.post(func() { s.inspected(sw, i) }) && i.program != nil {
			i.program.Close()
		}
	})
}

// inspected drops the result of an inspection that nobody waits for any more.
func (s *Supervisor) inspected(sw *swapping, i inspection) {
	if s.st.Swap != sw {
		if i.program != nil {
			i.program.Close()
		}
		s.checkEnd()
		return
	}
	if i.err != nil {
		if reason, yes := verifyReason(i.err); yes {
			add(&s.st.Counters.VerifyFailures, reason)
		}
		s.checked(nil, i.err)
		return
	}
	p := s.hold(&program{Program: i.program, sum: i.sum})
	defer s.drop(p)
	switch why, barred := s.barred(sw, p); {
	case barred:
		s.checked(nil, why)
	case sw.Request.Changed && p.sum != "" && s.st.Active != 0 && s.prog != nil && s.prog.sum == p.sum:
		s.unchanged("the bytes are those that run", "runs these bytes")
	case sw.Request.Changed && s.overtaken(p):
		s.unchanged("the file was written before the upload that runs", "runs an upload that is newer than the file")
	default:
		sw.Path = i.path
		s.checked(p, nil)
	}
}

// unchanged ends a swap that would have replaced bytes by the same, or by older ones: it leaves no record.
func (s *Supervisor) unchanged(why, does string) {
	sw := s.st.Swap
	s.log.Info("nothing to swap", "cause", sw.Request.Cause, "why", why)
	s.answerAll(Result{
		Code: CodeDone, Generation: s.st.Active, Phase: "check", ElapsedMS: time.Since(sw.At).Milliseconds(),
		Text: fmt.Sprintf("nothing to do: generation %d %s", s.st.Active, does),
	})
}

func (s *Supervisor) checked(p *program, err error) {
	if err != nil {
		s.refuse(Result{Code: CodeRejected, Phase: "check", Text: err.Error()}, Ending{Code: exitCode(err)})
		return
	}
	s.next = s.hold(p)
	s.phase("check", 0, "checked", p.Path()+" can be started")
	s.prepare(p)
}

// commence starts the candidate, or stops first what it replaces.
func (s *Supervisor) commence() {
	sw := s.st.Swap
	if sw.Roll != nil && s.st.Active != 0 {
		s.beginRoll()
		return
	}
	sw.Roll = nil // who was to make room has gone meanwhile
	if !sw.Sequential && (sw.Request.Kind != Restart || sw.Crash) {
		s.launch()
		return
	}
	sw.enter("stop")
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
	g := s.addGeneration(p)
	ctx, cancel := context.WithCancel(s.ctx)
	s.live[g.Number] = &live{ctx: ctx, cancel: cancel, prog: s.hold(p)}
	s.st.Candidate, s.st.Swap.To = g.Number, g.Number
	s.st.Swap.enter("start")
	first := 0
	if r := s.roll(); r != nil {
		first = r.At
	}
	s.startWorker(g, first, false).unsent = s.pending
	s.pending = nil
}

// learnHash reads the bytes of the program once, off the path of everything. A program that is closed meanwhile gives an
// error, and nobody misses the hash.
func (s *Supervisor) learnHash(n int, l *live) {
	s.spawn(func() {
		sum, err := l.prog.Hash(l.ctx)
		if err == nil {
			s.post(func() { s.hashed(n, l.prog, sum) })
		}
	})
}

// phase notes where the swap is and tells the callers.
func (s *Supervisor) phase(phase string, gen int, name, text string) {
	if s.st.Swap == nil {
		return
	}
	s.st.Swap.enter(phase)
	s.news.publish(News{Kind: NewsPhase, Generation: gen, Phase: name, Text: text})
	p := Progress{Time: time.Now(), Generation: gen, Phase: name, Text: text}
	for _, w := range s.waiters {
		s.report(w, p)
	}
}

func (s *Supervisor) report(w *waiter, p Progress) {
	select {
	case w.progress <- p:
	default: // a swap has fewer phases than there is room
	}
}

// activated makes g the active generation: its predecessor drains, the callers hear of it.
func (s *Supervisor) activated(g *record) {
	prev := s.st.Active
	recalled := s.st.Candidate != g.Number
	s.st.Active, s.st.Served = g.Number, g.Number
	s.keep(s.live[g.Number].prog, g.Number, recalled)
	s.endCount(&s.live[g.Number].counting)
	g.Load = nil
	s.watchHealth(g)
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
	s.tend()
}

func (s *Supervisor) promoted(g *record, prev int) {
	sw := s.st.Swap
	s.phase("promote", g.Number, "promoted", "new connections go to it")
	if (sw.Request.Kind == Run || sw.Request.Kind == Rollback) && s.opt.Commanded != nil {
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
	if n := s.st.Workers; n > 1 {
		text = fmt.Sprintf("generation %d is active (%s, after %s)", g.Number, workersText(n), since(g.StartedAt))
	}
	if prev != 0 {
		text += fmt.Sprintf("; generation %d drains", prev)
	}
	o := about(PostPromote, g)
	o.Previous, o.Cause, o.Result = prev, sw.Request.Cause, text
	s.tellHooks(o)
	s.finish(Result{Code: CodeDone, Generation: g.Number, Text: text, Path: sw.Path})
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
