package swap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/reaper"
)

// gather reads what is there.
func gather(t *testing.T, r *Subscription) (news []News, lost uint64) {
	t.Helper()
	news, lost, err := r.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return news, lost
}

func said(news []News, kind string) (all []string) {
	for _, n := range news {
		if n.Kind == kind {
			all = append(all, strings.TrimPrefix(n.From+">"+n.To+n.Phase, ">"))
		}
	}
	return all
}

func TestNewsOfASwap(t *testing.T) {
	inBubble(t, newWorld(t), nil, func(r *rig) {
		sub := r.Subscribe(0)
		defer sub.Close()
		news, _ := gather(r.t, sub)
		if got := said(news, NewsState); !slices.Equal(got, []string{"starting", "serving"}) {
			t.Errorf("states %v", got)
		}
		for i, n := range news {
			if n.Number != uint64(i+1) || n.Time.IsZero() {
				t.Errorf("news %d has the number %d and the time %v", i, n.Number, n.Time)
			}
		}
		wantCode(r.t, r.reload(), CodeDone)
		time.Sleep(time.Second)
		news, lost := gather(r.t, sub)
		if got, want := said(news, NewsPhase), []string{"checked", "started", "ready", "promoted"}; lost != 0 || !slices.Equal(got, want) {
			t.Errorf("phases %v, %d lost", got, lost)
		}
		want := []string{"starting>ready", "ready>active", "active>draining", "draining>stopping", "stopping>exited"}
		if got := said(news, NewsGeneration); !slices.Equal(got, want) {
			t.Errorf("generations %v", got)
		}
		i := slices.IndexFunc(news, func(n News) bool { return n.Kind == NewsSwap })
		if i < 0 || news[i].Swap == nil || news[i].Swap.To != 2 || news[i].Generation != 2 {
			t.Errorf("no record of the swap: %+v", news)
		}
	})
}

// TestSlowSubscriberLoses: nobody waits for a reader, and it is told.
func TestSlowSubscriberLoses(t *testing.T) {
	var f feed
	s := &Supervisor{}
	for range 10 {
		s.news.publish(News{})
	}
	slow := s.Subscribe(4)
	for i := range newsRoom + 20 {
		s.news.publish(News{Text: fmt.Sprint(i)})
	}
	news, lost := gather(t, slow)
	if lost != 26 || len(news) != newsRoom || news[0].Number != 31 || news[newsRoom-1].Number != newsRoom+30 {
		t.Errorf("lost %d, got %d from %d", lost, len(news), news[0].Number)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBroken)
	if _, _, err := slow.Next(ctx); !errors.Is(err, errBroken) {
		t.Errorf("after the last news: %v", err)
	}
	late := s.Subscribe(1 << 60)
	s.news.publish(News{Text: "after"})
	if news, lost := gather(t, late); lost != 0 || len(news) != 1 || news[0].Text != "after" {
		t.Errorf("a number of the future: %v, %d lost", news, lost)
	}
	slow.Close()
	late.Close()
	if n := len(s.news.readers); n != 0 {
		t.Errorf("%d readers are left", n)
	}
	f.publish(News{Text: strings.Repeat("ä", newsText)})
	if text := f.ring[0].Text; len(text) > newsText+len("…") || strings.Contains(text, "\ufffd") || !strings.HasSuffix(text, "ä…") {
		t.Errorf("a long text became %q", text)
	}
}

func TestNewsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := New(defaults(w))
		sub := s.Subscribe(0)
		ended := make(chan error, 1)
		var last News
		go func() {
			for {
				news, _, err := sub.Next(context.Background())
				if err != nil {
					ended <- err
					return
				}
				last = news[len(news)-1]
			}
		}()
		go s.Run(context.Background())
		synctest.Wait()
		s.TriggerStop("signal SIGTERM")
		if err := <-ended; !errors.Is(err, ErrEnded) || last.To != string(Exited) {
			t.Errorf("%v after %+v", err, last)
		}
		if c, err := s.Counters(t.Context()); err != nil || c.Swaps["start"]["done"] != 1 {
			t.Errorf("the counters after the end: %+v, %v", c, err)
		}
	})
}

