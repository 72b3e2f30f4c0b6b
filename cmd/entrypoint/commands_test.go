package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/doctor"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// fakeInit is a supervisor that answers as it is told.
type fakeInit struct {
	phases  []swap.Progress
	result  swap.Result
	hang    bool // until nobody waits any more
	asked   chan swap.Request
	begun   chan bool
	err     error
	status  swap.Status
	signals chan syscall.Signal
}

func (f *fakeInit) Swap(ctx context.Context, r swap.Request, progress func(swap.Progress)) swap.Result {
	if f.asked != nil {
		f.asked <- r
	}
	for _, p := range f.phases {
		progress(p)
	}
	if f.begun != nil {
		f.begun <- true
	}
	if f.hang {
		<-ctx.Done()
		return swap.Result{Code: swap.CodeTimeout, Text: "stopped waiting; the swap goes on"}
	}
	return f.result
}

func (f *fakeInit) Promote(_ context.Context, by string, all bool) swap.Result {
	return swap.Result{Code: f.result.Code, Text: fmt.Sprint("promoted, all ", all)}
}
func (f *fakeInit) Abort(_ context.Context, by string) swap.Result {
	return swap.Result{Code: f.result.Code, Text: "aborted"}
}
func (f *fakeInit) Status(context.Context) (swap.Status, error) { return f.status, f.err }
func (f *fakeInit) Health(context.Context) error                { return f.err }
func (f *fakeInit) Stop(_ context.Context, now bool) swap.Result {
	return swap.Result{Code: f.result.Code, Text: fmt.Sprint("stopping, now ", now)}
}
func (f *fakeInit) Signal(_ context.Context, sig syscall.Signal) error {
	if f.signals != nil {
		f.signals <- sig
	}
	return f.err
}

var fakes atomic.Int64

