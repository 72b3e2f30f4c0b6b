package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

func TestReloadStreamsPhasesThenOneResult(t *testing.T) {
	for name, address := range map[string]string{"abstract": "", "path": socketPath(t), "auto": Auto} {
		t.Run(name, func(t *testing.T) {
			s := start(t, ServerOptions{Address: address})
			result, events := ask(t, s.address, Request{Op: OpReload})
			var phases []string
			for _, e := range events {
				phases = append(phases, fmt.Sprintf("%s %d %s %s", e.Event, e.Generation, e.Phase, e.Text))
			}
			if diff := cmp.Diff([]string{"phase 2 started pid 42", "phase 2 ready "}, phases); diff != "" {
				t.Error(diff)
			}
			want := Result{Event: "result", V: 1, Op: "reload", Result: swap.Result{Generation: 2, Text: "reload ", ElapsedMS: 7}}
			if diff := cmp.Diff(want, result); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAutomaticNameIsOurNamespaceAndPid(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &st); err != nil {
		t.Fatal(err)
	}
	s := start(t, ServerOptions{Address: Auto})
	if want := fmt.Sprintf("@entrypoint/%d/%d", st.Ino, os.Getpid()); s.address != want {
		t.Errorf("listens at %q, want %q", s.address, want)
	}
}

func TestOperations(t *testing.T) {
	sick := &fake{
		health: func(context.Context) error { return errors.New("generation 1 is not ready") },
		signal: func(syscall.Signal) error { return errors.New("no active generation") },
		status: func() (swap.Status, error) { return swap.Status{}, errors.New("no status") },
	}
	off := false
	for _, c := range []struct {
		name string
		sup  *fake
		req  Request
		code int
		text string
	}{
		{"run", &fake{}, Request{Op: OpRun, Command: []string{"/app", "-x"}}, 0, "run /app -x"},
		{"restart", &fake{}, Request{Op: OpRestart}, 0, "restart "},
		{"not waited for", &fake{swap: goesOn}, Request{Op: OpReload, Wait: &off}, 124, "the swap has begun and was not waited for"},
		{"timeout", &fake{swap: goesOn}, Request{Op: OpReload, TimeoutMS: 20}, 124, "still going on"},
		{"promote", &fake{}, Request{Op: OpPromote, Full: true}, 0, fmt.Sprintf("promoted true by command promote (pid %d, uid %d)", os.Getpid(), os.Getuid())},
		{"abort", &fake{}, Request{Op: OpAbort}, 0, fmt.Sprintf("aborted by command abort (pid %d, uid %d)", os.Getpid(), os.Getuid())},
		{"stop", &fake{}, Request{Op: OpStop}, 0, "stopping, now false"},
		{"stop now", &fake{}, Request{Op: OpStop, Now: true}, 0, "stopping, now true"},
		{"signal", &fake{}, Request{Op: OpSignal, Signal: "usr1"}, 0, "sent SIGUSR1 to the active generation"},
		{"real-time signal", &fake{}, Request{Op: OpSignal, Signal: "RTMIN+3"}, 0, "sent signal 37 to the active generation"},
		{"signal to nobody", sick, Request{Op: OpSignal, Signal: "HUP"}, 1, "no active generation"},
		{"no such signal", &fake{}, Request{Op: OpSignal, Signal: "FROB"}, 2, `unknown signal "FROB": give a name (HUP, SIGHUP, RTMIN+3) or a number`},
		{"status", &fake{}, Request{Op: OpStatus}, 0, "serving"},
		{"no status", sick, Request{Op: OpStatus}, 1, "no status"},
		{"health", &fake{}, Request{Op: OpHealth}, 0, "healthy"},
		{"ill health", sick, Request{Op: OpHealth}, 1, "generation 1 is not ready"},
		{"ps", &fake{}, Request{Op: OpPS}, 0, ""},
		{"config", &fake{}, Request{Op: OpConfig}, 0, ""},
		{"version", &fake{}, Request{Op: OpVersion}, 0, "entrypoint 1.2.3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, ServerOptions{Supervisor: c.sup, Version: "1.2.3", Descendants: func() []int { return []int{41, 77} },
				Config: func() (json.RawMessage, error) { return json.RawMessage(`{"a":1}`), nil }})
			got, _ := ask(t, s.address, c.req)
			if got.Code != c.code || got.Text != c.text || got.Op != c.req.Op {
				t.Errorf("got code %d, text %q, op %q; want %d, %q", got.Code, got.Text, got.Op, c.code, c.text)
			}
			switch {
			case got.Code != 0:
			case c.req.Op == OpStatus && (got.Status == nil || got.Status.Version != "1.2.3" || got.Status.Active != 1):
				t.Errorf("status %+v", got.Status)
			case c.req.Op == OpPS:
				want := []Process{{PID: os.Getpid(), State: "init"}, {PID: 41, Generation: 1, State: "active"}, {PID: 77}}
				if diff := cmp.Diff(want, got.Processes); diff != "" {
					t.Error(diff)
				}
			case c.req.Op == OpConfig && string(got.Config) != `{"a":1}`:
				t.Errorf("config %s", got.Config)
			}
		})
	}
}

