package swap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
)

// Step is one step of a canary.
type Step struct {
	Share handoff.Share
	For   time.Duration // 0: until somebody promotes the candidate
}

// smoke tries a candidate before any client reaches it.
func (s *Supervisor) smoke(g *record) {
	n, l := g.Number, s.live[g.Number]
	var tests []func(context.Context) error
	for k, w := range l.crew {
		if !w.over && w.inst.Smoke != nil {
			tests = append(tests, func(ctx context.Context) error { return g.explain(k, w.inst.Smoke(ctx)) })
		}
	}
	if len(tests) == 0 {
		s.phase("promote", n, "ready", fmt.Sprintf("ready after %s", since(g.StartedAt)))
		s.passed(g, "there are no smoke tests")
		return
	}
	s.phase("smoke", n, "ready", fmt.Sprintf("ready after %s, the smoke tests begin", since(g.StartedAt)))
	ctx, cancel := l.ctx, context.CancelFunc(func() {})
	if s.opt.StartTimeout > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, s.opt.StartTimeout, fmt.Errorf("not over after %s", s.opt.StartTimeout))
	}
	s.spawn(func() {
		err := runAll(ctx, tests)
		if err != nil && errors.Is(err, context.DeadlineExceeded) {
			err = context.Cause(ctx)
		}
		cancel()
		s.post(func() { s.smoked(n, err) })
	})
}

// explain says which of several workers an error is about.
func (g *record) explain(k int, err error) error {
	if err == nil || len(g.Crew) < 2 {
		return err
	}
	return fmt.Errorf("worker %d: %w", k, err)
}

// runAll runs tests, a few at a time, and gives the error of one that failed. The others are cancelled then, and waited for.
func runAll(ctx context.Context, tests []func(context.Context) error) error {
	if len(tests) == 1 {
		return tests[0](ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	var once sync.Once
	var failed error
	free := make(chan struct{}, maxStarting)
	for _, test := range tests {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			if err := test(ctx); err != nil {
				once.Do(func() { failed = err; cancel(err) })
			}
		})
	}
	all.Wait()
	return failed
}

func (s *Supervisor) smoked(n int, err error) {
	if err != nil {
		s.fire(n, EvUnhealthy, "a smoke test failed: "+err.Error())
		return
	}
	g := s.gen(n)
	if g.State == Ready {
		s.phase("promote", n, "passed", "the smoke tests passed")
	}
	s.passed(g, "")
}

// onTrial tells whether a candidate gets its traffic step by step: somebody else must be there to take it back, and it must be news.
// What ran before, or runs already, is not tried again.
func (s *Supervisor) onTrial() bool {
	sw := s.st.Swap
	kind := sw.Request.Kind
	return s.st.Active != 0 && !sw.Hasten && (kind == Reload || kind == Run || kind == Put)
}

// advance gives a candidate more of the traffic: the next share, then all of it for a while, then all of it for good.
func (s *Supervisor) advance(g *record) {
	n, sw := g.Number, s.st.Swap
	if sw == nil {
		return
	}
	if sw.Roll != nil {
		s.advanceRoll(g)
		return
	}
	if s.dead(g) {
		return // its end refuses it, as soon as its last words are read
	}
	trial := s.onTrial()
	switch {
	case trial && g.State != Baking && sw.Step < len(s.opt.Canary):
		share := s.opt.Canary[sw.Step].Share
		sw.enter("canary")
		if err := s.opt.Launcher.Split(s.st.Active, n, share); err != nil {
			s.fire(n, EvNotSteered, "cannot give it a share of the traffic: "+err.Error())
			return
		}
		sw.Step++
		g.Share = share.String()
		s.fire(n, EvShared, "")
	case trial && g.State != Baking && s.opt.Bake > 0:
		sw.enter("bake")
		if s.steer(g) {
			g.Share = allOfIt
			s.fire(n, EvBaking, "")
		}
	case s.steer(g):
		sw.enter("promote")
		g.Share = ""
		s.fire(n, EvPromoted, "")
	}
}

