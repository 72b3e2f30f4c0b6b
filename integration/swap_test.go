//go:build integration

package integration

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// row is one behaviour: the same on every back end.
type row struct {
	name string
	run  func(t *testing.T, e engine.Engine)
}

// table runs rows on the named back ends, or on all.
func table(t *testing.T, names string, rows []row) {
	t.Parallel()
	on(t, names, func(t *testing.T, e engine.Engine) {
		for _, r := range rows {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				r.run(t, e)
			})
		}
	})
}

func TestSwap(t *testing.T) {
	table(t, "", []row{
		{"hup", swapByHup},
		{"reload", swapByReload},
		{"copied-over", swapCopiedOver},
		{"old-killed", swapOldKilled},
		{"too-many-draining", swapTooMany},
		{"slow-boot", swapSlowBoot},
		{"watch", swapByWatch},
		{"run", swapByRun},
		{"hold-until-run", holdUntilRun},
		{"unix", swapUnix},
		{"udp", swapUDP},
		{"exclusive", swapExclusive},
		{"shared-socket", swapShared},
		{"app-environment", appEnvironment},
	})
}

func swapByHup(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 linger=3s") // in which each reused connection is told to close, also while its client is not scheduled
	old, err := s.who()
	if err != nil {
		t.Fatal(err)
	}
	s.underLoad()
	s.put("version=v2")
	s.signal(syscall.SIGHUP)
	w := s.waitVersion("v2")
	st := s.settled()
	s.answered(50)
	r := s.lossless()
	if w.gen != 2 || w.pid == old.pid || st.Active != 2 {
		t.Errorf("generation %d, pid %d after %d, active %d", w.gen, w.pid, old.pid, st.Active)
	}
	if r.Failures(load.Reused) > 0 {
		t.Errorf("an app that drains in the right order loses no reused connection: %s %v", r, r.Samples)
	}
	if last := st.LastSwaps[len(st.LastSwaps)-1]; last.Code != 0 || !strings.Contains(last.Cause, "HUP") || last.To != 2 {
		t.Errorf("last swap %+v", last)
	}
}

// swapByReload: code 0 means that the very next request is answered by the new one.
func swapByReload(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	for i := range 3 {
		want := fmt.Sprint("v", i+2)
		s.put("version=" + want)
		output := s.reload(0)
		if w, err := s.who(); err != nil || w.version != want {
			t.Errorf("after reload said done, %q answers (%v); want %s", w.version, err, want)
		}
		if !strings.Contains(output, fmt.Sprint(i+2)) {
			t.Errorf("reload does not name generation %d: %q", i+2, output)
		}
	}
	s.settled()
	s.lossless()
}

// swapCopiedOver replaces the running file the way docker cp does.
func swapCopiedOver(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	if err := s.c.Copy(s.stamp("version=v2"), server); err != nil {
		t.Fatal(err)
	}
	s.reload(0)
	s.waitVersion("v2")
	s.lossless()
}

// swapOldKilled: an old generation that never ends by itself is KILLed at its drain
// timeout, and nothing is lost: it had nothing left.
func swapOldKilled(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 term=ignore", "ENTRYPOINT_DRAIN_TIMEOUT=1s")
	s.underLoad()
	s.put("version=v2")
	s.reload(0)
	st := s.settled()
	s.answered(50)
	s.lossless()
	if state := st.stateOf(1); state != "exited" && state != "gone" {
		t.Errorf("generation 1 is %s", state)
	}
}

// swapTooMany: one old generation more than MAX_DRAINING ends the oldest, and no
// other.
func swapTooMany(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 term=ignore", "ENTRYPOINT_DRAIN_TIMEOUT=5m", "ENTRYPOINT_MAX_DRAINING=1", "ENTRYPOINT_DRAIN_QUIET=100ms")
	s.put("version=v2 term=ignore")
	s.reload(0)
	s.waitStatus("the oldest has its stop signal", func(st status) bool { return st.stateOf(1) == "stopping" })
	s.put("version=v3")
	s.reload(0)
	st := s.waitStatus("the oldest is ended", func(st status) bool {
		state := st.stateOf(1)
		return state == "exited" || state == "gone"
	})
	if state := st.stateOf(2); state != "draining" && state != "stopping" {
		t.Errorf("generation 2 is %s", state)
	}
}

