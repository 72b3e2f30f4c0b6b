package helper

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/reaper"
	"go.uber.org/goleak"
)

// roles are what the test binary is when a Helper starts it.
var roles = map[string]func(c *Conn){
	"echo":  echoRole,
	"serve": serveRole,
	"deaf":  deafRole,
	"flood": floodRole,
	"brief": func(*Conn) {},
}

var all = reaper.New()

func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(os.Args[0], "entrypoint:"); ok {
		c, err := Parent()
		if err != nil {
			panic(err)
		}
		roles[name](c)
		os.Exit(0)
	}
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- all.Run(ctx) }()
	code := m.Run()
	cancel()
	<-done
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

type message struct {
	Text string `json:"text"`
	PID  int    `json:"pid,omitempty"`
	UID  int    `json:"uid,omitempty"`
	Caps string `json:"caps,omitempty"`
}

// echoRole answers each message with its text and what it is itself.
func echoRole(c *Conn) {
	_ = c.Ready()
	for {
		var m message
		if err := c.Receive(&m); err != nil {
			return
		}
		m.PID, m.UID, m.Caps = os.Getpid(), os.Getuid(), "?"
		if b, err := os.ReadFile("/proc/self/status"); err == nil {
			m.Caps = ""
			for _, line := range strings.Split(string(b), "\n") {
				if strings.HasPrefix(line, "CapEff") || strings.HasPrefix(line, "NoNewPrivs") {
					m.Caps += strings.ReplaceAll(line, "\t", "") + " "
				}
			}
		}
		if c.Send(m) != nil {
			return
		}
	}
}

// serveRole answers each connection of its first file with its process number, and those that it has to their end.
func serveRole(c *Conn) {
	f := File(0)
	l, err := net.FileListener(f)
	if err != nil {
		panic(err)
	}
	f.Close()
	var open sync.WaitGroup
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					if _, err := in.ReadString('\n'); err != nil {
						return
					}
					fmt.Fprintln(conn, os.Getpid())
				}
			})
		}
	}()
	_ = c.Ready()
	var m message
	for c.Receive(&m) == nil {
	}
	l.Close()
	open.Wait()
}

// deafRole does not end.
func deafRole(c *Conn) {
	signal.Ignore(syscall.SIGTERM)
	_ = c.Ready()
	select {}
}

// floodRole sends a message that is too long.
func floodRole(c *Conn) {
	_ = c.Send(message{Text: strings.Repeat("x", maxFromHelper)})
	select {}
}

// drain is the Serve of a role that says nothing.
func drain(_ context.Context, c *Conn) error {
	for {
		var m message
		if err := c.Receive(&m); err != nil {
			return err
		}
	}
}

type scene struct {
	*Helper
	log  *locked
	stop context.CancelFunc
	over chan error
}

// begin runs a helper until stop, or the end of the test.
func begin(t *testing.T, o Options) *scene {
	t.Helper()
	s := &scene{log: &locked{}, over: make(chan error, 1)}
	o.Reaper, o.Stderr, o.Log = all, 2, slog.New(slog.NewTextHandler(s.log, nil))
	o.Env = os.Environ()
	if o.Path == "" {
		o.Path = "/proc/self/exe"
	}
	s.Helper = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { s.over <- s.Run(ctx); close(ended) }()
	s.stop = func() { cancel(); <-ended }
	t.Cleanup(s.stop)
	return s
}

