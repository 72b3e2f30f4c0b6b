package main

import (
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// slice is how long one server is asked before it is the next one's turn: all are up, the others idle.
const slice = 250 * time.Millisecond

// alone is the app without any init.
const alone = "alone"

// inherited is an init that holds the app's socket and hands it over as a descriptor.
const inherited = "ENTRYPOINT_LISTEN="

// requests compares requests per second of the same app alone, under an init that leaves it alone, through an inherited socket, and
// through a socket under its own bind. Short turns and the median of the rounds' ratios keep the machine's moods out.
func (b *bench) requests() ([]line, error) {
	modes := []string{alone, unheld, inherited, watched}
	addresses := map[string]string{}
	for _, mode := range modes {
		address, stop, err := b.server(mode)
		if err != nil {
			return nil, err
		}
		defer stop()
		if err := b.answers(address); err != nil {
			return nil, err
		}
		addresses[mode] = address
	}
	var out []line
	for _, kind := range []struct {
		what    string
		options load.Options
	}{
		{"requests/s, a connection each", load.Options{Fresh: 8}},
		{"requests/s, keep-alive", load.Options{Reused: 8}},
	} {
		var rounds []map[string]float64
		for n := range b.times(10) {
			round := map[string]float64{}
			for i := range modes {
				mode := modes[(i+n)%len(modes)]
				rate, err := b.slice(kind.options, addresses[mode])
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", kind.what, mode, err)
				}
				round[mode] = rate
			}
			rounds = append(rounds, round)
		}
		over := func(mode, yardstick string) float64 {
			return middle(rounds, func(round map[string]float64) float64 { return round[mode] / round[yardstick] })
		}
		rate := func(mode string) float64 {
			return middle(rounds, func(round map[string]float64) float64 { return round[mode] })
		}
		for _, row := range []struct{ mode, what string }{{inherited, "inherited socket"}, {watched, "socket under the app's own bind"}} {
			out = append(out, line{
				kind.what + ", " + row.what, fmt.Sprintf("%.0f/s", rate(row.mode)),
				fmt.Sprintf("alone %.0f/s; hand-off none %.0f/s", rate(alone), rate(unheld)),
				fmt.Sprintf("%.3f; %.3f", over(row.mode, alone), over(row.mode, unheld)), ">= 0.98",
			})
		}
	}
	return out, nil
}

// middle is the median of a number of each round.
func middle(rounds []map[string]float64, of func(map[string]float64) float64) float64 {
	var values []float64
	for _, r := range rounds {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// server starts the app alone, or under the init in that mode. Alone it gets a session of its own, as the init gives it one:
// the kernel shares processors out between sessions.
func (b *bench) server(mode string) (address string, stop func(), err error) {
	if address, err = freeAddress(); err != nil {
		return "", nil, err
	}
	if mode != alone {
		spec := engine.Spec{Env: []string{mode}, Command: []string{"/testapp", "listen=tcp:" + address}}
		if mode == inherited {
			spec = engine.Spec{Env: []string{inherited + "tcp://" + address}, Command: []string{"/testapp"}}
		}
		c, err := b.engine.Start(b.ctx, spec)
		if err != nil {
			return "", nil, err
		}
		return address, func() { c.Close() }, nil
	}
	cmd := exec.Command(b.binaries.TestApp, "listen=tcp:"+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	return address, func() { cmd.Process.Kill(); cmd.Wait() }, nil
}

func (b *bench) slice(o load.Options, address string) (float64, error) {
	o.Address, o.Duration, o.MaxRequests = address, slice, 50_000
	l := load.Start(b.ctx, o)
	l.Wait()
	r := l.Report()
	if n := r.Failures(load.Fresh, load.Reused); n > 0 {
		return 0, fmt.Errorf("%d requests failed: %s", n, r.FailedText())
	}
	return float64(r.Requests()) / r.Elapsed.Seconds(), nil
}
