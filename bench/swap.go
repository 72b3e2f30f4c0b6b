package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

func freeAddress() (string, error) {
	for port := 19080; port < 20000; port++ {
		address := "127.0.0.1:" + strconv.Itoa(port)
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port")
}

// answers waits until somebody answers.
func (b *bench) answers(address string) error {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		l := load.Start(ctx, load.Options{Address: address, Fresh: 1, MaxRequests: 1})
		l.Wait()
		if l.Report().Failures(load.Fresh) == 0 {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("nobody answers on %s", address)
}

// steering takes the number of the handoff package's own benchmark.
func (b *bench) steering() ([]line, error) {
	cmd := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "Steer", "-benchtime", "300ms", "./handoff")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmark of handoff: %w\n%s", err, out)
	}
	found := regexp.MustCompile(`Steer\S*\s+\d+\s+([\d.]+) ns/op`).FindSubmatch(out)
	if found == nil {
		return []line{{"steering switch", "no benchmark", "-", "-", "<= 0.1 ms"}}, nil
	}
	ns, err := strconv.ParseFloat(string(found[1]), 64)
	b.judge("steer", "", count(ns/float64(time.Millisecond)))
	return []line{{"steering switch", us(time.Duration(ns)), "-", "-", "<= 0.1 ms"}}, err
}

// firstRequest is the time from HUP to the first answer of the new generation, less
// what the app needs from exec to its first answer when it starts alone.
func (b *bench) firstRequest() ([]line, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	const byPath = "ENTRYPOINT_EXEC=path"
	phases := table{
		title: "Where the time of a swap goes", head: append([]string{"median of each phase, by the init's own log"}, swapPhases...),
		notes: []string{"*check* opens, looks at and copies the program; *start* forks and executes it; *ready* is the app's own start and the connection that shows that it accepts; *promote* is the switch."},
	}
	var lines []line
	for _, way := range []struct {
		what, label string
		env         []string
	}{
		{"trigger to first request, beyond the app's own start, inherited", "inherited", []string{inherited + "tcp://" + address}},
		{"the same, the app binds by itself", "the app binds by itself", nil},
		{"the same, inherited, with " + byPath + ", which saves the copy", "", []string{inherited + "tcp://" + address, byPath}},
	} {
		t, err := b.swapTimes(address, way.env)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.what, err)
		}
		more := figureOf(pairs(in(time.Millisecond, t.swap), in(time.Millisecond, t.alone), less))
		limit := "-"
		if way.label != "" {
			b.judge("trigger", way.label, more)
			limit = "<= 5 ms"
		}
		lines = append(lines, line{way.what, more.text("ms"), "own start " + ms(median(t.alone)), ratio(median(t.swap), median(t.alone)), limit})
		row := []string{way.what}
		for _, phase := range swapPhases {
			row = append(row, figureOf(t.phases[phase]).text("ms"))
		}
		phases.rows = append(phases.rows, row)
	}
	b.add(phases)
	return lines, nil
}

// swapPhases are those of a swap without a trial, as the log names them.
var swapPhases = []string{"check", "start", "ready", "promote"}

// parsePhases takes the milliseconds of each phase out of the log of an init, without those of its first generation.
func parsePhases(log string) map[string][]float64 {
	all := map[string][]float64{}
	for row := range strings.Lines(log) {
		var l struct {
			Message string `json:"msg"`
			From    int
			Phases  map[string]string
		}
		if json.Unmarshal([]byte(row), &l) != nil || l.Message != "swap" || l.From == 0 {
			continue
		}
		for name, text := range l.Phases {
			if took, err := time.ParseDuration(text); err == nil {
				all[name] = append(all[name], float64(took)/float64(time.Millisecond))
			}
		}
	}
	return all
}

// ownStart is how long the app takes from exec to its first answer.
func (b *bench) ownStart() (time.Duration, error) {
	address, err := freeAddress()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	cmd := exec.Command(b.binaries.TestApp, "listen=tcp:"+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	err = b.answers(address)
	return time.Since(begin), err
}

// swapTimes are the times of a container's swaps and of the app's own starts.
type swapTimes struct {
	swap, alone []time.Duration
	phases      map[string][]float64
}

// swapTimes swaps a container and starts the app alone, in turns under the same load. Without an address in env the app binds by itself.
func (b *bench) swapTimes(address string, env []string) (t swapTimes, err error) {
	dir := filepath.Dir(b.binaries.TestApp)
	const app = "/app/server"
	file := filepath.Join(dir, "bench-server")
	if err := b.binaries.Stamp(file, "version=v0"); err != nil {
		return t, err
	}
	spec := engine.Spec{Env: env, Command: []string{app}, Files: map[string]string{app: file}}
	if env == nil {
		spec.Command = append(spec.Command, "listen=tcp:"+address)
	}
	c, err := b.engine.Start(b.ctx, spec)
	if err != nil {
		return t, err
	}
	defer c.Close()
	if err := b.answers(address); err != nil {
		return t, err
	}
	l := load.Start(b.ctx, load.Options{Address: address, Fresh: 1, Pace: 200 * time.Microsecond})
	defer l.Stop()
	for i := range b.times(30) {
		d, err := b.ownStart()
		if err != nil {
			return t, err
		}
		t.alone = append(t.alone, d)
		version := fmt.Sprint("v", i+1)
		if d, err = b.swapOnce(c, l, file, app, version); err != nil {
			return t, err
		}
		t.swap = append(t.swap, d)
	}
	t.phases = parsePhases(c.Logs())
	return t, nil
}

func (b *bench) swapOnce(c engine.Container, l *load.Load, file, app, version string) (time.Duration, error) {
	if err := b.binaries.Stamp(file, "version="+version+" linger=0s"); err != nil {
		return 0, err
	}
	if err := c.Put(file, app); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	begin := time.Now()
	if err := c.Signal(syscall.SIGHUP); err != nil {
		return 0, err
	}
	if err := l.WaitVersion(ctx, version); err != nil {
		return 0, err
	}
	first := l.Report().Versions[version].First
	return first.Sub(begin), waitIdle(ctx, c)
}

// waitIdle waits until the init is healthy, and lets the old generation go before the next swap.
func waitIdle(ctx context.Context, c engine.Container) error {
	for {
		code, out, err := engine.Exec(ctx, c, "/entrypoint", "health")
		switch {
		case err != nil:
			return fmt.Errorf("health: %w: %s", err, out)
		case code == 0:
			time.Sleep(100 * time.Millisecond)
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}
