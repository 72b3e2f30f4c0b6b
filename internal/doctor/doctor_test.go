package doctor

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// app is one generation: an HTTP server in this process, behind a socket that outlives it.
type app struct {
	handler http.Handler
	server  *http.Server
	conns   sync.Map
	closing chan struct{}
	rude    atomic.Bool // connections are closed as soon as they are idle
	holds   atomic.Bool // answers wait until their connection is cut
	held    chan bool   // one for each
}

func newApp(h http.Handler) *app {
	a := &app{handler: h, closing: make(chan struct{}), held: make(chan bool, 100)}
	a.server = &http.Server{Handler: a, ConnState: func(c net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			a.conns.Delete(c)
		} else {
			a.conns.Store(c, s)
		}
		if s == http.StateIdle && a.rude.Load() {
			c.Close()
		}
	}}
	return a
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-a.closing:
		w.Header().Set("Connection", "close")
	default:
	}
	a.handler.ServeHTTP(w, r)
	if a.holds.Load() {
		a.held <- true
		<-r.Context().Done()
	}
}

// serve answers on a connection that was handed to it.
func (a *app) serve(c net.Conn) {
	_ = a.server.Serve(&oneConn{c: c}) // it ends when there is no second connection
}

// oneConn is a listener of one connection.
type oneConn struct {
	c    net.Conn
	used bool
}

func (o *oneConn) Accept() (net.Conn, error) {
	if o.used {
		return nil, io.EOF
	}
	o.used = true
	return o.c, nil
}
func (o *oneConn) Close() error   { return nil }
func (o *oneConn) Addr() net.Addr { return o.c.LocalAddr() }

// told says Connection: close from now on and waits until no connection is left.
func (a *app) told(t *testing.T) {
	close(a.closing)
	a.left(t)
}

// dropsIdle closes each connection when its next answer has gone, and says nothing: its client pauses then, so no request is on its way that
// could be taken for a cut one.
func (a *app) dropsIdle(t *testing.T) {
	a.rude.Store(true)
	a.left(t)
}

// left waits until no connection is left.
func (a *app) left(t *testing.T) {
	deadline := time.Now().Add(10 * time.Second)
	for left := true; left; {
		left = false
		a.conns.Range(func(any, any) bool { left = true; return false })
		if time.Now().After(deadline) {
			t.Error("clients that were told to go are still there")
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// cut closes every connection, whatever it does.
func (a *app) cut() {
	a.conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
}

// cutMidway closes every connection when a request is being answered.
func (a *app) cutMidway(first func()) {
	a.holds.Store(true)
	<-a.held
	a.holds.Store(false)
	first()
	a.cut()
}

// stage is an init with a held socket and its generations.
type stage struct {
	t       *testing.T
	held    net.Listener
	handler http.Handler
	leave   func(*stage, *app, *Life) // what an old generation does

	mu     sync.Mutex
	active *app
	lives  []Life
	ends   sync.WaitGroup
}

func newStage(t *testing.T, h http.HandlerFunc, leave func(*stage, *app, *Life)) *stage {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, held: l, handler: h, leave: leave}
	s.start()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			a := s.active
			s.mu.Unlock()
			a.serve(c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		s.ends.Wait()
		s.active.cut()
	})
	return s
}

func (s *stage) start() *app {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.active
	s.active = newApp(s.handler)
	s.lives = append(s.lives, Life{Number: len(s.lives) + 1, Active: time.Now()})
	return old
}

func (s *stage) reload(context.Context) error {
	old := s.start()
	n := len(s.lives) - 2
	s.ends.Go(func() {
		s.mu.Lock()
		life := s.lives[n]
		life.Signalled = time.Now()
		s.mu.Unlock()
		s.leave(s, old, &life)
		life.Ended = time.Now()
		s.mu.Lock()
		s.lives[n] = life
		s.mu.Unlock()
	})
	return nil
}

func (s *stage) known(context.Context) ([]Life, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Life{}, s.lives...), nil
}

