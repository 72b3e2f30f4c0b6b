// Command loadgen is the load package as a command: it asks a server without pause
// and ends with 1 when a request on a new connection failed.
//
//	loadgen -addr 127.0.0.1:8080 -d 10s -fresh 8 -slow 4 -reused 4
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/hotswap-init/entrypoint/integration/load"
)

func main() {
	var o load.Options
	flag.StringVar(&o.Network, "net", "tcp", "tcp or unix")
	flag.StringVar(&o.Address, "addr", "127.0.0.1:8080", "address of the server")
	flag.IntVar(&o.Fresh, "fresh", 4, "clients that open a connection for each request")
	flag.IntVar(&o.Slow, "slow", 0, "such clients on the slow handler")
	flag.IntVar(&o.Reused, "reused", 0, "keep-alive clients")
	flag.StringVar(&o.Path, "path", "/", "path of requests")
	flag.StringVar(&o.SlowPath, "slow-path", "/slow?ms=300", "path of slow requests")
	flag.DurationVar(&o.Pace, "pace", 0, "pause between two requests of a client")
	flag.DurationVar(&o.Timeout, "timeout", 5*time.Second, "limit of one request")
	flag.DurationVar(&o.Duration, "d", 10*time.Second, "how long")
	flag.IntVar(&o.MaxRequests, "n", 0, "at most so many requests")
	flag.Parse()
	os.Exit(run(o))
}

func run(o load.Options) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	l := load.Start(ctx, o)
	l.Wait()
	r := l.Report()
	fmt.Println(r)
	for _, sample := range r.Samples {
		fmt.Println(" ", sample)
	}
	if r.Failures(load.Fresh, load.Slow) > 0 {
		return 1
	}
	return 0
}
