package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/internal/watch"
)

// maxHooks is how many hooks run at the same time; those of further paths wait.
const maxHooks = 4

// watchHooks runs the hook of a changed path, one at a time for each path: a change meanwhile is remembered, and however
// many there were, the hook runs once more, for the newest.
type watchHooks struct {
	run   func(ctx context.Context, e watch.Event)
	slots chan struct{}
	wg    sync.WaitGroup

	mu   sync.Mutex
	next map[string]*watch.Event // of the paths whose hook runs; nil: nothing came meanwhile
}

func newWatchHooks(run func(context.Context, watch.Event)) *watchHooks {
	return &watchHooks{run: run, slots: make(chan struct{}, maxHooks), next: map[string]*watch.Event{}}
}

// start never blocks. The run ends early when ctx does.
func (h *watchHooks) start(ctx context.Context, e watch.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, running := h.next[e.File]; running {
		h.next[e.File] = &e
		return
	}
	h.next[e.File] = nil
	h.wg.Go(func() {
		for more := true; more; e, more = h.following(e) {
			h.once(ctx, e)
		}
	})
}

func (h *watchHooks) once(ctx context.Context, e watch.Event) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
	}
	if ctx.Err() == nil {
		h.run(ctx, e)
	}
}

// following gives what came during the run for e; without it the path is at rest.
func (h *watchHooks) following(e watch.Event) (watch.Event, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.next[e.File]
	if next == nil {
		delete(h.next, e.File)
		return e, false
	}
	h.next[e.File] = nil
	return *next, true
}

// wait returns when no hook runs any more.
func (h *watchHooks) wait() { h.wg.Wait() }

// runWatchHook runs ENTRYPOINT_HOOK_WATCH for a path.
func (p *initProcess) runWatchHook(ctx context.Context, e watch.Event) {
	extra := []string{"ENTRYPOINT_HOOK_EVENT=watch", "ENTRYPOINT_HOOK_PATH=" + e.File, "ENTRYPOINT_HOOK_REASON=" + e.Reason}
	log := p.log.With("hook", "watch", "path", e.File)
	began := time.Now()
	if err := p.runHook(ctx, p.cfg.HookWatch, extra, log); err != nil {
		p.logError("watch", fmt.Errorf("the hook for %q failed: %w", e.File, err))
		return
	}
	log.Info("hook done", "reason", e.Reason, "elapsed", time.Since(began).Round(time.Millisecond).String())
}

// runHook runs one command with its limit of time, and logs what it says.
func (p *initProcess) runHook(ctx context.Context, argv, extra []string, log *slog.Logger) error {
	limit := time.Duration(p.cfg.HookTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v and was killed; ENTRYPOINT_HOOK_TIMEOUT gives it more time", limit))
	defer cancel()
	return p.app.Hook(ctx, argv, extra, func(line string) { log.Info("hook says", "line", line) })
}
