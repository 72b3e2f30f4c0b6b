package swap

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// The table alone says little: what it is worth shows when several generations live by it. Here is a tiny world around it: three
// generations, their processes, the traffic, one swap at a time, and everything that can happen in it. All of its states are looked at,
// not some: a breadth-first search over the states that can be told apart, until there is no new one. What must never be is checked in each,
// and the shortest way to a state where it is broken is printed.
//
// The model does what the actions mean in the supervisor, and nothing else of it: no clock (whatever may be late, may be late by any
// number of other events), no launcher, no answers in words. The supervisor itself is walked through in explore_test.go.

// modelGens is how many generations the world has: one that serves, one that follows, and one that drains still.
const modelGens = 3

// processes of a generation in the model.
const (
	procNone  = iota // not forked yet
	procUp           // there
	procGroup        // the main process has ended, others of its group are there
	procGone         // none is left
)

// mgen is a generation of the model: comparable, as small as it can be.
type mgen struct {
	state    uint8 // index into States, +1; 0: not born
	proc     uint8
	readyDue bool // somebody waits for its readiness
	smokeDue bool // its smoke tests run
	stepDue  bool // the timer of its trial runs
	watched  bool // its connections are being counted
	armed    bool // its deadline runs
	told     bool // it has its stop signal
	killed   bool // it was sent KILL
	refused  bool
	served   bool // it was active
	released bool
}

// mworld is a state of the model.
type mworld struct {
	gens                       [modelGens]mgen
	born                       int8
	active, candidate, traffic int8 // numbers from 1; 0: nobody
	from                       int8 // whom the swap replaces
	shared                     int8 // who has a share of the traffic; 0: nobody
	steps                      int8 // of the trial that were taken
	swap, hasten, crash        bool
	waits                      bool // a sequential swap waits for the end of what runs
	fallback                   bool
	stopping, stopped          bool // a stop was asked for; everybody was told
}

// mrules are what a configuration changes.
type mrules struct {
	table      map[State]*[numEvents]cell
	canary     int8 // steps
	bake       bool
	sequential bool
	delay      bool // ShutdownDelay
	most       int8 // generations, at most modelGens
}

// mrun is one event and what follows from it.
type mrun struct {
	mrules
	w       mworld
	refuse  bool // the next switch fails
	asked   bool // one was tried: refuse made a difference
	answers int  // to the callers of the swap
	unwell  bool // the active one was said to be
	broken  string
	cells   map[[2]int]bool
	depth   int
}

func (r *mrun) fault(format string, args ...any) {
	if r.broken == "" {
		r.broken = fmt.Sprintf(format, args...)
	}
}

func (r *mrun) g(n int8) *mgen { return &r.w.gens[n-1] }

func (r *mrun) state(n int8) State {
	if n == 0 || r.g(n).state == 0 {
		return ""
	}
	return States[r.g(n).state-1]
}

func (r *mrun) fire(n int8, e Event) {
	if n == 0 || r.state(n) == "" {
		return
	}
	if r.depth++; r.depth > 50 {
		r.fault("one event leads to others without end")
		return
	}
	defer func() { r.depth-- }()
	from := r.state(n)
	c, ok := r.table[from]
	if !ok {
		r.fault("generation %d: no row for %s", n, from)
		return
	}
	r.cells[[2]int{slices.Index(States, from), int(e)}] = true
	if c[e].to == "" {
		if strings.HasPrefix(c[e].note, "cannot happen") {
			r.fault("generation %d: %s x %s happens, and the table says: %s", n, from, e, c[e].note)
		}
		if c[e].note == "" {
			r.fault("generation %d: %s x %s is not defined", n, from, e)
		}
		return
	}
	g := r.g(n)
	g.state = uint8(slices.Index(States, c[e].to) + 1)
	if from == Exited && c[e].to != Exited {
		r.fault("generation %d comes back from its end", n)
	}
	for _, a := range c[e].do {
		r.act(n, a)
	}
}

