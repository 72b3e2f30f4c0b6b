package swap

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
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

func workers(n int, more ...func(*Options)) func(*Options) {
	return func(o *Options) {
		o.Workers = n
		for _, f := range more {
			f(o)
		}
	}
}

func inTurn(o *Options) { o.Rolling = true }

func sequential(o *Options) { o.Mode = func() Mode { return Mode{Sequential: true} } }

func always(o *Options) { o.Restart = RestartAlways }

// of is the process of a worker that was started last.
func (w *world) of(gen, k int) *fakeProcess {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.crew[seat(gen, k)]
	if p == nil {
		w.t.Fatalf("worker %d of generation %d was never started", k, gen)
	}
	return p
}

// serving is who has the traffic, as "1.0 1.1 2.2".
func (w *world) serving() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.spread) == 0 {
		return ""
	}
	return seats(w.spread[len(w.spread)-1])
}

func seats(list []handoff.Seat) string {
	var words []string
	for _, at := range list {
		words = append(words, fmt.Sprintf("%d.%d", at.Generation, at.Worker))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func (r *rig) wantServing(want string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.w.serving(); got != want {
		r.t.Fatalf("traffic goes to %q, want %q", got, want)
	}
}

// fewest is the smallest number that had the traffic since the n-th division.
func (w *world) fewest(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	least := 1000
	for _, list := range w.spread[n:] {
		least = min(least, len(list))
	}
	return least
}

func (w *world) divisions() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.spread)
}

// alive counts the processes that have not ended.
func (w *world) alive() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.crew {
		if p.GroupAlive() {
			n++
		}
	}
	return n
}

func (r *rig) workers(gen int) []Worker {
	r.t.Helper()
	synctest.Wait()
	st, err := r.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, g := range st.Generations {
		if g.Number == gen {
			return g.Workers
		}
	}
	return nil
}

func (r *rig) scaleTo(n int) Result {
	return r.Swap(r.t.Context(), Request{Kind: Scale, Workers: n, Cause: "test"}, nil)
}

// TestWorkersBlueGreen: the first is started alone, the rest when it is ready; the generation is ready when all are, and goes as one.
func TestWorkersBlueGreen(t *testing.T) {
	w := newWorld(t, behaviour{slow: time.Second})
	inBubble(t, w, workers(4), func(r *rig) {
		if n := w.alive(); n != 1 {
			t.Fatalf("%d processes before the first is ready", n)
		}
		time.Sleep(time.Second)
		r.want(1, "serving")
		r.wantServing("1.0 1.1 1.2 1.3")
		slow := make(chan struct{})
		w.acts(func(at handoff.Seat) *behaviour {
			if at == seat(2, 3) {
				return &behaviour{slow: time.Minute / 2}
			}
			return nil
		})
		go func() { defer close(slow); wantCode(t, r.reload(), CodeDone) }()
		time.Sleep(time.Second)
		r.wantState(2, Starting)
		r.wantServing("1.0 1.1 1.2 1.3")
		<-slow
		r.wantServing("2.0 2.1 2.2 2.3")
		time.Sleep(time.Minute)
		r.wantState(1, Exited)
		for k := range 4 {
			if got := w.of(1, k).got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}) && !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
				t.Errorf("worker %d got %v", k, got)
			}
		}
		list := r.workers(2)
		if len(list) != 4 || list[2].Number != 2 || list[2].State != Active || list[2].PID != w.of(2, 2).pid {
			t.Errorf("status shows %+v", list)
		}
		if err := r.Signal(r.t.Context(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		for k := range 4 {
			if got := w.of(2, k).got(); !slices.Equal(got, []syscall.Signal{syscall.SIGUSR1}) {
				t.Errorf("worker %d got %v", k, got)
			}
		}
	})
}

// TestOneWorkerShowsNone: status of one process is what it was.
func TestOneWorkerShowsNone(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, nil, func(r *rig) {
		st := r.want(1, "serving")
		if st.Workers != 0 || st.Generations[0].Workers != nil {
			t.Errorf("status shows workers: %+v", st)
		}
	})
}

