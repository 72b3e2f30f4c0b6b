package swap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
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
	ready  error                                    // readiness is refused with it
	never  bool                                     // readiness is never shown
	slow   time.Duration                            // until ready
	launch time.Duration                            // until started
	exits  *reaper.Status                           // at once, before ready
	handle func(p *fakeProcess, sig syscall.Signal) // polite if nil
	load   func() handoff.Load                      // quiet if nil
	output string
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
	closed  bool
}

func (p *fakeProgram) Command() []string                    { return p.command }
func (p *fakeProgram) Path() string                         { return p.command[0] }
func (p *fakeProgram) Hash(context.Context) (string, error) { return "feed", nil }
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
	next     []behaviour
	current  behaviour
	procs    map[int]*fakeProcess
	traffic  map[int]*fakeTraffic
	programs []*fakeProgram
	steered  []int
	checked  [][]string
	closed   int
	messages map[int]chan handoff.Message
}

func newWorld(t *testing.T, b ...behaviour) *world {
	return &world{t: t, next: b, procs: map[int]*fakeProcess{}, traffic: map[int]*fakeTraffic{}, messages: map[int]chan handoff.Message{}}
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
	p := &fakeProgram{w: w, command: slices.Clone(command)}
	w.programs = append(w.programs, p)
	return p, nil
}

func (w *world) Start(ctx context.Context, gen int, p Program) (*Instance, error) {
	w.mu.Lock()
	b := w.take()
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
	proc := &fakeProcess{pid: 100 + gen, done: make(chan struct{}), handle: b.handle}
	if proc.handle == nil {
		proc.handle = polite
	}
	tr := &fakeTraffic{load: b.load}
	msgs := make(chan handoff.Message)
	w.mu.Lock()
	w.procs[gen], w.traffic[gen], w.messages[gen] = proc, tr, msgs
	w.mu.Unlock()
	if b.exits != nil {
		proc.exit(*b.exits)
	}
	return &Instance{
		Process: proc, Traffic: tr, Messages: msgs,
		Ready:  func(ctx context.Context) error { return b.await(ctx) },
		Output: func() string { return b.output },
		Close: func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.closed++
			close(msgs)
		},
	}, nil
}

func (b behaviour) await(ctx context.Context) error {
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
	w.steered = append(w.steered, gen)
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
		StartLimitBurst: 5, StartLimitInterval: time.Minute,
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
	for n, tr := range w.traffic {
		if tr.released != 1 {
			w.t.Errorf("the slots of generation %d were released %d times", n, tr.released)
		}
	}
	if w.closed != len(w.procs) {
		w.t.Errorf("%d instances, %d closed", len(w.procs), w.closed)
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
