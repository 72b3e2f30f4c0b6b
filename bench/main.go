// Command bench measures the built init against the budgets of the design, in one run
// on one machine, each number beside its yardstick measured in the same minute: only
// the ratios mean anything elsewhere. It prints a Markdown table.
//
//	go run ./bench [-quick] [-only calls,requests]
//
// It needs root (PID namespaces) and, as yardsticks, tini and dumb-init; rows whose
// yardstick is missing say so. Every row is bounded in time.
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
	ctx      context.Context
	binaries engine.Binaries
	engine   engine.Engine
	quick    bool
}

// measurements are made in this order.
var measurements = []struct {
	name    string
	measure func(*bench) ([]line, error)
}{
	{"start", (*bench).start}, {"starts", (*bench).starts}, {"rehearsal", (*bench).rehearsal}, {"calls", (*bench).calls},
	{"forward", (*bench).forward}, {"orphans", (*bench).orphans}, {"idle", (*bench).idle}, {"requests", (*bench).requests},
	{"steering", (*bench).steering}, {"swap", (*bench).firstRequest}, {"generations", (*bench).generations},
}

func names() []string {
	var all []string
	for _, m := range measurements {
		all = append(all, m.name)
	}
	return all
}

func main() {
	quick := flag.Bool("quick", false, "a tenth of the work")
	only := flag.String("only", "", "make these measurements only, separated by commas: "+strings.Join(names(), ","))
	flag.Parse()
	if err := run(*quick, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(quick bool, only string) error {
	if os.Getuid() != 0 {
		return fmt.Errorf("PID namespaces need root")
	}
	dir, err := os.MkdirTemp("", "epbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	b := &bench{ctx: ctx, quick: quick}
	if b.binaries, err = engine.Build(dir); err != nil {
		return err
	}
	if b.engine, err = engine.NewUnshare(b.binaries); err != nil {
		return err
	}
	fmt.Println("| what | entrypoint | yardstick | ratio | budget |\n|---|---|---|---|---|")
	for _, m := range measurements {
		if only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		lines, err := m.measure(b)
		if err != nil {
			return err
		}
		for _, l := range lines {
			fmt.Printf("| %s | %s | %s | %s | %s |\n", l.what, l.value, l.yardstick, l.ratio, l.budget)
		}
	}
	return nil
}

// times is n, or a tenth of it in a quick run.
func (b *bench) times(n int) int {
	if b.quick {
		return max(3, n/10)
	}
	return n
}