func (r *mrun) act(n int8, a Action) {
	g := r.g(n)
	switch a {
	case ActSmoke:
		g.smokeDue = true
	case ActAdvance:
		r.advance(n)
	case ActStep:
		g.stepDue = true
	case ActBack:
		g.stepDue = false
		if r.w.active != 0 {
			r.w.traffic, r.w.shared = r.w.active, 0
		}
	case ActUnwell: // the replacement is a swap like any other; the model has its own
		r.unwell = true
	case ActActive:
		r.activated(n)
	case ActReject:
		r.rejected(n)
	case ActDied:
		r.died(n)
	case ActWatch:
		g.watched = true
	case ActSignal:
		g.told = true
	case ActArm:
		g.armed = true
	case ActKill:
		g.killed = true
	case ActRelease:
		r.release(n)
	}
}

// steer tries a switch, which may fail once an event.
func (r *mrun) steer(n int8) bool {
	r.asked = true
	if r.refuse {
		r.refuse = false
		return false
	}
	r.w.traffic, r.w.shared = n, 0
	return true
}

func (r *mrun) advance(n int8) {
	w := &r.w
	if !w.swap {
		return
	}
	trial := w.active != 0 && !w.hasten && !w.crash && !w.fallback
	baking := r.state(n) == Baking
	switch {
	case trial && !baking && w.steps < r.canary:
		r.asked = true
		if r.refuse {
			r.refuse = false
			r.fire(n, EvNotSteered)
			return
		}
		w.steps++
		w.shared = n
		r.fire(n, EvShared)
	case trial && !baking && r.bake:
		if r.steer(n) {
			r.fire(n, EvBaking)
		} else {
			r.fire(n, EvNotSteered)
		}
	case r.steer(n):
		r.fire(n, EvPromoted)
	default:
		r.fire(n, EvNotSteered)
	}
}

func (r *mrun) activated(n int8) {
	w := &r.w
	prev, recalled := w.active, w.candidate != n
	w.active = n
	r.g(n).served, r.g(n).stepDue, r.g(n).watched = true, false, false
	if prev != 0 && prev != n {
		r.fire(prev, EvSuperseded)
	}
	r.limit()
	if !recalled {
		w.candidate = 0
		r.answer()
	}
}

// limit is MAX_DRAINING of 1.
func (r *mrun) limit() {
	var draining []int8
	for n := int8(1); n <= r.w.born; n++ {
		if g := r.g(n); g.served && !g.refused && (r.state(n) == Draining || r.state(n) == Stopping) {
			draining = append(draining, n)
		}
	}
	for len(draining) > 1 {
		n := draining[0]
		draining = draining[1:]
		if r.state(n) == Draining {
			r.fire(n, EvQuiet)
		} else {
			r.fire(n, EvKill)
		}
	}
}

func (r *mrun) rejected(n int8) {
	w := &r.w
	r.g(n).refused = true
	w.candidate = 0
	if !w.swap {
		return
	}
	if r.sequential && w.from != 0 && !w.fallback && !w.crash && !w.stopping {
		w.fallback, w.waits = true, true
		return
	}
	r.answer()
}

func (r *mrun) answer() {
	r.answers++
	w := &r.w
	w.swap, w.hasten, w.crash, w.waits, w.fallback, w.steps, w.from = false, false, false, false, false, 0, 0
}

func (r *mrun) tried() bool { s := r.state(r.w.candidate); return s == Canary || s == Baking }

func (r *mrun) died(n int8) {
	w := &r.w
	w.active = 0
	switch {
	case w.stopping:
	case !r.tried() && r.recall():
	case w.swap && r.tried():
		w.hasten = true
		r.fire(w.candidate, EvStep)
	}
}

func (r *mrun) recall() bool {
	for n := r.w.born; n > 0; n-- {
		if r.state(n) == Draining && !r.g(n).refused {
			if !r.steer(n) {
				return false
			}
			r.fire(n, EvRecalled)
			return true
		}
	}
	return false
}

func (r *mrun) release(n int8) {
	g := r.g(n)
	if g.released {
		r.fault("generation %d is released twice", n)
	}
	if g.proc != procGone {
		r.fault("generation %d is released while it has processes", n)
	}
	*g = mgen{state: g.state, proc: g.proc, released: true, refused: g.refused, served: g.served}
	if r.w.active == n {
		r.w.active = 0
	}
	r.proceed()
}

