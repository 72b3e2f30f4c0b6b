package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

const hup = syscall.SIGHUP

// drained is what was measured while so many connections drained.
type drained struct {
	n, workers    int
	before, while [3]time.Duration // an answer of the init: median, 99th percentile, longest
	first, second time.Duration    // swaps: with all of them on what is replaced; and while they drain
	busy          float64          // share of a processor that the init takes meanwhile
	lost          int
	footprint
}

// draining swaps an app that has very many requests under way, and once more while they drain.
func (b *bench) draining() ([]line, error) {
	t := table{
		title: "Connections that drain",
		head: []string{"connections", "workers", "swap, all of them on the old one", "a swap more while they drain", "answer of the init before: median, p99, max",
			"while they drain", "of a processor meanwhile", "memory (PSS)", "threads, descriptors", "lost"},
	}
	var swap, more, answer, memory series
	swap.name, more.name, answer.name, memory.name = "first swap", "second swap", "p99 of an answer", "memory (PSS)"
	for _, n := range []int{1, 100, 1000, 10000, 50000} {
		d, err := b.drain(n)
		if err != nil {
			return nil, fmt.Errorf("%d connections: %w", n, err)
		}
		t.rows = append(t.rows, []string{number(float64(n)), fmt.Sprint(d.workers), ms(d.first), ms(d.second), three(d.before), three(d.while),
			fmt.Sprintf("%.1f %%", 100*d.busy), number(float64(d.share)) + " KiB", fmt.Sprintf("%d, %d", d.threads, d.descriptors), fmt.Sprint(d.lost)})
		x := float64(n)
		swap.points = append(swap.points, [2]float64{x, float64(d.first) / 1e6})
		more.points = append(more.points, [2]float64{x, float64(d.second) / 1e6})
		answer.points = append(answer.points, [2]float64{x, float64(d.while[1]) / 1e6})
		memory.points = append(memory.points, [2]float64{x, float64(d.share) / 1024})
		if d.lost == 0 {
			b.reached = max(b.reached, n)
		}
	}
	b.judge("draining", "", count(float64(b.reached)))
	t.notes = []string{fmt.Sprintf("Each is a request that the old generation does not answer. A process may have %d files open here, so the old generation is as many workers as that takes, and the clients are several processes, "+
		"each with an address and so with ports of its own. An answer is that of `health`, asked of the goroutine that owns all state; its time has a connection in it.", openFiles())}
	t.plots = []plot{
		{"draining-time.svg", chart{"Connections that drain: time", "connections", "ms", []series{swap, more, answer}}},
		{"draining-memory.svg", chart{"Connections that drain: memory of the init", "connections", "MiB", []series{memory}}},
	}
	b.add(t)
	return nil, nil
}

func three(d [3]time.Duration) string {
	return fmt.Sprintf("%s, %s, %s", us(d[0]), us(d[1]), us(d[2]))
}

// openFiles is the hard limit of a process.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Max, 1<<20))
}

func (b *bench) drain(n int) (d drained, err error) {
	most := min(openFiles()*3/4, 12500) // workers are chosen by chance: leave room
	d.n, d.workers = n, (n+most-1)/most
	address, err := freeAddress()
	if err != nil {
		return d, err
	}
	c, err := b.engine.Start(b.ctx, engine.Spec{
		Env: []string{inherited + "tcp://" + address + "?backlog=4096", fmt.Sprint("ENTRYPOINT_WORKERS=", d.workers), "ENTRYPOINT_DRAIN_QUIET=10m", "ENTRYPOINT_DRAIN_TIMEOUT=10m",
			"ENTRYPOINT_MAX_DRAINING=5", "ENTRYPOINT_LOG_LEVEL=error"},
		Files: map[string]string{"/app/server": b.tools, "/tools": b.tools}, Command: []string{"/app/server", "serve"},
	})
	if err != nil {
		return d, err
	}
	defer c.Close()
	if err := b.answers(address); err != nil {
		return d, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	if err := waitIdle(b.ctx, c); err != nil {
		return d, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	if d.before, err = b.asked(c); err != nil {
		return d, err
	}
	holders, err := b.hold(address, n, most)
	for _, h := range holders {
		defer h.stop()
	}
	if err != nil {
		return d, err
	}
	if d.first, err = b.swapUnder(c, address, 2, word(toolWord)); err != nil {
		return d, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	used, began := processorTime(c.PID()), time.Now()
	if d.while, err = b.asked(c); err != nil {
		return d, err
	}
	time.Sleep(2 * time.Second)
	d.busy = float64(processorTime(c.PID())-used) / float64(time.Since(began))
	if d.second, err = b.swapUnder(c, address, 3, word(toolWord)); err != nil {
		return d, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	d.footprint = b.settled(c.PID())
	for _, h := range holders {
		lost, err := h.release()
		if err != nil {
			return d, err
		}
		d.lost += lost
	}
	return d, nil
}

// asked are the times of a few hundred answers of the init.
func (b *bench) asked(c engine.Container) (took [3]time.Duration, err error) {
	code, out, err := engine.Exec(b.ctx, c, "/tools", "ask", strconv.Itoa(b.times(1000)))
	if err == nil && code != 0 {
		err = fmt.Errorf("code %d", code)
	}
	if err == nil {
		_, err = fmt.Sscan(out, &took[0], &took[1], &took[2])
	}
	if err != nil {
		err = fmt.Errorf("cannot ask the init: %w: %s", err, out)
	}
	return took, err
}

// processorTime is what a process has used.
func processorTime(pid int) time.Duration {
	var sum time.Duration
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, e := range entries {
		var ns int64
		if _, err := fmt.Sscan(read(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, e.Name())), &ns); err == nil {
			sum += time.Duration(ns)
		}
	}
	return sum
}

// holder is a process that keeps connections.
type holder struct {
	cmd   *exec.Cmd
	input io.Closer
	lines *bufio.Reader
}

// hold opens n connections, at most so many from one process, and returns when all of them are accepted. What it returns is to be stopped,
// also beside an error.
func (b *bench) hold(address string, n, most int) (all []*holder, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	for i := 0; n > 0; i++ {
		h, err := startHolder(b.ctx, b.tools, address, fmt.Sprintf("127.78.0.%d", i+1), min(n, most))
		if err != nil {
			return all, err
		}
		all = append(all, h)
		n -= most
	}
	stop := context.AfterFunc(ctx, func() {
		for _, h := range all {
			h.cmd.Process.Kill()
		}
	})
	defer stop()
	for _, h := range all {
		if _, err := h.lines.ReadString('\n'); err != nil {
			return all, fmt.Errorf("the clients have not opened their connections: %w", err)
		}
	}
	return all, nil
}

func startHolder(ctx context.Context, tools, address, from string, n int) (*holder, error) {
	cmd := exec.CommandContext(ctx, tools, "hold", address, from, strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &holder{cmd, input, bufio.NewReader(out)}, cmd.Start()
}

// release lets the connections go, and tells how many had ended before.
func (h *holder) release() (lost int, err error) {
	h.input.Close()
	text, err := h.lines.ReadString('\n')
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(strings.TrimPrefix(text, "lost"), &lost)
	return lost, err
}

func (h *holder) stop() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}
