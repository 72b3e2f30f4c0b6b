package swap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/reaper"
)

// fakeHooks notes what is done. fails and blocks are by "moment generation"; what blocks ends only with its ctx.
type fakeHooks struct {
	only   []Moment // nil: all
	fails  map[string]error
	blocks map[string]bool

	mu    sync.Mutex
	did   []string
	all   []Occasion
	ended map[string]error // why those that blocked have ended
	at    map[string]time.Time
	now   int
}

func (f *fakeHooks) Wants(m Moment) bool { return f.only == nil || slices.Contains(f.only, m) }

func (f *fakeHooks) Do(ctx context.Context, o Occasion) error {
	key := fmt.Sprintf("%s %d", o.Moment, o.Generation)
	f.mu.Lock()
	f.did, f.all = append(f.did, key), append(f.all, o)
	if f.now++; f.now > 1 {
		panic("two hooks at a time")
	}
	err, blocks := f.fails[key], f.blocks[key]
	f.mu.Unlock()
	if blocks {
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now--
	if blocks {
		if f.ended == nil {
			f.ended, f.at = map[string]error{}, map[string]time.Time{}
		}
		f.ended[key], f.at[key] = err, time.Now()
	}
	return err
}

func (f *fakeHooks) done() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.did)
}

func (f *fakeHooks) of(moment Moment) Occasion {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range slices.Backward(f.all) {
		if o.Moment == moment {
			return o
		}
	}
	return Occasion{}
}

// hookRig is inBubble with hooks.
func hookRig(t *testing.T, w *world, f *fakeHooks, change func(*Options), test func(*rig)) {
	t.Helper()
	inBubble(t, w, func(o *Options) {
		o.Hooks = f
		if change != nil {
			change(o)
		}
	}, test)
}

func TestHooksInOrder(t *testing.T) {
	f := &fakeHooks{fails: map[string]error{"post_promote 1": errBroken, "post_promote 2": errBroken, "drained 1": errBroken, "exit 2": errBroken}}
	w := newWorld(t)
	hookRig(t, w, f, nil, func(r *rig) {
		r.want(1, "serving")
		var phases []string
		res := r.Swap(r.t.Context(), Request{Kind: Reload, Cause: "test"}, func(p Progress) { phases = append(phases, p.Phase) })
		wantCode(t, res, CodeDone)
		if want := []string{"checked", "hook", "started", "ready", "hook", "passed", "promoted"}; !slices.Equal(phases, want) {
			t.Errorf("phases %v, want %v", phases, want)
		}
		if o := f.of(PrePromote); o.Generation != 2 || o.Previous != 1 || o.PID != 102 || o.SHA256 != "one" || o.Cause != "test" || o.Status.Active != 1 || o.Result != "" {
			t.Errorf("before the promotion: %+v", o)
		}
		time.Sleep(time.Second)
		r.wantState(1, Exited)
		if o := f.of(PostPromote); o.Previous != 1 || o.Status.Active != 2 || !strings.Contains(o.Result, "generation 2 is active") {
			t.Errorf("after the promotion: %+v", o)
		}
		r.TriggerStop("signal SIGTERM")
		r.wantEnd(Ending{})
		want := []string{"pre_start 1", "pre_promote 1", "post_promote 1", "pre_start 2", "pre_promote 2", "post_promote 2", "drained 1", "exit 2"}
		if got := f.done(); !slices.Equal(got, want) {
			t.Errorf("did %v, want %v", got, want)
		}
	})
}

