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
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/reaper"
)

// trial is a canary of two steps and a bake.
func trial(o *Options) {
	o.Canary = []Step{{share("1%"), 30 * time.Second}, {share("25%"), time.Minute}}
	o.Bake = 10 * time.Second
	o.HealthFailures = 3
}

func share(text string) handoff.Share {
	s, err := handoff.ParseShare(text)
	if err != nil {
		panic(err)
	}
	return s
}

// begin asks for a swap and does not wait for it.
func (r *rig) beginSwap(q Request) (result chan Result) {
	q.Cause = "test"
	result = make(chan Result, 1)
	ctx := r.t.Context()
	go func() { result <- r.Swap(ctx, q, nil) }()
	synctest.Wait()
	return result
}

func (r *rig) wantShares(want ...string) {
	r.t.Helper()
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if !slices.Equal(r.w.shares, want) {
		r.t.Errorf("shares %q, want %q", r.w.shares, want)
	}
}

func (r *rig) wantSteered(want ...int) {
	r.t.Helper()
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if !slices.Equal(r.w.steered, want) {
		r.t.Errorf("steered to %v, want %v", r.w.steered, want)
	}
}

// A candidate that is dead gets no traffic while its last words are being read.
func TestDeadWhileItsWordsAreRead(t *testing.T) {
	smoke := make(chan error)
	b := behaviour{smoke: func(context.Context) error { return <-smoke }, output: "cannot go on", tail: 100 * time.Millisecond}
	for name, change := range map[string]func(*Options){"promoted": nil, "on-trial": trial} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, newWorld(t, behaviour{}, b), change, func(r *rig) {
				smoke = make(chan error)
				result := r.beginSwap(Request{Kind: Reload})
				r.w.proc(2).exit(reaper.SignalStatus(syscall.SIGKILL))
				smoke <- nil
				res := <-result
				wantCode(t, res, CodeRejected)
				if res.Output != "cannot go on" {
					t.Errorf("its last words are %q", res.Output)
				}
				r.want(1, "serving")
				r.wantSteered(1)
				r.wantShares()
			})
		})
	}
}

func TestSmoke(t *testing.T) {
	hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		smoke func(context.Context) error
		want  string
	}{
		"passes": {func(context.Context) error { return nil }, ""},
		"fails":  {func(context.Context) error { return errors.New("it answered 500") }, "a smoke test failed: it answered 500"},
		"hangs":  {hangs, "a smoke test failed: not over after 1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, newWorld(t, behaviour{}, behaviour{smoke: c.smoke}), nil, func(r *rig) {
				res := r.reload()
				if c.want == "" {
					wantCode(t, res, CodeDone)
					r.want(2, "serving")
					return
				}
				wantCode(t, res, CodeRejected)
				if res.Phase != "smoke" || !strings.Contains(res.Text, c.want) || !strings.Contains(res.Text, "generation 1 serves on") {
					t.Errorf("%+v", res)
				}
				r.want(1, "serving")
				r.wantSteered(1) // nobody was ever sent to it
			})
		})
	}
}

func TestCanaryThenBake(t *testing.T) {
	inBubble(t, newWorld(t), trial, func(r *rig) {
		var phases []string
		result := make(chan Result, 1)
		ctx := r.t.Context()
		go func() {
			result <- r.Swap(ctx, Request{Kind: Reload, Cause: "test"}, func(p Progress) { phases = append(phases, p.Phase) })
		}()
		synctest.Wait()
		st := r.want(1, "swapping")
		r.wantState(2, Canary)
		if g := st.Generations[1]; g.Share != "1%" || time.Until(g.StepEnds) != 30*time.Second {
			t.Errorf("%+v", g)
		}
		time.Sleep(31 * time.Second)
		r.wantShares("1/2 1%", "1/2 25%")
		r.wantState(2, Canary)
		time.Sleep(time.Minute)
		r.wantState(2, Baking)
		r.wantState(1, Active) // warm
		r.wantSteered(1, 2)
		if got := r.w.proc(1).got(); len(got) > 0 {
			t.Errorf("the old generation was told %v", got)
		}
		time.Sleep(10 * time.Second)
		st = r.want(2, "serving")
		res := <-result
		wantCode(t, res, CodeDone)
		if want := []string{"checked", "started", "ready", "canary", "canary", "baking", "promoted"}; !slices.Equal(phases, want) {
			t.Errorf("phases %v, want %v", phases, want)
		}
		if g := st.Generations[1]; g.Share != "" || !g.StepEnds.IsZero() {
			t.Errorf("%+v", g)
		}
		time.Sleep(time.Second)
		r.wantState(1, Exited)
	})
}

