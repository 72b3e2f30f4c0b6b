package helper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/reaper"
)

const (
	// firstPause and mostPause bound the wait before a run that ended is replaced. The first replacement of a run that has worked
	// for settled does not wait at all: clients do.
	firstPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
	settled    = 10 * time.Second
	// replaceTimeout is how long Replace waits for the new run to serve.
	replaceTimeout = 10 * time.Second
	// killedGrace is what a run gets that has not kept to the protocol.
	killedGrace = 0
)

// Options describe a helper. They are not changed after New.
type Options struct {
	Reaper *reaper.Reaper
	Path   string             // the executable of this binary, until Replace says otherwise
	Role   string             // argv[0] of a run is "entrypoint:" and this
	Files  []*os.File         // descriptors 4, 5, ... of each run; they stay the caller's
	Env    []string           // the complete environment
	User   *reaper.Credential // nil: ours. Where that user cannot be had, or cannot execute Path, ours is taken, and that is logged
	// ParentDeath is sent to a run when the init is gone, where the kernel does not end everything by itself. 0: nothing is.
	ParentDeath syscall.Signal
	Stderr      int           // a descriptor of ours that is its standard output and error
	Grace       time.Duration // from the end of its Conn until a run that goes on is killed
	MostPause   time.Duration // bounds the wait before a run that ended is replaced; 0: mostPause
	Log         *slog.Logger
	// Serve talks with one run until ctx ends or a Receive says that the run has. It is called on a goroutine of its own, which Run waits
	// for, and must keep receiving: Replace waits for a word that comes that way. After an error the run is killed and replaced.
	Serve func(ctx context.Context, c *Conn) error
}

// Helper keeps one run of a helper alive. Make one with New, then call Run once.
type Helper struct {
	o        Options
	replaces chan replacement
	program  Program // of runs that are started; Run's alone
	done     chan struct{}
	wg       sync.WaitGroup // old runs that finish

	mu       sync.Mutex
	pid      int
	restarts int
	fellBack bool
}

// Program is what runs are made of: the file at Path, or if FD is above 0 that descriptor, which has to stay open.
type Program struct {
	Path string
	FD   int
}

type replacement struct {
	program Program
	answer  chan error
}

// New makes a Helper. Nothing runs until Run.
func New(o Options) *Helper {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("helper", o.Role)
	return &Helper{o: o, replaces: make(chan replacement), program: Program{Path: o.Path}, done: make(chan struct{})}
}

// PID is the process number of the newest run; 0 while there is none.
func (h *Helper) PID() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pid
}

// Restarts counts the runs that ended without having been asked to.
func (h *Helper) Restarts() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.restarts
}

// run is one process, and its Conn.
type run struct {
	process *reaper.Process
	conn    *Conn
	cancel  context.CancelFunc
	began   time.Time
	served  chan struct{} // closed when it says that it serves
	over    chan struct{} // closed when the process has ended and nobody talks with it any more
}

// Run keeps one run alive until ctx ends, and then until the last one is gone: at most Options.Grace, then it is killed.
func (h *Helper) Run(ctx context.Context) error {
	defer h.wg.Wait()
	defer close(h.done)
	var pause time.Duration
	for {
		r, err := h.start()
		if err == nil {
			r = h.attend(ctx, r)
			if ctx.Err() != nil {
				h.finish(r, h.o.Grace)
				return nil
			}
			if time.Since(r.began) > settled {
				pause = 0
			}
			err = errors.New(r.process.Status().String())
		}
		h.o.Log.Warn("a helper process ended and is started again", "err", err, "after", pause.String())
		h.lost()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(max(2*pause, firstPause), cmp.Or(h.o.MostPause, mostPause))
	}
}

func (h *Helper) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pid = 0
	h.restarts++
}

// attend waits until the run, or the one that replaced it, ends by itself, or ctx does. It returns the newest.
func (h *Helper) attend(ctx context.Context, r *run) *run {
	for {
		select {
		case <-r.over:
			return r
		case <-ctx.Done():
			return r
		case q := <-h.replaces:
			before := h.program
			if q.program != (Program{}) {
				h.program = q.program
			}
			next, err := h.succeed(ctx, r)
			if err != nil {
				h.program = before
			}
			q.answer <- err
			if next != nil {
				r = next
			}
		}
	}
}

// Replace starts a new run and, once that has said Ready, tells the one before to finish: it sees the end of its Conn and has
// Options.Grace. It blocks until the new run serves; the old one may finish later. On an error the old run goes on. A program that is not
// zero is what the new run, and all after it, are made of.
func (h *Helper) Replace(ctx context.Context, program Program) error {
	answer := make(chan error, 1)
	select {
	case h.replaces <- replacement{program, answer}:
	case <-h.done:
		return fmt.Errorf("cannot replace the helper process %q: the init is ending", h.o.Role)
	case <-ctx.Done(): // it is between two runs
		return fmt.Errorf("cannot replace the helper process %q: it is being started again: %w", h.o.Role, context.Cause(ctx))
	}
	return <-answer
}

