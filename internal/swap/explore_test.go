package swap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/reaper"
)

// The supervisor itself, in fake time, with everything that can happen to it from outside: systematically, each event after each short
// sequence of others, and at random, in long walks. After each event all that must hold is looked at; at the end it is stopped, and
// nothing may be left: no process, no slot, no open program, nobody who waits for an answer, no goroutine.
//
// What fails prints its events, and how to have it again:
//
//	EXPLORE_EVENTS='reload, ready, exit of the candidate' EXPLORE_RULES=plain go test ./internal/swap -run '^TestExplore$' -v
//	EXPLORE_SEED=17 go test ./internal/swap -run '^TestWalks$' -v
//
// EXPLORE_DEPTH and EXPLORE_WALKS say how much is done; integration/explore.sh does more of it, without the race detector.

// lever is how a walk moves one worker.
type lever struct {
	at     handoff.Seat
	ready  chan error
	smoke  chan error
	health chan probe.Health
	sickly int  // failed checks in a row
	busy   bool // under the walk's lock, as obeys
	obeys  bool
}

// walk is one supervisor and what was done to it.
type walk struct {
	*rig
	hooks *fakeHooks
	log   slog.Handler // of a walk that is shown

	mu       sync.Mutex
	levers   map[handoff.Seat]*lever
	impolite bool  // those that are started from now on end at KILL alone
	busy     bool  // they have connections that do not end
	launch   bool  // they take a second to be forked
	start    error // the next one cannot be started
	refusing int   // so many switches fail
	lost     bool  // one failed, and none was done since
	asked    int
	answered int
	faults   []string
	ends     bool // a stop was asked for
	bytes    int
}

func (x *walk) fault(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.faults) < 5 {
		x.faults = append(x.faults, fmt.Sprintf(format, args...))
	}
}

// behave makes a worker that does what its lever says. The world is locked.
func (x *walk) behave(at handoff.Seat) *behaviour {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := &lever{at: at, ready: make(chan error, 1), smoke: make(chan error, 1), health: make(chan probe.Health), busy: x.busy, obeys: !x.impolite}
	x.levers[at] = l
	b := &behaviour{start: x.start, health: l.health, output: "last words"}
	x.start = nil
	if x.launch {
		b.launch = time.Second
	}
	b.shows = func(ctx context.Context) error { return await(ctx, l.ready) }
	b.smoke = func(ctx context.Context) error { return await(ctx, l.smoke) }
	b.load = func() handoff.Load {
		x.mu.Lock()
		defer x.mu.Unlock()
		if l.busy {
			return handoff.Load{Known: true, Open: 1, Busy: 1}
		}
		return handoff.Load{Known: true}
	}
	b.handle = func(p *fakeProcess, sig syscall.Signal) {
		x.mu.Lock()
		obeys := l.obeys
		x.mu.Unlock()
		if obeys {
			polite(p, sig)
		}
	}
	return b
}

func await(ctx context.Context, c chan error) error {
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// steering is asked at each switch.
func (x *walk) steering(int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.refusing > 0 {
		x.refusing--
		x.lost = true
		return errors.New("no memory")
	}
	x.lost = false
	return nil
}

// ask makes a request that somebody waits for.
func (x *walk) request(r Request, patience time.Duration) {
	x.mu.Lock()
	x.asked++
	x.mu.Unlock()
	ctx, cancel := context.Background(), func() {}
	if patience > 0 {
		ctx, cancel = context.WithTimeout(ctx, patience)
	}
	go func() {
		defer cancel()
		res := x.Swap(ctx, r, func(Progress) {})
		x.mu.Lock()
		x.answered++
		x.mu.Unlock()
		x.believe(r, res)
	}()
}

// believe looks whether an answer is true.
func (x *walk) believe(r Request, res Result) {
	if res.Text == "" {
		x.fault("%s was answered with %d and no words", r.Kind, res.Code)
	}
	_ = x.Supervisor.ask(context.Background(), func() {
		g := x.gen(res.Generation)
		switch {
		case g == nil || r.Kind == Scale:
		case res.Code == CodeDone && g.ActiveAt.IsZero():
			x.fault("%s: generation %d is said to be active, and never was", r.Kind, g.Number)
		case res.Code == CodeRolledBack && (!g.Refused || g.TriedAt.IsZero()):
			x.fault("%s: generation %d is said to be rolled back, and was not", r.Kind, g.Number)
		}
	})
}

// pick is the lever of the first worker of a generation for which yes holds, nil if there is none.
func (x *walk) pick(n int, yes func(*lever) bool) (found *lever) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for at, l := range x.levers {
		if at.Generation == n && yes(l) && (found == nil || at.Worker < found.at.Worker) {
			found = l
		}
	}
	return found
}

func anyLever(*lever) bool { return true }