// TestHooksRefuse: what fails before the promotion refuses the swap, and nobody has noticed.
func TestHooksRefuse(t *testing.T) {
	for _, moment := range []Moment{PreStart, PrePromote} {
		for _, sequential := range []bool{false, true} {
			if sequential && moment == PrePromote {
				continue // TestHookFailsAndWhatRanBeforeIsPutBack
			}
			t.Run(fmt.Sprint(moment, " sequential ", sequential), func(t *testing.T) {
				f := &fakeHooks{fails: map[string]error{string(moment) + " 2": errors.New("it said no")}}
				w := newWorld(t)
				hookRig(t, w, f, func(o *Options) { o.Mode = func() Mode { return Mode{Sequential: sequential} } }, func(r *rig) {
					res := r.reload()
					wantCode(t, res, CodeRejected)
					if res.Phase != "hook" || !strings.Contains(res.Text, "it said no") || !strings.Contains(res.Text, "generation 1 serves on") {
						t.Errorf("the answer is %+v", res)
					}
					r.want(1, "serving")
					if got := w.proc(1).got(); len(got) > 0 || w.last() != 1 {
						t.Errorf("the old generation got %v, the traffic goes to %d", got, w.last())
					}
					if o := f.of(Failure); o.Code != CodeRejected || o.Result != res.Text || o.Previous != 1 {
						t.Errorf("of the failure was told: %+v", o)
					}
					delete(f.fails, string(moment)+" 2")
					wantCode(t, r.reload(), CodeDone)
				})
			})
		}
	}
}

func TestHookFailsAndWhatRanBeforeIsPutBack(t *testing.T) {
	f := &fakeHooks{fails: map[string]error{"pre_promote 2": errBroken, "pre_promote 3": errBroken}}
	w := newWorld(t)
	hookRig(t, w, f, func(o *Options) { o.Mode = func() Mode { return Mode{Sequential: true} } }, func(r *rig) {
		res := r.reload()
		wantCode(t, res, CodeRejected)
		if !strings.Contains(res.Text, "started again as generation 3") {
			t.Errorf("the answer is %+v", res)
		}
		r.want(3, "serving")
	})
}

func TestHookFailsAtTheFirstStart(t *testing.T) {
	for _, moment := range []Moment{PreStart, PrePromote} {
		f := &fakeHooks{fails: map[string]error{string(moment) + " 1": errBroken}}
		w := newWorld(t)
		hookRig(t, w, f, nil, func(r *rig) {
			r.wantEnd(Ending{Code: 1})
			if o := f.of(Leaving); o.Code != 1 {
				t.Errorf("%s: at the end was told %+v", moment, o)
			}
			if moment == PreStart && w.started() > 0 {
				t.Error("a candidate was started")
			}
		})
	}
}

// TestHookIsEndedWithItsSwap: by an abort, a stop, or the end of the candidate.
func TestHookIsEndedWithItsSwap(t *testing.T) {
	for name, end := range map[string]func(*rig){
		"abort": func(r *rig) { wantCode(r.t, r.Abort(r.t.Context(), "a test"), CodeDone) },
		"stop":  func(r *rig) { r.TriggerStop("signal SIGTERM") },
		"crash": func(r *rig) { r.w.proc(2).exit(reaper.ExitStatus(3)) },
	} {
		for _, moment := range []Moment{PreStart, PrePromote} {
			if name == "crash" && moment == PreStart {
				continue
			}
			t.Run(name+" "+string(moment), func(t *testing.T) {
				key := string(moment) + " 2"
				f := &fakeHooks{blocks: map[string]bool{key: true}}
				w := newWorld(t)
				hookRig(t, w, f, nil, func(r *rig) {
					answer := make(chan Result, 1)
					go func() { answer <- r.reload() }()
					time.Sleep(time.Second)
					end(r)
					at := time.Now()
					wantCode(t, <-answer, CodeRejected)
					time.Sleep(time.Second)
					f.mu.Lock()
					if f.ended[key] == nil || !f.at[key].Equal(at) {
						t.Errorf("the hook ended with %v at %v, want %v", f.ended[key], f.at[key], at)
					}
					f.mu.Unlock()
					if name != "stop" {
						r.want(1, "serving")
						f.mu.Lock()
						f.blocks = nil
						f.mu.Unlock()
						wantCode(t, r.reload(), CodeDone)
					}
				})
			})
		}
	}
}

