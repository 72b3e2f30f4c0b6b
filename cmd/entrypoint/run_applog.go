package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/hotswap-init/entrypoint/internal/applog"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// openAppLog prepares what reads the app's output, if anybody is to.
func (p *initProcess) openAppLog() error {
	if p.appLog.Kind == applog.Inherit {
		return nil
	}
	l, err := applog.New(applog.Options{
		Spec: p.appLog, App: p.appName(), Reaper: p.reaper, Path: "/proc/self/exe", User: p.user, ParentDeath: p.app.ParentDeath, Log: p.log,
	})
	if err != nil {
		return err
	}
	p.words = l
	p.app.LogDropped = l.Dropped
	p.app.Words = func(gen, worker int) (swap.Words, error) {
		w, err := l.Open(gen, worker)
		if err != nil {
			return nil, err // no nil pointer in an interface
		}
		return w, nil
	}
	return nil
}

// appName is what the app is called where it must have a name.
func (p *initProcess) appName() string {
	if p.name == "" {
		return "app"
	}
	return p.name
}

// keepAppLog runs what reads the app's output; end has it write what is left, and waits for that.
func (p *initProcess) keepAppLog() (end func()) {
	if p.words == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.words.Run(ctx) }()
	return func() {
		cancel()
		p.logError("app log", <-done)
	}
}

// reopener is the operation reopen; nil where no app has a log file.
func (p *initProcess) reopener() func() (string, error) {
	var logs []*applog.Log
	for _, m := range p.each() {
		if m.appLog.Kind == applog.File {
			logs = append(logs, m.words)
		}
	}
	if len(logs) == 0 {
		return nil
	}
	return func() (string, error) {
		files := 0
		var faults []error
		for _, l := range logs {
			n, err := l.Reopen()
			files += n
			faults = append(faults, err)
		}
		return fmt.Sprintf("reopened %d log files", files), errors.Join(faults...)
	}
}