// failures are ways in which a candidate on trial fails.
var failures = map[string]struct {
	fail func(r *rig, health chan probe.Health)
	why  string
}{
	"exits": {func(r *rig, _ chan probe.Health) { r.w.proc(2).exit(reaper.ExitStatus(3)) }, "exited with code 3 while it was on trial"},
	"is unhealthy": {func(_ *rig, health chan probe.Health) {
		for i := range 3 {
			health <- probe.Health{Failures: i + 1, Healthy: i < 2, Reason: "it answered 500"}
		}
	}, "unhealthy, 3 checks in a row failed: it answered 500"},
	"says so": {func(r *rig, _ chan probe.Health) { r.w.message(2) <- handoff.Message{WatchdogTrigger: true} }, "WATCHDOG=trigger"},
	"is aborted": {func(r *rig, _ chan probe.Health) {
		if res := r.Abort(r.t.Context(), "test"); res.Code != CodeDone || !strings.Contains(res.Text, "generation 1 serves on") {
			r.t.Errorf("%+v", res)
		}
	}, "aborted by test"},
}

func TestFailureOnTrial(t *testing.T) {
	for name, f := range failures {
		for phase, after := range map[string]time.Duration{"canary": 20 * time.Second, "bake": 91 * time.Second} {
			t.Run(name+" in "+phase, func(t *testing.T) {
				w := newWorld(t, behaviour{})
				inBubble(t, w, trial, func(r *rig) {
					health := make(chan probe.Health)
					w.next = []behaviour{{health: health, output: "last words", handle: stubborn}}
					result := r.beginSwap(Request{Kind: Reload})
					time.Sleep(after)
					f.fail(r, health)
					synctest.Wait()
					if w.last() != 1 {
						t.Error("the traffic has not gone back")
					}
					res := <-result
					wantCode(t, res, CodeRolledBack)
					if res.Phase != phase || !strings.Contains(res.Text, "rolled back: ") || !strings.Contains(res.Text, f.why) || !strings.Contains(res.Text, "generation 1 serves on") {
						t.Errorf("%+v", res)
					}
					r.want(1, "serving")
					if got := r.w.proc(1).got(); len(got) > 0 {
						t.Errorf("the old generation was told %v", got)
					}
					wantCode(t, r.Promote(r.t.Context(), "test", true), CodeRejected)
					time.Sleep(time.Minute)
					r.wantState(2, Exited)
				})
			})
		}
	}
}

// TestFailedTrialDrains: what the candidate has accepted gets the time of any drain, and nobody is recalled to it.
func TestFailedTrialDrains(t *testing.T) {
	var quiet atomic.Bool
	w := newWorld(t, behaviour{}, behaviour{load: func() handoff.Load {
		if !quiet.Load() {
			return handoff.Load{Known: true, Open: 1, Busy: 1}
		}
		return handoff.Load{Known: true}
	}})
	inBubble(t, w, func(o *Options) { trial(o); o.DrainQuiet = time.Hour }, func(r *rig) {
		result := r.beginSwap(Request{Kind: Reload})
		r.Abort(r.t.Context(), "test")
		wantCode(t, <-result, CodeRolledBack)
		time.Sleep(time.Minute)
		r.wantState(2, Draining)
		if got := w.proc(2).got(); len(got) > 0 {
			t.Errorf("it was told %v while it was busy", got)
		}
		quiet.Store(true)
		time.Sleep(time.Second)
		r.wantState(2, Exited)
	})
}

