package carry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/helper"
	"github.com/hotswap-init/entrypoint/internal/proxy"
)

const (
	// lastMoments is how long what is left has when the container ends: nobody is there any more who could answer.
	lastMoments = time.Second
	// saidEvery is the least time between two sentences for the log.
	saidEvery = time.Second
)

// Main is a run of the proxy: it serves the sockets that it was given until PID 1 wants its end, finishes what it has, and returns the exit
// status.
func Main() int {
	conn, err := helper.Parent()
	if err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint:", err)
		return 1
	}
	if err := Run(conn, helper.File); err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint: the proxy:", err)
		return 1
	}
	return 0
}

// carrier is one run.
type carrier struct {
	conn  *helper.Conn
	setup *proxy.Setup
	table *table
	web   *web    // or
	tcp   *tunnel // else
	certs *certs

	ctx       context.Context // ends when what is left is cut
	cancel    context.CancelFunc
	listeners []net.Listener
	serving   sync.WaitGroup

	mu   sync.Mutex
	said time.Time
}

// Run is Main with the way to PID 1 and the descriptors given.
func Run(conn *helper.Conn, file func(int) *os.File) error {
	var first proxy.Order
	if err := conn.Receive(&first); err != nil {
		return ended(err)
	}
	if first.Setup == nil {
		return errors.New("internal error: the first order is no setup")
	}
	if err := first.Check(); err != nil {
		return err
	}
	c := &carrier{conn: conn, setup: first.Setup, table: newTable(first.Setup.Kind == proxy.HTTP)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	defer c.cancel()
	if err := c.open(file); err != nil {
		return err
	}
	return c.run()
}

// ended makes no error of the end of the Conn.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// open makes listeners of the descriptors.
func (c *carrier) open(file func(int) *os.File) error {
	c.certs = &certs{say: c.say, ask: func(n uint64) error { return c.conn.Send(proxy.Word{Pairs: n}) }}
	if c.setup.Kind == proxy.HTTP {
		c.web = newWeb(c.table, c.setup)
	} else {
		c.tcp = &tunnel{table: c.table, setup: c.setup, ctx: c.ctx}
	}
	each := 2 // the client's, and one to a worker
	if c.tcp != nil {
		each = 6 // and the pipes, while much moves
	}
	room := newPlaces(each)
	for i, l := range c.setup.Listeners {
		f := file(i)
		if f == nil {
			return fmt.Errorf("internal error: no descriptor of the socket %q", l.Name)
		}
		listener, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("internal error: the socket %q cannot be accepted from: %w", l.Name, err)
		}
		if c.web != nil {
			listener = &placed{listener, room, c.ctx}
		} else {
			c.tcp.places = room
		}
		if l.TLS {
			listener = tls.NewListener(listener, c.certs.config(l.Name))
		}
		c.listeners = append(c.listeners, listener)
	}
	return nil
}

// run takes orders until the end of the Conn, or TERM, and finishes then. It begins to accept with the first route.
func (c *carrier) run() error {
	orders, failed := make(chan proxy.Order), make(chan error, 1)
	go func() {
		for {
			var o proxy.Order
			err := c.conn.Receive(&o)
			if err != nil {
				failed <- nil // whatever it is, PID 1 is not there any more, or wants the end
				return
			}
			if err := o.Check(); err != nil {
				failed <- err
				return
			}
			select {
			case orders <- o:
			case <-c.ctx.Done():
				return
			}
		}
	}()
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	defer signal.Stop(term)
	for {
		select {
		case o := <-orders:
			if c.obey(&o) != nil { // nobody hears us any more: the same as the end
				c.finish()
				return nil
			}
		case err := <-failed:
			c.finish()
			return err
		case <-term:
			c.finish()
			return nil
		}
	}
}

func (c *carrier) obey(o *proxy.Order) error {
	switch {
	case o.Route != nil:
		first := c.table.sequence() == 0
		if o.Route.Stopping {
			c.closeListeners() // before anybody is told that there is no use in waiting
		}
		c.table.apply(o.Route)
		if err := c.conn.Send(proxy.Word{Applied: o.Route.Seq}); err != nil {
			return err
		}
		if first {
			c.serve()
			return c.conn.Ready()
		}
	case o.Report != 0:
		return c.conn.Send(proxy.Word{Report: c.report(o.Report)})
	case o.Pairs != nil:
		c.certs.heard(o.Pairs)
	}
	return nil
}

func (c *carrier) serve() {
	for _, l := range c.listeners {
		if c.web != nil {
			c.serving.Go(func() { c.web.serve(l) })
		} else {
			c.tcp.accepting.Go(func() { c.tcp.serve(l) })
		}
	}
	if c.tcp != nil {
		c.serving.Go(c.tcp.watchIdle)
	}
}

// closeListeners ends what accepts. The sockets stay PID 1's.
func (c *carrier) closeListeners() {
	for _, l := range c.listeners {
		_ = l.Close() // of ours; it was closed before
	}
	if c.web != nil {
		c.web.leaving.Store(true)
	}
}

// finish serves to the end what was accepted. PID 1 decides how long that may take; when the container ends it is not long.
func (c *carrier) finish() {
	c.closeListeners()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	if c.table.stopping() {
		time.AfterFunc(lastMoments, cancel)
	}
	if c.web != nil {
		c.web.drain(ctx)
		c.table.await(ctx) // upgraded connections are none of the server's
	} else {
		c.tcp.drain(ctx)
	}
	c.cancel()
	c.serving.Wait()
}

func (c *carrier) report(n uint64) *proxy.Report {
	r, links := c.table.report()
	r.For = n
	if c.web != nil {
		r.Clients = int(c.web.open.Load())
		return &r
	}
	r.Clients = int(c.tcp.open.Load())
	busy := map[handoff.Seat]int{}
	for l, at := range links {
		if l.busy() {
			busy[at]++
		}
	}
	for i, c := range r.Workers {
		r.Workers[i].Busy = busy[handoff.Seat{Generation: c.Generation, Worker: c.Worker}]
	}
	return &r
}

// say writes a line into PID 1's log, not often.
func (c *carrier) say(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.said) < saidEvery {
		return
	}
	c.said = time.Now()
	_ = c.conn.Send(proxy.Word{Log: text}) // if PID 1 is gone, so are we
}
