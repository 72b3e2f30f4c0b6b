package swap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
)

// Front leads clients to generations in place of the kernel: a proxy that accepts from the held sockets, and reaches each worker at a port of
// its own. Its methods are called as those of *handoff.Set.
type Front interface {
	// Lease gives a worker a port.
	Lease(at handoff.Seat) (Ports, error)
	Steer(gen int) error
	Spread(active int, workers []handoff.Seat) error
	Split(active, candidate int, share handoff.Share) error
	// Stop says that there will be no other generation. It must not wait.
	Stop()
	// Holds tells whether an address, as a client names it, is the service's.
	Holds(network, address string) bool
	// Held describes the addresses, and Status what goes through them.
	Held() []handoff.SocketStatus
	Status() FrontStatus
}

// Ports are what one worker has of a Front. As Traffic, it is patient: what is in flight is known exactly, and worth waiting for.
type Ports interface {
	Traffic
	// Address is where the worker has to listen.
	Address() netip.AddrPort
	// Patient tells whether DRAIN_TIMEOUT, and not DRAIN_QUIET, bounds the wait before the stop signal.
	Patient() bool
}

// FrontStatus describes a Front.
type FrontStatus struct {
	Kind        string      `json:"kind"`            // http or tcp
	PID         int         `json:"pid"`             // of the helper process; 0: it is being started again
	Restarts    int         `json:"restarts"`        // of that process
	Share       string      `json:"share,omitempty"` // of a candidate
	Clients     int         `json:"clients"`         // open connections of clients
	Waiting     int         `json:"waiting"`         // of them, or of their requests, that nobody serves yet
	Known       bool        `json:"known"`           // the numbers are of now
	Generations []FrontLoad `json:"generations"`
}

// FrontLoad is what one generation has.
type FrontLoad struct {
	Generation  int `json:"gen"`
	Requests    int `json:"requests"`    // in flight (http)
	Upgrades    int `json:"upgrades"`    // connections upgraded to another protocol (http)
	Connections int `json:"connections"` // carried (tcp)
}

// portVariable tells an app where to listen that is told nothing else.
const portVariable = "PORT"

// open leases what a worker serves from.
func (c *child) open() (err error) {
	if c.app.Front == nil {
		return nil
	}
	if c.ports, err = c.app.Front.Lease(handoff.Seat{Generation: c.gen, Worker: c.worker}); err != nil {
		return fmt.Errorf("cannot give it a port: %w", err)
	}
	return nil
}

// release gives back what the worker served from.
func (c *child) release() {
	if c.ports != nil {
		c.ports.Release()
	}
	c.lease.Release()
}

// expand replaces {port} and the like in a word. Behind a proxy every {port} is the worker's own one.
func (c *child) expand(word string) string {
	if c.ports != nil {
		word = expandPort(word, c.port())
	}
	return c.lease.Expand(word, c.gen, c.worker)
}

func (c *child) port() string { return strconv.Itoa(int(c.ports.Address().Port())) }

// expandPort replaces {port} and {port:name}.
func expandPort(word, port string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(word, "{port")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, after, closed := strings.Cut(rest, "}")
		if closed && (name == "" || name[0] == ':') {
			out.WriteString(port)
			word = after
			continue
		}
		out.WriteString("{port")
		word = rest
	}
}

// portEnv adds PORT, unless the environment has it already.
func (c *child) portEnv(env []string) []string {
	if c.ports == nil || lookup(env, portVariable) != "" {
		return env
	}
	return append(env, portVariable+"="+c.port())
}

// fronted is the traffic of a generation behind a proxy.
type fronted struct{ c *child }

func (f fronted) Load() (handoff.Load, error) { return f.c.ports.Load() }
func (f fronted) Release()                    { f.c.release() }
func (f fronted) Patient() bool               { return f.c.ports.Patient() }

// backPace is the pause between two looks at a worker that does not listen yet.
const backPace = 10 * time.Millisecond

// dialBack reaches the worker at its port for whoever asks for the service's address, and proves that it is this generation. Other addresses
// are reached as without a proxy.
func (c *child) dialBack(ctx context.Context, network, address string) (net.Conn, error) {
	if c.app.Front.Holds(network, address) {
		network, address = "tcp", c.ports.Address().String()
	}
	return c.dialHeld(ctx, network, address)
}

// acceptedBack waits until the worker has accepted a connection of ours at its port.
func (c *child) acceptedBack(ctx context.Context) error {
	for {
		conn, err := c.dialHeld(ctx, "tcp", c.ports.Address().String())
		switch {
		case err == nil:
			return conn.Close()
		case ctx.Err() != nil:
			return fmt.Errorf("generation %d has not accepted a connection at its port %s: %w", c.gen, c.port(), ctx.Err())
		case !errors.Is(err, syscall.ECONNREFUSED):
			return err
		}
		select {
		case <-time.After(backPace):
		case <-ctx.Done():
		}
	}
}

// endpoints lists where a generation accepts streams.
func (c *child) endpoints() []handoff.Endpoint {
	if c.ports == nil {
		return c.lease.Endpoints()
	}
	var list []handoff.Endpoint
	for _, s := range c.app.Front.Held() {
		list = append(list, handoff.Endpoint{Name: s.Name, Network: "tcp", Address: c.ports.Address().String()})
	}
	return list
}

// Fronted describes the proxy; nil: there is none.
func (a *App) Fronted() *FrontStatus {
	if a.Front == nil {
		return nil
	}
	st := a.Front.Status()
	return &st
}

// Ending is told that all generations end, and none will follow.
func (a *App) Ending() {
	if a.Front != nil {
		a.Front.Stop()
	}
}

// endFront ends the wait of clients for a generation that will not come.
func (s *Supervisor) endFront() {
	if l, ok := s.opt.Launcher.(interface{ Ending() }); ok {
		l.Ending()
	}
}

// showFront fills in what status says of a proxy.
func (s *Supervisor) showFront(st *Status) {
	if l, ok := s.opt.Launcher.(interface{ Fronted() *FrontStatus }); ok {
		st.Proxy = l.Fronted()
	}
}

// quietTime is how long a generation may go on with what it has, before its stop signal.
func (s *Supervisor) quietTime(t Traffic) time.Duration {
	if p, ok := t.(interface{ Patient() bool }); ok && p.Patient() {
		return max(s.opt.DrainQuiet, s.opt.DrainTimeout)
	}
	return s.opt.DrainQuiet
}