func TestRefusedShare(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{split: errors.New("the sockets are shared")})
	inBubble(t, w, trial, func(r *rig) {
		res := r.reload()
		wantCode(t, res, CodeRejected)
		if res.Phase != "canary" || !strings.Contains(res.Text, "cannot give it a share of the traffic: the sockets are shared") {
			t.Errorf("%+v", res)
		}
		r.want(1, "serving")
	})
}

func TestPromoteByCommand(t *testing.T) {
	inBubble(t, newWorld(t), func(o *Options) {
		trial(o)
		o.Canary[0].For = 0
	}, func(r *rig) {
		if res := r.Promote(r.t.Context(), "test", false); res.Code != CodeRejected || !strings.Contains(res.Text, "no candidate") {
			t.Errorf("%+v", res)
		}
		result := r.beginSwap(Request{Kind: Reload})
		time.Sleep(time.Hour)
		r.wantState(2, Canary) // it waits for somebody
		if res := r.Promote(r.t.Context(), "test", false); res.Code != CodeDone || !strings.Contains(res.Text, "25%") {
			t.Errorf("%+v", res)
		}
		r.wantShares("1/2 1%", "1/2 25%")
		time.Sleep(30 * time.Second) // the timer of a step that was cut short means nothing
		if res := r.Promote(r.t.Context(), "test", true); res.Code != CodeDone || !strings.Contains(res.Text, "generation 2 is active") {
			t.Errorf("%+v", res)
		}
		wantCode(t, <-result, CodeDone)
		r.want(2, "serving")
	})
}

func TestPromoteTooEarly(t *testing.T) {
	inBubble(t, newWorld(t, behaviour{}, behaviour{slow: time.Second}), trial, func(r *rig) {
		result := r.beginSwap(Request{Kind: Reload})
		if res := r.Promote(r.t.Context(), "test", true); res.Code != CodeRejected || !strings.Contains(res.Text, "is starting") {
			t.Errorf("%+v", res)
		}
		if res := r.Abort(r.t.Context(), "test"); res.Code != CodeDone {
			t.Errorf("%+v", res)
		}
		wantCode(t, <-result, CodeRejected) // it never had traffic
		if res := r.Abort(r.t.Context(), "test"); res.Code != CodeRejected || !strings.Contains(res.Text, "no swap is under way") {
			t.Errorf("%+v", res)
		}
	})
}

func TestFirstGenerationIsNotAborted(t *testing.T) {
	inBubble(t, newWorld(t, behaviour{slow: time.Second}), trial, func(r *rig) {
		if res := r.Abort(r.t.Context(), "test"); res.Code != CodeRejected {
			t.Errorf("%+v", res)
		}
		time.Sleep(time.Second)
		r.want(1, "serving") // and it had no trial: there is nobody to go back to
		r.wantShares()
	})
}

func TestActiveDiesDuringTrial(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 91 * time.Second} {
		inBubble(t, newWorld(t), trial, func(r *rig) {
			result := r.beginSwap(Request{Kind: Reload})
			time.Sleep(after)
			r.w.proc(1).exit(reaper.SignalStatus(syscall.SIGKILL))
			synctest.Wait()
			wantCode(t, <-result, CodeDone)
			r.want(2, "serving")
			if r.w.last() != 2 {
				t.Errorf("the traffic goes to %d", r.w.last())
			}
		})
	}
}

// TestActiveDiesDuringTrialWhileAnotherDrains: a generation that drains has been replaced for good when there is a candidate on trial.
func TestActiveDiesDuringTrialWhileAnotherDrains(t *testing.T) {
	busy := func() handoff.Load { return handoff.Load{Known: true, Open: 1, Busy: 1} }
	for _, state := range []State{Canary, Baking} {
		inBubble(t, newWorld(t, behaviour{load: busy}), func(o *Options) { trial(o); o.DrainQuiet = time.Hour }, func(r *rig) {
			first := r.beginSwap(Request{Kind: Reload})
			wantCode(t, r.Promote(r.t.Context(), "test", true), CodeDone)
			wantCode(t, <-first, CodeDone)
			result := r.beginSwap(Request{Kind: Reload})
			if state == Baking {
				time.Sleep(91 * time.Second)
			}
			r.wantState(1, Draining)
			r.wantState(3, state)
			r.w.proc(2).exit(reaper.SignalStatus(syscall.SIGKILL))
			synctest.Wait()
			r.want(3, "serving")
			if r.w.last() != 3 {
				t.Errorf("the traffic goes to %d", r.w.last())
			}
			wantCode(t, <-result, CodeDone)
		})
	}
}

