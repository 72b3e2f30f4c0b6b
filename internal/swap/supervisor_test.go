package swap

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/reaper"
)

func TestStartServesAndStops(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, nil, func(r *rig) {
		r.want(1, "serving")
		if err := r.Health(r.t.Context()); err != nil {
			t.Errorf("not healthy: %v", err)
		}
		r.TriggerStop("signal SIGTERM")
		r.wantEnd(Ending{})
		if got := w.proc(1).got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
			t.Errorf("signals %v, want one TERM", got)
		}
	})
}

func TestReloadReplaces(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, nil, func(r *rig) {
		var phases []string
		res := r.Swap(r.t.Context(), Request{Kind: Reload, Cause: "test"}, func(p Progress) { phases = append(phases, p.Phase) })
		wantCode(t, res, CodeDone)
		if want := []string{"checked", "started", "ready", "promoted"}; !slices.Equal(phases, want) {
			t.Errorf("phases %v, want %v", phases, want)
		}
		r.want(2, "serving")
		time.Sleep(time.Second)
		r.wantState(1, Exited)
		if w.last() != 2 {
			t.Errorf("the traffic goes to %d", w.last())
		}
	})
}

func TestOldIsToldNothingUntilNewIsActive(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{slow: 10 * time.Second})
	inBubble(t, w, nil, func(r *rig) {
		done := make(chan Result)
		go func() { done <- r.reload() }()
		time.Sleep(9 * time.Second)
		r.want(1, "swapping")
		if got := w.proc(1).got(); len(got) > 0 {
			t.Fatalf("the old generation got %v before the new one was ready", got)
		}
		wantCode(t, <-done, CodeDone)
	})
}

func TestRefusedCandidates(t *testing.T) {
	cases := map[string]struct {
		b     behaviour
		phase string
		text  string
	}{
		"check fails":        {behaviour{check: errBroken}, "check", "half an ELF"},
		"start fails":        {behaviour{start: errBroken}, "start", "half an ELF"},
		"exits 1":            {behaviour{exits: exits(1), output: "boom\n"}, "ready", "exited with code 1 before it was ready"},
		"exits 0":            {behaviour{exits: exits(0)}, "ready", "exited with code 0 before it was ready"},
		"never ready":        {behaviour{never: true}, "ready", "not ready after 1m0s: nobody accepted"},
		"readiness refused":  {behaviour{ready: errors.New("cannot be shown")}, "ready", "cannot be shown"},
		"cannot be steered":  {behaviour{steer: errors.New("no such slot")}, "promote", "no such slot"},
		"ignores TERM":       {behaviour{never: true, handle: stubborn}, "ready", "not ready"},
		"slow fork, no file": {behaviour{launch: time.Second, start: errBroken}, "start", "half an ELF"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, behaviour{}, c.b)
			inBubble(t, w, nil, func(r *rig) {
				res := r.reload()
				wantCode(t, res, CodeRejected)
				if res.Phase != c.phase || !strings.Contains(res.Text, c.text) || !strings.Contains(res.Text, "generation 1 serves on") || res.Output != c.b.output {
					t.Errorf("the answer is %+v", res)
				}
				r.want(1, "serving")
				if got := w.proc(1).got(); len(got) > 0 {
					t.Errorf("the old generation was signalled: %v", got)
				}
				wantCode(t, r.reload(), CodeDone) // a failed swap never blocks the next
			})
		})
	}
}

func TestRefusedCandidateIsKilled(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{never: true, handle: stubborn})
	inBubble(t, w, nil, func(r *rig) {
		wantCode(t, r.reload(), CodeRejected)
		r.wantState(2, Failed)
		time.Sleep(refusedGrace + time.Second)
		r.wantState(2, Exited)
		if got := w.proc(2).got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}) {
			t.Errorf("signals %v", got)
		}
	})
}

