package swap

import "fmt"

// State is where a generation stands.
type State string

// The states of a generation. Ready is in its smoke tests; canary has a share of the traffic, and baking all of it, while the
// active generation can take it back at any moment; draining is told nothing yet; stopping has its stop signal; failed is
// a refused candidate that is being ended; killed has been sent KILL; exited has no process left. A candidate that is
// taken out of canary or baking drains first, as an old generation does: clients talk to it.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Canary   State = "canary"
	Baking   State = "baking"
	Active   State = "active"
	Draining State = "draining"
	Stopping State = "stopping"
	Failed   State = "failed"
	Killed   State = "killed"
	Exited   State = "exited"
)

// States lists every state, in the order of a life.
var States = []State{Starting, Ready, Canary, Baking, Active, Draining, Stopping, Failed, Killed, Exited}

// Event is something that happened to a generation, wherever it came from.
type Event int

// The events. Each means the same whatever its source: a signal, a timer, the control socket, the app.
const (
	EvReady      Event = iota // readiness was shown
	EvNotReady                // START_TIMEOUT passed, or readiness cannot be shown
	EvExited                  // the main process ended
	EvPassed                  // the smoke tests passed
	EvShared                  // a share of the new connections goes to it now
	EvBaking                  // all of them do, and its predecessor is kept warm
	EvStep                    // the time of a step is over, or somebody promotes it
	EvUnhealthy               // a smoke test failed, or its health checks did, or its watchdog was not fed
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
	"ready", "not ready", "exited", "passed", "shared", "baking", "step", "unhealthy", "promoted", "not steered", "superseded", "recalled",
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
	ActSmoke   Action = iota // run the smoke tests, then report EvPassed or EvUnhealthy
	ActAdvance               // give it more of the traffic, then report EvShared, EvBaking, EvPromoted or EvNotSteered
	ActStep                  // it has more of the traffic: time the step, watch its health
	ActBack                  // all new connections go to the active generation again, before anything else
	ActUnwell                // the active one is unhealthy: replace it, or end
	ActActive                // it is active: supersede the others, answer the caller
	ActReject                // it is refused: answer the caller
	ActDied                  // the active one ended by itself: let the restart policy decide
	ActWatch                 // watch its connections until they are gone or idle
	ActSignal                // stop signal to the group
	ActArm                   // arm the deadline
	ActKill                  // KILL to the group
	ActRelease               // give back its slots and descriptors, forget its handles
)

// do is what a cell asks for.
type do = []Action

// cell is one entry of the table: the next state and what to do. A cell that leaves the state and does nothing says
// in note why the event is ignored there, or why it cannot happen. The cells are literals, so that the table is data, not code that fills it at each start.
type cell struct {
	to   State
	do   []Action
	note string
}

const (
	late    = "late: the state was left meanwhile"
	already = "already on its way out"
	notYet  = "cannot happen before it is active"
	never   = "cannot happen: only a ready candidate is being promoted"
	smoking = "it is in its smoke tests"
	serving = "it has the traffic: an abort concerns candidates"
	over    = "it has ended"
	inGroup = "what is left of the group has its signal; the deadline decides"
	noMain  = "the main process is still there"
)

