package swap

import (
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/reaper"
)

// Kind is what a Request asks for.
type Kind string

// The kinds of request.
const (
	Reload  Kind = "reload"  // a new generation of the current command, from the bytes that its path has now
	Run     Kind = "run"     // a new generation of another command line, which becomes current only if it succeeds
	Restart Kind = "restart" // the same bytes once more: stop, then start, behind the held sockets
)

// Request asks for a swap.
type Request struct {
	Kind  Kind   `json:"kind"`
	Cause string `json:"cause"` // who asked, for people: "signal HUP", "command", "watch /app/server"
	// Command is the command line of a Run, argv[0] included; unused otherwise.
	Command []string `json:"command,omitempty"`
	// Remember decides what a request during a swap gets: false, the answer busy at once;
	// true, one more swap after this one, however many such requests there were.
	Remember bool `json:"remember,omitempty"`
}

// The exit codes of a client, see docs/design.md.
const (
	CodeDone       = 0   // the new generation is active
	CodeRejected   = 1   // it failed, the old one serves on
	CodeUsage      = 2   // the request made no sense
	CodeBusy       = 3   // another swap is under way
	CodeNoInit     = 4   // no init to talk to, or not allowed
	CodeRolledBack = 5   // it was promoted, failed, and the old one has the traffic again
	CodeTimeout    = 124 // the caller stopped waiting; the swap goes on
)

// Progress is one step of a swap, as it happens.
type Progress struct {
	Time       time.Time `json:"time"`
	Generation int       `json:"gen"`
	Phase      string    `json:"phase"` // checked, stopping, started, ready, promoted, failed
	Text       string    `json:"text"`
}

// Result is the end of a swap: what happened and why, in one sentence.
type Result struct {
	Code       int    `json:"code"`
	Generation int    `json:"gen,omitempty"`
	Phase      string `json:"phase,omitempty"` // the phase in which it failed
	Text       string `json:"text"`
	Output     string `json:"output,omitempty"` // the last lines that a failed candidate wrote
	ElapsedMS  int64  `json:"elapsed_ms"`
}

// StatusSchema is the version of the JSON form of Status. A field may be added without a new version; none is renamed or removed.
const StatusSchema = 1

// Status is a copy of what the owner knows.
type Status struct {
	Schema      int                    `json:"schema"`
	Version     string                 `json:"version,omitempty"`
	State       string                 `json:"state"` // starting, serving, swapping, stopping, backoff, waiting
	PID         int                    `json:"pid"`
	StartedAt   time.Time              `json:"started_at"`
	Handoff     string                 `json:"handoff"`               // transparent, inherit, exclusive, none
	HandoffWhy  string                 `json:"handoff_why,omitempty"` // why this one, when it was chosen and not asked for
	Command     []string               `json:"command"`
	Active      int                    `json:"active"`    // generation number, 0: none
	Candidate   int                    `json:"candidate"` // generation number, 0: none
	Remembered  bool                   `json:"remembered,omitempty"`
	Restarts    int                    `json:"restarts"` // starts after a crash, since the beginning
	Generations []Generation           `json:"generations"`
	Sockets     []handoff.SocketStatus `json:"sockets"`
	NotHeld     []handoff.Native       `json:"not_held,omitempty"` // addresses that the app has by itself
	LastSwaps   []SwapRecord           `json:"last_swaps"`
	Reaped      reaper.Stats           `json:"reaped"`
}

// Generation is one run of the app.
type Generation struct {
	Number      int           `json:"gen"`
	State       State         `json:"state"`
	PID         int           `json:"pid,omitempty"`
	Command     []string      `json:"command"`
	Path        string        `json:"path,omitempty"`   // the file that was executed
	SHA256      string        `json:"sha256,omitempty"` // of its bytes, once known
	StartedAt   time.Time     `json:"started_at,omitzero"`
	ReadyAt     time.Time     `json:"ready_at,omitzero"`
	ActiveAt    time.Time     `json:"active_at,omitzero"`
	SignalledAt time.Time     `json:"signalled_at,omitzero"` // when it got its stop signal, or what it left behind did
	KilledAt    time.Time     `json:"killed_at,omitzero"`    // when KILL was first sent
	EndedAt     time.Time     `json:"ended_at,omitzero"`
	Load        *handoff.Load `json:"load,omitempty"`        // what is left of its traffic while it drains
	StatusText  string        `json:"status_text,omitempty"` // what the app said of itself (STATUS=)
	Exit        string        `json:"exit,omitempty"`        // how its main process ended
	Reason      string        `json:"reason,omitempty"`      // why it was refused or stopped
	Output      string        `json:"output,omitempty"`      // the tail of a failed candidate's output
}

// SwapRecord is one swap that was tried.
type SwapRecord struct {
	At        time.Time `json:"at"`
	Kind      Kind      `json:"kind"`
	Cause     string    `json:"cause"`
	From      int       `json:"from"`
	To        int       `json:"to"`
	Code      int       `json:"code"`
	Phase     string    `json:"phase,omitempty"`
	Text      string    `json:"text"`
	ElapsedMS int64     `json:"elapsed_ms"`
}