// TestSwitchBackIsTriedAgain: clients must not stay with a candidate that is ending because one switch has failed.
func TestSwitchBackIsTriedAgain(t *testing.T) {
	const patience = 3 * time.Second
	w := newWorld(t)
	inBubble(t, w, trial, func(r *rig) {
		result := r.beginSwap(Request{Kind: Reload})
		time.Sleep(91 * time.Second)
		begin := time.Now()
		w.refuses(1, func() bool { return time.Since(begin) < patience })
		w.proc(2).exit(*exits(1))
		wantCode(t, <-result, CodeRolledBack)
		r.wantSteered(1, 2)
		time.Sleep(patience)
		synctest.Wait()
		r.wantSteered(1, 2, 1)
		time.Sleep(time.Minute)
		r.wantSteered(1, 2, 1) // once is enough
		again := time.Now().Add(2 * time.Hour)
		w.refuses(1, func() bool { return time.Now().Before(again) })
		result = r.beginSwap(Request{Kind: Reload})
		time.Sleep(91 * time.Second)
		r.Abort(r.t.Context(), "test")
		wantCode(t, <-result, CodeRolledBack)
		wantCode(t, r.Swap(r.t.Context(), Request{Kind: Replace}, nil), CodeDone)
		time.Sleep(3 * time.Hour)
		r.wantSteered(1, 2, 1, 3, 4) // the next switch is what counts
	})
}

// TestSwitchBackIsOutOfDate: a switch back that is to be tried again must not take the next candidate's traffic.
func TestSwitchBackIsOutOfDate(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, func(o *Options) { o.Bake = time.Minute }, func(r *rig) {
		result := r.beginSwap(Request{Kind: Reload})
		w.refuses(1, func() bool { return true })
		r.Abort(r.t.Context(), "test")
		wantCode(t, <-result, CodeRolledBack)
		result = r.beginSwap(Request{Kind: Reload})
		r.wantState(3, Baking)
		w.refuses(1, func() bool { return false })
		time.Sleep(30 * time.Second)
		r.wantSteered(1, 2, 3)
		wantCode(t, <-result, CodeDone)
	})
}

// TestExitDuringSmoke: what the smoke tests say afterwards is of no interest, and they are told to end.
func TestExitDuringSmoke(t *testing.T) {
	for name, say := range map[string]error{"good": nil, "bad": errors.New("500")} {
		for how, end := range map[string]func(r *rig){
			"exit":  func(r *rig) { r.w.proc(2).exit(*exits(3)) },
			"abort": func(r *rig) { r.Abort(r.t.Context(), "test") },
			"stop":  func(r *rig) { r.TriggerStop("signal TERM") },
		} {
			t.Run(how+" "+name, func(t *testing.T) {
				var ended atomic.Bool
				inBubble(t, newWorld(t, behaviour{}, behaviour{smoke: func(ctx context.Context) error {
					<-ctx.Done()
					ended.Store(true)
					return say
				}}), func(o *Options) { trial(o); o.ShutdownDelay = 5 * time.Second }, func(r *rig) {
					result := r.beginSwap(Request{Kind: Reload})
					r.wantState(2, Ready)
					end(r)
					wantCode(t, <-result, CodeRejected)
					r.wantState(2, Exited)
					if !ended.Load() {
						t.Error("the smoke tests go on")
					}
					r.wantState(1, Active)
					r.wantSteered(1)
					r.wantShares()
				})
			})
		}
	}
}

