package swap

import (
	"context"
	"errors"
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
	Store     *artifact.Store // makes private copies; nil: programs run from their path, and there are no uploads
	Sockets   *handoff.Set    // may hold nothing, never nil
	Front     Front           // leads clients to the generations, and Sockets holds nothing; nil: Sockets does
	Protocols handoff.Protocols
	Checks    []probe.Check // what shows readiness
	Smoke     []probe.Check // what a ready candidate is tried with, once each
	Health    []probe.Check // what a generation with traffic is asked again and again
	Monitor   probe.MonitorOptions
	Watchdog  time.Duration // told to the program; 0: nothing is
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
	// Words, if not nil, makes where a worker of a generation writes, from the first generation on.
	Words func(gen, worker int) (Words, error)
	// LogDropped counts the lines that Words could not keep; nil: there are none.
	LogDropped func() int64
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
	firstGen   int  // its number
	processes  map[handoff.Seat]*reaper.Process
	foreground *reaper.Process // what has the terminal
	filters    map[*transparent.Filter]struct{}
	serving    sync.WaitGroup // of the filters
	closed     bool
	command    []string         // of the generation that was steered to last
	steered    int              // its number
	expended   int              // the last generation that is killed first where memory ends
	commands   map[int][]string // of all that have a process
}

// checkedProgram is a Program of a file.
type checkedProgram struct {
	*artifact.Artifact
	command []string
	dir     string
	source  string
}

func (p *checkedProgram) Command() []string { return p.command }

// Facts is what status shows.
func (p *checkedProgram) Facts() Artifact {
	i := p.Info()
	return Artifact{
		Source: p.source, Exec: i.Exec, Why: i.Why, Size: i.Size, Modified: i.Modified, Changed: i.Changed, Memory: i.Memory,
		Verified: i.Verified, Comment: i.Comment,
	}
}

// place is where the program of the app is looked for now.
func (a *App) place() (dir, path string, err error) {
	env, _, err := a.Environ()
	if err != nil {
		return "", "", err
	}
	dir, err = a.workdir()
	return dir, lookup(env, "PATH"), err
}

// Check finds the program of a command line as execvp would, looks at it without running it, and copies it where that is the way
// to run it.
func (a *App) Check(ctx context.Context, command []string) (Program, error) {
	dir, path, err := a.place()
	if err != nil {
		return nil, err
	}
	file, err := a.openProgram(ctx, command[0], dir, path)
	if err != nil {
		return nil, err
	}
	return &checkedProgram{Artifact: file, command: slices.Clone(command), dir: dir, source: "file"}, nil
}

func (a *App) openProgram(ctx context.Context, name, dir, path string) (*artifact.Artifact, error) {
	if a.Store == nil {
		return artifact.Open(name, dir, path)
	}
	return a.Store.Open(ctx, name, dir, path)
}

// Adopt makes an upload the program of a command line.
func (a *App) Adopt(ctx context.Context, command []string, u *Upload) (Program, string, error) {
	if a.Store == nil {
		return nil, "", errors.New("cannot take an upload: programs run from their path only")
	}
	dir, path, err := a.place()
	if err != nil {
		return nil, "", err
	}
	name, own := a.ownFile(command, dir, path)
	if u.Path != "" && u.Path != name && realPath(u.Path) != own {
		return nil, "", fmt.Errorf("cannot put %q: the app's program is %q; to run another one, copy it there and use `entrypoint run`", u.Path, name)
	}
	file, err := a.Store.Adopt(ctx, int(u.File.Fd()), name, dir, artifact.Want{SHA256: u.SHA256, Signature: u.Signature})
	if err != nil {
		return nil, "", err
	}
	return &checkedProgram{Artifact: file, command: slices.Clone(command), dir: dir, source: "put by " + u.From}, own, nil
}

