package graceful

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultLinger is the time in which a client's next request shows it that the connection ends. Clients in use come back
	// well within it (a quarter lost nothing in measurements), HTTP/2 gives as much after its GOAWAY, and of
	// docker stop's 10 s it leaves most to the requests.
	DefaultLinger = time.Second
	// DefaultHammer is long for a request and short for an operator; most stop timeouts come before it.
	DefaultHammer = time.Minute
)

// ErrHammer is returned (wrapped, with what was cut) by Serve when the drain was not finished in time.
var ErrHammer = errors.New("drain cut short")

// Server is an http.Server that ends without losing a request. The zero value, and a nil http.Server, are usable. Set
// all fields before the first call; the handler, ConnState and ConnContext of the http.Server are wrapped by the first Serve, and called
// as before. Several Servers in a program drain at the same time; wait for the end of each Serve.
type Server struct {
	*http.Server

	// Name is the socket's name in LISTEN_FDNAMES, for ListenAndServe and ListenAndServeTLS: see ListenNamed. Empty: by address.
	Name string
	// Linger is how long an idle connection stays open in the drain. 0: DefaultLinger. Negative: not at all.
	Linger time.Duration
	// Hammer is how long the whole drain may take before what is left is cut. 0: DefaultHammer. Negative: as long as it takes.
	// To end in order it must be shorter than the init's time (ENTRYPOINT_DRAIN_TIMEOUT is 30 s, docker stop has 10 s).
	Hammer time.Duration
	// Signals begin the drain of all Servers; a second one cuts it short. nil: TERM and INT. Empty but not nil: none,
	// and the program calls Drain or Shutdown.
	Signals []os.Signal
	// ManualReady leaves it to the program to call Ready, as it must if it is not ready when this Server is.
	ManualReady bool
	// Hooks are called around each phase.
	Hooks Hooks

	process  *process // nil: std
	once     sync.Once
	conns    *connTable
	announce atomic.Bool
	stop     chan struct{} // closed by Shutdown
	cutNow   chan struct{} // closed when Shutdown's context ends
	drainNow chan struct{} // closed when this server's drain begins
	http2    sync.Once     // runs wrapHTTP2
	err      error         // what the drain came to
	draining sync.Once     // runs drain; whoever comes later waits for its end

	mu        sync.Mutex
	served    bool                       // Serve was called
	begun     bool                       // Shutdown was called, or the drain has begun: no further Serve
	stopping  bool                       // stop is closed
	cutting   bool                       // cutNow is closed
	listeners map[*net.Listener]struct{} // by pointer: a listener need not be comparable
	accepting sync.WaitGroup
}

// NewServer makes a Server with the defaults, listening on address addr (as for http.Server.Addr).
func NewServer(addr string, handler http.Handler) *Server {
	return &Server{Server: &http.Server{Addr: addr, Handler: handler}}
}

// ListenAndServe is http.ListenAndServe with the inherited socket of that address, if there is one, and a drain. It blocks until
// the drain is over. See Server.Serve for what it returns.
func ListenAndServe(addr string, handler http.Handler) error {
	return NewServer(addr, handler).ListenAndServe()
}

// ListenAndServeTLS is http.ListenAndServeTLS in the same way. The certificate is read again when its files change.
func ListenAndServeTLS(addr, certFile, keyFile string, handler http.Handler) error {
	return NewServer(addr, handler).ListenAndServeTLS(certFile, keyFile)
}

// ListenAndServe listens on Name or Addr (":http" if empty) and serves. See Serve.
func (s *Server) ListenAndServe() error {
	l, err := s.listen(":http")
	if err != nil {
		return err
	}
	return s.Serve(l)
}

// ListenAndServeTLS listens on Name or Addr (":https" if empty) and serves TLS. See ServeTLS.
func (s *Server) ListenAndServeTLS(certFile, keyFile string) error {
	l, err := s.listen(":https")
	if err != nil {
		return err
	}
	return s.ServeTLS(l, certFile, keyFile)
}

// Serve serves l, which it closes, says READY=1, and blocks until the drain is over: by signal, Drain or Shutdown. It returns
// nil when every request was answered; an error that is ErrHammer when connections had to be cut; http.ErrServerClosed if the
// drain began before; or why accepting failed. Unlike http.Server.Serve it does not return while requests
// are being answered, so main may simply end. It may be called for several listeners; all return when all are done.
// From the first Serve of the program until the end of the last, Signals are caught.
func (s *Server) Serve(l net.Listener) error {
	s.init()
	return s.serve(l, s.Server.Serve)
}