// numbers of those who play a part, as the owner sees it now; 0: nobody.
func (x *walk) cast() (active, candidate, old int) {
	_ = x.Supervisor.ask(context.Background(), func() {
		active, candidate = x.st.Active, x.st.Candidate
		for _, g := range x.st.Generations {
			if g.Number != active && g.Number != candidate && g.State != Exited {
				old = g.Number
				return
			}
		}
	})
	return active, candidate, old
}

func (x *walk) process(n int) *fakeProcess {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	for k := range handoff.MaxWorkers {
		if p := x.w.crew[seat(n, k)]; p != nil && p.GroupAlive() {
			return p
		}
	}
	return nil
}

// exit ends the main process of one of a generation's workers; left are the members that stay.
func (x *walk) exit(n, code, left int) {
	if p := x.process(n); p != nil {
		p.mu.Lock()
		if !p.over {
			p.members = left
		}
		p.mu.Unlock()
		p.exit(reaper.ExitStatus(code))
	}
}

func (x *walk) sick(n int, ok bool) {
	l := x.pick(n, anyLever)
	if l == nil {
		return
	}
	x.mu.Lock()
	h := probe.Health{Healthy: ok, Reason: "503"}
	if l.sickly++; ok {
		l.sickly = 0
	}
	h.Failures = l.sickly
	x.mu.Unlock()
	select {
	case l.health <- h:
	default: // nobody checks
	}
}

func (x *walk) say(n int, m handoff.Message) {
	if n == 0 {
		return
	}
	if c := x.w.message(n); c != nil && x.process(n) != nil {
		go func() {
			defer func() { _ = recover() }() // closed meanwhile: the fake has no other way to say so
			select {
			case c <- m:
			case <-x.Supervisor.done:
			}
		}()
	}
}

// event is something that can happen to a supervisor.
type event struct {
	name string
	do   func(x *walk)
}

