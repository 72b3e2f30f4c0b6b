package doctor

import (
	"slices"
	"sort"
	"time"
)

// Life is what was done to a generation, and when; a zero time: it was not.
type Life struct {
	Number    int
	Active    time.Time // new connections go to it from here on
	Replaced  time.Time // new connections go to its successor; set by Drain
	Signalled time.Time // it got the stop signal
	Killed    time.Time // it was sent KILL
	Ended     time.Time // nothing of it runs any more
	Died      bool      // it ended by itself
}

// Deed is what was done last to a generation before a loss.
type Deed string

// The deeds.
const (
	None     Deed = "none"
	Replaced Deed = "switch"
	Signal   Deed = "signal"
	Kill     Deed = "kill"
)

// place is where in the life of a generation a request was lost.
type place struct {
	deed  Deed
	since time.Duration // from the deed to the loss
	life  Life
	owned bool // the request's connection was of that generation
}

// afterEnd is how long after the end of a generation a loss is still put down to it when the connection does not tell.
const afterEnd = 5 * time.Second

// lineUp sorts lives by time and fills in when each was replaced.
func lineUp(lives []Life) []Life {
	lives = slices.Clone(lives)
	sort.Slice(lives, func(i, j int) bool { return lives[i].Active.Before(lives[j].Active) })
	for i := range lives[:max(0, len(lives)-1)] {
		lives[i].Replaced = lives[i+1].Active
	}
	return lives
}

// last is what was done last to it by then.
func (l Life) last(then time.Time) (Deed, time.Time) {
	deed, at := None, time.Time{}
	for _, d := range []struct {
		deed Deed
		at   time.Time
	}{{Replaced, l.Replaced}, {Signal, l.Signalled}, {Kill, l.Killed}} {
		if !d.at.IsZero() && !d.at.After(then) && !d.at.Before(at) {
			deed, at = d.deed, d.at
		}
	}
	return deed, at
}

// takes tells whether a connection that was begun then went to it. After the stop signal it takes none: where the old one is stopped
// first, clients wait for the next.
func (l Life) takes(then time.Time) bool {
	before := func(end time.Time) bool { return end.IsZero() || then.Before(end) }
	return !then.Before(l.Active) && before(l.Replaced) && before(l.Signalled)
}

// find says where a loss stands in lives, which are lined up.
func find(l Loss, lives []Life) place {
	for _, life := range lives {
		if l.Opened.IsZero() || !life.takes(l.Opened) {
			continue
		}
		if deed, at := life.last(l.At); deed != None {
			return place{deed, l.At.Sub(at), life, true}
		}
	}
	found, latest := place{deed: None}, time.Time{}
	for _, life := range lives {
		deed, at := life.last(l.At)
		over := !life.Ended.IsZero() && l.At.Sub(life.Ended) > afterEnd
		if deed != None && !over && !at.Before(latest) {
			found, latest = place{deed, l.At.Sub(at), life, false}, at
		}
	}
	return found
}
