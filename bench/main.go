// Command bench measures the built init against the budgets of the design, in one run
// on one machine, each number beside its yardstick measured in turns with it: only
// the ratios mean anything elsewhere. It prints one Markdown report, and writes it and
// its plots into a folder.
//
//	go run ./bench [-quick] [-only calls,requests] [-out bench]
//
// It needs root (PID namespaces) and, as yardsticks, the programs of
// `integration/packages.sh bench`; rows whose yardstick is missing say so. Every
// measurement is bounded in time, and what fails is said at the end of the report.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// line is one row of the table.
type line struct {
	what, value, yardstick, ratio, budget string
}

// bench is what every measurement needs.
type bench struct {
	ctx      context.Context // of the measurement that runs
	binaries engine.Binaries
	tools    string // bench/tools, built
	bare     string // bench/bareinit, built
	engine   engine.Engine
	quick    bool
	report   *report
	reached  int // connections that drained at once
}

// measurements are made in this order.
var measurements = []struct {
	name    string
	measure func(*bench) ([]line, error)
}{
	{"start", (*bench).start}, {"starts", (*bench).starts}, {"rehearsal", (*bench).rehearsal}, {"calls", (*bench).calls},
	{"forward", (*bench).forward}, {"orphans", (*bench).orphans}, {"idle", (*bench).idle}, {"requests", (*bench).requests},
	{"proxy", (*bench).proxies}, {"steering", (*bench).steering}, {"judging", (*bench).judging}, {"swap", (*bench).firstRequest}, {"generations", (*bench).generations},
}

// all are the measurements in the order in which they are made: what sits still first.
func all() []measurement {
	var list []measurement
	for _, m := range measurements {
		list = append(list, measurement{m.name, m.measure})
	}
	return append(list, further...)
}

func names() []string {
	var list []string
	for _, m := range all() {
		list = append(list, m.name)
	}
	return list
}

func main() {
	quick := flag.Bool("quick", false, "a tenth of the work")
	only := flag.String("only", "", "make these measurements only, separated by commas: "+strings.Join(names(), ","))
	out := flag.String("out", "", "write report.md and the plots into this folder")
	flag.Parse()
	if err := run(*quick, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(quick bool, only, out string) error {
	if os.Getuid() != 0 {
		return fmt.Errorf("PID namespaces need root")
	}
	wanted, err := choose(only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "epbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{quick: quick, report: &report{quick: quick}}
	loads := [2]string{loadAverage()}
	if err := b.build(dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), whole)
	defer cancel()
	for _, m := range wanted {
		b.measure(ctx, m)
	}
	loads[1] = loadAverage()
	b.report.machine = describe(loads)
	fmt.Print(b.report.markdown())
	if out != "" {
		if err := b.report.write(out); err != nil {
			return err
		}
	}
	if n := len(b.report.failed); n > 0 {
		return fmt.Errorf("%d measurements failed, see the end of the report", n)
	}
	return nil
}

// choose finds the measurements that are named; all, if none is.
func choose(only string) (wanted []measurement, err error) {
	if only == "" {
		return all(), nil
	}
	for name := range strings.SplitSeq(only, ",") {
		at := slices.IndexFunc(all(), func(m measurement) bool { return m.name == name })
		if at < 0 {
			return nil, fmt.Errorf("no measurement is called %q: there are %s", name, strings.Join(names(), ", "))
		}
		wanted = append(wanted, all()[at])
	}
	return wanted, nil
}

// measure makes one measurement. One that fails does not keep the others from being made.
func (b *bench) measure(ctx context.Context, m measurement) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	b.ctx = ctx
	s := &part{name: m.name}
	b.report.sections = append(b.report.sections, s)
	lines, err := m.measure(b)
	s.lines = lines
	if m.name == "proxy" {
		b.judgeProxy(lines)
	}
	if err != nil {
		b.report.failed = append(b.report.failed, m.name+": "+err.Error())
	}
	fmt.Fprintf(os.Stderr, "bench: %s took %v\n", m.name, time.Since(began).Round(100*time.Millisecond))
}

// times is n, or a tenth of it in a quick run.
func (b *bench) times(n int) int {
	if b.quick {
		return max(3, n/10)
	}
	return n
}
