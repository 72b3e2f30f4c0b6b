package swap

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// Counters are what was counted since the init began. None of them ever goes back. The keys are those of the lists below and no
// others, so that they are bounded; what was never counted has no entry.
type Counters struct {
	// Swaps that were decided, by trigger and result; the first start is one. Requests that were answered "busy", or that
	// found nothing new, are none.
	Swaps map[string]map[string]uint64 `json:"swaps"`
	// Phases says how long swaps were in each of their phases, and how long replaced generations drained.
	Phases map[string]Histogram `json:"phases"`
	// LastDone is when a swap last succeeded.
	LastDone time.Time `json:"last_done,omitzero"`
	// Restarts of the same bytes, by reason.
	Restarts map[string]uint64 `json:"restarts"`
	// Cut is how many connections replaced generations still had open when they were killed, as far as that was known.
	Cut uint64 `json:"cut"`
	// VerifyFailures are programs that were refused because they did not show what they had to, by reason.
	VerifyFailures map[string]uint64 `json:"verify_failures"`
}

// The keys of Counters.
var (
	Triggers       = []string{"command", "health", "put", "restart", "rollback", "signal", "start", "watch"}
	Results        = []string{"done", "rejected", "rolled_back"}
	PhaseNames     = []string{"check", "stop", "start", "ready", "smoke", "canary", "bake", "promote", "drain"}
	RestartReasons = []string{"command", "exit", "failure", "signal", "unhealthy"}
	VerifyReasons  = []string{"missing", "pin", "sha256", "signature"}
)

// PhaseBounds are the upper bounds of all buckets but the last, which has none: an accept takes microseconds, a canary hours.
var PhaseBounds = []time.Duration{
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute,
}

// Histogram counts durations.
type Histogram struct {
	Counts []uint64      `json:"counts"` // by bucket, not summed up
	Sum    time.Duration `json:"sum"`
}

func (h Histogram) with(d time.Duration) Histogram {
	if len(h.Counts) == 0 {
		h.Counts = make([]uint64, len(PhaseBounds)+1)
	}
	i, _ := slices.BinarySearch(PhaseBounds, d) // an equal one belongs to its bound
	h.Counts[i]++
	h.Sum += max(0, d)
	return h
}

// Counters gives a copy. It blocks only for the owner's turn; once Run is over it gives the last ones.
func (s *Supervisor) Counters(ctx context.Context) (Counters, error) {
	var c Counters
	err := s.ask(ctx, func() { c = s.st.Counters.clone() })
	if errors.Is(err, ErrEnded) {
		return s.st.Counters.clone(), nil // its owner has ended
	}
	return c, err
}

func (c Counters) clone() Counters {
	c.Swaps = maps.Clone(c.Swaps)
	for k, v := range c.Swaps {
		c.Swaps[k] = maps.Clone(v)
	}
	c.Phases = maps.Clone(c.Phases)
	for k, h := range c.Phases {
		h.Counts = slices.Clone(h.Counts)
		c.Phases[k] = h
	}
	c.Restarts, c.VerifyFailures = maps.Clone(c.Restarts), maps.Clone(c.VerifyFailures)
	return c
}

// add counts one thing; the map is made when the first one comes.
func add(m *map[string]uint64, key string) {
	if *m == nil {
		*m = map[string]uint64{}
	}
	(*m)[key]++
}

// decided counts a swap that has its record.
func (c *Counters) decided(r Request, code int, phases []Phase) {
	if c.Swaps == nil {
		c.Swaps = map[string]map[string]uint64{}
	}
	of := c.Swaps[trigger(r)]
	result := "rejected"
	switch code {
	case CodeDone:
		result, c.LastDone = "done", time.Now()
	case CodeRolledBack:
		result = "rolled_back"
	}
	add(&of, result)
	c.Swaps[trigger(r)] = of
	for _, p := range phases {
		c.spent(p.Name, p.elapsed())
	}
}

func (c *Counters) spent(phase string, d time.Duration) {
	if c.Phases == nil {
		c.Phases = map[string]Histogram{}
	}
	c.Phases[phase] = c.Phases[phase].with(d)
}

// trigger is what asked for a swap, as one of Triggers.
func trigger(r Request) string {
	switch {
	case r.Cause == causeStart:
		return "start"
	case r.Kind == Put, r.Kind == Rollback, r.Kind == Restart:
		return string(r.Kind)
	case r.Kind == Replace:
		return "health"
	case strings.HasPrefix(r.Cause, "signal "):
		return "signal"
	case strings.HasPrefix(r.Cause, "watch "):
		return "watch"
	}
	return "command"
}

// restartReason is how an app ended that is started again, as one of RestartReasons.
func restartReason(e Ending) string {
	switch {
	case e.Signal != 0:
		return "signal"
	case e.Success():
		return "exit"
	}
	return "failure"
}

// verifyReason tells whether a program was refused for want of proof, and of which, as one of VerifyReasons.
func verifyReason(err error) (reason string, yes bool) {
	var e interface{ VerifyReason() string }
	if !errors.As(err, &e) {
		return "", false
	}
	return e.VerifyReason(), true
}

// Phase is a part of a swap. Where a swap was in a phase several times in a row, as in the steps of a canary, it is one.
type Phase struct {
	Name      string  `json:"name"`       // one of PhaseNames, but drain
	ElapsedMS float64 `json:"elapsed_ms"` // milliseconds, to the microsecond
}

func (p Phase) elapsed() time.Duration { return time.Duration(p.ElapsedMS * float64(time.Millisecond)) }

// enter notes that the swap is in a phase from now on.
func (sw *swapping) enter(phase string) {
	switch {
	case sw.Phase == phase:
		return
	case sw.Phase == "promote" && (phase == "canary" || phase == "bake"):
		sw.Phase = phase // it was to be promoted, and is put on trial first
		return
	}
	now := time.Now()
	if sw.Phase == "" {
		now = sw.At
	}
	sw.leave(now)
	sw.Phase, sw.Entered = phase, now
}

// leave notes how long the swap was in its phase, which ends now.
func (sw *swapping) leave(now time.Time) {
	if sw.Phase == "" {
		return
	}
	us := now.Sub(sw.Entered).Microseconds()
	if len(sw.Phases) < maxRecorded {
		sw.Phases = append(sw.Phases, Phase{Name: sw.Phase, ElapsedMS: float64(us) / 1000})
	}
	sw.Phase = ""
}

// maxRecorded bounds the list: a sequential swap that fails and puts back what it had stopped has the most, eight.
const maxRecorded = 12