// alphabet is all that can happen.
var alphabet = []event{
	{"reload", func(x *walk) { x.request(Request{Kind: Reload, Cause: "test"}, 0) }},
	{"new bytes", func(x *walk) {
		x.bytes++
		x.w.write(fmt.Sprint("bytes ", x.bytes%3))
	}},
	{"ready", func(x *walk) {
		_, c, _ := x.cast()
		a, _, _ := x.cast()
		for _, n := range []int{c, a} {
			if l := x.pick(n, func(l *lever) bool { return len(l.ready) == 0 }); l != nil {
				l.ready <- nil
				return
			}
		}
	}},
	{"smoke tests pass", func(x *walk) {
		_, c, _ := x.cast()
		if l := x.pick(c, func(l *lever) bool { return len(l.smoke) == 0 }); l != nil {
			l.smoke <- nil
		}
	}},
	{"exit of the candidate", func(x *walk) { _, c, _ := x.cast(); x.exit(c, 1, 0) }},
	{"exit of the active", func(x *walk) { a, _, _ := x.cast(); x.exit(a, 1, 0) }},
	{"a second", func(*walk) { time.Sleep(time.Second) }},
	{"six seconds", func(*walk) { time.Sleep(6 * time.Second) }},
	{"abort", func(x *walk) { x.Abort(context.Background(), "test") }},
	{"promote", func(x *walk) { x.Promote(context.Background(), "test", false) }},
	{"stop", func(x *walk) { x.ends = true; x.TriggerStop("test") }},
	{"rollback", func(x *walk) { x.request(Request{Kind: Rollback, Cause: "test"}, 0) }},
	{"restart", func(x *walk) { x.request(Request{Kind: Restart, Cause: "test"}, 0) }},
	{"reload, remembered", func(x *walk) { x.request(Request{Kind: Reload, Cause: "test", Remember: true}, 0) }},
	{"not ready", func(x *walk) {
		_, c, _ := x.cast()
		if l := x.pick(c, func(l *lever) bool { return len(l.ready) == 0 }); l != nil {
			l.ready <- errors.New("refused")
		}
	}},
	{"smoke tests fail", func(x *walk) {
		_, c, _ := x.cast()
		if l := x.pick(c, func(l *lever) bool { return len(l.smoke) == 0 }); l != nil {
			l.smoke <- errors.New("500")
		}
	}},
	{"the next switch fails", func(x *walk) { x.mu.Lock(); x.refusing++; x.mu.Unlock() }},
	{"the candidate is unhealthy", func(x *walk) { _, c, _ := x.cast(); x.sick(c, false) }},
	{"the active is unhealthy", func(x *walk) { a, _, _ := x.cast(); x.sick(a, false) }},
	{"they are busy", func(x *walk) { x.all(func(l *lever) { l.busy = true }); x.busy = true }},
	{"they are quiet", func(x *walk) { x.all(func(l *lever) { l.busy = false }); x.busy = false }},
	{"they ignore TERM", func(x *walk) { x.all(func(l *lever) { l.obeys = false }); x.impolite = true }},
	{"exit of an old one", func(x *walk) { _, _, o := x.cast(); x.exit(o, 0, 0) }},
	{"the active leaves others", func(x *walk) { a, _, _ := x.cast(); x.exit(a, 0, 1) }},
	{"the candidate leaves others", func(x *walk) { _, c, _ := x.cast(); x.exit(c, 0, 1) }},
	{"the others end", func(x *walk) {
		x.w.mu.Lock()
		defer x.w.mu.Unlock()
		for _, p := range x.w.crew {
			p.mu.Lock()
			if p.over {
				p.members = 0
			}
			p.mu.Unlock()
		}
	}},
	{"a minute", func(*walk) { time.Sleep(61 * time.Second) }},
	// What follows is for walks alone: it leads to nothing new in few steps.
	{"stop now", func(x *walk) {
		x.ends = true
		x.mu.Lock()
		x.asked++
		x.mu.Unlock()
		go func() {
			x.Stop(context.Background(), true)
			x.mu.Lock()
			x.answered++
			x.mu.Unlock()
		}()
	}},
	{"promote --full", func(x *walk) { x.Promote(context.Background(), "test", true) }},
	{"run", func(x *walk) {
		x.request(Request{Kind: Run, Cause: "test", Command: []string{"/other", strconv.Itoa(x.bytes)}}, 0)
	}},
	{"reload if changed", func(x *walk) { x.request(Request{Kind: Reload, Cause: "test", Changed: true, Remember: true}, 0) }},
	{"reload --force", func(x *walk) { x.request(Request{Kind: Reload, Cause: "test", Force: true}, 0) }},
	{"reload, until drained", func(x *walk) { x.request(Request{Kind: Reload, Cause: "test", Drained: true}, 0) }},
	{"reload, impatiently", func(x *walk) { x.request(Request{Kind: Reload, Cause: "test"}, time.Second) }},
	{"trigger", func(x *walk) { x.Trigger(Request{Kind: Reload, Cause: "signal", Remember: true}) }},
	{"scale", func(x *walk) {
		x.bytes++
		x.request(Request{Kind: Scale, Cause: "test", Workers: 1 + x.bytes%4}, 0)
	}},
	{"signal", func(x *walk) { _ = x.Signal(context.Background(), syscall.SIGUSR1) }},
	{"the active is healthy", func(x *walk) { a, _, _ := x.cast(); x.sick(a, true) }},
	{"the watchdog is fed", func(x *walk) { a, _, _ := x.cast(); x.say(a, handoff.Message{Watchdog: true}) }},
	{"a watchdog is wanted", func(x *walk) { a, _, _ := x.cast(); x.say(a, handoff.Message{WatchdogTime: 2 * time.Second}) }},
	{"it says that it is unwell", func(x *walk) { a, _, _ := x.cast(); x.say(a, handoff.Message{WatchdogTrigger: true}) }},
	{"it asks for time", func(x *walk) { _, c, _ := x.cast(); x.say(c, handoff.Message{ExtendTimeout: time.Minute}) }},
	{"the file is broken", func(x *walk) {
		x.w.mu.Lock()
		x.w.next = []behaviour{{check: errBroken}}
		x.w.mu.Unlock()
	}},
	{"the next start fails", func(x *walk) { x.mu.Lock(); x.start = errBroken; x.mu.Unlock() }},
	{"forks are slow", func(x *walk) { x.mu.Lock(); x.launch = !x.launch; x.mu.Unlock() }},
	{"bytes are lost", func(x *walk) {
		x.w.mu.Lock()
		for _, p := range x.w.programs {
			p.lost = errors.New("its file is gone")
		}
		x.w.mu.Unlock()
	}},
	{"status", func(x *walk) { _, _ = x.Status(context.Background()) }},
	{"three failed checks", func(x *walk) {
		a, _, _ := x.cast()
		for range 3 {
			x.sick(a, false)
			synctest.Wait()
		}
	}},
	{"half a minute", func(*walk) { time.Sleep(31 * time.Second) }},
	{"all get ready", func(x *walk) {
		x.all(func(l *lever) {
			select {
			case l.ready <- nil:
			default:
			}
			select {
			case l.smoke <- nil:
			default:
			}
		})
	}},
}

// shortAlphabet is how many of them the systematic exploration uses.
var shortAlphabet = slices.IndexFunc(alphabet, func(e event) bool { return e.name == "stop now" })

func (x *walk) all(f func(*lever)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, at := range slices.SortedFunc(maps.Keys(x.levers), seatOrder) {
		f(x.levers[at])
	}
}

func seatOrder(a, b handoff.Seat) int { return (a.Generation-b.Generation)*1000 + a.Worker - b.Worker }

