//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// TestPlain is the plain job of a PID 1: what tini and dumb-init do, restated.
func TestPlain(t *testing.T) {
	table(t, "", []row{
		{"exit-codes", exitCodes},
		{"not-found", notStarted},
		{"arguments", arguments},
		{"orphans", orphansReaped},
		{"none-mode", noneMode},
		{"kept-environment", keptEnvironment},
	})
	t.Run("host-tools", func(t *testing.T) {
		table(t, "unshare", []row{
			{"signal-deaths", signalDeaths},
			{"forwards-every-signal", forwardsAll},
			{"forwards-nothing-else", forwardsNothingElse},
			{"killed-by-forwarded", killedByForwarded},
			{"group", func(t *testing.T, e engine.Engine) { groupForwarding(t, e, true) }},
			{"no-group", func(t *testing.T, e engine.Engine) { groupForwarding(t, e, false) }},
			{"under-another-init", underTini},
			{"orphan-burst", orphanBurst},
		})
	})
}

// exitCodes: all 256 where a container is cheap, a sample elsewhere.
func exitCodes(t *testing.T, e engine.Engine) {
	codes := []int{0, 1, 2, 3, 77, 126, 127, 128, 200, 255}
	if e.Name() == "unshare" {
		codes = nil
		for code := range 256 {
			codes = append(codes, code)
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 3)
	for _, want := range codes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if got, logs := runTo(t, e, engine.Spec{Command: []string{"/testapp", "tool", "exit", strconv.Itoa(want)}}); got != want {
				t.Errorf("exit code %d, want %d\n%s", got, want, logs)
			}
		})
	}
	wg.Wait()
}

// runTo runs a container to its end. It reports its own trouble as code -1.
func runTo(t *testing.T, e engine.Engine, spec engine.Spec) (int, string) {
	c, err := e.Start(limit(t), spec)
	if err != nil {
		return -1, err.Error()
	}
	defer c.Close()
	code, err := c.Wait(limit(t))
	if err != nil {
		return -1, err.Error()
	}
	return code, c.Logs()
}

func notStarted(t *testing.T, e engine.Engine) {
	for command, want := range map[string]int{"/no/such/file": 127, "nosuchword": 127, "/etc/passwd": 126, "/app": 126} {
		if got, logs := runTo(t, e, engine.Spec{Command: []string{command}}); got != want {
			t.Errorf("%s: exit code %d, want %d\n%s", command, got, want, logs)
		}
	}
}

// arguments: the app's own flags are the app's, and a command may have the name of a
// word of ours.
func arguments(t *testing.T, e engine.Engine) {
	got, logs := runTo(t, e, engine.Spec{Command: []string{"/testapp", "--help"}})
	if got != 64 || !strings.Contains(logs, `"--help"`) {
		t.Errorf("the app did not get --help: %d %s", got, logs)
	}
	if got, logs := runTo(t, e, engine.Spec{Command: []string{"--", "reload"}}); got != 127 {
		t.Errorf("-- reload is a command: %d %s", got, logs)
	}
	got, logs = runTo(t, e, engine.Spec{Env: []string{`ENTRYPOINT_COMMAND=["/testapp","tool","exit","12"]`}, Command: []string{}})
	if got != 12 {
		t.Errorf("ENTRYPOINT_COMMAND: %d %s", got, logs)
	}
}

// orphansReaped: no zombie stays, and the init knows how many it adopted.
func orphansReaped(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	if _, err := s.get("/orphans?n=40&life=20ms"); err != nil {
		t.Fatal(err)
	}
	s.eventually("every orphan is gone", func() error {
		st, err := s.status()
		if zombies := zombiesOf(s.c.PID()); err == nil && (st.Reaped.Orphans < 40 || zombies > 0) {
			err = fmt.Errorf("%d orphans reaped, %d zombies", st.Reaped.Orphans, zombies)
		}
		return err
	})
}

// zombiesOf counts the dead children of a process, over all its threads.
func zombiesOf(pid int) int {
	n := 0
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for child := range strings.FieldsSeq(string(text)) {
			stat, _ := os.ReadFile("/proc/" + child + "/stat")
			if _, after, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(after, "Z") {
				n++
			}
		}
	}
	return n
}