// TestRefusedWhileDraining: the failure path of every kind while an older generation is still draining.
func TestRefusedWhileDraining(t *testing.T) {
	busy := func() handoff.Load { return handoff.Load{Known: true, Open: 3, Busy: 3} }
	w := newWorld(t, behaviour{load: busy, handle: stubborn}, behaviour{}, behaviour{exits: exits(1)})
	inBubble(t, w, nil, func(r *rig) {
		wantCode(t, r.reload(), CodeDone)
		r.wantState(1, Draining)
		wantCode(t, r.reload(), CodeRejected)
		r.want(2, "serving")
		r.wantState(1, Draining)
		if got := append(w.proc(1).got(), w.proc(2).got()...); len(got) > 0 {
			t.Errorf("somebody was signalled: %v", got)
		}
	})
}

func TestBusyAndRemembered(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{slow: time.Second})
	inBubble(t, w, nil, func(r *rig) {
		first := make(chan Result, 1)
		go func() { first <- r.reload() }()
		synctest.Wait()
		wantCode(t, r.reload(), CodeBusy)
		for range 1000 {
			r.Trigger(Request{Kind: Reload, Cause: "signal HUP", Remember: true})
		}
		wantCode(t, <-first, CodeDone)
		time.Sleep(time.Minute)
		r.want(3, "serving") // exactly one more
	})
}

func TestRememberedFollowsAFailure(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{slow: time.Second, ready: errors.New("no")})
	inBubble(t, w, nil, func(r *rig) {
		go r.reload()
		synctest.Wait()
		res := r.Swap(r.t.Context(), Request{Kind: Reload, Cause: "watch", Remember: true}, nil)
		wantCode(t, res, CodeDone)
		r.want(3, "serving")
	})
}

func TestClientThatStopsWaiting(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{slow: 10 * time.Second})
	inBubble(t, w, nil, func(r *rig) {
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		wantCode(t, r.Swap(ctx, Request{Kind: Reload}, nil), CodeTimeout)
		time.Sleep(10 * time.Second)
		r.want(2, "serving")
	})
}

func TestStopInEveryPhase(t *testing.T) {
	phases := map[string]behaviour{
		"forking":  {launch: 10 * time.Second},
		"starting": {slow: 10 * time.Second},
	}
	for name, b := range phases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, behaviour{handle: func(p *fakeProcess, sig syscall.Signal) { p.exit(reaper.ExitStatus(7)) }}, b)
			inBubble(t, w, nil, func(r *rig) {
				answer := make(chan Result, 1)
				go func() { answer <- r.reload() }()
				time.Sleep(time.Second)
				r.TriggerStop("signal SIGTERM")
				wantCode(t, <-answer, CodeRejected)
				r.wantEnd(Ending{Code: 7}) // the status of the one that was serving
			})
		})
	}
}

func TestStopIsOneDeadlineForAll(t *testing.T) {
	w := newWorld(t, behaviour{handle: stubborn}, behaviour{never: true, handle: stubborn})
	inBubble(t, w, nil, func(r *rig) {
		go r.reload()
		time.Sleep(time.Second)
		at := time.Now()
		r.TriggerStop("signal SIGTERM")
		r.wantEnd(Ending{Signal: syscall.SIGKILL})
		if d := time.Since(at); d != 8*time.Second {
			t.Errorf("took %s, want exactly the shutdown timeout", d)
		}
	})
}

func TestSecondStopIsNow(t *testing.T) {
	w := newWorld(t, behaviour{handle: stubborn})
	inBubble(t, w, nil, func(r *rig) {
		at := time.Now()
		r.TriggerStop("signal SIGTERM")
		time.Sleep(time.Second)
		r.TriggerStop("signal SIGTERM")
		r.wantEnd(Ending{Signal: syscall.SIGKILL})
		if d := time.Since(at); d > 2*time.Second {
			t.Errorf("took %s", d)
		}
	})
}

func TestShutdownDelayServesOn(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, func(o *Options) { o.ShutdownDelay = 5 * time.Second }, func(r *rig) {
		at := time.Now()
		r.TriggerStop("signal SIGTERM")
		time.Sleep(4 * time.Second)
		if got := w.proc(1).got(); len(got) > 0 {
			t.Errorf("signalled during the delay: %v", got)
		}
		if r.Health(r.t.Context()) == nil {
			t.Error("healthy although it is stopping")
		}
		r.wantEnd(Ending{})
		if d := time.Since(at); d != 5*time.Second {
			t.Errorf("took %s", d)
		}
	})
}