// TestExitHookIsInsideTheDeadline: it has what the app has left of it, and a second stop ends it.
func TestExitHookIsInsideTheDeadline(t *testing.T) {
	f := &fakeHooks{only: []Moment{Leaving}, blocks: map[string]bool{"exit 1": true}}
	hookRig(t, newWorld(t), f, nil, func(r *rig) {
		at := time.Now()
		r.TriggerStop("signal SIGTERM")
		r.wantEnd(Ending{})
		if d := time.Since(at); d != 8*time.Second {
			t.Errorf("ended after %v, want the shutdown timeout", d)
		}
	})
	hookRig(t, newWorld(t), f, nil, func(r *rig) {
		at := time.Now()
		r.TriggerStop("signal SIGTERM")
		time.Sleep(time.Second)
		r.TriggerStop("signal SIGTERM")
		r.wantEnd(Ending{})
		if d := time.Since(at); d != time.Second {
			t.Errorf("ended after %v, want the second stop", d)
		}
	})
	f = &fakeHooks{}
	hookRig(t, newWorld(t, behaviour{handle: stubborn}), f, nil, func(r *rig) {
		r.TriggerStop("signal SIGTERM")
		r.wantEnd(Ending{Signal: syscall.SIGKILL})
		if got := f.done(); slices.Contains(got, "exit 1") {
			t.Errorf("did %v although no time was left", got)
		}
	})
}

// TestCrashIsTold: with a restart as a failure, at the end of the container as the exit alone.
func TestCrashIsTold(t *testing.T) {
	for _, policy := range []RestartPolicy{RestartNo, RestartAlways} {
		f := &fakeHooks{}
		w := newWorld(t)
		hookRig(t, w, f, func(o *Options) { o.Restart = policy }, func(r *rig) {
			r.want(1, "serving")
			w.proc(1).exit(reaper.ExitStatus(9))
			time.Sleep(time.Second)
			got := f.done()[3:]
			want := []string{"exit 1"}
			if policy == RestartAlways {
				want = []string{"failed 1", "pre_start 2", "pre_promote 2", "post_promote 2"}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: did %v, want %v", policy, got, want)
			}
			if o := f.all[3]; o.Code != 9 {
				t.Errorf("%s: told %+v", policy, o)
			}
		})
	}
}

// TestShortJobIsNoFailure: an app that does its work and ends before it was ready.
func TestShortJobIsNoFailure(t *testing.T) {
	f := &fakeHooks{}
	hookRig(t, newWorld(t, behaviour{exits: exits(0)}), f, nil, func(r *rig) {
		r.wantEnd(Ending{})
		if got, want := f.done(), []string{"pre_start 1", "exit 1"}; !slices.Equal(got, want) {
			t.Errorf("did %v, want %v", got, want)
		}
	})
}

// TestHooksAreBounded: hooks that take longer than swaps do not pile up, and nothing waits for them but what has to.
func TestHooksAreBounded(t *testing.T) {
	f := &fakeHooks{only: []Moment{PostPromote, Drained}, blocks: map[string]bool{"post_promote 1": true}}
	hookRig(t, newWorld(t), f, nil, func(r *rig) {
		for range maxHooks {
			wantCode(t, r.reload(), CodeDone)
			time.Sleep(time.Second)
		}
		var waiting int
		_ = r.ask(r.t.Context(), func() { waiting = len(r.hooks) })
		if waiting != maxHooks || len(f.done()) != 1 {
			t.Errorf("%d wait, %v was done", waiting, f.done())
		}
	})
}

func TestOccasionEnviron(t *testing.T) {
	o := Occasion{Moment: Drained, Generation: 3, PID: 41, Result: "exited with code 0", Status: Status{Active: 4, Generations: []Generation{{Number: 3, PID: 41}, {Number: 4, PID: 50}}}}
	env := o.Environ()
	for _, want := range []string{
		"ENTRYPOINT_HOOK_EVENT=drained", "ENTRYPOINT_HOOK_GENERATION=3", "ENTRYPOINT_HOOK_PREVIOUS=", "ENTRYPOINT_HOOK_ACTIVE=4", "ENTRYPOINT_HOOK_PID=41",
		"ENTRYPOINT_HOOK_PIDS=41", "ENTRYPOINT_HOOK_RESULT=exited with code 0", "ENTRYPOINT_HOOK_CODE=0", "ENTRYPOINT_HOOK_SHA256=",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("%q is not in %q", want, env)
		}
	}
}
