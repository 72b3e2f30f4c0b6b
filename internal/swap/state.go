package swap

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/reaper"
)

// mode is what the whole is doing when no swap is under way.
type mode string

const (
	modeIdle     mode = "idle"     // nothing special: an app runs, or is being started
	modeBackoff  mode = "backoff"  // the app died and will be started again
	modeWaiting  mode = "waiting"  // no app, and none to start until somebody asks
	modeStopping mode = "stopping" // everything ends
)

// state is all that the owner knows. It is plain data: written down as JSON and read back it is the same value.
type state struct {
	Mode        mode         `json:"mode"`
	StartedAt   time.Time    `json:"started_at"`
	Next        int          `json:"next"` // the number of the next generation
	Command     []string     `json:"command"`
	Active      int          `json:"active"`
	Candidate   int          `json:"candidate"`
	Generations []*record    `json:"generations"`
	Swap        *swapping    `json:"swap,omitempty"`
	Remembered  *Request     `json:"remembered,omitempty"`
	LastSwaps   []SwapRecord `json:"last_swaps"`
	Starts      []time.Time  `json:"starts"` // of the app by the restart policy, inside the limit's interval
	Delay       int64        `json:"delay"`  // the next back-off, nanoseconds
	Restarts    int          `json:"restarts"`
	Served      int          `json:"served"` // the generation whose end is the container's
	StopBy      time.Time    `json:"stop_by,omitzero"`
	Final       Ending       `json:"final"`
	Image       string       `json:"image,omitempty"`   // SHA-256 of the bytes that the container started with
	Barred      string       `json:"barred,omitempty"`  // SHA-256 of bytes that were rolled back
	Decided     bool         `json:"decided,omitempty"` // Final is what the container ends with, whatever else ends
	Counters    Counters     `json:"counters"`
	Workers     int          `json:"workers"` // of each generation
}

// swapping is the swap under way.
type swapping struct {
	Request Request   `json:"request"`
	At      time.Time `json:"at"`
	From    int       `json:"from"`
	To      int       `json:"to"`
	Phase   string    `json:"phase"` // check, hook, stop, start, ready, smoke, canary, bake, promote
	Entered time.Time `json:"entered"`
	Phases  []Phase   `json:"phases,omitempty"` // those that are over
	// Fallback says that this start puts back what a sequential swap had stopped; First that it failed so.
	Fallback bool    `json:"fallback,omitempty"`
	First    *Result `json:"first,omitempty"`
	Crash    bool    `json:"crash,omitempty"` // started by the restart policy
	// Sequential is decided at the beginning: the old generation is stopped before the new one starts.
	Sequential bool `json:"sequential,omitempty"`
	// Step is how many steps of the canary were taken; Hasten says that the rest of the trial is left out.
	Step   int  `json:"step,omitempty"`
	Hasten bool `json:"hasten,omitempty"`
	// Ended is how the app ended that an automatic rollback is to replace.
	Ended *Ending `json:"ended,omitempty"`
	// Path is the app's own file, of an upload.
	Path string `json:"path,omitempty"`
	// Roll says that the candidate takes the place of the active generation worker by worker.
	Roll *rolling `json:"roll,omitempty"`
}

// record is what is known of a generation, also after its end.
type record struct {
	Generation
	Ending  *Ending   `json:"ending,omitempty"`  // of its main process
	Settled bool      `json:"settled,omitempty"` // Ending is what it ended by, whatever its other workers do
	Refused bool      `json:"refused,omitempty"`
	Sick    bool      `json:"sick,omitempty"` // so many health checks in a row have failed
	Died    bool      `json:"died,omitempty"` // it ended by itself while it was active
	Crew    []*member `json:"crew"`           // by number
}

// Ending is how a process, or the container, ended: an exit code, or a signal.
type Ending struct {
	Code   int            `json:"code"`
	Signal syscall.Signal `json:"signal,omitempty"`
}

