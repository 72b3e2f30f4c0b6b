package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// swaps writes of the newest swap, and where that one failed, of the last that did not.
func (b *page) swaps(s *swap.Status, now time.Time) {
	last := newest(s.LastSwaps, func(swap.SwapRecord) bool { return true })
	if last == nil {
		b.label("last swap", "none yet")
		return
	}
	b.label("last swap", "%s", swapLine(*last, now))
	b.label("", "%s", phasesLine(*last))
	if last.Code == codeDone {
		return
	}
	if good := newest(s.LastSwaps, func(r swap.SwapRecord) bool { return r.Code == codeDone }); good != nil {
		b.label("last good", "%s", swapLine(*good, now))
	}
}

// newest is the last of the swaps that are wanted, nil if none is.
func newest(all []swap.SwapRecord, wanted func(swap.SwapRecord) bool) *swap.SwapRecord {
	var last *swap.SwapRecord
	for i := range all {
		if r := &all[i]; wanted(*r) && (last == nil || !r.At.Before(last.At)) {
			last = r
		}
	}
	return last
}

func swapLine(r swap.SwapRecord, now time.Time) string {
	return fmt.Sprintf("%s ago by %s, %s after %s: %s", age(now.Sub(r.At)), r.Cause, outcome(r), milliseconds(r.ElapsedMS), r.Text)
}

// outcome is how a swap ended, and in which phase if it failed.
func outcome(r swap.SwapRecord) string {
	word := resultWord(r.Code)
	if r.Phase != "" && word == "rejected" {
		word += " in phase " + r.Phase
	}
	return word
}

// resultWord is the code of a swap as a word.
func resultWord(code int) string {
	switch code {
	case codeDone:
		return "done"
	case codeRolledBack:
		return "rolled back"
	}
	return "rejected"
}

func milliseconds(n int64) string { return (time.Duration(n) * time.Millisecond).String() }

// historyPage is every swap that is remembered, the newest first.
func historyPage(s *swap.Status, columns int) string {
	b := &page{columns: columns}
	if len(s.LastSwaps) == 0 {
		b.label("last swap", "none yet")
		return b.String()
	}
	all := slices.Clone(s.LastSwaps)
	sort.SliceStable(all, func(i, j int) bool { return all[i].At.Before(all[j].At) })
	slices.Reverse(all)
	var rows [][]string
	var notes []string
	for _, r := range all {
		rows = append(rows, []string{r.At.Local().Format(time.DateTime), fmt.Sprintf("%d > %s", r.From, orDash(r.To)), resultWord(r.Code), milliseconds(r.ElapsedMS)})
		notes = append(notes, historyNote(r))
	}
	b.tableWithNotes([]column{{"AT", false}, {"GEN", false}, {"RESULT", false}, {"TIME", true}}, rows, notes)
	return b.String()
}

func historyNote(r swap.SwapRecord) string {
	parts := []string{"by " + r.Cause}
	if text := phasesLine(r); text != "" {
		parts = append(parts, text)
	}
	if r.Code != codeDone {
		parts = append(parts, outcome(r)+": "+r.Text)
	}
	return strings.Join(parts, "; ")
}

// phasesLine says how long each phase took.
func phasesLine(r swap.SwapRecord) string {
	var parts []string
	for _, p := range r.Phases {
		d := time.Duration(p.ElapsedMS * float64(time.Millisecond))
		parts = append(parts, p.Name+" "+d.Round(max(time.Microsecond, d.Truncate(time.Millisecond)/100)).String())
	}
	return strings.Join(parts, ", ")
}