// dead tells whether a process of a candidate has ended, and that is not reported yet.
func (s *Supervisor) dead(g *record) bool {
	return slices.ContainsFunc(s.live[g.Number].crew, func(w *worker) bool {
		if w.inst == nil || w.over {
			return false
		}
		select {
		case <-w.inst.Process.Done():
			return true
		default:
			return false
		}
	})
}

// allOfIt is the share of a generation that bakes.
const allOfIt = "100%"

func (s *Supervisor) steer(g *record) bool {
	if err := s.steerTo(g.Number); err != nil {
		s.fire(g.Number, EvNotSteered, "cannot give it the traffic: "+err.Error())
		return false
	}
	s.switches++
	return true
}

// step times what a candidate was given, and begins to watch its health.
func (s *Supervisor) step(g *record) {
	if s.roll() != nil {
		s.rolled(g)
		return
	}
	n, l := g.Number, s.live[g.Number]
	d, name, text := s.opt.Bake, "baking", "all new connections go to it"
	if g.State == Canary {
		d, name, text = s.opt.Canary[s.st.Swap.Step-1].For, "canary", g.Share+" of the new connections go to it"
	}
	s.stopStep(l)
	l.steps++
	switch mine := l.steps; {
	case d > 0:
		text += " for " + d.String()
		g.StepEnds = time.Now().Add(d)
		l.step = time.AfterFunc(d, func() {
			s.post(func() {
				if s.live[n] == l && l.steps == mine {
					s.fire(n, EvStep, fmt.Sprintf("%s is over", d))
				}
			})
		})
	default:
		text += " until it is promoted"
		g.StepEnds = time.Time{}
	}
	s.phase(s.st.Swap.Phase, n, name, text)
	s.changed()
	s.watchHealth(g)
}

func (s *Supervisor) stopStep(l *live) {
	if l != nil && l.step != nil {
		l.step.Stop()
		l.step = nil
	}
}

// back gives all new connections to the active generation again.
func (s *Supervisor) back(g *record) {
	s.stopStep(s.live[g.Number])
	g.Share, g.StepEnds = "", time.Time{}
	if s.st.Active == 0 {
		return // it died: nobody can take them
	}
	s.switches++
	s.lead(s.st.Active)
}

// leadAgain is when a switch back that failed is tried again: clients go to a generation that is ending.
const leadAgain = time.Second

// lead gives all new connections to the active generation n, at once or as soon as that can be done, unless there is another switch
// before.
func (s *Supervisor) lead(n int) {
	err := s.steerTo(n)
	if err == nil {
		return
	}
	s.log.Error("cannot give the traffic back: trying again", "gen", n, "in", leadAgain.String(), "err", err)
	mine := s.switches
	time.AfterFunc(leadAgain, func() {
		s.post(func() {
			if s.st.Active == n && s.switches == mine {
				s.lead(n)
			}
		})
	})
}

// hasten gives all of the traffic to a candidate on trial at once, because the active generation is gone.
func (s *Supervisor) hasten(why string) {
	if s.tried() {
		s.st.Swap.Hasten = true
		s.fire(s.st.Candidate, EvStep, why)
	}
}

// watchHealth begins the health checks and the watchdog of a generation that has traffic, unless they are under way. One that was
// superseded and gets the traffic back is judged anew.
func (s *Supervisor) watchHealth(g *record) {
	l := s.live[g.Number]
	if l == nil {
		return
	}
	for k, w := range l.crew {
		if !g.Crew[k].Alone {
			s.watchWorkerHealth(g, w)
		}
	}
}