func (h *Helper) succeed(ctx context.Context, old *run) (*run, error) {
	next, err := h.start()
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(replaceTimeout)
	defer late.Stop()
	select {
	case <-next.served:
		h.wg.Go(func() { h.finish(old, h.o.Grace) })
		return next, nil
	case <-next.over:
		err = fmt.Errorf("cannot replace the helper process %q: the new one %s", h.o.Role, next.process.Status())
	case <-late.C:
		err = fmt.Errorf("cannot replace the helper process %q: the new one does not serve after %s", h.o.Role, replaceTimeout)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	h.finish(next, killedGrace)
	h.mu.Lock()
	h.pid = old.process.PID()
	h.mu.Unlock()
	return nil, err
}

// finish tells a run to end, and sees to it.
func (h *Helper) finish(r *run, grace time.Duration) {
	r.cancel() // ends Serve, and with it our side of the Conn
	select {
	case <-r.process.Done():
	case <-time.After(grace):
		_ = r.process.SignalGroup(unix.SIGKILL)
	}
	<-r.over
}

func (h *Helper) start() (*run, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket pair: %w", err)
	}
	theirs := pair[1]
	defer unix.Close(theirs)
	mine := os.NewFile(uintptr(pair[0]), "helper")
	c, err := net.FileConn(mine) // a copy
	mine.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot use a socket pair: %w", err)
	}
	p, err := h.fork(theirs)
	if err != nil {
		c.Close()
		return nil, err
	}
	r := &run{process: p, conn: newConn(c, maxFromHelper), began: time.Now(), served: make(chan struct{}), over: make(chan struct{})}
	var once sync.Once
	r.conn.served = func() { once.Do(func() { close(r.served) }) }
	h.mu.Lock()
	h.pid = p.PID()
	h.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	h.wg.Go(func() { h.serve(ctx, r) })
	return r, nil
}

// serve lets Serve talk with a run, and notes when that is over.
func (h *Helper) serve(ctx context.Context, r *run) {
	defer close(r.over)
	stop := context.AfterFunc(ctx, func() { r.conn.Close() }) // wakes whoever reads or writes
	err := h.o.Serve(ctx, r.conn)
	if stop() {
		r.conn.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			h.o.Log.Warn("a helper process is killed", "pid", r.process.PID(), "err", err)
		}
		// Without its Conn it is of no use. Told so by its end, it may still do what it has to do at an end.
		select {
		case <-r.process.Done():
		case <-time.After(h.patience(err)):
			_ = r.process.SignalGroup(unix.SIGKILL)
		case <-ctx.Done():
		}
	}
	<-r.process.Done()
}

// patience is what a run gets from the end of its talk to its end.
func (h *Helper) patience(err error) time.Duration {
	if err == nil || errors.Is(err, io.EOF) {
		return time.Second // it closed its side, or Serve had enough of it
	}
	return killedGrace
}

// fork starts the process, as Options.User if that can be.
func (h *Helper) fork(conn int) (*reaper.Process, error) {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", os.DevNull, err)
	}
	defer unix.Close(null)
	files := []int{null, h.o.Stderr, h.o.Stderr, conn}
	for _, f := range h.o.Files {
		fd, err := copyOf(f)
		if err != nil {
			return nil, fmt.Errorf("cannot hand over a descriptor: %w", err)
		}
		defer unix.Close(fd)
		files = append(files, fd)
	}
	spec := reaper.Spec{
		Path: h.program.Path, FD: h.program.FD, Args: []string{"entrypoint:" + h.o.Role}, Env: h.o.Env, Files: files, Session: true, Own: true,
		Credential: h.o.User, Umask: -1, NoNewPrivs: true, ParentDeathSignal: h.o.ParentDeath,
	}
	p, err := h.o.Reaper.Start(spec)
	if err != nil && h.o.User != nil {
		// Root without capabilities, a user namespace without that number, a file of ours that is for root alone.
		first := err
		spec.Credential = nil
		if p, err = h.o.Reaper.Start(spec); err == nil && !h.fellBack {
			h.fellBack = true
			h.o.Log.Warn("a helper process runs as our own user", "err", first)
		}
	}
	return p, err
}

// copyOf copies a descriptor without making its file blocking, as File.Fd would. The caller closes it.
func copyOf(f *os.File) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, dup := -1, error(nil)
	err = rc.Control(func(n uintptr) { fd, dup = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	return fd, errors.Join(err, dup)
}
