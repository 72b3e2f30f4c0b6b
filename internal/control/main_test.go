package control

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// helperVar selects a helper role of the test binary; its value is the role and its arguments, separated by spaces.
const helperVar = "CONTROL_TEST_HELPER"

// helpers are the roles; each returns what it has to say, which goes to standard output.
var helpers = map[string]func(args []string) string{
	"ask": helperAsk, "dial": helperDial, "init": helperInit, "inits": helperInits, "squat": helperSquat,
	"dialas": helperDialAs,
}

func TestMain(m *testing.M) {
	if role := strings.Fields(os.Getenv(helperVar)); len(role) > 0 {
		fmt.Println(helpers[role[0]](role[1:]))
		return
	}
	// The runtime opens its poller at the first socket; the tests that count descriptors should not.
	if l, err := net.Listen("unix", anyName()); err == nil {
		l.Close()
	}
	os.Exit(m.Run())
}

// helper makes the command of a helper process, in new namespaces if flags has any. A test that is not root gets a user namespace around them.
func helper(flags uintptr, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	// The race detector lets a process linger for a second at its end, unless told otherwise.
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", helperVar+"="+strings.Join(args, " "))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags != 0 && os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
	}
	return cmd
}

// output runs a helper to its end.
func output(t *testing.T, flags uintptr, args ...string) string {
	t.Helper()
	out, err := helper(flags, args...).Output()
	if err != nil {
		t.Fatalf("helper %v: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

// helperAsk sends a status request without checking who listens, optionally as another uid: ask ADDRESS [UID].
func helperAsk(args []string) string {
	if len(args) > 1 {
		uid := 0
		fmt.Sscan(args[1], &uid)
		if err := unix.Setresuid(uid, uid, uid); err != nil {
			return err.Error()
		}
	}
	conn, err := net.Dial("unix", args[0])
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	c := &Client{conn: conn.(*net.UnixConn), address: args[0]}
	return say(c.Do(context.Background(), Request{Op: OpStatus}, nil))
}

// helperDial is a client: dial ADDRESS.
func helperDial(args []string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := Dial(ctx, args[0])
	if err != nil {
		return err.Error()
	}
	return say(c.Do(ctx, Request{Op: OpHealth}, nil))
}

// helperDialAs is a client of another uid: dialas ADDRESS UID.
func helperDialAs(args []string) string {
	uid := 0
	fmt.Sscan(args[1], &uid)
	if err := unix.Setresuid(uid, uid, uid); err != nil {
		return err.Error()
	}
	return helperDial(args)
}

func say(r Result, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", r.Code, r.Text)
}

// helperInit serves at the automatic address until standard input ends. With arguments it runs them as one helper first, as
// `docker exec` would, and ends after that: init [HELPER ARGS...].
func helperInit(args []string) string {
	s, err := Open(ServerOptions{Supervisor: &fake{}})
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	said := "served"
	if len(args) > 0 {
		out, err := helper(0, args...).Output()
		said = fmt.Sprint(strings.TrimSpace(string(out)), err)
	} else {
		fmt.Println(s.Address())
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
	cancel()
	<-done
	return said
}

// helperInits starts so many inits beside itself and is then a client of whichever it finds: inits N.
func helperInits(args []string) string {
	n := 0
	fmt.Sscan(args[0], &n)
	var pids []string
	for range n {
		cmd := helper(0, "init")
		stdin, _ := cmd.StdinPipe()
		stdout, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			return err.Error()
		}
		defer func() { stdin.Close(); _ = cmd.Wait() }()
		if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
			return err.Error()
		}
		pids = append(pids, fmt.Sprint(cmd.Process.Pid))
	}
	return strings.Join(pids, ",") + " " + helperDial([]string{Auto})
}

// helperSquat listens at an address as another uid and prints what it was asked, which must be nothing: squat ADDRESS UID.
func helperSquat(args []string) string {
	uid := 0
	fmt.Sscan(args[1], &uid)
	if err := unix.Setresuid(uid, uid, uid); err != nil {
		return err.Error()
	}
	l, err := net.Listen("unix", args[0])
	if err != nil {
		return err.Error()
	}
	fmt.Println("ready")
	c, err := l.Accept()
	if err != nil {
		return err.Error()
	}
	n, err := c.Read(make([]byte, 100))
	return fmt.Sprint(n, err)
}

// fake is a supervisor made of functions; a nil one answers at once.
type fake struct {
	swap   func(ctx context.Context, r swap.Request, progress func(swap.Progress)) swap.Result
	status func() (swap.Status, error)
	stop   func(now bool) swap.Result
	signal func(sig syscall.Signal) error
	health func(ctx context.Context) error
}

func (f *fake) Swap(ctx context.Context, r swap.Request, progress func(swap.Progress)) swap.Result {
	if f.swap != nil {
		return f.swap(ctx, r, progress)
	}
	progress(swap.Progress{Generation: 2, Phase: "started", Text: "pid 42"})
	progress(swap.Progress{Generation: 2, Phase: "ready"})
	return swap.Result{Generation: 2, Text: string(r.Kind) + " " + strings.Join(r.Command, " "), ElapsedMS: 7}
}

func (f *fake) Promote(_ context.Context, by string, all bool) swap.Result {
	return swap.Result{Text: fmt.Sprintf("promoted %v by %s", all, by)}
}

func (f *fake) Abort(_ context.Context, by string) swap.Result {
	return swap.Result{Text: "aborted by " + by}
}

func (f *fake) Status(context.Context) (swap.Status, error) {
	if f.status != nil {
		return f.status()
	}
	return swap.Status{Schema: swap.StatusSchema, State: "serving", PID: 1, Active: 1, Generations: []swap.Generation{
		{Number: 1, State: swap.Active, PID: 41}, {Number: 2, State: swap.Exited, PID: 42, EndedAt: time.Unix(9, 0)}}}, nil
}

func (f *fake) Stop(_ context.Context, now bool) swap.Result {
	if f.stop != nil {
		return f.stop(now)
	}
	return swap.Result{Text: fmt.Sprint("stopping, now ", now)}
}

func (f *fake) Signal(_ context.Context, sig syscall.Signal) error {
	if f.signal != nil {
		return f.signal(sig)
	}
	return nil
}

func (f *fake) Health(ctx context.Context) error {
	if f.health != nil {
		return f.health(ctx)
	}
	return nil
}

var sockets atomic.Int64

// anyName is an abstract address that no other test has.
func anyName() string {
	return fmt.Sprintf("@entrypoint-test/%d/%d", os.Getpid(), sockets.Add(1))
}

// running is a server under test.
type running struct {
	*Server
	address string
	stop    func() // ends it and waits; harmless when called twice
	log     func() string
}

// start serves until the end of the test, and then shows that no goroutine and no descriptor is left. tune may change the server before it runs.
func start(t *testing.T, o ServerOptions, tune ...func(*Server)) running {
	t.Helper()
	goroutines, fds := goleak.IgnoreCurrent(), descriptorsOpen(t)
	if o.Address == "" {
		o.Address = anyName()
	}
	if o.Supervisor == nil {
		o.Supervisor = &fake{}
	}
	var mu sync.Mutex
	var log strings.Builder
	o.Logf = func(format string, a ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&log, format+"\n", a...)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tune {
		f(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	r := running{Server: s, address: s.Address()}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := within(t, 10*time.Second, ended); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	r.log = func() string { mu.Lock(); defer mu.Unlock(); return log.String() }
	t.Cleanup(func() {
		r.stop()
		var left error
		for range 20 { // each looks for less than half a second: one that is ending may be held up for as long
			if left = goleak.Find(goroutines); left == nil {
				break
			}
		}
		if left != nil {
			t.Error(left)
		}
		eventually(t, "descriptors are back", func() bool { return descriptorsOpen(t) <= fds })
	})
	return r
}

// within receives from c or fails the test.
func within[T any](t *testing.T, d time.Duration, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(d):
		buf := make([]byte, 64<<10)
		t.Fatalf("nothing happened within %v\n%s", d, buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

// eventually polls for what has no event of its own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not within 5s: %s", what)
		}
	}
}

func descriptorsOpen(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// ask dials, asks and returns the result and the events.
func ask(t *testing.T, address string, r Request) (Result, []Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := Dial(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	var events []Event
	result, err := c.Do(ctx, r, func(e Event) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	return result, events
}

// raw is a connection that speaks whatever the test wants.
type raw struct {
	*net.UnixConn
	t *testing.T
}

func dialRaw(t *testing.T, address string) raw {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := open(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return raw{c, t}
}

// send writes text with descriptors; an error is the server's good right.
func (c raw) send(text string, fds ...int) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, _ = c.WriteMsgUnix([]byte(text), oob, nil)
}

// sendProven writes text with a descriptor of our mount namespace.
func (c raw) sendProven(text string) {
	c.t.Helper()
	proof, err := os.Open(namespaceFile)
	if err != nil {
		c.t.Fatal(err)
	}
	defer proof.Close()
	c.send(text, int(proof.Fd()))
}

// result reads the rest of the connection: any events, one result, the end.
func (c raw) result() Result {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, maxAnswer)
	var r Result
	for lines.Scan() {
		if r.Event == "result" {
			c.t.Fatalf("a line after the result: %s", lines.Text())
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			c.t.Fatalf("%v in %q", err, lines.Text())
		}
	}
	if r.Event != "result" || r.V != Version {
		c.t.Fatalf("no result: %+v, %v", r, lines.Err())
	}
	return r
}

func socketPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "control")
}
