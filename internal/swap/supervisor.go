package swap

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/reaper"
)

// Options says what to run and how patient to be. Durations are used as they are: zero means at once.
type Options struct {
	Command  []string // what to run; empty: hold the sockets and wait for a Run request
	Launcher Launcher // how to check, start and steer
	Log      *slog.Logger
	// Mode says how generations follow each other. It is asked at each swap and each status, must not block, and may change its
	// mind when an app turns out to be of another kind than thought. nil: they overlap.
	Mode    func() Mode
	Version string // of the init, for status

	StartTimeout    time.Duration // from the start of a candidate until it has to be ready
	DrainQuiet      time.Duration // at most so long without a signal for connections to finish
	DrainTimeout    time.Duration // from the stop signal until KILL
	StopSignal      syscall.Signal
	MaxDraining     int           // generations that may drain at once; one more kills the oldest
	ShutdownDelay   time.Duration // after a stop request keep serving so long
	ShutdownTimeout time.Duration // then one deadline for all generations
	Group           bool          // signals go to the whole process group of a generation

	Restart            RestartPolicy
	RestartDelay       time.Duration // doubled after each crash
	RestartMaxDelay    time.Duration
	StartLimitBurst    int // starts in StartLimitInterval; one more is fatal
	StartLimitInterval time.Duration
	WaitOnFatal        bool // a fatal end of the app keeps the container, waiting for a reload

	// Commanded is told of a command line that a Run made current. It is called on a goroutine of its own. May be nil.
	Commanded func(command []string)
	// Changed is told of every change of the state of the whole ("serving", "swapping", "stopping", ...) from the owner
	// goroutine; it must not block. May be nil.
	Changed func(state string)
}

// Mode is how generations follow each other.
type Mode struct {
	Name       string // of ENTRYPOINT_HANDOFF, for status
	Why        string // this one, for status
	Sequential bool   // the old generation is stopped before the new one starts
}

func (s *Supervisor) mode() Mode {
	if s.opt.Mode == nil {
		return Mode{}
	}
	return s.opt.Mode()
}

// RestartPolicy says what the end of the active generation means.
type RestartPolicy string

// The restart policies.
const (
	RestartNo        RestartPolicy = "no"
	RestartOnFailure RestartPolicy = "on-failure"
	RestartAlways    RestartPolicy = "always"
)

// Process is a started app process; *reaper.Process is one.
type Process interface {
	PID() int
	Done() <-chan struct{}
	Status() reaper.Status
	Signal(syscall.Signal) error
	SignalGroup(syscall.Signal) error
	GroupAlive() bool
}

// Traffic is a generation's share of the held sockets; *handoff.Lease is one.
type Traffic interface {
	Load() (handoff.Load, error)
	Release()
}

// Program is a command that passed its checks and can be started, any number of times, with the same bytes.
type Program interface {
	Command() []string
	Path() string
	Hash(ctx context.Context) (string, error) // SHA-256 in hexadecimal; may read the whole file
	Close() error
}

// Instance is one started generation, and what the supervisor may ask of it.
type Instance struct {
	Process Process
	Traffic Traffic // nil: nothing is held for it
	// Ready blocks until readiness is shown (nil), or ctx ends or it cannot be shown (why).
	Ready func(ctx context.Context) error
	// Messages are what the app says of itself; closed when no more can come. May be nil.
	Messages <-chan handoff.Message
	// Output waits a moment for the last lines and gives the tail of what it wrote. May be nil.
	Output func() string
	// Close frees what belongs to the instance beside process and traffic. Called once, after the last process is gone.
	Close func()
}

// Launcher does to the world what the supervisor decides. Check and Start may block and are called from goroutines.
type Launcher interface {
	// Check looks at a command line without touching anything that runs. The error is a sentence; ExitCode of it, if it has that method, is 126 or 127.
	Check(ctx context.Context, command []string) (Program, error)
	// Start starts generation gen of a program.
	Start(ctx context.Context, gen int, p Program) (*Instance, error)
	// Steer gives all new connections to generation gen. It must be quick: the owner waits for it.
	Steer(gen int) error
	// Held describes the held sockets.
	Held() []handoff.SocketStatus
	// NotHeld lists what programs have bound by themselves.
	NotHeld() []handoff.Native
	// Reaped counts collected processes.
	Reaped() reaper.Stats
}

// Supervisor owns the generations. Make one with New, then call Run once; the other methods may be called from any goroutine.
type Supervisor struct {
	opt   Options
	log   *slog.Logger
	calls chan func()
	done  chan struct{}
	wg    sync.WaitGroup
	ctx   context.Context // ends when Run ends

	st      state
	live    map[int]*live
	waiters []*waiter // of the swap under way
	queued  []*waiter // of the remembered one
	stops   []chan Result
	pending []syscall.Signal // for a first process that is not there yet
	prog    *program         // of the active generation; what a restart starts
	next    *program         // of the candidate
	backoff *time.Timer
	ended   bool
}