func TestAppsEndIsTheContainersEnd(t *testing.T) {
	for _, st := range []reaper.Status{reaper.ExitStatus(0), reaper.ExitStatus(3), reaper.SignalStatus(syscall.SIGSEGV)} {
		w := newWorld(t)
		inBubble(t, w, nil, func(r *rig) {
			w.proc(1).exit(st)
			r.wantEnd(endingOf(st))
		})
	}
}

func TestFirstStartFails(t *testing.T) {
	cases := map[string]struct {
		b    behaviour
		want Ending
	}{
		"exits 3":        {behaviour{exits: exits(3)}, Ending{Code: 3}},
		"cannot be run":  {behaviour{check: errBroken}, Ending{Code: 126}},
		"does not start": {behaviour{start: &reaper.StartError{Op: "exec", Path: "/app", Err: syscall.ENOENT}}, Ending{Code: 127}},
		"never ready":    {behaviour{never: true}, Ending{Code: 1}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inBubble(t, newWorld(t, c.b), nil, func(r *rig) { r.wantEnd(c.want) })
		})
	}
}

func TestGroupIsEndedWithItsLeader(t *testing.T) {
	w := newWorld(t, behaviour{handle: stubborn})
	inBubble(t, w, nil, func(r *rig) {
		p := w.proc(1)
		p.members = 2
		p.exit(reaper.ExitStatus(4))
		r.wantEnd(Ending{Code: 4})
		if got := p.got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}) {
			t.Errorf("the rest of the group got %v", got)
		}
	})
}

func TestRestartPolicy(t *testing.T) {
	cases := map[string]struct {
		policy   RestartPolicy
		code     int
		restarts bool
	}{
		"no":                  {RestartNo, 1, false},
		"on-failure, failed":  {RestartOnFailure, 1, true},
		"on-failure, success": {RestartOnFailure, 0, false},
		"always, success":     {RestartAlways, 0, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			inBubble(t, w, func(o *Options) { o.Restart = c.policy }, func(r *rig) {
				w.proc(1).exit(reaper.ExitStatus(c.code))
				if !c.restarts {
					r.wantEnd(Ending{Code: c.code})
					return
				}
				r.want(0, "backoff")
				time.Sleep(time.Second)
				r.want(2, "serving")
			})
		})
	}
}

func TestRestartBacksOffAndGivesUp(t *testing.T) {
	var b []behaviour
	for range 20 {
		b = append(b, behaviour{exits: exits(9)})
	}
	w := newWorld(t, b...)
	inBubble(t, w, func(o *Options) { o.Restart = RestartAlways }, func(r *rig) {
		r.wantEnd(Ending{Code: 9})
		if n := w.started(); n != 6 { // the first start and the burst
			t.Errorf("started %d times", n)
		}
	})
}

func TestWaitOnFatal(t *testing.T) {
	w := newWorld(t, behaviour{exits: exits(1)})
	inBubble(t, w, func(o *Options) { o.WaitOnFatal = true }, func(r *rig) {
		r.want(0, "waiting")
		wantCode(t, r.reload(), CodeDone)
		r.want(2, "serving")
	})
}

func TestReloadCutsBackoffShort(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, func(o *Options) { o.Restart = RestartAlways; o.RestartDelay = time.Minute }, func(r *rig) {
		w.proc(1).exit(reaper.ExitStatus(1))
		r.want(0, "backoff")
		wantCode(t, r.reload(), CodeDone)
		r.want(2, "serving")
		time.Sleep(2 * time.Minute)
		r.want(2, "serving") // the timer did not start another one
	})
}

func TestActiveDiesDuringSwap(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{slow: 5 * time.Second})
	inBubble(t, w, nil, func(r *rig) {
		done := make(chan Result, 1)
		go func() { done <- r.reload() }()
		time.Sleep(time.Second)
		w.proc(1).exit(reaper.ExitStatus(1))
		wantCode(t, <-done, CodeDone)
		r.want(2, "serving")
	})
}