// goesOn is a swap that takes longer than anybody waits.
func goesOn(ctx context.Context, _ swap.Request, progress func(swap.Progress)) swap.Result {
	progress(swap.Progress{Generation: 2, Phase: "started"})
	<-ctx.Done()
	return swap.Result{Code: swap.CodeTimeout, Text: "still going on"}
}

// TestUploadReachesTheSupervisor: the very file, with what was said about it, and no descriptor is left behind.
func TestUploadReachesTheSupervisor(t *testing.T) {
	got := make(chan swap.Request, 1)
	s := start(t, ServerOptions{Supervisor: &fake{swap: func(_ context.Context, r swap.Request, _ func(swap.Progress)) swap.Result {
		got <- r
		return swap.Result{Path: "/app"}
	}}})
	file, err := os.CreateTemp(t.TempDir(), "upload")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fmt.Fprint(file, "bytes")
	hash := strings.Repeat("AB", 32)
	result, _ := ask(t, s.address, Request{Op: OpPut, Path: "/app", SHA256: hash, Signature: "signed", Until: UntilDrained, Upload: file})
	r := <-got
	if result.Path != "/app" || r.Kind != swap.Put || !r.Drained || r.Upload.Path != "/app" || r.Upload.SHA256 != strings.ToLower(hash) ||
		string(r.Upload.Signature) != "signed" || !strings.Contains(r.Upload.From, "uid") {
		t.Errorf("result %+v, request %+v, upload %+v", result, r, r.Upload)
	}
	b := make([]byte, 10)
	if n, _ := r.Upload.File.ReadAt(b, 0); string(b[:n]) != "bytes" {
		t.Errorf("the upload holds %q", b[:n])
	}
	r.Upload.File.Close()
	for op, want := range map[string]string{OpReload: `operation "reload" takes no upload`, OpStatus: `operation "status" takes no upload`} {
		if result, _ := ask(t, s.address, Request{Op: op, Upload: file}); result.Code != swap.CodeUsage || result.Text != want {
			t.Errorf("%s with an upload: %+v", op, result)
		}
	}
}

func TestSupervisorLearnsWhoAsked(t *testing.T) {
	asked := make(chan swap.Request, 1)
	s := start(t, ServerOptions{Supervisor: &fake{swap: func(_ context.Context, r swap.Request, _ func(swap.Progress)) swap.Result {
		asked <- r
		return swap.Result{}
	}}})
	ask(t, s.address, Request{Op: OpRun, Command: []string{"a", "b c"}})
	want := swap.Request{Kind: swap.Run, Command: []string{"a", "b c"}, Cause: fmt.Sprintf("command run (pid %d, uid %d)", os.Getpid(), os.Geteuid())}
	if diff := cmp.Diff(want, within(t, time.Second, asked)); diff != "" {
		t.Error(diff)
	}
}

func TestDeathOfTheClientEndsOnlyTheWaiting(t *testing.T) {
	waiting, gone := make(chan bool, 1), make(chan error, 1)
	s := start(t, ServerOptions{Supervisor: &fake{swap: func(ctx context.Context, r swap.Request, p func(swap.Progress)) swap.Result {
		p(swap.Progress{Phase: "started"})
		waiting <- true
		<-ctx.Done()
		gone <- ctx.Err()
		p(swap.Progress{Phase: "ready"}) // nobody reads it, and nobody minds
		return swap.Result{Code: swap.CodeTimeout}
	}}})
	c := dialRaw(t, s.address)
	c.sendProven(`{"v":1,"op":"reload"}` + "\n")
	within(t, 5*time.Second, waiting)
	c.Close()
	if err := within(t, 5*time.Second, gone); err != context.Canceled {
		t.Errorf("the context ended with %v", err)
	}
	if r, _ := ask(t, s.address, Request{Op: OpHealth}); r.Code != 0 {
		t.Errorf("the server does not go on: %+v", r)
	}
}

