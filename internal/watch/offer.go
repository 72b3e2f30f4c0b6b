package watch

import "time"

// effectOf names what an event of a path is for: what settles together and has the same effect becomes one event. A hook
// is told a path, so each of its paths has an effect of its own.
func effectOf(p Path, abs string) string {
	switch p.Action {
	case ActionTrigger:
		return ActionSwap
	case ActionHook:
		return ActionHook + " " + abs
	}
	return p.Action
}

// offer picks what the receiver could take now: the changes of the first path that has one, and of those with the same
// effect. Nothing of a path that is changing again, and nothing while another path of the same effect does: they may be
// parts of one save. As long as one never rests the others wait only openPatience times the quiet time. Otherwise out is
// nil, and a send never happens.
func (w *watcher) offer(events chan<- Event) (from []*target, out chan<- Event, e Event) {
	moving := w.moving()
	for _, t := range w.targets {
		switch {
		case t.pending == nil || !t.due.IsZero():
		case len(from) > 0 && from[0].effect == t.effect:
			from, e.Also = append(from, t), append(e.Also, *t.pending)
		case len(from) == 0 && (!moving[t.effect] || time.Since(t.since) > openPatience*max(w.settle, t.quiet)):
			from, out, e = []*target{t}, events, *t.pending
		}
	}
	return from, out, e
}

// moving are the effects of paths that are changing.
func (w *watcher) moving() map[string]bool {
	var set map[string]bool
	for _, t := range w.targets {
		if t.due.IsZero() {
			continue
		}
		if set == nil {
			set = map[string]bool{}
		}
		set[t.effect] = true
	}
	return set
}

// taken notes that the receiver knows now what was pending.
func (w *watcher) taken(from []*target) {
	for _, t := range from {
		t.known, t.pending, t.since = t.next, nil, time.Time{}
		if t.member != nil && t.known.sum == "" {
			w.forget(t)
		}
	}
}

// firstOf is a, or b when a is not set.
func firstOf(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}
