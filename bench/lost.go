package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// swapper is an app that can be replaced: by us, or by what people do without us.
type swapper struct {
	address string
	swap    func(n int) error // begin to replace it by generation n
	stop    func()
}

// word takes the generation out of an answer: its word number at.
func word(at int) func(string) (string, bool) {
	return func(body string) (string, bool) {
		words := strings.Fields(body)
		if len(words) <= at {
			return "", false
		}
		return words[at], true
	}
}

// appWord is where the test app has its generation, and toolWord the server of the tools.
const (
	appWord  = 2
	toolWord = 1
)

// lost counts what clients lose when the app is replaced again and again: with us, and as controls, which show that the clients
// would notice, by those who stop and start, or share the port.
func (b *bench) lost() ([]line, error) {
	t := table{
		title: "Connections lost while the app is replaced",
		head:  []string{"how", "the old one is told", "swaps", "requests", "failed", "of 1,000 swaps that is"},
		notes: []string{"Eight clients with 1 ms between two requests, and a new connection for each. A *reset* was accepted by a program that then was gone, or waited in its queue; a *refused* one met nobody."},
	}
	for _, way := range []struct {
		what, told string
		swaps      int
		open       func() (*swapper, error)
	}{
		{"entrypoint, the app binds by itself", "KILL", b.times(1000), func() (*swapper, error) { return b.underInit(watched, "KILL") }},
		{"entrypoint, the app inherits", "KILL", b.times(200), func() (*swapper, error) { return b.underInit(inherited, "KILL") }},
		{"a new one beside it, SO_REUSEPORT", "KILL", b.times(50), func() (*swapper, error) { return b.byHand(true, syscall.SIGKILL) }},
		{"a new one beside it, SO_REUSEPORT", "TERM", b.times(50), func() (*swapper, error) { return b.byHand(true, syscall.SIGTERM) }},
		{"stopped, then started", "KILL", b.times(50), func() (*swapper, error) { return b.byHand(false, syscall.SIGKILL) }},
		{"stopped, then started", "TERM", b.times(50), func() (*swapper, error) { return b.byHand(false, syscall.SIGTERM) }},
	} {
		s, err := way.open()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.what, err)
		}
		r, err := b.replaced(s, way.swaps, load.Options{Fresh: 8, Pace: time.Millisecond, Version: word(appWord)}, "")
		s.stop()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.what, err)
		}
		failed := r.Failures(load.Fresh)
		t.rows = append(t.rows, []string{way.what, way.told, number(float64(way.swaps)), number(float64(r.Requests())), r.FailedText(), number(float64(failed) / float64(way.swaps) * 1000)})
		if strings.HasPrefix(way.what, mine) {
			b.judge("lost", fmt.Sprintf("%s, %d swaps, %d requests", strings.TrimPrefix(way.what, mine+", "), way.swaps, r.Requests()), count(float64(failed)))
		}
	}
	b.add(t)
	return nil, nil
}

// replaced replaces an app so many times under a load: each time as soon as the generation before has answered, whose name is prefix and
// its number.
func (b *bench) replaced(s *swapper, swaps int, o load.Options, prefix string) (load.Report, error) {
	o.Address, o.Duration = s.address, longest
	if err := b.answers(s.address); err != nil {
		return load.Report{}, err
	}
	l := load.Start(b.ctx, o)
	defer l.Stop()
	for n := range swaps {
		if err := l.WaitRequests(b.ctx, 10); err != nil {
			return load.Report{}, err
		}
		if err := s.swap(n + 2); err != nil {
			return load.Report{}, err
		}
		ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
		err := l.WaitVersion(ctx, fmt.Sprint(prefix, n+2))
		cancel()
		if err != nil {
			return load.Report{}, err
		}
	}
	return l.Stop(), nil
}

// underInit runs the app with us, in a mode. Generations may drain as long as they have to: nobody is hurried.
func (b *bench) underInit(mode, signal string) (*swapper, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	env := []string{"ENTRYPOINT_STOP_SIGNAL=" + signal, "ENTRYPOINT_MAX_DRAINING=50", "ENTRYPOINT_LOG_LEVEL=error"}
	if mode == inherited {
		return b.contained(engine.Spec{Env: append(env, inherited+"tcp://"+address), Command: []string{"/testapp", "linger=0s"}}, address)
	}
	return b.contained(engine.Spec{Env: append(env, mode), Command: []string{"/testapp", "linger=0s", "listen=tcp:" + address}}, address)
}

