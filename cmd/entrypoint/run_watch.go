package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/artifact"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/internal/watch"
	"github.com/hotswap-init/entrypoint/reaper"
)

// watchWait is how long the start waits until it is known what the watched files hold: what is put there later is a change, and what was there
// before is what starts. A file that takes longer to read does not keep the app from starting.
const watchWait = time.Second

// watch turns settled changes of files into swaps, signals and hooks. It closes begun when it misses no change any more, or at its end.
func (p *initProcess) watch(ctx context.Context, begun chan<- struct{}) {
	known := sync.OnceFunc(func() { close(begun) })
	defer known()
	paths := p.watchedPaths()
	if len(paths) == 0 {
		return
	}
	hooks := newWatchHooks(p.runWatchHook)
	events := make(chan watch.Event, 1)
	p.wg.Go(func() {
		defer hooks.wait()
		for {
			select {
			case e := <-events:
				p.changedFile(ctx, e, hooks)
			case <-ctx.Done():
				return
			}
		}
	})
	p.logError("watch", watch.Run(ctx, watch.Options{
		Paths: paths, Settle: time.Duration(p.cfg.WatchSettle), Poll: time.Duration(p.cfg.WatchPoll), Logf: p.logfOf("watch"), Whole: artifact.Whole, Begun: known, Backend: func(name string) { p.watching.Store(name) },
	}, events))
}

// watchedPaths puts the app's own file in place of "auto".
func (p *initProcess) watchedPaths() []watch.Path {
	own, err := "", error(nil)
	if len(p.command) > 0 {
		own, err = p.app.Find(p.command)
	} else {
		err = errors.New("no command is configured; name the file in ENTRYPOINT_WATCH in place of auto")
	}
	if own != "" {
		p.own, _ = filepath.Abs(own) // the working directory was found to be there, or own is absolute
	}
	var paths []watch.Path
	for _, w := range p.watched {
		switch {
		case w.Path != watch.Auto:
			paths = append(paths, w)
		case err != nil:
			p.log.Error("cannot watch the app's own file", "err", err)
		default:
			w.Path = own
			paths = append(paths, w)
			if p.verify != nil { // the program and its signature come one after the other, in either order
				w.Path = own + signatureSuffix
				paths = append(paths, w)
			}
		}
	}
	return paths
}

// signatureSuffix is what the name of a signature has behind that of its program.
const signatureSuffix = ".minisig"

func (p *initProcess) changedFile(ctx context.Context, e watch.Event, hooks *watchHooks) {
	action := e.Path.Action
	if name, isSignal := strings.CutPrefix(action, watch.ActionSignal); isSignal {
		sig, err := reaper.ParseSignal(name)
		if err == nil {
			p.log.Info("signal sent because a file changed", "signal", reaper.SignalName(sig), "path", e.File, "reason", e.Reason)
			err = p.sup.Signal(ctx, sig)
		}
		p.logError("watch", err)
		return
	}
	if action == watch.ActionHook {
		hooks.start(ctx, e)
		return
	}
	p.sup.Trigger(p.request(e))
}

// request is what a change of a file asks for.
func (p *initProcess) request(e watch.Event) swap.Request {
	cause := "watch " + e.File
	if n := len(e.Also); n > 0 {
		cause += fmt.Sprintf(" and %d more", n)
	}
	return swap.Request{Kind: swap.Reload, Cause: cause, Remember: true, Changed: p.onlyBytes(e)}
}

// onlyBytes tells whether a change can be news only by the bytes of the app's own file: then bytes that run already are
// none. A trigger, and any other file, asks for a swap whatever the app's file holds.
func (p *initProcess) onlyBytes(e watch.Event) bool {
	for _, one := range append([]watch.Event{e}, e.Also...) {
		if one.Path.Action == watch.ActionTrigger || one.File != p.own && one.File != p.own+signatureSuffix {
			return false
		}
	}
	return true
}

// upward tells the service manager above us, if there is one, how we are.
type upward struct {
	socket string
	state  chan string // newest state, older ones are replaced
}

func newUpward(socket string) *upward { return &upward{socket: socket, state: make(chan string, 1)} }

// changed never blocks: it is called by the owner of the generations.
func (u *upward) changed(state string) {
	if u.socket == "" {
		return
	}
	for {
		select {
		case u.state <- state:
			return
		default:
		}
		select {
		case <-u.state:
		default:
		}
	}
}

// words are what systemd's protocol calls our states.
var words = map[string][]string{
	"serving":  {"READY=1"},
	"stopping": {"STOPPING=1"},
}

func (u *upward) run(ctx context.Context) {
	for {
		select {
		case s := <-u.state:
			_ = handoff.SdNotify(u.socket, append([]string{"STATUS=" + s}, words[s]...)) // nobody to tell when it fails
		case <-ctx.Done():
			return
		}
	}
}
