package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/handoff/transparent"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// mode is how generations follow each other, and why.
type mode struct {
	name       string
	why        string
	sequential bool
	learns     bool // what the app binds is watched
	must       bool // or it does not start
	noNewPrivs bool // set by the filter
	sockets    *handoff.Set

	rehearsal sync.WaitGroup
	cancel    context.CancelFunc // of the rehearsal

	mu     sync.Mutex
	tested string // what the rehearsal showed
}

// chooseMode decides by the configuration and by what the kernel allows. A mode that was asked for by name and cannot be
// had is an error; auto falls back and says why.
func (p *initProcess) chooseMode() (*mode, error) {
	m := &mode{name: p.cfg.Handoff}
	switch m.name {
	case "none":
		m.sequential = true
		return m, nil
	case "inherit", "proxy":
		return m, nil
	}
	var err error
	m.noNewPrivs, err = transparent.Probe()
	m.learns = err == nil
	if err != nil && m.name != "transparent" {
		p.log.Warn("what the app binds by itself is not held, only sockets in ENTRYPOINT_LISTEN", "why", err)
	}
	switch m.name {
	case "exclusive":
		m.sequential = true
	case "transparent":
		m.must = true
		if err != nil {
			return nil, fmt.Errorf("cannot use ENTRYPOINT_HANDOFF=transparent: %w; auto takes what works", err)
		}
	default:
		m.name = "transparent"
		if err != nil {
			m.name, m.why = "inherit", err.Error()
		}
	}
	return m, nil
}

// holds is told how many sockets are held from the start. Without any, and without a way to learn of some, there is nothing
// that could be swapped behind clients' backs.
func (m *mode) holds(n int) {
	if m.name == "inherit" && n == 0 {
		why := "nothing is held: ENTRYPOINT_LISTEN is not set"
		if m.why != "" {
			why += ", and " + m.why
		}
		m.name, m.sequential, m.why = "none", true, why
	}
}

func (m *mode) interception() swap.Interception {
	switch {
	case m.must:
		return swap.MustIntercept
	case m.learns:
		return swap.Intercept
	}
	return swap.NoInterception
}

// now is the mode at this moment: an app that has an address which cannot be held is swapped one after the other.
func (m *mode) now() swap.Mode {
	out := swap.Mode{Name: m.name, Why: m.why, Sequential: m.sequential}
	if !m.learns {
		return out
	}
	m.mu.Lock()
	if m.tested != "" {
		out.Why = join(out.Why, m.tested)
	}
	m.mu.Unlock()
	if m.noNewPrivs {
		out.Why = join(out.Why, "no_new_privs is set on the app, for want of CAP_SYS_ADMIN")
	}
	for _, n := range m.sockets.Natives() {
		if n.Exclusive && !out.Sequential {
			out.Sequential = true
			out.Why = join(out.Why, fmt.Sprintf("the old generation stops first, because %s is not held: %s", n.Address, n.Why))
		}
	}
	return out
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// rehearsalDelay keeps the self-test out of the way of the app's start, and of commands that end at once.
const rehearsalDelay = 20 * time.Millisecond

// rehearsalLimit bounds the self-test: a few milliseconds, more on a machine under load.
const rehearsalLimit = 10 * time.Second

// rehearse tries the hand-off with a process of the app's user. Where sockets are held already or the mode was asked for by
// name the app waits for it: what is held without being handed over would be in the app's way. Else the first
// generation is started meanwhile, and its own first bind is as good a test. It is false if the app must not be started.
func (p *initProcess) rehearse() bool {
	m := p.mode
	if !m.learns {
		return true
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	if !m.must && len(p.sockets.Status()) == 0 {
		m.rehearsal.Go(func() {
			select {
			case <-time.After(rehearsalDelay):
				_ = p.rehearsed(ctx) // logged, and in status
			case <-ctx.Done():
			}
		})
		return true
	}
	err := p.rehearsed(ctx)
	switch {
	case err == nil:
	case m.must:
		p.log.Error("cannot start", "err", fmt.Errorf("cannot use ENTRYPOINT_HANDOFF=transparent: %w; auto takes what works", err))
		return false
	default:
		p.app.Interception, m.learns = swap.NoInterception, false
		if m.name == "transparent" {
			m.name, m.why = "inherit", err.Error()
		}
	}
	return true
}

// endRehearsal ends one that is under way when the app ends sooner: it is none of what the app left running.
func (m *mode) endRehearsal() {
	if m.cancel != nil {
		m.cancel()
	}
	m.rehearsal.Wait()
}

func (p *initProcess) rehearsed(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, rehearsalLimit, errors.New("it took too long"))
	defer cancel()
	took, err := p.app.TryInterception(ctx)
	m := p.mode
	m.mu.Lock()
	defer m.mu.Unlock()
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return err // the container ends
	}
	if err != nil {
		m.tested = "the self-test failed: " + err.Error()
		p.log.Warn("the transparent hand-off's self-test failed; what the app binds decides", "err", err)
		return err
	}
	m.tested = "the self-test passed in " + took.Round(100*time.Microsecond).String()
	return nil
}