// inspectAll looks at all that must hold between two events.
func (x *walk) inspectAll() {
	_ = x.Supervisor.ask(context.Background(), func() {
		x.inspectStates()
		x.inspectTraffic()
		x.inspectProcesses()
		x.inspectPrograms()
		x.inspectCallers()
	})
	x.roundTrip()
}

func (x *walk) inspectStates() {
	st := &x.st
	stopping := st.Mode == modeStopping
	trying, actives := 0, 0
	for _, g := range st.Generations {
		switch g.State {
		case Starting, Ready, Canary, Baking:
			if trying++; st.Swap == nil && !stopping {
				x.fault("generation %d is %s, and there is no swap", g.Number, g.State)
			}
		case Active:
			if actives++; st.Active != g.Number {
				x.fault("generation %d is active, and %d counts as that", g.Number, st.Active)
			}
		}
		if (x.live[g.Number] != nil) != (g.State != Exited) {
			x.fault("generation %d is %s, and its handles are there: %v", g.Number, g.State, x.live[g.Number] != nil)
		}
	}
	a, c := x.gen(st.Active), x.gen(st.Candidate)
	switch {
	case trying > 1:
		x.fault("%d candidates", trying)
	case actives > 1:
		x.fault("%d active generations", actives)
	case a != nil && a.State != Active && a.State != Stopping && a.State != Killed:
		x.fault("generation %d counts as active, and is %s", a.Number, a.State)
	case st.Active != 0 && a == nil:
		x.fault("generation %d counts as active, and is forgotten", st.Active)
	case st.Mode == modeIdle && st.Swap == nil && (a == nil || a.State != Active):
		x.fault("nothing serves, nothing is being started, nothing is waited for")
	case st.Swap != nil && c != nil && c.State != Starting && c.State != Ready && c.State != Canary && c.State != Baking:
		x.fault("the candidate %d is %s", c.Number, c.State)
	case st.Mode == modeBackoff && st.Swap == nil && x.backoff == nil:
		x.fault("it is to be started again, and no timer does it")
	case x.Supervisor.next != nil && st.Swap == nil:
		x.fault("a program of a candidate is held, and there is no swap")
	}
	if n := len(st.Generations); n > keepGenerations+2+x.opt.MaxDraining+5 {
		x.fault("%d generations are remembered", n)
	}
}

// inspectTraffic wants new connections to go to somebody who serves, whenever there is one.
func (x *walk) inspectTraffic() {
	x.mu.Lock()
	lost := x.lost
	x.mu.Unlock()
	if lost || x.st.Mode == modeStopping {
		return // the switch is tried again
	}
	x.w.mu.Lock()
	var to []int
	if len(x.w.spread) > 0 {
		for _, at := range x.w.spread[len(x.w.spread)-1] {
			to = append(to, at.Generation)
		}
	}
	x.w.mu.Unlock()
	a, c := x.gen(x.st.Active), x.gen(x.st.Candidate)
	if a == nil {
		for _, g := range x.st.Generations {
			if g.State == Draining && !g.Refused && !x.tried() && len(x.fit(g.Number)) > 0 {
				x.fault("nobody serves, and generation %d could", g.Number)
			}
		}
		return
	}
	if a.State != Active || len(x.fit(a.Number)) == 0 || x.roll() != nil {
		return
	}
	want := a.Number
	if c != nil && c.State == Baking {
		want = c.Number
	}
	if !slices.Contains(to, want) || slices.ContainsFunc(to, func(n int) bool { return n != want }) {
		x.fault("new connections go to %v, want %d", to, want)
	}
}

func (x *walk) inspectProcesses() {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	for at, p := range x.w.crew {
		g := x.gen(at.Generation)
		switch {
		case !p.GroupAlive():
		case g == nil || g.State == Exited:
			x.fault("a process of generation %d is left", at.Generation)
		case at.Worker == 0 && x.w.traffic[at.Generation].released > 0 && x.st.Workers == 1 && len(g.Crew) == 1:
			x.fault("generation %d has lost its slots, and has processes", at.Generation)
		case g.State != Stopping && g.State != Failed && g.State != Killed && len(g.Crew) == 1 && !g.Crew[0].Alone:
			if got := p.got(); slices.Contains(got, syscall.SIGTERM) || slices.Contains(got, syscall.SIGKILL) {
				x.fault("generation %d is %s and was sent %v", g.Number, g.State, got)
			}
		case g.State == Stopping || g.State == Failed || g.State == Killed:
			if l := x.live[g.Number]; l != nil && l.deadline == nil && l.crew[at.Worker].inst != nil && !g.Crew[at.Worker].Alone {
				x.fault("generation %d is %s without a deadline", g.Number, g.State)
			}
		}
	}
	for n, tr := range x.w.traffic {
		if tr.released > 1 {
			x.fault("the slots of generation %d were released %d times", n, tr.released)
		}
	}
}

