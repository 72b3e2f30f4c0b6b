package doctor

import "time"

// Cause is why requests were lost, as far as their end tells.
type Cause string

// The causes, the ones that name a remedy of the app first.
const (
	IdleClosed Cause = "idle-closed"
	CutByApp   Cause = "cut-by-app"
	CutByKill  Cause = "cut-by-kill"
	NotTold    Cause = "not-told"
	OwnTimeout Cause = "own-timeout"
	Died       Cause = "died"
	NewFailed  Cause = "new-failed"
	WrongReply Cause = "wrong-answer"
	NoReply    Cause = "no-answer"
	OwnTrouble Cause = "own-trouble"
)

// causes is every cause in the order of a report, with what cures it.
var causes = []struct {
	cause  Cause
	advice string
}{
	{IdleClosed, "the app closes idle connections at once when told to stop: say Connection: close on every answer first, " +
		"and close what is idle a second later, see docs/keepalive.md or package graceful"},
	{CutByApp, "the app ends, or closes connections, while it answers on them: let it finish the requests that it has when told to stop"},
	{CutByKill, "requests were cut at KILL: raise ENTRYPOINT_DRAIN_TIMEOUT or make handlers shorter"},
	{NotTold, "the app went on taking requests until KILL: let it end on the stop signal, which ENTRYPOINT_STOP_SIGNAL names, " +
		"or say Connection: close from then on, see docs/keepalive.md"},
	{OwnTimeout, "the app closed connections that nobody had told it to close: say Connection: close on the last answer of each, or raise its keep-alive timeout " +
		"and its limit of requests on a connection"},
	{Died, "a generation ended by itself: its log says why"},
	{NewFailed, "new connections failed: `entrypoint status` shows whether the address is held, and how it is steered"},
	{WrongReply, "answers were not those from before the load: serve as ever until the clients have gone, also when told to stop"},
	{NoReply, "answers did not come in time: raise --timeout if the app needs longer, or load it with fewer --clients"},
	{OwnTrouble, "the doctor ran out of ports, descriptors or memory: use fewer --clients, or a longer --pause"},
}

// inFlight is how long the app must have had a request for its loss to be a cut one. A request that crosses the closing of
// an idle connection is lost within a round trip.
const inFlight = 20 * time.Millisecond

// causeOf reads the end of a request.
func causeOf(l Loss, p place) Cause {
	switch l.Kind {
	case Local:
		return OwnTrouble
	case Wrong:
		return WrongReply
	case Timeout:
		return NoReply
	}
	cut := l.Begun || !l.HungUp && l.At.Sub(l.Began) > inFlight
	mine := p.owned || l.Class == Kept
	switch {
	case !mine:
		return NewFailed
	case p.deed == Kill && (cut || l.Class == Kept):
		return killed(l, p.life)
	case p.deed == Signal && p.life.Died, p.deed == Replaced && p.life.Died:
		return Died
	case p.deed == Signal && cut:
		return CutByApp
	case p.deed == Signal && l.Class == Kept:
		return IdleClosed
	case l.Class == Kept:
		return OwnTimeout
	}
	return NewFailed
}

// killed tells a request that ran too long from one that should never have been taken: that one was begun in the second half of the
// time that the app had to end.
func killed(l Loss, life Life) Cause {
	if middle := life.Signalled.Add(life.Killed.Sub(life.Signalled) / 2); !life.Signalled.IsZero() && l.Began.After(middle) {
		return NotTold
	}
	return CutByKill
}
