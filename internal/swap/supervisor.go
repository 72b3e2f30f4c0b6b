package swap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
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

	Canary         []Step        // of a candidate, before it has all of the traffic
	Bake           time.Duration // after that it can be taken back for so long
	HealthFailures int           // health checks that have to fail in a row
	ExitUnhealthy  bool          // an unhealthy active generation ends the container, instead of being replaced by the same bytes
	Watchdog       time.Duration // a generation with traffic has to send WATCHDOG=1 this often; 0: only if it asks for it

	Workers int  // of each generation; 0 is 1
	Rolling bool // a new generation takes the place of the old one worker by worker

	Restart            RestartPolicy
	RestartDelay       time.Duration // doubled after each crash
	RestartMaxDelay    time.Duration
	StartLimitBurst    int // starts in StartLimitInterval; one more is fatal
	StartLimitInterval time.Duration
	AutoRollback       bool // instead of a fatal end, bytes that were swapped in give way to those before them
	Keep               int  // the bytes of so many programs are kept, the active one's included
	WaitOnFatal        bool // a fatal end of the app keeps the container, waiting for a reload
	Stay               bool // any end of the app does: it is not the one that the container lives for

	Hooks Hooks // what is done at the moments of a life; nil: nothing

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

// Traffic is a worker's share of the held sockets; *handoff.Lease is one. If it also has LoadAll, as that has, its generation is counted
// by that.
type Traffic interface {
	Load() (handoff.Load, error)
	Release()
}

// Program is a command that passed its checks and can be started, any number of times, with the same bytes.
type Program interface {
	Command() []string
	Path() string
	Hash(ctx context.Context) (string, error) // SHA-256 in hexadecimal; may read the whole file
	Facts() Artifact
	// Intact says why the bytes that were checked cannot be started any more; nil: they can.
	Intact() error
	Close() error
}

// Instance is one started worker of a generation, and what the supervisor may ask of it.
type Instance struct {
	Process Process
	Traffic Traffic // nil: nothing is held for it
	Address string  // where it listens, behind a proxy
	// Ready blocks until readiness is shown (nil), or ctx ends or it cannot be shown (why).
	Ready func(ctx context.Context) error
	// Smoke tries a generation that is ready: nil, or why it must not be promoted. It ends soon after ctx. nil: nothing is tried.
	Smoke func(ctx context.Context) error
	// Health checks it again and again until ctx ends, and reports each failed round and the first good one after it. nil: it is not checked.
	Health func(ctx context.Context, report func(probe.Health))
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
	// Adopt does the same for an upload that is to run as that command line. path is the app's own file, free of symbolic links.
	Adopt(ctx context.Context, command []string, u *Upload) (p Program, path string, err error)
	// Start starts a worker of a generation of a program.
	Start(ctx context.Context, at handoff.Seat, p Program) (*Instance, error)
	// Steer gives all new connections to all workers of generation gen, evenly, and ends any share. It must be quick: the owner waits for it.
	Steer(gen int) error
	// Spread gives what no share takes to these workers, evenly. In a roll they are of two generations, of which active is the one that counts.
	Spread(active int, workers []handoff.Seat) error
	// Split gives a candidate a share of the new connections, and the active generation the rest, until Steer. It must be quick.
	Split(active, candidate int, share handoff.Share) error
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
	pending []syscall.Signal  // for a first process that is not there yet
	prog    *program          // of the active generation; what a restart starts
	older   []*program        // what was active before, the newest first
	drains  map[int][]*waiter // who waits for the end of a generation
	next    *program          // of the candidate
	summed  []*program        // held until their hash is known, for the line that sums a swap up
	backoff *time.Timer
	// switches counts what was done to the traffic: a switch back that is to be tried again may be out of date by then.
	switches int
	told     string // the state of the whole that was last published
	news     feed
	ended    bool

	hooks    []*hookRun // that wait for their turn
	hooking  *hookRun   // has it; nil: none
	deciding *hookRun   // what the swap under way waits for
	exit     *hookRun   // the last one, once it was begun
	parting  bool       // that is over
	hurry    bool       // no time is left for it
}

// live holds the handles of a generation that has processes.
type live struct {
	crew     []*worker // by number; as many as the record has members
	prog     *program
	ctx      context.Context
	cancel   context.CancelFunc // of everything that was started for it
	counting context.CancelFunc // ends the count of its connections; nil: they were not counted yet
	step     *time.Timer        // of a canary, or of a bake
	steps    int                // how many it had: a timer that was replaced is too late
	deadline *time.Timer
	armed    int // how often: a timer that was replaced is too late
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
		live:  map[int]*live{}, drains: map[int][]*waiter{},
		st: state{Mode: modeIdle, Next: 1, Command: o.Command, StartedAt: time.Now(), Workers: min(max(1, o.Workers), handoff.MaxWorkers)},
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
		s.nextHook()
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
	s.news.end()
	s.farewell()
	s.wg.Wait()
	return s.st.Final
}

// causeStart is the cause of the first start.
const causeStart = "start"

// noCommand is what a container without an app waits for.
const noCommand = "no command yet: holding the sockets until one is given with `run`"

// boot starts the first generation, or waits for one.
func (s *Supervisor) boot() {
	if len(s.opt.Command) == 0 {
		s.setMode(modeWaiting, noCommand)
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
	for _, list := range s.drains {
		for _, w := range list {
			w.finish(r)
		}
	}
	for _, c := range s.stops {
		c <- Result{Code: CodeDone, Text: "stopped: " + s.st.Final.String()}
	}
	s.waiters, s.queued, s.stops = nil, nil, nil
	s.drop(s.prog)
	s.drop(s.next)
	for _, p := range append(s.older, s.summed...) {
		s.drop(p)
	}
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

// Signal forwards sig to the active generation (the groups of its workers, or their main processes with Options.Group off). With no active
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
	case l != nil:
		return s.signalCrew(l, sig)
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
		case s.gen(s.st.Active).allSick():
			err = fmt.Errorf("generation %d is unhealthy: %s", s.st.Active, s.gen(s.st.Active).Unhealthy)
		}
	}); e != nil {
		return e
	}
	return err
}
