package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// maxClients is how many clients are served at once. A container has one or two; the bound keeps a flood cheap for PID 1.
const maxClients = 16

// limits are the times that a server gives.
type limits struct{ request, answer, query, farewell, quietLog time.Duration }

var defaultLimits = limits{
	// A client sends its request line in one system call; a second or more means a starved container, more than five a hung client.
	request: 5 * time.Second,
	// To read the end of an answer.
	answer: 5 * time.Second,
	// For questions that the owner of the state answers from memory.
	query: 5 * time.Second,
	// For running requests when Serve is told to end, so that a client that waits for a swap hears what became of it: a
	// supervisor that stops answers at once.
	farewell: time.Second,
	// Between two log lines about strangers, who could otherwise fill the log of the container.
	quietLog: 10 * time.Second,
}

// Supervisor is what the server needs of the init; *swap.Supervisor is one. All methods are called from several
// goroutines at once and return soon after the end of their context.
type Supervisor interface {
	Swap(ctx context.Context, r swap.Request, progress func(swap.Progress)) swap.Result
	Promote(ctx context.Context, by string, all bool) swap.Result
	Abort(ctx context.Context, by string) swap.Result
	Status(ctx context.Context) (swap.Status, error)
	Stop(ctx context.Context, now bool) swap.Result
	Signal(ctx context.Context, sig syscall.Signal) error
	Health(ctx context.Context) error
}

// App is one of several apps.
type App struct {
	Name string
	Supervisor
}

// ServerOptions says where to listen and whom to serve. Supervisor must be set.
type ServerOptions struct {
	// Address is "auto" (also when empty), an absolute path, an abstract name with "@", or "off".
	Address    string
	Supervisor Supervisor // of several apps, the main one's
	// Apps are several apps in one container; nil: there is one, without a name.
	Apps []App
	// Stop ends all of several apps; nil where there is one.
	Stop func(ctx context.Context, now bool) swap.Result
	// Health is about all of several apps; nil where there is one.
	Health func(ctx context.Context) error
	// Version is what the operation version answers.
	Version string
	// Reopen opens the log files of all apps anew and says how many; nil: the operation is refused.
	Reopen func() (text string, err error)
	// Upgrade gives the proxies another program of the init, and says what came of it; nil: the operation is refused. The file is closed by the
	// server. It may block until ctx is done.
	Upgrade func(ctx context.Context, u *swap.Upload) (text string, err error)
	// Descendants lists the live processes below the init, for the operation ps; nil: only main processes are listed.
	Descendants func() []int
	// Config is the effective configuration for the operation config, without secrets; nil: the operation is refused.
	Config func() (json.RawMessage, error)
	// Logf gets refusals and faults, a line each, at a bounded rate; nil drops them.
	Logf func(format string, a ...any)
}

// Server holds the control socket. Make it with Open.
type Server struct {
	o     ServerOptions
	l     *listener // nil: off
	peer  func(*net.UnixConn) (unix.Ucred, error)
	limit limits

	mu      sync.Mutex
	conns   map[*net.UnixConn]struct{}
	logged  time.Time
	dropped int // log lines since then
}

// Open opens the socket, so that a fault in the address is known before the app is started and clients can
// connect at once; they are answered when Serve runs. The caller ends it with Serve or Close.
func Open(o ServerOptions) (*Server, error) {
	if err := CheckAddress(o.Address); err != nil {
		return nil, err
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	s := &Server{o: o, peer: peerOf, limit: defaultLimits, conns: map[*net.UnixConn]struct{}{}}
	if o.Address == Off {
		return s, nil
	}
	address, err := resolve(o.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot name the control socket: %w; ENTRYPOINT_CONTROL=off does without", err)
	}
	s.l, err = listen(address)
	return s, err
}

// Serve opens the socket and answers clients until ctx is done: Open and [Server.Serve] in one.
func Serve(ctx context.Context, o ServerOptions) error {
	s, err := Open(o)
	if err != nil {
		return err
	}
	return s.Serve(ctx)
}

// Address is where the server listens: a path, an abstract name with "@", or "off".
func (s *Server) Address() string {
	if s.l == nil {
		return Off
	}
	return s.l.address
}

// Close ends listening without serving, and removes the socket file. A server that ran needs no Close.
func (s *Server) Close() error {
	if s.l == nil {
		return nil
	}
	return s.l.Close()
}

// Serve answers clients until ctx is done, then gives the running requests a second, closes everything and removes the socket file.
// It must be called once. Swaps that clients asked for go on. The error is nil after ctx is done.
func (s *Server) Serve(ctx context.Context) error {
	if s.l == nil {
		<-ctx.Done()
		return nil
	}
	stopAccepting := context.AfterFunc(ctx, func() { _ = s.l.SetDeadline(time.Unix(1, 0)) })
	defer stopAccepting()
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var clients sync.WaitGroup
	err := s.accept(ctx, work, &clients)
	err = errors.Join(err, s.l.Close())
	end := time.AfterFunc(s.limit.farewell, func() { cut(); s.hangUp() })
	clients.Wait()
	end.Stop()
	return err
}

// accept admits clients until ctx is done; at most maxClients at once, a place is taken before the next is accepted.
func (s *Server) accept(ctx, work context.Context, clients *sync.WaitGroup) error {
	places := make(chan struct{}, maxClients)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := s.next(ctx)
		if err != nil || c == nil {
			return err
		}
		clients.Go(func() {
			defer func() { <-places }()
			s.serve(work, c)
		})
	}
}