func (r *mrun) running() bool {
	for n := int8(1); n <= r.w.born; n++ {
		if r.state(n) != Exited {
			return true
		}
	}
	return false
}

// proceed starts the candidate of a sequential swap once nothing else runs.
func (r *mrun) proceed() {
	if w := &r.w; w.swap && w.waits && !w.stopping && !r.running() {
		r.launch()
	}
}

// launch starts a candidate. A world that has had all of its generations refuses the swap: it could not be started.
func (r *mrun) launch() {
	w := &r.w
	w.waits = false
	if w.born == r.most {
		r.answer()
		return
	}
	w.born++
	w.candidate = w.born
	r.g(w.born).state = uint8(slices.Index(States, Starting) + 1)
}

func (r *mrun) open(crash bool) {
	w := &r.w
	w.swap, w.from, w.crash = true, w.active, crash
	if !r.sequential {
		r.launch()
		return
	}
	w.waits = true
	if w.active != 0 {
		r.fire(w.active, EvStop)
	}
	r.proceed()
}

// exit is the end of a main process, of whose group nothing or something is left.
func (r *mrun) exit(n int8, left uint8) {
	r.g(n).proc = left
	r.fire(n, EvExited)
	if left == procGone {
		r.gone(n)
	}
}

func (r *mrun) gone(n int8) {
	r.g(n).proc = procGone
	if r.state(n) == Draining {
		r.fire(n, EvExited)
	}
	if s := r.state(n); s == Stopping || s == Failed || s == Killed {
		r.fire(n, EvGone)
	}
}

// stop is the first word of a stop: the swap is over. Everybody is told at once, or after the delay.
func (r *mrun) stop() {
	r.abandon()
	if w := &r.w; !r.delay || w.active == 0 {
		r.stopAll(EvStop)
	}
}

// abandon ends the swap. A candidate that nobody else serves beside ends with the others.
func (r *mrun) abandon() {
	w := &r.w
	w.stopping = true
	if n := w.candidate; w.swap {
		r.answer()
		if w.active != 0 {
			r.fire(n, EvStop)
		}
	}
}

// killAll sends KILL to everybody; each is to be sent it, and given its time, by this.
func (r *mrun) killAll() {
	for n := range r.w.gens {
		r.w.gens[n].armed, r.w.gens[n].killed = false, false
	}
	r.stopAll(EvKill)
}

func (r *mrun) stopAll(e Event) {
	r.w.stopped = true
	for n := int8(1); n <= r.w.born; n++ {
		if r.state(n) != Exited {
			r.fire(n, e)
		}
	}
}

// mstep is something that can happen: what it is called, whether it can now, and what it does.
type mstep struct {
	name string
	can  func(w *mrun, n int8) bool
	do   func(w *mrun, n int8)
	all  bool // it is of the whole, not of one generation
	ends bool // it begins the end of everything
	// want says what is wrong with what it has led to; "": nothing. nil: anything may follow that the checks let pass.
	want func(before, after *mrun, n int8) string
}

// refusedNow wants a candidate to be one no longer.
func refusedNow(before, after *mrun, n int8) string {
	if s := before.state(n); s != Ready && s != Canary && s != Baking && s != Starting {
		return "" // too late to matter
	}
	if s := after.state(n); s != Failed && s != Draining && s != Exited || !after.g(n).refused {
		return fmt.Sprintf("generation %d goes on: %s", n, s)
	}
	return ""
}

// goesOn wants a candidate to have come further, or to be refused because the switch failed.
func goesOn(before, after *mrun, n int8) string {
	was, is := before.state(n), after.state(n)
	moved := is != was || after.w.steps != before.w.steps
	if (was == Ready || was == Canary || was == Baking) && !moved {
		return fmt.Sprintf("generation %d is %s still", n, is)
	}
	if after.asked && after.refuse && (was == Ready || was == Canary || was == Baking) && !after.g(n).refused {
		return fmt.Sprintf("generation %d was not steered to, and is %s", n, is)
	}
	return ""
}

