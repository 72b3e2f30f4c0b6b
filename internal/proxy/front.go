package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sort"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/helper"
	"github.com/hotswap-init/entrypoint/reaper"
)

// Role is the helper's: argv[0] is "entrypoint:" and this.
const Role = "proxy"

const (
	// switchTimeout bounds the wait for the helper's word that a switch is in force. It takes a tenth of a millisecond; one that takes this
	// long hangs.
	switchTimeout = 2 * time.Second
	// reportTimeout bounds the wait for a report, which is longer where very many connections are looked at.
	reportTimeout = 2 * time.Second
	// oldPace is between two looks at whether a run that was replaced is gone.
	oldPace = 50 * time.Millisecond
)

// Options describe a Front.
type Options struct {
	Kind           Kind
	Range          Range
	Protocol       Protocol
	ConnectTimeout time.Duration
	IdleTimeout    time.Duration
	Trust          []netip.Prefix
	TLS            []Files // certificates; none: no TLS
	// Grace is how long a run that was replaced may finish what it has.
	Grace time.Duration

	// Sockets are the held addresses, each one socket for all. They stay the caller's, and open until Run has returned.
	Sockets *handoff.Set

	Reaper      *reaper.Reaper
	Path        string // the executable of this binary
	User        *reaper.Credential
	ParentDeath syscall.Signal
	Stderr      int
	Log         *slog.Logger
}

// Front leads clients to generations. Make one with NewFront, then call Run once. The other methods may be called from any goroutine.
type Front struct {
	o      Options
	helper *helper.Helper
	ports  *ports
	lease  *handoff.Lease
	setup  Setup
	files  []*os.File

	mu      sync.Mutex
	route   Route
	leases  map[handoff.Seat]*Lease
	active  int    // the generation that was steered to last
	runs    []*run // that we talk with, the newest last
	asked   uint64 // number of the last question
	news    chan struct{}
	old     int // runs that were replaced and are not gone
	clients int // open connections, and who of them waits
	waiting int
	gone    sync.WaitGroup // watches over old runs
}

// run is PID 1's side of one run of the helper.
type run struct {
	conn    *helper.Conn
	applied uint64
	report  *Report       // the last one
	asking  uint64        // a question without an answer; 0: none
	wake    chan struct{} // there is something to send; room for one such news
	asks    []uint64      // questions to send
	pairs   []*Pairs      // answers to send
	sent    uint64        // sequence of the last route sent
	known   fingerprint   // of the certificates that it has
}

// NewFront prepares a proxy for the addresses of the Set, and opens nothing but copies of its sockets.
func NewFront(o Options) (*Front, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Front{
		o: o, ports: newPorts(o.Range), leases: map[handoff.Seat]*Lease{}, news: make(chan struct{}),
		route: Route{Seq: 1, Backends: []Backend{}},
		setup: Setup{Kind: o.Kind, Protocol: o.Protocol, ConnectTimeout: o.ConnectTimeout, IdleTimeout: o.IdleTimeout, Trust: o.Trust},
	}
	var err error
	if f.lease, err = o.Sockets.Lease(1); err != nil {
		return nil, fmt.Errorf("cannot hand the sockets to the proxy: %w", err)
	}
	for _, s := range f.lease.Files() {
		fd, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			f.closeFiles()
			return nil, fmt.Errorf("cannot hand the socket %q to the proxy: %w", s.Raw, err)
		}
		// The socket is in blocking mode yet, so this file has no part in the runtime's poller: PID 1 does not wake up for every client.
		f.files = append(f.files, os.NewFile(uintptr(fd), s.Name))
		f.setup.Listeners = append(f.setup.Listeners, Listener{Name: s.Name, TLS: covers(o.TLS, s.Name)})
	}
	if len(f.files) == 0 {
		return nil, errors.New("cannot start the proxy: there is no address for it; set ENTRYPOINT_LISTEN")
	}
	f.helper = helper.New(helper.Options{
		Reaper: o.Reaper, Path: o.Path, Role: Role, Files: f.files, Env: helperEnv(), User: o.User, ParentDeath: o.ParentDeath,
		Stderr: o.Stderr, Grace: o.Grace, Log: o.Log, Serve: f.talk,
	})
	return f, nil
}

