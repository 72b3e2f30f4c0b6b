package swap

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/handoff/transparent"
	"github.com/hotswap-init/entrypoint/internal/artifact"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/reaper"
)

// App starts generations for real: it is the Launcher of an init. All fields are set before use and not changed.
type App struct {
	Reaper    *reaper.Reaper
	Sockets   *handoff.Set // may hold nothing, never nil
	Protocols handoff.Protocols
	Checks    []probe.Check // what shows readiness
	// Environ gives the environment of the next start, and the words of it that may hold {port}, {fd} and the like.
	Environ    func() (env, expand []string, err error)
	Dir        string // working directory; a symbolic link is followed at each start. "": ours
	Credential *reaper.Credential
	Umask      int // -1: ours
	NoNewPrivs bool
	// ParentDeath is sent to the app when the init is gone, where the kernel does not end everything by itself.
	ParentDeath syscall.Signal
	// TTY is the terminal whose foreground group the active generation is; -1: none, and each generation gets a session.
	TTY int
	// Stdout and Stderr take what a generation after the first one writes. nil: they write to ours directly, and the
	// answer to a refused swap has no output in it.
	Stdout, Stderr io.Writer
	// Stopped is called each time that the terminal stopped the app; nil where nobody above us would want to know.
	Stopped func()
	// Interception says whether what the programs bind is watched and held (package transparent). Sockets must be open
	// with Learn then.
	Interception Interception
	// Alone tells whether generations never overlap: then whoever answers on this machine is the one. nil: they do.
	Alone func() bool
	// Logf gets what concerns one generation's calls; nil drops it.
	Logf func(format string, args ...any)
	// Helper is the executable of this init, for probes that run in a process of their own.
	Helper string

	mu         sync.Mutex
	first      bool // the first generation was started
	processes  map[int]*reaper.Process
	foreground *reaper.Process // what has the terminal
	filters    map[*transparent.Filter]struct{}
	serving    sync.WaitGroup // of the filters
	closed     bool
	command    []string         // of the generation that was steered to last
	commands   map[int][]string // of all that have a process
}

// checkedProgram is a Program of a file.
type checkedProgram struct {
	*artifact.Artifact
	command []string
	dir     string
}

func (p *checkedProgram) Command() []string { return p.command }

// Check finds the program of a command line as execvp would and looks at it without running it.
func (a *App) Check(_ context.Context, command []string) (Program, error) {
	env, _, err := a.Environ()
	if err != nil {
		return nil, err
	}
	dir, err := a.workdir()
	if err != nil {
		return nil, err
	}
	file, err := artifact.Open(command[0], dir, lookup(env, "PATH"))
	if err != nil {
		return nil, err
	}
	return &checkedProgram{Artifact: file, command: slices.Clone(command), dir: dir}, nil
}

// workdir is Dir with its links followed now: a release directory may be a link that is flipped.
func (a *App) workdir() (string, error) {
	if a.Dir == "" {
		return "", nil
	}
	dir, err := filepath.EvalSymlinks(a.Dir)
	if err != nil {
		return "", fmt.Errorf("cannot use the working directory %q: %w", a.Dir, err)
	}
	return dir, nil
}

