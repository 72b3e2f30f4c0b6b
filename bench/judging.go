package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// judging is what a trial costs: giving a share, taking all back, and requests per second while a candidate has half of them.
func (b *bench) judging() ([]line, error) {
	lines, err := b.switches()
	if err != nil {
		return nil, err
	}
	more, err := b.underCanary()
	return append(lines, more...), err
}

// switches takes the numbers of the handoff package's own benchmark: both are the whole call, of which the switch in the kernel is
// a part.
func (b *bench) switches() ([]line, error) {
	cmd := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "Split/5%/1$", "-benchtime", "300ms", "./handoff")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmark of handoff: %w\n%s", err, out)
	}
	var lines []line
	for _, row := range []struct{ unit, what string }{
		{"split", "a share given to a candidate, the whole call"}, {"steer", "all taken back from it, with the look at the kernel's sockets"},
	} {
		var found [2]string
		for i, part := range []string{"p50", "p99"} {
			if m := regexp.MustCompile(`([\d.]+) ` + row.unit + "-" + part + "-µs").FindSubmatch(out); m != nil {
				found[i] = string(m[1])
			}
		}
		lines = append(lines, line{row.what, found[0] + " us, p99 " + found[1] + " us", "-", "-", "-"})
	}
	return lines, nil
}

// underCanary asks containers whose candidates have a part of the connections, and one without a candidate, in turns. Two
// processes sleep and wake more often than one that has all the work; that is in the ratio too.
func (b *bench) underCanary() ([]line, error) {
	shares := []string{"", "5%", "50%"}
	addresses := map[string]string{}
	for _, share := range shares {
		address, stop, err := b.canary(share)
		if err != nil {
			return nil, err
		}
		defer stop()
		addresses[share] = address
	}
	var rounds []map[string]float64
	for n := range b.times(20) {
		round := map[string]float64{}
		for i := range shares {
			share := shares[(i+n)%len(shares)]
			r, err := b.slice(load.Options{Fresh: 8}, addresses[share])
			if err != nil {
				return nil, err
			}
			round[share] = perSecond(r)
		}
		rounds = append(rounds, round)
	}
	rate := func(share string) float64 {
		return middle(rounds, func(round map[string]float64) float64 { return round[share] })
	}
	var lines []line
	for _, share := range shares[1:] {
		ratio := middle(rounds, func(round map[string]float64) float64 { return round[share] / round[""] })
		lines = append(lines, line{
			"requests/s, a connection each, in a canary of " + share, fmt.Sprintf("%.0f/s", rate(share)),
			fmt.Sprintf("no canary %.0f/s", rate("")), fmt.Sprintf("%.3f", ratio), "-",
		})
	}
	return lines, nil
}

// canary starts a container, and with a share a swap that stays in its canary.
func (b *bench) canary(share string) (address string, stop func(), err error) {
	if address, err = freeAddress(); err != nil {
		return "", nil, err
	}
	c, err := b.engine.Start(b.ctx, engine.Spec{
		Env: []string{inherited + "tcp://" + address, "ENTRYPOINT_CANARY=" + share, "ENTRYPOINT_LOG_LEVEL=error"}, Command: []string{"/testapp"},
	})
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	stop = func() { cancel(); c.Close() }
	if err := b.answers(address); err != nil {
		stop()
		return "", nil, err
	}
	if share == "" {
		return address, stop, nil
	}
	swap := c.Command(ctx, "/entrypoint", "reload")
	swap.WaitDelay = time.Second
	if err := swap.Start(); err != nil {
		stop()
		return "", nil, err
	}
	stop = func() { cancel(); _ = swap.Wait(); c.Close() }
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, out, err := engine.Exec(b.ctx, c, "/entrypoint", "status", "--json")
		if err == nil && strings.Contains(strings.ReplaceAll(out, " ", ""), `"share":"`+share+`"`) {
			return address, stop, nil
		}
		if time.Now().After(until) {
			stop()
			return "", nil, fmt.Errorf("no candidate is in its canary: %w: %s", err, out)
		}
	}
}