func TestBothDie(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{slow: 5 * time.Second, ready: errors.New("no")})
	inBubble(t, w, nil, func(r *rig) {
		done := make(chan Result, 1)
		go func() { done <- r.reload() }()
		time.Sleep(time.Second)
		w.proc(1).exit(reaper.ExitStatus(5))
		wantCode(t, <-done, CodeRejected)
		r.wantEnd(Ending{Code: 1})
	})
}

func TestRecallOfWhatWasToldNothing(t *testing.T) {
	busy := func() handoff.Load { return handoff.Load{Known: true, Open: 1, Busy: 1} }
	w := newWorld(t, behaviour{load: busy})
	inBubble(t, w, nil, func(r *rig) {
		wantCode(t, r.reload(), CodeDone)
		time.Sleep(time.Second)
		w.proc(2).exit(reaper.ExitStatus(1))
		r.want(1, "serving")
		if w.last() != 1 || len(w.proc(1).got()) > 0 {
			t.Errorf("traffic at %d, signals %v", w.last(), w.proc(1).got())
		}
		wantCode(t, r.reload(), CodeDone)
	})
}

// TestRecalledDrainsAnew: a generation that was called back and is replaced again has the whole of DRAIN_QUIET again, and not what was left.
func TestRecalledDrainsAnew(t *testing.T) {
	busy := func() handoff.Load { return handoff.Load{Known: true, Open: 1, Busy: 1} }
	w := newWorld(t, behaviour{load: busy})
	inBubble(t, w, nil, func(r *rig) {
		wantCode(t, r.reload(), CodeDone)
		time.Sleep(4 * time.Second)
		w.proc(2).exit(reaper.ExitStatus(1))
		if st := r.want(1, "serving"); st.Generations[0].Load != nil {
			t.Errorf("it serves, and has left to drain %+v", *st.Generations[0].Load)
		}
		at := time.Now()
		wantCode(t, r.reload(), CodeDone)
		time.Sleep(time.Minute)
		if p := w.proc(1); len(p.at) == 0 || p.at[0].Sub(at) < 5*time.Second {
			t.Errorf("it drains since %s and was signalled at %s, want DRAIN_QUIET between them", at, p.at)
		}
	})
}

func TestDrainQuiet(t *testing.T) {
	var busy atomic.Int32
	busy.Store(3)
	w := newWorld(t, behaviour{load: func() handoff.Load { return handoff.Load{Known: true, Open: 3, Busy: int(busy.Load())} }})
	inBubble(t, w, nil, func(r *rig) {
		wantCode(t, r.reload(), CodeDone)
		time.Sleep(2 * time.Second)
		r.wantState(1, Draining)
		busy.Store(0)
		time.Sleep(time.Second)
		r.wantState(1, Exited)
	})
}

func TestDrainQuietIsBounded(t *testing.T) {
	w := newWorld(t, behaviour{load: func() handoff.Load { return handoff.Load{} }, handle: stubborn})
	inBubble(t, w, nil, func(r *rig) {
		at := time.Now()
		wantCode(t, r.reload(), CodeDone)
		time.Sleep(40 * time.Second)
		r.wantState(1, Exited)
		p := w.proc(1)
		if d := p.at[0].Sub(at); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("signalled after %s, want DRAIN_QUIET", d)
		}
		if d := p.at[1].Sub(p.at[0]); p.signals[1] != syscall.SIGKILL || d != 30*time.Second {
			t.Errorf("%v after %s, want KILL after DRAIN_TIMEOUT", p.signals[1], d)
		}
		if g := r.want(2, "serving").Generations[0]; !g.SignalledAt.Equal(p.at[0]) || !g.KilledAt.Equal(p.at[1]) {
			t.Errorf("status says %v and %v, the process got them at %v", g.SignalledAt, g.KilledAt, p.at)
		}
	})
}

