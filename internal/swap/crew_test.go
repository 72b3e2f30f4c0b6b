package swap

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// crewRig is a crew in a bubble.
type crewRig struct {
	*Crew
	t      *testing.T
	worlds []*world
	ended  chan Ending
}

// inCrew runs a crew with one app a world; the first is the main one.
func inCrew(t *testing.T, worlds []*world, change func(*CrewOptions, []*Options), f func(r *crewRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		co := CrewOptions{ShutdownTimeout: 8 * time.Second}
		var list []*Options
		for i, w := range worlds {
			w.t = t
			o := defaults(w)
			o.Stay = i != co.Main
			list = append(list, &o)
		}
		if change != nil {
			change(&co, list)
		}
		for i, o := range list {
			co.Members = append(co.Members, Member{string(rune('a' + i)), New(*o)})
		}
		r := &crewRig{Crew: NewCrew(co), t: t, worlds: worlds, ended: make(chan Ending, 1)}
		go func() { r.ended <- r.Run(context.Background()) }()
		synctest.Wait()
		f(r)
		r.Stop(context.Background(), true)
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, w := range worlds {
			w.accounted()
		}
	})
}

func (r *crewRig) states() string {
	all, err := r.Status(context.Background())
	if err != nil {
		r.t.Error(err)
	}
	var words []string
	for _, st := range all {
		words = append(words, st.App+" "+st.State)
	}
	return strings.Join(words, ", ")
}

// TestCrewStopsInOrder: the last one first, each when the one behind it is gone, inside one deadline.
func TestCrewStopsInOrder(t *testing.T) {
	slow := func(p *fakeProcess, sig syscall.Signal) {
		if sig == syscall.SIGTERM {
			time.AfterFunc(time.Second, func() { polite(p, sig) })
		}
	}
	a, b, c := newWorld(t, behaviour{handle: slow}), newWorld(t, behaviour{handle: slow}), newWorld(t, behaviour{handle: slow})
	inCrew(t, []*world{a, b, c}, nil, func(r *crewRig) {
		if got := r.states(); got != "a serving, b serving, c serving" || r.Health(r.t.Context()) != nil {
			t.Errorf("%s, %v", got, r.Health(r.t.Context()))
		}
		r.TriggerStop("test")
		time.Sleep(1500 * time.Millisecond)
		if a, b, c := len(a.proc(1).got()), len(b.proc(1).got()), c.proc(1).GroupAlive(); a != 0 || b != 1 || c {
			t.Errorf("after 1.5 s: a has %d signals, b %d, c lives: %t", a, b, c)
		}
		if err := r.Health(r.t.Context()); err == nil || err.Error() != "stopping" {
			t.Errorf("health: %v", err)
		}
		if e := <-r.ended; e != (Ending{}) {
			t.Errorf("ended with %v", e)
		}
	})
}

// TestCrewDeadline: those that do not end are killed, all within one deadline.
func TestCrewDeadline(t *testing.T) {
	a, b := newWorld(t, behaviour{handle: stubborn}), newWorld(t, behaviour{handle: stubborn})
	inCrew(t, []*world{a, b}, nil, func(r *crewRig) {
		began := time.Now()
		r.TriggerStop("test")
		if e := <-r.ended; e.Signal != syscall.SIGKILL {
			t.Errorf("ended with %v", e)
		}
		if took := time.Since(began); took != 8*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// TestCrewSecondStop kills at once, also during the delay.
func TestCrewSecondStop(t *testing.T) {
	a, b := newWorld(t, behaviour{handle: stubborn}), newWorld(t, behaviour{handle: stubborn})
	inCrew(t, []*world{a, b}, func(c *CrewOptions, _ []*Options) { c.ShutdownDelay = time.Hour }, func(r *crewRig) {
		r.TriggerStop("test")
		time.Sleep(time.Minute)
		if len(a.proc(1).got())+len(b.proc(1).got()) != 0 {
			t.Error("signalled during the delay")
		}
		began := time.Now()
		r.TriggerStop("test")
		r.TriggerStop("test") // one too many does no harm
		<-r.ended
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %s", took)
		}
	})
}

// TestCrewDelay: the apps serve on, a candidate is gone, and then the stop goes its way.
func TestCrewDelay(t *testing.T) {
	a, b := newWorld(t, behaviour{}, behaviour{never: true}), newWorld(t)
	inCrew(t, []*world{a, b}, func(c *CrewOptions, _ []*Options) { c.ShutdownDelay = 10 * time.Second }, func(r *crewRig) {
		done := make(chan Result, 1)
		go func() { done <- r.o.Members[0].Swap(context.Background(), Request{Kind: Reload, Cause: "test"}, nil) }()
		synctest.Wait()
		began := time.Now()
		r.TriggerStop("test")
		wantCode(t, <-done, CodeRejected)
		if len(a.proc(1).got()) != 0 {
			t.Error("the active generation was told")
		}
		<-r.ended
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// TestCrewMain: the end of the main app ends all, with its status; the end of another one does not, and it can be started again.
func TestCrewMain(t *testing.T) {
	a, b := newWorld(t), newWorld(t, behaviour{}, behaviour{})
	inCrew(t, []*world{a, b}, nil, func(r *crewRig) {
		b.proc(1).exit(*exits(3))
		synctest.Wait()
		if got := r.states(); got != "a serving, b waiting" {
			t.Error(got)
		}
		if err := r.Health(r.t.Context()); err == nil || !strings.Contains(err.Error(), `app "b"`) {
			t.Errorf("health: %v", err)
		}
		wantCode(t, r.o.Members[1].Swap(r.t.Context(), Request{Kind: Reload, Cause: "test"}, nil), CodeDone)
		if got := r.states(); got != "a serving, b serving" {
			t.Error(got)
		}
		a.proc(1).exit(*exits(7))
		if e := <-r.ended; e.Code != 7 {
			t.Errorf("ended with %v", e)
		}
		if got := b.proc(2).got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
			t.Errorf("the other one got %v", got)
		}
	})
}

// TestCrewLoop: an app that crashes again and again leaves the other one alone, also when it has used up its restarts.
func TestCrewLoop(t *testing.T) {
	var crashes []behaviour
	for range 20 {
		crashes = append(crashes, behaviour{exits: exits(1)})
	}
	a, b := newWorld(t), newWorld(t, crashes...)
	inCrew(t, []*world{a, b}, func(_ *CrewOptions, o []*Options) { o[1].Restart = RestartAlways }, func(r *crewRig) {
		time.Sleep(time.Hour)
		if got := r.states(); got != "a serving, b waiting" || a.started() != 1 || len(a.proc(1).got()) != 0 || b.started() < 3 {
			t.Errorf("%s; %d and %d starts, signals %v", got, a.started(), b.started(), a.proc(1).got())
		}
	})
}
