// Package load asks a server without pause and counts every answer it did not get,
// by kind. It never retries: what failed, failed.
//
// Three classes of clients are told apart, because they can lose different things:
//
//	fresh   a new connection for each request: nothing may ever be lost
//	slow    the same with a handler that takes its time: the request is in flight
//	        while the app is swapped
//	reused  keep-alive: a request on a connection that had answered before may meet
//	        a server that is closing it (standard clients retry that one)
//
// The first request on a keep-alive connection is counted as fresh. Each client is a
// closed loop: one request at a time, so the load can never run away; the whole is
// bounded in time and in requests.
package load

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Class says what kind of connection a request was made on.
type Class string

const (
	Fresh  Class = "fresh"
	Slow   Class = "slow"
	Reused Class = "reused"
)

// Options describe the load. Zero values get the defaults named here.
type Options struct {
	Network string // "tcp" (default) or "unix"
	Address string
	From    string // the address that clients come from; the kernel's choice

	Fresh, Slow, Reused int // number of clients of each class

	Path     string        // of fresh and reused requests; "/"
	SlowPath string        // "/slow?ms=300"
	Post     int           // bytes that every request carries as a POST; 0: it is a GET
	Pace     time.Duration // pause between two requests of one client; none
	Timeout  time.Duration // of one request, connecting included; 5s

	Duration    time.Duration // end by itself after so long; 2m
	MaxRequests int           // and after so many; 5,000,000

	// Version takes the version out of a body; ok=false makes it a wrong answer.
	// Default: the first word, which must not be empty.
	Version func(body string) (version string, ok bool)

	// Talk asks over another protocol than HTTP: it sends one request and reads its whole
	// answer. path says which class asks; again, whether the connection can serve another.
	Talk func(conn net.Conn, reader *bufio.Reader, path string) (version string, again bool, err error)
}

func (o *Options) fill() {
	set(&o.Network, "tcp")
	set(&o.Path, "/")
	set(&o.SlowPath, "/slow?ms=300")
	set(&o.Timeout, 5*time.Second)
	set(&o.Duration, 2*time.Minute)
	set(&o.MaxRequests, 5_000_000)
	if o.Version == nil {
		o.Version = FirstWord
	}
}

func set[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// FirstWord is the default Version.
func FirstWord(body string) (string, bool) {
	word, _, _ := strings.Cut(strings.TrimSpace(body), " ")
	return word, word != ""
}

// Load is a running load.
type Load struct {
	options Options
	cancel  context.CancelFunc
	clients sync.WaitGroup
	budget  atomic.Int64
	started time.Time

	mu    sync.Mutex
	count *counts
}

// Start begins the load. It ends by Stop, when ctx is done, or at its bounds.
func Start(ctx context.Context, o Options) *Load {
	o.fill()
	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	l := &Load{options: o, cancel: cancel, started: time.Now(), count: newCounts()}
	l.budget.Store(int64(o.MaxRequests))
	l.begin(ctx, o.Fresh, (*client).fresh)
	l.begin(ctx, o.Slow, (*client).slow)
	l.begin(ctx, o.Reused, (*client).reused)
	return l
}

func (l *Load) begin(ctx context.Context, n int, loop func(*client, context.Context)) {
	for range n {
		c := &client{load: l, options: &l.options}
		l.clients.Go(func() { loop(c, ctx) })
	}
}

// Ask makes one request on a new connection, outside of any load.
func Ask(o Options, path string) (version string, err error) {
	o.fill()
	c := &client{options: &o}
	defer c.close()
	version, _, err = c.request(path, false)
	return version, err
}

// Stop ends the load, lets every request in flight finish, and reports. A request
// that was under way at Stop is counted like any other.
func (l *Load) Stop() Report {
	l.cancel()
	l.clients.Wait()
	return l.Report()
}

// Wait blocks until the load has ended by itself: at its bounds, or with its context.
func (l *Load) Wait() {
	l.clients.Wait()
	l.cancel()
}

// Report is what was counted so far. It can be asked at any time.
func (l *Load) Report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count.report(time.Since(l.started))
}

// WaitVersion blocks until an answer of the version was counted.
func (l *Load) WaitVersion(ctx context.Context, version string) error {
	for {
		if l.seen(version) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer of version %q: %w", version, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (l *Load) seen(version string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count.versions[version] != nil
}

// WaitRequests blocks until n more answers than now were counted.
func (l *Load) WaitRequests(ctx context.Context, n int) error {
	goal := l.answered() + n
	for l.answered() < goal {
		select {
		case <-ctx.Done():
			return fmt.Errorf("only %d of %d answers: %w", l.answered(), goal, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

func (l *Load) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count.answered
}
