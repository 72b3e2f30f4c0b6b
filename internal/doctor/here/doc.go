// Package here finds out what works where it runs: what of the kernel, the sandbox and the container the init could use, which
// mode follows from that, and what to change.
//
// # Model
//
// [Examine] asks one question after the other and makes a [Row] of each answer. Questions are put to the system itself: a memory
// file is executed rather than a version compared, because what forbids it may be the kernel, a sysctl, a seccomp profile or a
// security module, and only the try tells. Tries that need other packages of this module come as functions in [Tries].
//
// # Invariants
//
//   - Nothing is left behind and nothing that runs is touched: what is made (a memory file, an inotify instance, a port of the
//     loopback interface, a file in the state directory) is gone when Examine returns.
//   - It takes milliseconds. Nothing waits for anybody else, but for the bound that a try brings with it.
//   - It needs no privilege and no running init.
//   - A row fails only where the configuration asks for what does not work. What is merely worse is limited or missing: something
//     else is used instead, and the row says what.
//
// What the answers hold for is this process: another user, or another seccomp profile, may be told something else.
package here

import "time"

// State is how a row ended.
type State string

// The states of a row.
const (
	Works   State = "works"
	Limited State = "limited" // it works, and something about it is worth knowing
	Missing State = "missing" // it does not work; something else is used instead
	Fails   State = "fails"   // it does not work, and the configuration asks for it
)

// Row is the answer to one question.
type Row struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"` // what to change, where that would help
}

// Choice is what follows from the rows: a mode, and why it is this one.
type Choice struct {
	What  string `json:"what"` // handoff, exec, steer or watch
	Value string `json:"value"`
	Why   string `json:"why,omitempty"`
}

// Asked is what the configuration wants.
type Asked struct {
	Handoff   string // auto, transparent, inherit, exclusive or none
	Held      int    // addresses that are configured
	Exec      string // auto, copy or path
	StateDir  string
	Steer     bool
	Canary    bool // a share of the connections is wanted, which only steering gives
	Watch     bool
	Poll      time.Duration
	Subreaper string // auto, true or false
	Ports     []int  // that are to be bound
	Backlog   int    // the longest that is configured; 0: none is
	User      *ID    // whom the app runs as; nil: as we
	Grace     time.Duration
	Delay     time.Duration // ENTRYPOINT_SHUTDOWN_DELAY
	Timeout   time.Duration // ENTRYPOINT_SHUTDOWN_TIMEOUT
}

// ID is a user and a group.
type ID struct{ UID, GID int }

// Tries are the questions that other packages answer. None may be nil but StateDir.
type Tries struct {
	// Memfd tells why a sealed memory file is not executed.
	Memfd func() error
	// StateDir tells why the state directory cannot hold programs; nil: there is none.
	StateDir func() error
	// Filter installs the seccomp filter of the transparent hand-off on a thread of its own.
	Filter func() (noNewPrivs bool, err error)
	// Rehearse hands a socket to a process of the app's user, as the init does before the first start.
	Rehearse func() error
	// Steer tells why the kernel does not choose between the sockets of a group.
	Steer func() error
}

// System is where the kernel is asked. The zero value is the running one.
type System struct {
	Root string // before /proc and /sys; tests only
	Init int    // the process whose rights are looked at; 0: this one
}

// Report is everything that was found.
type Report struct {
	Rows    []Row
	Follows []Choice
}

// Failed counts the rows that fail.
func (r *Report) Failed() int { return r.count(Fails) }

func (r *Report) count(s State) int {
	n := 0
	for _, row := range r.Rows {
		if row.State == s {
			n++
		}
	}
	return n
}

// Examine asks everything. It blocks for as long as the tries do.
func Examine(s System, a Asked, t Tries) *Report {
	e := &examination{System: s, asked: a, tries: t}
	for _, ask := range []func() Row{
		e.memfd, e.stateDir, e.seccomp, e.steering, e.pidfd, e.inotify, e.proc, e.subreaper, e.capabilities, e.ports, e.somaxconn,
		e.nofile, e.memory, e.pids, e.root, e.grace,
	} {
		e.rows = append(e.rows, ask())
	}
	if row, relevant := e.clock(); relevant {
		e.rows = append(e.rows, row)
	}
	return &Report{Rows: e.rows, Follows: e.follows()}
}

// examination is one Examine.
type examination struct {
	System
	asked Asked
	tries Tries
	rows  []Row

	noMemfd, noState, noFilter, noSteer, noInotify error
}