// TestWorkerFailsAtStart: any worker that does not start refuses the candidate.
func TestWorkerFailsAtStart(t *testing.T) {
	for name, b := range map[string]behaviour{
		"exits": {exits: exits(3), output: "no memory"}, "never ready": {never: true}, "not ready": {ready: errBroken}, "not started": {start: errBroken},
		"smoke": {smoke: func(context.Context) error { return errBroken }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			inBubble(t, w, workers(3), func(r *rig) {
				r.want(1, "serving")
				w.acts(func(at handoff.Seat) *behaviour {
					if at == seat(2, 2) {
						return &b
					}
					return nil
				})
				got := r.reload()
				wantCode(t, got, CodeRejected)
				if !strings.Contains(got.Text, "worker 2: ") || got.Output != b.output {
					t.Errorf("result %+v", got)
				}
				r.wantServing("1.0 1.1 1.2")
				time.Sleep(time.Minute)
				r.wantState(2, Exited)
				r.want(1, "serving")
				if n := w.alive(); n != 3 {
					t.Errorf("%d processes are left", n)
				}
			})
		})
	}
}

// TestWorkerEnds: by the policy, its end is that of all, or it is started again alone.
func TestWorkerEnds(t *testing.T) {
	for _, c := range []struct {
		policy RestartPolicy
		code   int
		ends   bool
	}{{RestartNo, 3, true}, {RestartNo, 0, true}, {RestartOnFailure, 0, true}, {RestartOnFailure, 3, false}, {RestartAlways, 0, false}} {
		t.Run(fmt.Sprintf("%s %d", c.policy, c.code), func(t *testing.T) {
			w := newWorld(t)
			inBubble(t, w, workers(3, func(o *Options) { o.Restart = c.policy }), func(r *rig) {
				r.want(1, "serving")
				died := w.of(1, 1)
				died.exit(reaper.ExitStatus(c.code))
				if c.ends {
					r.wantEnd(Ending{Code: c.code})
					return
				}
				r.wantServing("1.0 1.2")
				if m := r.workers(1)[1]; m.State != Exited || m.AgainAt.IsZero() || m.Exit == "" {
					t.Errorf("status shows %+v", m)
				}
				time.Sleep(time.Second)
				st := r.want(1, "serving")
				r.wantServing("1.0 1.1 1.2")
				if w.of(1, 1) == died || st.Restarts != 1 || st.Generations[0].Workers[1].Restarts != 1 || len(w.of(1, 0).got()) > 0 {
					t.Errorf("it was not started again alone: %+v", st.Generations)
				}
			})
		})
	}
}

// TestWorkerEndsTooOften: the limit is counted for each worker, the delay doubles, and in the end the container ends as the worker did.
func TestWorkerEndsTooOften(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, workers(3, always), func(r *rig) {
		r.want(1, "serving")
		begin := time.Now()
		for i := range 5 {
			w.of(1, 2).exit(reaper.ExitStatus(7))
			w.of(1, 1).exit(reaper.ExitStatus(7))
			time.Sleep(100*time.Millisecond<<i + time.Millisecond)
			r.wantServing("1.0 1.1 1.2")
		}
		w.of(1, 2).exit(reaper.ExitStatus(7))
		r.wantEnd(Ending{Code: 7})
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestWorkerRestartFails: one that does not become ready again is tried again, and serves when it is.
func TestWorkerRestartFails(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, workers(2, always), func(r *rig) {
		r.want(1, "serving")
		n := 0
		w.acts(func(at handoff.Seat) *behaviour {
			n++
			return []*behaviour{{exits: exits(1)}, {start: errBroken}, {never: true}, {}}[min(n-1, 3)]
		})
		w.of(1, 0).exit(reaper.ExitStatus(9))
		time.Sleep(time.Second)
		r.wantServing("1.1")
		wantCode(t, r.scaleTo(2), CodeDone)
		time.Sleep(2 * time.Minute)
		r.wantServing("1.0 1.1")
		if n != 4 {
			t.Errorf("%d starts", n)
		}
		if st := r.want(1, "serving"); st.Generations[0].PID != w.of(1, 0).pid {
			t.Errorf("the generation shows another pid than its first worker")
		}
	})
}

// TestSwapWhileAWorkerIsBack: a swap begins and ends while a worker waits for its restart, which is forgotten then.
func TestSwapWhileAWorkerIsGone(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, workers(2, always, func(o *Options) { o.RestartDelay = 10 * time.Second }), func(r *rig) {
		r.want(1, "serving")
		w.of(1, 1).exit(reaper.ExitStatus(9))
		r.wantServing("1.0")
		wantCode(t, r.reload(), CodeDone)
		r.wantServing("2.0 2.1")
		time.Sleep(time.Minute)
		r.wantState(1, Exited)
		if n := w.alive(); n != 2 {
			t.Errorf("%d processes are left", n)
		}
	})
}

