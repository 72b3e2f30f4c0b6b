package swap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/reaper"
)

// fakeProcess ends when the test, or the signal handler that the test gave it, says so.
type fakeProcess struct {
	pid  int
	done chan struct{}

	mu      sync.Mutex
	status  reaper.Status
	over    bool
	members int // of the group, beside the leader
	signals []syscall.Signal
	at      []time.Time
	handle  func(p *fakeProcess, sig syscall.Signal)
}

func (p *fakeProcess) PID() int              { return p.pid }
func (p *fakeProcess) Done() <-chan struct{} { return p.done }

func (p *fakeProcess) Status() reaper.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

func (p *fakeProcess) exit(st reaper.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.over, p.status = true, st
		close(p.done)
	}
}

func (p *fakeProcess) Signal(sig syscall.Signal) error { return p.SignalGroup(sig) }

func (p *fakeProcess) SignalGroup(sig syscall.Signal) error {
	p.mu.Lock()
	p.signals = append(p.signals, sig)
	p.at = append(p.at, time.Now())
	handle, over := p.handle, p.over && p.members == 0
	if sig == syscall.SIGKILL {
		p.members = 0
	}
	p.mu.Unlock()
	switch {
	case over:
		return os.ErrProcessDone
	case sig == syscall.SIGKILL:
		p.exit(reaper.SignalStatus(sig))
	case handle != nil:
		handle(p, sig)
	}
	return nil
}

func (p *fakeProcess) GroupAlive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.over || p.members > 0
}

func (p *fakeProcess) got() []syscall.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.signals)
}

// polite ends with 0 at TERM, stubborn at nothing but KILL.
func polite(p *fakeProcess, sig syscall.Signal) {
	if sig == syscall.SIGTERM {
		p.exit(reaper.ExitStatus(0))
	}
}

func stubborn(*fakeProcess, syscall.Signal) {}

// behaviour is what the next generation does.
type behaviour struct {
	check  error
	start  error
	steer  error
	split  error
	smoke  func(ctx context.Context) error
	health chan probe.Health
	ready  error                                    // readiness is refused with it
	never  bool                                     // readiness is never shown
	slow   time.Duration                            // until ready
	launch time.Duration                            // until started
	exits  *reaper.Status                           // at once, before ready
	handle func(p *fakeProcess, sig syscall.Signal) // polite if nil
	load   func() handoff.Load                      // quiet if nil
	shows  func(ctx context.Context) error          // readiness, if not nil: slow, never and ready say nothing then
	output string
	tail   time.Duration // until that is read
}

type fakeTraffic struct {
	load     func() handoff.Load
	released int
}

func (f *fakeTraffic) Load() (handoff.Load, error) {
	if f.load == nil {
		return handoff.Load{Known: true}, nil
	}
	return f.load(), nil
}
func (f *fakeTraffic) Release() { f.released++ }

type fakeProgram struct {
	w       *world
	command []string
	bytes   string // what it hashes to
	upload  bool
	changed time.Time // its file
	lost    error     // why it cannot be started any more
	closed  bool
}

func (p *fakeProgram) Command() []string                    { return p.command }
func (p *fakeProgram) Path() string                         { return p.command[0] }
func (p *fakeProgram) Hash(context.Context) (string, error) { return p.bytes, nil }
func (p *fakeProgram) Facts() Artifact {
	return Artifact{Exec: "memfd", Memory: 10, Changed: p.changed}
}
func (p *fakeProgram) Intact() error { return p.lost }
func (p *fakeProgram) Close() error {
	if p.closed {
		p.w.t.Error("a program was closed twice")
	}
	p.closed = true
	return nil
}

// world is a Launcher whose generations behave as the test says; unsaid, they are good.
type world struct {
	t *testing.T

	mu       sync.Mutex
	bytes    string // of the file
	changed  time.Time
	next     []behaviour
	current  behaviour
	procs    map[int]*fakeProcess
	traffic  map[int]*fakeTraffic
	programs []*fakeProgram
	steered  []int
	refuse   func(gen int) error // why a generation cannot be steered to; nil: it can
	shares   []string
	checked  [][]string
	closed   int
	messages map[int]chan handoff.Message
	// Of workers other than the first, and of first ones that were started again.
	crew   map[handoff.Seat]*fakeProcess
	begun  int
	more   []*fakeTraffic
	spread [][]handoff.Seat // each time that the traffic was divided, and who had it
	on     func(handoff.Seat) *behaviour
	rig    *rig
}

func newWorld(t *testing.T, b ...behaviour) *world {
	return &world{t: t, bytes: "one", next: b, procs: map[int]*fakeProcess{}, traffic: map[int]*fakeTraffic{}, messages: map[int]chan handoff.Message{},
		crew: map[handoff.Seat]*fakeProcess{}}
}