// next waits for a client with the right credentials. Strangers are answered here, without ever taking a place: the answer fits into
// the empty buffer of a new connection. Nil, nil means that ctx is done.
func (s *Server) next(ctx context.Context) (*client, error) {
	for {
		conn, err := s.l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil, nil
		}
		if err != nil {
			if !transient(err) {
				return nil, fmt.Errorf("cannot accept on control socket %q: %w", s.l.address, err)
			}
			s.logf("cannot accept a control client: %v", err)
			pause(ctx, 100*time.Millisecond)
			continue
		}
		peer, err := s.peer(conn)
		if err == nil {
			err = checkClient(peer, euid())
		}
		if err == nil {
			return s.admit(conn, peer), nil
		}
		s.logf("control client refused: pid %d uid %d: %v", peer.Pid, peer.Uid, err)
		_ = write(conn, encodeLine(failure(swap.CodeNoInit, err)), false)
		_ = conn.Close()
	}
}

// transient errors of accept pass by themselves: no descriptors or memory left for now, or a client that gave up.
func transient(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.ECONNABORTED, unix.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// client is one admitted connection.
type client struct {
	conn *net.UnixConn
	peer unix.Ucred
	// answerTime is what the client has to read the result.
	answerTime time.Duration

	mu   sync.Mutex
	done bool // the result was sent or the connection is lost: no more events
}

func (s *Server) admit(conn *net.UnixConn, peer unix.Ucred) *client {
	_ = conn.SetReadDeadline(time.Now().Add(s.limit.request)) // fails only on a closed connection
	s.mu.Lock()
	s.conns[conn] = struct{}{}
	s.mu.Unlock()
	return &client{conn: conn, peer: peer, answerTime: s.limit.answer}
}

// hangUp makes every read and write on every connection return at once.
func (s *Server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.SetDeadline(time.Unix(1, 0))
	}
}

func (s *Server) forget(conn *net.UnixConn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	_ = conn.Close()
}

// serve answers one client. A panic here ends this connection and not the container.
func (s *Server) serve(ctx context.Context, c *client) {
	defer s.forget(c.conn)
	defer func() {
		if p := recover(); p != nil {
			s.logf("internal error: control request of pid %d: %v\n%s", c.peer.Pid, p, debug.Stack())
		}
	}()
	r, err := s.receive(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	hungUp := make(chan struct{})
	go func() {
		defer close(hungUp)
		defer cancel()
		// One request a connection: whatever comes now, data or the end, the client waits no longer.
		_, _ = c.conn.Read(make([]byte, 1))
	}()
	result := s.do(ctx, r, c) // an upload belongs to the swap now
	c.finish(result)
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	<-hungUp
}

// receive reads the request, checks the proof that came with it, then the request. A client that connects and leaves gives io.EOF.
func (s *Server) receive(c *client) (Request, error) {
	got, err := readLine(c.conn)
	defer got.close()
	if err != nil {
		return Request{}, err
	}
	if err := checkProof(got.fds, got.truncated); err != nil {
		return Request{}, refusal{err}
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	r, err := DecodeRequest(got.line)
	if err != nil {
		return Request{}, err
	}
	switch uploads := len(got.fds) - 1; {
	case r.uploads() && uploads == 0:
		return Request{}, usagef("cannot %s: no program came with the request", r.Op)
	case !r.uploads() && uploads > 0:
		return Request{}, usagef("operation %q takes no upload", r.Op)
	case r.uploads():
		r.Upload = os.NewFile(uintptr(got.fds[1]), "upload")
		got.fds = got.fds[:1]
	}
	return r, nil
}

// refusal is a peer that is not allowed to talk to us.
type refusal struct{ error }

// refuse answers a request that was not taken.
func (s *Server) refuse(c *client, err error) {
	code := swap.CodeUsage
	switch {
	case errors.As(err, new(refusal)):
		code = swap.CodeNoInit
		s.logf("control client refused: pid %d uid %d: %v", c.peer.Pid, c.peer.Uid, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("cannot read the request: not complete after %v", s.limit.request)
	case errors.Is(err, io.EOF):
		return
	}
	c.finish(failure(code, err))
}

// event sends one phase and never blocks. A client that has left hundreds of lines unread loses its connection.
func (c *client) event(p swap.Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	if write(c.conn, encodeLine(Event{"phase", p}), false) != nil {
		c.done = true
		_ = c.conn.SetReadDeadline(time.Unix(1, 0)) // ends the waiting for its swap
	}
}

// finish sends the result, within c.answerTime, unless the connection is lost.
func (c *client) finish(r Result) {
	c.mu.Lock()
	lost := c.done
	c.done = true
	c.mu.Unlock()
	if lost {
		return
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.answerTime))
	_ = write(c.conn, encodeLine(r), true) // the client is gone, and what it asked for was done
}

// logf logs at a bounded rate and says how many lines it left out.
func (s *Server) logf(format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.logged.IsZero() || now.Sub(s.logged) >= s.limit.quietLog {
		if s.dropped > 0 {
			format += fmt.Sprintf(" (%d more such lines were left out)", s.dropped)
		}
		s.logged, s.dropped = now, 0
		s.o.Logf(format, a...)
		return
	}
	s.dropped++
}