// noneMode: nothing held, the app binds by itself, one after the other.
func noneMode(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1 exit=5", engine.Spec{
		Env: []string{"ENTRYPOINT_HANDOFF=none"}, Command: []string{server, "listen=tcp:" + s.addr},
	})
	s.waitVersion("v1")
	s.put("version=v2 exit=6")
	s.reload(0)
	s.waitVersion("v2")
	s.signal(syscall.SIGUSR1)
	s.eventually("USR1 arrives once", func() error {
		if got := s.state().Signals; !slices.Equal(got, []string{"10"}) {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	s.signal(syscall.SIGTERM)
	s.waitExit(6)
}

// keptEnvironment: what is not ours passes through untouched, in order.
func keptEnvironment(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{
		Env:     []string{"ENTRYPOINT_HANDOFF=none", "B=2", "A=1", "EMPTY=", "ODD=a=b c"},
		Command: []string{server, "listen=tcp:" + s.addr},
	})
	s.waitVersion("v1")
	a := s.state()
	all := strings.Join(a.Env, "\n") + "\n"
	if !strings.Contains(all, "B=2\nA=1\nEMPTY=\nODD=a=b c\n") && e.Name() != "docker" {
		t.Errorf("environment: %q", a.Env)
	}
	for _, key := range []string{"B=2", "A=1", "EMPTY=", "ODD=a=b c"} {
		if !slices.Contains(a.Env, key) {
			t.Errorf("%s is missing: %q", key, a.Env)
		}
	}
	strays(t, a)
}

// uncatchable, or those by which the kernel speaks of children, or that stop.
var notForwarded = []int{9, 17, 19}

// signalDeaths: 128+n for every signal that kills.
func signalDeaths(t *testing.T, e engine.Engine) {
	harmless := []int{17, 18, 19, 20, 21, 22, 23, 28} // ignored by default, or stop
	for n := 1; n <= 64; n++ {
		if slices.Contains(harmless, n) {
			continue
		}
		got, logs := runTo(t, e, engine.Spec{HostTools: true, Command: []string{"/usr/bin/perl", "-e", fmt.Sprintf("$SIG{FPE} = q(DEFAULT); kill %d, $$; sleep 9", n)}})
		if got != 128+n {
			t.Errorf("killed by %d: exit code %d, want %d\n%s", n, got, 128+n, logs)
		}
	}
}

// recorder runs testdata/recorder.py as the app.
func recorder(t *testing.T, e engine.Engine, env ...string) engine.Container {
	t.Helper()
	c := startPlain(t, e, engine.Spec{
		HostTools: true, Files: map[string]string{"/app/recorder.py": "testdata/recorder.py"},
		Command: []string{"/usr/bin/python3", "/app/recorder.py", "stop=12"}, Env: append([]string{"ENTRYPOINT_HANDOFF=none"}, env...),
	})
	waitLog(t, c, "recording")
	return c
}

// gotSignals reads what the recorder printed.
func gotSignals(c engine.Container) map[int]int {
	got := map[int]int{}
	for line := range strings.Lines(c.Logs()) {
		var n int
		if _, err := fmt.Sscanf(line, "got %d", &n); err == nil {
			got[n]++
		}
	}
	return got
}

// forwardsAll sends every signal ten times, each when the one before has arrived:
// standard signals that are pending merge, by the rules of the kernel.
func forwardsAll(t *testing.T, e engine.Engine) {
	c := recorder(t, e, "ENTRYPOINT_SIGNALS=HUP=forward,TERM=forward", "ENTRYPOINT_TTY=false")
	for n := 1; n <= 64; n++ {
		if slices.Contains(notForwarded, n) || n == int(syscall.SIGUSR2) {
			continue
		}
		for range 3 {
			oneSignal(t, c, n)
		}
	}
	for n, times := range gotSignals(c) {
		if times != 3 {
			t.Errorf("signal %d arrived %d times, not 3", n, times)
		}
	}
	if err := c.Signal(syscall.SIGUSR2); err != nil {
		t.Error(err)
	}
	if code, err := c.Wait(limit(t)); code != 0 || err != nil {
		t.Errorf("%d %v", code, err)
	}
}

// killedByForwarded: an app without a handler dies of the signal that was sent to us,
// and its status says so.
func killedByForwarded(t *testing.T, e engine.Engine) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGALRM} {
		c := startPlain(t, e, engine.Spec{HostTools: true, Command: []string{"/bin/sleep", "100"}, Env: []string{"ENTRYPOINT_HANDOFF=none"}})
		s := &scene{t: t, c: c}
		s.waitStatus("it serves", func(st status) bool { return st.State == "serving" })
		s.signal(sig)
		s.waitExit(128 + int(sig))
	}
}

