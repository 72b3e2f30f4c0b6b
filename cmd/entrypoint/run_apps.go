package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hotswap-init/entrypoint/envcfg"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// loadAll is load for a container with one app or several: then apps are the parts of all of them, and the first result is that of the main
// one. Arguments are the command line of the main one.
func loadAll(environ, arguments []string) (main *setup, apps []*setup, err error) {
	if lookupEnv(environ, "ENTRYPOINT_APPS") == "" && lookupEnv(environ, "ENTRYPOINT_APPS_FILE") == "" {
		main, err = load(environ, arguments)
		return main, nil, err
	}
	shared, configs, err := envcfg.LoadApps(environ)
	if err != nil {
		return nil, nil, err
	}
	var faults []error
	for _, c := range configs {
		var words []string
		if c.Name == shared.Main {
			words = arguments
		}
		s := &setup{cfg: c.Config, name: c.Name}
		if err := s.parse(environ, words, nil); err != nil {
			faults = append(faults, err)
		}
		if len(s.command) == 0 {
			faults = append(faults, fmt.Errorf("the app %q has no command: set ENTRYPOINT_APP_%s_COMMAND", c.Name, envcfg.UpperName(c.Name)))
		}
		apps = append(apps, s)
		s.shown = func() ([]byte, error) { return shared.JSON(configs...) }
		if c.Name == shared.Main {
			main = s
		}
	}
	return main, apps, errors.Join(faults...)
}

// each is every app: the only one, or all of several.
func (p *initProcess) each() []*initProcess {
	if len(p.members) == 0 {
		return []*initProcess{p}
	}
	return p.members
}

// openAll opens what is shared, then every app, then what others talk to.
func (p *initProcess) openAll(environ []string, apps []*setup) (err error) {
	p.openContainer()
	if p.face, err = openFace(p.metrics, p.logf); err != nil {
		return err
	}
	for _, s := range apps {
		m := p
		if s != p.setup {
			m = &initProcess{
				setup: s, logs: p.logs, out: p.out, signals: p.signals, changed: p.changed, reaper: p.reaper,
				up: newUpward(""), // the manager above us hears of the main app
			}
		}
		m.name, m.log = s.name, p.logs.logger.With("app", s.name)
		p.members = append(p.members, m)
	}
	for i, m := range p.each() {
		if err := m.openApp(environ); err != nil {
			for _, opened := range p.each()[:i] {
				opened.logError("sockets", opened.sockets.Close())
			}
			return err
		}
	}
	if len(apps) > 0 {
		p.crew = swap.NewCrew(p.crewOptions())
	}
	p.openControl()
	return nil
}

func (p *initProcess) openApp(environ []string) error {
	if p.name != "" && p.cfg.StateDir != "" {
		p.cfg.StateDir = filepath.Join(p.cfg.StateDir, p.name)
		if err := os.Mkdir(p.cfg.StateDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("cannot make the app's part of the state directory: %w", err)
		}
	}
	err := p.open(environ)
	if err != nil && p.name != "" {
		err = fmt.Errorf("app %q: %w", p.name, err)
	}
	return err
}

func (p *initProcess) crewOptions() swap.CrewOptions {
	o := swap.CrewOptions{
		Log: p.logs.logger, ShutdownDelay: time.Duration(p.cfg.ShutdownDelay), ShutdownTimeout: time.Duration(p.cfg.ShutdownTimeout),
	}
	for i, m := range p.members {
		o.Members = append(o.Members, swap.Member{Name: m.name, Supervisor: m.sup})
		if m == p {
			o.Main = i
		}
	}
	return o
}

// rehearseAll tries the hand-off of each app. It is false if one of them must not be started.
func (p *initProcess) rehearseAll() bool {
	ready := true
	for _, m := range p.each() {
		ready = m.rehearse() && ready
	}
	return ready
}

// runApps runs the one supervisor, or all of several, until the container is to end.
func (p *initProcess) runApps() swap.Ending {
	if p.crew != nil {
		return p.crew.Run(context.Background())
	}
	return p.sup.Run(context.Background())
}

// triggerStop asks for the end of the container.
func (p *initProcess) triggerStop(cause string) {
	if p.crew != nil {
		p.crew.TriggerStop(cause)
		return
	}
	p.sup.TriggerStop(cause)
}

// stopDeadline is when the time of everything that runs here is over.
func (p *initProcess) stopDeadline() time.Time {
	if p.crew != nil {
		return p.crew.StopDeadline()
	}
	return p.sup.StopDeadline()
}
