package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/reaper"
)

// exitConfig is sysexits' EX_CONFIG.
const exitConfig = 78

// initProcess is the running init: what run wires together and takes apart again.
type initProcess struct {
	*setup
	log     *slog.Logger
	logs    *logWriter
	out     [2]*stream // our stdout and stderr
	signals chan os.Signal
	reaper  *reaper.Reaper
	sockets *handoff.Set
	app     *swap.App
	sup     *swap.Supervisor
	mode    *mode
	control *control.Server // nil: it could not be opened
	up      *upward
	changed chan struct{} // something changed: there is room for one such news
	wg      sync.WaitGroup
}

// runInit is the init from the first line to the exit code. The order of its end is the order of this list: the app's
// generations end (Supervisor.Run), what is left below us is ended and reaped, watch and control stop, the sockets are
// closed, the last log lines are written.
func runInit(arguments []string) int {
	p := &initProcess{signals: make(chan os.Signal, 256), changed: make(chan struct{}, 1), reaper: reaper.New()}
	reaper.Notify(p.signals) // first of all: nothing that arrives from now on is lost
	p.out = [2]*stream{newStream(1), newStream(2)}
	environ := os.Environ()
	var err error
	if p.setup, err = load(environ, arguments); err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint: cannot start, the configuration has faults:\n  "+strings.Join(split(err), "\n  "))
		return exitConfig
	}
	p.openLog()
	defer p.logs.close()
	if err := p.open(environ); err != nil {
		p.log.Error("cannot start", "err", err)
		return 1
	}
	ending := p.serve()
	return p.cfg.ExitRemap.Apply(ending.ExitCode())
}

// serve runs the app until the container is to end.
func (p *initProcess) serve() swap.Ending {
	ctx, cancel := context.WithCancel(context.Background())
	reap, stopReaping := context.WithCancel(context.Background())
	var reaping sync.WaitGroup
	reaping.Go(func() { p.logError("reaper", p.reaper.Run(reap)) })
	ready := p.rehearse()
	p.wg.Go(func() { p.forwardSignals(ctx) })
	p.wg.Go(func() { p.serveControl(ctx) })
	if len(p.watched) > 0 {
		p.wg.Go(func() { p.watch(ctx) })
	}
	if p.up.socket != "" {
		p.wg.Go(func() { p.up.run(ctx) })
	}
	p.wg.Go(func() { p.trim(ctx) })
	ending := swap.Ending{Code: 1}
	if ready {
		ending = p.sup.Run(context.Background())
	}
	p.mode.endRehearsal()
	p.endLeftovers()
	p.app.Close()
	cancel()
	p.wg.Wait()
	stopReaping()
	reaping.Wait()
	p.logError("sockets", p.sockets.Close())
	return ending
}

func (p *initProcess) logError(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		p.log.Error(what, "err", err)
	}
}

// open makes what holds for the container's whole life: sockets first, while we have all our privileges.
func (p *initProcess) open(environ []string) error {
	p.subreaper()
	if err := p.reaper.RestoreNoFile("/proc/self/exe", "entrypoint:nothing"); err != nil {
		p.log.Warn("the app gets our limit of open files", "err", err)
	}
	var err error
	if p.mode, err = p.chooseMode(); err != nil {
		return err
	}
	p.sockets, err = handoff.Open(p.addresses, handoff.Config{
		Steer: p.cfg.Steer == "auto", Shared: p.mode.sequential, Learn: p.mode.learns,
		Adopt: handoff.Adoptable(environ, os.Getpid()), Logf: p.logf, Learned: p.learned,
	})
	if err != nil {
		return err
	}
	p.mode.holds(len(p.sockets.Status()))
	for _, w := range p.cfg.Warnings() {
		p.log.Warn(w)
	}
	p.up = newUpward(os.Getenv("NOTIFY_SOCKET"))
	p.app = p.newApp(environ)
	p.mode.sockets = p.sockets
	p.sup = swap.New(p.options())
	p.openControl()
	return nil
}

