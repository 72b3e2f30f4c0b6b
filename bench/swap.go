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
	var lines []line
	for _, way := range []struct {
		what      string
		inherited bool
	}{{"trigger to first request, beyond the app's own start, inherited", true}, {"the same, the app binds by itself", false}} {
		swap, alone, err := b.swapTimes(address, way.inherited)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line{way.what, ms(swap - alone), "own start " + ms(alone), ratio(swap, alone), "<= 5 ms"})
	}
	return lines, nil
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

// swapTimes are the medians of a container's swaps and of the app's own starts, in turns under the same load.
func (b *bench) swapTimes(address string, inherited bool) (swap, alone time.Duration, err error) {
	dir := filepath.Dir(b.binaries.TestApp)
	const app = "/app/server"
	file := filepath.Join(dir, "bench-server")
	if err := b.binaries.Stamp(file, "version=v0"); err != nil {
		return 0, 0, err
	}
	spec := engine.Spec{Command: []string{app, "listen=tcp:" + address}, Files: map[string]string{app: file}}
	if inherited {
		spec.Env, spec.Command = []string{"ENTRYPOINT_LISTEN=tcp://" + address}, []string{app}
	}
	c, err := b.engine.Start(b.ctx, spec)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	if err := b.answers(address); err != nil {
		return 0, 0, err
	}
	l := load.Start(b.ctx, load.Options{Address: address, Fresh: 1, Pace: 200 * time.Microsecond})
	defer l.Stop()
	var took, own []time.Duration
	for i := range b.times(20) {
		d, err := b.ownStart()
		if err != nil {
			return 0, 0, err
		}
		own = append(own, d)
		version := fmt.Sprint("v", i+1)
		if d, err = b.swapOnce(c, l, file, app, version); err != nil {
			return 0, 0, err
		}
		took = append(took, d)
	}
	return median(took), median(own), nil
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