// signalled wants a generation to have its stop signal, or to be past it.
func signalled(_, after *mrun, n int8) string {
	if s := after.state(n); s != Stopping && s != Failed && s != Killed && s != Exited {
		return fmt.Sprintf("generation %d is %s still", n, s)
	}
	return ""
}

// everyone wants all generations in states that fit.
func everyone(fits func(State) bool) func(before, after *mrun, _ int8) string {
	return func(_, after *mrun, _ int8) string {
		for n := int8(1); n <= after.w.born; n++ {
			if !fits(after.state(n)) {
				return fmt.Sprintf("generation %d is %s", n, after.state(n))
			}
		}
		return ""
	}
}

func up(r *mrun, n int8) bool { return r.g(n).proc == procUp }

var msteps = []mstep{
	{name: "reload", all: true, can: func(r *mrun, _ int8) bool {
		return !r.w.swap && !r.w.stopping && r.w.born < r.most && r.w.active != 0
	},
		do: func(r *mrun, _ int8) { r.open(false) }},
	{name: "restart policy", all: true, can: func(r *mrun, _ int8) bool {
		return !r.w.swap && !r.w.stopping && r.w.born < r.most && r.w.active == 0
	},
		do: func(r *mrun, _ int8) { r.open(true) }},
	{name: "abort", want: func(before, after *mrun, _ int8) string { return refusedNow(before, after, before.w.candidate) }, all: true, can: func(r *mrun, _ int8) bool { return r.w.swap && r.w.candidate != 0 && r.state(r.w.active) == Active },
		do: func(r *mrun, _ int8) { r.fire(r.w.candidate, EvAbort) }},
	{name: "promote --full", want: func(before, after *mrun, _ int8) string {
		if s := after.state(before.w.candidate); s != Active && !after.refuse {
			return "it is " + string(s)
		}
		return ""
	}, all: true, can: func(r *mrun, _ int8) bool { return r.w.swap && r.tried() },
		do: func(r *mrun, _ int8) { r.w.hasten = true; r.fire(r.w.candidate, EvStep) }},
	{name: "stop", all: true, ends: true, can: func(r *mrun, _ int8) bool { return !r.w.stopping }, do: func(r *mrun, _ int8) { r.stop() }},
	{name: "stop --now", all: true, ends: true, can: func(r *mrun, _ int8) bool { return !r.w.stopping },
		want: everyone(func(s State) bool { return s == Killed || s == Exited }), do: func(r *mrun, _ int8) {
			r.abandon()
			r.killAll()
		}},
	{name: "delay over", want: everyone(func(s State) bool { return s == Stopping || s == Failed || s == Killed || s == Exited }), all: true, ends: true, can: func(r *mrun, _ int8) bool { return r.w.stopping && !r.w.stopped },
		do: func(r *mrun, _ int8) { r.stopAll(EvStop) }},
	{name: "stop now", want: everyone(func(s State) bool { return s == Killed || s == Exited }), all: true, ends: true, can: func(r *mrun, _ int8) bool { return r.w.stopping && r.running() },
		do: func(r *mrun, _ int8) { r.killAll() }},
	{name: "forked", can: func(r *mrun, n int8) bool { return r.g(n).proc == procNone }, do: func(r *mrun, n int8) {
		g := r.g(n)
		g.proc, g.readyDue, g.armed = procUp, r.state(n) == Starting, r.state(n) != Starting
	}},
	{name: "not forked", can: func(r *mrun, n int8) bool { return r.g(n).proc == procNone }, do: func(r *mrun, n int8) { r.exit(n, procGone) }},
	{name: "ready", want: func(before, after *mrun, n int8) string {
		if before.state(n) == Starting && after.state(n) != Ready {
			return "it is " + string(after.state(n))
		}
		return ""
	}, can: func(r *mrun, n int8) bool { return r.g(n).readyDue }, do: func(r *mrun, n int8) { r.g(n).readyDue = false; r.fire(n, EvReady) }},
	{name: "not ready", want: func(before, after *mrun, n int8) string {
		if before.state(n) != Starting {
			return ""
		}
		return refusedNow(before, after, n)
	}, can: func(r *mrun, n int8) bool { return r.g(n).readyDue }, do: func(r *mrun, n int8) { r.g(n).readyDue = false; r.fire(n, EvNotReady) }},
	{name: "smoke tests pass", want: goesOn, can: func(r *mrun, n int8) bool { return r.g(n).smokeDue }, do: func(r *mrun, n int8) { r.g(n).smokeDue = false; r.fire(n, EvPassed) }},
	{name: "smoke tests fail", want: refusedNow, can: func(r *mrun, n int8) bool { return r.g(n).smokeDue }, do: func(r *mrun, n int8) { r.g(n).smokeDue = false; r.fire(n, EvUnhealthy) }},
	{name: "step over", want: goesOn, can: func(r *mrun, n int8) bool { return r.g(n).stepDue }, do: func(r *mrun, n int8) { r.g(n).stepDue = false; r.fire(n, EvStep) }},
	{name: "unhealthy", want: func(before, after *mrun, n int8) string {
		if before.state(n) == Active {
			if !after.unwell {
				return "nobody does anything about it"
			}
			return ""
		}
		return refusedNow(before, after, n)
	}, can: func(r *mrun, n int8) bool {
		s := r.state(n)
		return up(r, n) && (s == Canary || s == Baking || s == Active)
	}, do: func(r *mrun, n int8) { r.fire(n, EvUnhealthy) }},
	{name: "quiet", want: signalled, can: func(r *mrun, n int8) bool { return r.g(n).watched }, do: func(r *mrun, n int8) { r.g(n).watched = false; r.fire(n, EvQuiet) }},
	{name: "exits", can: up, do: func(r *mrun, n int8) { r.exit(n, procGone) }},
	{name: "exits and leaves others", want: signalled, can: up, do: func(r *mrun, n int8) { r.exit(n, procGroup) }},
	{name: "the others end", can: func(r *mrun, n int8) bool { return r.g(n).proc == procGroup }, do: func(r *mrun, n int8) { r.gone(n) }},
	{name: "deadline", want: func(_, after *mrun, n int8) string {
		if s := after.state(n); s != Killed || !after.g(n).killed {
			return "it is " + string(s)
		}
		return ""
	}, can: func(r *mrun, n int8) bool { return r.g(n).armed && r.g(n).proc != procNone },
		do: func(r *mrun, n int8) { r.g(n).armed, r.g(n).killed = false, false; r.fire(n, EvDeadline) }},
}

