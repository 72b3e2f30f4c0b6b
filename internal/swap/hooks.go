package swap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Moment is a point in the life of a generation, or of the whole, at which others may have something done.
type Moment string

// The moments, in the order of a life. What is done at the first two decides: if it fails, the swap is refused.
const (
	PreStart    Moment = "pre_start"    // before a candidate is forked, and before anything is stopped for it
	PrePromote  Moment = "pre_promote"  // it has shown that it works; nobody has talked to it
	PostPromote Moment = "post_promote" // new connections go to it
	Drained     Moment = "drained"      // a generation that was replaced has ended
	Failure     Moment = "failed"       // a start or a swap was refused or rolled back, or the active generation ended by itself
	Leaving     Moment = "exit"         // nothing of the app runs any more, and the container ends
)

// Hooks does what is to be done at a moment.
type Hooks interface {
	// Wants tells whether there is anything to do; it must be quick.
	Wants(Moment) bool
	// Do does it, and blocks until it is done, or until soon after the end of ctx, whose cause says why. Its error is a sentence that
	// says what failed. It is called on one goroutine at a time.
	Do(ctx context.Context, o Occasion) error
}

// Occasion is a moment that came.
type Occasion struct {
	Moment     Moment
	App        string // of several
	Generation int    // whom it is about; 0: nobody
	Previous   int    // whom it replaces, or has replaced; 0: nobody
	PID        int    // of its main process; 0: not forked yet, or not known
	Path       string // of its program
	SHA256     string // of its bytes; "": they could not be read
	Cause      string // who asked for the swap
	Code       int    // of what happened: of a Result, or the exit code
	Result     string // the same in a sentence; "" before it has happened
	Status     Status // of everything, when its turn had come
}

// Environ is what a hook is told in its environment: the one place where these variables are made.
func (o Occasion) Environ() []string {
	env := []string{"ENTRYPOINT_HOOK_EVENT=" + string(o.Moment)}
	add := func(name, value string) { env = append(env, name+"="+value) }
	add("ENTRYPOINT_HOOK_APP", o.App)
	add("ENTRYPOINT_HOOK_GENERATION", number(o.Generation))
	add("ENTRYPOINT_HOOK_PREVIOUS", number(o.Previous))
	add("ENTRYPOINT_HOOK_ACTIVE", number(o.Status.Active))
	add("ENTRYPOINT_HOOK_PID", number(o.PID))
	add("ENTRYPOINT_HOOK_PATH", o.Path)
	add("ENTRYPOINT_HOOK_SHA256", o.SHA256)
	add("ENTRYPOINT_HOOK_CAUSE", o.Cause)
	add("ENTRYPOINT_HOOK_CODE", strconv.Itoa(o.Code))
	add("ENTRYPOINT_HOOK_RESULT", o.Result)
	var workers, sockets []string
	for _, g := range o.Status.Generations {
		switch {
		case g.Number != o.Generation:
		case len(g.Workers) > 0:
			for _, w := range g.Workers {
				workers = append(workers, strconv.Itoa(w.PID))
			}
		case g.PID != 0:
			workers = append(workers, strconv.Itoa(g.PID))
		}
	}
	for _, s := range o.Status.Sockets {
		sockets = append(sockets, s.Name+"="+s.Address)
	}
	add("ENTRYPOINT_HOOK_PIDS", strings.Join(workers, " "))
	add("ENTRYPOINT_HOOK_SOCKETS", strings.Join(sockets, " "))
	return env
}

// number writes nothing for nobody.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// maxHooks bounds the moments that wait for their turn: more come only where hooks take longer than swaps for a long time.
const maxHooks = 64

// hookRun is a moment that waits for its turn, or has it.
type hookRun struct {
	Occasion
	prog *program        // whose hash is wanted; nil: nobody's
	ctx  context.Context // ends when nobody wants it any more
	end  context.CancelCauseFunc
	then func(error) // on the owner goroutine; nil: a failure is only logged
}

// errStopping ends hooks.
var errStopping = errors.New("the container is ending")

func (s *Supervisor) wants(m Moment) bool { return s.opt.Hooks != nil && s.opt.Hooks.Wants(m) }

// tellHooks lets something be done at a moment, in its turn. Nobody waits for it.
func (s *Supervisor) tellHooks(o Occasion) {
	if s.st.Mode == modeStopping || !s.wants(o.Moment) {
		return
	}
	if len(s.hooks) >= maxHooks {
		s.log.Warn("a hook is left out: too many wait", "hook", string(o.Moment), "gen", o.Generation, "waiting", len(s.hooks))
		return
	}
	s.queueHook(&hookRun{Occasion: o, prog: s.programOf(o.Generation)})
}

// awaitHooks lets something be done before the swap under way goes on: then is called unless that swap has ended meanwhile. The
// end of the swap, or of its candidate, ends what is being done.
func (s *Supervisor) awaitHooks(o Occasion, p *program, then func(error)) {
	sw := s.st.Swap
	o.Previous, o.Cause = sw.From, sw.Request.Cause
	s.phase("hook", o.Generation, "hook", fmt.Sprintf("the hook %s runs", o.Moment))
	h := &hookRun{Occasion: o, prog: p}
	h.then = func(err error) {
		if s.deciding != h {
			return // refused meanwhile
		}
		s.deciding = nil
		if err != nil && sw.Fallback {
			s.log.Error("a hook failed; what ran before is put back all the same", "hook", string(o.Moment), "gen", o.Generation, "err", err)
			err = nil
		}
		then(err)
	}
	s.deciding = h
	s.queueHook(h)
}