// swapSlowBoot: clients never wait for a slow candidate.
func swapSlowBoot(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	const boot = 6 * time.Second
	s.put(fmt.Sprint("version=v2 boot=", boot))
	s.reload(0)
	s.answered(50)
	if r := s.lossless(); r.Latency[load.Fresh].Max > boot-time.Second { // who waits for it waits that long: others ask meanwhile
		t.Errorf("a client waited for the candidate: %s", r)
	}
}

// swapByWatch: one save, one swap, whichever way the file is written.
func swapByWatch(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_WATCH=auto", "ENTRYPOINT_WATCH_SETTLE=100ms", "ENTRYPOINT_WATCH_POLL=500ms")
	s.underLoad()
	s.put("version=v2")
	s.waitVersion("v2")
	s.settled()
	if err := s.c.Copy(s.stamp("version=v3"), server); err != nil {
		t.Fatal(err)
	}
	s.waitVersion("v3")
	st := s.settled()
	s.lossless()
	if st.Active != 3 || len(st.swaps()) != 2 {
		t.Errorf("two saves made %d the active generation: %+v", st.Active, st.LastSwaps)
	}
	if last := st.LastSwaps[len(st.LastSwaps)-1]; !strings.Contains(last.Cause, server) {
		t.Errorf("the cause names no file: %q", last.Cause)
	}
}

// swapByRun: another command line becomes the current one only if it works.
func swapByRun(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	s.begins()
	if code, out := s.exec("run", "--", server, "version=v2", "fail=3"); code != 1 {
		t.Errorf("run of a failing command: %d %s", code, out)
	}
	if code, out := s.exec("run", "--", server, "version=v3"); code != 0 {
		t.Errorf("run: %d %s", code, out)
	}
	s.waitVersion("v3")
	s.reload(0)
	if w, _ := s.who(); w.version != "v3" {
		t.Errorf("after reload %s answers: the command line was forgotten", w.version)
	}
	s.lossless()
}

// holdUntilRun: without a command the init holds the socket; a client that connected
// before there was an app is answered by it.
func holdUntilRun(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{Command: []string{}, Env: []string{"ENTRYPOINT_LISTEN=tcp://" + s.addr}})
	s.waitStatus("it waits", func(st status) bool { return st.State == "waiting" })
	early := make(chan string, 1)
	go func() {
		text, err := s.get("/")
		early <- fmt.Sprint(text, err)
	}()
	if code, out := s.exec("run", "--", server); code != 0 {
		t.Fatalf("run: %d %s", code, out)
	}
	if got := <-early; !strings.HasPrefix(got, "v1 ") {
		t.Errorf("the early client got %q", got)
	}
}

// inside is a path in the container as the machine sees it.
func (s *scene) inside(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", s.c.PID(), path)
}

func swapUnix(t *testing.T, e engine.Engine) {
	s := &scene{t: t, dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=unix:///tmp/s"}})
	s.load = load.Start(t.Context(), load.Options{
		Network: "unix", Address: s.inside("/tmp/s"), Fresh: 3, Slow: 1, SlowPath: "/slow?ms=60", Pace: 2 * time.Millisecond,
	})
	// The load begins when the socket may not be there yet.
	if err := s.load.WaitVersion(limit(t), "v1"); err != nil {
		t.Fatal(err)
	}
	s.load.Stop()
	s.load = load.Start(t.Context(), load.Options{
		Network: "unix", Address: s.inside("/tmp/s"), Fresh: 3, Slow: 1, SlowPath: "/slow?ms=60", Pace: 2 * time.Millisecond,
	})
	for i := range 4 {
		version := fmt.Sprint("v", i+2)
		s.put("version=" + version)
		s.reload(0)
		if err := s.load.WaitVersion(limit(t), version); err != nil {
			t.Fatal(err)
		}
	}
	s.settled()
	s.lossless()
}

// swapUDP sends one datagram after another; each wants its echo.
func swapUDP(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=tcp://" + s.addr + ",udp://" + s.addr}})
	s.waitVersion("v1")
	s.swapUnderEchoes("")
}

// swapUnderEchoes swaps four times while one datagram after another wants its echo.
func (s *scene) swapUnderEchoes(settings string) {
	s.t.Helper()
	var sent, lost atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			sent.Add(1)
			if _, err := echo(s.addr); err != nil {
				lost.Add(1)
			}
		}
	}()
	for i := range 4 {
		version := fmt.Sprint("v", i+2)
		s.put("version=" + version + settings)
		s.reload(0)
		s.eventually("the echo is of "+version, func() error {
			if got, err := echo(s.addr); err != nil || !strings.HasPrefix(got, version+" ") {
				return fmt.Errorf("%q %v", got, err)
			}
			return nil
		})
	}
	close(stop)
	<-done
	if lost.Load() > 0 || sent.Load() == 0 {
		s.t.Errorf("%d of %d datagrams had no echo", lost.Load(), sent.Load())
	}
}

