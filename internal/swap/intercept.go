package swap

import (
	"context"
	"fmt"
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

// BindProbeRole is the argv[0] under which the init runs itself to try the transparent hand-off.
const BindProbeRole = "entrypoint:bind-probe"

// settleDelay is how long a generation from which no address is expected is given to listen on one before it counts as ready
// without.
const settleDelay = time.Second

// Interception says whether the App watches what its programs bind.
type Interception int

// The kinds of interception.
const (
	NoInterception Interception = iota
	// Intercept watches; a start that cannot be watched goes on without, and says so.
	Intercept
	// MustIntercept refuses to start a program that cannot be watched.
	MustIntercept
)

// intercept makes the start put the filter on the thread that forks.
func (c *child) intercept(spec *reaper.Spec) {
	if c.app.Interception == NoInterception {
		return
	}
	spec.Thread = func() error {
		c.closeFilter()
		c.filter, c.blind = transparent.Install()
		return c.blind
	}
}

func (c *child) closeFilter() {
	if c.filter != nil {
		_ = c.filter.Close()
		c.filter = nil
	}
}

// forkIntercepted starts the process, without the filter if there can be none and none is demanded.
func (c *child) forkIntercepted(spec reaper.Spec) (*reaper.Process, error) {
	c.intercept(&spec)
	p, err := c.app.Reaper.Start(spec)
	if c.blind != nil && c.app.Interception == Intercept {
		c.app.logf("generation %d runs unwatched: %v", c.gen, c.blind)
		spec.Thread = nil
		p, err = c.app.Reaper.Start(spec)
	}
	if err != nil {
		c.closeFilter()
	}
	return p, err
}

// serve answers the program's calls until nothing of its whole tree is left. That may be later than the end of the
// generation, if something has left its group; then it is answered as if nobody watched.
func (c *child) serve() {
	if c.filter == nil {
		return
	}
	c.vanished = make(chan struct{})
	f := c.filter
	c.app.watch(f, func() {
		defer close(c.vanished)
		if err := f.Serve(c.lease, c.app.logf); err != nil && !c.app.closing() {
			c.app.logf("generation %d: %v", c.gen, err)
		}
	})
}

// tree is a process whose end, with all its descendants, shows in its filter too.
type tree struct {
	*reaper.Process
	vanished <-chan struct{}
}

// GroupAlive also asks the filter, which is exact: it knows when the last process is gone.
func (t tree) GroupAlive() bool {
	select {
	case <-t.vanished:
		return false
	default:
		return t.Process.GroupAlive()
	}
}

// watch runs what serves a filter on a goroutine that Close waits for.
func (a *App) watch(f *transparent.Filter, serve func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.filters == nil {
		a.filters = map[*transparent.Filter]struct{}{}
	}
	a.filters[f] = struct{}{}
	a.serving.Go(func() {
		serve()
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.filters, f)
	})
}

func (a *App) closing() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

// Close stops answering what is left of all generations. Nothing may be started afterwards.
func (a *App) Close() {
	a.mu.Lock()
	a.closed = true
	for f := range a.filters {
		_ = f.Close()
	}
	a.mu.Unlock()
	a.serving.Wait()
}

func (a *App) logf(format string, args ...any) {
	if a.Logf != nil {
		a.Logf(format, args...)
	}
}

// shown blocks until the generation has accepted a connection on every address on which it listens, configured or not,
// and listens wherever the active one does. One that listens nowhere is shown to work after a moment, unless must says
// that it has to. Configured addresses that no generation has ever used are not waited for if this one shows itself on
// addresses of its own.
func (c *child) shown(ctx context.Context, must bool) error {
	if c.lease.Progress().Configured == 0 {
		return c.shownByItself(ctx, must)
	}
	ctx, cancel := context.WithCancel(ctx)
	var both sync.WaitGroup
	defer both.Wait()
	defer cancel()
	configured, own := make(chan error, 1), make(chan error, 1)
	both.Go(func() { configured <- c.lease.AcceptedConfigured(ctx, c.pids) })
	both.Go(func() { own <- c.shownByItself(ctx, true) })
	select {
	case err := <-configured:
		if p := c.lease.Progress(); err != nil || p.Streams == 0 && len(p.Missing) == 0 {
			return err
		}
		return <-own
	case err := <-own:
		p := c.lease.Progress()
		if err != nil || len(p.Unproved) < p.Configured {
			return <-configured // the more telling error, if there is one
		}
	}
	if c.lease.Progress().Configured == 0 {
		return nil // what was configured is held as the app binds it
	}
	select {
	case err := <-configured:
		return err
	case <-time.After(settleDelay):
		c.app.logf("generation %d accepts nothing from %s, which is configured: it listens on addresses of its own", c.gen, strings.Join(c.lease.Progress().Unproved, ", "))
		return nil
	}
}