func (x *walk) inspectPrograms() {
	held := map[*program]bool{}
	hold := func(p *program, whose string) {
		if p == nil {
			return
		}
		held[p] = true
		x.w.mu.Lock()
		closed := p.Program.(*fakeProgram).closed
		x.w.mu.Unlock()
		if closed || p.refs < 1 {
			x.fault("the program of %s is closed", whose)
		}
	}
	hold(x.prog, "the active generation")
	hold(x.Supervisor.next, "the candidate")
	for i, p := range x.older {
		hold(p, "what was before")
		if p == x.prog || slices.Contains(x.older[:i], p) {
			x.fault("a program is kept twice")
		}
	}
	for n, l := range x.live {
		hold(l.prog, fmt.Sprintf("generation %d", n))
	}
	for _, p := range x.summed {
		hold(p, "a line of the log")
	}
	x.w.mu.Lock()
	open := 0
	for _, p := range x.w.programs {
		if !p.closed {
			open++
		}
	}
	x.w.mu.Unlock()
	if open > len(held)+1 { // one may be being looked at
		x.fault("%d programs are open, and %d are held", open, len(held))
	}
	if most := max(1, x.opt.Keep); len(x.older) > most {
		x.fault("%d programs are kept, at most %d are to be", len(x.older), most-1)
	}
}

func (x *walk) inspectCallers() {
	if x.st.Swap == nil && len(x.waiters) > 0 {
		x.fault("%d callers wait for no swap", len(x.waiters))
	}
	if x.st.Remembered == nil && len(x.queued) > 0 {
		x.fault("%d callers wait for nothing remembered", len(x.queued))
	}
	for n, list := range x.drains {
		if g := x.gen(n); g == nil || g.State == Exited {
			x.fault("%d callers wait for the end of generation %d, which has ended", len(list), n)
		}
	}
}

// key is what can be told apart: two sequences with the same one need not both be continued.
func (x *walk) key() string {
	var b strings.Builder
	_ = x.Supervisor.ask(context.Background(), func() {
		st := &x.st
		fmt.Fprintf(&b, "%s a%d c%d w%d kept%d barred%v starts%d delay%d backoff%v served%d ", st.Mode, x.age(st.Active), x.age(st.Candidate), len(x.waiters),
			len(x.older), st.Barred != "", len(st.Starts), st.Delay, x.backoff != nil, x.age(st.Served))
		if sw := st.Swap; sw != nil {
			fmt.Fprintf(&b, "[%s %s %d %v %v %v from%d] ", sw.Request.Kind, sw.Phase, sw.Step, sw.Hasten, sw.Fallback, sw.Crash, x.age(sw.From))
		}
		if r := st.Remembered; r != nil {
			fmt.Fprintf(&b, "then %s ", r.Kind)
		}
		for _, g := range st.Generations {
			if g.State == Exited {
				continue
			}
			since := g.StartedAt
			for _, t := range []time.Time{g.ReadyAt, g.TriedAt, g.ActiveAt, g.DrainingAt, g.SignalledAt, g.KilledAt} {
				if t.After(since) {
					since = t
				}
			}
			fmt.Fprintf(&b, "(%d %s %v %s", x.age(g.Number), g.State, g.Refused, time.Since(since).Truncate(time.Millisecond))
			for _, m := range g.Crew {
				fmt.Fprintf(&b, " %s %v %v %s", m.State, m.Ending != nil, m.Alone, m.Unhealthy)
			}
			b.WriteByte(')')
		}
	})
	x.w.mu.Lock()
	fmt.Fprintf(&b, " %s next%d", x.w.bytes, len(x.w.next))
	x.w.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	fmt.Fprintf(&b, " %v %v %v %v %d %v", x.impolite, x.busy, x.launch, x.start != nil, x.refusing, x.lost)
	return b.String()
}

// age is a number relative to those to come.
func (x *walk) age(n int) int {
	if n == 0 {
		return 0
	}
	return x.st.Next - n
}

// ruleSet is a configuration.
type ruleSet struct {
	name   string
	change func(*Options)
	hooks  func() *fakeHooks
}

var ruleSets = []ruleSet{
	{name: "plain", change: func(*Options) {}},
	{name: "trial", change: func(o *Options) {
		o.Canary, o.Bake = []Step{{Share: handoff.Share{Portion: 0.5}, For: 3 * time.Second}}, 3*time.Second
		o.Restart, o.AutoRollback, o.HealthFailures = RestartAlways, true, 1
	}},
	{name: "sequential", change: func(o *Options) { sequential(o); o.Restart = RestartOnFailure }},
	{name: "patient", change: func(o *Options) {
		o.ShutdownDelay, o.WaitOnFatal, o.MaxDraining, o.HealthFailures, o.Bake = 3*time.Second, true, 1, 1, 3*time.Second
	}},
	{name: "rolling", change: func(o *Options) {
		o.Workers, o.Rolling, o.Restart, o.ShutdownDelay = 2, true, RestartAlways, 3*time.Second
	}},
}

