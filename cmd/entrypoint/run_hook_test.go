package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hotswap-init/entrypoint/internal/watch"
)

// TestOneHookForEachPath: never two at a time for a path, never more than maxHooks at all, and one more run after a change
// during a run, for the newest.
func TestOneHookForEachPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, seen := map[string]int{}, map[string][]string{}
		var now, most atomic.Int64
		release := make(chan struct{})
		h := newWatchHooks(func(_ context.Context, e watch.Event) {
			mu.Lock()
			running[e.File]++
			seen[e.File] = append(seen[e.File], e.Reason)
			if running[e.File] > 1 {
				t.Errorf("two hooks for %s", e.File)
			}
			mu.Unlock()
			most.Store(max(most.Load(), now.Add(1)))
			<-release
			now.Add(-1)
			mu.Lock()
			running[e.File]--
			mu.Unlock()
		})
		const paths = 10
		for round := range 5 {
			for i := range paths {
				h.start(t.Context(), watch.Event{File: fmt.Sprint(i), Reason: fmt.Sprint(round)})
			}
			synctest.Wait()
		}
		close(release)
		h.wait()
		for file, reasons := range seen {
			if len(reasons) != 2 || reasons[0] != "0" || reasons[1] != "4" {
				t.Errorf("path %s: runs for %v, want the first and the newest", file, reasons)
			}
		}
		if len(seen) != paths || most.Load() != maxHooks || len(h.next) != 0 {
			t.Errorf("%d paths, at most %d at a time, %d remembered", len(seen), most.Load(), len(h.next))
		}
	})
}

// TestHooksEnd starts nothing more once the container ends.
func TestHooksEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var runs atomic.Int64
	h := newWatchHooks(func(ctx context.Context, _ watch.Event) { runs.Add(1); <-ctx.Done() })
	for i := range 2 * maxHooks {
		for range 3 {
			h.start(ctx, watch.Event{File: fmt.Sprint(i)})
		}
	}
	cancel()
	h.wait()
	if n := runs.Load(); n > maxHooks {
		t.Errorf("%d hooks ran", n)
	}
}

// TestOnlyBytes: the app's own file, and nothing beside it, can be news by its bytes alone.
func TestOnlyBytes(t *testing.T) {
	p := &initProcess{own: "/app/server"}
	event := func(file, action string, also ...watch.Event) watch.Event {
		return watch.Event{Path: watch.Path{Path: file, Action: action}, File: file, Also: also}
	}
	for _, tt := range []struct {
		e    watch.Event
		want bool
	}{
		{event("/app/server", "swap"), true},
		{event("/app/server", "trigger"), false},
		{event("/app/server.minisig", "swap", event("/app/server", "swap")), true},
		{event("/app/lib", "swap"), false},
		{event("/app/server", "swap", event("/app/lib", "swap")), false},
		{event("/app/server", "swap", event("/app/go", "trigger")), false},
	} {
		if got := p.onlyBytes(tt.e); got != tt.want {
			t.Errorf("%+v: %v", tt.e, got)
		}
	}
	if r := p.request(event("/app/server", "swap", event("/app/lib", "swap"))); r.Cause != "watch /app/server and 1 more" || !r.Remember {
		t.Errorf("request %+v", r)
	}
}