func counters(r *rig) Counters {
	r.t.Helper()
	synctest.Wait()
	c, err := r.Counters(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func TestCountersOfSwaps(t *testing.T) {
	w := newWorld(t, behaviour{slow: time.Second}, behaviour{}, behaviour{check: unproven{}}, behaviour{exits: exits(1)})
	inBubble(t, w, nil, func(r *rig) {
		time.Sleep(2 * time.Second)
		for _, cause := range []string{"signal SIGHUP", "watch /app", "command by uid 0", "signal SIGHUP"} {
			r.Swap(r.t.Context(), Request{Kind: Reload, Cause: cause}, nil)
			time.Sleep(time.Second)
		}
		wantCode(r.t, r.Swap(r.t.Context(), Request{Kind: Restart, Cause: "command"}, nil), CodeDone)
		c := counters(r)
		got := fmt.Sprint(c.Swaps)
		if want := "map[command:map[rejected:1] restart:map[done:1] signal:map[done:2] start:map[done:1] watch:map[rejected:1]]"; got != want {
			t.Errorf("swaps %s", got)
		}
		if fmt.Sprint(c.Restarts, c.VerifyFailures) != "map[command:1] map[pin:1]" {
			t.Errorf("restarts %v, verification %v", c.Restarts, c.VerifyFailures)
		}
		if !c.LastDone.Equal(time.Now()) {
			t.Errorf("the last success was at %v", c.LastDone)
		}
		ready := c.Phases["ready"]
		if n := ready.Counts; ready.Sum != time.Second || n[6] != 1 || n[0] != 4 {
			t.Errorf("the phase ready: %+v", ready)
		}
		if drained := c.Phases["drain"]; len(drained.Counts) == 0 {
			t.Error("no generation drained")
		}
		known(t, c)
		r.want(5, "serving")
	})
}

// known checks that every key is in its list.
func known(t *testing.T, c Counters) {
	t.Helper()
	all := func(list []string, keys map[string]uint64) {
		for k := range keys {
			if !slices.Contains(list, k) {
				t.Errorf("%q is not among %v", k, list)
			}
		}
	}
	for k, results := range c.Swaps {
		all(Triggers, map[string]uint64{k: 1})
		all(Results, results)
	}
	for k := range c.Phases {
		all(PhaseNames, map[string]uint64{k: 1})
	}
	all(RestartReasons, c.Restarts)
	all(VerifyReasons, c.VerifyFailures)
}

type unproven struct{}

func (unproven) Error() string        { return "it is not pinned" }
func (unproven) VerifyReason() string { return "pin" }

func TestRestartReasons(t *testing.T) {
	for want, st := range map[string]reaper.Status{
		"exit": reaper.ExitStatus(0), "failure": reaper.ExitStatus(3), "signal": reaper.SignalStatus(11),
	} {
		inBubble(t, newWorld(t), func(o *Options) { o.Restart = RestartAlways }, func(r *rig) {
			r.w.proc(1).exit(st)
			time.Sleep(time.Second)
			r.want(2, "serving")
			if c := counters(r); len(c.Restarts) != 1 || c.Restarts[want] != 1 || c.Swaps["restart"]["done"] != 1 {
				t.Errorf("%s: %v, %v", want, c.Restarts, c.Swaps)
			}
		})
	}
}

// TestCutConnections: what is open when a replaced generation is killed was cut.
func TestCutConnections(t *testing.T) {
	seven := func() handoff.Load { return handoff.Load{Known: true, Open: 7, Busy: 3} }
	w := newWorld(t, behaviour{handle: stubborn, load: seven}, behaviour{load: seven})
	inBubble(t, w, nil, func(r *rig) {
		wantCode(r.t, r.reload(), CodeDone)
		time.Sleep(time.Minute)
		r.wantState(1, Exited)
		if c := counters(r); c.Cut != 7 {
			t.Errorf("%d connections were cut", c.Cut)
		}
		wantCode(r.t, r.reload(), CodeDone) // this one ends politely
		time.Sleep(time.Minute)
		c := counters(r)
		if c.Cut != 7 {
			t.Errorf("%d connections were cut", c.Cut)
		}
		if d := c.Phases["drain"]; d.Sum != 35*time.Second+5*time.Second {
			t.Errorf("drained for %v", d.Sum)
		}
	})
}

func TestPhasesOfARecord(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{launch: time.Second, slow: 2 * time.Second, smoke: func(context.Context) error {
		time.Sleep(3 * time.Second)
		return nil
	}})
	trial := func(o *Options) {
		half, err := handoff.ParseShare("50%")
		if err != nil {
			t.Fatal(err)
		}
		o.Canary, o.Bake = []Step{{half, 4 * time.Second}, {half, 4 * time.Second}}, 5*time.Second
	}
	inBubble(t, w, trial, func(r *rig) {
		wantCode(r.t, r.reload(), CodeDone)
		st := r.want(2, "serving")
		last := st.LastSwaps[len(st.LastSwaps)-1]
		if got, want := fmt.Sprint(last.Phases), "[{check 0} {start 1000} {ready 2000} {smoke 3000} {canary 8000} {bake 5000} {promote 0}]"; got != want {
			t.Errorf("phases %s, want %s", got, want)
		}
		var sum float64
		for _, p := range last.Phases {
			sum += p.ElapsedMS
		}
		if sum != float64(last.ElapsedMS) {
			t.Errorf("the phases are %v ms of %d", sum, last.ElapsedMS)
		}
		known(t, counters(r))
	})
}

// TestLastSwaps: the newest fifty are on record, the refused one among them, each with its cause, its phases and its result.
func TestLastSwaps(t *testing.T) {
	const swaps, kept = 60, 50
	script := make([]behaviour, swaps+1) // the first one is the start
	script[swaps] = behaviour{exits: exits(3)}
	inBubble(t, newWorld(t, script...), nil, func(r *rig) {
		for range swaps - 1 {
			wantCode(r.t, r.reload(), CodeDone)
		}
		wantCode(r.t, r.reload(), CodeRejected)
		st := r.want(swaps, "serving")
		if len(st.LastSwaps) != kept {
			r.t.Fatalf("%d swaps are on record", len(st.LastSwaps))
		}
		for i, record := range st.LastSwaps {
			to, code := swaps+1-kept+1+i, CodeDone
			if i == kept-1 {
				code = CodeRejected
			}
			if record.To != to || record.Code != code || record.Cause != "test" || len(record.Phases) == 0 || record.Text == "" {
				r.t.Errorf("record %d: %+v", i, record)
			}
		}
	})
}