// check looks at a state by itself.
func (r *mrun) check() {
	w := &r.w
	trying, activeOnes, able := 0, 0, int8(0)
	for n := int8(1); n <= w.born; n++ {
		g, s := r.g(n), r.state(n)
		switch s {
		case Starting, Ready, Canary, Baking:
			trying++
			if g.proc == procUp && !map[State]bool{Starting: g.readyDue, Ready: g.smokeDue, Canary: g.stepDue, Baking: g.stepDue}[s] {
				r.fault("generation %d is %s, and nothing goes on", n, s)
			}
			if !w.stopping && (!w.swap || w.candidate != n) {
				r.fault("generation %d is %s, and no swap is about it", n, s)
			}
		case Active:
			activeOnes++
			if able = n; w.active != n {
				r.fault("generation %d is active, and nobody knows", n)
			}
		case Stopping, Failed, Killed:
			if g.proc != procNone && !g.armed {
				r.fault("generation %d is %s without a deadline", n, s)
			}
			if !g.told && !g.killed {
				r.fault("generation %d is %s, and was not told", n, s)
			}
		case Draining:
			if !g.watched {
				r.fault("generation %d drains, and nobody looks when it is quiet", n)
			}
		}
		if g.told && (trying > 0 && w.candidate == n && !w.stopping || s == Active || s == Draining) {
			r.fault("generation %d is %s and was told to stop", n, s)
		}
		if g.proc == procGone && s != Exited {
			r.fault("generation %d has no process left and is %s for ever", n, s)
		}
		if (s == Exited) != g.released {
			r.fault("generation %d is %s and released: %v", n, s, g.released)
		}
		if s == Killed && !g.killed {
			r.fault("generation %d is killed by nobody", n)
		}
	}
	if s := r.state(w.active); w.active != 0 && s != Active && s != Stopping && s != Killed {
		r.fault("generation %d counts as active, and is %s", w.active, s)
	}
	if trying > 1 {
		r.fault("there are two candidates")
	}
	if activeOnes > 1 {
		r.fault("two generations are active")
	}
	if w.swap && w.candidate == 0 && !w.waits {
		r.fault("a swap that nothing goes on with")
	}
	if w.swap && w.waits && !r.running() {
		r.fault("a swap that waits for nobody")
	}
	if n := w.shared; n != 0 && w.active != 0 && r.state(n) != Canary {
		r.fault("generation %d is %s and has a share of the traffic", n, r.state(n))
	}
	if r.state(w.candidate) == Canary && w.shared != w.candidate && w.active != 0 {
		r.fault("generation %d is a canary without a share", w.candidate)
	}
	if able != 0 && w.traffic != able && (r.state(w.candidate) != Baking || w.traffic != w.candidate) {
		r.fault("generation %d is active, and new connections go to %d", able, w.traffic)
	}
}