func (s *stage) options() Options {
	return Options{Address: s.held.Addr().String(), Host: "app", Path: "/", Clients: 4, NewClients: 1, Swaps: 2,
		Pause: 5 * time.Millisecond, Timeout: 5 * time.Second}
}

func (s *stage) examine(o Options) *Report {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	r, err := Drain(ctx, o, Init{Reload: s.reload, Lives: s.known})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

func TestPoliteAppLosesNothing(t *testing.T) {
	s := newStage(t, hello, func(s *stage, a *app, _ *Life) { a.told(s.t) })
	r := s.examine(s.options())
	if r.Lost.Total() != 0 || len(r.Advice) != 0 || r.Swaps != 2 || len(r.Generations) != 2 {
		t.Errorf("got %+v", r)
	}
	if r.Requests.Kept == 0 || r.Requests.New < 3*4 {
		t.Errorf("each of 4 clients made 3 connections or more, counted %+v", r.Requests)
	}
}

func TestClosedIdleConnectionsAreCounted(t *testing.T) {
	s := newStage(t, hello, func(s *stage, a *app, _ *Life) { a.dropsIdle(s.t) })
	o := s.options()
	o.Pause = 50 * time.Millisecond
	r := s.examine(o)
	if r.Lost.Kept < 4 || r.Lost.New != 0 || len(r.Advice) != 1 || r.Advice[0].Cause != IdleClosed || r.Advice[0].Count != r.Lost.Kept {
		t.Errorf("got %+v", r)
	}
	for _, row := range r.Losses {
		if row.Class != Kept || row.After != Signal || row.Kind != EOF && row.Kind != Reset {
			t.Errorf("row %+v", row)
		}
	}
}

func TestCutRequests(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(60 * time.Millisecond) // a cut in an answer is told by how long the others take
		hello(w, r)
	}
	for name, c := range map[string]struct {
		leave func(*stage, *app, *Life)
		want  Cause
	}{
		"by the app": {func(_ *stage, a *app, _ *Life) { a.cutMidway(func() {}) }, CutByApp},
		"by KILL": {func(_ *stage, a *app, l *Life) {
			a.cutMidway(func() {
				l.Killed = time.Now()
				l.Signalled = l.Killed.Add(-30 * time.Millisecond)
			})
		}, CutByKill},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, slow, c.leave)
			o := s.options()
			o.Clients = 8
			r := s.examine(o)
			for _, a := range r.Advice {
				if a.Cause == c.want {
					return
				}
			}
			t.Errorf("no %s in %+v", c.want, r)
		})
	}
}

func TestOtherAnswersAreWrong(t *testing.T) {
	var s *stage
	s = newStage(t, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		n := len(s.lives)
		s.mu.Unlock()
		if n > 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}, func(s *stage, a *app, _ *Life) { a.told(s.t) })
	o := s.options()
	o.Swaps, o.Post = 1, 100
	r := s.examine(o)
	if len(r.Advice) != 1 || r.Advice[0].Cause != WrongReply || r.Lost.Kept == 0 || r.Lost.New == 0 {
		t.Errorf("got %+v", r)
	}
}

func TestNobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	r, err := Drain(t.Context(), Options{Address: l.Addr().String(), Path: "/", Clients: 1, Swaps: 1, Timeout: time.Second}, Init{})
	if r != nil || !errors.Is(err, ErrNoAnswer) || kindOf(err) != Refused {
		t.Errorf("%v, %v", r, err)
	}
}

