// Command bench measures the built init against the budgets of the design, in one run
// on one machine, each number beside its yardstick measured in the same minute: only
// the ratios mean anything elsewhere. It prints a Markdown table.
//
//	go run ./bench [-quick]
//
// It needs root (PID namespaces) and, as yardsticks, tini and dumb-init; rows whose
// yardstick is missing say so. Every row is bounded in time.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
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

func main() {
	quick := flag.Bool("quick", false, "a tenth of the work")
	flag.Parse()
	if err := run(*quick); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(quick bool) error {
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
	for _, measure := range []func() ([]line, error){
		b.start, b.starts, b.rehearsal, b.calls, b.forward, b.orphans, b.idle, b.requests, b.steering, b.firstRequest,
	} {
		lines, err := measure()
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