// changed looks at what a step made of a state.
func (r *mrun) changed(before *mworld, st *mstep, n int8) {
	old := mrun{w: *before, mrules: r.mrules}
	if a := before.active; a != 0 && old.state(a) == Active && r.state(a) != Active {
		own := !st.all && n == a && strings.Contains(st.name, "exits")
		swapped := r.w.active != 0 && r.state(r.w.active) == Active
		if !own && !swapped && !st.ends && !(r.sequential && st.name == "reload") {
			r.fault("generation %d could have been kept", a)
		}
	}
	if before.active != 0 && r.state(r.w.active) != Active && old.state(before.active) == Active && !r.w.stopping && !r.refuse && !r.sequential {
		for k := int8(1); k <= before.born; k++ { // told nothing yet, and nobody called it back
			if g := old.g(k); old.state(k) == Draining && !g.refused && g.proc == procUp {
				r.fault("nobody serves, and generation %d could", k)
			}
		}
	}
	if st.want != nil {
		if why := st.want(&old, r, n); why != "" {
			r.fault("%s: %s", st.name, why)
		}
	}
	switch ended := before.swap && (!r.w.swap || r.answers > 0); {
	case ended && r.answers != 1:
		r.fault("the swap was answered %d times", r.answers)
	case !before.swap && r.answers > 0 && st.name != "restart policy" && st.name != "reload":
		r.fault("an answer to nobody")
	}
}

// doomed plays the worst that can follow: nobody ends by itself, and only KILL helps. A stop must end everything all the same.
func (r *mrun) doomed() {
	if !r.w.stopping {
		r.stop()
	}
	if !r.w.stopped {
		r.stopAll(EvStop)
	}
	for range 3 {
		for n := int8(1); n <= r.w.born; n++ {
			g := r.g(n)
			switch {
			case g.proc == procNone:
				g.proc, g.armed = procUp, true
			case g.armed && !g.killed:
				g.armed = false
				r.fire(n, EvDeadline)
			}
			if g.killed && g.proc == procUp {
				r.exit(n, procGone)
			} else if g.killed && g.proc == procGroup {
				r.gone(n)
			}
		}
	}
	if r.running() {
		r.fault("a stop and KILL leave something: %s", r.w.describe())
	}
}

func (w *mworld) describe() string {
	var b strings.Builder
	for i, g := range w.gens[:w.born] {
		fmt.Fprintf(&b, "%d %s; ", i+1, States[g.state-1])
	}
	fmt.Fprintf(&b, "active %d, candidate %d, traffic %d, swap %v", w.active, w.candidate, w.traffic, w.swap)
	return b.String()
}

// node is how a state was reached first: by the shortest way.
type node struct {
	parent int32
	step   uint8
	gen    int8
	refuse bool
}