func (s *Supervisor) watchWorkerHealth(g *record, w *worker) {
	if w.inst == nil || w.over || w.unwatch != nil {
		return
	}
	n := g.Number
	ctx, cancel := context.WithCancel(w.ctx)
	w.unwatch = cancel
	g.judged(w.k, "", false)
	if w.inst.Health != nil {
		s.spawn(func() {
			w.inst.Health(ctx, func(h probe.Health) { s.post(func() { s.health(n, w, h) }) })
		})
	}
	if w.watchdog == 0 {
		w.watchdog = s.opt.Watchdog
	}
	s.feed(n, w)
}

// judged notes what the last health check of a worker found; its generation shows the first that is unhealthy.
func (g *record) judged(k int, why string, sick bool) {
	m := g.Crew[k]
	m.Unhealthy, m.Sick = why, sick
	g.Unhealthy, g.Sick = "", g.allSick()
	for _, m := range g.Crew {
		if m.Unhealthy != "" && m.State != Exited {
			g.Unhealthy = g.named(m.Number, m.Unhealthy)
			return
		}
	}
}

// allSick tells whether so many health checks in a row have failed that a generation does not serve: those of all workers that it has.
func (g *record) allSick() bool {
	sick := false
	for _, m := range g.Crew {
		if m.Ending == nil && !m.Alone && !m.Sick {
			return false
		}
		sick = sick || m.Sick
	}
	return sick
}

// endWatch ends them: a generation that is on its way out is not judged.
func (s *Supervisor) endWatches(l *live) {
	if l != nil {
		for _, w := range l.crew {
			s.endWatch(w)
		}
	}
}

func (s *Supervisor) endWatch(w *worker) {
	if w.unwatch == nil {
		return
	}
	w.unwatch()
	w.unwatch = nil
	if w.hungry != nil {
		w.hungry.Stop()
		w.hungry = nil
	}
}

// health is told of each failed round, and of the first good one after it.
func (s *Supervisor) health(n int, w *worker, h probe.Health) {
	g, l := s.gen(n), s.live[n]
	if g == nil || l == nil || l.crew[w.k] != w || w.unwatch == nil || g.State != Active && g.State != Canary && g.State != Baking {
		return
	}
	if h.Failures == 0 {
		g.judged(w.k, "", false)
		s.log.Info("healthy again", "gen", n, "worker", w.k)
		s.news.publish(News{Kind: NewsHealth, Generation: n, Text: g.named(w.k, "healthy again")})
		return
	}
	g.judged(w.k, h.Reason, !h.Healthy)
	s.log.Warn("health check failed", "gen", n, "worker", w.k, "in_a_row", h.Failures, "why", h.Reason)
	s.news.publish(News{Kind: NewsHealth, Generation: n, Text: g.named(w.k, fmt.Sprintf("health check failed, %d in a row: %s", h.Failures, h.Reason))})
	if most := max(1, s.opt.HealthFailures); h.Failures%most == 0 {
		s.unwellWorker(n, w, fmt.Sprintf("unhealthy, %d checks in a row failed: %s", h.Failures, h.Reason))
	}
}

// feed starts the time of the watchdog again.
func (s *Supervisor) feed(n int, w *worker) {
	if w.hungry != nil {
		w.hungry.Stop()
		w.hungry = nil
	}
	d := w.watchdog
	if d <= 0 || w.unwatch == nil {
		return
	}
	w.hungry = time.AfterFunc(d, func() {
		s.post(func() {
			if w.over || w.unwatch == nil {
				return
			}
			s.feed(n, w)
			s.unwellWorker(n, w, fmt.Sprintf("it has not fed its watchdog for %s", d))
		})
	})
}

// unwell is told of an active generation that is not what it should be.
func (s *Supervisor) unwell(g *record, why string) {
	switch {
	case s.st.Mode == modeStopping || g.Number != s.st.Active:
	case s.st.Swap != nil:
		s.log.Warn("unhealthy; a swap is under way", "gen", g.Number, "why", why)
	case s.opt.ExitUnhealthy:
		s.st.Final, s.st.Decided = Ending{Code: 1}, true
		s.stop(why, false)
	case s.limited():
		s.log.Error("unhealthy, and replaced too often: it stays", "gen", g.Number, "why", why, "replaced", s.opt.StartLimitBurst, "in", s.opt.StartLimitInterval.String())
	default:
		s.st.Starts = append(s.st.Starts, time.Now())
		s.st.Restarts++
		add(&s.st.Counters.Restarts, "unhealthy")
		s.open(Request{Kind: Replace, Cause: "health: " + why}, nil, false)
	}
}