// helperEnv is what of our environment a run may need: nothing of the app's, which may be secret.
func helperEnv() []string {
	var env []string
	for _, name := range []string{"GOMAXPROCS", "GOMEMLIMIT", "GORACE", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// Run keeps the helper alive until ctx ends, and ends it then.
func (f *Front) Run(ctx context.Context) error {
	defer f.closeFiles()
	defer f.gone.Wait()
	return f.helper.Run(ctx)
}

func (f *Front) closeFiles() {
	for _, file := range f.files {
		_ = file.Close() // a copy
	}
	f.lease.Release()
}

// Replace puts a new run of the helper in the place of the one that works, without losing a connection: the new one accepts first, then the old
// one finishes what it has. It blocks until the new one serves. A program that is not zero is what it, and all runs after it, are made of.
func (f *Front) Replace(ctx context.Context, program helper.Program) error {
	pid := f.helper.PID()
	fd := -1
	if pid > 0 {
		if n, err := unix.PidfdOpen(pid, 0); err == nil { // 5.3
			fd = n
		}
	}
	f.mu.Lock()
	f.old++
	f.mu.Unlock()
	err := f.helper.Replace(ctx, program)
	f.gone.Go(func() { // ends soon: the helper kills the old run after Grace
		if err == nil && fd >= 0 {
			awaitEnd(fd)
		}
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.old--
	})
	return err
}

// awaitEnd waits until a process was collected.
func awaitEnd(pidfd int) {
	for unix.PidfdSendSignal(pidfd, 0, nil, 0) == nil {
		time.Sleep(oldPace)
	}
}

// Steer gives everything new to a generation that has a lease. It returns when that is in force, and the error says that the
// helper does not answer: then nothing has changed, or will soon have changed back.
func (f *Front) Steer(gen int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	seats := f.seats(gen)
	if len(seats) == 0 {
		return fmt.Errorf("internal error: generation %d has no lease", gen)
	}
	if err := f.lead(func(r *Route) { r.Lead, r.Candidate, r.Share = seats, 0, "" }); err != nil {
		return err
	}
	f.active = gen
	return nil
}

// seats are the workers of a generation that have a lease.
func (f *Front) seats(gen int) (list []handoff.Seat) {
	for _, b := range f.route.Backends {
		if b.Generation == gen {
			list = append(list, handoff.Seat{Generation: gen, Worker: b.Worker})
		}
	}
	return list
}

// Spread gives what is new, and no share takes, to these workers, by turns; active is the generation that counts as steered to. Else it is
// as Steer.
func (f *Front) Spread(active int, workers []handoff.Seat) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range workers {
		if f.leases[at] == nil {
			return fmt.Errorf("internal error: worker %d of generation %d has no lease", at.Worker, at.Generation)
		}
	}
	workers = slices.Clone(workers)
	if err := f.lead(func(r *Route) { r.Lead = workers }); err != nil {
		return err
	}
	f.active = active
	return nil
}

// Split gives a candidate a share of what is new, and those who have all of it the rest, until Steer.
func (f *Front) Split(active, candidate int, share handoff.Share) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case active == candidate || active != f.active:
		return fmt.Errorf("internal error: generation %d cannot share with generation %d, which was not steered to", candidate, active)
	case len(f.seats(candidate)) == 0:
		return fmt.Errorf("internal error: generation %d has no lease", candidate)
	}
	text := share.String()
	if _, err := handoff.ParseShare(text); err != nil {
		return err
	}
	return f.lead(func(r *Route) {
		if r.Candidate != candidate {
			r.Seed = rand.Uint32() // whom it has stays with it when the share grows
		}
		r.Candidate, r.Share = candidate, text
	})
}