// TestUnhealthyWorkerIsReplacedAlone: it drains first, whatever the restart policy.
func TestUnhealthyWorkerIsReplacedAlone(t *testing.T) {
	w := newWorld(t)
	var sick chan probe.Health
	w.acts(func(at handoff.Seat) *behaviour {
		if at == seat(1, 1) && w.crew[at] == nil {
			sick = make(chan probe.Health) // in the bubble
			return &behaviour{health: sick}
		}
		return nil
	})
	inBubble(t, w, workers(3, func(o *Options) { o.HealthFailures = 2 }), func(r *rig) {
		r.want(1, "serving")
		old := w.of(1, 1)
		sick <- probe.Health{Failures: 1, Reason: "503"}
		sick <- probe.Health{Failures: 2, Reason: "503"}
		synctest.Wait()
		time.Sleep(time.Second)
		r.wantServing("1.0 1.1 1.2")
		if st := r.want(1, "serving"); w.of(1, 1) == old || st.Generations[0].Workers[1].Restarts != 1 || len(w.of(1, 0).got()) > 0 {
			t.Errorf("it was not replaced alone: %+v", st.Generations[0].Workers)
		}
		if w.fewest(1) != 2 || !slices.Equal(old.got(), []syscall.Signal{syscall.SIGTERM}) {
			t.Errorf("fewest %d, signals %v", w.fewest(1), old.got())
		}
	})
}

// TestRoll: one after the other, never fewer than all, never more than one more.
func TestRoll(t *testing.T) {
	for _, mode := range []func(*Options){func(*Options) {}, sequential} {
		w := newWorld(t)
		inBubble(t, w, workers(8, inTurn, mode), func(r *rig) {
			r.want(1, "serving")
			from := w.divisions()
			most, least, phases := 0, 100, []string{}
			w.acts(func(at handoff.Seat) *behaviour {
				return &behaviour{slow: 3 * time.Second, load: busyFor(2 * time.Second)}
			})
			done := make(chan Result, 1)
			go func() {
				done <- r.Swap(r.t.Context(), Request{Kind: Reload, Cause: "test"}, func(p Progress) {
					if n := w.alive(); n > most {
						most = n
					} else {
						least = min(least, n)
					}
					phases = append(phases, p.Phase)
				})
			}()
			time.Sleep(10 * time.Second)
			st := r.want(1, "swapping")
			if st.Candidate != 2 || st.Generations[1].State != Canary || !strings.HasSuffix(st.Generations[1].Share, "/8") {
				t.Errorf("in the middle: %+v", st.Generations[1])
			}
			wantCode(t, r.reload(), CodeBusy)
			wantCode(t, r.scaleTo(3), CodeBusy)
			wantCode(t, r.Promote(r.t.Context(), "test", false), CodeRejected)
			got := <-done
			wantCode(t, got, CodeDone)
			r.wantServing("2.0 2.1 2.2 2.3 2.4 2.5 2.6 2.7")
			want := 8
			if len(st.Handoff) == 0 && mode != nil && r.mode().Sequential {
				want = 7
			}
			if few := w.fewest(from); few != want || most > 9 {
				t.Errorf("fewest %d, want %d; at most %d processes", few, want, most)
			}
			time.Sleep(time.Minute)
			r.wantState(1, Exited)
			if n := w.alive(); n != 8 {
				t.Errorf("%d processes are left", n)
			}
			if n := len(slices.DeleteFunc(phases, func(p string) bool { return p != "rolled" })); n != 7 {
				t.Errorf("%d places were told of", n)
			}
		})
	}
}

