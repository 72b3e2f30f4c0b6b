package graceful

import (
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// process is what all servers of a program share: the drain, its signals, and what was said to the manager. Tests make
// their own; a program has the one in std.
type process struct {
	notify notifier

	mu       sync.Mutex
	draining chan struct{} // closed when the drain begins
	hammer   chan struct{} // closed by a second signal
	drained  bool
	hammered bool
	ready    bool // READY=1 was sent
	watched  bool // somebody pings the watchdog
	servers  int
	signals  chan os.Signal
	ended    chan struct{} // closed when the last server has ended: the signal goroutine leaves
}

var std = newProcess(notifier{path: os.Getenv("NOTIFY_SOCKET")})

func newProcess(n notifier) *process {
	return &process{notify: n, draining: make(chan struct{}), hammer: make(chan struct{})}
}

// Drain begins the drain of every Server of the program, as TERM does, and returns at once. From then on Draining is
// closed, and Serve refuses with http.ErrServerClosed. A second call does nothing. Safe for concurrent use.
func Drain() { std.drain() }

// Draining is closed when the drain begins: by a signal, or by Drain. What lives longer than a request (a WebSocket, a
// stream, a queue consumer) watches it and comes to an end by itself; see WaitDraining for many that should not do so in
// the same instant. Always the same channel.
func Draining() <-chan struct{} { return std.draining }

// drain marks the drain and tells the manager, once.
func (p *process) drain() {
	p.mu.Lock()
	first := !p.drained
	if first {
		p.drained = true
		close(p.draining)
	}
	p.mu.Unlock()
	if first {
		_ = p.notify.send("STOPPING=1") // a courtesy: a manager that is gone must not hinder the drain
	}
}

// cut makes an end of the drain at once.
func (p *process) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hammered {
		p.hammered = true
		close(p.hammer)
	}
}

// enter registers a server and starts to listen for its signals. leave must be called when it has ended.
func (p *process) enter(sigs []os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drained {
		return http.ErrServerClosed
	}
	p.servers++
	if len(sigs) == 0 {
		return nil
	}
	if p.signals == nil {
		p.signals, p.ended = make(chan os.Signal, 2), make(chan struct{})
		go p.listen(p.signals, p.ended)
	}
	signal.Notify(p.signals, sigs...)
	return nil
}

// leave gives the signals back to the program when no server is left.
func (p *process) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.servers--; p.servers == 0 && p.signals != nil {
		signal.Stop(p.signals)
		close(p.ended)
		p.signals, p.ended = nil, nil
	}
}

// listen turns the first signal into the drain and the second into its end.
func (p *process) listen(sigs <-chan os.Signal, ended <-chan struct{}) {
	act := p.drain
	for {
		select {
		case <-sigs:
			act()
			act = p.cut
		case <-ended:
			return
		}
	}
}

// defaultSignals are those of docker stop, Kubernetes and a terminal.
var defaultSignals = []os.Signal{syscall.SIGTERM, os.Interrupt}