// play does events to a new supervisor, stops it and looks whether anything is left. It returns what was wrong and the key before the stop.
func play(t *testing.T, rules ruleSet, events []event, rng *rand.Rand, log slog.Handler) (faults []string, key string, ended bool) {
	t.Helper()
	x := &walk{levers: map[handoff.Seat]*lever{}, log: log}
	broken := func(what any) {
		x.fault("%v\n%s", what, debug.Stack())
		faults = x.faults
	}
	defer func() {
		if what := recover(); what != nil { // of the bubble: somebody waits for ever
			broken(what)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.acts(x.behave)
		w.refuse = x.steering
		o := defaults(w)
		o.StartLimitBurst = 3
		rules.change(&o)
		if rules.hooks != nil {
			x.hooks = rules.hooks()
			o.Hooks = x.hooks
		}
		if log != nil {
			o.Log = slog.New(log)
		}
		x.rig = &rig{Supervisor: New(o), t: t, w: w, ended: make(chan Ending, 1)}
		w.rig = x.rig
		go func() {
			defer func() {
				if what := recover(); what != nil {
					fmt.Fprintf(os.Stderr, "%s: a panic after some of\n  %s\n", rules.name, names(events))
					panic(what)
				}
			}()
			x.ended <- x.Run(context.Background())
		}()
		synctest.Wait()
		for _, e := range events {
			if _, quiet := log.(cellLog); log != nil && !quiet {
				t.Logf("--- %s", e.name)
			}
			e.do(x)
			synctest.Wait()
			x.inspectAll()
			if len(x.faults) > 0 {
				break
			}
		}
		key = x.key()
		select {
		case e := <-x.ended:
			ended = true
			x.ended <- e
		default:
		}
		x.finishUp(o, rng)
		faults = x.faults
	})
	return faults, key, ended
}

// finishUp stops the supervisor, in one of the ways, and accounts for everything.
func (x *walk) finishUp(o Options, rng *rand.Rand) {
	at := time.Now()
	if rng != nil && rng.IntN(3) == 0 {
		go x.Stop(context.Background(), true)
	} else {
		x.TriggerStop("the walk is over")
	}
	// A stop takes the delay, the deadline, and what forking and a second KILL take. Hooks have their share of the deadline.
	most := o.ShutdownDelay + o.ShutdownTimeout + 2*killAgain + 2*time.Second
	select {
	case e := <-x.ended:
		if took := time.Since(at); took > most {
			x.fault("a stop took %s, at most %s were to be", took, most)
		}
		x.ended <- e
	case <-time.After(time.Hour):
		x.fault("a stop does not end it")
		x.w.mu.Lock()
		for _, p := range x.w.crew {
			p.members = 0
			p.exit(reaper.ExitStatus(0))
		}
		x.w.mu.Unlock()
	}
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	x.mu.Lock()
	asked, answered := x.asked, x.answered
	x.mu.Unlock()
	if asked != answered {
		x.fault("%d requests, %d answers", asked, answered)
	}
	if n := x.w.alive(); n > 0 {
		x.fault("%d processes are left", n)
	}
	x.w.accounted()
}

func names(events []event) string {
	var list []string
	for _, e := range events {
		list = append(list, e.name)
	}
	return strings.Join(list, "; ")
}

// setting is a number from the environment, or the default.
func setting(t *testing.T, name string, normal int) int {
	v := os.Getenv(name)
	if v == "" {
		return normal
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// shown is a log for a walk that somebody wants to see.
func shown(t *testing.T) slog.Handler {
	return slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})
}

// TestExplore does every event after every sequence that leads to something new, up to a depth.
func TestExplore(t *testing.T) {
	if list := os.Getenv("EXPLORE_EVENTS"); list != "" {
		replay(t, list)
		return
	}
	normal := 3
	if raceBuild {
		normal = 2
	}
	depth := setting(t, "EXPLORE_DEPTH", normal)
	for _, rules := range ruleSets {
		t.Run(rules.name, func(t *testing.T) {
			t.Parallel()
			seen, played := map[string]bool{}, 0
			// The first generation serves: what can happen before is found by walks.
			first := []event{named("all get ready"), named("all get ready")}
			frontier := [][]event{first}
			for d := 1; d <= depth; d++ {
				var next [][]event
				for _, way := range frontier {
					for _, e := range alphabet[:shortAlphabet] {
						events := append(slices.Clone(way), e)
						faults, key, ended := play(t, rules, events, nil, nil)
						played++
						if len(faults) > 0 || t.Failed() {
							t.Fatalf("after %s:\n  %s\nEXPLORE_RULES=%q EXPLORE_EVENTS=%q", names(events), strings.Join(faults, "\n  "), rules.name, names(events))
						}
						if !ended && !seen[key] {
							seen[key] = true
							next = append(next, events)
						}
					}
				}
				t.Logf("depth %d: %d states, %d sequences", d, len(seen), played)
				frontier = next
			}
		})
	}
}

