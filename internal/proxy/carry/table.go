package carry

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/proxy"
)

const (
	// downFor is how long a worker that refused a connection is left alone when there is another one, and how long to wait when
	// there is none: it is starting, or is being started again.
	downFor = 25 * time.Millisecond
	// awaitPace is between two looks at what is left at the end of a run.
	awaitPace = 20 * time.Millisecond
)

// errNobody says that a client has waited for as long as it may.
var errNobody = errors.New("nobody serves")

// visitor is a connection of a client: what decides who serves it.
type visitor struct {
	addr netip.Addr // invalid of a unix socket
	luck uint32     // drawn once
}

// visitorOf looks at a connection.
func visitorOf(c net.Conn) *visitor {
	v := &visitor{luck: rand.Uint32()}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		v.addr = a.AddrPort().Addr().Unmap().WithZone("")
	}
	return v
}

// worker is one process of a generation: of the newest route, or one that no route names any more and that is not done yet.
type worker struct {
	seat  handoff.Seat
	at    netip.AddrPort // invalid: no route names it
	down  time.Time      // until then it is left alone
	count proxy.Count
	links map[*link]struct{} // TCP
	// web and grpc reach it over HTTP/1.1 and over HTTP/2 without TLS, each on connections of its own. nil: TCP.
	web, grpc *http.Transport
	idle      bool // has no traffic: what is done is not kept for later
}

// load is what it carries: requests, or connections.
func (w *worker) load() int { return w.count.Requests + w.count.Upgrades + w.count.Connections }

// pool is who serves a part of the clients.
type pool struct {
	workers []*worker
	turn    int // of those with equal load
}

// table is who serves whom. All fields belong to mu.
type table struct {
	requests bool // are carried, and not connections

	mu      sync.Mutex
	route   proxy.Route
	share   handoff.Share
	workers map[handoff.Seat]*worker
	lead    pool
	part    pool // the candidate
	waiting int
	changed chan struct{} // closed and made anew at each route
}

func newTable(requests bool) *table {
	return &table{requests: requests, workers: map[handoff.Seat]*worker{}, changed: make(chan struct{})}
}

// apply puts a route in force: whoever comes from now on is led by it.
func (t *table) apply(r *proxy.Route) {
	var share handoff.Share
	if r.Candidate != 0 {
		share, _ = handoff.ParseShare(r.Share) // it was checked
	}
	t.mu.Lock()
	t.route, t.share = *r, share
	for _, w := range t.workers {
		w.at, w.idle = netip.AddrPort{}, true
	}
	t.part.workers, t.lead.workers = nil, nil
	for _, b := range r.Backends {
		w := t.workerOf(b)
		w.at = b.Address
		if b.Generation == r.Candidate {
			w.idle = false
			t.part.workers = append(t.part.workers, w)
		}
	}
	for _, at := range r.Lead {
		if w := t.workers[at]; w != nil && w.at.IsValid() {
			w.idle = false
			t.lead.workers = append(t.lead.workers, w)
		}
	}
	var resting []*worker
	for at, w := range t.workers {
		if !w.at.IsValid() && w.load() == 0 {
			delete(t.workers, at)
		}
		if w.idle {
			resting = append(resting, w)
		}
	}
	close(t.changed)
	t.changed = make(chan struct{})
	t.mu.Unlock()
	for _, w := range resting {
		w.closeIdle()
	}
}

// workerOf is the worker that the table has for a backend, or a new one. One that was started again is reached at another address.
func (t *table) workerOf(b proxy.Backend) *worker {
	at := handoff.Seat{Generation: b.Generation, Worker: b.Worker}
	w := t.workers[at]
	if w == nil {
		w = &worker{seat: at, count: proxy.Count{Generation: at.Generation, Worker: at.Worker}, links: map[*link]struct{}{}}
		if t.requests {
			w.web, w.grpc = transports()
		}
		t.workers[at] = w
	}
	return w
}

// closeIdle closes connections to the workers that no request is on. Those in use are closed when their request is done, until there is
// another request.
func (w *worker) closeIdle() {
	if w.web != nil {
		w.web.CloseIdleConnections()
		w.grpc.CloseIdleConnections()
	}
}

// seat is a place at a worker, from the choice until leave.
type seat struct {
	t      *table
	w      *worker
	at     netip.AddrPort
	counts *int
}