// locked is a text that several goroutines write and read.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never:", what)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestTalk: messages go both ways, to an unprivileged process that nobody takes for the app's.
func TestTalk(t *testing.T) {
	before := descriptors(t)
	answers := make(chan message)
	o := Options{Role: "echo", Grace: time.Minute, Serve: func(ctx context.Context, c *Conn) error {
		for _, text := range []string{"one", strings.Repeat("long ", 8000)} { // longer than the buffer of a pipe
			if err := c.Send(message{Text: text}); err != nil {
				return err
			}
			var m message
			if err := c.Receive(&m); err != nil {
				return err
			}
			answers <- m
		}
		return drain(ctx, c)
	}}
	if os.Getuid() == 0 {
		o.User = &reaper.Credential{UID: 65534, GID: 65534}
	}
	s := begin(t, o)
	first, second := <-answers, <-answers
	if first.Text != "one" || len(second.Text) != 40000 || first.PID != s.PID() || second.PID != first.PID {
		t.Errorf("%d bytes, pid %d; %d bytes; %d", len(first.Text), first.PID, len(second.Text), s.PID())
	}
	if !strings.Contains(first.Caps, "NoNewPrivs:1") || o.User != nil && (first.UID != 65534 || !strings.Contains(first.Caps, "CapEff:0000000000000000")) {
		t.Errorf("it runs as %d, %s", first.UID, first.Caps)
	}
	if list := all.Descendants(); len(list) != 0 {
		t.Errorf("descendants: %v", list)
	}
	s.stop()
	if err := <-s.over; err != nil || s.Restarts() != 0 || s.log.String() != "" {
		t.Errorf("%v, %d restarts: %s", err, s.Restarts(), s.log)
	}
	if n := descriptors(t); n != before {
		t.Errorf("descriptors: %d, then %d", before, n)
	}
}

// client asks a serving helper over and over, on new connections, until the test ends; it fails the test at the first refusal.
func client(t *testing.T, address string) (asked func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	stop := make(chan struct{})
	var wg sync.WaitGroup
	t.Cleanup(func() { close(stop); wg.Wait() }) // before the helper ends, and the socket is closed
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Errorf("refused: %v", err)
				return
			}
			fmt.Fprintln(c, "?")
			_, err = bufio.NewReader(c).ReadString('\n')
			c.Close()
			if err == nil {
				mu.Lock()
				n++
				mu.Unlock()
			}
		}
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return n }
}

func listen(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	address := l.Addr().String()
	l.Close()
	return f, address
}

// TestKilled: a run that is killed is replaced, and the socket that it served never refuses.
func TestKilled(t *testing.T) {
	f, address := listen(t)
	s := begin(t, Options{Role: "serve", Files: []*os.File{f}, Grace: time.Minute, Serve: drain})
	asked := client(t, address)
	for i := range 3 {
		n := asked()
		eventually(t, "answers", func() bool { return asked() > n+5 })
		pid := s.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another run", func() bool { return s.PID() != 0 && s.PID() != pid })
		if s.Restarts() != i+1 {
			t.Errorf("%d restarts", s.Restarts())
		}
	}
	n := asked()
	eventually(t, "answers", func() bool { return asked() > n })
	if !strings.Contains(s.log.String(), "killed by signal") && !strings.Contains(s.log.String(), "SIGKILL") {
		t.Errorf("the log: %s", s.log)
	}
}

// TestReplace: the new run serves before the old one ends, and the old one serves the connections that it has to their end.
func TestReplace(t *testing.T) {
	f, address := listen(t)
	before := descriptors(t)
	s := begin(t, Options{Role: "serve", Files: []*os.File{f}, Grace: time.Minute, Serve: drain})
	eventually(t, "a run", func() bool { return s.PID() != 0 })
	old := s.PID()
	kept, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(kept)
	ask := func() string {
		fmt.Fprintln(kept, "?")
		line, err := in.ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(line)
	}
	if got := ask(); got != fmt.Sprint(old) {
		t.Errorf("%s answers, not %d", got, old)
	}
	if err := s.Replace(t.Context(), Program{}); err != nil {
		t.Fatal(err)
	}
	if s.PID() == old || syscall.Kill(old, 0) != nil {
		t.Errorf("pid %d, before %d", s.PID(), old)
	}
	if got := ask(); got != fmt.Sprint(old) {
		t.Errorf("%s answers on the old connection, not %d", got, old)
	}
	kept.Close()
	eventually(t, "the old run ends", func() bool { return syscall.Kill(old, 0) != nil })
	if s.Restarts() != 0 {
		t.Errorf("%d restarts", s.Restarts())
	}
	s.stop()
	if n := descriptors(t); n != before {
		t.Errorf("descriptors: %d, then %d", before, n)
	}
}