// search is one exploration.
type search struct {
	rules  mrules
	states []mworld
	nodes  []node
	seen   map[mworld]int32
	edges  [][]int32 // backwards, for the ways out
	calm   [][]int32 // the same without what begins the end
	trans  int
	cells  map[[2]int]bool
	until  time.Time
	broken string
	whole  bool
}

// explore looks at all states, or at as many as there is time for.
func explore(rules mrules, patience time.Duration) *search {
	s := &search{rules: rules, seen: map[mworld]int32{}, cells: map[[2]int]bool{}, until: time.Now().Add(patience)}
	first := s.run(mworld{})
	first.open(false) // as in the supervisor, the first start is a swap
	s.visit(first.w, node{parent: -1})
	for at := 0; at < len(s.states); at++ {
		if at%256 == 0 && time.Now().After(s.until) {
			return s
		}
		if s.expand(int32(at)); s.broken != "" {
			return s
		}
	}
	s.whole = true
	s.waysOut()
	return s
}

func (s *search) run(w mworld) *mrun { return &mrun{mrules: s.rules, w: w, cells: s.cells} }

func (s *search) visit(w mworld, by node) int32 {
	if at, ok := s.seen[w]; ok {
		return at
	}
	at := int32(len(s.states))
	s.seen[w] = at
	s.states, s.nodes = append(s.states, w), append(s.nodes, by)
	s.edges, s.calm = append(s.edges, nil), append(s.calm, nil)
	return at
}

func (s *search) expand(at int32) {
	w := s.states[at]
	if d := s.run(w); true {
		d.cells = map[[2]int]bool{}
		if d.doomed(); d.broken != "" {
			s.found(at, nil, d.broken)
			return
		}
	}
	can := 0
	for i := range msteps {
		st := &msteps[i]
		for n := int8(1); n <= w.born && (n == 1 || !st.all); n++ {
			for _, refuse := range []bool{false, true} {
				r := s.run(w)
				if !st.can(r, n) {
					break
				}
				can++
				r.refuse = refuse
				st.do(r, n)
				r.refuse = refuse && r.asked
				if refuse && !r.asked {
					break // nothing was switched
				}
				r.check()
				r.changed(&w, st, n)
				by := node{at, uint8(i), n, refuse}
				if r.broken != "" {
					s.found(at, &by, r.broken)
					return
				}
				s.trans++
				to := s.visit(r.w, by)
				s.edges[to] = append(s.edges[to], at)
				if !st.ends {
					s.calm[to] = append(s.calm[to], at)
				}
			}
		}
	}
	if r := s.run(w); can == 0 && (r.running() || !w.stopping) {
		if w.active != 0 || w.swap || r.running() || w.born < s.rules.most {
			s.found(at, nil, "nothing can happen any more: "+w.describe())
		}
	}
}

// waysOut wants a way to the end from everywhere, and from each swap one to its answer that is no stop.
func (s *search) waysOut() {
	ended := func(w *mworld) bool { r := s.run(*w); return w.stopping && !r.running() }
	if at := s.stuck(s.edges, ended, func(*mworld) bool { return true }); at >= 0 {
		s.found(at, nil, "no way to the end")
		return
	}
	if at := s.stuck(s.calm, func(w *mworld) bool { return !w.swap }, func(w *mworld) bool { return w.swap }); at >= 0 {
		s.found(at, nil, "no way to the swap's answer")
	}
}

