package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/hotswap-init/entrypoint/envcfg"
	"github.com/hotswap-init/entrypoint/internal/render"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// parseRender reads ENTRYPOINT_RENDER, and the templates that are there already. All faults are reported at once.
func (s *setup) parseRender(text string) (err error) {
	s.rendered, err = render.ParseTargets(text)
	for _, t := range s.rendered {
		err = errors.Join(err, t.Check())
	}
	return err
}

// lifeHooks is what is done at the moments of a life: files are written, then a command runs.
type lifeHooks struct {
	p        *initProcess
	commands map[swap.Moment][]string
}

// hooks is nil where nothing is to be done at any moment.
func (p *initProcess) hooks() swap.Hooks {
	h := &lifeHooks{p: p, commands: map[swap.Moment][]string{}}
	for moment, argv := range map[swap.Moment]envcfg.Argv{
		swap.PreStart: p.cfg.HookPreStart, swap.PrePromote: p.cfg.HookPrePromote, swap.PostPromote: p.cfg.HookPostPromote,
		swap.Drained: p.cfg.HookDrained, swap.Failure: p.cfg.HookFailed, swap.Leaving: p.cfg.HookExit,
	} {
		if len(argv) > 0 {
			h.commands[moment] = argv
		}
	}
	if len(h.commands) == 0 && len(p.rendered) == 0 {
		return nil
	}
	return h
}

// Wants tells whether there is a command, or a file that may have to be written.
func (h *lifeHooks) Wants(m swap.Moment) bool {
	return len(h.commands[m]) > 0 || len(h.p.rendered) > 0 && m != swap.PreStart && m != swap.Leaving
}

// Do writes the files and runs the command.
func (h *lifeHooks) Do(ctx context.Context, o swap.Occasion) error {
	o.App = h.p.appName()
	log := h.p.log.With("hook", string(o.Moment), "gen", o.Generation)
	if o.Moment != swap.PreStart && o.Moment != swap.Leaving {
		if err := h.render(o, log); err != nil {
			return err
		}
	}
	argv := h.commands[o.Moment]
	if len(argv) == 0 {
		return nil
	}
	began := time.Now()
	if err := h.p.runHook(ctx, argv, o.Environ(), log); err != nil {
		return fmt.Errorf("the hook %s failed: %w", o.Moment, err)
	}
	log.Info("hook done", "elapsed", time.Since(began).Round(time.Millisecond))
	return nil
}

// render writes what is to change; a file that cannot be written does not keep the others from it.
func (h *lifeHooks) render(o swap.Occasion, log *slog.Logger) error {
	var faults []error
	for _, t := range h.p.rendered {
		wrote, err := t.Render(renderData(o))
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("cannot render %q: %w", t.Path, err))
		case wrote:
			log.Info("rendered", "path", t.Path)
		}
	}
	return errors.Join(faults...)
}

// renderData is what a template sees: the one place where its names are made, and plain data alone.
func renderData(o swap.Occasion) map[string]any {
	serving := o.Status.Active
	if o.Moment == swap.PrePromote {
		serving = o.Generation
	}
	data := map[string]any{
		"App": o.App, "Event": string(o.Moment), "Generation": serving, "Previous": o.Previous,
		"Workers": []any{}, "Generations": []any{}, "Sockets": []any{},
	}
	for _, g := range o.Status.Generations {
		if g.State == swap.Exited {
			continue
		}
		workers := renderWorkers(g)
		data["Generations"] = append(data["Generations"].([]any), map[string]any{
			"Generation": g.Number, "State": string(g.State), "PID": g.PID, "Path": g.Path, "SHA256": g.SHA256, "Serving": g.Number == serving, "Workers": workers,
		})
		if g.Number == serving {
			data["Workers"] = workers
		}
	}
	for _, s := range o.Status.Sockets {
		data["Sockets"] = append(data["Sockets"].([]any), map[string]any{"Name": s.Name, "Address": s.Address, "Mode": s.Mode})
	}
	return data
}

// renderWorkers lists the workers of a generation. Address and Port are of a backend port of its own.
func renderWorkers(g swap.Generation) []any {
	all := g.Workers
	if len(all) == 0 && g.PID != 0 {
		all = []swap.Worker{{PID: g.PID, State: g.State, Address: g.Address}}
	}
	list := []any{}
	for _, w := range all {
		if w.State != swap.Exited {
			port := 0
			if at, err := netip.ParseAddrPort(w.Address); err == nil {
				port = int(at.Port())
			}
			list = append(list, map[string]any{"Worker": w.Number, "Generation": g.Number, "PID": w.PID, "State": string(w.State), "Address": w.Address, "Port": port})
		}
	}
	return list
}
