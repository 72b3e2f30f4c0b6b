package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/reaper"
)

// forwardSignals gives each signal its meaning, until the end.
func (p *initProcess) forwardSignals(ctx context.Context) {
	defer signal.Stop(p.signals)
	for {
		select {
		case s := <-p.signals:
			p.signal(ctx, s.(syscall.Signal))
		case <-ctx.Done():
			return
		}
	}
}

func (p *initProcess) signal(ctx context.Context, sig syscall.Signal) {
	b := p.cfg.Signals.For(sig)
	p.got.add(sig, b.Action)
	switch b.Action {
	case "ignore":
	case "reload":
		for _, m := range p.each() {
			m.sup.Trigger(swap.Request{Kind: swap.Reload, Cause: "signal " + reaper.SignalName(sig), Remember: true})
		}
	case "stop":
		p.triggerStop("signal " + reaper.SignalName(sig))
	default:
		if b.Signal != 0 {
			sig = b.Signal
		}
		p.forward(ctx, sig)
	}
}

func (p *initProcess) forward(ctx context.Context, sig syscall.Signal) {
	if p.jobControl(ctx, sig) {
		return
	}
	if err := p.sup.Signal(ctx, sig); err != nil {
		p.log.Debug("signal not forwarded", "signal", reaper.SignalName(sig), "err", err)
	}
}

// jobControl is what a shell above us expects when we are one of its jobs: stopped, we stop the app and then ourselves;
// continued, we give it the terminal back. PID 1 cannot be stopped and has no shell above it.
func (p *initProcess) jobControl(ctx context.Context, sig syscall.Signal) bool {
	if os.Getpid() == 1 {
		return false
	}
	switch sig {
	case syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU:
		// In a session of its own the app's group is an orphaned one, in which the kernel ignores all of these but STOP.
		_ = p.sup.Signal(ctx, syscall.SIGSTOP)
		p.stopSelf()
		return true
	case syscall.SIGCONT:
		p.app.GiveTerminal()
	}
	return false
}

// stopSelf stops the whole init, as the shell above expects of a stopped job. It goes on here when it is continued.
func (p *initProcess) stopSelf() {
	p.app.TakeTerminal()
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
}

// leftoverPoll is how often the end of what the app left behind is looked for.
const leftoverPoll = 10 * time.Millisecond

// endLeftovers ends what runs below us when the app is gone: daemons and orphans of any session. They get TERM and the
// rest of the shutdown's deadline, at least a moment, then KILL. None is left to the kernel silently.
func (p *initProcess) endLeftovers() {
	n := p.reaper.SignalDescendants(syscall.SIGTERM)
	if n == 0 {
		return
	}
	until := p.stopDeadline()
	if least := time.Now().Add(100 * time.Millisecond); until.Before(least) {
		until = least
	}
	p.log.Info("ending what the app left running", "processes", n, "until", until)
	if p.awaitLeftovers(until) {
		return
	}
	p.log.Warn("killing what the app left running", "processes", p.reaper.SignalDescendants(syscall.SIGKILL))
	for range 50 { // what forks while it is killed is killed again
		if p.awaitLeftovers(time.Now().Add(2 * leftoverPoll)) {
			return
		}
		p.reaper.SignalDescendants(syscall.SIGKILL)
	}
}

// awaitLeftovers reports whether nothing runs below us before the time is over.
func (p *initProcess) awaitLeftovers(until time.Time) bool {
	for len(p.reaper.Descendants()) > 0 {
		if time.Now().After(until) {
			return false
		}
		select {
		case s := <-p.signals:
			_ = s // the app is gone: there is nobody to forward to
		case <-time.After(leftoverPoll):
		}
	}
	return true
}

// terminal is the descriptor of the terminal that the app shall have, or -1.
func (p *initProcess) terminal() int {
	if p.name != "" && p.members == nil {
		return -1 // the main one of several apps has it
	}
	switch p.cfg.TTY {
	case "false":
		return -1
	case "true":
		return 0
	}
	if !isTerminal(0) {
		return -1
	}
	// Only a foreground job, or the leader of the terminal's session, may hand it on.
	if pgrp, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err != nil || pgrp != unix.Getpgrp() {
		return -1
	}
	return 0
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
