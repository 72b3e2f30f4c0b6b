package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
)

// Kind is what a proxy understands of what it carries.
type Kind string

// The kinds of proxy.
const (
	HTTP Kind = "http" // requests, one by one
	TCP  Kind = "tcp"  // connections
)

// Protocol is what a backend is told of a client in front of the client's first byte.
type Protocol string

// The versions of the PROXY protocol.
const (
	NoProtocol Protocol = "off"
	ProtocolV1 Protocol = "v1"
	ProtocolV2 Protocol = "v2"
)

// Order is a message to a run of the helper. Exactly one of its fields is set.
type Order struct {
	Setup *Setup `json:"setup,omitempty"`
	Route *Route `json:"route,omitempty"`
	// Report asks for a Report with this number.
	Report uint64 `json:"report,omitempty"`
	Pairs  *Pairs `json:"pairs,omitempty"`
}

// Setup is the first message: what holds for the whole life of a run.
type Setup struct {
	Kind      Kind       `json:"kind"`
	Listeners []Listener `json:"listeners"` // in the order of the helper's files
	Protocol  Protocol   `json:"protocol"`
	// ConnectTimeout is how long a client waits for somebody who serves it, IdleTimeout how long a connection may stand still; 0: for the
	// kind's own time.
	ConnectTimeout time.Duration `json:"connect_timeout"`
	IdleTimeout    time.Duration `json:"idle_timeout"`
	// Trust are the networks of proxies in front of us: what they say of their clients is passed on.
	Trust []netip.Prefix `json:"trust,omitempty"`
}

// Listener is one held socket.
type Listener struct {
	Name string `json:"name"`
	TLS  bool   `json:"tls,omitempty"`
}

// Route says who serves whom. It is complete each time, and replaces the one before in one step.
type Route struct {
	Seq      uint64    `json:"seq"` // grows
	Backends []Backend `json:"backends"`
	// Lead are the workers that new connections and requests go to, in a roll those of two generations; none: nobody is there, and clients wait.
	Lead []handoff.Seat `json:"lead,omitempty"`
	// Candidate has a share of them, which handoff.ParseShare reads, and Seed is of its hash. 0: nobody has.
	Candidate int    `json:"candidate,omitempty"`
	Share     string `json:"share,omitempty"`
	Seed      uint32 `json:"seed,omitempty"`
	// Stopping says that nobody will be there any more: nothing new is accepted, and nobody waits.
	Stopping bool `json:"stopping,omitempty"`
}

// Backend is one worker of a generation.
type Backend struct {
	Generation int            `json:"generation"`
	Worker     int            `json:"worker"`
	Address    netip.AddrPort `json:"address"`
}

// Pairs answers the question for certificates with the same number.
type Pairs struct {
	For  uint64 `json:"for"`
	Same bool   `json:"same,omitempty"` // as last time
	List []Pair `json:"list,omitempty"`
	Err  string `json:"err,omitempty"`
}

// Pair is a certificate and its key, as their files have them. Name is the listener's, or empty for those without a pair of their own.
type Pair struct {
	Name string `json:"name,omitempty"`
	Cert []byte `json:"cert"`
	Key  []byte `json:"key"`
}

// Word is a message of a run to PID 1.
type Word struct {
	// Applied is the Seq of the newest route in force.
	Applied uint64  `json:"applied,omitempty"`
	Report  *Report `json:"report,omitempty"`
	// Pairs asks for the certificates, with a number for the answer.
	Pairs uint64 `json:"pairs,omitempty"`
	// Log is a sentence for the log.
	Log string `json:"log,omitempty"`
}

// Report counts what a run carries.
type Report struct {
	For     uint64  `json:"for"`
	Clients int     `json:"clients"` // open connections of clients
	Waiting int     `json:"waiting"` // of them, or of their requests, that nobody serves yet
	Workers []Count `json:"workers"`
}

// Count is what one worker has, or the workers of a generation together.
type Count struct {
	Generation int `json:"generation"`
	Worker     int `json:"worker,omitempty"`
	// Requests are in flight: taken from a client and not answered to the end. HTTP only.
	Requests int `json:"requests"`
	// Upgrades are connections that were upgraded to another protocol, such as WebSocket. HTTP only.
	Upgrades int `json:"upgrades"`
	// Connections are carried, and Busy ones among them are not idle. TCP only.
	Connections int `json:"connections"`
	Busy        int `json:"busy"`
}

func (c *Count) add(o Count) {
	c.Requests += o.Requests
	c.Upgrades += o.Upgrades
	c.Connections += o.Connections
	c.Busy += o.Busy
}

// Limits of what is believed of the other side.
const (
	maxWorkers  = 1 << 16 // that a report may name
	maxBackends = 1 << 16
	maxCount    = 1 << 30
	maxLog      = 300 // bytes of a sentence
)

// Check refuses an order that no PID 1 would give.
func (o *Order) Check() error {
	switch {
	case o.Setup != nil:
		return o.Setup.check()
	case o.Route != nil:
		return o.Route.check()
	}
	return nil
}

func (s *Setup) check() error {
	switch {
	case s.Kind != HTTP && s.Kind != TCP:
		return fmt.Errorf("internal error: the kind of proxy is %q", s.Kind)
	case s.Protocol != NoProtocol && s.Protocol != ProtocolV1 && s.Protocol != ProtocolV2:
		return fmt.Errorf("internal error: the PROXY protocol is %q", s.Protocol)
	case len(s.Listeners) == 0:
		return errors.New("internal error: a proxy without sockets")
	case s.ConnectTimeout < 0 || s.IdleTimeout < 0:
		return errors.New("internal error: a time below zero")
	}
	return nil
}

func (r *Route) check() error {
	if len(r.Backends) > maxBackends {
		return fmt.Errorf("internal error: %d backends", len(r.Backends))
	}
	for _, b := range r.Backends {
		if b.Generation < 1 || !b.Address.IsValid() || !b.Address.Addr().IsLoopback() {
			return fmt.Errorf("internal error: generation %d has no backend at %q", b.Generation, b.Address)
		}
	}
	if r.Candidate == 0 {
		return nil
	}
	_, err := handoff.ParseShare(r.Share)
	return err
}

// check refuses a word that no run of ours would say. What comes from there was near the network.
func (w *Word) check() error {
	if len(w.Log) > 4*maxLog {
		return errors.New("a sentence for the log is too long")
	}
	if w.Report == nil {
		return nil
	}
	if len(w.Report.Workers) > maxWorkers {
		return fmt.Errorf("a report names %d workers", len(w.Report.Workers))
	}
	numbers := []int{w.Report.Clients, w.Report.Waiting}
	for _, c := range w.Report.Workers {
		numbers = append(numbers, c.Generation, c.Worker, c.Requests, c.Upgrades, c.Connections, c.Busy)
	}
	for _, n := range numbers {
		if n < 0 || n > maxCount {
			return fmt.Errorf("a report counts %d", n)
		}
	}
	return nil
}
