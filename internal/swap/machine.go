package swap

import "fmt"

// State is where a generation stands.
type State string

// The states of a generation. Draining is told nothing yet; stopping has its stop signal; failed is a refused
// candidate that is being ended; killed has been sent KILL; exited has no process left.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Active   State = "active"
	Draining State = "draining"
	Stopping State = "stopping"
	Failed   State = "failed"
	Killed   State = "killed"
	Exited   State = "exited"
)

// States lists every state, in the order of a life.
var States = []State{Starting, Ready, Active, Draining, Stopping, Failed, Killed, Exited}

// Event is something that happened to a generation, wherever it came from.
type Event int

// The events. Each means the same whatever its source: a signal, a timer, the control socket, the app.
const (
	EvReady      Event = iota // readiness was shown
	EvNotReady                // START_TIMEOUT passed, or readiness cannot be shown
	EvExited                  // the main process ended
	EvPromoted                // new connections go to it now
	EvNotSteered              // the traffic could not be given to it
	EvSuperseded              // a successor is active
	EvRecalled                // the successor died and this one has the traffic again
	EvQuiet                   // its connections are gone or idle, or DRAIN_QUIET passed
	EvStop                    // it is to end: container stop, restart, sequential swap
	EvAbort                   // the swap that it is the candidate of is cancelled
	EvDeadline                // the time that it was given to end is over
	EvKill                    // end it now
	EvGone                    // no process of its group is left
	numEvents
)

var eventNames = [numEvents]string{
	"ready", "not ready", "exited", "promoted", "not steered", "superseded", "recalled",
	"quiet", "stop", "abort", "deadline", "kill", "gone",
}

func (e Event) String() string {
	if e < 0 || e >= numEvents {
		return fmt.Sprintf("event %d", int(e))
	}
	return eventNames[e]
}

// Action is what the owner has to do after a transition, in order.
type Action int

// The actions.
const (
	ActPromote Action = iota // give it the traffic, then report EvPromoted or EvNotSteered
	ActActive                // it is active: supersede the others, answer the caller
	ActReject                // it is refused: answer the caller
	ActDied                  // the active one ended by itself: let the restart policy decide
	ActWatch                 // watch its connections until they are gone or idle
	ActSignal                // stop signal to the group
	ActArm                   // arm the deadline
	ActKill                  // KILL to the group
	ActRelease               // give back its slots and descriptors, forget its handles
)

// cell is one entry of the table: the next state and what to do. A cell that leaves the state and does nothing says
// in note why the event is ignored there, or why it cannot happen.
type cell struct {
	to   State
	do   []Action
	note string
}

func ignored(why string) cell             { return cell{note: why} }
func to(s State, do ...Action) cell       { return cell{to: s, do: do} }
func end(s State, do ...Action) cell      { return cell{to: s, do: append(do, ActSignal, ActArm)} }
func kill(s State, before ...Action) cell { return cell{to: s, do: append(before, ActKill, ActArm)} }

const (
	late    = "late: the state was left meanwhile"
	already = "already on its way out"
	notYet  = "cannot happen before it is active"
	never   = "cannot happen: only a ready candidate is being promoted"
	serving = "it has the traffic: an abort concerns candidates"
	over    = "it has ended"
	inGroup = "what is left of the group has its signal; the deadline decides"
	noMain  = "the main process is still there"
)