// busyFor is a load that is idle after some time since it was first asked for.
func busyFor(d time.Duration) func() handoff.Load {
	var begin time.Time
	var mu sync.Mutex
	return func() handoff.Load {
		mu.Lock()
		defer mu.Unlock()
		if begin.IsZero() {
			begin = time.Now()
		}
		if time.Since(begin) < d {
			return handoff.Load{Known: true, Open: 1, Busy: 1}
		}
		return handoff.Load{Known: true}
	}
}

// TestRollFails: whatever goes wrong in the middle, the old ones all serve in the end, and at no moment did fewer than could.
func TestRollFails(t *testing.T) {
	for name, c := range map[string]struct {
		at   int
		b    behaviour
		code int
		then func(r *rig)
		few  int // that have the traffic at least
	}{
		"first exits":     {at: 0, b: behaviour{exits: exits(3)}, code: CodeRejected, few: 4},
		"first smoke":     {at: 0, b: behaviour{smoke: func(context.Context) error { return errBroken }}, code: CodeRejected, few: 4},
		"second exits":    {at: 1, b: behaviour{exits: exits(3)}, code: CodeRolledBack, few: 4},
		"last never":      {at: 3, b: behaviour{never: true}, code: CodeRolledBack, few: 4},
		"third not begun": {at: 2, b: behaviour{start: errBroken}, code: CodeRolledBack, few: 4},
		"dies later":      {at: 3, b: behaviour{slow: 20 * time.Second}, code: CodeRolledBack, few: 3, then: func(r *rig) { r.w.of(2, 1).exit(reaper.ExitStatus(4)) }},
		"aborted":         {at: 2, b: behaviour{slow: 20 * time.Second}, code: CodeRolledBack, few: 4, then: func(r *rig) { wantCode(r.t, r.Abort(r.t.Context(), "test"), CodeDone) }},
	} {
		for _, mode := range []string{"overlap", "sequential"} {
			t.Run(name+" "+mode, func(t *testing.T) {
				w := newWorld(t)
				change := func(*Options) {}
				if mode == "sequential" {
					change, c.few = sequential, 2
				}
				inBubble(t, w, workers(4, inTurn, change), func(r *rig) {
					r.want(1, "serving")
					from := w.divisions()
					w.acts(func(at handoff.Seat) *behaviour {
						if at == seat(2, c.at) {
							return &c.b
						}
						return &behaviour{slow: time.Second, load: busyFor(time.Second / 2)}
					})
					done := make(chan Result, 1)
					go func() { done <- r.reload() }()
					if c.then != nil {
						time.Sleep(10 * time.Second)
						c.then(r)
					}
					got := <-done
					wantCode(t, got, c.code)
					r.wantServing("1.0 1.1 1.2 1.3")
					st := r.want(1, "serving")
					if few := w.fewest(from); few < c.few {
						t.Errorf("fewest %d", few)
					}
					for _, m := range st.Generations[0].Workers {
						if m.State != Active {
							t.Errorf("worker %+v", m)
						}
					}
					time.Sleep(2 * time.Minute)
					r.wantState(2, Exited)
					if n := w.alive(); n != 4 {
						t.Errorf("%d processes are left", n)
					}
					w.acts(nil)
					wantCode(t, r.reload(), CodeDone)
					r.wantServing("3.0 3.1 3.2 3.3")
				})
			})
		}
	}
}