// enter chooses a worker and takes a place there: in the same step, so that a route which is in force is never met by somebody who was led
// by the one before. It waits until there is somebody to serve: until the deadline, or ctx ends.
func (t *table) enter(ctx context.Context, v *visitor, until time.Time) (*seat, error) {
	var late <-chan time.Time
	for first := true; ; first = false {
		t.mu.Lock()
		if !first {
			t.waiting--
		}
		s, pause := t.choose(v)
		if s != nil || t.route.Stopping || !time.Now().Before(until) {
			t.mu.Unlock()
			if s == nil {
				return nil, errNobody
			}
			return s, nil
		}
		changed := t.changed
		t.waiting++
		t.mu.Unlock()
		if late == nil {
			timer := time.NewTimer(time.Until(until))
			defer timer.Stop()
			late = timer.C
		}
		var again <-chan time.Time
		if pause > 0 {
			again = time.After(pause)
		}
		select {
		case <-changed:
		case <-again:
		case <-late:
		case <-ctx.Done():
			t.mu.Lock()
			t.waiting--
			t.mu.Unlock()
			return nil, context.Cause(ctx)
		}
	}
}

// choose is the seat, or how long to wait before looking again; 0: for the next route.
func (t *table) choose(v *visitor) (*seat, time.Duration) {
	from := &t.lead
	if len(t.part.workers) > 0 && t.led(v) {
		from = &t.part
	}
	if len(from.workers) == 0 {
		return nil, 0
	}
	w, pause := from.least(time.Now())
	if w == nil {
		return nil, pause
	}
	s := &seat{t: t, w: w, at: w.at, counts: &w.count.Requests}
	if w.web == nil {
		s.counts = &w.count.Connections
	}
	*s.counts++
	return s, 0
}

// led tells whether the share gives a client to the candidate.
func (t *table) led(v *visitor) bool {
	for _, p := range t.share.Never {
		if p.Contains(v.addr) {
			return false
		}
	}
	for _, p := range t.share.Always {
		if p.Contains(v.addr) {
			return true
		}
	}
	return float64(t.draw(v)) < t.share.Portion*(1<<32)
}

// draw is the client's number between 0 and 1<<32: another one for each candidate, and the same one as long as that is on trial.
func (t *table) draw(v *visitor) uint32 {
	h := fnv.New64a()
	var b [20]byte
	binary.BigEndian.PutUint32(b[:], t.route.Seed)
	if t.share.Sticky {
		ip := v.addr.As16()
		copy(b[4:], ip[:])
	} else {
		binary.BigEndian.PutUint32(b[4:], v.luck)
	}
	_, _ = h.Write(b[:]) // it cannot fail
	return mix(h.Sum64())
}

// mix spreads the last bits of a sum over all of it: FNV alone leaves the first ones nearly as they are.
func mix(x uint64) uint32 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return uint32(x >> 32)
}

// least is the worker with the least load, by turns of equal ones; those that are down are left out. If all are, it is nil, and pause is when
// the first will be tried again.
func (p *pool) least(now time.Time) (best *worker, pause time.Duration) {
	n := len(p.workers)
	at := 0
	for i := range n {
		k := (p.turn + i) % n
		w := p.workers[k]
		if w.down.After(now) {
			if d := w.down.Sub(now); pause == 0 || d < pause {
				pause = d
			}
			continue
		}
		if best == nil || w.load() < best.load() {
			best, at = w, k
		}
	}
	if best != nil {
		p.turn = (at + 1) % n
	}
	return best, pause
}

// carries notes a link for the counts of its worker, and drops ends that.
func (s *seat) carries(l *link) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.w.links[l] = struct{}{}
}

func (s *seat) drops(l *link) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	delete(s.w.links, l)
}

// failed notes that the worker refused, and gives the place back.
func (s *seat) failed() {
	s.t.mu.Lock()
	s.w.down = time.Now().Add(downFor)
	s.t.mu.Unlock()
	s.leave()
}

// upgraded turns a request into an upgraded connection.
func (s *seat) upgraded() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	*s.counts--
	s.counts = &s.w.count.Upgrades
	*s.counts++
}

// leave gives the place back, once.
func (s *seat) leave() {
	t, w := s.t, s.w
	t.mu.Lock()
	*s.counts--
	last := w.idle && w.load() == 0
	if last && !w.at.IsValid() && t.workers[w.seat] == w {
		delete(t.workers, w.seat)
	}
	t.mu.Unlock()
	if last {
		w.closeIdle()
	}
}

// report counts, and gives the connections with the worker of each.
func (t *table) report() (r proxy.Report, links map[*link]handoff.Seat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	links = map[*link]handoff.Seat{}
	r.Waiting = t.waiting
	for _, w := range t.workers {
		r.Workers = append(r.Workers, w.count)
		for l := range w.links {
			links[l] = w.seat
		}
	}
	return r, links
}

// carried tells how much is carried of all together.
func (t *table) carried() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.workers {
		n += w.load()
	}
	return n + t.waiting
}

// await waits until nothing is carried, or ctx ends.
func (t *table) await(ctx context.Context) {
	for t.carried() > 0 {
		select {
		case <-time.After(awaitPace):
		case <-ctx.Done():
			return
		}
	}
}

// sequence is that of the route in force; 0: there was none yet.
func (t *table) sequence() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.route.Seq
}

func (t *table) stopping() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.route.Stopping
}
