package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// grown is what was measured at one amount of work.
type grown struct {
	n           int
	start, swap time.Duration
	footprint
}

// growing starts a container for an amount of work, swaps it a few times, and looks at what the init has then. first is the address of
// which a client is a witness, last the one that the app opens last.
func (b *bench) growing(n int, spec engine.Spec, first, last string) (g grown, err error) {
	g.n = n
	began := time.Now()
	c, err := b.engine.Start(b.ctx, spec)
	if err != nil {
		return g, err
	}
	defer c.Close()
	if err := b.answers(last); err != nil {
		return g, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	g.start = time.Since(began)
	if err := waitIdle(b.ctx, c); err != nil { // a held socket takes connections before the app is ready
		return g, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	var took []time.Duration
	for i := range b.times(15) {
		d, err := b.swapUnder(c, first, i+2, word(appWord))
		if err != nil {
			return g, fmt.Errorf("%w\n%s", err, c.Logs())
		}
		took = append(took, d)
	}
	g.swap, g.footprint = median(took), b.settled(c.PID())
	return g, nil
}

// swapUnder is the time from HUP to the first answer of generation n.
func (b *bench) swapUnder(c engine.Container, address string, n int, version func(string) (string, bool)) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	l := load.Start(ctx, load.Options{Address: address, Fresh: 1, Pace: 200 * time.Microsecond, Version: version})
	defer l.Stop()
	if err := l.WaitVersion(ctx, fmt.Sprint(n-1)); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := c.Signal(hup); err != nil {
		return 0, err
	}
	if err := l.WaitVersion(ctx, fmt.Sprint(n)); err != nil {
		return 0, err
	}
	return l.Report().Versions[fmt.Sprint(n)].First.Sub(began), waitIdle(ctx, c)
}

// tell makes a table and its plots of all amounts. The name is that of the files.
func (b *bench) tell(name, title, what string, all []grown, notes ...string) {
	t := table{title: title, head: []string{what, "start to first answer", "swap", "memory (PSS)", "anonymous", "threads", "descriptors"}, notes: notes}
	start, swap, memory, open := series{name: "start"}, series{name: "swap"}, series{name: "memory (PSS)"}, series{name: "descriptors"}
	for _, g := range all {
		t.rows = append(t.rows, []string{number(float64(g.n)), ms(g.start), ms(g.swap), number(float64(g.share)) + " KiB", number(float64(g.anonymous)) + " KiB", fmt.Sprint(g.threads), fmt.Sprint(g.descriptors)})
		x := float64(g.n)
		start.points = append(start.points, [2]float64{x, float64(g.start) / 1e6})
		swap.points = append(swap.points, [2]float64{x, float64(g.swap) / 1e6})
		memory.points = append(memory.points, [2]float64{x, float64(g.share) / 1024})
		open.points = append(open.points, [2]float64{x, float64(g.descriptors)})
	}
	t.plots = []plot{
		{name + "-time.svg", chart{title + ": time", what, "ms", []series{start, swap}}},
		{name + "-memory.svg", chart{title + ": memory of the init", what, "MiB", []series{memory}}},
	}
	if name == "sockets" {
		t.plots = append(t.plots, plot{name + "-descriptors.svg", chart{title + ": descriptors of the init", what, "open", []series{open}}})
	}
	b.add(t)
}

// sockets is what many held addresses cost: the app inherits them all.
func (b *bench) sockets() ([]line, error) {
	var list []grown
	for _, n := range []int{1, 10, 100, 300, 1000} {
		var addresses, words []string
		for i := range n { // all of 127/8 is this machine: a port that is free on one is of no use to others
			addresses = append(addresses, fmt.Sprintf("127.77.%d.%d:19070", i/250, i%250+1))
			words = append(words, "tcp://"+addresses[i])
		}
		g, err := b.growing(n, engine.Spec{
			Env: []string{inherited + strings.Join(words, ","), "ENTRYPOINT_LOG_LEVEL=error"}, Command: []string{"/testapp", "linger=0s"},
		}, addresses[0], addresses[n-1])
		if err != nil {
			return nil, fmt.Errorf("%d sockets: %w", n, err)
		}
		list = append(list, g)
	}
	b.tell("sockets", "Held sockets", "held TCP sockets", list)
	return nil, nil
}

// workers is what many processes of one program cost.
func (b *bench) workers() ([]line, error) {
	var list []grown
	for _, n := range []int{1, 2, 4, 16, 64} {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		g, err := b.growing(n, engine.Spec{
			Env: []string{inherited + "tcp://" + address, fmt.Sprint("ENTRYPOINT_WORKERS=", n), "ENTRYPOINT_LOG_LEVEL=error"}, Command: []string{"/testapp", "linger=0s"},
		}, address, address)
		if err != nil {
			return nil, fmt.Errorf("%d workers: %w", n, err)
		}
		list = append(list, g)
	}
	b.tell("workers", "Workers", "workers", list,
		"A swap starts as many new processes as there are workers, and ends when all of them are ready: the time is mostly theirs, on the processors that there are.")
	return nil, nil
}

// swaps is what is left of many swaps: nothing.
func (b *bench) swaps() ([]line, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c, err := b.engine.Start(b.ctx, engine.Spec{Env: []string{watched, "ENTRYPOINT_LOG_LEVEL=error", "ENTRYPOINT_STOP_SIGNAL=KILL"}, Command: []string{"/testapp", "listen=tcp:" + address}})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := b.answers(address); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, c.Logs())
	}
	l := load.Start(b.ctx, load.Options{Address: address, Fresh: 1, Pace: time.Millisecond, Version: word(appWord), Duration: longest})
	defer l.Stop()
	settled := []footprint{b.settled(c.PID())}
	var each []footprint
	for n := range b.times(200) {
		if err := c.Signal(hup); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
		err := l.WaitVersion(ctx, fmt.Sprint(n+2))
		if err == nil {
			err = waitIdle(ctx, c)
		}
		cancel()
		if err != nil {
			return nil, fmt.Errorf("swap %d: %w\n%s", n+1, err, c.Logs())
		}
		each = append(each, footprintOf(c.PID()))
		if at := n + 1; at == b.times(200)/4 || at == b.times(200)/2 {
			settled = append(settled, b.settled(c.PID()))
		}
	}
	settled = append(settled, b.settled(c.PID()))
	b.tellSwaps(each, settled)
	return nil, nil
}