// TestRollRecallsWhoDrains: an old worker that has lost its place, and was told nothing yet, takes it again as it is.
func TestRollRecallsWhoDrains(t *testing.T) {
	w := newWorld(t)
	w.acts(func(at handoff.Seat) *behaviour { return &behaviour{load: busyFor(4 * time.Second)} })
	inBubble(t, w, workers(3, inTurn), func(r *rig) {
		r.want(1, "serving")
		done := make(chan Result, 1)
		go func() { done <- r.reload() }()
		time.Sleep(2 * time.Second)
		r.wantServing("1.1 1.2 2.0")
		old := w.of(1, 0)
		wantCode(t, r.Abort(r.t.Context(), "test"), CodeDone)
		wantCode(t, <-done, CodeRolledBack)
		r.wantServing("1.0 1.1 1.2")
		time.Sleep(time.Minute)
		if w.of(1, 0) != old || len(old.got()) > 0 || w.alive() != 3 {
			t.Errorf("signals %v, %d processes", old.got(), w.alive())
		}
		wantCode(t, r.Abort(r.t.Context(), "test"), CodeRejected)
	})
}

// TestPromoteAfterAStopInARoll: both generations serve on until the delay is over, and nobody is promoted any more.
func TestPromoteAfterAStopInARoll(t *testing.T) {
	w := newWorld(t)
	w.acts(func(handoff.Seat) *behaviour { return &behaviour{load: busyFor(time.Hour)} })
	inBubble(t, w, workers(2, inTurn, func(o *Options) { o.ShutdownDelay = time.Minute }), func(r *rig) {
		go r.reload()
		time.Sleep(time.Second)
		r.wantServing("1.1 2.0")
		r.TriggerStop("test")
		r.want(1, "stopping")
		wantCode(t, r.Promote(r.t.Context(), "test", true), CodeRejected)
		wantCode(t, r.Abort(r.t.Context(), "test"), CodeRejected)
		r.wantServing("1.1 2.0")
	})
}

// TestRollWaitsForTheFirst: while the first worker of a candidate is being judged, an old one whose place it is to take ends. Nothing more of
// the candidate is started before the judgement, and nothing twice.
func TestRollWaitsForTheFirst(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, workers(2, inTurn, always), func(r *rig) {
		r.want(1, "serving")
		w.acts(func(at handoff.Seat) *behaviour {
			if at.Generation == 1 {
				return &behaviour{slow: 10 * time.Second}
			}
			return &behaviour{slow: time.Second, smoke: func(context.Context) error { time.Sleep(20 * time.Second); return nil }}
		})
		w.of(1, 1).exit(reaper.ExitStatus(1))
		time.Sleep(5 * time.Second) // 1.1 is being started again, and 2.1 is to have its place
		go r.reload()
		time.Sleep(15 * time.Second)
		w.mu.Lock()
		if w.crew[seat(2, 0)] != nil {
			t.Error("a second worker is started before the first one has passed")
		}
		w.mu.Unlock()
		time.Sleep(time.Minute)
		r.wantServing("2.0 2.1")
		if w.alive() != 2 {
			t.Errorf("%d processes", w.alive())
		}
	})
}

// TestStopWhileAllAreDown: a generation whose workers have all ended, and wait to be started again, ends at once.
func TestStopWhileAllAreDown(t *testing.T) {
	for _, now := range []bool{false, true} {
		w := newWorld(t)
		inBubble(t, w, workers(2, always), func(r *rig) {
			r.want(1, "serving")
			w.of(1, 0).exit(reaper.ExitStatus(1))
			w.of(1, 1).exit(reaper.ExitStatus(1))
			synctest.Wait()
			at := time.Now()
			go r.Stop(context.Background(), now)
			select {
			case <-r.ended:
			case <-time.After(time.Minute):
				panic("it does not end")
			}
			if took := time.Since(at); took > 0 {
				t.Errorf("a stop with nothing to stop took %s", took)
			}
		})
	}
}

// TestRollBackDrainsAnew: an old worker that was called back and loses its place again drains as if for the first time.
func TestRollBackDrainsAnew(t *testing.T) {
	w := newWorld(t)
	w.acts(func(at handoff.Seat) *behaviour { return &behaviour{load: busyFor(time.Hour)} })
	inBubble(t, w, workers(2, inTurn), func(r *rig) {
		go r.reload()
		time.Sleep(4 * time.Second)
		r.wantServing("1.1 2.0")
		wantCode(t, r.Abort(r.t.Context(), "test"), CodeDone)
		r.wantServing("1.0 1.1")
		at := time.Now()
		go r.reload()
		time.Sleep(time.Minute)
		if p := w.of(1, 0); len(p.at) == 0 || p.at[0].Sub(at) < 5*time.Second {
			t.Errorf("it drains since %s and was signalled at %s, want DRAIN_QUIET between them", at, p.at)
		}
	})
}

