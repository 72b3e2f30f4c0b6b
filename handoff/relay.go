package handoff

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxRelayed bounds the relayed connections of a Set; beyond it they wait in the queue.
	maxRelayed = 1024
	// relayQuiet is how long after the last arrival handshakes that are still open are waited for: enough for two
	// repetitions of a lost packet (1 s, 2 s).
	relayQuiet = 3 * time.Second
	// relayLook is how often an empty queue is looked at meanwhile.
	relayLook = 20 * time.Millisecond
	// maxRouted bounds those that are led past a candidate's share at once; half of the places stays for probes.
	maxRouted = maxPairs / 2
	// relayDial bounds the connect to the current slot; only a full accept queue makes it wait.
	relayDial = 30 * time.Second
)

// relay accepts what is left in the queue of a slot whose processes are gone, and connects each to the current slot.
// It returns when the queue is empty and no handshake can add to it, or when the Set is closed. What it accepted goes on
// until both ends are done; the Set waits for it.
func (s *Set) relay(h *held, sl *slot) {
	if s.noMoreArrivals(h, sl) {
		return
	}
	ln, err := listenerOf(sl.fd)
	if err != nil {
		s.logf("cannot relay what waits on %q: %v", h.String(), err)
		return
	}
	defer ln.Close()
	stop := context.AfterFunc(s.ctx, func() { _ = ln.Close() })
	defer stop()
	last := time.Now()
	for s.ctx.Err() == nil {
		select {
		case s.relaying <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		_ = ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(relayLook))
		c, err := ln.Accept()
		if err == nil {
			last = time.Now()
			s.wg.Add(1)
			go s.relayOne(h, c)
			continue
		}
		<-s.relaying
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(last) > relayQuiet || s.noMoreArrivals(h, sl) {
			return
		}
	}
}

// noMoreArrivals reports whether nothing waits in the slot's queue, and no handshake is left that could end there. A unix connect has none.
func (s *Set) noMoreArrivals(h *held, sl *slot) bool {
	if !h.addr.inet() {
		return sl.queue(&h.addr) == 0
	}
	s.mu.Lock()
	left, late, settled := sl.left, sl.late, sl.unsettled == nil
	s.mu.Unlock()
	n, ok := h.halfOpen(left, late)
	return settled && ok && n == 0 && sl.queue(&h.addr) == 0
}

// listenerOf makes a Go listener of a copy of fd. Nobody else has the open file description any more, so Go may make it
// non-blocking.
func listenerOf(fd int) (net.Listener, error) {
	c, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(c), "slot")
	defer f.Close()
	return net.FileListener(f)
}

// relayOne connects one client to the current slot and copies both ways until both have closed.
func (s *Set) relayOne(h *held, client net.Conn) {
	defer s.wg.Done()
	defer func() { <-s.relaying }()
	defer client.Close()
	ctx, cancel := context.WithTimeout(s.ctx, relayDial)
	server, err := s.dialCurrent(ctx, h, client.LocalAddr())
	cancel()
	if err != nil {
		s.logf("a connection that waited on %q could not be relayed: %v", h.String(), err)
		return
	}
	defer server.Close()
	stop := context.AfterFunc(s.ctx, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	var back sync.WaitGroup
	back.Add(1)
	go func() {
		defer back.Done()
		copyHalf(client, server)
	}()
	copyHalf(server, client)
	back.Wait()
}

// dialCurrent connects to the current slot, at the very address that the client had chosen. It does so as a client would,
// unless a candidate has a share: our address says nothing of who the client is, and it may be one that is not to go there.
func (s *Set) dialCurrent(ctx context.Context, h *held, local net.Addr) (net.Conn, error) {
	s.mu.Lock()
	current, split, name := h.current, h.part != nil, h.current.hidden
	s.mu.Unlock()
	var d net.Dialer
	switch {
	case !h.addr.inet():
		return d.DialContext(ctx, h.addr.Scheme, name)
	case !split:
		return d.DialContext(ctx, "tcp", local.String())
	}
	select {
	case s.routing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.routing }()
	dst := tcpAddrPort(local)
	return s.dialSlot(ctx, h, current, netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port()))
}

// copyHalf copies one direction (by splice where both are TCP or unix streams) and passes the end on. After an error the
// connection is of no use to either side.
func copyHalf(dst, src net.Conn) {
	if _, err := io.Copy(dst, src); err != nil {
		_, _ = dst.Close(), src.Close()
		return
	}
	if c, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