// ServeTLS is Serve with TLS. The files are read again when they change, see ReloadCertificate; with empty names the
// certificates of TLSConfig are used. All listeners of one Server have the same pair, and ServeTLS must be called before Serve
// is: for :80 and :443 make two Servers.
func (s *Server) ServeTLS(l net.Listener, certFile, keyFile string) error {
	s.init()
	if certFile != "" || keyFile != "" {
		get, err := ReloadCertificate(certFile, keyFile)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		s.setCertificate(get)
	}
	return s.serve(l, func(l net.Listener) error { return s.Server.ServeTLS(l, "", "") })
}

func (s *Server) setCertificate(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := &tls.Config{}
	if s.TLSConfig != nil {
		config = s.TLSConfig.Clone()
	}
	config.Certificates, config.GetCertificate = nil, get
	s.TLSConfig = config
}

// Shutdown drains this Server alone and blocks until Serve is about to return, with the same result. When ctx ends the
// drain is cut short, as by the hammer. Before any Serve it only makes Serve refuse.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	s.mu.Lock()
	served := s.served
	s.begun = true
	closeOnce(&s.stopping, s.stop)
	s.mu.Unlock()
	if !served {
		return s.Server.Shutdown(ctx)
	}
	defer context.AfterFunc(ctx, s.cutShort)()
	s.draining.Do(s.drain)
	return s.err
}

// Draining is closed when the drain of this Server begins, by whatever reason; the function of that name knows only of drains of the
// whole program. Always the same channel.
func (s *Server) Draining() <-chan struct{} {
	s.init()
	return s.drainNow
}

// Hold makes the drain wait, up to the hammer, until release is called: for work that goes on after the handler has returned.
// Handlers are waited for without it, also those of hijacked connections. release may be called more than once.
func (s *Server) Hold() (release func()) {
	s.init()
	s.conns.begin(nil, false)
	return sync.OnceFunc(func() { s.conns.end(nil) })
}

func (s *Server) init() {
	s.once.Do(func() {
		if s.Server == nil {
			s.Server = &http.Server{}
		}
		if s.process == nil {
			s.process = std
		}
		s.conns = newConnTable()
		s.stop, s.cutNow, s.drainNow = make(chan struct{}), make(chan struct{}), make(chan struct{})
		s.listeners = map[*net.Listener]struct{}{}
		s.prepare()
	})
}

func (s *Server) listen(standard string) (l net.Listener, err error) {
	s.init()
	addr := s.Addr
	if addr == "" {
		addr = standard
	}
	s.Hooks.around(PhaseListen, func() { l, err = ListenNamed(s.Name, "tcp", addr) })
	return l, err
}

// serve runs the accept loop start(l), and the drain when its time has come.
func (s *Server) serve(l net.Listener, start func(net.Listener) error) error {
	sigs := s.Signals
	if sigs == nil {
		sigs = defaultSignals
	}
	if err := s.process.enter(sigs); err != nil {
		return errors.Join(err, l.Close())
	}
	defer s.process.leave()
	s.http2.Do(func() { s.wrapHTTP2(start) })
	if !s.register(&l) {
		return errors.Join(http.ErrServerClosed, l.Close())
	}
	failed := make(chan error, 1)
	go func() { defer s.accepting.Done(); failed <- start(l) }()
	s.begin()
	select {
	case err := <-failed:
		if s.unregister(&l) {
			return err
		}
	case <-s.process.draining:
	case <-s.stop:
	}
	s.draining.Do(s.drain)
	return s.err
}

// begin tells the manager.
func (s *Server) begin() {
	s.watchdog()
	if s.ManualReady {
		return
	}
	s.Hooks.around(PhaseReady, func() {
		if err := s.process.firstReady(); err != nil {
			s.logf("graceful: %v", err)
		}
	})
}

// watchdog pings until the process ends, so also during the drain.
func (s *Server) watchdog() {
	interval, err := watchdogInterval(os.Getenv, os.Getpid())
	if err != nil {
		s.logf("graceful: %v", err)
	}
	if err == nil && interval > 0 && s.process.takeWatchdog() {
		go s.process.ping(context.Background(), interval, nil)
	}
}

func (s *Server) logf(format string, args ...any) {
	if s.ErrorLog != nil {
		s.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}

func (s *Server) register(l *net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		return false
	}
	s.served = true
	s.listeners[l] = struct{}{}
	s.accepting.Add(1)
	return true
}

// unregister forgets a listener that failed by itself; false if the drain has closed it.
func (s *Server) unregister(l *net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	return !s.begun
}

func (s *Server) cutShort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	closeOnce(&s.cutting, s.cutNow)
}

// closeOnce closes c unless done says that it is. The caller holds the lock.
func closeOnce(done *bool, c chan struct{}) {
	if !*done {
		*done = true
		close(c)
	}
}