// TestRollMeetsACrash: an old worker that dies is the next one whose place is taken, and does not end the container.
func TestRollMeetsACrash(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, workers(4, inTurn), func(r *rig) {
		r.want(1, "serving")
		w.acts(func(handoff.Seat) *behaviour { return &behaviour{slow: 5 * time.Second} })
		done := make(chan Result, 1)
		go func() { done <- r.reload() }()
		time.Sleep(7 * time.Second) // 2.0 serves, 2.1 is being started
		w.of(1, 3).exit(reaper.SignalStatus(syscall.SIGSEGV))
		r.wantServing("1.1 1.2 2.0")
		time.Sleep(8 * time.Second)
		r.wantServing("1.2 2.0 2.1 2.3")
		wantCode(t, <-done, CodeDone)
		r.wantServing("2.0 2.1 2.2 2.3")
	})
}

// TestRollLosesAllOldOnes: with nobody left to replace, the new ones have everything at once, and the missing ones are started.
func TestRollLosesAllOldOnes(t *testing.T) {
	for _, back := range []bool{false, true} {
		w := newWorld(t)
		inBubble(t, w, workers(4, inTurn), func(r *rig) {
			r.want(1, "serving")
			w.acts(func(handoff.Seat) *behaviour { return &behaviour{slow: 5 * time.Second} })
			done := make(chan Result, 1)
			go func() { done <- r.reload() }()
			time.Sleep(7 * time.Second)
			if back {
				w.acts(func(at handoff.Seat) *behaviour {
					if at.Generation == 1 {
						return &behaviour{start: errBroken}
					}
					return &behaviour{slow: 5 * time.Second}
				})
				r.Abort(r.t.Context(), "test")
			}
			for k := 1; k < 4; k++ {
				w.of(1, k).exit(reaper.SignalStatus(syscall.SIGSEGV))
			}
			wantCode(t, <-done, CodeDone)
			time.Sleep(time.Minute)
			r.wantServing("2.0 2.1 2.2 2.3")
			r.want(2, "serving")
			r.wantState(1, Exited)
		})
	}
}

// TestRollBackLosesOne: an old worker that does not start again is given up in the end; the others serve, and the next swap has all.
func TestRollBackLosesOne(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, workers(3, inTurn), func(r *rig) {
		r.want(1, "serving")
		w.acts(func(at handoff.Seat) *behaviour {
			switch at {
			case seat(1, 0):
				return &behaviour{exits: exits(1)}
			case seat(2, 2):
				return &behaviour{never: true}
			}
			return nil
		})
		got := r.reload()
		wantCode(t, got, CodeRolledBack)
		if !strings.Contains(got.Text, "worker 0 of generation 1 did not start again") {
			t.Errorf("result %+v", got)
		}
		r.wantServing("1.1 1.2")
		w.acts(nil)
		wantCode(t, r.reload(), CodeDone)
		r.wantServing("3.0 3.1 3.2")
	})
}

// TestStopInARoll: both generations end within the deadline, and the container as its active one.
func TestStopInARoll(t *testing.T) {
	for _, delay := range []time.Duration{0, 5 * time.Second} {
		w := newWorld(t)
		inBubble(t, w, workers(3, inTurn, func(o *Options) { o.ShutdownDelay = delay }), func(r *rig) {
			r.want(1, "serving")
			w.acts(func(handoff.Seat) *behaviour { return &behaviour{slow: 5 * time.Second} })
			done := make(chan Result, 1)
			go func() { done <- r.reload() }()
			time.Sleep(7 * time.Second)
			begin := time.Now()
			stopped := make(chan Result, 1)
			go func() { stopped <- r.Stop(r.t.Context(), false) }()
			wantCode(t, <-done, CodeRejected)
			if delay > 0 {
				r.wantServing("1.1 1.2 2.0")
			}
			wantCode(t, <-stopped, CodeDone)
			if took := time.Since(begin); took > delay+8*time.Second {
				t.Errorf("it took %v", took)
			}
			r.wantEnd(Ending{})
		})
	}
}