func TestRefusedSwapEndsIt(t *testing.T) {
	s := newStage(t, hello, nil)
	no := errors.New("busy")
	r, err := Drain(t.Context(), s.options(), Init{Lives: s.known, Reload: func(context.Context) error { return no }})
	if !errors.Is(err, no) || r == nil || r.Swaps != 0 || r.Requests.Total() == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// An interrupt cuts what is under way, and does not count it.
func TestInterrupt(t *testing.T) {
	asked := make(chan bool, 100)
	hang := make(chan bool)
	var usual atomic.Bool // the request before the load was answered
	s := newStage(t, func(w http.ResponseWriter, r *http.Request) {
		if usual.CompareAndSwap(false, true) {
			return
		}
		asked <- true
		<-hang
	}, nil)
	defer close(hang)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	o := s.options()
	o.Timeout = time.Minute
	begin := time.Now()
	r, err := Drain(ctx, o, Init{Lives: s.known})
	if !errors.Is(err, context.Canceled) || r.Lost.Total() != 0 || time.Since(begin) > 20*time.Second {
		t.Errorf("%+v, %v after %v", r, err, time.Since(begin))
	}
}

// at is a time of the made-up lives below.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestCauses(t *testing.T) {
	lives := lineUp([]Life{
		{Number: 3, Active: at(20_000), Signalled: at(20_500), Killed: at(30_500), Ended: at(30_501)},
		{Number: 1, Active: at(0), Signalled: at(11_000), Ended: at(11_010)},
		{Number: 2, Active: at(10_000), Signalled: at(20_100), Ended: at(20_200), Died: true},
		{Number: 4, Active: at(20_400)},
	})
	lost := func(class Class, opened, began, lost int) Loss {
		l := Loss{Class: class, Kind: EOF, Began: at(began), At: at(lost)}
		if opened >= 0 {
			l.Opened = at(opened)
		}
		return l
	}
	hungUp := func(l Loss) Loss { l.HungUp = true; return l }
	kind := func(l Loss, k Kind) Loss { l.Kind = k; return l }
	begun := func(l Loss) Loss { l.Begun = true; return l }
	for name, c := range map[string]struct {
		loss Loss
		want Cause
		deed Deed
	}{
		"idle, closed before":         {hungUp(lost(Kept, 500, 11_050, 11_051)), IdleClosed, Signal},
		"idle, crossed":               {lost(Kept, 500, 11_001, 11_002), IdleClosed, Signal},
		"in flight":                   {lost(Kept, 500, 10_900, 11_002), CutByApp, Signal},
		"in the middle":               {begun(lost(New, 500, 11_001, 11_002)), CutByApp, Signal},
		"between switch and signal":   {lost(Kept, 500, 10_500, 10_501), OwnTimeout, Replaced},
		"no swap":                     {lost(Kept, 500, 5_000, 5_001), OwnTimeout, None},
		"died":                        {lost(Kept, 11_500, 20_100, 20_101), Died, Signal},
		"long, killed":                {lost(Kept, 20_300, 20_600, 30_501), CutByKill, Kill},
		"long and first, killed":      {lost(New, 20_300, 20_300, 30_501), CutByKill, Kill},
		"taken until KILL":            {hungUp(lost(Kept, 20_300, 30_502, 30_503)), NotTold, Kill},
		"refused":                     {kind(lost(New, -1, 11_005, 11_005), Refused), NewFailed, Signal},
		"refused without a swap":      {kind(lost(New, -1, 9_000, 9_000), Refused), NewFailed, None},
		"reset at once":               {kind(lost(New, 10_500, 11_005, 11_006), Reset), NewFailed, Signal},
		"late":                        {kind(lost(New, 500, 500, 5_500), Timeout), NoReply, None},
		"status":                      {kind(lost(Kept, 500, 500, 510), Wrong), WrongReply, None},
		"no port":                     {kind(lost(New, -1, 500, 510), Local), OwnTrouble, None},
		"shared socket, owner unsure": {hungUp(lost(Kept, 10_500, 11_012, 11_013)), IdleClosed, Signal},
	} {
		p := find(c.loss, lives)
		if got := causeOf(c.loss, p); got != c.want || p.deed != c.deed {
			t.Errorf("%s: %s after %s of generation %d, want %s after %s", name, got, p.deed, p.life.Number, c.want, c.deed)
		}
	}
}