// table is the whole machine: every state, every event.
var table = map[State]*[numEvents]cell{
	Starting: {
		EvReady:      {to: Ready, do: do{ActSmoke}},
		EvNotReady:   {to: Failed, do: do{ActReject, ActSignal, ActArm}},
		EvExited:     {to: Failed, do: do{ActReject, ActSignal, ActArm}},
		EvPassed:     {note: never},
		EvShared:     {note: never},
		EvBaking:     {note: never},
		EvStep:       {note: notYet},
		EvUnhealthy:  {note: notYet},
		EvPromoted:   {note: never},
		EvNotSteered: {note: never},
		EvSuperseded: {note: notYet},
		EvRecalled:   {note: notYet},
		EvQuiet:      {note: notYet},
		EvStop:       {to: Stopping, do: do{ActSignal, ActArm}},
		EvAbort:      {to: Failed, do: do{ActReject, ActSignal, ActArm}},
		EvDeadline:   {note: late},
		EvKill:       {to: Killed, do: do{ActKill, ActArm}},
		EvGone:       {note: noMain},
	},
	Ready: {
		EvReady:      {note: "said twice"},
		EvNotReady:   {note: late},
		EvExited:     {to: Failed, do: do{ActReject, ActSignal, ActArm}},
		EvPassed:     {to: Ready, do: do{ActAdvance}},
		EvShared:     {to: Canary, do: do{ActStep}},
		EvBaking:     {to: Baking, do: do{ActStep}},
		EvStep:       {note: smoking},
		EvUnhealthy:  {to: Failed, do: do{ActReject, ActSignal, ActArm}},
		EvPromoted:   {to: Active, do: do{ActActive}},
		EvNotSteered: {to: Failed, do: do{ActReject, ActSignal, ActArm}},
		EvSuperseded: {note: notYet},
		EvRecalled:   {note: notYet},
		EvQuiet:      {note: notYet},
		EvStop:       {to: Stopping, do: do{ActSignal, ActArm}},
		EvAbort:      {to: Failed, do: do{ActReject, ActSignal, ActArm}},
		EvDeadline:   {note: late},
		EvKill:       {to: Killed, do: do{ActKill, ActArm}},
		EvGone:       {note: noMain},
	},
	Canary: {
		EvReady:      {note: "said twice"},
		EvNotReady:   {note: late},
		EvExited:     {to: Failed, do: do{ActBack, ActReject, ActSignal, ActArm}},
		EvPassed:     {note: late},
		EvShared:     {to: Canary, do: do{ActStep}},
		EvBaking:     {to: Baking, do: do{ActStep}},
		EvStep:       {to: Canary, do: do{ActAdvance}},
		EvUnhealthy:  {to: Draining, do: do{ActBack, ActReject, ActWatch}},
		EvPromoted:   {to: Active, do: do{ActActive}},
		EvNotSteered: {to: Draining, do: do{ActBack, ActReject, ActWatch}},
		EvSuperseded: {note: notYet},
		EvRecalled:   {note: notYet},
		EvQuiet:      {note: notYet},
		EvStop:       {to: Stopping, do: do{ActBack, ActSignal, ActArm}},
		EvAbort:      {to: Draining, do: do{ActBack, ActReject, ActWatch}},
		EvDeadline:   {note: late},
		EvKill:       {to: Killed, do: do{ActBack, ActKill, ActArm}},
		EvGone:       {note: noMain},
	},
	Baking: {
		EvReady:      {note: "said twice"},
		EvNotReady:   {note: late},
		EvExited:     {to: Failed, do: do{ActBack, ActReject, ActSignal, ActArm}},
		EvPassed:     {note: late},
		EvShared:     {note: "it has all of it"},
		EvBaking:     {note: "it bakes already"},
		EvStep:       {to: Baking, do: do{ActAdvance}},
		EvUnhealthy:  {to: Draining, do: do{ActBack, ActReject, ActWatch}},
		EvPromoted:   {to: Active, do: do{ActActive}},
		EvNotSteered: {to: Draining, do: do{ActBack, ActReject, ActWatch}},
		EvSuperseded: {note: notYet},
		EvRecalled:   {note: notYet},
		EvQuiet:      {note: notYet},
		EvStop:       {to: Stopping, do: do{ActBack, ActSignal, ActArm}},
		EvAbort:      {to: Draining, do: do{ActBack, ActReject, ActWatch}},
		EvDeadline:   {note: late},
		EvKill:       {to: Killed, do: do{ActBack, ActKill, ActArm}},
		EvGone:       {note: noMain},
	},
	Active: {
		EvReady:      {note: "after a reload of its own"},
		EvNotReady:   {note: late},
		EvExited:     {to: Stopping, do: do{ActDied, ActSignal, ActArm}},
		EvPassed:     {note: late},
		EvShared:     {note: "it has the traffic"},
		EvBaking:     {note: "it has the traffic"},
		EvStep:       {note: "it has the traffic"},
		EvUnhealthy:  {to: Active, do: do{ActUnwell}},
		EvPromoted:   {note: "it has the traffic"},
		EvNotSteered: {note: late},
		EvSuperseded: {to: Draining, do: do{ActWatch}},
		EvRecalled:   {note: "it has the traffic"},
		EvQuiet:      {note: late},
		EvStop:       {to: Stopping, do: do{ActSignal, ActArm}},
		EvAbort:      {note: serving},
		EvDeadline:   {note: late},
		EvKill:       {to: Killed, do: do{ActKill, ActArm}},
		EvGone:       {note: noMain},
	},
	Draining: {
		EvReady:      {note: late},
		EvNotReady:   {note: late},
		EvExited:     {to: Stopping, do: do{ActSignal, ActArm}},
		EvPassed:     {note: late},
		EvShared:     {note: late},
		EvBaking:     {note: late},
		EvStep:       {note: late},
		EvUnhealthy:  {note: already},
		EvPromoted:   {note: late},
		EvNotSteered: {note: late},
		EvSuperseded: {note: "it drains already"},
		EvRecalled:   {to: Active, do: do{ActActive}},
		EvQuiet:      {to: Stopping, do: do{ActSignal, ActArm}},
		EvStop:       {to: Stopping, do: do{ActSignal, ActArm}},
		EvAbort:      {note: already},
		EvDeadline:   {note: late},
		EvKill:       {to: Killed, do: do{ActKill, ActArm}},
		EvGone:       {note: noMain},
	},
	Stopping: {
		EvReady:      {note: late},
		EvNotReady:   {note: late},
		EvExited:     {note: inGroup},
		EvPassed:     {note: late},
		EvShared:     {note: late},
		EvBaking:     {note: late},
		EvStep:       {note: late},
		EvUnhealthy:  {note: already},
		EvPromoted:   {note: late},
		EvNotSteered: {note: late},
		EvSuperseded: {note: already},
		EvRecalled:   {note: already},
		EvQuiet:      {note: late},
		EvStop:       {note: already},
		EvAbort:      {note: already},
		EvDeadline:   {to: Killed, do: do{ActKill, ActArm}},
		EvKill:       {to: Killed, do: do{ActKill, ActArm}},
		EvGone:       {to: Exited, do: do{ActRelease}},
	},
	Failed: {
		EvReady:      {note: late},
		EvNotReady:   {note: late},
		EvExited:     {note: inGroup},
		EvPassed:     {note: late},
		EvShared:     {note: late},
		EvBaking:     {note: late},
		EvStep:       {note: late},
		EvUnhealthy:  {note: already},
		EvPromoted:   {note: late},
		EvNotSteered: {note: late},
		EvSuperseded: {note: already},
		EvRecalled:   {note: already},
		EvQuiet:      {note: late},
		EvStop:       {note: already},
		EvAbort:      {note: already},
		EvDeadline:   {to: Killed, do: do{ActKill, ActArm}},
		EvKill:       {to: Killed, do: do{ActKill, ActArm}},
		EvGone:       {to: Exited, do: do{ActRelease}},
	},
	Killed: {
		EvReady:      {note: late},
		EvNotReady:   {note: late},
		EvExited:     {note: inGroup},
		EvPassed:     {note: late},
		EvShared:     {note: late},
		EvBaking:     {note: late},
		EvStep:       {note: late},
		EvUnhealthy:  {note: already},
		EvPromoted:   {note: late},
		EvNotSteered: {note: late},
		EvSuperseded: {note: already},
		EvRecalled:   {note: already},
		EvQuiet:      {note: late},
		EvStop:       {note: already},
		EvAbort:      {note: already},
		EvDeadline:   {to: Killed, do: do{ActKill, ActArm}}, // what forked meanwhile
		EvKill:       {to: Killed, do: do{ActKill, ActArm}},
		EvGone:       {to: Exited, do: do{ActRelease}},
	},
	Exited: {
		EvReady:      {note: over},
		EvNotReady:   {note: over},
		EvExited:     {note: over},
		EvPassed:     {note: over},
		EvShared:     {note: over},
		EvBaking:     {note: over},
		EvStep:       {note: over},
		EvUnhealthy:  {note: over},
		EvPromoted:   {note: over},
		EvNotSteered: {note: over},
		EvSuperseded: {note: over},
		EvRecalled:   {note: over},
		EvQuiet:      {note: over},
		EvStop:       {note: over},
		EvAbort:      {note: over},
		EvDeadline:   {note: over},
		EvKill:       {note: over},
		EvGone:       {note: over},
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