// Stop says that the container ends: nothing new is accepted, and nobody waits for a generation any more. It does not wait.
func (f *Front) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.route.Stopping {
		f.change(func(r *Route) { r.Stopping = true })
	}
}

// change makes a new route and has it sent to all runs.
func (f *Front) change(how func(*Route)) {
	f.route.Backends = slices.Clone(f.route.Backends) // the old one may be on its way
	how(&f.route)
	f.route.Seq++
	for _, r := range f.runs {
		r.stir()
	}
}

// lead changes the route and waits until it is in force. Where no run is there, it will be the first thing that the next one hears.
func (f *Front) lead(how func(*Route)) error {
	before := f.route
	f.change(how)
	seq := f.route.Seq
	late := time.Now().Add(switchTimeout)
	for !f.inForce(seq) {
		if !f.await(late) {
			f.change(func(r *Route) {
				r.Lead, r.Candidate, r.Share, r.Seed = before.Lead, before.Candidate, before.Share, before.Seed
			})
			return fmt.Errorf("the proxy does not answer for %s", switchTimeout)
		}
	}
	return nil
}

func (f *Front) inForce(seq uint64) bool {
	return !slices.ContainsFunc(f.runs, func(r *run) bool { return r.applied < seq })
}

// await waits for news of any run, without the lock; false: it is late.
func (f *Front) await(late time.Time) bool {
	news := f.news
	f.mu.Unlock()
	defer f.mu.Lock()
	timer := time.NewTimer(time.Until(late))
	defer timer.Stop()
	select {
	case <-news:
		return true
	case <-timer.C:
		return false
	}
}

// tell wakes whoever awaits.
func (f *Front) tell() {
	close(f.news)
	f.news = make(chan struct{})
}

func (r *run) stir() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// talk is the talk with one run, until its end.
func (f *Front) talk(ctx context.Context, c *helper.Conn) error {
	r := &run{conn: c, wake: make(chan struct{}, 1)}
	if err := c.Send(Order{Setup: &f.setup}); err != nil {
		return err
	}
	f.mu.Lock()
	f.runs = append(f.runs, r)
	r.stir()
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var writing sync.WaitGroup
	writing.Go(func() {
		if err := f.write(ctx, r); err != nil {
			_ = c.Close() // ends the reading below
		}
	})
	err := f.read(r)
	cancel()
	f.mu.Lock()
	f.runs = slices.DeleteFunc(f.runs, func(x *run) bool { return x == r })
	f.tell()
	f.mu.Unlock()
	writing.Wait()
	return err
}

// write sends what there is to send, the newest route alone.
func (f *Front) write(ctx context.Context, r *run) error {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil
		}
		for _, o := range f.orders(r) {
			if err := r.conn.Send(o); err != nil {
				return err
			}
		}
	}
}

func (f *Front) orders(r *run) (list []Order) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range r.pairs {
		list = append(list, Order{Pairs: p})
	}
	if route := f.route; r.sent < route.Seq {
		r.sent = route.Seq
		list = append(list, Order{Route: &route})
	}
	for _, n := range r.asks {
		list = append(list, Order{Report: n})
	}
	r.pairs, r.asks = nil, nil
	return list
}

// read hears what a run says until it is gone.
func (f *Front) read(r *run) error {
	for {
		var w Word
		err := r.conn.Receive(&w)
		if err == nil {
			err = w.check()
		}
		if err != nil {
			return err
		}
		f.hear(r, &w)
	}
}