// Where the old generation is stopped first, a connection that was made meanwhile is not its.
func TestNobodyTakesBetweenStopAndStart(t *testing.T) {
	lives := lineUp([]Life{{Number: 1, Active: at(0), Signalled: at(1000), Ended: at(1100)}, {Number: 2, Active: at(2000)}})
	l := Loss{Class: New, Kind: EOF, Opened: at(1500), Began: at(1500), At: at(1600)}
	if p := find(l, lives); p.owned || causeOf(l, p) != NewFailed {
		t.Errorf("got %+v, %s", p, causeOf(l, p))
	}
}

func TestRowsAndAdvice(t *testing.T) {
	lives := lineUp([]Life{{Number: 1, Active: at(0), Signalled: at(1500), Ended: at(1600)}, {Number: 2, Active: at(1000)}})
	var r Report
	r.Requests, r.Swaps, r.Lost = Count{100, 20}, 1, Count{3, 1}
	r.diagnose([]Loss{
		{Class: New, Kind: Refused, Began: at(1501), At: at(1501), Text: "refused"},
		{Class: Kept, Kind: EOF, Opened: at(10), Began: at(1503), At: at(1504), HungUp: true, Text: "a"},
		{Class: Kept, Kind: EOF, Opened: at(10), Began: at(1501), At: at(1502), HungUp: true, Text: "b"},
		{Class: Kept, Kind: Reset, Opened: at(10), Began: at(1501), At: at(1502), HungUp: true, Text: "c"},
	}, lives)
	r.sum()
	want := []Row{
		{IdleClosed, Kept, EOF, Signal, 2, 2, 4, "a"},
		{IdleClosed, Kept, Reset, Signal, 1, 2, 2, "c"},
		{NewFailed, New, Refused, Signal, 1, 1, 1, "refused"},
	}
	if diff := cmp.Diff(want, r.Losses); diff != "" {
		t.Error(diff)
	}
	if len(r.Advice) != 2 || r.Advice[0].Cause != IdleClosed || r.Advice[0].Count != 3 || r.Advice[1].Cause != NewFailed {
		t.Errorf("advice %+v", r.Advice)
	}
	if diff := cmp.Diff([]Ended{{Number: 1, SignalMS: 500, EndMS: 600}}, r.Generations); diff != "" {
		t.Error(diff)
	}
	if r.Text != "4 of 120 requests were lost in 1 swap" || r.Losses[0].Span() != "2ms to 4ms after the stop signal" {
		t.Errorf("%q, %q", r.Text, r.Losses[0].Span())
	}
}

func TestEveryCauseHasAdvice(t *testing.T) {
	for _, c := range []Cause{IdleClosed, CutByApp, CutByKill, NotTold, OwnTimeout, Died, NewFailed, WrongReply, NoReply, OwnTrouble} {
		if i := order(c); i == len(causes) || causes[i].advice == "" {
			t.Errorf("%s has none", c)
		}
	}
}

func TestKinds(t *testing.T) {
	for err, want := range map[error]Kind{
		syscall.ECONNREFUSED: Refused, syscall.EPIPE: Reset, io.ErrUnexpectedEOF: EOF, context.DeadlineExceeded: Timeout,
		syscall.EADDRNOTAVAIL: Local, wrong{"status 503"}: Wrong, errors.New("malformed HTTP"): Wrong,
	} {
		if got := kindOf(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

// hungUp sees the end of a connection, and takes nothing that was sent on it.
func TestHungUp(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	l, err := dial(&Options{Address: held.Addr().String()}, time.Now().Add(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer l.conn.Close()
	peer, err := held.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if l.hungUp() {
		t.Error("it is open")
	}
	io.WriteString(peer, "x")
	if l.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); l.hungUp() {
		t.Error("it is open and has a byte")
	}
	if b, err := l.reader.ReadByte(); b != 'x' || err != nil {
		t.Errorf("the byte was taken: %q, %v", b, err)
	}
	peer.Close()
	if _, err := l.reader.Peek(1); err != io.EOF {
		t.Fatal(err)
	}
	if !l.hungUp() {
		t.Error("it was closed")
	}
}