// TestScale: up when the new ones are ready, down at once; the number holds for what follows.
func TestScale(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, nil, func(r *rig) {
		r.want(1, "serving")
		w.acts(func(handoff.Seat) *behaviour { return &behaviour{slow: 2 * time.Second, load: busyFor(time.Second)} })
		begin := time.Now()
		wantCode(t, r.scaleTo(40), CodeDone)
		if took := time.Since(begin); took != 6*time.Second { // sixteen at a time
			t.Errorf("it took %v", took)
		}
		if n := len(strings.Fields(w.serving())); n != 40 {
			t.Errorf("%d serve", n)
		}
		wantCode(t, r.scaleTo(3), CodeDone)
		r.wantServing("1.0 1.1 1.2")
		if m := r.workers(1)[20]; m.State != Draining || m.Load == nil {
			t.Errorf("status shows %+v", m)
		}
		time.Sleep(time.Minute)
		if n := w.alive(); n != 3 || len(r.workers(1)) != 3 {
			t.Errorf("%d processes are left, %+v", n, r.workers(1))
		}
		wantCode(t, r.reload(), CodeDone)
		r.wantServing("2.0 2.1 2.2")
		wantCode(t, r.scaleTo(3), CodeDone)
		wantCode(t, r.scaleTo(0), CodeUsage)
		wantCode(t, r.scaleTo(65), CodeUsage)
		wantCode(t, r.scaleTo(1), CodeDone)
		r.wantServing("2.0")
		time.Sleep(time.Minute)
		wantCode(t, r.reload(), CodeDone)
		if st := r.want(3, "serving"); st.Workers != 0 {
			t.Errorf("%d workers", st.Workers)
		}
	})
}

// TestScaleFails: what was added goes again.
func TestScaleFails(t *testing.T) {
	for _, how := range []string{"fails", "aborted", "active dies", "stopped"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			inBubble(t, w, workers(2), func(r *rig) {
				r.want(1, "serving")
				w.acts(func(at handoff.Seat) *behaviour {
					if at.Worker == 4 {
						return &behaviour{slow: 2 * time.Second, ready: errBroken}
					}
					return nil
				})
				done := make(chan Result, 1)
				go func() { done <- r.scaleTo(5) }()
				time.Sleep(time.Second)
				switch how {
				case "aborted":
					wantCode(t, r.Abort(r.t.Context(), "test"), CodeDone)
				case "active dies":
					w.of(1, 0).exit(reaper.ExitStatus(9))
					wantCode(t, <-done, CodeRejected)
					r.wantEnd(Ending{Code: 9})
					return
				case "stopped":
					r.Stop(r.t.Context(), false)
					wantCode(t, <-done, CodeRejected)
					return
				}
				wantCode(t, <-done, CodeRejected)
				r.wantServing("1.0 1.1")
				time.Sleep(time.Minute)
				st := r.want(1, "serving")
				if n := w.alive(); n != 2 || st.Workers != 2 {
					t.Errorf("%d processes are left", n)
				}
			})
		})
	}
}

// TestWorkersCanary: a share goes to all workers of the candidate; one that is unhealthy takes it back; an active worker that dies
// meanwhile is started again.
func TestWorkersCanary(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, workers(3, always, func(o *Options) { o.Canary = []Step{{Share: handoff.Share{Portion: 0.5}}} }), func(r *rig) {
		r.want(1, "serving")
		sick := make(chan probe.Health)
		w.acts(func(at handoff.Seat) *behaviour {
			if at == seat(2, 2) {
				return &behaviour{health: sick}
			}
			return nil
		})
		done := make(chan Result, 1)
		go func() { done <- r.reload() }()
		r.wantState(2, Canary)
		w.of(1, 1).exit(reaper.ExitStatus(1))
		r.wantServing("1.0 1.2")
		time.Sleep(time.Second)
		r.wantServing("1.0 1.1 1.2")
		r.wantState(2, Canary)
		sick <- probe.Health{Failures: 1, Reason: "503"}
		got := <-done
		wantCode(t, got, CodeRolledBack)
		if !strings.Contains(got.Text, "worker 2: ") {
			t.Errorf("result %+v", got)
		}
		r.wantServing("1.0 1.1 1.2")
	})
}