func (w *world) take() behaviour {
	if len(w.next) == 0 {
		return behaviour{}
	}
	b := w.next[0]
	w.next = w.next[1:]
	return b
}

func (w *world) Check(_ context.Context, command []string) (Program, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checked = append(w.checked, command)
	if len(w.next) > 0 && w.next[0].check != nil {
		return nil, w.take().check
	}
	p := &fakeProgram{w: w, command: slices.Clone(command), bytes: w.bytes, changed: w.changed}
	w.programs = append(w.programs, p)
	return p, nil
}

func (w *world) Adopt(_ context.Context, command []string, u *Upload) (Program, string, error) {
	b, err := io.ReadAll(u.File)
	if err != nil {
		return nil, "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &fakeProgram{w: w, command: slices.Clone(command), bytes: string(b), upload: true}
	w.programs = append(w.programs, p)
	return p, "/real" + command[0], nil
}

// write changes the bytes of the app's file.
func (w *world) write(bytes string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes = bytes
}

func (w *world) Start(ctx context.Context, at handoff.Seat, p Program) (*Instance, error) {
	gen := at.Generation
	w.mu.Lock()
	b := behaviour{}
	if given := w.given(at); given != nil {
		b = *given
	} else if at.Worker == 0 {
		b = w.take()
	}
	w.current = b
	w.mu.Unlock()
	if p.(*fakeProgram).closed {
		w.t.Errorf("generation %d is started from a closed program", gen)
	}
	if b.launch > 0 {
		time.Sleep(b.launch)
	}
	if b.start != nil {
		return nil, b.start
	}
	proc := &fakeProcess{pid: 100 + gen + 1000*at.Worker, done: make(chan struct{}), handle: b.handle}
	if proc.handle == nil {
		proc.handle = polite
	}
	tr := &fakeTraffic{load: b.load}
	msgs := make(chan handoff.Message)
	w.mu.Lock()
	w.begun++
	w.crew[at] = proc
	if at.Worker == 0 && w.procs[gen] == nil {
		w.procs[gen], w.traffic[gen], w.messages[gen] = proc, tr, msgs
	} else {
		w.more = append(w.more, tr)
	}
	w.mu.Unlock()
	if b.exits != nil {
		proc.exit(*b.exits)
	}
	return &Instance{
		Process: proc, Traffic: tr, Messages: msgs,
		Ready:  func(ctx context.Context) error { return b.await(ctx) },
		Smoke:  b.smoke,
		Health: b.watch(),
		Output: func() string { time.Sleep(b.tail); return b.output },
		Close: func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.closed++
			close(msgs)
		},
	}, nil
}

// watch reports what the test sends.
func (b behaviour) watch() func(context.Context, func(probe.Health)) {
	if b.health == nil {
		return nil
	}
	return func(ctx context.Context, report func(probe.Health)) {
		for {
			select {
			case h := <-b.health:
				report(h)
			case <-ctx.Done():
				return
			}
		}
	}
}

func (b behaviour) await(ctx context.Context) error {
	if b.shows != nil {
		return b.shows(ctx)
	}
	if b.never || b.exits != nil {
		<-ctx.Done()
		return errors.New("nobody accepted")
	}
	select {
	case <-time.After(b.slow):
		return b.ready
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *world) Steer(gen int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current.steer != nil {
		return w.current.steer
	}
	if w.refuse != nil {
		if err := w.refuse(gen); err != nil {
			return err
		}
	}
	w.steered = append(w.steered, gen)
	var all []handoff.Seat
	for at, p := range w.crew {
		if at.Generation == gen && p.GroupAlive() { // who is gone has no slot any more
			all = append(all, at)
		}
	}
	w.spread = append(w.spread, all)
	return nil
}

func (w *world) Spread(active int, workers []handoff.Seat) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		if err := w.refuse(-1); err != nil {
			return err
		}
	}
	w.spread = append(w.spread, slices.Clone(workers))
	return nil
}

// given is what a test says of one worker. The world is locked.
func (w *world) given(at handoff.Seat) *behaviour {
	if w.on == nil {
		return nil
	}
	return w.on(at)
}

// acts makes workers do from now on what on says.
func (w *world) acts(on func(at handoff.Seat) *behaviour) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on = on
}

// refuses makes switches to a generation fail as long as now says so.
func (w *world) refuses(gen int, now func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = func(to int) error {
		if to == gen && now() {
			return errors.New("no memory")
		}
		return nil
	}
}

func (w *world) Split(active, candidate int, share handoff.Share) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current.split != nil {
		return w.current.split
	}
	w.shares = append(w.shares, fmt.Sprintf("%d/%d %s", active, candidate, share))
	return nil
}