func named(name string) event {
	i := slices.IndexFunc(alphabet, func(e event) bool { return e.name == name })
	if i < 0 {
		panic("no event " + name)
	}
	return alphabet[i]
}

// replay shows one sequence.
func replay(t *testing.T, list string) {
	var events []event
	for name := range strings.SplitSeq(list, ";") {
		events = append(events, named(strings.TrimSpace(name)))
	}
	for _, rules := range ruleSets {
		if rules.name == os.Getenv("EXPLORE_RULES") {
			faults, _, _ := play(t, rules, events, nil, shown(t))
			for _, f := range faults {
				t.Error(f)
			}
			return
		}
	}
	t.Fatalf("EXPLORE_RULES is none of the rules: %q", os.Getenv("EXPLORE_RULES"))
}

// randomRules are a configuration by chance.
func randomRules(rng *rand.Rand) ruleSet {
	r := ruleSet{name: "by chance"}
	r.change = func(o *Options) {
		o.Restart = []RestartPolicy{RestartNo, RestartOnFailure, RestartAlways, RestartAlways}[rng.IntN(4)]
		o.StartLimitBurst = rng.IntN(5)
		o.Keep, o.MaxDraining = 1+rng.IntN(3), 1+rng.IntN(2)
		o.HealthFailures, o.ExitUnhealthy = 1+rng.IntN(2), rng.IntN(8) == 0
		o.AutoRollback, o.WaitOnFatal, o.Stay = rng.IntN(2) == 0, rng.IntN(2) == 0, rng.IntN(4) == 0
		o.ShutdownDelay = time.Duration(rng.IntN(2)*rng.IntN(4)) * time.Second
		o.DrainQuiet = time.Duration(rng.IntN(3)) * 3 * time.Second
		o.DrainTimeout = 10 * time.Second
		if rng.IntN(2) == 0 {
			o.Workers, o.Rolling = 1+rng.IntN(3), rng.IntN(2) == 0
		}
		if rng.IntN(4) == 0 {
			sequential(o)
		}
		if rng.IntN(2) == 0 {
			o.Canary = []Step{{Share: handoff.Share{Portion: 0.1}, For: time.Second}, {Share: handoff.Share{Portion: 0.5}, For: time.Duration(rng.IntN(3)) * time.Second}}[rng.IntN(2):]
		}
		o.Bake = time.Duration(rng.IntN(3)) * 2 * time.Second
		if rng.IntN(4) == 0 {
			o.Watchdog = 5 * time.Second
		}
		if rng.IntN(8) == 0 {
			o.Command = nil
		}
	}
	if rng.IntN(3) == 0 {
		r.hooks = func() *fakeHooks {
			f := &fakeHooks{fails: map[string]error{}, blocks: map[string]bool{}}
			for n := range 20 {
				for _, m := range []Moment{PreStart, PrePromote, PostPromote, Drained, Failure} {
					key := fmt.Sprintf("%s %d", m, n)
					if rng.IntN(8) == 0 {
						f.fails[key] = errors.New("exited with code 1")
					}
					f.blocks[key] = rng.IntN(20) == 0
				}
			}
			return f
		}
	}
	return r
}

// walkLength is how many events a walk has.
const walkLength = 40

// TestWalks takes long ways by chance.
func TestWalks(t *testing.T) {
	if os.Getenv("EXPLORE_SEED") != "" {
		takeWalk(t, uint64(setting(t, "EXPLORE_SEED", 0)), shown(t))
		return
	}
	count, shards := setting(t, "EXPLORE_WALKS", 200), 4
	t.Logf("%d walks of %d events", count, walkLength)
	for shard := range shards {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			for seed := shard; seed < count; seed += shards {
				takeWalk(t, uint64(seed), nil)
			}
		})
	}
}

func takeWalk(t *testing.T, seed uint64, log slog.Handler) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 77))
	rules := randomRules(rng)
	var events []event
	for range walkLength {
		e := alphabet[rng.IntN(len(alphabet))]
		if strings.HasPrefix(e.name, "stop") && rng.IntN(4) > 0 { // most walks shall be long
			e = named("all get ready")
		}
		events = append(events, e)
	}
	faults, _, _ := play(t, rules, events, rng, log)
	if len(faults) > 0 || t.Failed() {
		t.Fatalf("EXPLORE_SEED=%d: after some of\n  %s\n  %s", seed, names(events), strings.Join(faults, "\n  "))
	}
}

