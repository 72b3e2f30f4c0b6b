package carry

import (
	"context"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// places bounds the connections of clients: one more waits in the queue of the held socket.
type places chan struct{}

const (
	// ownFiles is how many descriptors are kept for what is no connection.
	ownFiles = 64
	// mostPlaces bounds the connections where descriptors do not.
	mostPlaces = 1 << 20
)

// newPlaces makes as many as there are descriptors for, when each client needs so many.
func newPlaces(each int) places {
	n := mostPlaces
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil && lim.Cur < uint64(n*each) {
		n = max(1, (int(lim.Cur)-ownFiles)/each)
	}
	return make(places, n)
}

// take waits for a place; false: ctx has ended.
func (p places) take(ctx context.Context) bool {
	select {
	case p <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p places) give() { <-p }

// placed accepts only while there are places.
type placed struct {
	net.Listener
	places places
	ctx    context.Context
}

func (l *placed) Accept() (net.Conn, error) {
	if !l.places.take(l.ctx) {
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		l.places.give()
		return nil, err
	}
	give := sync.OnceFunc(l.places.give)
	switch c := c.(type) {
	case *net.TCPConn:
		return &placedTCP{c, give}, nil
	case *net.UnixConn:
		return &placedUnix{c, give}, nil
	}
	_ = c.Close()
	give()
	return nil, net.ErrClosed
}

type placedTCP struct {
	*net.TCPConn
	give func()
}

func (c *placedTCP) Close() error {
	defer c.give()
	return c.TCPConn.Close()
}

type placedUnix struct {
	*net.UnixConn
	give func()
}

func (c *placedUnix) Close() error {
	defer c.give()
	return c.UnixConn.Close()
}
