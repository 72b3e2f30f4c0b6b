// Command demo shows what the product is for, on the real thing: it builds the image of
// Dockerfile.example, starts it, puts load on it, and changes the app's binary five
// times under the load: by `docker cp` and, in turn, `docker kill -s HUP` and
// `docker exec … /entrypoint reload`. One of the five binaries is broken.
//
// The engine is a private one, started for the demo and ended with it. Where none can
// be started, the same is done in a private PID namespace. The exit code is 1 when a
// connection failed, when a good binary was not swapped in, or when the broken one was
// not refused with exit code 1 while the old one served on.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	if os.Getuid() != 0 {
		return errors.New("a private engine and private namespaces need root")
	}
	stage, err := openStage(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.close()) }()
	results, err := stage.play(ctx)
	print(results)
	fmt.Printf("\non %s: %s\n", stage.engine.Name(), stage.report)
	return err
}

func print(results []result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "swap\tbinary\ttrigger\tresult\tms\trequests\tfailed")
	for i, r := range results {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%.1f\t%d\t%s\n", i+1, r.binary, r.trigger, r.outcome,
			float64(r.took.Microseconds())/1000, r.requests, r.failed)
	}
	w.Flush()
}