// ownFile is the app's program as it was found, or would be if it were there, and the same free of symbolic links.
func (a *App) ownFile(command []string, dir, path string) (name, own string) {
	name = command[0]
	if file, err := artifact.Open(name, dir, path); err == nil {
		name = file.Path()
		file.Close()
	} else if !filepath.IsAbs(name) {
		if dir == "" {
			dir, _ = os.Getwd()
		}
		name = filepath.Join(dir, name)
	}
	return name, realPath(name)
}

// realPath follows the links of a path, whose last part need not exist.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return filepath.Clean(path)
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
func (a *App) Start(ctx context.Context, at handoff.Seat, p Program) (*Instance, error) {
	lease, err := a.Sockets.LeaseWorker(at.Generation, at.Worker)
	if err != nil {
		return nil, fmt.Errorf("cannot hand it the sockets: %w", err)
	}
	c := &child{app: a, gen: at.Generation, worker: at.Worker, lease: lease, program: p.(*checkedProgram), notified: make(chan struct{}), messages: make(chan handoff.Message, 64)}
	if err := c.start(ctx); err != nil {
		c.closeAll()
		c.release()
		return nil, err
	}
	lease.Processes(c.pids)
	i := &Instance{
		Process: c.tree(), Traffic: c.traffic(), Ready: c.ready, Messages: c.messages,
		Output: c.output.tail, Close: c.closeAll,
	}
	if c.ports != nil {
		i.Address = c.ports.Address().String()
	}
	if len(a.Smoke) > 0 {
		i.Smoke = func(ctx context.Context) error { return c.smoke(ctx, a.Smoke) }
	}
	if len(a.Health) > 0 {
		i.Health = func(ctx context.Context, report func(probe.Health)) { c.health(ctx, a.Health, a.Monitor, report) }
	}
	return i, nil
}

// Split gives a candidate a share of the new connections.
func (a *App) Split(active, candidate int, share handoff.Share) error {
	if a.Front != nil {
		return a.Front.Split(active, candidate, share)
	}
	return a.Sockets.Split(active, candidate, share)
}

// Spread divides the new connections among workers.
func (a *App) Spread(active int, workers []handoff.Seat) error {
	if a.Front != nil {
		return a.Front.Spread(active, workers)
	}
	return a.Sockets.Spread(active, workers)
}

// Steer gives all new connections, and the terminal, to a generation; of several workers the first has the terminal.
func (a *App) Steer(gen int) error {
	steer := a.Sockets.Steer
	if a.Front != nil {
		steer = a.Front.Steer
	}
	if err := steer(gen); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.command, a.steered = a.commands[gen], gen
	a.spareLater(gen)
	if p := a.processes[handoff.Seat{Generation: gen}]; a.TTY >= 0 && p != nil {
		setForeground(a.TTY, p.PID())
		a.foreground = p
	}
	return nil
}

// NotHeld lists what the programs bound by themselves.
func (a *App) NotHeld() []handoff.Native { return a.Sockets.Natives() }

// Held describes the held sockets.
func (a *App) Held() []handoff.SocketStatus {
	if a.Front != nil {
		return a.Front.Held()
	}
	return a.Sockets.Status()
}

// DroppedLines counts what was said and could not be kept.
func (a *App) DroppedLines() int64 {
	if a.LogDropped == nil {
		return 0
	}
	return a.LogDropped()
}

// Reaped counts collected processes.
func (a *App) Reaped() reaper.Stats { return a.Reaper.Stats() }

