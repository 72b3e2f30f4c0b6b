package swap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/internal/probe/netprobe"
	"github.com/hotswap-init/entrypoint/reaper"
)

// servingRole makes the test binary an app that answers HTTP with the status code in its second argument, on all sockets that
// it inherits; with a third argument on that address, which it binds by itself.
const servingRole = "swap-test:serves"

// checkRole runs the roles that checks need.
func checkRole() (code int, ok bool) {
	switch {
	case os.Args[0] == HTTPProbeRole:
		return netprobe.Main(0, 3), true
	case len(os.Args) > 2 && os.Args[1] == servingRole:
		return serveCode(os.Args[2], os.Args[3:]), true
	}
	return 0, false
}

func serveCode(code string, addresses []string) int {
	n, _ := strconv.Atoi(code)
	var listeners []net.Listener
	inherited, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for fd := 3; fd < 3+inherited; fd++ {
		if l, err := net.FileListener(os.NewFile(uintptr(fd), "")); err == nil {
			listeners = append(listeners, l)
		}
	}
	for _, a := range addresses {
		network := "tcp"
		if strings.HasPrefix(a, "/") {
			network = "unix"
		}
		l, err := net.Listen(network, a)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		listeners = append(listeners, l)
	}
	failed := make(chan error)
	for _, l := range listeners {
		go func() {
			failed <- http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(n)
				fmt.Fprintf(w, "code %d to %s", n, r.Host)
			}))
		}()
	}
	fmt.Fprintln(os.Stderr, <-failed)
	return 1
}

// bench is an App with real processes on real sockets, without a supervisor.
type bench struct {
	t   *testing.T
	app *App
}

func newBench(t *testing.T, addresses string, c handoff.Config, a *App) *bench {
	t.Helper()
	addrs, err := handoff.ParseAddresses(addresses)
	if err != nil {
		t.Fatal(err)
	}
	c.Logf = t.Logf
	if a.Sockets, err = handoff.Open(addrs, c); err != nil {
		t.Fatal(err)
	}
	a.Reaper, a.Umask, a.TTY, a.Protocols, a.Logf = reaper.New(), -1, -1, handoff.AllProtocols, t.Logf
	a.Environ = func() ([]string, []string, error) { return []string{"PATH=" + os.Getenv("PATH")}, nil, nil }
	if a.Helper, err = os.Executable(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	reaped := make(chan error, 1)
	go func() { reaped <- a.Reaper.Run(ctx) }()
	t.Cleanup(func() {
		a.Close()
		stop()
		<-reaped
		if err := a.Sockets.Close(); err != nil {
			t.Error(err)
		}
	})
	return &bench{t, a}
}

// start starts a generation that answers with a code.
func (b *bench) start(gen int, code string, addresses ...string) *child {
	b.t.Helper()
	lease, err := b.app.Sockets.Lease(gen)
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := b.app.Check(b.t.Context(), append([]string{b.app.Helper, servingRole, code}, addresses...))
	if err != nil {
		b.t.Fatal(err)
	}
	c := &child{app: b.app, gen: gen, lease: lease, program: p.(*checkedProgram), notified: make(chan struct{}), messages: make(chan handoff.Message, 64)}
	if err := c.start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = c.process.SignalGroup(9)
		<-c.process.Done()
		c.closeAll()
		lease.Release()
		_ = p.(*checkedProgram).Close()
	})
	return c
}

func parsed(t *testing.T, list string) []probe.Check {
	t.Helper()
	checks, err := probe.Parse(list)
	if err != nil {
		t.Fatal(err)
	}
	return checks
}

// passes expects a smoke test of a generation to pass, or to fail with a sentence that has a part.
func (c *child) passes(t *testing.T, list, want string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	err := c.smoke(ctx, parsed(t, list))
	if got := fmt.Sprint(err); (err == nil) != (want == "") || err != nil && !strings.Contains(got, want) {
		t.Errorf("generation %d, %s: %v; want %q", c.gen, list, err, want)
	}
}

