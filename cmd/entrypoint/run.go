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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/applog"
	"github.com/hotswap-init/entrypoint/internal/artifact"
	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/internal/proxy"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/reaper"
)

// exitConfig is sysexits' EX_CONFIG.
const exitConfig = 78

// initProcess is the running init: what run wires together and takes apart again.
// Of several apps in a container each has one, and they share what is not the app's; the main one runs them all.
type initProcess struct {
	*setup
	name     string         // of several apps; "" of one
	members  []*initProcess // of the main one of several apps: all of them, itself included; nil of one
	crew     *swap.Crew     // beside members
	log      *slog.Logger
	logs     *logWriter
	out      [2]*stream // our stdout and stderr
	signals  chan os.Signal
	reaper   *reaper.Reaper
	sockets  *handoff.Set
	public   *handoff.Set       // what the proxy accepts from; nil: there is none
	front    *proxy.Front       // nil: there is none
	upgraded *artifact.Artifact // what the proxy is made of; nil: our own program
	store    *artifact.Store
	app      *swap.App
	words    *applog.Log // what reads the app's output; nil: nobody
	sup      *swap.Supervisor
	mode     *mode
	control  *control.Server // nil: it could not be opened
	up       *upward
	own      string        // the app's file when the watch began; "" if nothing is watched
	changed  chan struct{} // something changed: there is room for one such news
	face     *facePort     // nil: there is none
	got      signalCounts
	watching atomic.Value // string: how files are watched; nil: not known yet
	wg       sync.WaitGroup
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
	var apps []*setup
	if p.setup, apps, err = loadAll(environ, arguments); err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint: cannot start, the configuration has faults:\n  "+strings.Join(split(err), "\n  "))
		return exitConfig
	}
	p.openLog()
	defer p.logs.close()
	if err := p.openAll(environ, apps); err != nil {
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
	var appLogs []func()
	for _, m := range p.each() {
		appLogs = append(appLogs, m.keepAppLog())
	}
	endSyslog := p.keepSyslog()
	ready := p.rehearseAll()
	p.wg.Go(func() { p.forwardSignals(ctx) })
	p.wg.Go(func() { p.serveControl(ctx) })
	var watches []<-chan struct{}
	for _, m := range p.each() {
		if len(m.watched) > 0 {
			begun := make(chan struct{})
			watches = append(watches, begun)
			m.wg.Go(func() { m.watch(ctx, begun) })
		}
		if m.front != nil {
			m.wg.Go(func() { m.logError("proxy", m.front.Run(ctx)) })
		}
	}
	if p.face != nil {
		p.wg.Go(func() { p.serveFace(ctx) })
	}
	if p.up.socket != "" {
		p.wg.Go(func() { p.up.run(ctx) })
	}
	p.wg.Go(func() { p.trim(ctx) })
	ending := swap.Ending{Code: 1}
	if ready {
		awaitAll(watches, watchWait)
		ending = p.runApps()
	}
	for _, m := range p.each() {
		m.mode.endRehearsal()
	}
	p.endLeftovers()
	for _, m := range p.each() {
		m.app.Close()
	}
	for _, end := range appLogs {
		end()
	}
	cancel()
	for _, m := range p.each() {
		m.wg.Wait()
	}
	endSyslog()
	stopReaping()
	reaping.Wait()
	p.logError("metrics", p.face.close())
	for _, m := range p.each() {
		m.logError("sockets", m.sockets.Close())
		if m.public != nil {
			m.logError("sockets", m.public.Close())
		}
		if m.upgraded != nil {
			m.logError("proxy", m.upgraded.Close())
		}
		m.logError("artifacts", m.store.Close())
	}
	return ending
}

// awaitAll waits until all are closed, or for so long.
func awaitAll(list []<-chan struct{}, most time.Duration) {
	late := time.After(most)
	for _, c := range list {
		select {
		case <-c:
		case <-late:
			return
		}
	}
}

func (p *initProcess) logError(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		p.log.Error("failed", "part", what, "err", err)
	}
}

// openContainer makes what all apps share.
func (p *initProcess) openContainer() {
	p.subreaper()
	if err := p.reaper.RestoreNoFile("/proc/self/exe", "entrypoint:nothing"); err != nil {
		p.log.Warn("the app gets our limit of open files", "err", err)
	}
	p.up = newUpward(os.Getenv("NOTIFY_SOCKET"))
}