func oneSignal(t *testing.T, c engine.Container, n int) {
	t.Helper()
	before := gotSignals(c)[n]
	if err := c.Signal(syscall.Signal(n)); err != nil {
		t.Fatalf("signal %d: %v", n, err)
	}
	s := &scene{t: t, c: c}
	s.eventually(fmt.Sprintf("signal %d arrives", n), func() error {
		if gotSignals(c)[n] == before {
			return errAgain
		}
		return nil
	})
}

// forwardsNothingElse: the runtime of the init never shows through, however busy.
func forwardsNothingElse(t *testing.T, e engine.Engine) {
	c := recorder(t, e)
	for range 30 {
		if code, out, err := engine.Exec(limit(t), c, "/entrypoint", "status", "--json"); code != 0 || err != nil {
			t.Fatalf("%d %v %s", code, err, out)
		}
		if _, _, err := engine.Exec(limit(t), c, "/testapp", "tool", "orphans", "10", "1ms"); err != nil {
			t.Fatal(err)
		}
	}
	if got := gotSignals(c); len(got) > 0 {
		t.Errorf("nobody sent the app anything, it got %v", got)
	}
}

func groupForwarding(t *testing.T, e engine.Engine, group bool) {
	c := startPlain(t, e, engine.Spec{
		HostTools: true, Files: map[string]string{"/app/group.pl": "testdata/group.pl"},
		Command: []string{"/usr/bin/perl", "/app/group.pl"},
		Env:     []string{"ENTRYPOINT_HANDOFF=none", "ENTRYPOINT_GROUP=" + strconv.FormatBool(group)},
	})
	waitLog(t, c, "leader is ready")
	waitLog(t, c, "child is ready")
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2} {
		if err := c.Signal(sig); err != nil {
			t.Fatal(err)
		}
		waitLog(t, c, "leader got "+map[syscall.Signal]string{syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2"}[sig])
	}
	if group {
		waitLog(t, c, "child got USR1")
		waitLog(t, c, "child got USR2")
	} else if strings.Contains(c.Logs(), "child got") {
		t.Errorf("the child got a signal: %s", c.Logs())
	}
}

// underTini: not PID 1, as under `docker run --init` or in a shared PID namespace.
func underTini(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1 exit=5", engine.Spec{
		HostTools: true, Init: []string{"/usr/bin/tini", "--", "/entrypoint"}, Env: []string{"ENTRYPOINT_LISTEN=tcp://" + s.addr},
	})
	s.waitVersion("v1")
	s.underLoad()
	s.put("version=v2 exit=6")
	s.reload(0)
	s.waitVersion("v2")
	s.lossless()
	if _, err := s.get("/orphans?n=10&life=10ms"); err != nil {
		t.Fatal(err)
	}
	s.waitStatus("the orphans are adopted and reaped", func(st status) bool { return st.Reaped.Orphans >= 10 })
	s.signal(syscall.SIGTERM)
	s.waitExit(6)
}

// orphanBurst: 2,000 in ten bursts, while a swap goes on.
func orphanBurst(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	for range 10 {
		if _, err := s.get("/orphans?n=200&life=1ms"); err != nil {
			t.Fatal(err)
		}
	}
	s.put("version=v2")
	s.reload(0)
	s.eventually("2,000 orphans are reaped", func() error {
		st, err := s.status()
		if err == nil && (st.Reaped.Orphans < 2000 || zombiesOf(s.c.PID()) > 0) {
			err = fmt.Errorf("%d orphans, %d zombies", st.Reaped.Orphans, zombiesOf(s.c.PID()))
		}
		return err
	})
	s.lossless()
}