// TestChecksReachTheirGeneration: the old one answers 200, the candidate 500, on the same addresses. A check that asked
// whoever answers would let the candidate pass, or fail the old one.
func TestChecksReachTheirGeneration(t *testing.T) {
	for name, c := range map[string]handoff.Config{"steered": {Steer: true}, "shared": {}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := newBench(t, "tcp4://127.0.0.1:0,tcp6://[::1]:0,unix://"+dir+"/s", c, &App{})
			g1 := b.start(1, "200")
			g1.passes(t, "accept;timeout=20s", "")
			if err := b.app.Steer(1); err != nil {
				t.Fatal(err)
			}
			g2 := b.start(2, "500")
			g2.passes(t, "accept;timeout=20s", "")
			at := b.app.Sockets.Endpoints(2)
			if len(at) != 3 {
				t.Fatalf("endpoints: %v", at)
			}
			for _, e := range at {
				page, connect := "http://"+e.Address+"/healthz", "tcp://"+e.Address
				if e.Network == "unix" {
					page, connect = "http+unix://"+e.Address+":/healthz", "unix://"+e.Address
				}
				// Who accepts from a shared socket is the kernel's choice: more than one try may be needed to find the right one.
				g1.passes(t, page+";body=code 200;failures=5", "")
				g2.passes(t, page+";status=500;failures=5", "")
				g2.passes(t, page+";failures=3", " answered 500, 3 times in a row")
				g2.passes(t, connect+";failures=5", "")
			}
		})
	}
}

// TestChecksReachTheirLearnedAddresses is the same with programs that bind by themselves.
func TestChecksReachTheirLearnedAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	path := filepath.Join(t.TempDir(), "s")
	b := newBench(t, "", handoff.Config{Steer: true, Learn: true}, &App{Interception: MustIntercept})
	g1 := b.start(1, "200", address, path)
	g1.passes(t, "accept;timeout=20s", "")
	if err := b.app.Steer(1); err != nil {
		t.Fatal(err)
	}
	g2 := b.start(2, "500", address, path)
	g2.passes(t, "accept;timeout=20s", "")
	for _, check := range []string{"http://" + address + "/x", "http+unix://" + path + ":/x"} {
		g1.passes(t, check, "")
		g2.passes(t, check, check+" answered 500")
	}
	g2.passes(t, "tcp://"+address+",unix://"+path, "")
	g2.passes(t, "tcp://192.0.2.1:80", "not a held address, nor one of this machine")
}