// subreaper adopts orphans where the kernel does not give them to us anyway.
func (p *initProcess) subreaper() {
	want := p.cfg.Subreaper == "true" || p.cfg.Subreaper == "auto" && os.Getpid() != 1
	if !want {
		return
	}
	if err := reaper.BecomeSubreaper(); err != nil {
		p.log.Warn("not PID 1, and cannot adopt orphans: they go to the init above us", "pid", os.Getpid(), "err", err)
		return
	}
	if os.Getpid() != 1 {
		p.log.Info("not PID 1: orphans below us are adopted as a subreaper", "pid", os.Getpid())
	}
}

func (p *initProcess) newApp(environ []string) *swap.App {
	a := &swap.App{
		Reaper: p.reaper, Sockets: p.sockets, Protocols: p.protocols, Checks: p.checks,
		Environ: p.environment(environ), Dir: p.cfg.Dir, Credential: p.user,
		Umask: int(p.cfg.Umask), NoNewPrivs: bool(p.cfg.NoNewPrivs),
		TTY: p.terminal(), Helper: "/proc/self/exe", Interception: p.mode.interception(), Logf: p.logf,
		Alone: func() bool { return p.mode.now().Sequential },
	}
	if os.Getpid() != 1 {
		a.ParentDeath, a.Stopped = syscall.SIGKILL, p.stopSelf
	}
	if !isTerminal(1) && !isTerminal(2) {
		a.Stdout, a.Stderr = p.out[0], p.out[1]
	}
	return a
}

func (p *initProcess) options() swap.Options {
	c := p.cfg
	command := p.command
	if saved := p.savedCommand(); saved != nil {
		p.log.Info("the command line of an earlier `entrypoint run` is in force", "command", saved)
		command = saved
	}
	return swap.Options{
		Command: command, Launcher: p.app, Log: p.log, Mode: p.mode.now, Version: version,
		StartTimeout: time.Duration(c.StartTimeout), DrainQuiet: time.Duration(c.DrainQuiet), DrainTimeout: time.Duration(c.DrainTimeout),
		StopSignal: syscall.Signal(c.StopSignal), MaxDraining: int(c.MaxDraining),
		ShutdownDelay: time.Duration(c.ShutdownDelay), ShutdownTimeout: time.Duration(c.ShutdownTimeout), Group: bool(c.Group),
		Restart: swap.RestartPolicy(c.Restart), RestartDelay: time.Duration(c.RestartDelay), RestartMaxDelay: time.Duration(c.RestartMaxDelay),
		StartLimitBurst: int(c.StartLimitBurst), StartLimitInterval: time.Duration(c.StartLimitInterval), WaitOnFatal: c.OnFatal == "wait",
		Commanded: p.saveCommand, Changed: p.stateChanged,
	}
}

// stateChanged is told by the owner of the generations; it must not block.
func (p *initProcess) stateChanged(state string) {
	p.up.changed(state)
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// openControl opens the socket of the other commands. Without it the init still does its work: a failure is said, not fatal.
func (p *initProcess) openControl() {
	s, err := control.Open(control.ServerOptions{
		Address: p.cfg.Control, Supervisor: p.sup, Version: version, Descendants: p.reaper.Descendants,
		Config: func() (json.RawMessage, error) { return p.cfg.JSON() }, Logf: p.logf,
	})
	if err != nil {
		p.log.Error("the other commands cannot reach this init", "err", err)
		return
	}
	p.control = s
}

func (p *initProcess) serveControl(ctx context.Context) {
	if p.control != nil {
		p.logError("control", p.control.Serve(ctx))
	}
}

// learned says which way an address is held that nobody configured.
func (p *initProcess) learned(gen int, s handoff.SocketStatus) {
	args := []any{"gen", gen, "address", s.Address, "name", s.Name, "mode", s.Mode}
	if s.Why != "" {
		args = append(args, "why", s.Why)
	}
	p.log.Info("held because the app binds it", args...)
}

func (p *initProcess) logf(format string, a ...any) { p.log.Warn(fmt.Sprintf(format, a...)) }