// cellLog notes which cells of the table changed a state, from the lines that say so.
type cellLog struct {
	mu   *sync.Mutex
	seen map[State]map[string]bool
}

func (c cellLog) Enabled(context.Context, slog.Level) bool { return true }
func (c cellLog) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c cellLog) WithGroup(string) slog.Handler            { return c }

func (c cellLog) Handle(_ context.Context, r slog.Record) error {
	from, event := "", ""
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "from":
			from = a.Value.String()
		case "event":
			event = a.Value.String()
		}
		return true
	})
	if r.Message == "generation" || r.Message == "worker" {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.seen[State(from)] == nil {
			c.seen[State(from)] = map[string]bool{}
		}
		c.seen[State(from)][event] = true
	}
	return nil
}

// noWay are cells that change a state, and that nothing comes to; and why.
var noWay = map[State]map[Event]string{
	Baking: {EvKill: "a stop takes the swap away, and the candidate's traffic with it, before it kills"},
}

// Ways to the cells of the table. tryout is where the candidate is a canary, bake where it bakes, old where the first generation drains.
const (
	serve  = "ready; smoke tests pass"
	second = serve + "; reload; ready"
	tryout = second + "; smoke tests pass"
	bake   = tryout + "; promote"
	old    = "they are busy; " + tryout + "; promote --full"
)

// cellWays lead to every cell that changes a state. Each ends with a stop.
var cellWays = []struct{ rules, way string }{
	{"plain", "ready; stop now"}, {"plain", "not ready"}, {"plain", "exit of the candidate"}, {"plain", "stop now"}, {"plain", "stop"},
	{"plain", serve + "; reload; abort"}, {"plain", serve + "; reload; stop"},
	{"plain", second + "; stop"}, {"plain", second + "; abort"}, {"plain", second + "; exit of the candidate"}, {"plain", second + "; smoke tests fail"},
	{"plain", second + "; the next switch fails; smoke tests pass"}, {"plain", tryout + "; stop"}, {"plain", serve + "; stop now"},
	{"plain", serve + "; exit of the active"}, {"plain", "they ignore TERM; " + serve + "; stop; a minute"}, {"plain", "they ignore TERM; " + second + "; abort; a minute"},
	{"plain", "they ignore TERM; " + second + "; abort; stop now"}, {"plain", "they ignore TERM; " + serve + "; stop; stop now"},
	{"plain", "they ignore TERM; " + tryout + "; a minute"}, {"plain", "they ignore TERM; " + tryout + "; a second; stop; stop now"},
	{"trial", tryout + "; exit of the candidate"}, {"trial", tryout + "; the candidate is unhealthy"}, {"trial", tryout + "; stop"}, {"trial", tryout + "; abort"},
	{"trial", tryout + "; the next switch fails; promote"}, {"trial", tryout + "; promote --full"},
	{"trial", bake + "; exit of the candidate"}, {"trial", bake + "; the candidate is unhealthy"}, {"trial", bake + "; stop"}, {"trial", bake + "; abort"},
	{"trial", bake + "; the next switch fails; promote"}, {"trial", bake + "; promote"},
	{"trial", old + "; exit of an old one"}, {"trial", old + "; exit of the active"}, {"trial", old + "; stop"}, {"trial", old + "; stop now"}, {"trial", old + "; they are quiet; a second"},
	{"patient", tryout}, {"rolling", "all get ready; all get ready; reload; all get ready; stop now"},
}

// TestCells wants every cell of the table that changes a state to be come to by the supervisor itself, and not by the table's tests alone.
func TestCells(t *testing.T) {
	if os.Getenv("EXPLORE_SEED")+os.Getenv("EXPLORE_EVENTS") != "" {
		t.Skip("one walk is shown")
	}
	c := cellLog{mu: new(sync.Mutex), seen: map[State]map[string]bool{}}
	missing := func() (list []string, all int) {
		for _, s := range States {
			for e := Event(0); e < numEvents; e++ {
				if to := table[s][e].to; to == "" || to == s || noWay[s][e] != "" {
					continue
				}
				if all++; !c.seen[s][e.String()] {
					list = append(list, fmt.Sprintf("%s x %s", s, e))
				}
			}
		}
		return list, all
	}
	for _, w := range cellWays {
		var events []event
		for name := range strings.SplitSeq(w.way, "; ") {
			events = append(events, named(name))
		}
		i := slices.IndexFunc(ruleSets, func(r ruleSet) bool { return r.name == w.rules })
		if faults, _, _ := play(t, ruleSets[i], events, nil, c); len(faults) > 0 {
			t.Errorf("%s: %s: %v", w.rules, w.way, faults)
		}
	}
	list, all := missing()
	t.Logf("%d of %d cells that change a state are come to", all-len(list), all)
	for _, cell := range list {
		t.Errorf("nothing comes to %s", cell)
	}
}
