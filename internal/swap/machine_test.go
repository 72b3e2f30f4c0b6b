package swap

import (
	"slices"
	"testing"
)

// TestTableIsTotal walks every state and every event: each cell leads somewhere or says why it does not.
func TestTableIsTotal(t *testing.T) {
	if len(table) != len(States) {
		t.Fatalf("the table has %d states, there are %d", len(table), len(States))
	}
	for _, s := range States {
		row, ok := table[s]
		if !ok {
			t.Fatalf("no row for state %q", s)
		}
		for e := Event(0); e < numEvents; e++ {
			c := row[e]
			switch {
			case c.to == "" && c.note == "":
				t.Errorf("%s x %s: empty cell", s, e)
			case c.to == "" && len(c.do) > 0:
				t.Errorf("%s x %s: ignored, yet does something", s, e)
			case c.to != "" && !slices.Contains(States, c.to):
				t.Errorf("%s x %s: leads to the unknown state %q", s, e, c.to)
			}
			got, acts := next(s, e)
			if c.to == "" && (got != s || acts != nil) {
				t.Errorf("%s x %s: an ignored event changed something", s, e)
			}
		}
	}
}

// TestTableKeepsItsPromises checks what must hold for the table as a whole, whatever its cells are.
func TestTableKeepsItsPromises(t *testing.T) {
	for _, s := range States {
		for e := Event(0); e < numEvents; e++ {
			to, acts := next(s, e)
			has := func(a Action) bool { return slices.Contains(acts, a) }
			if has(ActRelease) != (to == Exited && s != Exited) {
				t.Errorf("%s x %s: released exactly when the last process is gone, got %v -> %s", s, e, acts, to)
			}
			if to == Exited && s != Exited && e != EvGone {
				t.Errorf("%s x %s: only a group that is gone has exited", s, e)
			}
			if has(ActActive) != (to == Active && s != Active) {
				t.Errorf("%s x %s: becomes active without saying so, or the other way round", s, e)
			}
			trial := s == Canary || s == Baking // it has traffic, and the active generation can take it back
			if has(ActReject) != (to == Failed && s != Failed || trial && to == Draining) {
				t.Errorf("%s x %s: refused without an answer, or answered twice", s, e)
			}
			stays := to == Canary || to == Baking || to == Active
			if has(ActBack) != (trial && !stays) || has(ActBack) && acts[0] != ActBack {
				t.Errorf("%s x %s: the traffic goes back first of all, and only from a trial", s, e)
			}
			if has(ActStep) != (to == Canary && e == EvShared || to == Baking && s != Baking) {
				t.Errorf("%s x %s: a step without its time, or the other way round", s, e)
			}
			if (has(ActSignal) || has(ActKill)) && !has(ActArm) {
				t.Errorf("%s x %s: a signal without a deadline", s, e)
			}
			if has(ActDied) && s != Active {
				t.Errorf("%s x %s: only the active generation concerns the restart policy", s, e)
			}
		}
	}
}

// TestEveryStateCanEnd finds, from each state, the way to the end that a stop and a deadline must always open.
func TestEveryStateCanEnd(t *testing.T) {
	for _, s := range States {
		at := s
		for _, e := range []Event{EvStop, EvDeadline, EvExited, EvGone} {
			at, _ = next(at, e)
		}
		if at != Exited {
			t.Errorf("from %s a stop ends in %s", s, at)
		}
		if k, _ := next(s, EvKill); k != Killed && k != Exited {
			t.Errorf("from %s a kill leads to %s", s, k)
		}
	}
}

func TestEventNames(t *testing.T) {
	seen := map[string]bool{}
	for e := Event(0); e < numEvents; e++ {
		if n := e.String(); n == "" || seen[n] {
			t.Errorf("event %d has the name %q", int(e), n)
		} else {
			seen[n] = true
		}
	}
	if got := Event(99).String(); got != "event 99" {
		t.Errorf("unknown event is %q", got)
	}
}