// TestWorkersWalk lets things happen at random, and wants everything in order when they stop: all workers of one generation serve, nothing
// else is left, and everybody was answered.
func TestWorkersWalk(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 9))
			w := newWorld(t)
			calm, dice := false, rand.New(rand.NewPCG(seed, 10)) // both under the world's lock
			w.acts(func(at handoff.Seat) *behaviour {
				rng := dice
				b := &behaviour{slow: time.Duration(rng.IntN(3000)) * time.Millisecond, load: busyFor(time.Duration(rng.IntN(2000)) * time.Millisecond)}
				switch {
				case calm:
				case rng.IntN(12) == 0:
					b.exits = exits(rng.IntN(2))
				case rng.IntN(12) == 0:
					b.start = errBroken
				case rng.IntN(20) == 0:
					b.ready = errBroken
				case rng.IntN(20) == 0:
					b.handle = stubborn
				}
				return b
			})
			change := workers(1+rng.IntN(5), always, func(o *Options) {
				o.StartLimitBurst = 0
				o.Rolling = rng.IntN(3) > 0
				o.DrainTimeout = 10 * time.Second
				if rng.IntN(4) == 0 {
					sequential(o)
				} else if !o.Rolling && rng.IntN(2) == 0 {
					o.Canary, o.Bake = []Step{{Share: handoff.Share{Portion: 0.5}, For: 3 * time.Second}}, 3*time.Second
				}
			})
			inBubble(t, w, change, func(r *rig) {
				answers := make(chan Result, 1000)
				asked := 0
				for range 60 {
					switch n := rng.IntN(10); {
					case n < 3:
						asked++
						r := Request{Kind: []Kind{Reload, Reload, Restart, Replace, Rollback}[rng.IntN(5)], Cause: "walk", Remember: rng.IntN(3) == 0}
						go func() { answers <- w.rig.Swap(context.Background(), r, nil) }()
					case n < 5:
						asked++
						n := 1 + rng.IntN(6)
						go func() { answers <- w.rig.scaleTo(n) }()
					case n < 6:
						r.Abort(r.t.Context(), "walk")
					case n < 9:
						w.crash(rng)
					}
					time.Sleep(time.Duration(rng.IntN(4000)) * time.Millisecond)
				}
				w.mu.Lock()
				calm = true
				w.mu.Unlock()
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				if len(answers) != asked {
					t.Fatalf("%d answers to %d requests", len(answers), asked)
				}
				st, err := r.Status(r.t.Context())
				if err != nil {
					t.Fatal(err)
				}
				n := max(1, st.Workers)
				var want []handoff.Seat
				for k := range n {
					want = append(want, seat(st.Active, k))
				}
				if st.State != "serving" || w.alive() != n || st.Active == 0 {
					t.Fatalf("it ends %s with %d processes for %d workers of generation %d", st.State, w.alive(), n, st.Active)
				}
				if got := w.serving(); got != seats(want) && n > 1 {
					t.Errorf("traffic goes to %q, want %q", got, seats(want))
				}
			})
		})
	}
}

// crash ends some process that is there.
func (w *world) crash(rng *rand.Rand) {
	w.mu.Lock()
	var list []handoff.Seat
	for at, p := range w.crew {
		if p.GroupAlive() {
			list = append(list, at)
		}
	}
	slices.SortFunc(list, func(a, b handoff.Seat) int { return (a.Generation-b.Generation)*100 + a.Worker - b.Worker })
	var p *fakeProcess
	if len(list) > 0 {
		p = w.crew[list[rng.IntN(len(list))]]
	}
	w.mu.Unlock()
	if p != nil {
		p.exit(reaper.ExitStatus(rng.IntN(2)))
	}
}