// live holds the handles of a generation that has processes.
type live struct {
	inst     *Instance // nil until it is started
	prog     *program
	ctx      context.Context
	cancel   context.CancelFunc // of everything that was started for it
	notReady context.CancelCauseFunc
	start    *time.Timer // START_TIMEOUT
	deadline *time.Timer
	armed    int  // how often: a timer that was replaced is too late
	gone     bool // watchGone runs
	unsent   []syscall.Signal
}

// New makes a supervisor. Nothing runs until Run.
func New(o Options) *Supervisor {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Supervisor{
		opt: o, log: o.Log,
		calls: make(chan func()),
		done:  make(chan struct{}),
		live:  map[int]*live{},
		st:    state{Mode: modeIdle, Next: 1, Command: o.Command, StartedAt: time.Now()},
	}
}

// ErrEnded is returned by every method once Run has returned.
var ErrEnded = errors.New("the init is ending")

// Run starts the first generation and blocks until the app, or a stop, has ended everything: no process of any generation
// is left then. It returns how the container ends. When ctx ends, everything is stopped as by Stop.
func (s *Supervisor) Run(ctx context.Context) Ending {
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s.boot()
	stop := ctx.Done()
	for !s.ended {
		select {
		case f := <-s.calls:
			f()
		case <-stop:
			stop = nil
			s.stop("cancelled", false)
		}
	}
	close(s.done)
	cancel()
	s.farewell()
	s.wg.Wait()
	return s.st.Final
}

// causeStart is the cause of the first start.
const causeStart = "start"

// boot starts the first generation, or waits for one.
func (s *Supervisor) boot() {
	if len(s.opt.Command) == 0 {
		s.setMode(modeWaiting, "no command yet: holding the sockets until one is given with `run`")
		return
	}
	s.begin(Request{Kind: Reload, Cause: causeStart}, nil)
}

// farewell answers whoever still waits and closes what is still open.
func (s *Supervisor) farewell() {
	r := Result{Code: CodeRejected, Phase: "stop", Text: "the container is ending"}
	for _, w := range append(s.waiters, s.queued...) {
		w.finish(r)
	}
	for _, c := range s.stops {
		c <- Result{Code: CodeDone, Text: "stopped: " + s.st.Final.String()}
	}
	s.waiters, s.queued, s.stops = nil, nil, nil
	s.drop(s.prog)
	s.drop(s.next)
	if s.backoff != nil {
		s.backoff.Stop()
	}
}

// post runs f on the owner goroutine, and reports whether it will: not once Run is over.
func (s *Supervisor) post(f func()) bool {
	select {
	case s.calls <- f:
		return true
	case <-s.done:
		return false
	}
}

// ask runs f on the owner goroutine and waits for it.
func (s *Supervisor) ask(ctx context.Context, f func()) error {
	ran := make(chan struct{})
	select {
	case s.calls <- func() { f(); close(ran) }:
		<-ran
		return nil
	case <-s.done:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// spawn runs f on a goroutine that Run waits for.
func (s *Supervisor) spawn(f func()) {
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		f()
	}()
}

// Signal forwards sig to the active generation (its group, or its main process with Options.Group off). With no active
// generation it goes to the one being started; a signal that comes before that one has a process is kept for it.
func (s *Supervisor) Signal(ctx context.Context, sig syscall.Signal) error {
	var err error
	if e := s.ask(ctx, func() { err = s.forward(sig) }); e != nil {
		return e
	}
	return err
}

// errNobody says that there is no generation to take a signal.
var errNobody = errors.New("no generation is running")

func (s *Supervisor) forward(sig syscall.Signal) error {
	n := s.st.Active
	if n == 0 {
		n = s.st.Candidate
	}
	l := s.live[n]
	switch {
	case l != nil && l.inst == nil:
		l.unsent = append(l.unsent, sig)
		return nil
	case l != nil:
		return s.send(l.inst.Process, sig)
	case s.st.Swap != nil && len(s.pending) < 64: // being checked: no process yet
		s.pending = append(s.pending, sig)
		return nil
	}
	return errNobody
}

func (s *Supervisor) send(p Process, sig syscall.Signal) error {
	if s.opt.Group {
		return p.SignalGroup(sig)
	}
	return p.Signal(sig)
}

// Health says whether an active generation serves: nil, or why not.
func (s *Supervisor) Health(ctx context.Context) error {
	var err error
	if e := s.ask(ctx, func() {
		switch {
		case s.st.Mode == modeStopping:
			err = errors.New("stopping")
		case s.st.Active == 0:
			err = errors.New("no generation is active: " + s.stateName())
		}
	}); e != nil {
		return e
	}
	return err
}
