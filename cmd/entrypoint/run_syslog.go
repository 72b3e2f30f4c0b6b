package main

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/internal/syslog"
	"github.com/hotswap-init/entrypoint/reaper"
)

// keepSyslog has our log lines forwarded, if there is a syslog to forward them to. end has the last ones sent, and waits for that;
// lines that come later go to standard error.
func (p *initProcess) keepSyslog() (end func()) {
	if p.logTo.Network == "" {
		return func() {}
	}
	o := syslog.Options{Target: p.logTo, Tag: "entrypoint", Reaper: p.reaper, Path: "/proc/self/exe", User: p.user, Log: p.log}
	if p.user == nil && os.Geteuid() == 0 {
		o.User = &reaper.Credential{UID: nobody, GID: nobody}
	}
	if os.Getpid() != 1 {
		o.ParentDeath = syscall.SIGKILL
	}
	l, err := syslog.New(o)
	if err != nil {
		p.log.Error("the log stays on standard error", "err", err)
		return func() {}
	}
	p.logs.syslog.Store(l)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return func() {
		for until := time.Now().Add(logFlush); len(p.logs.lines) > 0 && time.Now().Before(until); {
			time.Sleep(time.Millisecond)
		}
		cancel()
		p.logError("syslog", <-done)
	}
}

// nobody is the user of what talks to the network, where the app has none of its own.