// TestActiveDiesAsAStepEnds in both orders of the two.
func TestActiveDiesAsAStepEnds(t *testing.T) {
	for _, early := range []time.Duration{0, time.Nanosecond} {
		inBubble(t, newWorld(t), trial, func(r *rig) {
			result := r.beginSwap(Request{Kind: Reload})
			time.AfterFunc(30*time.Second-early, func() { r.w.proc(1).exit(reaper.SignalStatus(syscall.SIGKILL)) })
			wantCode(t, <-result, CodeDone)
			r.want(2, "serving")
			if r.w.last() != 2 {
				t.Errorf("the traffic goes to %d", r.w.last())
			}
			time.Sleep(5 * time.Minute)
			r.want(2, "serving")
		})
	}
}

// TestPromoteIsRefusedByTheSockets: the error of the switch is the answer to whoever promotes, and the active generation has it all.
func TestPromoteIsRefusedByTheSockets(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, trial, func(r *rig) {
		result := r.beginSwap(Request{Kind: Reload})
		w.refuses(2, func() bool { return true })
		if res := r.Promote(r.t.Context(), "test", true); res.Code != CodeRolledBack || !strings.Contains(res.Text, "could not be promoted") {
			t.Errorf("%+v", res)
		}
		wantCode(t, <-result, CodeRolledBack)
		r.wantSteered(1, 1)
		wantCode(t, r.Promote(r.t.Context(), "test", true), CodeRejected)
		r.want(1, "serving")
	})
}

// TestRecalledIsWatchedAgain: a generation that gets its traffic back is judged as before, and not by what was said of it earlier.
func TestRecalledIsWatchedAgain(t *testing.T) {
	var health chan probe.Health
	first := behaviour{load: func() handoff.Load { return handoff.Load{Known: true, Open: 1, Busy: 1} }}
	w := newWorld(t)
	inBubble(t, w, func(o *Options) {
		o.HealthFailures, o.DrainQuiet, o.Watchdog = 2, time.Hour, time.Hour
		health = make(chan probe.Health) // in the bubble
		first.health = health
		w.next = []behaviour{first}
	}, func(r *rig) {
		result := r.beginSwap(Request{Kind: Reload})
		wantCode(t, <-result, CodeDone)
		_ = r.ask(r.t.Context(), func() { r.gen(1).Sick, r.gen(1).Unhealthy = true, "it answered 500" })
		w.message(1) <- handoff.Message{Watchdog: true}
		_ = r.ask(r.t.Context(), func() {
			if r.live[1].crew[0].hungry != nil {
				t.Error("the watchdog of a draining generation runs")
			}
		})
		w.proc(2).exit(reaper.SignalStatus(syscall.SIGKILL))
		if st := r.want(1, "serving"); st.Generations[0].Unhealthy != "" {
			t.Errorf("%+v", st.Generations[0])
		}
		if err := r.Health(r.t.Context()); err != nil {
			t.Error(err)
		}
		_ = r.ask(r.t.Context(), func() {
			if r.live[1].crew[0].hungry == nil {
				t.Error("it has no watchdog any more")
			}
		})
		for i := range 2 {
			select {
			case health <- probe.Health{Failures: i + 1, Healthy: i == 0, Reason: "it answered 500"}:
			case <-time.After(time.Second):
				t.Fatal("its health is not asked for")
			}
			synctest.Wait()
		}
		r.want(3, "serving")
	})
}

func TestStopDuringTrial(t *testing.T) {
	inBubble(t, newWorld(t), func(o *Options) { trial(o); o.ShutdownDelay = 5 * time.Second }, func(r *rig) {
		result := r.beginSwap(Request{Kind: Reload})
		r.TriggerStop("signal TERM")
		wantCode(t, <-result, CodeRejected)
		if r.w.last() != 1 {
			t.Error("the traffic did not go back for the time of the delay")
		}
		r.wantState(1, Active)
		r.wantEnd(Ending{})
	})
}