// survey looks for what the filter could not see. It costs one question to the kernel, and a look at the descriptors of the
// generation only where somebody else listens in this network namespace.
func (c *child) survey() {
	var inodes map[uint64]bool
	c.app.Sockets.Survey(func(inode uint64) bool {
		if inodes == nil {
			inodes = map[uint64]bool{}
			for _, pid := range c.pids() {
				for _, n := range transparent.Sockets(pid) {
					inodes[n] = true
				}
			}
		}
		return inodes[inode]
	})
}

// shownByItself is shown for the addresses that the program binds.
func (c *child) shownByItself(ctx context.Context, must bool) error {
	for {
		p, err := c.listening(ctx, must)
		if err != nil || p.Streams == 0 {
			return err
		}
		if err := c.lease.AcceptedLearned(ctx, c.pids); err != nil {
			return err
		}
		if now := c.lease.Progress(); now.Streams == p.Streams {
			return nil
		}
	}
}

// listening waits for what is expected of the generation. Where it has some of that and the time for the rest is over, it goes on
// without: a program may give up a port. One that has none of it has lost its way, such as to another port because it
// found its own one taken.
func (c *child) listening(ctx context.Context, must bool) (handoff.Progress, error) {
	for {
		p := c.lease.Progress()
		patience := settleDelay
		switch {
		case len(p.Missing) > 0:
			patience = p.Patience
		case p.Streams > 0:
			return p, nil
		}
		left := time.Until(c.began.Add(patience))
		if left <= 0 && len(p.Missing) > 0 && (p.Claimed > 0 || p.Streams > 0 && !c.sameCommand()) {
			c.app.logf("generation %d has not listened on %q within %v, as the active one does: going on without", c.gen, p.Missing, patience)
			return p, nil
		}
		if left <= 0 && len(p.Missing) == 0 && !must {
			return p, nil
		}
		if err := waitChange(ctx, p.Changed, left); err != nil {
			if len(p.Missing) > 0 {
				return p, &probe.Late{Text: fmt.Sprintf("it does not listen on %s, as the active generation does (if that is meant, use `entrypoint restart`)", strings.Join(p.Missing, ", "))}
			}
			return p, &probe.Late{Text: "it does not listen on anything"}
		}
	}
}

// sameCommand tells whether the active generation has the same command line: then it should listen where that one does.
// Another one may be another program.
func (c *child) sameCommand() bool {
	c.app.mu.Lock()
	defer c.app.mu.Unlock()
	return slices.Equal(c.program.command, c.app.command)
}

// waitChange waits for news, or for the time to pass if there is any to wait for.
func waitChange(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	var over <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-changed:
	case <-over:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// TryInterception starts a process as the app would be started, which binds, and tells whether a socket of ours came
// underneath, and how long that took. It blocks for a few milliseconds.
func (a *App) TryInterception(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	r, err := transparent.NewRehearsal()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	file, err := artifact.Open(a.Helper, "", "")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	spec := a.spec(&checkedProgram{Artifact: file, command: []string{BindProbeRole}}, nil)
	spec.FD = file.FD()
	null, err := devNull()
	if err != nil {
		return 0, err
	}
	defer null.Close()
	spec.Files = []int{rawFD(null), rawFD(null), rawFD(null)}
	var f *transparent.Filter
	spec.Thread = func() (err error) { f, err = transparent.Install(); return err }
	p, err := a.Reaper.Start(spec)
	if err != nil {
		return 0, err
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(r, a.logf) }()
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.SignalGroup(syscall.SIGKILL)
		<-p.Done()
	}
	if err := <-served; err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return time.Since(begin), r.Verdict(p.Status().ExitCode())
}