// open makes what holds for the app's whole life: sockets first, while we have all our privileges.
func (p *initProcess) open(environ []string) error {
	var err error
	if p.mode, err = p.chooseMode(); err != nil {
		return err
	}
	addresses, adopt := p.addresses, handoff.Adoptable(environ, os.Getpid())
	if p.proxied() {
		if err := p.openFront(adopt); err != nil {
			return err
		}
		addresses, adopt = nil, nil
	}
	p.sockets, err = handoff.Open(addresses, handoff.Config{
		Steer: p.cfg.Steer == "auto", Shared: p.mode.sequential, Learn: p.mode.learns,
		Adopt: adopt, Logf: p.logfOf("sockets"), Learned: p.learned,
	})
	if err != nil {
		return err
	}
	p.mode.holds(len(p.sockets.Status()))
	for _, w := range p.cfg.Warnings() {
		p.log.Warn(w, "part", "config")
	}
	p.store, err = artifact.NewStore(artifact.StoreOptions{
		Exec: artifact.Exec(p.cfg.Exec), StateDir: p.cfg.StateDir, Try: p.reaper.TryExec, Verify: p.verify, Logf: p.logfOf("artifact"),
	})
	if err != nil {
		return err
	}
	p.app = p.newApp(environ)
	if err := p.openAppLog(); err != nil {
		return err
	}
	p.mode.sockets = p.sockets
	p.sup = swap.New(p.options())
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
		Reaper: p.reaper, Store: p.store, Sockets: p.sockets, Protocols: p.protocols, Checks: p.checks,
		Smoke: p.smoke, Health: p.health, Watchdog: time.Duration(p.cfg.Watchdog),
		Monitor: probe.MonitorOptions{
			Interval: time.Duration(p.cfg.HealthInterval), Timeout: time.Duration(p.cfg.HealthTimeout), Failures: int(p.cfg.HealthFailures),
		},
		Environ: p.environment(environ), Dir: p.cfg.Dir, Credential: p.user,
		Umask: int(p.cfg.Umask), NoNewPrivs: bool(p.cfg.NoNewPrivs),
		TTY: p.terminal(), Helper: "/proc/self/exe", Interception: p.mode.interception(), Logf: p.logf,
		Alone: func() bool { return p.mode.now().Sequential },
	}
	if p.front != nil {
		a.Front = front{p.front}
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
		p.log.Info("the command line of an earlier run is in force", "command", saved)
		command = saved
	}
	o := swap.Options{
		Command: command, Launcher: p.app, Log: p.log, Mode: p.mode.now, Version: version,
		StartTimeout: time.Duration(c.StartTimeout), DrainQuiet: time.Duration(c.DrainQuiet), DrainTimeout: time.Duration(c.DrainTimeout),
		StopSignal: syscall.Signal(c.StopSignal), MaxDraining: int(c.MaxDraining),
		ShutdownDelay: time.Duration(c.ShutdownDelay), ShutdownTimeout: time.Duration(c.ShutdownTimeout), Group: bool(c.Group),
		Restart: swap.RestartPolicy(c.Restart), RestartDelay: time.Duration(c.RestartDelay), RestartMaxDelay: time.Duration(c.RestartMaxDelay),
		StartLimitBurst: int(c.StartLimitBurst), StartLimitInterval: time.Duration(c.StartLimitInterval), WaitOnFatal: c.OnFatal == "wait",
		Workers: int(c.Workers), Rolling: c.Rollout == "rolling",
		Canary: p.canary, Bake: time.Duration(c.Bake), HealthFailures: int(c.HealthFailures), ExitUnhealthy: c.HealthAction == "exit",
		Watchdog:     time.Duration(c.Watchdog),
		AutoRollback: c.Rollback == "auto", Keep: int(c.Keep),
		Hooks:     p.hooks(),
		Commanded: p.saveCommand, Changed: p.stateChanged,
	}
	if p.name != "" {
		o.ShutdownDelay = 0          // the crew has it
		o.Stay = len(p.members) == 0 // the main one of the apps has members
	}
	return o
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
	o := control.ServerOptions{
		Address: p.cfg.Control, Supervisor: p.sup, Version: version, Descendants: p.reaper.Descendants,
		Config: func() (json.RawMessage, error) { return p.shown() }, Logf: p.logfOf("control"), Reopen: p.reopener(), Upgrade: p.upgrader(),
	}
	if p.crew != nil {
		o.Stop, o.Health = p.crew.Stop, p.crew.Health
		for _, m := range p.members {
			o.Apps = append(o.Apps, control.App{Name: m.name, Supervisor: m.sup})
		}
	}
	s, err := control.Open(o)
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
	args := []any{"gen", gen, "listener", s.Name, "address", s.Address, "mode", s.Mode}
	if s.Why != "" {
		args = append(args, "why", s.Why)
	}
	p.log.Info("held because the app binds it", args...)
}

// logf writes the sentences of packages that have no log of their own, about the app.
func (p *initProcess) logf(format string, a ...any) { p.logfOf("app")(format, a...) }

// logfOf is logf for another part; docs/log.md lists them.
func (p *initProcess) logfOf(part string) func(format string, a ...any) {
	return func(format string, a ...any) { p.log.Warn(fmt.Sprintf(format, a...), "part", part) }
}