func endingOf(st reaper.Status) Ending {
	if sig := st.Signal(); sig != 0 {
		return Ending{Signal: sig}
	}
	return Ending{Code: st.Code()}
}

// ExitCode is the code that says the same to a parent: the code itself, or 128 plus the signal.
func (e Ending) ExitCode() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// Success tells exit code 0.
func (e Ending) Success() bool { return e == Ending{} }

func (e Ending) String() string {
	if e.Signal != 0 {
		return reaper.SignalStatus(e.Signal).String()
	}
	return fmt.Sprintf("exited with code %d", e.Code)
}

// ofApp is the ending in a sentence about the app.
func (e Ending) ofApp() string {
	if e.Signal != 0 {
		return "the app was " + e.String()
	}
	return "the app " + e.String()
}

// keepGenerations bounds what is remembered of generations that have ended.
const keepGenerations = 10

// keepSwaps bounds the list of past swaps.
const keepSwaps = 50

func (s *Supervisor) gen(n int) *record {
	for _, g := range s.st.Generations {
		if g.Number == n {
			return g
		}
	}
	return nil
}

// addGeneration makes the record of a new generation and forgets the oldest ended ones.
func (s *Supervisor) addGeneration(p *program) *record {
	facts := p.Facts()
	g := &record{Generation: Generation{
		Number: s.st.Next, State: Starting, Command: p.Command(), Path: p.Path(), SHA256: p.sum, Artifact: &facts, StartedAt: time.Now(),
	}}
	s.st.Next++
	s.st.Generations = append(s.st.Generations, g)
	ended := 0
	for i := len(s.st.Generations) - 1; i >= 0; i-- {
		if s.st.Generations[i].State != Exited {
			continue
		}
		if ended++; ended > keepGenerations {
			s.st.Generations = slices.Delete(s.st.Generations, i, i+1)
		}
	}
	return g
}

// stateName is the word for the whole.
func (s *Supervisor) stateName() string {
	switch {
	case s.st.Mode == modeStopping:
		return "stopping"
	case s.st.Swap != nil && s.st.Active != 0:
		return "swapping"
	case s.st.Swap != nil:
		return "starting"
	case s.st.Mode == modeBackoff || s.st.Mode == modeWaiting:
		return string(s.st.Mode)
	}
	return "serving"
}

func (s *Supervisor) setMode(m mode, why string) {
	if s.st.Mode == m {
		return
	}
	s.st.Mode = m
	s.log.Info("mode", "to", string(m), "why", why)
	s.changed()
}

func (s *Supervisor) changed() {
	state := s.stateName()
	if state != s.told {
		s.told = state
		s.news.publish(News{Kind: NewsState, To: state})
	}
	if s.opt.Changed != nil {
		s.opt.Changed(state)
	}
}

// snapshot copies what Status shows.
func (s *Supervisor) snapshot() Status {
	mode := s.mode()
	st := Status{
		Schema: StatusSchema, Version: s.opt.Version, State: s.stateName(),
		StartedAt: s.st.StartedAt, Handoff: mode.Name, HandoffWhy: mode.Why,
		Command: slices.Clone(s.st.Command), Active: s.st.Active, Candidate: s.st.Candidate,
		Remembered: s.st.Remembered != nil, Restarts: s.st.Restarts,
		LastSwaps: slices.Clone(s.st.LastSwaps), // their phases are not changed any more
	}
	if s.st.Workers > 1 {
		st.Workers = s.st.Workers
	}
	for _, g := range s.st.Generations {
		c := g.Generation
		if c.Workers = g.showWorkers(s.st.Workers); c.Workers == nil && len(g.Crew) > 0 {
			c.Address = g.Crew[0].Address
		}
		c.Command = slices.Clone(c.Command)
		c.Load, c.Artifact = clone(c.Load), clone(c.Artifact)
		st.Generations = append(st.Generations, c)
	}
	s.showBytes(&st)
	return st
}

func clone[T any](v *T) *T {
	if v == nil {
		return nil
	}
	c := *v
	return &c
}