func (b *bench) tellSwaps(each, settled []footprint) {
	total := len(each)
	t := table{
		title: "Swaps, one after the other", head: []string{"after swaps", "memory (PSS)", "anonymous", "threads", "descriptors"},
		notes: []string{"Each row is two seconds and more after the last swap, when the init has given memory back; the plots are from right after each swap."},
	}
	for i, n := range []int{0, total / 4, total / 2, total} {
		f := settled[i]
		t.rows = append(t.rows, []string{fmt.Sprint(n), number(float64(f.share)) + " KiB", number(float64(f.anonymous)) + " KiB", fmt.Sprint(f.threads), fmt.Sprint(f.descriptors)})
	}
	memory, threads, open := series{name: "memory (PSS)"}, series{name: "threads"}, series{name: "descriptors"}
	for i, f := range each {
		x := float64(i + 1)
		memory.points = append(memory.points, [2]float64{x, float64(f.share) / 1024})
		threads.points = append(threads.points, [2]float64{x, float64(f.threads)})
		open.points = append(open.points, [2]float64{x, float64(f.descriptors)})
	}
	t.plots = []plot{
		{"swaps-memory.svg", linear(chart{"Swaps: memory of the init", "swaps", "MiB", []series{memory}})},
		{"swaps-open.svg", linear(chart{"Swaps: threads and descriptors of the init", "swaps", "open", []series{threads, open}})},
	}
	b.add(t)
}

// linear has its axis of x begin at 0, where a logarithmic one cannot.
func linear(c chart) chart {
	for i := range c.series {
		c.series[i].points = append([][2]float64{{0, c.series[i].points[0][1]}}, c.series[i].points...)
	}
	return c
}