func TestEndOfServeLetsClientsHearTheEnd(t *testing.T) {
	waiting := make(chan bool, 1)
	stopping := make(chan bool)
	s := start(t, ServerOptions{Supervisor: &fake{swap: func(ctx context.Context, r swap.Request, p func(swap.Progress)) swap.Result {
		waiting <- true
		select {
		case <-stopping:
			return swap.Result{Code: swap.CodeRejected, Text: "the container stops"}
		case <-ctx.Done():
			return swap.Result{Code: swap.CodeTimeout, Text: "cut off"}
		}
	}}}, func(s *Server) { s.limit.farewell = time.Minute }) // nobody is cut off here
	result := make(chan Result, 1)
	go func() { r, _ := ask(t, s.address, Request{Op: OpReload}); result <- r }()
	within(t, 5*time.Second, waiting)
	ended := make(chan bool)
	go func() { s.stop(); close(ended) }()
	close(stopping)
	if r := within(t, 5*time.Second, result); r.Text != "the container stops" {
		t.Errorf("heard %+v", r)
	}
	within(t, 5*time.Second, ended)
}

// Clients of every kind hang on the server when it is told to end.
func TestServeEndsWhateverClientsDo(t *testing.T) {
	waiting := make(chan bool, 1)
	s := start(t, ServerOptions{Supervisor: &fake{swap: func(ctx context.Context, _ swap.Request, p func(swap.Progress)) swap.Result {
		waiting <- true
		return goesOn(ctx, swap.Request{}, p)
	}}}, func(s *Server) { s.limit.farewell = 20 * time.Millisecond })
	dialRaw(t, s.address)
	dialRaw(t, s.address).sendProven(`{"v":1,`)
	dialRaw(t, s.address).sendProven(`{"v":1,"op":"reload"}` + "\n")
	within(t, 5*time.Second, waiting)
	begun := time.Now()
	s.stop()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("Serve took %v to end", took)
	}
}

func TestPanicEndsOneConnection(t *testing.T) {
	s := start(t, ServerOptions{Supervisor: &fake{status: func() (swap.Status, error) { panic("broken") }}})
	c := dialRaw(t, s.address)
	c.sendProven(`{"v":1,"op":"status"}` + "\n")
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
	if r, _ := ask(t, s.address, Request{Op: OpHealth}); r.Code != 0 {
		t.Errorf("the server does not go on: %+v", r)
	}
	if log := s.log(); !strings.Contains(log, "internal error") || !strings.Contains(log, "broken") {
		t.Errorf("log %q", log)
	}
}

// An init forwards signals, so it must not make any itself.
func TestNoSIGPIPE(t *testing.T) {
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, unix.SIGPIPE)
	defer signal.Stop(pipes)
	begin, done := make(chan bool, 1), make(chan bool, 1)
	s := start(t, ServerOptions{Supervisor: &fake{swap: func(ctx context.Context, _ swap.Request, p func(swap.Progress)) swap.Result {
		begin <- true
		<-ctx.Done()
		for range 10 {
			p(swap.Progress{Phase: "ready"})
		}
		defer func() { done <- true }()
		return swap.Result{}
	}}})
	c := dialRaw(t, s.address)
	c.sendProven(`{"v":1,"op":"reload"}` + "\n")
	within(t, 5*time.Second, begin)
	c.Close()
	within(t, 5*time.Second, done)
	s.stop()
	select {
	case <-pipes:
		t.Error("the process got a SIGPIPE")
	default:
	}
}

func TestOffListensNowhere(t *testing.T) {
	s := start(t, ServerOptions{Address: Off})
	if s.Address() != Off {
		t.Errorf("address %q", s.Address())
	}
	if err := s.Server.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Dial(context.Background(), Off); err == nil || !strings.Contains(err.Error(), "ENTRYPOINT_CONTROL is off") {
		t.Errorf("dial: %v", err)
	}
}