// TestTrialIsForNews: what ran before, or runs already, is not tried again.
func TestTrialIsForNews(t *testing.T) {
	inBubble(t, newWorld(t), trial, func(r *rig) {
		r.w.write("two")
		result := r.beginSwap(Request{Kind: Reload})
		time.Sleep(2 * time.Minute)
		wantCode(t, <-result, CodeDone)
		r.wantShares("1/2 1%", "1/2 25%")
		for _, kind := range []Kind{Rollback, Restart} {
			wantCode(t, r.swap(Request{Kind: kind}), CodeDone)
		}
		r.wantShares("1/2 1%", "1/2 25%")
	})
}

func TestReloadDuringTrialIsRemembered(t *testing.T) {
	inBubble(t, newWorld(t), trial, func(r *rig) {
		first := r.beginSwap(Request{Kind: Reload})
		wantCode(t, r.reload(), CodeBusy)
		r.Trigger(Request{Kind: Reload, Cause: "signal HUP", Remember: true})
		time.Sleep(101 * time.Second)
		wantCode(t, <-first, CodeDone)
		r.wantState(3, Canary)
	})
}

func TestUnhealthyActiveIsReplaced(t *testing.T) {
	w := newWorld(t)
	var health chan probe.Health
	inBubble(t, w, func(o *Options) {
		health = make(chan probe.Health) // of the bubble
		w.next, o.HealthFailures = []behaviour{{health: health}}, 2
	}, func(r *rig) {
		health <- probe.Health{Failures: 1, Healthy: true, Reason: "it answered 500"}
		st := r.want(1, "serving")
		if st.Generations[0].Unhealthy != "it answered 500" || r.Health(r.t.Context()) != nil {
			t.Errorf("after one failure: %+v", st.Generations[0])
		}
		health <- probe.Health{Failures: 0, Healthy: true}
		if st = r.want(1, "serving"); st.Generations[0].Unhealthy != "" {
			t.Errorf("after a good round: %+v", st.Generations[0])
		}
		w.next = []behaviour{{slow: time.Second}}
		health <- probe.Health{Failures: 2, Reason: "it answered 500"}
		r.want(1, "swapping") // beside the old one
		if err := r.Health(r.t.Context()); err == nil || !strings.Contains(err.Error(), "it answered 500") {
			t.Errorf("health: %v", err)
		}
		time.Sleep(time.Second)
		st = r.want(2, "serving")
		last := st.LastSwaps[len(st.LastSwaps)-1]
		if last.Kind != Replace || last.Code != CodeDone || !strings.Contains(last.Cause, "health: unhealthy, 2 checks") || len(w.programs) != 1 {
			t.Errorf("%+v from %d programs", last, len(w.programs))
		}
	})
}

func TestUnhealthyActiveEndsTheContainer(t *testing.T) {
	w := newWorld(t)
	var health chan probe.Health
	inBubble(t, w, func(o *Options) {
		health = make(chan probe.Health)
		w.next, o.ExitUnhealthy = []behaviour{{health: health}}, true
	}, func(r *rig) {
		health <- probe.Health{Failures: 1, Reason: "it answered 500"}
		r.wantEnd(Ending{Code: 1})
	})
}

func TestUnhealthyReplacementsAreLimited(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, func(o *Options) { o.Watchdog = time.Second }, func(r *rig) {
		time.Sleep(30 * time.Second)
		if n := w.started(); n != 1+5 {
			t.Errorf("%d generations in half a minute, want the first and five", n)
		}
		time.Sleep(time.Minute)
		if n := w.started(); n != 1+10 {
			t.Errorf("%d generations in one minute and a half, want the first and ten", n)
		}
	})
}

func TestWatchdog(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, nil, func(r *rig) {
		w.message(1) <- handoff.Message{WatchdogTime: 10 * time.Second}
		for range 5 {
			time.Sleep(9 * time.Second)
			w.message(1) <- handoff.Message{Watchdog: true}
		}
		r.want(1, "serving")
		time.Sleep(11 * time.Second)
		st := r.want(2, "serving")
		if last := st.LastSwaps[len(st.LastSwaps)-1]; !strings.Contains(last.Cause, "has not fed its watchdog for 10s") {
			t.Errorf("%+v", last)
		}
	})
}