// TestReplaceFails: a new run that does not serve changes nothing.
func TestReplaceFails(t *testing.T) {
	s := begin(t, Options{Role: "echo", Grace: time.Minute, Serve: drain})
	eventually(t, "a run", func() bool { return s.PID() != 0 })
	old := s.PID()
	s.o.Role = "brief" // what the next run is
	if err := s.Replace(t.Context(), Program{}); err == nil || !strings.Contains(err.Error(), "exit") {
		t.Errorf("error: %v", err)
	}
	if s.PID() != old || syscall.Kill(old, 0) != nil {
		t.Errorf("pid %d, before %d", s.PID(), old)
	}
	s.stop()
	if err := s.Replace(t.Context(), Program{}); err == nil {
		t.Error("replaced after the end")
	}
}

// TestDeaf: a run that does not end is killed after its grace.
func TestDeaf(t *testing.T) {
	s := begin(t, Options{Role: "deaf", Grace: 50 * time.Millisecond, Serve: drain})
	eventually(t, "a run", func() bool { return s.PID() != 0 })
	pid := s.PID()
	s.stop()
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("it lives")
	}
}

// TestFlood: a message that is too long ends the run, not the init.
func TestFlood(t *testing.T) {
	s := begin(t, Options{Role: "flood", Grace: time.Minute, Serve: drain})
	eventually(t, "two runs have ended", func() bool { return s.Restarts() >= 2 })
	s.stop()
	if !strings.Contains(s.log.String(), "longer than") {
		t.Errorf("the log: %s", s.log)
	}
}

// TestServeFails: what Serve calls an error ends the run.
func TestServeFails(t *testing.T) {
	s := begin(t, Options{Role: "echo", Grace: time.Minute, Serve: func(context.Context, *Conn) error { return errors.New("no sense") }})
	eventually(t, "it is started again", func() bool { return s.Restarts() >= 2 })
	s.stop()
	if !strings.Contains(s.log.String(), "no sense") {
		t.Errorf("the log: %s", s.log)
	}
}

// TestUnstartable: a binary that is not there is tried again until the end.
func TestUnstartable(t *testing.T) {
	s := begin(t, Options{Role: "echo", Path: "/nonexistent", Grace: time.Minute, Serve: drain})
	eventually(t, "it was tried twice", func() bool { return s.Restarts() >= 2 })
	s.stop()
}

// TestReceive: what is not a message is an error, and a line may come in pieces.
func TestReceive(t *testing.T) {
	for name, c := range map[string]struct {
		sent []string
		want string
		err  string
	}{
		"pieces":   {[]string{`{"te`, `xt":"a"}`, "\n"}, "a", ""},
		"ready":    {[]string{readyLine + "\n" + `{"text":"b"}` + "\n"}, "b", ""},
		"half":     {[]string{`{"text":`}, "", "unexpected EOF"},
		"end":      {nil, "", "EOF"},
		"no JSON":  {[]string{"hello\n"}, "", "cannot be read"},
		"too long": {[]string{strings.Repeat("x", maxFromHelper+1)}, "", "longer than"},
		"a limit":  {[]string{`{"text":"` + strings.Repeat("x", 5000) + `"}` + "\n"}, strings.Repeat("x", 5000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			mine, theirs := net.Pipe()
			r := newConn(mine, maxFromHelper)
			served := false
			r.served = func() { served = true }
			go func() {
				for _, s := range c.sent {
					io.WriteString(theirs, s)
				}
				theirs.Close()
			}()
			var m message
			err := r.Receive(&m)
			mine.Close()
			if m.Text != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%.40q, %v", m.Text, err)
			}
			if served != (name == "ready") {
				t.Error("served:", served)
			}
		})
	}
}

func TestReadyLine(t *testing.T) {
	if line, err := json.Marshal(ready{true}); err != nil || string(line) != readyLine {
		t.Errorf("ready is sent as %s, and written out as %s (%v)", line, readyLine, err)
	}
}
