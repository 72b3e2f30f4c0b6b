package proxy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hotswap-init/entrypoint/handoff"
)

// Lease is one worker's right to its port.
type Lease struct {
	front *Front
	at    handoff.Seat
	port  int
}

// Lease gives a worker a port. It gets no traffic before Steer, Spread or Split.
func (f *Front) Lease(at handoff.Seat) (*Lease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.Generation < 1 || at.Worker < 0 || f.leases[at] != nil {
		return nil, fmt.Errorf("internal error: worker %d of generation %d has a lease already or is no worker", at.Worker, at.Generation)
	}
	port, err := f.ports.take()
	if err != nil {
		return nil, err
	}
	l := &Lease{front: f, at: at, port: port}
	f.leases[at] = l
	f.change(func(r *Route) {
		r.Backends = append(r.Backends, Backend{Generation: at.Generation, Worker: at.Worker, Address: l.Address()})
	})
	return l, nil
}

// Port is where the worker has to listen.
func (l *Lease) Port() int { return l.port }

// Address is the same, with the address of the loopback.
func (l *Lease) Address() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(l.port))
}

// Load counts what is left of the worker's traffic: requests in flight and upgraded connections, or connections. It blocks for the helper's
// answer. While that does not come, or a run that was replaced still finishes what it has, nothing is known.
func (l *Lease) Load() (handoff.Load, error) {
	counts, err := l.front.ask()
	c := counts[l.at]
	load := handoff.Load{Open: c.Requests + c.Upgrades + c.Connections, Busy: c.Requests + c.Upgrades + c.Busy, Known: err == nil}
	return load, nil
}

// Release ends the lease, after all processes of the worker are gone: its port may be given to others, as soon as nobody has it.
func (l *Lease) Release() {
	f := l.front
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leases[l.at] != l {
		return
	}
	delete(f.leases, l.at)
	f.change(func(r *Route) {
		r.Backends = slices.DeleteFunc(r.Backends, func(b Backend) bool { return b.Generation == l.at.Generation && b.Worker == l.at.Worker })
		r.Lead = slices.DeleteFunc(slices.Clone(r.Lead), func(at handoff.Seat) bool { return at == l.at })
		if r.Candidate == l.at.Generation && !slices.ContainsFunc(r.Backends, func(b Backend) bool { return b.Generation == r.Candidate }) {
			r.Candidate, r.Share = 0, ""
		}
	})
	l.front.ports.give(l.port)
}