func (f *Front) hear(r *run, w *Word) {
	if w.Log != "" {
		f.o.Log.Warn("proxy", "says", printable(w.Log))
	}
	if w.Pairs != 0 {
		pairs := f.readPairs(r, w.Pairs)
		f.mu.Lock()
		r.pairs = []*Pairs{pairs} // an answer that was not sent yet is out of date
		r.stir()
		f.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.Applied > r.applied && w.Applied <= f.route.Seq {
		r.applied = w.Applied
	}
	if w.Report != nil && w.Report.For == r.asking {
		r.report, r.asking = w.Report, 0
	}
	f.tell()
}

// printable is a sentence of a run, which may quote what came from the network.
func printable(text string) string {
	b := []byte(text)
	b = b[:min(len(b), maxLog)]
	for i, c := range b {
		if c < ' ' || c >= 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}

// errSilent says that it is not known what the helper carries.
var errSilent = errors.New("the proxy does not say what it carries")

// ask asks every run for a report that was made after this call, and adds them up. A run that has not answered the question before is not
// asked another one.
func (f *Front) ask() (map[handoff.Seat]Count, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	late := time.Now().Add(reportTimeout)
	seq := f.route.Seq
	f.asked++
	number := f.asked
	runs := slices.Clone(f.runs)
	want := map[*run]bool{}
	for {
		pending := !f.inForce(seq)
		for _, r := range runs {
			if !slices.Contains(f.runs, r) || want[r] && r.report != nil && r.report.For >= number {
				continue
			}
			pending = true
			if r.asking == 0 && r.applied >= seq {
				f.asked++
				r.asking = f.asked
				r.asks = append(r.asks, r.asking)
				want[r] = true
				r.stir()
			}
		}
		if !pending {
			break
		}
		if !f.await(late) {
			return nil, errSilent
		}
	}
	counts, clients, waiting := map[handoff.Seat]Count{}, 0, 0
	for _, r := range f.runs {
		if r.report == nil {
			continue // it has just come, and carries nothing yet
		}
		clients += r.report.Clients
		waiting += r.report.Waiting
		for _, c := range r.report.Workers {
			at := handoff.Seat{Generation: c.Generation, Worker: c.Worker}
			sum := counts[at]
			sum.Generation, sum.Worker = c.Generation, c.Worker
			sum.add(c)
			counts[at] = sum
		}
	}
	f.clients, f.waiting = clients, waiting
	if f.old > 0 {
		return counts, errSilent // a run that was replaced finishes what it has, and tells us nothing
	}
	return counts, nil
}

// Status describes the proxy.
type Status struct {
	Kind     Kind   `json:"kind"`
	PID      int    `json:"pid"` // of the helper; 0: it is being started again
	Restarts int    `json:"restarts"`
	Share    string `json:"share,omitempty"`
	// Clients are open connections of clients, and Generations what each one has of them.
	Clients     int     `json:"clients"`
	Waiting     int     `json:"waiting"` // for somebody who serves them
	Generations []Count `json:"generations"`
	// Known is false if the helper has not said it lately.
	Known bool `json:"known"`
}

// Status asks the helper, and blocks for that.
func (f *Front) Status() Status {
	counts, err := f.ask()
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Status{Kind: f.o.Kind, PID: f.helper.PID(), Restarts: f.helper.Restarts(), Share: f.route.Share, Clients: f.clients, Waiting: f.waiting, Known: err == nil, Generations: []Count{}}
	sums := map[int]Count{}
	for at, c := range counts {
		sum := sums[at.Generation]
		sum.Generation = at.Generation
		sum.add(c)
		sums[at.Generation] = sum
	}
	for _, c := range sums {
		s.Generations = append(s.Generations, c)
	}
	sort.Slice(s.Generations, func(i, j int) bool { return s.Generations[i].Generation < s.Generations[j].Generation })
	return s
}

// Kind is what it carries.
func (f *Front) Kind() Kind { return f.o.Kind }

// PID is the process number of the helper; 0: it is being started again.
func (f *Front) PID() int { return f.helper.PID() }

// Holds tells whether an address, as a client names it, is one of the proxy's.
func (f *Front) Holds(network, address string) bool { return f.o.Sockets.Holds(network, address) }

// modeProxied is the mode of an address, as status shows it.
const modeProxied = "proxied"

// Held describes the held addresses.
func (f *Front) Held() []handoff.SocketStatus {
	list := f.o.Sockets.Status()
	for i := range list {
		list[i].Mode, list[i].Why = modeProxied, ""
	}
	return list
}
