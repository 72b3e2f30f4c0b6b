package face

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/reaper"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe is a Conn: what one side sends the other one receives.
type pipe struct {
	in, out chan []byte
	over    chan struct{} // of both sides
	once    *sync.Once
	deaf    atomic.Bool // it receives nothing any more
}

func newPipe() (init, helper *pipe) {
	a, b, over, once := make(chan []byte, 100), make(chan []byte, 100), make(chan struct{}), new(sync.Once)
	return &pipe{in: a, out: b, over: over, once: once}, &pipe{in: b, out: a, over: over, once: once}
}

func (p *pipe) Send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	select {
	case p.out <- b:
		return nil
	case <-p.over:
		return io.ErrClosedPipe
	}
}

func (p *pipe) Receive(v any) error {
	select {
	case b := <-p.in:
		if p.deaf.Load() {
			<-p.over
			return io.EOF
		}
		return json.Unmarshal(b, v)
	case <-p.over:
		return io.EOF
	}
}

func (p *pipe) Ready() error { return nil }
func (p *pipe) Close() error { p.once.Do(func() { close(p.over) }); return nil }

// fakeInit is a supervisor that says what the test wants. Its news are those of a real one that never runs.
type fakeInit struct {
	*swap.Supervisor
	mu     sync.Mutex
	sick   error
	status swap.Status
	counts swap.Counters
	asked  int
}

func newFakeInit() *fakeInit {
	return &fakeInit{Supervisor: swap.New(swap.Options{}), status: sampleStatus(), counts: sampleCounters()}
}

func (f *fakeInit) Health(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sick
}

func (f *fakeInit) Status(context.Context) (swap.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.status, nil
}

func (f *fakeInit) Counters(context.Context) (swap.Counters, error) { return f.counts, nil }

func (f *fakeInit) sicken(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sick = err
}

// served is a helper's side in this process, over a real socket.
type served struct {
	t      *testing.T
	init   *fakeInit
	ours   *pipe
	link   *link
	server *server
	at     string
}

func serveFake(t *testing.T, change func(*server, *face)) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, init: newFakeInit(), at: l.Addr().String()}
	var theirs *pipe
	s.ours, theirs = newPipe()
	s.link = newLink(theirs)
	f := &face{link: s.link, proc: "testdata", heartbeat: time.Minute}
	s.server = newServer(l, f.answer)
	if change != nil {
		change(s.server, f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		_ = NewInit(s.init, func() Extra { return sampleExtra() }, "").Serve(ctx, s.ours)
	})
	all.Go(func() { _ = s.link.receive() })
	all.Go(func() { s.server.serve(ctx) })
	t.Cleanup(func() {
		cancel()
		s.ours.Close()
		all.Wait()
	})
	return s
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

func sampleStatus() swap.Status {
	at := func(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }
	return swap.Status{
		Schema: 1, Version: "1.2.3", State: "swapping", PID: 1, StartedAt: epoch, Handoff: "auto", Command: []string{"/app/server", "-x"},
		Active: 2, Candidate: 3, Restarts: 1, Drift: true, Image: "aaaaaaaaaaaaaaaa", Memory: 3 << 20,
		Generations: []swap.Generation{
			{Number: 1, State: swap.Draining, PID: 10, SHA256: "aaaaaaaaaaaaaaaa", StartedAt: at(0), ReadyAt: at(1), ActiveAt: at(2), DrainingAt: at(50), Load: &handoff.Load{Known: true, Open: 4, Busy: 1, Queued: 2}},
			{Number: 2, State: swap.Active, PID: 20, SHA256: "bbbbbbbbbbbbbbbb", StartedAt: at(48), ReadyAt: at(49), ActiveAt: at(50), Artifact: &swap.Artifact{Comment: `release "7" \ x`, Size: 123456, Exec: "memfd", Source: "file"}},
			{Number: 3, State: swap.Canary, PID: 30, StartedAt: at(90), ReadyAt: at(91), TriedAt: at(92), Share: "25%"},
		},
		Sockets: []handoff.SocketStatus{
			{Name: "web", Address: "tcp://0.0.0.0:8080", Mode: "steered", Slots: []handoff.SlotStatus{
				{Generation: 1, Queue: 2}, {Generation: 2, Queue: 1, Current: true, Portion: .75}, {Generation: 3, Portion: .25}}},
			{Name: "dns", Address: "udp://[::]:53", Mode: "shared", Why: "no steering", Slots: []handoff.SlotStatus{{Current: true, Portion: 1}}},
		},
		LastSwaps: []swap.SwapRecord{{At: at(48), Kind: swap.Reload, Cause: "signal SIGHUP", From: 1, To: 2, Text: "generation 2 is active", ElapsedMS: 2000,
			Phases: []swap.Phase{{Name: "check", ElapsedMS: 1.5}, {Name: "start", ElapsedMS: 3}, {Name: "ready", ElapsedMS: 1995.5}}}},
		Reaped: reaper.Stats{Children: 5, Orphans: 7},
	}
}

func sampleCounters() swap.Counters {
	return swap.Counters{
		Swaps:    map[string]map[string]uint64{"start": {"done": 1}, "signal": {"done": 1, "rejected": 2}},
		Phases:   map[string]swap.Histogram{"check": {Counts: []uint64{1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, Sum: 2*time.Hour + 1500*time.Microsecond}},
		LastDone: epoch.Add(50 * time.Second), Restarts: map[string]uint64{"failure": 1}, Cut: 9, VerifyFailures: map[string]uint64{"pin": 2},
	}
}

func sampleExtra() Extra {
	return Extra{Signals: []SignalCount{{"SIGHUP", "reload", 3}}, Watch: "inotify", LogDropped: 11, Goroutines: 13}
}

func sampleFacts() *Facts {
	return &Facts{
		Health: Health{OK: true}, Status: sampleStatus(), Counters: sampleCounters(), Extra: sampleExtra(),
		Usage: &Usage{Processes: 2, Resident: 50 << 20, Files: 33, CPU: 1230 * time.Millisecond},
	}
}

var errSick = errors.New("generation 2 is unhealthy: \x1b[31m<no>\nanswer")

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what it was; -update writes it:\n%s", path, got)
	}
}