// TestExecReachesItsGeneration with a program that knows nothing of generations.
func TestExecReachesItsGeneration(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl here")
	}
	b := newBench(t, "web-1=tcp4://127.0.0.1:0,admin=unix://"+t.TempDir()+"/s", handoff.Config{Steer: true}, &App{})
	g1 := b.start(1, "200")
	g1.passes(t, "accept;timeout=20s", "")
	g2 := b.start(2, "500")
	g2.passes(t, "accept;timeout=20s", "")
	for _, name := range []string{"", "WEB_1_", "ADMIN_"} {
		curl := `exec:/bin/sh -c 'curl -sS --noproxy "*" http://$ENTRYPOINT_CANDIDATE_` + name + `ADDRESS/x | grep "code %d"'`
		g1.passes(t, fmt.Sprintf(curl, 200), "")
		g2.passes(t, fmt.Sprintf(curl, 500), "")
	}
	g2.passes(t, `exec:/bin/sh -c 'curl -fsS --noproxy "*" http://$ENTRYPOINT_CANDIDATE_ADDRESS/x'`, "exited with code 22: curl: (22) The requested URL returned error: 500")
	g2.passes(t, fmt.Sprintf(`exec:/bin/sh -c 'test $ENTRYPOINT_CANDIDATE_GENERATION.$ENTRYPOINT_CANDIDATE_PID = 2.%d'`, g2.process.PID()), "")
	// Whoever is not the check finds the door shut.
	stranger := func(address string) string {
		out, err := exec.Command("curl", "-sS", "-m", "10", "--noproxy", "*", "http://"+address+"/x").CombinedOutput()
		return fmt.Sprint(err, string(out))
	}
	said := make(chan string, 1)
	file := filepath.Join(t.TempDir(), "address")
	go func() {
		for range 1000 {
			if b, err := os.ReadFile(file); err == nil && len(b) > 0 {
				said <- stranger(strings.TrimSpace(string(b)))
				_ = os.Remove(file)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		said <- "no address"
	}()
	g2.passes(t, `exec:/bin/sh -c 'echo $ENTRYPOINT_CANDIDATE_ADDRESS >`+file+`.new; mv `+file+`.new `+file+`; while [ -e `+file+` ]; do sleep 0.02; done';timeout=20s`, "")
	if got := <-said; strings.Contains(got, "code ") || !strings.Contains(got, "curl") {
		t.Errorf("a stranger got %q", got)
	}
}

// TestExecLeavesNothing: what a check starts is gone with it, and its last words are in the sentence.
func TestExecLeavesNothing(t *testing.T) {
	if err := reaper.BecomeSubreaper(); err != nil { // as the init is: orphans are seen
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
	b := newBench(t, "tcp4://127.0.0.1:0", handoff.Config{Steer: true}, &App{})
	g := b.start(1, "200")
	g.passes(t, "accept;timeout=20s", "")
	pidfile := filepath.Join(t.TempDir(), "pid")
	g.passes(t, `exec:/bin/sh -c 'echo at first; sleep 1000 & echo $! >`+pidfile+`; echo "and at last" >&2; wait';timeout=3s`,
		"did not come to an end within 3s: and at last")
	goneIn(t, pidfile)
	g.passes(t, `exec:/bin/sh -c 'sleep 1000 & echo $! >`+pidfile+`; exit 3'`, "exited with code 3")
	goneIn(t, pidfile)
	for _, apart := range []string{"timeout 1000 sleep 1000", "setsid sleep 1000"} { // a group, and a session, of its own
		g.passes(t, `exec:/bin/sh -c '`+apart+` & echo $! >`+pidfile+`; wait';timeout=3s`, "did not come to an end within 3s")
		goneIn(t, pidfile)
	}
	g.passes(t, `exec:/bin/sh -c 'timeout 1000 sleep 1000 & echo $! >`+pidfile+`; exit 3'`, "exited with code 3")
	goneIn(t, pidfile)
	g.passes(t, `exec:/bin/sh -c 'head -c 100000 /dev/zero | tr "\\0" x; exit 1'`, ": "+strings.Repeat("x", lastWords))
	g.passes(t, `exec:/nowhere/check`, "/nowhere/check")
	warm := func() {
		g.passes(t, "exec:/bin/true", "")
		g.passes(t, "http://"+b.app.Sockets.Endpoints(1)[0].Address+"/", "")
	}
	warm()
	g0, d0 := footprint(t)
	for range 20 {
		warm()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		g1, d1 := footprint(t)
		if g1 <= g0 && d1 <= d0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d -> %d goroutines, %d -> %d descriptors", g0, g1, d0, d1)
		}
	}
}

// goneIn waits until the process whose number is in a file does not run any more. It was not our child but the shell's: it may
// be left for somebody else to collect.
func goneIn(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	gone(t, strings.TrimSpace(string(text)))
}

// TestHealthOverTime follows an app that dies.
func TestHealthOverTime(t *testing.T) {
	b := newBench(t, "tcp4://127.0.0.1:0", handoff.Config{Steer: true}, &App{})
	g := b.start(1, "200")
	g.passes(t, "accept;timeout=20s", "")
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	check := "http://" + b.app.Sockets.Endpoints(1)[0].Address + "/"
	if err := g.process.Signal(19); err != nil { // it hangs
		t.Fatal(err)
	}
	var seen []probe.Health
	g.health(ctx, parsed(t, check), probe.MonitorOptions{Interval: time.Millisecond, Timeout: time.Second, Failures: 2}, func(h probe.Health) {
		seen = append(seen, h)
		switch {
		case h.Changed && !h.Healthy:
			_ = g.process.Signal(18)
		case h.Changed:
			stop()
		}
	})
	if n := len(seen); n < 3 || seen[0].Healthy != true || !seen[n-1].Healthy || seen[1].Healthy ||
		seen[1].Reason != check+" did not accept a connection within 1s" {
		t.Errorf("%+v", seen)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Error("it did not recover")
	}
}

func TestVariableName(t *testing.T) {
	for name, want := range map[string]string{"web": "WEB", "a.b-c_1": "A_B_C_1", "é": "_"} {
		if got := variableName(name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

// Where a sandbox has no memory files a question goes through a pipe, if that can hold it.
func TestFilledPipe(t *testing.T) {
	content := strings.Repeat("x", 10_000)
	fd, err := filledPipe([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "pipe")
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != content {
		t.Errorf("%d bytes (%v), want %d", len(got), err, len(content))
	}
	if fd, err := filledPipe(make([]byte, 10<<20)); err == nil || fd >= 0 {
		t.Errorf("a pipe that is too small: %d, %v", fd, err)
	}
}