// A supervisor that still reports phases after it has given the result cannot spoil the answer.
func TestNothingFollowsTheResult(t *testing.T) {
	var late func(swap.Progress)
	s := start(t, ServerOptions{Supervisor: &fake{swap: func(_ context.Context, _ swap.Request, p func(swap.Progress)) swap.Result {
		late = p
		return swap.Result{}
	}}})
	ask(t, s.address, Request{Op: OpReload})
	s.stop()
	ours, theirs := pair(t)
	c := &client{conn: ours, answerTime: time.Minute}
	c.finish(Result{Event: "result", V: Version})
	c.event(swap.Progress{Phase: "ready"})
	ours.Close()
	raw{theirs, t}.result()
	late(swap.Progress{Phase: "ready"}) // and neither can one that does so when the connection is gone
}

// pair is two connected sockets.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	address := anyName()
	l, err := bind(address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b = dialRaw(t, address).UnixConn
	a, err = l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a, b
}

// TestSeveralApps: a request is about the app that it names, and what must name one says so.
func TestSeveralApps(t *testing.T) {
	told := make(chan string, 10)
	app := func(name string) App {
		return App{name, &fake{
			signal: func(syscall.Signal) error { told <- name; return nil },
			health: func(context.Context) error { return errors.New(name + " is not well") },
		}}
	}
	web, jobs := app("web"), app("jobs")
	r := start(t, ServerOptions{
		Supervisor: web.Supervisor, Apps: []App{web, jobs},
		Stop:   func(context.Context, bool) swap.Result { return swap.Result{Text: "stopped both"} },
		Health: func(context.Context) error { return nil },
	})
	for _, c := range []struct {
		r    Request
		code int
		text string
	}{
		{Request{Op: OpSignal, Signal: "USR1", App: "jobs"}, swap.CodeDone, "SIGUSR1"},
		{Request{Op: OpSignal, Signal: "USR1"}, swap.CodeUsage, "several apps here: name one of web, jobs"},
		{Request{Op: OpReload, App: "cron"}, swap.CodeUsage, `no app "cron" here: name one of web, jobs`},
		{Request{Op: OpReload, App: "jobs"}, swap.CodeDone, "reload"},
		{Request{Op: OpHealth}, swap.CodeDone, "healthy"},
		{Request{Op: OpHealth, App: "jobs"}, swap.CodeRejected, "jobs is not well"},
		{Request{Op: OpStop}, swap.CodeDone, "stopped both"},
		{Request{Op: OpStop, App: "jobs"}, swap.CodeUsage, `no field "app"`},
	} {
		c.r.V = Version
		if got, _ := ask(t, r.address, c.r); got.Code != c.code || !strings.Contains(got.Text, c.text) {
			t.Errorf("%+v: %d %s", c.r, got.Code, got.Text)
		}
	}
	if name := <-told; name != "jobs" || len(told) > 0 {
		t.Errorf("%s was signalled, and %d more", name, len(told))
	}
	st, _ := ask(t, r.address, Request{V: Version, Op: OpStatus})
	if st.Status == nil || st.Status.App != "web" || len(st.Apps) != 2 || st.Apps[1].App != "jobs" {
		t.Errorf("status %+v of %+v", st.Status, st.Apps)
	}
	if one, _ := ask(t, r.address, Request{V: Version, Op: OpStatus, App: "jobs"}); one.Status.App != "jobs" || len(one.Apps) != 0 {
		t.Errorf("status %+v of %+v", one.Status, one.Apps)
	}
	ps, _ := ask(t, r.address, Request{V: Version, Op: OpPS})
	if len(ps.Processes) != 3 || ps.Processes[1].App != "web" || ps.Processes[2].App != "jobs" {
		t.Errorf("processes %+v", ps.Processes)
	}
}

// TestOneApp has no name.
func TestOneApp(t *testing.T) {
	r := start(t, ServerOptions{})
	for op, want := range map[string]string{OpReload: "entrypoint run -- web", OpHealth: "has no name", OpStatus: "has no name"} {
		if got, _ := ask(t, r.address, Request{V: Version, Op: op, App: "web"}); got.Code != swap.CodeUsage || !strings.Contains(got.Text, want) {
			t.Errorf("%s: %d %s", op, got.Code, got.Text)
		}
	}
}
