package graceful

// Phase is one step in the life of a Server. They come in the order in which they are declared.
type Phase string

// The phases.
const (
	// PhaseListen takes or binds the socket. Not for Serve and ServeTLS, which are given one.
	PhaseListen Phase = "listen"
	// PhaseReady says READY=1, if it was not said before.
	PhaseReady Phase = "ready"
	// PhaseAnnounce: from here on every answer says Connection: close, or GOAWAY.
	PhaseAnnounce Phase = "announce"
	// PhaseStopAccepting closes the listeners; what was accepted is served.
	PhaseStopAccepting Phase = "stop accepting"
	// PhaseLinger leaves idle connections open, so that their clients can be told.
	PhaseLinger Phase = "linger"
	// PhaseDrain closes idle connections and waits for the others.
	PhaseDrain Phase = "drain"
	// PhaseHammer cuts what is left. Only if the drain was not finished in time.
	PhaseHammer Phase = "hammer"
)

// Hooks are called around each phase, in the goroutine that does the phase, which waits for them: a Before that sleeps puts the
// phase off. The time spent counts for the hammer deadline. Listen and ready are called once for each listener, the
// others once for the Server. Either may be nil.
type Hooks struct {
	Before, After func(Phase)
}

// around does one phase.
func (h Hooks) around(p Phase, do func()) {
	if h.Before != nil {
		h.Before(p)
	}
	do()
	if h.After != nil {
		h.After(p)
	}
}