// Promote takes a candidate on trial one step further, or, with all, through all of them. It does not wait for anything.
func (s *Supervisor) Promote(ctx context.Context, by string, all bool) Result {
	var r Result
	if err := s.ask(ctx, func() { r = s.promoteNow(by, all) }); err != nil {
		return Result{Code: CodeNoInit, Text: err.Error()}
	}
	return r
}

func (s *Supervisor) promoteNow(by string, all bool) Result {
	g := s.gen(s.st.Candidate)
	switch {
	case g == nil || s.st.Swap == nil: // a roll that a stop has ended leaves its candidate serving until everybody is told
		return Result{Code: CodeRejected, Text: "nothing to promote: no candidate is on trial"}
	case g.State != Canary && g.State != Baking:
		return Result{Code: CodeRejected, Generation: g.Number, Text: fmt.Sprintf("generation %d is %s: it gets its traffic by itself once it has shown that it works", g.Number, g.State)}
	case s.roll() != nil:
		return Result{Code: CodeRejected, Generation: g.Number, Text: fmt.Sprintf("generation %d is being rolled out (%s): its workers take their places by themselves", g.Number, g.Share)}
	}
	s.st.Swap.Hasten = s.st.Swap.Hasten || all
	s.fire(g.Number, EvStep, "promoted by "+by)
	r := Result{Generation: g.Number, Text: fmt.Sprintf("generation %d is active", g.Number)}
	switch {
	case g.State == Canary || g.State == Baking:
		r.Text = fmt.Sprintf("generation %d has %s of the new connections", g.Number, g.Share)
	case g.State != Active:
		r.Code, r.Text = CodeRolledBack, fmt.Sprintf("generation %d could not be promoted: %s", g.Number, g.Reason)
	}
	return r
}

// Abort cancels the swap under way, as long as another generation can go on. It does not wait for the candidate to end.
func (s *Supervisor) Abort(ctx context.Context, by string) Result {
	var r Result
	if err := s.ask(ctx, func() { r = s.abortNow("aborted by " + by) }); err != nil {
		return Result{Code: CodeNoInit, Text: err.Error()}
	}
	return r
}

func (s *Supervisor) abortNow(why string) Result {
	sw := s.st.Swap
	switch {
	case sw == nil:
		return Result{Code: CodeRejected, Text: "nothing to abort: no swap is under way"}
	case s.st.Active == 0 || s.gen(s.st.Active).State != Active:
		return Result{Code: CodeRejected, Text: "cannot abort: no other generation serves"}
	}
	r := Result{Generation: s.st.Candidate, Text: fmt.Sprintf("%s; generation %d serves on", why, s.st.Active)}
	g := s.gen(s.st.Candidate)
	switch {
	case sw.Request.Kind == Scale:
		s.unscale(why, s.st.Workers)
		return r
	case sw.Roll != nil && sw.Roll.Back:
		return Result{Code: CodeRejected, Generation: s.st.Candidate, Text: "nothing to abort: the roll goes back already (" + sw.Roll.Why + ")"}
	case sw.Roll != nil && g != nil && g.State == Canary:
		r.Text = fmt.Sprintf("%s; the workers of generation %d take their places again", why, s.st.Active)
		s.unroll(why, EvAbort)
		return r
	}
	if s.st.Candidate != 0 {
		s.fire(s.st.Candidate, EvAbort, why)
	} else {
		s.refuse(Result{Code: CodeRejected, Phase: sw.Phase, Text: why}, Ending{})
	}
	return r
}