// stuck finds a state among those asked for from which none that is a goal can be reached; -1: there is none.
func (s *search) stuck(back [][]int32, goal, asked func(*mworld) bool) int32 {
	ok := make([]bool, len(s.states))
	var queue []int32
	for i := range s.states {
		if goal(&s.states[i]) {
			ok[i], queue = true, append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, p := range back[at] {
			if !ok[p] {
				ok[p], queue = true, append(queue, p)
			}
		}
	}
	for i := range s.states {
		if !ok[i] && asked(&s.states[i]) {
			return int32(i)
		}
	}
	return -1
}

// found writes down a counterexample: the way to a state, one more step, and what is wrong then.
func (s *search) found(at int32, last *node, what string) {
	var way []string
	name := func(n node) string {
		text := msteps[n.step].name
		if !msteps[n.step].all {
			text = fmt.Sprintf("%d: %s", n.gen, text)
		}
		if n.refuse {
			text += " (the switch fails)"
		}
		return text
	}
	for i := at; s.nodes[i].parent >= 0; i = s.nodes[i].parent {
		way = append(way, name(s.nodes[i]))
	}
	slices.Reverse(way)
	if last != nil {
		way = append(way, name(*last))
	}
	s.broken = fmt.Sprintf("%s\nafter %d events:\n  %s\nin: %s", what, len(way), strings.Join(way, "\n  "), s.states[at].describe())
}

// modelRules are the configurations that are looked at.
func modelRules() map[string]mrules {
	return map[string]mrules{
		"plain":          {table: table, most: modelGens},
		"canary":         {table: table, most: modelGens, canary: 2},
		"canary, bake":   {table: table, most: modelGens, canary: 1, bake: true},
		"sequential":     {table: table, most: modelGens, sequential: true},
		"shutdown delay": {table: table, most: modelGens, bake: true, delay: true},
	}
}

// TestModel looks at every state of the model.
func TestModel(t *testing.T) {
	cells := map[[2]int]bool{}
	for name, rules := range modelRules() {
		t.Run(name, func(t *testing.T) {
			if raceBuild {
				rules.most = 2 // there is nothing to race: one goroutine does it all
			}
			begin := time.Now()
			s := explore(rules, 5*time.Minute)
			t.Logf("%d states, %d transitions in %s; all of them: %v", len(s.states), s.trans, time.Since(begin).Round(time.Millisecond), s.whole)
			if s.broken != "" {
				t.Fatal(s.broken)
			}
			if !s.whole {
				t.Error("there was no time for the rest")
			}
			for c := range s.cells {
				cells[c] = true
			}
		})
	}
	t.Logf("%d of %d cells of the table were needed", len(cells), len(States)*int(numEvents))
}

// mutant is a table with one cell that is wrong.
type mutant struct {
	name  string
	state State
	event Event
	table map[State]*[numEvents]cell
}

// mutants are all tables in which one cell that does something does nothing, leaves out one of its actions, or stays where it is.
func mutants() []mutant {
	var list []mutant
	add := func(name string, s State, e Event, c cell) {
		wrong := maps.Clone(table)
		row := *wrong[s]
		row[e] = c
		wrong[s] = &row
		list = append(list, mutant{name, s, e, wrong})
	}
	for _, s := range States {
		for e := Event(0); e < numEvents; e++ {
			c := table[s][e]
			if c.to == "" {
				continue
			}
			add(fmt.Sprintf("%s x %s does nothing", s, e), s, e, cell{note: "wrong"})
			if c.to != s {
				add(fmt.Sprintf("%s x %s stays", s, e), s, e, cell{to: s, do: c.do})
			}
			for i := range c.do {
				add(fmt.Sprintf("%s x %s without action %d", s, e, i), s, e, cell{to: c.to, do: slices.Delete(slices.Clone(c.do), i, i+1)})
			}
		}
	}
	return list
}

// beyondModel are cells that the model does not come to, and why.
var beyondModel = map[State]map[Event]string{
	Canary: {EvKill: "a stop takes the swap away, and the share with it, before it kills; in a roll it does not, and the model does not roll"},
	Baking: {EvKill: "a stop takes the swap away, and the candidate's traffic with it, before it kills"},
}

// TestModelSeesMutants: the model is worth something only if it sees what is wrong. It sees every cell that is wrong by one thing.
func TestModelSeesMutants(t *testing.T) {
	t.Parallel()
	all := mutants()
	for _, m := range all {
		seen := false
		for _, rules := range modelRules() {
			rules.table, rules.most = m.table, 2
			if s := explore(rules, time.Minute); s.broken != "" {
				seen = true
				break
			}
		}
		if beyond := beyondModel[m.state][m.event] != ""; seen == beyond {
			t.Errorf("%s: seen: %v, and that it is beyond the model: %v", m.name, seen, beyond)
		}
	}
	t.Logf("%d tables with one fault each", len(all))
}