// contained is a container that swaps at HUP.
func (b *bench) contained(spec engine.Spec, address string) (*swapper, error) {
	c, err := b.engine.Start(b.ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := b.answers(address); err != nil {
		err = fmt.Errorf("%w\n%s", err, c.Logs())
		c.Close()
		return nil, err
	}
	return &swapper{address, func(int) error { return c.Signal(syscall.SIGHUP) }, func() { c.Close() }}, nil
}

// byHand replaces the app without any init: a new one on a socket of its own beside the old one, which is told to go when the new one
// serves; or only when the old one is gone.
func (b *bench) byHand(beside bool, told syscall.Signal) (*swapper, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	current, err := b.onOwnSocket(address, 1)
	if err != nil {
		return nil, err
	}
	var gone []*exec.Cmd
	end := func(cmd *exec.Cmd) {
		cmd.Process.Signal(told)
		gone = append(gone, cmd)
	}
	swap := func(n int) error {
		old := current
		if !beside {
			end(old)
			old.Wait()
		}
		if current, err = b.onOwnSocket(address, n); err != nil {
			return err
		}
		if beside {
			end(old)
		}
		return nil
	}
	return &swapper{address, swap, func() {
		end(current)
		for _, cmd := range gone {
			cmd.Process.Kill()
			cmd.Wait() // again, for some: that is an error and nothing else
		}
	}}, nil
}

// onOwnSocket starts the app with a socket that shares its port, and waits until it says that it serves.
func (b *bench) onOwnSocket(address string, generation int) (*exec.Cmd, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		if err == nil {
			err = failed
		}
		return err
	}}
	config.SetMultipathTCP(false)
	l, err := config.Listen(b.ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	cmd := exec.Command(b.binaries.TestApp, "listen=fd:3", "ready=false", "linger=0s")
	cmd.ExtraFiles, cmd.Env = []*os.File{socket}, append(os.Environ(), fmt.Sprint("ENTRYPOINT_GENERATION=", generation))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = write
	err = cmd.Start()
	write.Close()
	if err != nil {
		read.Close()
		return nil, err
	}
	lines := bufio.NewScanner(read)
	for lines.Scan() {
		if strings.HasSuffix(lines.Text(), ": serving") {
			go func() { // until it is gone
				for lines.Scan() {
				}
				read.Close()
			}()
			return cmd, nil
		}
	}
	read.Close()
	return nil, fmt.Errorf("the app does not serve: %w", cmd.Wait())
}

// keepAlive counts what keep-alive clients that never try again lose: with package graceful, behind the HTTP proxy where there is one,
// and with an app that ends at TERM as most do, which shows that the clients would notice.
func (b *bench) keepAlive() ([]line, error) {
	t := table{
		title: "Keep-alive requests lost while the app is replaced",
		head:  []string{"how", "swaps", "requests", "failed"},
		notes: []string{"Sixteen keep-alive clients with 5 ms between two requests, and two more with a new connection for each."},
	}
	for _, way := range []struct {
		what, budget, prefix string
		version              func(string) (string, bool)
		open                 func() (*swapper, error)
	}{
		{"package `graceful`", "graceful", "g", nil, b.gracefully},
		{"HTTP proxy, the app ends at TERM", "http-proxy", "", word(appWord), b.behindProxy},
		{"the app ends at TERM", "", "", word(appWord), b.rudely},
	} {
		s, err := way.open()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.what, err)
		}
		if s == nil {
			t.rows = append(t.rows, []string{way.what, "-", "-", "not measured: " + noProxy})
			continue
		}
		swaps := b.times(100)
		paced := *s
		paced.swap = func(n int) error {
			time.Sleep(50 * time.Millisecond) // so that every client has a connection to what is replaced
			return s.swap(n)
		}
		r, err := b.replaced(&paced, swaps, load.Options{Reused: 16, Fresh: 2, Pace: 5 * time.Millisecond, Version: way.version}, way.prefix)
		s.stop()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.what, err)
		}
		t.rows = append(t.rows, []string{way.what, fmt.Sprint(swaps), number(float64(r.Requests())), r.FailedText()})
		if way.budget != "" {
			b.judge(way.budget, sizeOf(swaps, 100, "swaps"), count(float64(r.Failures(load.Reused)+r.Failures(load.Fresh))))
		}
	}
	b.add(t)
	return nil, nil
}

// patient are the variables of all: time for everybody. leaving are those of apps that take leave: TERM at once, so that all clients move.
// Behind the proxy that would end an app that has requests.
var (
	patient = []string{"ENTRYPOINT_MAX_DRAINING=50", "ENTRYPOINT_LOG_LEVEL=error"}
	leaving = append([]string{"ENTRYPOINT_DRAIN_QUIET=0s"}, patient...)
)

func (b *bench) gracefully() (*swapper, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(filepath.Dir(b.binaries.TestApp), "graceful-server")
	build := exec.CommandContext(b.ctx, "go", "build", "-o", file, "./examples/go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build examples/go: %w\n%s", err, out)
	}
	_, port, _ := strings.Cut(address, ":")
	return b.contained(engine.Spec{Env: append([]string{"PORT=" + port}, leaving...), Files: map[string]string{"/app/server": file}, Command: []string{"/app/server"}}, address)
}

// behindProxy is nil where there is no proxy.
func (b *bench) behindProxy() (*swapper, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	env := append([]string{"ENTRYPOINT_HANDOFF=proxy", "ENTRYPOINT_PROXY=http", inherited + "tcp://" + address, "ENTRYPOINT_PROXY_RANGE=18500-18900"}, patient...)
	command := []string{"/testapp", "listen=tcp:127.0.0.1:{port}", "ready=false", "term=now"}
	check := exec.CommandContext(b.ctx, b.binaries.Entrypoint, "check")
	check.Env = append(env, "ENTRYPOINT_COMMAND="+strings.Join(command, " "))
	if out, err := check.CombinedOutput(); strings.Contains(string(out), "ENTRYPOINT_PROXY") && err != nil {
		return nil, nil
	}
	return b.contained(engine.Spec{Env: env, Command: command}, address)
}

func (b *bench) rudely() (*swapper, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	return b.contained(engine.Spec{Env: leaving, Command: []string{"/testapp", "term=now", "listen=tcp:" + address}}, address)
}