// echo sends a datagram from a new socket and waits for the answer.
func echo(address string) (string, error) {
	c, err := net.Dial("udp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		return "", err
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// swapExclusive: the old one is gone before the new one starts; clients wait.
func swapExclusive(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_HANDOFF=exclusive")
	s.underLoad()
	s.put("version=v2 boot=200ms")
	s.reload(0)
	s.waitVersion("v2")
	s.answered(30)
	r := s.lossless()
	if r.Versions["v1"].LastBegun.After(r.Versions["v2"].First) {
		t.Errorf("v1 answered what was asked %v after v2 had begun", r.Versions["v1"].LastBegun.Sub(r.Versions["v2"].First))
	}
}

// appEnvironment: what the app is started with.
func appEnvironment(t *testing.T, e engine.Engine) {
	s := playSpec(t, e, "version=v1", engine.Spec{
		Env: []string{
			"ENTRYPOINT_USER=1234:1234", "ENTRYPOINT_UMASK=027", "ENTRYPOINT_DIR=/app", "ENTRYPOINT_NO_NEW_PRIVS=true",
			"ENTRYPOINT_APP_ENV=WHO={generation}", "KEEP=1", "LISTEN_FDS=9", "LISTEN_PID=1", "NOTIFY_SOCKET=/nowhere",
		},
		Command: []string{server, "listen=fd:{fd}"},
	})
	a := s.state()
	if a.UID != 1234 || a.GID != 1234 || a.Dir != "/app" || a.Status["Umask"] != "0027" || a.Status["NoNewPrivs"] != "1" {
		t.Errorf("uid %d gid %d dir %s status %v", a.UID, a.GID, a.Dir, a.Status)
	}
	if a.env("LISTEN_FDS") != "1" || a.env("LISTEN_PID") != fmt.Sprint(a.PID) || a.env("LISTEN_FDNAMES") != "web" {
		t.Errorf("systemd variables: %v", a.Env)
	}
	if a.env("KEEP") != "1" || a.env("WHO") != "1" || a.env("ENTRYPOINT_USER") != "" || a.env("ENTRYPOINT_GENERATION") != "1" {
		t.Errorf("environment: %v", a.Env)
	}
	if a.PGID != a.PID || a.PPID != 1 || a.Status["SigBlk"] != "0000000000000000" || a.Status["SigIgn"] != "0000000000000000" {
		t.Errorf("process: pgid %d pid %d ppid %d %v", a.PGID, a.PID, a.PPID, a.Status)
	}
	if a.env("NOTIFY_SOCKET") == "/nowhere" || len(a.Args) != 2 || a.Args[1] != "listen=fd:3" {
		t.Errorf("args %v, NOTIFY_SOCKET %q", a.Args, a.env("NOTIFY_SOCKET"))
	}
	strays(t, a)
}

// strays fails for descriptors that the app was not meant to have.
func strays(t *testing.T, a appState) {
	t.Helper()
	meant := map[string]bool{"0": true, "1": true, "2": true, a.env("NOTIFY_FD"): true, a.env("EINHORN_SOCK_FD"): true}
	var n int
	fmt.Sscan(a.env("LISTEN_FDS"), &n)
	for i := range n {
		meant[fmt.Sprint(3+i)] = true
	}
	for fd, name := range a.Inherited {
		if !meant[fd] {
			t.Errorf("the app has a stray descriptor %s: %s", fd, name)
		}
	}
}

// swapShared: where nothing can be steered all generations accept from one socket. A candidate counts as ready only when it
// has itself accepted, status says what is the case, and no connection is lost.
func swapShared(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 ready=false", "ENTRYPOINT_STEER=off", "ENTRYPOINT_DRAIN_QUIET=1s", "ENTRYPOINT_START_TIMEOUT=10s")
	s.underLoad()
	s.put("version=bad hang=true")
	if out := s.reload(1); !strings.Contains(out, "not ready") { // the old one accepts all the while
		t.Errorf("a candidate that accepts nothing: %s", out)
	}
	s.put("version=v2 ready=false")
	s.reload(0)
	st := s.settled()
	s.waitVersion("v2")
	s.lossless()
	if len(st.Sockets) != 1 || st.Sockets[0].Mode != "shared" || st.Sockets[0].Why == "" {
		t.Errorf("status says %+v", st.Sockets)
	}
}
