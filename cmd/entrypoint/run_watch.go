package main

import (
	"context"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/artifact"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/internal/watch"
	"github.com/hotswap-init/entrypoint/reaper"
)

// watch turns settled changes of files into swaps and signals.
func (p *initProcess) watch(ctx context.Context) {
	paths := p.watchedPaths()
	if len(paths) == 0 {
		return
	}
	events := make(chan watch.Event, 1)
	p.wg.Go(func() {
		for {
			select {
			case e := <-events:
				p.changedFile(ctx, e)
			case <-ctx.Done():
				return
			}
		}
	})
	p.logError("watch", watch.Run(ctx, watch.Options{
		Paths: paths, Settle: time.Duration(p.cfg.WatchSettle), Poll: time.Duration(p.cfg.WatchPoll), Logf: p.logf, Whole: artifact.Whole,
	}, events))
}

// watchedPaths puts the app's own file in place of "auto".
func (p *initProcess) watchedPaths() []watch.Path {
	var paths []watch.Path
	for _, w := range p.watched {
		if w.Path != "auto" {
			paths = append(paths, w)
			continue
		}
		own, err := p.app.Find(p.command)
		if err != nil {
			p.log.Error("cannot watch the app's own file", "err", err)
			continue
		}
		w.Path = own
		paths = append(paths, w)
	}
	return paths
}

func (p *initProcess) changedFile(ctx context.Context, e watch.Event) {
	name, isSignal := strings.CutPrefix(e.Path.Action, "signal:")
	if !isSignal {
		p.sup.Trigger(swap.Request{Kind: swap.Reload, Cause: "watch " + e.Path.Path, Remember: true})
		return
	}
	sig, err := reaper.ParseSignal(name)
	if err == nil {
		err = p.sup.Signal(ctx, sig)
	}
	p.logError("watch", err)
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
