package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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

// requests compares the app behind a held socket, inherited and put under its bind, with the app alone, in turns.
func (b *bench) requests() ([]line, error) {
	ways := []func(address string) engine.Spec{
		func(address string) engine.Spec {
			return engine.Spec{Init: []string{"/testapp", "listen=tcp:" + address}}
		},
		func(address string) engine.Spec {
			return engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=tcp://" + address}, Command: []string{"/testapp"}}
		},
		func(address string) engine.Spec {
			return engine.Spec{Command: []string{"/testapp", "listen=tcp:" + address}}
		},
	}
	best := make([]float64, len(ways))
	for range 3 {
		for i, way := range ways {
			rate, err := b.rate(way)
			if err != nil {
				return nil, err
			}
			best[i] = max(best[i], rate)
		}
	}
	var lines []line
	for i, what := range []string{"", "requests/s through an inherited socket", "requests/s through a socket under the app's own bind"} {
		if i > 0 {
			lines = append(lines, line{what, fmt.Sprintf("%.0f/s", best[i]), fmt.Sprintf("alone %.0f/s", best[0]), fmt.Sprintf("%.3f", best[i]/best[0]), ">= 0.98"})
		}
	}
	return lines, nil
}

// rate runs a container and asks it for two seconds, a connection for each request.
func (b *bench) rate(spec func(address string) engine.Spec) (float64, error) {
	address, err := freeAddress()
	if err != nil {
		return 0, err
	}
	c, err := b.engine.Start(b.ctx, spec(address))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := b.answers(address); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	l := load.Start(b.ctx, load.Options{Address: address, Fresh: 8, Duration: 2 * time.Second, MaxRequests: 200_000})
	l.Wait()
	r := l.Report()
	if n := r.Failures(load.Fresh); n > 0 {
		return 0, fmt.Errorf("%d requests failed: %s", n, r.FailedText())
	}
	return float64(r.Requests()) / r.Elapsed.Seconds(), nil
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
	return []line{{"steering switch", us(time.Duration(ns)), "-", "-", "<= 0.1 ms"}}, err
}

// firstRequest is the time from HUP to the first answer of the new generation, less
// what the app needs from exec to its first answer when it starts alone.
func (b *bench) firstRequest() ([]line, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	alone, err := b.ownStart(address)
	if err != nil {
		return nil, err
	}
	var lines []line
	for _, way := range []struct {
		what      string
		inherited bool
	}{{"trigger to first request, beyond the app's own start, inherited", true}, {"the same, the app binds by itself", false}} {
		swap, err := b.swapTimes(address, way.inherited)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line{way.what, ms(swap - alone), "own start " + ms(alone), ratio(swap, alone), "<= 5 ms"})
	}
	return lines, nil
}

func (b *bench) ownStart(address string) (time.Duration, error) {
	var took []time.Duration
	for range b.times(20) {
		begin := time.Now()
		cmd := exec.Command(b.binaries.TestApp, "listen=tcp:"+address)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		err := b.answers(address)
		took = append(took, time.Since(begin))
		cmd.Process.Kill()
		cmd.Wait()
		if err != nil {
			return 0, err
		}
	}
	return median(took), nil
}

func (b *bench) swapTimes(address string, inherited bool) (time.Duration, error) {
	dir := filepath.Dir(b.binaries.TestApp)
	const app = "/app/server"
	file := filepath.Join(dir, "bench-server")
	if err := b.binaries.Stamp(file, "version=v0"); err != nil {
		return 0, err
	}
	spec := engine.Spec{Command: []string{app, "listen=tcp:" + address}, Files: map[string]string{app: file}}
	if inherited {
		spec.Env, spec.Command = []string{"ENTRYPOINT_LISTEN=tcp://" + address}, []string{app}
	}
	c, err := b.engine.Start(b.ctx, spec)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := b.answers(address); err != nil {
		return 0, err
	}
	l := load.Start(b.ctx, load.Options{Address: address, Fresh: 1, Pace: 200 * time.Microsecond})
	defer l.Stop()
	var took []time.Duration
	for i := range b.times(20) {
		version := fmt.Sprint("v", i+1)
		d, err := b.swapOnce(c, l, file, app, version)
		if err != nil {
			return 0, err
		}
		took = append(took, d)
	}
	return median(took), nil
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

// waitIdle lets the old generation go before the next swap.
func waitIdle(ctx context.Context, c engine.Container) error {
	code, out, err := engine.Exec(ctx, c, "/entrypoint", "health")
	if err == nil && code != 0 {
		err = fmt.Errorf("health: %d %s", code, out)
	}
	time.Sleep(100 * time.Millisecond)
	return err
}