// On a machine where a look at the connections takes long, the next one is a good while off: the wait ends in between.
func TestDrainQuietIsBoundedWhereCountingIsSlow(t *testing.T) {
	w := newWorld(t, behaviour{handle: stubborn, load: func() handoff.Load {
		time.Sleep(300 * time.Millisecond)
		return handoff.Load{Known: true, Open: 1, Busy: 1}
	}})
	inBubble(t, w, func(o *Options) { o.DrainQuiet = time.Second }, func(r *rig) {
		at := time.Now()
		wantCode(t, r.reload(), CodeDone)
		time.Sleep(4 * time.Second)
		if got := r.want(2, "serving").Generations[0].SignalledAt; got.Before(at) || got.Sub(at) > 1500*time.Millisecond {
			t.Errorf("signalled at %v, want DRAIN_QUIET after %v", got, at)
		}
	})
}

// A machine that stood still during one look at the connections does not put the next one off by ten times as long.
func TestDrainAfterOneSlowCount(t *testing.T) {
	var looks atomic.Int32
	w := newWorld(t, behaviour{load: func() handoff.Load {
		if looks.Add(1) > 1 {
			return handoff.Load{Known: true}
		}
		time.Sleep(time.Minute)
		return handoff.Load{Known: true, Open: 1, Busy: 1}
	}})
	inBubble(t, w, func(o *Options) { o.DrainQuiet = time.Hour }, func(r *rig) {
		wantCode(t, r.reload(), CodeDone)
		time.Sleep(time.Minute)
		r.wantState(1, Draining)
		time.Sleep(6 * time.Second)
		r.wantState(1, Exited)
	})
}

func TestMaxDraining(t *testing.T) {
	busy := behaviour{load: func() handoff.Load { return handoff.Load{Known: true, Open: 1, Busy: 1} }, handle: stubborn}
	w := newWorld(t, busy, busy, busy, busy)
	inBubble(t, w, func(o *Options) { o.DrainQuiet = time.Hour }, func(r *rig) {
		for range 3 {
			wantCode(t, r.reload(), CodeDone)
		}
		r.want(4, "serving")
		r.wantState(1, Stopping) // it was waiting for its connections: now it is told
		r.wantState(2, Draining)
		r.wantState(3, Draining)
		wantCode(t, r.reload(), CodeDone)
		r.want(5, "serving")
		time.Sleep(time.Second)
		r.wantState(1, Exited) // it was told before: killed
		r.wantState(2, Stopping)
	})
}

func TestSequentialStopsFirst(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, func(o *Options) { o.Mode = func() Mode { return Mode{Sequential: true} } }, func(r *rig) {
		w.proc(1).handle = func(p *fakeProcess, _ syscall.Signal) {
			if w.started() != 1 {
				t.Error("two at once")
			}
			polite(p, syscall.SIGTERM)
		}
		wantCode(t, r.reload(), CodeDone)
		r.want(2, "serving")
		r.wantState(1, Exited)
	})
}

func TestSequentialPutsBackWhatRanBefore(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{exits: exits(1)})
	inBubble(t, w, func(o *Options) { o.Mode = func() Mode { return Mode{Sequential: true} } }, func(r *rig) {
		res := r.reload()
		wantCode(t, res, CodeRejected)
		if !strings.Contains(res.Text, "exited with code 1") || !strings.Contains(res.Text, "generation 3") {
			t.Errorf("the answer is %q", res.Text)
		}
		r.want(3, "serving")
	})
}

func TestSequentialCheckFailsFirst(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{check: errBroken})
	inBubble(t, w, func(o *Options) { o.Mode = func() Mode { return Mode{Sequential: true} } }, func(r *rig) {
		wantCode(t, r.reload(), CodeRejected)
		r.want(1, "serving")
		if len(w.proc(1).got()) > 0 {
			t.Error("the old one was stopped for a file that cannot run")
		}
	})
}