// serve runs a control server over f until the test ends and returns its address.
func serve(t *testing.T, f *fakeInit) string {
	t.Helper()
	s, err := control.Open(control.ServerOptions{Address: fmt.Sprintf("@entrypoint-cmd-test/%d/%d", os.Getpid(), fakes.Add(1)),
		Supervisor: f, Version: "1.2.3", Descendants: func() []int { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Address()
}

// said is what a command did.
type said struct {
	code     int
	out, err string
}

// use runs a client command in this process.
func use(t *testing.T, address string, args ...string) said {
	t.Helper()
	var out, err bytes.Buffer
	code, handled := dispatch(args[0], args[1:], &out, &err, func(name string) string {
		return map[string]string{"ENTRYPOINT_CONTROL": address}[name]
	})
	if !handled {
		t.Fatalf("%v is not a command", args)
	}
	return said{code, out.String(), err.String()}
}

var start = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func TestReloadShowsPhasesAndSaysWhatHappened(t *testing.T) {
	f := &fakeInit{
		phases: []swap.Progress{
			{Time: start, Phase: "checked", Text: "/app/server"},
			{Time: start.Add(12 * time.Millisecond), Generation: 2, Phase: "started", Text: "pid 41"},
			{Time: start.Add(1500 * time.Millisecond), Generation: 2, Phase: "failed"},
		},
		result: swap.Result{Code: 1, Generation: 2, Phase: "start", Text: "generation 2 was refused: exited with code 3; generation 1 serves on",
			Output: "panic: no database\r\n\x1b[31mred\x1b[0m\n"},
	}
	address := serve(t, f)
	want := said{1, "", "" +
		"  +0.000s  checked: /app/server\n" +
		"  +0.012s  generation 2  started: pid 41\n" +
		"  +1.500s  generation 2  failed\n" +
		"entrypoint: generation 2 was refused: exited with code 3; generation 1 serves on\n" +
		"the last lines that it wrote:\n" +
		"  | panic: no database\n" +
		"  | \\x1b[31mred\\x1b[0m\n"}
	if diff := cmp.Diff(want, use(t, address, "reload"), cmp.AllowUnexported(said{})); diff != "" {
		t.Error(diff)
	}
	good := &fakeInit{result: swap.Result{Generation: 2, Text: "generation 2 is active"}}
	if diff := cmp.Diff(said{0, "generation 2 is active\n", ""}, use(t, serve(t, good), "reload"), cmp.AllowUnexported(said{})); diff != "" {
		t.Error(diff)
	}
}

func TestJSONIsOneObject(t *testing.T) {
	f := &fakeInit{phases: []swap.Progress{{Time: start, Phase: "checked"}}, result: swap.Result{Code: 1, Generation: 2, Text: "no", Output: "tail"}}
	got := use(t, serve(t, f), "reload", "--json")
	var r control.Result
	if err := json.Unmarshal([]byte(got.out), &r); err != nil {
		t.Fatalf("%v in %q", err, got.out)
	}
	if got.code != 1 || got.err != "" || r.Code != 1 || r.Generation != 2 || r.Output != "tail" || r.Op != "reload" {
		t.Errorf("got %+v", got)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		name string
		f    fakeInit
		args []string
		code int
		out  string
		err  string
	}{
		{"done", fakeInit{result: swap.Result{Text: "ok"}}, []string{"reload"}, 0, "ok\n", ""},
		{"done without a word", fakeInit{}, []string{"reload"}, 0, "done\n", ""},
		{"rejected", fakeInit{result: swap.Result{Code: 1}}, []string{"reload"}, 1, "", "entrypoint: rejected: it failed, the old one serves on\n"},
		{"usage by the init", fakeInit{result: swap.Result{Code: 2, Text: "no command yet"}}, []string{"restart"}, 2, "", "entrypoint: no command yet\n"},
		{"busy", fakeInit{result: swap.Result{Code: 3}}, []string{"run", "/app"}, 3, "", "entrypoint: busy: another swap is under way\n"},
		{"ending", fakeInit{result: swap.Result{Code: 4, Text: "the init has ended"}}, []string{"restart"}, 4, "", "entrypoint: the init has ended\n"},
		{"rolled back", fakeInit{result: swap.Result{Code: 5}}, []string{"reload"}, 5, "", "entrypoint: rolled back after promotion\n"},
		{"timed out", fakeInit{hang: true}, []string{"reload", "--timeout", "20ms"}, 124, "", "entrypoint: stopped waiting; the swap goes on\n"},
		{"healthy", fakeInit{}, []string{"health"}, 0, "healthy\n", ""},
		{"not healthy", fakeInit{err: errors.New("generation 1 is not ready")}, []string{"health"}, 1, "", "entrypoint: generation 1 is not ready\n"},
		{"signal", fakeInit{}, []string{"signal", "USR1"}, 0, "sent SIGUSR1 to the active generation\n", ""},
		{"signal to nobody", fakeInit{err: errors.New("nobody is active")}, []string{"signal", "15"}, 1, "", "entrypoint: nobody is active\n"},
		{"stop", fakeInit{}, []string{"stop"}, 0, "stopping, now false\n", ""},
		{"stop now", fakeInit{}, []string{"stop", "--now"}, 0, "stopping, now true\n", ""},
		{"promote", fakeInit{}, []string{"promote"}, 0, "promoted, all false\n", ""},
		{"promote all", fakeInit{}, []string{"promote", "--full"}, 0, "promoted, all true\n", ""},
		{"abort", fakeInit{}, []string{"abort"}, 0, "aborted\n", ""},
		{"nothing to abort", fakeInit{result: swap.Result{Code: 1}}, []string{"abort"}, 1, "", "entrypoint: aborted\n"},
		{"no status", fakeInit{err: errors.New("broken")}, []string{"status"}, 1, "", "entrypoint: broken\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(said{c.code, c.out, c.err}, use(t, serve(t, &c.f), c.args...), cmp.AllowUnexported(said{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever help says about codes is what the commands return.
func TestHelpKnowsEveryCode(t *testing.T) {
	codes := []int{codeDone, codeRejected, codeUsage, codeBusy, codeNoInit, codeRolledBack, codeConfig, codeTimeout}
	for i, code := range codes {
		if exitCodes[i][0] != fmt.Sprint(code) {
			t.Errorf("row %d of the table is %s, want %d", i, exitCodes[i][0], code)
		}
	}
}

func TestOptionsBeforeAndAfterWords(t *testing.T) {
	for _, c := range []struct {
		args  []string
		words []string
		given string
	}{
		{[]string{"run", "--json", "--", "/app", "--timeout", "5"}, []string{"/app", "--timeout", "5"}, "json"},
		{[]string{"run", "--timeout=5", "/app", "--json"}, []string{"/app", "--json"}, "timeout"},
		{[]string{"run", "--", "--", "x"}, []string{"--", "x"}, ""},
		{[]string{"signal", "HUP"}, []string{"HUP"}, ""},
		{[]string{"stop", "x", "--now"}, []string{"x"}, "now"},
		{[]string{"stop", "--now", "x"}, []string{"x"}, "now"},
		{[]string{"stop", "--", "--now"}, []string{"--now"}, ""},
		{[]string{"stop", "-"}, []string{"-"}, ""},
	} {
		values, words, err := parse(find(c.args[0]), c.args[1:])
		if err != nil {
			t.Errorf("%v: %v", c.args, err)
			continue
		}
		given := ""
		for name := range values {
			given += name
		}
		if diff := cmp.Diff(c.words, words); diff != "" || given != c.given {
			t.Errorf("%v: given %q\n%s", c.args, given, diff)
		}
	}
}

func TestRunSendsTheCommandLine(t *testing.T) {
	f := &fakeInit{asked: make(chan swap.Request, 1)}
	use(t, serve(t, f), "run", "--timeout", "60", "--", "/app", "--json", "a b")
	got := <-f.asked
	if diff := cmp.Diff([]string{"/app", "--json", "a b"}, got.Command); diff != "" || got.Kind != swap.Run {
		t.Errorf("kind %s\n%s", got.Kind, diff)
	}
}

// An interrupt ends the waiting; the swap goes on, and the user is told so.
func TestInterrupt(t *testing.T) {
	f := &fakeInit{hang: true, begun: make(chan bool, 1)}
	address := serve(t, f)
	sent := make(chan error, 1)
	go func() {
		<-f.begun
		sent <- syscall.Kill(os.Getpid(), syscall.SIGINT)
	}()
	got := use(t, address, "reload")
	want := said{124, "", "entrypoint: interrupted: the reload goes on; `entrypoint status` shows what becomes of it\n"}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(said{})); diff != "" {
		t.Error(diff)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestAppsAreNotCommands(t *testing.T) {
	for _, word := range []string{"/app/server", "server", "./reload", "Reload", "sh", "tar"} {
		if code, handled := dispatch(word, nil, nil, nil, nil); handled || code != 0 {
			t.Errorf("%q was taken for a command", word)
		}
	}
}

func TestHelpPages(t *testing.T) {
	pages := overview()
	for _, c := range commands() {
		if !strings.Contains(pages, "\n  "+c.name+" ") {
			t.Errorf("the overview has no %s", c.name)
		}
		pages += c.help()
	}
	for line := range strings.SplitSeq(pages, "\n") {
		if len([]rune(line)) > width {
			t.Errorf("%d columns: %q", len([]rune(line)), line)
		}
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"30": 30 * time.Second, "0.5": 500 * time.Millisecond, "30s": 30 * time.Second, "1m30s": 90 * time.Second} {
		if got, err := duration(in); got != want || err != nil {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "-1", "soon", "1e9x", "NaN", "1us", "1e300"} {
		if got, err := duration(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "größe …": "größe …", "\x1b[2J": `\x1b[2J`, "a\tb": "a b", "a\nb": `a\nb`, "\xff": `\xff`, "\u202e": `\u202e`, "\ufffd": "\ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{-1: "0s", 0: "0s", 59 * time.Second: "59s", 130 * time.Second: "2m10s", 184 * time.Minute: "3h4m", 291 * time.Hour: "12d3h"} {
		if got := age(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestProcessPage(t *testing.T) {
	known := []control.Process{{PID: 1, State: "init"}, {PID: 41, Generation: 2, State: "active"}, {PID: 17, Generation: 1, State: "draining"}, {PID: 42}, {PID: 77}}
	seen := []process{
		{pid: 1, name: "entrypoint"}, {pid: 17, parent: 1, realParent: 1, name: "server"}, {pid: 41, parent: 1, realParent: 1, name: "server"},
		{pid: 42, parent: 41, realParent: 41, name: "worker"}, {pid: 77, parent: 1, realParent: 1, name: "orphan"},
		{pid: 80, parent: 41, realParent: 41, name: "dead", zombie: true}, {pid: 90, name: "sh"}, {pid: 91, parent: 90, realParent: 90, name: "entrypoint"},
	}
	page, agree := psPage(seen, known, 91)
	want := `visible processes, a listing for people

  PID  PARENT  GEN  STATE     NAME
    1       0    -  init      entrypoint
   17       1    1  draining  server
   41       1    2  active    server
   42      41    2  child     worker
   77       1    -  child     orphan
   80      41    2  zombie    dead
   90       0    -  outside   sh
`
	if diff := cmp.Diff(want, page); diff != "" || !agree {
		t.Errorf("agree %v\n%s", agree, diff)
	}
}

func TestProcessPageFlagsDisagreement(t *testing.T) {
	known := []control.Process{{PID: 41, Generation: 2, State: "active"}, {PID: 17, Generation: 1, State: "draining"}, {PID: 99}}
	seen := []process{{pid: 41, parent: 1, realParent: 1, name: "server"}, {pid: 42, parent: 4242, realParent: 41, name: "x) S 4242 7 7"}}
	page, agree := psPage(seen, known, 0)
	for _, want := range []string{
		"! pid 42: it is below generation 2, and the init does not know it\n",
		"! pid 42: its name \"x) S 4242 7 7\" misleads process listings: they take 4242 for\n  its parent, which is 41\n",
		"! pid 17: the init knows it as generation 1, draining, and it is not visible\n  here\n",
		"! pid 99: the init knows it, and it is not visible here\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if agree {
		t.Error("they agree")
	}
}

func TestParentIn(t *testing.T) {
	for stat, want := range map[string]int{
		"42 (server) S 41 42 42 0": 41, "42 (x) S 4242 7 7) Z 41 42": 41, "42 (a b) R 1": 1, "": 0, "42 (": 0,
	} {
		if got, zombie := parentIn(stat); got != want || zombie != strings.Contains(stat, "Z") {
			t.Errorf("%q: %d, %v", stat, got, zombie)
		}
	}
}

// ps sees real processes, this one among them.
func TestProcessesAreVisible(t *testing.T) {
	seen, err := visible()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range seen {
		if p.pid == os.Getpid() {
			if p.realParent != os.Getppid() || p.parent != os.Getppid() || p.zombie {
				t.Errorf("got %+v", p)
			}
			return
		}
	}
	t.Error("this process is not in the list")
}

func TestHeldTCP(t *testing.T) {
	for address, want := range map[string][]string{
		"tcp://[::]:8080": {"127.0.0.1:8080", "[::1]:8080"}, "tcp://0.0.0.0:80": {"127.0.0.1:80", "[::1]:80"},
		"tcp://127.0.0.2:8080": {"127.0.0.2:8080"}, "tcp://[fd00::1]:80": {"[fd00::1]:80"}, "udp://[::]:53": nil, "unix:///run/s": nil,
	} {
		got := heldTCP([]handoff.SocketStatus{{Address: "unix:///first"}, {Address: address}, {Address: "tcp://1.2.3.4:5"}})
		if want == nil {
			want = []string{"1.2.3.4:5"}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", address, diff)
		}
	}
	if got := heldTCP(nil); got != nil {
		t.Errorf("of none: %v", got)
	}
}

func TestDoctorURL(t *testing.T) {
	for text, want := range map[string]doctor.Options{
		"http://app":                  {Address: "app:80", Host: "app", Path: "/"},
		"http://[::1]:8080/a?b=c d#e": {Address: "[::1]:8080", Host: "[::1]:8080", Path: "/a?b=c%20d"},
		"http://127.0.0.1:1/%20":      {Address: "127.0.0.1:1", Host: "127.0.0.1:1", Path: "/%20"},
		"https://app/":                {}, "127.0.0.1:80": {}, "/path": {}, "http://": {}, "http://a:b": {}, "unix:///run/s": {},
	} {
		var got doctor.Options
		err := parseURL(&got, text)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want.Host != "") {
			t.Errorf("%s: %v\n%s", text, err, diff)
		}
	}
}

const wantDoctor = `result      35 of 5194 requests were lost in 3 swaps
load        http://127.0.0.1:8080/, 16 keep-alive clients, 4 clients with new
            connections
keep-alive  34 of 4132 lost
new         1 of 1062 lost
leave       at most 30.001s from the stop signal to the end, 1 of 2 by KILL

  LOST  CLIENTS     KIND     WHEN                               CAUSE
    34  keep-alive  eof      1ms to 10ms after the stop signal  idle-closed
     1  new         refused  no swap under way                  new-failed

cure of 34  close them later

cure of 1   see status
`

func TestDoctorPage(t *testing.T) {
	got := doctorPage(&doctor.Report{
		Text: "35 of 5194 requests were lost in 3 swaps", URL: "http://127.0.0.1:8080/", Clients: 16, NewClients: 4, Swaps: 3,
		Requests: doctor.Count{Kept: 4132, New: 1062}, Lost: doctor.Count{Kept: 34, New: 1},
		Generations: []doctor.Ended{{Number: 1, SignalMS: 5000, EndMS: 5006}, {Number: 2, SignalMS: 5000, EndMS: 35001, KillMS: 35000}},
		Losses: []doctor.Row{
			{Cause: doctor.IdleClosed, Class: doctor.Kept, Kind: doctor.EOF, After: doctor.Signal, Count: 34, FirstMS: 0.9, LastMS: 10.2},
			{Cause: doctor.NewFailed, Class: doctor.New, Kind: doctor.Refused, After: doctor.None, Count: 1},
		},
		Advice: []doctor.Advice{{Cause: doctor.IdleClosed, Count: 34, Text: "close them later"}, {Cause: doctor.NewFailed, Count: 1, Text: "see status"}},
	})
	if diff := cmp.Diff(wantDoctor, got); diff != "" {
		t.Error(diff)
	}
}

func TestDoctorCommand(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer app.Close()
	held := []handoff.SocketStatus{{Address: "tcp://" + app.Listener.Addr().String()}}
	status := func(sockets []handoff.SocketStatus) swap.Status {
		return swap.Status{PID: int(fakes.Add(1)), Sockets: sockets, Generations: []swap.Generation{{Number: 1, State: swap.Active, ActiveAt: start}}}
	}
	for _, c := range []struct {
		name     string
		f        fakeInit
		code     int
		out, err string // what they begin with
	}{
		{"no loss", fakeInit{status: status(held)}, 0, "result      nothing was lost: none of ", ""},
		{"busy", fakeInit{status: status(held), result: swap.Result{Code: 3}}, 3, "result      a swap was not done: busy", "entrypoint: a swap was not done: busy"},
		{"refused", fakeInit{status: status(held), result: swap.Result{Code: 1, Text: "no"}}, 1, "result      a swap was not done: no", "entrypoint: a swap was not done: no"},
		{"nothing held", fakeInit{status: status(nil)}, 2, "", "entrypoint: no TCP address is held"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := use(t, serve(t, &c.f), "doctor", "--drain", "--swaps", "2", "--pause", "1ms")
			if got.code != c.code || !strings.HasPrefix(got.out, c.out) || !strings.HasPrefix(got.err, c.err) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestOneDoctorAtATime(t *testing.T) {
	pid := int(fakes.Add(1))
	l, err := soleDoctor(pid)
	if err != nil {
		t.Fatal(err)
	}
	got := use(t, serve(t, &fakeInit{status: swap.Status{PID: pid}}), "doctor", "--drain")
	if diff := cmp.Diff(said{3, "", "entrypoint: busy: another doctor is at work\n"}, got, cmp.AllowUnexported(said{})); diff != "" {
		t.Error(diff)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = soleDoctor(pid); err != nil {
		t.Fatal(err)
	}
	l.Close()
}