func (w *world) Held() []handoff.SocketStatus { return nil }
func (w *world) NotHeld() []handoff.Native    { return nil }
func (w *world) Reaped() reaper.Stats         { return reaper.Stats{} }

func (w *world) proc(gen int) *fakeProcess {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.procs[gen]
	if p == nil {
		w.t.Fatalf("generation %d was never started", gen)
	}
	return p
}

func (w *world) started() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.procs)
}

func (w *world) message(gen int) chan handoff.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.messages[gen]
}

func (w *world) last() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.steered) == 0 {
		return 0
	}
	return w.steered[len(w.steered)-1]
}

// rig is a running supervisor in a bubble of fake time.
type rig struct {
	*Supervisor
	t     *testing.T
	w     *world
	ended chan Ending
}

func defaults(w *world) Options {
	return Options{
		Command: []string{"/app"}, Launcher: w, StartTimeout: time.Minute, DrainQuiet: 5 * time.Second,
		DrainTimeout: 30 * time.Second, StopSignal: syscall.SIGTERM, MaxDraining: 2, ShutdownTimeout: 8 * time.Second,
		Group: true, RestartDelay: 100 * time.Millisecond, RestartMaxDelay: 30 * time.Second,
		StartLimitBurst: 5, StartLimitInterval: time.Minute, Keep: 2,
	}
}

// inBubble runs f with a supervisor, then stops what f left running and checks that nothing leaked.
func inBubble(t *testing.T, w *world, change func(*Options), f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		o := defaults(w)
		if change != nil {
			change(&o)
		}
		r := &rig{Supervisor: New(o), t: t, w: w, ended: make(chan Ending, 1)}
		w.rig = r
		go func() { r.ended <- r.Run(context.Background()) }()
		synctest.Wait()
		f(r)
		r.Stop(context.Background(), true)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.accounted()
	})
}

// accounted checks that each generation was released once and each program closed once.
func (w *world) accounted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tr := range w.more {
		if tr.released != 1 {
			w.t.Errorf("the slots of a worker were released %d times", tr.released)
		}
	}
	for n, tr := range w.traffic {
		if tr.released != 1 {
			w.t.Errorf("the slots of generation %d were released %d times", n, tr.released)
		}
	}
	if w.closed != w.begun {
		w.t.Errorf("%d instances, %d closed", w.begun, w.closed)
	}
	for i, p := range w.programs {
		if !p.closed {
			w.t.Errorf("program %d was never closed", i)
		}
	}
}

func (r *rig) reload() Result {
	return r.Swap(r.t.Context(), Request{Kind: Reload, Cause: "test"}, nil)
}

func (r *rig) want(active int, state string) Status {
	r.t.Helper()
	synctest.Wait()
	st, err := r.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if st.Active != active || st.State != state {
		r.t.Fatalf("generation %d is active and the whole is %q, want %d and %q", st.Active, st.State, active, state)
	}
	r.roundTrip()
	return st
}

// roundTrip writes down all that the owner knows and reads it back.
func (r *rig) roundTrip() {
	r.t.Helper()
	_ = r.ask(r.t.Context(), func() {
		b, err := json.Marshal(r.st)
		var back state
		if err == nil {
			err = json.Unmarshal(b, &back)
		}
		again, _ := json.Marshal(back)
		if err != nil || string(again) != string(b) {
			r.t.Errorf("the state does not survive being written down: %v\n%s\n%s", err, b, again)
		}
		if len(back.Generations) != len(r.st.Generations) || !reflect.DeepEqual(back.Command, r.st.Command) {
			r.t.Error("the state lost something")
		}
	})
}

func (r *rig) wantState(gen int, want State) {
	r.t.Helper()
	synctest.Wait()
	st, err := r.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, g := range st.Generations {
		if g.Number == gen {
			if g.State != want {
				r.t.Fatalf("generation %d is %s, want %s", gen, g.State, want)
			}
			return
		}
	}
	r.t.Fatalf("generation %d is not known", gen)
}

func (r *rig) wantEnd(want Ending) {
	r.t.Helper()
	select {
	case got := <-r.ended:
		if got != want {
			r.t.Fatalf("the container ends with %v, want %v", got, want)
		}
	case <-time.After(time.Hour):
		r.t.Fatal("the container does not end")
	}
}

func wantCode(t *testing.T, r Result, code int) {
	t.Helper()
	if r.Code != code {
		t.Fatalf("code %d (%s), want %d", r.Code, r.Text, code)
	}
}

func exits(code int) *reaper.Status { st := reaper.ExitStatus(code); return &st }

var errBroken = fmt.Errorf("cannot start %q: it is half an ELF", "/app")
