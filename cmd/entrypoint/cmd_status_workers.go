package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// workers lists the processes of the generations that have several and have not ended.
func (b *page) workers(s *swap.Status, now time.Time) {
	var rows [][]string
	var notes []string
	for _, g := range s.Generations {
		if g.State == swap.Exited {
			continue
		}
		for _, w := range g.Workers {
			rows = append(rows, []string{fmt.Sprint(w.Number), fmt.Sprint(g.Number), string(w.State), orDash(w.PID), workerAge(w, now), openOf(w.Load), fmt.Sprint(w.Restarts)})
			notes = append(notes, workerNote(w, now))
		}
	}
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n")
	b.tableWithNotes([]column{{"WORKER", true}, {"GEN", true}, {"STATE", false}, {"PID", true}, {"AGE", true}, {"OPEN", true}, {"RESTARTS", true}}, rows, notes)
}

func workerAge(w swap.Worker, now time.Time) string {
	if w.StartedAt.IsZero() || w.State == swap.Exited {
		return "-"
	}
	return age(now.Sub(w.StartedAt))
}

// workerNote is the most telling thing that is known of a worker.
func workerNote(w swap.Worker, now time.Time) string {
	switch {
	case w.State == swap.Exited && w.AgainAt.After(now):
		return fmt.Sprintf("%s; started again in %s", w.Exit, age(w.AgainAt.Sub(now)))
	case w.Unhealthy != "":
		return "health: " + w.Unhealthy
	case w.Exit != "":
		return w.Exit
	}
	return w.Reason
}

// sharedSlot is what the workers of one generation have of an address.
type sharedSlot struct {
	handoff.SlotStatus
	workers int // with traffic
}

// together adds up the slots of each generation that have traffic, and apart from them those that have none.
func together(all []handoff.SlotStatus) []sharedSlot {
	var list []sharedSlot
	for _, s := range all {
		i := slices.IndexFunc(list, func(x sharedSlot) bool {
			return s.Generation != 0 && x.Generation == s.Generation && (x.Portion > 0) == (s.Portion > 0)
		})
		if i < 0 {
			list, i = append(list, sharedSlot{SlotStatus: handoff.SlotStatus{Generation: s.Generation}}), len(list)
		}
		x := &list[i]
		x.Queue, x.Portion, x.Current = x.Queue+s.Queue, x.Portion+s.Portion, x.Current || s.Current
		x.workers++
	}
	return list
}