func TestRunReplacesTheCommandOnlyIfItSucceeds(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{exits: exits(1)})
	told := make(chan []string, 1)
	inBubble(t, w, func(o *Options) { o.Commanded = func(c []string) { told <- c } }, func(r *rig) {
		run := Request{Kind: Run, Command: []string{"/other", "-x"}}
		wantCode(t, r.Swap(r.t.Context(), run, nil), CodeRejected)
		if st := r.want(1, "serving"); !slices.Equal(st.Command, []string{"/app"}) {
			t.Errorf("the command is %q", st.Command)
		}
		wantCode(t, r.Swap(r.t.Context(), run, nil), CodeDone)
		if st := r.want(3, "serving"); !slices.Equal(st.Command, run.Command) {
			t.Errorf("the command is %q", st.Command)
		}
		if c := <-told; !slices.Equal(c, run.Command) {
			t.Errorf("told %q", c)
		}
		wantCode(t, r.Swap(r.t.Context(), Request{Kind: Run}, nil), CodeUsage)
	})
}

// TestFirstRunFails: a container that has no app yet, and is given one that does not start, waits for another as before, whatever the policy
// says of an app that ends.
func TestFirstRunFails(t *testing.T) {
	for _, policy := range []RestartPolicy{RestartNo, RestartOnFailure, RestartAlways} {
		t.Run(string(policy), func(t *testing.T) {
			w := newWorld(t, behaviour{check: errBroken}, behaviour{ready: errBroken}, behaviour{exits: exits(3)})
			inBubble(t, w, func(o *Options) { o.Command, o.Restart = nil, policy }, func(r *rig) {
				for range 3 {
					wantCode(r.t, r.Swap(r.t.Context(), Request{Kind: Run, Cause: "test", Command: []string{"/broken"}}, nil), CodeRejected)
					time.Sleep(time.Minute)
					r.want(0, "waiting")
				}
				wantCode(r.t, r.Swap(r.t.Context(), Request{Kind: Run, Cause: "test", Command: []string{"/good"}}, nil), CodeDone)
				r.want(3, "serving")
			})
		})
	}
}

func TestHoldingWithoutCommand(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, func(o *Options) { o.Command = nil }, func(r *rig) {
		r.want(0, "waiting")
		wantCode(t, r.reload(), CodeUsage)
		wantCode(t, r.Swap(r.t.Context(), Request{Kind: Run, Command: []string{"/app"}}, nil), CodeDone)
		r.want(1, "serving")
		r.TriggerStop("test")
		r.wantEnd(Ending{})
	})
}

func TestStopWhileWaiting(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, func(o *Options) { o.Command = nil }, func(r *rig) {
		r.TriggerStop("test")
		r.wantEnd(Ending{})
	})
}

func TestRestartCommand(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, nil, func(r *rig) {
		wantCode(t, r.Swap(r.t.Context(), Request{Kind: Restart, Cause: "command"}, nil), CodeDone)
		r.want(2, "serving")
		r.wantState(1, Exited)
		if n := len(w.programs); n != 1 {
			t.Errorf("%d programs were opened, want the same bytes", n)
		}
	})
}

func TestSignals(t *testing.T) {
	w := newWorld(t, behaviour{launch: time.Second, handle: stubborn})
	inBubble(t, w, nil, func(r *rig) {
		if err := r.Signal(r.t.Context(), syscall.SIGUSR1); err != nil { // no process yet
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		if err := r.Signal(r.t.Context(), syscall.SIGUSR2); err != nil {
			t.Error(err)
		}
		if got := w.proc(1).got(); !slices.Equal(got, []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2}) {
			t.Errorf("the app got %v", got)
		}
	})
}

func TestMessages(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{slow: 90 * time.Second})
	inBubble(t, w, nil, func(r *rig) {
		done := make(chan Result, 1)
		go func() { done <- r.reload() }()
		time.Sleep(50 * time.Second)
		w.message(2) <- handoff.Message{Status: "warming the cache", ExtendTimeout: time.Minute}
		st := r.want(1, "swapping")
		if g := st.Generations[1]; g.StatusText != "warming the cache" {
			t.Errorf("status text %q", g.StatusText)
		}
		wantCode(t, <-done, CodeDone)
	})
}
