package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// doorDial bounds the connect behind a door: the app accepts at once, or its check fails in a way that shows.
const doorDial = 10 * time.Second

// Doors are ports of the loopback interface that lead to one generation, for the time of one command: programs that know
// nothing of generations, such as curl, reach it there. Bytes are copied and not looked at.
type Doors struct {
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	places   chan struct{}
	admit    func(net.Conn) bool
	listener []net.Listener
}

// NewDoors makes none yet. At most so many connections are relayed at once; more wait in the listeners' queues. admit tells
// whether a connection comes from the command whose doors they are; others are closed.
func NewDoors(most int, admit func(net.Conn) bool) *Doors {
	d := &Doors{places: make(chan struct{}, most), admit: admit}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Open listens on a port of its own and relays what comes to where dial leads. It returns host:port.
func (d *Doors) Open(dial func(context.Context) (net.Conn, error)) (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		l6, err6 := net.Listen("tcp6", "[::1]:0")
		if err6 != nil {
			return "", fmt.Errorf("cannot open a port that leads to the candidate: %w; is the loopback interface up?", err)
		}
		l = l6
	}
	d.listener = append(d.listener, l)
	d.wg.Go(func() { d.accept(l, dial) })
	return l.Addr().String(), nil
}

// Close ends all doors and what is relayed, and waits for that.
func (d *Doors) Close() error {
	d.cancel()
	var errs []error
	for _, l := range d.listener {
		errs = append(errs, l.Close())
	}
	d.wg.Wait()
	return errors.Join(errs...)
}

func (d *Doors) accept(l net.Listener, dial func(context.Context) (net.Conn, error)) {
	for {
		c, err := l.Accept()
		if err != nil {
			if d.ctx.Err() != nil || pause(d.ctx, DefaultPeriod) != nil { // such as: too many open files
				return
			}
			continue
		}
		select {
		case d.places <- struct{}{}:
		case <-d.ctx.Done():
			c.Close()
			return
		}
		d.wg.Go(func() {
			defer func() { <-d.places }()
			d.relay(c, dial)
		})
	}
}

// relay copies both ways until both ends have closed.
func (d *Doors) relay(c net.Conn, dial func(context.Context) (net.Conn, error)) {
	defer c.Close()
	if !d.admit(c) {
		return
	}
	ctx, cancel := context.WithTimeout(d.ctx, doorDial)
	app, err := dial(ctx)
	cancel()
	if err != nil {
		return
	}
	defer app.Close()
	stop := context.AfterFunc(d.ctx, func() { c.Close(); app.Close() })
	defer stop()
	var back sync.WaitGroup
	back.Go(func() { copyHalf(c, app) })
	copyHalf(app, c)
	back.Wait()
}

// copyHalf copies one direction and passes its end on. After an error neither end is of use any more.
func copyHalf(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
