package swap

import (
	"os"
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
	Replace Kind = "replace" // the same bytes once more, beside the old generation: it is unhealthy
	// Scale changes the number of workers of the active generation, and of all that follow.
	Scale Kind = "scale"
	// Put is a new generation of the current command from bytes that came with the request.
	Put Kind = "put"
	// Rollback is a new generation from the bytes, and the command line, that were active before the present ones. The present
	// bytes are barred: while the file has them, it is not swapped in again.
	Rollback Kind = "rollback"
)

// Request asks for a swap.
type Request struct {
	Kind  Kind   `json:"kind"`
	Cause string `json:"cause"` // who asked, for people: "signal HUP", "command", "watch /app/server"
	// Command is the command line of a Run, argv[0] included; unused otherwise.
	Command []string `json:"command,omitempty"`
	// Upload is what a Put runs; nil otherwise. It belongs to the supervisor from the call on, whatever the answer.
	Upload *Upload `json:"-"`
	// Workers is the number that a Scale asks for.
	Workers int `json:"workers,omitempty"`
	// Changed asks for nothing where the bytes are those that run already.
	Changed bool `json:"changed,omitempty"`
	// Force swaps in bytes that were rolled back.
	Force bool `json:"force,omitempty"`
	// Drained makes the caller wait until the generation that was replaced has ended.
	Drained bool `json:"drained,omitempty"`
	// Remember decides what a request during a swap gets: false, the answer busy at once;
	// true, one more swap after this one, however many such requests there were.
	Remember bool `json:"remember,omitempty"`
}

// Upload is a program that came from outside, complete, in a sealed memfd.
type Upload struct {
	File      *os.File
	Path      string // the file that it is meant for; "": the app's own
	SHA256    string // what its hash must be; "": not said
	Signature []byte // in minisign's format; nil: none
	From      string // who sent it, for status
}

// close is called once by whoever the upload ends with. nil is allowed.
func (u *Upload) close() {
	if u != nil {
		_ = u.File.Close() // it is only read
	}
}

// MaxWorkers is the most workers that a generation can have.
const MaxWorkers = handoff.MaxWorkers

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
	Phase      string    `json:"phase"` // checked, hook, stopping, started, ready, passed, canary, baking, rolled, put back, promoted, drained, failed
	Text       string    `json:"text"`
}

// Result is the end of a swap: what happened and why, in one sentence.
type Result struct {
	Code       int    `json:"code"`
	Generation int    `json:"gen,omitempty"`
	Phase      string `json:"phase,omitempty"` // the phase in which it failed
	Text       string `json:"text"`
	Output     string `json:"output,omitempty"` // the last lines that a failed candidate wrote
	Path       string `json:"path,omitempty"`   // of a put that succeeded: the app's own file, free of symbolic links
	ElapsedMS  int64  `json:"elapsed_ms"`
}

// StatusSchema is the version of the JSON form of Status. A field may be added without a new version; none is renamed or removed.
const StatusSchema = 1

// Status is a copy of what the owner knows.
type Status struct {
	Schema      int          `json:"schema"`
	App         string       `json:"app,omitempty"` // of several apps, which one this is
	Version     string       `json:"version,omitempty"`
	State       string       `json:"state"` // starting, serving, swapping, stopping, backoff, waiting
	PID         int          `json:"pid"`
	StartedAt   time.Time    `json:"started_at"`
	Handoff     string       `json:"handoff"`               // transparent, inherit, exclusive, none
	HandoffWhy  string       `json:"handoff_why,omitempty"` // why this one, when it was chosen and not asked for
	Command     []string     `json:"command"`
	Active      int          `json:"active"`    // generation number, 0: none
	Candidate   int          `json:"candidate"` // generation number, 0: none
	Remembered  bool         `json:"remembered,omitempty"`
	Restarts    int          `json:"restarts"`          // starts after a crash, since the beginning
	Workers     int          `json:"workers,omitempty"` // of each generation, if there are several
	Generations []Generation `json:"generations"`
	// Image is the SHA-256 of the bytes that the container started with, once known. Drift says that others are active.
	Image string `json:"image_sha256,omitempty"`
	Drift bool   `json:"drift"`
	Kept  []Kept `json:"kept,omitempty"` // what rollback can go back to, the newest first
	// Barred is the SHA-256 of bytes that were rolled back: the file that has them is not swapped in.
	Barred    string                 `json:"barred_sha256,omitempty"`
	Memory    int64                  `json:"artifact_memory"` // bytes of memory that private copies occupy in all
	Sockets   []handoff.SocketStatus `json:"sockets"`
	NotHeld   []handoff.Native       `json:"not_held,omitempty"` // addresses that the app has by itself
	LastSwaps []SwapRecord           `json:"last_swaps"`
	Proxy     *FrontStatus           `json:"proxy,omitempty"` // of the proxy mode
	// LogDropped counts lines of the app that its log had no room for.
	LogDropped int64        `json:"log_dropped_lines,omitempty"`
	Reaped     reaper.Stats `json:"reaped"`
}