// child is one worker of a generation being started, and then what belongs to it beside its process.
type child struct {
	app      *App
	gen      int
	worker   int
	lease    *handoff.Lease
	ports    Ports // behind a Front; nil: there is none
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
	if err := c.open(); err != nil {
		return err
	}
	for _, kv := range expand {
		env = append(env, c.expand(kv))
	}
	c.env = c.portEnv(env)
	if c.notify, err = handoff.NewNotify(c.gen, c.protocols(), c.belongs, c.deliver); err != nil {
		return fmt.Errorf("cannot open its notify socket: %w", err)
	}
	c.allowUser()
	if c.output, err = c.app.outputFor(c.gen, c.worker); err != nil {
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
	h := c.lease.Handover(c.protocols(), c.notify, c.gen, c.worker)
	spec.Env = append(slices.Clip(spec.Env), h.Env...)
	spec.PIDVars = h.PIDVars
	if a.Watchdog > 0 {
		spec.Env = append(spec.Env, fmt.Sprintf("WATCHDOG_USEC=%d", a.Watchdog.Microseconds()))
		spec.PIDVars = append(slices.Clip(spec.PIDVars), "WATCHDOG_PID")
	}
	spec.Files = append(c.output.files(), h.FDs...)
	for i, w := range spec.Args {
		spec.Args[i] = c.expand(w)
	}
	if a.TTY >= 0 {
		spec.Session, spec.TTY, spec.Foreground = false, a.TTY, a.terminalFree()
	}
	a.expend(&spec, c.gen)
	c.began = time.Now()
	p, err := c.forkIntercepted(spec)
	if err != nil {
		return err
	}
	c.serve()
	c.output.started()
	c.setPID(p.PID())
	c.process = p
	at := handoff.Seat{Generation: c.gen, Worker: c.worker}
	a.register(at, p, c.program.command, &spec)
	return nil
}

// terminalFree tells whether no generation has the terminal, so that the one being started shall.
func (a *App) terminalFree() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.foreground == nil || ended(a.foreground)
}

func (a *App) register(at handoff.Seat, p *reaper.Process, command []string, spec *reaper.Spec) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.processes == nil {
		a.processes, a.commands = map[handoff.Seat]*reaper.Process{}, map[int][]string{}
	}
	if !a.first {
		a.first, a.firstGen = true, at.Generation
	}
	a.processes[at], a.commands[at.Generation] = p, command
	if spec.Foreground {
		a.foreground = p
	}
	if spec.OOMScoreAdj != 0 {
		a.noteExpended(at.Generation)
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
	path, fd := p.Exec()
	return reaper.Spec{
		Path: path, FD: fd, Args: slices.Clone(p.command), Env: env, Dir: p.dir,
		Session: true, Credential: a.Credential, Umask: a.Umask, NoNewPrivs: a.NoNewPrivs,
		ParentDeathSignal: a.ParentDeath,
	}
}

// beside describes a command that runs as the app does, but without its sockets and with nothing to read: a check or a hook. Where
// its output goes is left open (-1). release closes what the description refers to, when the command has ended.
func (a *App) beside(argv []string, dir string, env []string) (spec reaper.Spec, release func(), err error) {
	file, err := artifact.Open(argv[0], dir, lookup(env, "PATH"))
	if err != nil {
		return reaper.Spec{}, nil, err
	}
	null, err := devNull()
	if err != nil {
		file.Close()
		return reaper.Spec{}, nil, err
	}
	spec = a.spec(&checkedProgram{Artifact: file, command: argv, dir: dir}, env)
	spec.Files = []int{rawFD(null), -1, -1}
	return spec, func() { null.Close(); file.Close() }, nil
}

// tree is the process as the supervisor sees it.
func (c *child) tree() Process {
	if c.vanished == nil {
		return c.process
	}
	return tree{c.process, c.vanished}
}

func (c *child) traffic() Traffic {
	if c.ports != nil {
		return fronted{c}
	}
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
	if at := (handoff.Seat{Generation: c.gen, Worker: c.worker}); c.app.processes[at] == c.process {
		delete(c.app.processes, at) // unless the worker was started again meanwhile
	}
	for at := range c.app.processes {
		if at.Generation == c.gen {
			return
		}
	}
	delete(c.app.commands, c.gen)
}

// devNull is what a helper reads.
func devNull() (*os.File, error) { return os.OpenFile(os.DevNull, os.O_RDWR, 0) }