// table is the whole machine: every state, every event.
var table = map[State][numEvents]cell{
	Starting: {
		EvReady:      to(Ready, ActPromote),
		EvNotReady:   end(Failed, ActReject),
		EvExited:     end(Failed, ActReject),
		EvPromoted:   ignored(never),
		EvNotSteered: ignored(never),
		EvSuperseded: ignored(notYet),
		EvRecalled:   ignored(notYet),
		EvQuiet:      ignored(notYet),
		EvStop:       end(Stopping),
		EvAbort:      end(Failed, ActReject),
		EvDeadline:   ignored(late),
		EvKill:       kill(Killed),
		EvGone:       ignored(noMain),
	},
	Ready: {
		EvReady:      ignored("said twice"),
		EvNotReady:   ignored(late),
		EvExited:     end(Failed, ActReject),
		EvPromoted:   to(Active, ActActive),
		EvNotSteered: end(Failed, ActReject),
		EvSuperseded: ignored(notYet),
		EvRecalled:   ignored(notYet),
		EvQuiet:      ignored(notYet),
		EvStop:       end(Stopping),
		EvAbort:      end(Failed, ActReject),
		EvDeadline:   ignored(late),
		EvKill:       kill(Killed),
		EvGone:       ignored(noMain),
	},
	Active: {
		EvReady:      ignored("after a reload of its own"),
		EvNotReady:   ignored(late),
		EvExited:     end(Stopping, ActDied),
		EvPromoted:   ignored("it has the traffic"),
		EvNotSteered: ignored(late),
		EvSuperseded: to(Draining, ActWatch),
		EvRecalled:   ignored("it has the traffic"),
		EvQuiet:      ignored(late),
		EvStop:       end(Stopping),
		EvAbort:      ignored(serving),
		EvDeadline:   ignored(late),
		EvKill:       kill(Killed),
		EvGone:       ignored(noMain),
	},
	Draining: {
		EvReady:      ignored(late),
		EvNotReady:   ignored(late),
		EvExited:     end(Stopping),
		EvPromoted:   ignored(late),
		EvNotSteered: ignored(late),
		EvSuperseded: ignored("it drains already"),
		EvRecalled:   to(Active, ActActive),
		EvQuiet:      end(Stopping),
		EvStop:       end(Stopping),
		EvAbort:      ignored(already),
		EvDeadline:   ignored(late),
		EvKill:       kill(Killed),
		EvGone:       ignored(noMain),
	},
	Stopping: {
		EvReady:      ignored(late),
		EvNotReady:   ignored(late),
		EvExited:     ignored(inGroup),
		EvPromoted:   ignored(late),
		EvNotSteered: ignored(late),
		EvSuperseded: ignored(already),
		EvRecalled:   ignored(already),
		EvQuiet:      ignored(late),
		EvStop:       ignored(already),
		EvAbort:      ignored(already),
		EvDeadline:   kill(Killed),
		EvKill:       kill(Killed),
		EvGone:       to(Exited, ActRelease),
	},
	Failed: {
		EvReady:      ignored(late),
		EvNotReady:   ignored(late),
		EvExited:     ignored(inGroup),
		EvPromoted:   ignored(late),
		EvNotSteered: ignored(late),
		EvSuperseded: ignored(already),
		EvRecalled:   ignored(already),
		EvQuiet:      ignored(late),
		EvStop:       ignored(already),
		EvAbort:      ignored(already),
		EvDeadline:   kill(Killed),
		EvKill:       kill(Killed),
		EvGone:       to(Exited, ActRelease),
	},
	Killed: {
		EvReady:      ignored(late),
		EvNotReady:   ignored(late),
		EvExited:     ignored(inGroup),
		EvPromoted:   ignored(late),
		EvNotSteered: ignored(late),
		EvSuperseded: ignored(already),
		EvRecalled:   ignored(already),
		EvQuiet:      ignored(late),
		EvStop:       ignored(already),
		EvAbort:      ignored(already),
		EvDeadline:   kill(Killed), // what forked meanwhile
		EvKill:       kill(Killed),
		EvGone:       to(Exited, ActRelease),
	},
	Exited: {
		EvReady:      ignored(over),
		EvNotReady:   ignored(over),
		EvExited:     ignored(over),
		EvPromoted:   ignored(over),
		EvNotSteered: ignored(over),
		EvSuperseded: ignored(over),
		EvRecalled:   ignored(over),
		EvQuiet:      ignored(over),
		EvStop:       ignored(over),
		EvAbort:      ignored(over),
		EvDeadline:   ignored(over),
		EvKill:       ignored(over),
		EvGone:       ignored(over),
	},
}

// next is the machine: pure, total, no clock, no I/O. An event that is ignored keeps the state and asks for nothing.
func next(s State, e Event) (State, []Action) {
	c := table[s][e]
	if c.to == "" {
		return s, nil
	}
	return c.to, c.do
}