// Generation is one run of the app.
type Generation struct {
	Number      int           `json:"gen"`
	State       State         `json:"state"`
	PID         int           `json:"pid,omitempty"`
	Command     []string      `json:"command"`
	Path        string        `json:"path,omitempty"`    // the file that was executed
	Address     string        `json:"address,omitempty"` // behind a proxy: where it listens; of several workers each has its own
	SHA256      string        `json:"sha256,omitempty"`  // of its bytes, once known
	Artifact    *Artifact     `json:"artifact,omitempty"`
	StartedAt   time.Time     `json:"started_at,omitzero"`
	ReadyAt     time.Time     `json:"ready_at,omitzero"`
	TriedAt     time.Time     `json:"tried_at,omitzero"` // when it first got traffic, in canary or bake
	ActiveAt    time.Time     `json:"active_at,omitzero"`
	DrainingAt  time.Time     `json:"draining_at,omitzero"`  // when a successor got its traffic, the last time
	SignalledAt time.Time     `json:"signalled_at,omitzero"` // when it got its stop signal, or what it left behind did
	KilledAt    time.Time     `json:"killed_at,omitzero"`    // when KILL was first sent
	EndedAt     time.Time     `json:"ended_at,omitzero"`
	Share       string        `json:"share,omitempty"`       // of the new connections, of a candidate on trial
	StepEnds    time.Time     `json:"step_ends,omitzero"`    // of its trial; zero: when somebody promotes it
	Unhealthy   string        `json:"unhealthy,omitempty"`   // why its last health check failed
	Load        *handoff.Load `json:"load,omitempty"`        // what is left of its traffic while it drains
	StatusText  string        `json:"status_text,omitempty"` // what the app said of itself (STATUS=)
	Exit        string        `json:"exit,omitempty"`        // how its main process ended
	Reason      string        `json:"reason,omitempty"`      // why it was refused or stopped
	Output      string        `json:"output,omitempty"`      // the tail of a failed candidate's output
	Workers     []Worker      `json:"workers,omitempty"`     // its processes, if there are several
}

// Worker is one of the processes of a generation of several.
type Worker struct {
	Number    int           `json:"worker"` // from 0
	State     State         `json:"state"`
	PID       int           `json:"pid,omitempty"`
	Address   string        `json:"address,omitempty"` // behind a proxy: where it listens
	Restarts  int           `json:"restarts"`          // starts after it had ended by itself, or was unhealthy
	StartedAt time.Time     `json:"started_at,omitzero"`
	ReadyAt   time.Time     `json:"ready_at,omitzero"`
	AgainAt   time.Time     `json:"again_at,omitzero"`   // when it is started again
	Unhealthy string        `json:"unhealthy,omitempty"` // why its last health check failed
	Load      *handoff.Load `json:"load,omitempty"`      // what is left of its traffic while it drains by itself
	Exit      string        `json:"exit,omitempty"`      // how it ended
	Reason    string        `json:"reason,omitempty"`    // why it was told to end by itself
}

// Artifact says where the bytes of a generation came from and how they are executed.
type Artifact struct {
	Source   string    `json:"source"`             // "file", or "put by " and who
	Exec     string    `json:"exec"`               // memfd, file (in the state directory) or path
	Why      string    `json:"exec_why,omitempty"` // why from the path, where a copy is usual
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified,omitzero"` // of the file that it came from
	Changed  time.Time `json:"-"`                 // the last change of that file's inode; zero for an upload
	Memory   int64     `json:"memory"`            // bytes of memory that the copy occupies
	Verified string    `json:"verified,omitempty"`
	Comment  string    `json:"trusted_comment,omitempty"`
}

// Kept is a program that is not active any more and whose bytes are still there.
type Kept struct {
	Generation int    `json:"gen"` // the last one that ran it
	Path       string `json:"path"`
	SHA256     string `json:"sha256,omitempty"`
	Artifact
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
	Phases    []Phase   `json:"phases,omitempty"` // in their order; all together it is what it took
}