func lookup(env []string, key string) string {
	for _, kv := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

// Start leases the sockets, opens the ways to hear from the app, and forks it.
func (a *App) Start(ctx context.Context, gen int, p Program) (*Instance, error) {
	lease, err := a.Sockets.Lease(gen)
	if err != nil {
		return nil, fmt.Errorf("cannot hand it the sockets: %w", err)
	}
	c := &child{app: a, gen: gen, lease: lease, program: p.(*checkedProgram), notified: make(chan struct{}), messages: make(chan handoff.Message, 64)}
	if err := c.start(ctx); err != nil {
		c.closeAll()
		lease.Release()
		return nil, err
	}
	return &Instance{
		Process: c.tree(), Traffic: c.traffic(), Ready: c.ready, Messages: c.messages,
		Output: c.output.tail, Close: c.closeAll,
	}, nil
}

// Steer gives all new connections, and the terminal, to a generation.
func (a *App) Steer(gen int) error {
	if err := a.Sockets.Steer(gen); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.command = a.commands[gen]
	if p := a.processes[gen]; a.TTY >= 0 && p != nil {
		setForeground(a.TTY, p.PID())
		a.foreground = p
	}
	return nil
}

// NotHeld lists what the programs bound by themselves.
func (a *App) NotHeld() []handoff.Native { return a.Sockets.Natives() }

// Held describes the held sockets.
func (a *App) Held() []handoff.SocketStatus { return a.Sockets.Status() }

// Reaped counts collected processes.
func (a *App) Reaped() reaper.Stats { return a.Reaper.Stats() }

// child is one generation being started, and then what belongs to it beside its process.
type child struct {
	app      *App
	gen      int
	lease    *handoff.Lease
	program  *checkedProgram
	notify   *handoff.Notify
	process  *reaper.Process
	output   *output
	cancel   context.CancelFunc
	env      []string // without what is for this generation alone; for helpers
	once     sync.Once
	notified chan struct{}
	messages chan handoff.Message
	mu       sync.Mutex
	pid      int
	listen   sync.WaitGroup

	began    time.Time
	filter   *transparent.Filter // nil: not watched
	blind    error               // why not
	vanished chan struct{}       // closed when nothing of its tree is left; nil: not watched
}

func (c *child) start(ctx context.Context) error {
	env, expand, err := c.app.Environ()
	if err != nil {
		return err
	}
	for _, kv := range expand {
		env = append(env, c.lease.Expand(kv, c.gen, 0))
	}
	c.env = env
	if c.notify, err = handoff.NewNotify(c.gen, c.protocols(), c.belongs, c.deliver); err != nil {
		return fmt.Errorf("cannot open its notify socket: %w", err)
	}
	c.allowUser()
	if c.output, err = c.app.newOutput(); err != nil {
		return err
	}
	if err := c.fork(); err != nil {
		return err
	}
	nctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	c.listen.Go(func() {
		_ = c.notify.Run(nctx)
		close(c.messages)
	})
	return nil
}

// protocols leaves out those that cost a descriptor of the app where it gets no socket that they would tell it of.
func (c *child) protocols() handoff.Protocols {
	if len(c.lease.Files()) == 0 {
		return c.app.Protocols &^ (handoff.Einhorn | handoff.Crank | handoff.ServerStarter)
	}
	return c.app.Protocols
}

func (c *child) allowUser() {
	if cr := c.app.Credential; cr != nil {
		c.notify.AllowUID(cr.UID)
	}
}

func (c *child) fork() error {
	a := c.app
	spec := a.spec(c.program, c.env)
	h := c.lease.Handover(c.protocols(), c.notify, c.gen, 0)
	spec.Env = append(slices.Clip(spec.Env), h.Env...)
	spec.PIDVars = h.PIDVars
	spec.Files = append(c.output.files(), h.FDs...)
	for i, w := range spec.Args {
		spec.Args[i] = c.lease.Expand(w, c.gen, 0)
	}
	if a.TTY >= 0 {
		spec.Session, spec.TTY, spec.Foreground = false, a.TTY, a.terminalFree()
	}
	c.began = time.Now()
	p, err := c.forkIntercepted(spec)
	if err != nil {
		return err
	}
	c.serve()
	c.output.started()
	c.setPID(p.PID())
	c.process = p
	a.register(c.gen, p, c.program.command, spec.Foreground)
	return nil
}

// terminalFree tells whether no generation has the terminal, so that the one being started shall.
func (a *App) terminalFree() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.foreground == nil || ended(a.foreground)
}

func (a *App) register(gen int, p *reaper.Process, command []string, foreground bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.processes == nil {
		a.processes, a.commands = map[int]*reaper.Process{}, map[int][]string{}
	}
	a.first = true
	a.processes[gen], a.commands[gen] = p, command
	if foreground {
		a.foreground = p
	}
	a.watchStops(p)
}

func ended(p *reaper.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// spec is what every process of the app, and every command run for it, has in common.
func (a *App) spec(p *checkedProgram, env []string) reaper.Spec {
	s := reaper.Spec{
		Path: p.Path(), Args: slices.Clone(p.command), Env: env, Dir: p.dir,
		Session: true, Credential: a.Credential, Umask: a.Umask, NoNewPrivs: a.NoNewPrivs,
		ParentDeathSignal: a.ParentDeath,
	}
	if !p.Script() && !p.Same() {
		s.FD = p.FD() // the file was replaced since it was checked: these are the bytes that were
	}
	return s
}

// tree is the process as the supervisor sees it.
func (c *child) tree() Process {
	if c.vanished == nil {
		return c.process
	}
	return tree{c.process, c.vanished}
}

func (c *child) traffic() Traffic {
	if len(c.lease.Files()) == 0 && c.filter == nil {
		return releaseOnly{c.lease}
	}
	return c.lease
}

// releaseOnly is the traffic of a generation that holds nothing: there is nothing to wait for.
type releaseOnly struct{ l *handoff.Lease }

func (r releaseOnly) Load() (handoff.Load, error) { return handoff.Load{Known: true}, nil }
func (r releaseOnly) Release()                    { r.l.Release() }

func (c *child) setPID(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pid
}

// belongs tells whether a process is one of this generation's.
func (c *child) belongs(pid int) bool {
	c.mu.Lock()
	root := c.pid
	c.mu.Unlock()
	return root != 0 && inTree(pid, root)
}

func (c *child) deliver(m handoff.Message) {
	if m.Ready {
		c.once.Do(func() { close(c.notified) })
	}
	select {
	case c.messages <- m:
	default: // a flood: readiness is not lost, the newest words of a status may be
	}
}

// closeAll frees everything but process and lease.
func (c *child) closeAll() {
	if c.cancel != nil {
		c.cancel()
	}
	if c.notify != nil {
		_ = c.notify.Close()
	}
	c.listen.Wait()
	if c.cancel == nil {
		close(c.messages)
	}
	if c.output != nil {
		c.output.close()
	}
	c.app.mu.Lock()
	defer c.app.mu.Unlock()
	delete(c.app.processes, c.gen)
	delete(c.app.commands, c.gen)
}

// devNull is what a helper reads.
func devNull() (*os.File, error) { return os.OpenFile(os.DevNull, os.O_RDWR, 0) }