// endDeciding ends what the swap under way waits for.
func (s *Supervisor) endDeciding(why error) {
	if h := s.deciding; h != nil {
		s.deciding = nil
		h.end(why)
	}
}

func (s *Supervisor) queueHook(h *hookRun) {
	h.ctx, h.end = context.WithCancelCause(s.ctx)
	s.hooks = append(s.hooks, h)
}

// nextHook begins what is next in turn. It is called when the owner has dealt with an event to the end: by then it is known whether
// the container ends.
func (s *Supervisor) nextHook() {
	if s.hooking != nil || len(s.hooks) == 0 {
		return
	}
	h := s.hooks[0]
	s.hooks = slices.Delete(s.hooks, 0, 1)
	s.hooking = h
	h.Status = s.snapshot()
	s.spawn(func() {
		err := s.runHook(h)
		s.post(func() { s.hooked(h, err) })
	})
}

func (s *Supervisor) runHook(h *hookRun) error {
	if h.ctx.Err() != nil {
		return context.Cause(h.ctx)
	}
	h.Status.Sockets = s.opt.Launcher.Held()
	if h.SHA256 == "" && h.prog != nil {
		h.SHA256, _ = h.prog.Hash(h.ctx) // of bytes that are gone nothing is said
	}
	return s.opt.Hooks.Do(h.ctx, h.Occasion)
}

// hooked is told of the end of what was being done.
func (s *Supervisor) hooked(h *hookRun, err error) {
	h.end(nil)
	s.hooking = nil
	switch {
	case h.then != nil:
		h.then(err)
	case err != nil:
		s.log.Error("a hook failed", "hook", string(h.Moment), "gen", h.Generation, "err", err)
	}
}

// endHooks ends what is being done and forgets what waits: the container ends.
func (s *Supervisor) endHooks(why error) {
	for _, h := range s.hooks {
		h.end(why)
		s.parting = s.parting || h == s.exit
	}
	s.hooks = nil
	if s.hooking != nil {
		s.hooking.end(why)
	}
}

// programOf is what a generation runs, or nil when it has ended.
func (s *Supervisor) programOf(n int) *program {
	if l := s.live[n]; l != nil {
		return l.prog
	}
	return nil
}

// about is a moment of a generation.
func about(m Moment, g *record) Occasion {
	return Occasion{Moment: m, Generation: g.Number, PID: g.PID, Path: g.Path, SHA256: g.SHA256}
}

// prepare has done what is to be done before a candidate is started, and before anything is stopped for it.
func (s *Supervisor) prepare(p *program) {
	if !s.wants(PreStart) {
		s.commence()
		return
	}
	o := Occasion{Moment: PreStart, Generation: s.st.Next, Path: p.Path(), SHA256: p.sum}
	s.awaitHooks(o, p, func(err error) {
		if err != nil {
			s.refuse(Result{Code: CodeRejected, Phase: "hook", Text: err.Error()}, Ending{Code: 1})
			return
		}
		s.commence()
	})
}

// passed is told of a candidate that has shown that it works.
func (s *Supervisor) passed(g *record, why string) {
	n := g.Number
	if g.State != Ready || s.st.Swap == nil || !s.wants(PrePromote) {
		s.fire(n, EvPassed, why)
		return
	}
	s.awaitHooks(about(PrePromote, g), s.programOf(n), func(err error) {
		if err != nil {
			s.fire(n, EvUnhealthy, err.Error())
			return
		}
		s.phase("promote", n, "passed", fmt.Sprintf("the hook %s is done", PrePromote))
		s.fire(n, EvPassed, why)
	})
}

// tellResult is told of the end of each swap that took place, or was to.
func (s *Supervisor) tellResult(sw *swapping, r Result) {
	g := s.gen(r.Generation)
	if r.Code == CodeDone || sw.Request.Cause == causeStart && g != nil && g.Ending != nil && g.Ending.Success() {
		return // an app that does its work and ends has not failed
	}
	o := Occasion{Moment: Failure}
	if g != nil {
		o = about(Failure, g)
	}
	o.Previous, o.Cause, o.Code, o.Result = sw.From, sw.Request.Cause, r.Code, r.Text
	s.tellHooks(o)
}

// leaving has done what is to be done at the end, inside the deadline of the shutdown, and tells whether that is waited for.
func (s *Supervisor) leaving() bool {
	if s.parting || !s.wants(Leaving) {
		return false
	}
	if s.exit != nil {
		return true
	}
	if !time.Now().Before(s.st.StopBy) || s.hurry {
		s.parting = true
		s.log.Warn("the exit hook is left out: no time is left of the shutdown", "result", s.st.Final.String())
		return false
	}
	o := Occasion{Moment: Leaving}
	if g := s.gen(s.st.Served); g != nil {
		o = about(Leaving, g)
	}
	o.Code, o.Result = s.st.Final.ExitCode(), s.st.Final.ofApp()
	s.exit = &hookRun{Occasion: o}
	s.exit.then = func(err error) {
		if err != nil {
			s.log.Error("a hook failed", "hook", string(Leaving), "err", err)
		}
		s.parting = true
		s.checkEnd()
	}
	s.queueHook(s.exit)
	return true
}
