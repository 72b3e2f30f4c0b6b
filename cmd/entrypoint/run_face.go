package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/control/face"
	helpers "github.com/hotswap-init/entrypoint/internal/helper"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/reaper"
)

const (
	// faceRole is the helper that serves metrics, status and the page.
	faceRole = "face"
	// faceGrace is what it gets at the end for the answers that are under way.
	faceGrace = time.Second
	// facePause is the longest that clients wait in the queue for a run in the place of one that ended: a prober has a second or so.
	facePause = time.Second
	// facePatience is how long the app may take to its first fork before the helper is started all the same.
	facePatience = 2 * time.Second
	// nobody is the user of what talks to the network, where there is no better one.
	nobody = 65534
)

// parseMetrics reads ENTRYPOINT_METRICS: one address on which connections are accepted.
func (s *setup) parseMetrics(text string) error {
	if text == "" || text == "off" {
		return nil
	}
	list, err := handoff.ParseAddresses(text)
	switch {
	case err != nil:
		return err
	case len(list) != 1:
		return errors.New("one address is expected, such as tcp://:9090")
	}
	switch a := list[0]; a.Scheme {
	case "tcp", "tcp4", "tcp6", "unix":
		s.metrics = &a
		return nil
	default:
		return fmt.Errorf("cannot serve HTTP on %q; the schemes are tcp, tcp4, tcp6 and unix", a.Raw)
	}
}

// facePort is the listening socket, which is PID 1's for the container's whole life: while there is no helper, clients wait in its queue.
type facePort struct {
	set  *handoff.Set
	file *os.File
	at   string
}

// openFace listens. A nil address gives nil.
func openFace(a *handoff.Address, logf func(string, ...any)) (*facePort, error) {
	if a == nil {
		return nil, nil
	}
	set, err := handoff.Open([]handoff.Address{*a}, handoff.Config{Shared: true, Logf: logf})
	if err != nil {
		return nil, fmt.Errorf("ENTRYPOINT_METRICS: %w", err)
	}
	lease, err := set.Lease(1)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ENTRYPOINT_METRICS: %w", err), set.Close())
	}
	fd, err := unix.FcntlInt(uintptr(lease.Files()[0].FD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ENTRYPOINT_METRICS: cannot copy the socket: %w", err), set.Close())
	}
	return &facePort{set: set, file: os.NewFile(uintptr(fd), "metrics"), at: set.Status()[0].Address}, nil
}

// close ends listening. nil is allowed.
func (f *facePort) close() error {
	if f == nil {
		return nil
	}
	return errors.Join(f.file.Close(), f.set.Close())
}

// serveFace keeps the helper alive until ctx ends. The app is started first: it must not wait for us.
func (p *initProcess) serveFace(ctx context.Context) {
	p.awaitFork(ctx)
	side := p.faceSide()
	h := helpers.New(helpers.Options{
		Reaper: p.reaper, Path: "/proc/self/exe", Role: faceRole, Files: []*os.File{p.face.file}, User: p.helperUser(),
		ParentDeath: p.app.ParentDeath, Stderr: 2, Grace: faceGrace, MostPause: facePause, Log: p.log,
		Serve: func(ctx context.Context, c *helpers.Conn) error { return side.Serve(ctx, c) },
	})
	p.log.Info("metrics, status and probes are served", "address", p.face.at)
	p.logError("metrics", h.Run(ctx))
}

// faceSide is our side of the talk with the helper.
func (p *initProcess) faceSide() *face.Init {
	if p.crew == nil {
		return face.NewInit(p.sup, p.faceExtra, "")
	}
	var others []face.App
	for _, m := range p.members {
		if m != p {
			others = append(others, face.App{Name: m.name, Supervisor: m.sup})
		}
	}
	return face.NewInit(mainApp{p.sup, p.crew}, p.faceExtra, p.name, others...)
}

// mainApp is the main one of several apps, with the health of all.
type mainApp struct {
	*swap.Supervisor
	crew *swap.Crew
}

func (m mainApp) Health(ctx context.Context) error { return m.crew.Health(ctx) }

// awaitFork waits until the app's first process is there, or none is to come for now.
func (p *initProcess) awaitFork(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, facePatience)
	defer cancel()
	sub := p.sup.Subscribe(0)
	defer sub.Close()
	for {
		news, _, err := sub.Next(ctx)
		if err != nil {
			return
		}
		for _, n := range news {
			if n.Kind == swap.NewsPhase && n.Phase == "started" || n.Kind == swap.NewsState && n.To != "starting" || n.Kind == swap.NewsSwap {
				return
			}
		}
	}
}

// helperUser is whom a helper runs as: the app's user, or as good as nobody rather than root.
func (p *initProcess) helperUser() *reaper.Credential {
	if p.user == nil && os.Geteuid() == 0 {
		return &reaper.Credential{UID: nobody, GID: nobody}
	}
	return p.user
}

// faceExtra is what metrics show beside the generations.
func (p *initProcess) faceExtra() face.Extra {
	watching, _ := p.watching.Load().(string)
	return face.Extra{Goroutines: runtime.NumGoroutine(), Signals: p.got.list(), Watch: watching, LogDropped: p.logs.lost.Load()}
}

// faceMain is the helpers.
func faceMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT) // of a terminal: its end is the init's business
	c, err := helpers.Parent()
	if err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint:", err)
		return 1
	}
	return face.Main(ctx, c, helpers.File(0))
}

// signalCounts counts the signals that we got by what was done with them. Its keys are bounded: there are 64 signals and four actions.
type signalCounts struct {
	mu     sync.Mutex
	counts []face.SignalCount
}

func (s *signalCounts) add(sig syscall.Signal, action string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := reaper.SignalName(sig)
	for i := range s.counts {
		if c := &s.counts[i]; c.Signal == name && c.Action == action {
			c.Count++
			return
		}
	}
	s.counts = append(s.counts, face.SignalCount{Signal: name, Action: action, Count: 1})
}

// list gives a copy.
func (s *signalCounts) list() []face.SignalCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]face.SignalCount(nil), s.counts...)
}
