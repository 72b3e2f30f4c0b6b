package graceful

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// drain takes leave of all clients, in the order that the package comment explains, and sets s.err.
func (s *Server) drain() {
	ctx, cancel := s.deadline()
	defer cancel()
	begun := time.Now()
	s.Hooks.around(PhaseAnnounce, func() { s.announce.Store(true); s.conns.announce(); close(s.drainNow) })
	s.Hooks.around(PhaseStopAccepting, s.stopAccepting)
	s.Hooks.around(PhaseLinger, func() { s.linger(ctx, s.lingerTime()) })
	s.Hooks.around(PhaseDrain, func() { s.err = s.finish(ctx, begun) })
	if s.err != nil {
		s.Hooks.around(PhaseHammer, func() { s.err = s.hammer(begun) })
	}
	s.conns.settle()
}

// deadline ends at the hammer time, at a second signal, and with Shutdown's context.
func (s *Server) deadline() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	var timer *time.Timer
	if d := s.hammerTime(); d >= 0 {
		timer = time.AfterFunc(d, cancel)
	}
	go func() {
		select {
		case <-s.process.hammer:
		case <-s.cutNow:
		case <-ctx.Done():
		}
		cancel()
	}()
	return ctx, func() {
		if timer != nil {
			timer.Stop()
		}
		cancel()
	}
}

func (s *Server) hammerTime() time.Duration {
	if s.Hammer == 0 {
		return DefaultHammer
	}
	return s.Hammer
}

func (s *Server) lingerTime() time.Duration {
	if s.Linger == 0 {
		return DefaultLinger
	}
	return max(s.Linger, 0)
}

// stopAccepting closes the listeners and waits until the accept loops have handed on what they had accepted.
func (s *Server) stopAccepting() {
	s.mu.Lock()
	s.begun = true
	for l := range s.listeners {
		_ = (*l).Close() // closed already, or closed now
	}
	s.mu.Unlock()
	s.accepting.Wait()
}

// linger waits until the time is over or nobody is left.
func (s *Server) linger(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !s.conns.empty() {
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-s.conns.wake:
		}
	}
}

// finish closes each connection when it has been idle for its linger, waits for the others, and at last lets net/http take
// leave of idle HTTP/2 connections. Shutdown does not come earlier, because it drops a request whose header is
// read after its beginning, and closes a connection after an answer that had promised to keep it.
func (s *Server) finish(ctx context.Context, begun time.Time) error {
	for {
		expired, busy, next := s.conns.sweep(time.Now(), begun, s.lingerTime())
		for _, nc := range expired {
			_ = nc.Close() // its goroutine in net/http notices and tells
		}
		if busy == 0 {
			return s.Server.Shutdown(ctx)
		}
		if err := s.conns.await(ctx, next); err != nil {
			return err
		}
	}
}

// await blocks until something has changed, the time has come (if it is not zero) or ctx ends.
func (t *connTable) await(ctx context.Context, next time.Time) error {
	var due <-chan time.Time
	if !next.IsZero() {
		timer := time.NewTimer(time.Until(next))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-t.wake:
	case <-due:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// hammer cuts what is left.
func (s *Server) hammer(begun time.Time) error {
	n := s.conns.cut()
	err := s.Server.Close()
	cut := fmt.Errorf("%w after %v: %d connections closed", ErrHammer, time.Since(begun).Round(time.Millisecond), n)
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(cut, err)
	}
	return cut
}
