//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// fault is one way in which a candidate can be no good.
type fault struct {
	name string
	make func(s *scene) // puts the broken app in place
	want string         // what the refusal must tell
}

// faults are refused by reload with code 1. START_TIMEOUT is short in these scenes.
var faults = []fault{
	{"exits-1", settings("fail=1 lines=3 boot=700ms"), "code 1"}, // what it says is waited for only a moment once it has ended
	{"exits-0-before-ready", settings("fail=0"), "code 0"},
	{"missing", func(s *scene) { must(s, s.c.Remove(server)) }, server},
	{"not-executable", func(s *scene) { s.putMangled(func(b []byte) []byte { return b }, 0o644) }, "executable"},
	{"half-elf", func(s *scene) { s.putMangled(func(b []byte) []byte { return b[:len(b)/2] }, 0o755) }, server},
	{"wrong-architecture", func(s *scene) { s.putMangled(otherMachine, 0o755) }, runtime.GOARCH},
	{"empty", func(s *scene) { s.putMangled(func([]byte) []byte { return nil }, 0o755) }, "empty"},
	{"text", func(s *scene) { s.putMangled(func([]byte) []byte { return []byte("hello, world\n") }, 0o755) }, server},
	{"hangs", settings("hang=true"), "not ready"},
	{"hangs-and-ignores-term", settings("hang=true term=ignore"), "not ready"},
	{"killed", settings("hang=true crash=1ms crashcode=-9 boot=50ms"), ""},
	{"orphans-and-exits", settings("fail=4 orphans=20 orphan=20s"), "code 4"},
}

func settings(text string) func(*scene) {
	return func(s *scene) { s.put("version=broken " + text) }
}

func must(s *scene, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// putMangled puts a changed test app with this mode in place.
func (s *scene) putMangled(change func([]byte) []byte, mode os.FileMode) {
	s.t.Helper()
	b, err := os.ReadFile(binaries.TestApp)
	must(s, err)
	file := filepath.Join(s.dir, "mangled")
	os.Remove(file)
	must(s, os.WriteFile(file, change(b), mode))
	must(s, os.Chmod(file, mode))
	s.putFile(file)
}

// otherMachine turns the ELF machine field into that of another architecture.
func otherMachine(b []byte) []byte {
	if b[18] == 0x3e {
		b[18] = 0xb7 // arm64
	} else {
		b[18] = 0x3e // amd64
	}
	return b
}

var quick = []string{"ENTRYPOINT_START_TIMEOUT=5s", "ENTRYPOINT_DRAIN_TIMEOUT=500ms"}

func TestBroken(t *testing.T) {
	table(t, "", []row{
		{"alone", brokenAlone},
		{"while-draining", brokenWhileDraining},
		{"never-ready", neverReady},
		{"by-hup", brokenByHup},
		{"first-generation", brokenFirst},
	})
}

// brokenAlone tries every fault in one container under load, and a good swap at last.
func brokenAlone(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", quick...)
	s.underLoad()
	before, err := s.who()
	must(s, err)
	s.refuseAll(before.pid)
	s.put("version=v2")
	s.reload(0)
	s.waitVersion("v2")
	s.settled()
	s.lossless()
}

// brokenWhileDraining does the same while generation 1 refuses to end.
func brokenWhileDraining(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 term=ignore", "ENTRYPOINT_START_TIMEOUT=5s", "ENTRYPOINT_DRAIN_TIMEOUT=5m", "ENTRYPOINT_DRAIN_QUIET=500ms")
	s.underLoad()
	s.put("version=v2")
	s.reload(0)
	w := s.waitVersion("v2")
	if st, err := s.status(); err != nil || st.stateOf(1) == "exited" || st.stateOf(1) == "gone" {
		t.Fatalf("generation 1 was to be draining: %+v %v", st, err)
	}
	s.refuseAll(w.pid)
	st, err := s.status()
	if err != nil || st.stateOf(1) == "exited" {
		t.Errorf("generation 1 is %s: the faults ended it (%v)", st.stateOf(1), err)
	}
	s.put("version=v3")
	s.reload(0)
	s.waitVersion("v3")
	s.lossless()
}

// refuseAll runs every fault; after each the same process must answer.
func (s *scene) refuseAll(pid int) {
	for _, f := range faults {
		ok := s.t.Run(f.name, func(t *testing.T) {
			sub := &scene{t: t, c: s.c, addr: s.addr, dir: t.TempDir(), load: s.load}
			f.make(sub)
			output := sub.reload(1)
			if !strings.Contains(output, f.want) {
				t.Errorf("the refusal does not tell %q: %s", f.want, output)
			}
			if strings.Contains(f.name, "exits-1") && !strings.Contains(output, "boot line 3 of 3") {
				t.Errorf("the refusal does not show what the candidate wrote: %s", output)
			}
			if w, err := sub.who(); err != nil || w.pid != pid {
				t.Errorf("pid %d (%s) answers, not %d (%v)", w.pid, w.version, pid, err)
			}
			t.Logf("%s", strings.TrimSpace(output))
		})
		if !ok {
			return
		}
	}
}

// neverReady: it serves, but never says READY=1 where that is asked for.
func neverReady(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", append(quick, "ENTRYPOINT_READY=notify")...)
	s.underLoad()
	s.put("version=v2 ready=false")
	s.reload(1)
	s.put("version=v3")
	s.reload(0)
	s.waitVersion("v3")
	if r := s.lossless(); r.Versions["v2"].Answers > 0 {
		t.Errorf("a candidate that was never ready answered %d clients", r.Versions["v2"].Answers)
	}
}

// brokenByHup: nobody waits for the answer, so status and log have it.
func brokenByHup(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", quick...)
	s.underLoad()
	s.put("version=v2 fail=9")
	s.signal(1)
	st := s.waitStatus("the swap was refused", func(st status) bool { return len(st.swaps()) == 1 && st.Candidate == 0 })
	if last := st.swaps()[0]; last.Code != 1 || !strings.Contains(last.Text, "code 9") || st.Active != 1 {
		t.Errorf("last swap %+v, active %d", last, st.Active)
	}
	s.lossless()
}

// brokenFirst: a first generation that fails ends the container with its own status;
// one that is never ready ends it too.
func brokenFirst(t *testing.T, e engine.Engine) {
	for settings, want := range map[string]int{"fail=6": 6, "fail=0": 0, "hang=true crash=1ms crashcode=-9": 137} {
		s := play(t, e, "version=v1 "+settings)
		s.waitExit(want)
	}
	s := play(t, e, "version=v1 hang=true term=now exit=0", "ENTRYPOINT_START_TIMEOUT=500ms", "ENTRYPOINT_SHUTDOWN_TIMEOUT=2s")
	code, err := s.c.Wait(limit(t))
	if err != nil {
		t.Fatalf("a first generation that is never ready keeps the container: %v", err)
	}
	t.Logf("first generation never ready: exit code %d", code)
}

func TestCrash(t *testing.T) {
	table(t, "", []row{
		{"restart-no", crashMirrored},
		{"restart-on-failure", crashRestarted},
		{"restart-always", exitRestarted},
		{"after-promotion", crashAfterPromotion},
		{"recalled", crashRecalled},
		{"limit", crashLimit},
		{"on-fatal-wait", crashWaits},
	})
}

func crashMirrored(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.get("/exit?code=23")
	s.waitExit(23)
	s = play(t, e, "version=v1")
	s.get("/exit?code=-9")
	s.waitExit(137)
}

// crashRestarted: requests in flight die with the app; no new connection is refused.
func crashRestarted(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_RESTART=on-failure", "ENTRYPOINT_RESTART_DELAY=50ms")
	s.begins()
	s.underLoad()
	first, err := s.who()
	must(s, err)
	s.get("/exit?code=1")
	s.eventually("another process answers", func() error {
		w, err := s.who()
		if err == nil && w.pid == first.pid {
			err = errAgain
		}
		return err
	})
	s.answered(30)
	r := s.load.Stop()
	s.load = nil
	for class, kinds := range r.Failed {
		if kinds["refused"] > 0 || kinds["timeout"] > 0 {
			t.Errorf("%s: %v", class, r)
		}
	}
	s.waitStatus("it serves", func(st status) bool { return st.State == "serving" })
	s.get("/exit?code=0")
	s.waitExit(0)
}

func exitRestarted(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_RESTART=always", "ENTRYPOINT_RESTART_DELAY=20ms")
	s.begins()
	s.get("/exit?code=0")
	st := s.waitStatus("it was started again", func(st status) bool { return st.Restarts == 1 && st.State == "serving" })
	if st.Active != 2 {
		t.Errorf("active %d", st.Active)
	}
}

// crashAfterPromotion: the swap succeeded; what follows is the restart policy's.
func crashAfterPromotion(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 linger=0s", "ENTRYPOINT_RESTART=no", "ENTRYPOINT_DRAIN_QUIET=0s")
	s.put("version=v2")
	s.reload(0)
	s.waitStatus("generation 1 was told to end", func(st status) bool { return st.stateOf(1) != "active" && st.stateOf(1) != "draining" })
	s.get("/exit?code=17")
	s.waitExit(17)
}

// crashRecalled: as long as the old generation has been told nothing, it takes over
// again when the new one dies.
func crashRecalled(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_DRAIN_QUIET=10m")
	busy, answer := s.heldRequest()
	s.put("version=v2")
	s.reload(0)
	s.get("/exit?code=7")
	s.eventually("generation 1 has the traffic again", func() error {
		w, err := s.who()
		if err == nil && w.gen != 1 {
			err = errAgain
		}
		return err
	})
	if st := s.waitStatus("it serves", func(st status) bool { return st.Active == 1 }); st.State != "serving" {
		t.Errorf("state %s", st.State)
	}
	busy.open()
	if got := <-answer; !strings.HasPrefix(got, "v1 ") {
		t.Errorf("the request in flight got %q", got)
	}
}

func crashLimit(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 fail=5", "ENTRYPOINT_RESTART=always", "ENTRYPOINT_RESTART_DELAY=10ms",
		"ENTRYPOINT_START_LIMIT_BURST=3", "ENTRYPOINT_START_LIMIT_INTERVAL=30s")
	s.waitExit(5)
}

// crashWaits: the container stays, holding its socket, until a working app comes.
func crashWaits(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_ON_FATAL=wait")
	s.begins()
	s.get("/exit?code=5")
	s.waitStatus("it waits", func(st status) bool { return st.State == "waiting" })
	early := make(chan string, 1)
	go func() {
		text, err := s.get("/")
		early <- text + errText(err)
	}()
	s.put("version=v2")
	s.reload(0)
	if got := <-early; !strings.HasPrefix(got, "v2 ") {
		t.Errorf("a client that came meanwhile got %q", got)
	}
}

func TestStop(t *testing.T) {
	table(t, "", []row{
		{"serving", func(t *testing.T, e engine.Engine) {
			s := play(t, e, "version=v1 exit=5")
			s.signal(15)
			s.waitExit(5)
		}},
		{"starting", stopStarting},
		{"candidate-starting", stopCandidate},
		{"draining", stopDraining},
		{"quiet", stopQuiet},
		{"backoff", stopBackoff},
		{"waiting", stopWaiting},
		{"deadline", stopDeadline},
		{"twice", stopTwice},
		{"delay", stopDelay},
		{"engine-stop", stopEngine},
		{"command", stopCommand},
		{"leftovers", stopLeftovers},
	})
}

// atOnce is for an end that nothing holds up. With patientEnd nothing is killed before it is over.
const (
	atOnce     = 15 * time.Second
	patientEnd = "ENTRYPOINT_SHUTDOWN_TIMEOUT=40s"
)

// promptly fails when the container outlives max.
func (s *scene) promptly(max time.Duration, code ...int) {
	s.t.Helper()
	begin := time.Now()
	got, err := s.c.Wait(limit(s.t))
	took := time.Since(begin).Round(time.Millisecond)
	if err != nil || took > max {
		s.t.Fatalf("the container ended after %v (%v), want at most %v", took, err, max)
	}
	for _, want := range code {
		if got == want {
			return
		}
	}
	s.t.Errorf("exit code %d, want %v", got, code)
}

func stopStarting(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 hang=true exit=4 term=now", patientEnd)
	waitLog(t, s.c, "hangs")
	s.signal(15)
	s.promptly(atOnce, 4)
}

// stopCandidate: the status of the one that was serving counts.
func stopCandidate(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 exit=5", patientEnd)
	s.begins()
	s.put("version=v2 hang=true exit=9 term=now")
	client, out := s.background("reload")
	s.waitStatus("there is a candidate", func(st status) bool { return st.Candidate == 2 })
	s.signal(15)
	s.promptly(atOnce, 5)
	if err := client.Wait(); err == nil {
		t.Errorf("the reload that was cut off says done: %s", out)
	}
}

func stopDraining(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 linger=1500ms exit=8", patientEnd)
	s.put("version=v2 exit=6")
	s.reload(0)
	s.signal(15)
	s.promptly(atOnce, 6)
}

// stopQuiet: the old generation still has a request when the stop comes; it is
// answered.
func stopQuiet(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_DRAIN_QUIET=10m", patientEnd)
	busy, answer := s.heldRequest()
	s.put("version=v2 exit=6")
	s.reload(0)
	s.signal(15)
	s.waitStatus("it is stopping", func(st status) bool { return st.State == "stopping" })
	busy.open()
	s.promptly(atOnce, 6)
	if got := <-answer; !strings.HasPrefix(got, "v1 ") {
		t.Errorf("the request in flight got %q", got)
	}
}

// heldRequest asks for something, and returns once the app has that; the answer comes when the gate is opened.
func (s *scene) heldRequest() (held *gate, answer <-chan string) {
	s.t.Helper()
	text := make(chan string, 1)
	go func() {
		got, err := s.get("/hold?gate=busy")
		text <- got + errText(err)
	}()
	held = s.gate("busy")
	held.reached()
	return held, text
}

func stopBackoff(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_RESTART=always", "ENTRYPOINT_RESTART_DELAY=1m", "ENTRYPOINT_RESTART_MAX_DELAY=1m", patientEnd)
	s.begins()
	s.get("/exit?code=3")
	s.waitStatus("it backs off", func(st status) bool { return st.State == "backoff" })
	s.signal(15)
	s.promptly(atOnce, 3)
}

func stopWaiting(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{Command: []string{}, Env: []string{"ENTRYPOINT_LISTEN=tcp://" + s.addr}})
	s.waitStatus("it waits", func(st status) bool { return st.State == "waiting" })
	s.signal(15)
	s.promptly(atOnce, 0)
}

func stopDeadline(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 term=ignore", "ENTRYPOINT_SHUTDOWN_TIMEOUT=1s")
	s.signal(15)
	s.promptly(6*time.Second, 137)
}

func stopTwice(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 term=ignore", "ENTRYPOINT_SHUTDOWN_TIMEOUT=1m")
	s.signal(15)
	waitLog(t, s.c, "ignores")
	s.signal(15)
	s.promptly(atOnce, 137)
}

// stopDelay: after TERM it serves on, not healthy any more, for the delay.
func stopDelay(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 exit=5", "ENTRYPOINT_SHUTDOWN_DELAY=8s")
	s.begins()
	if code, out := s.exec("health"); code != 0 {
		t.Errorf("health: %d %s", code, out)
	}
	s.signal(15)
	s.waitStatus("it is stopping", func(st status) bool { return st.State == "stopping" })
	if w, err := s.who(); err != nil || w.version != "v1" {
		t.Errorf("during the delay: %+v %v", w, err)
	}
	if code, out := s.exec("health"); code == 0 {
		t.Errorf("health during the delay: %d %s", code, out)
	}
	s.promptly(20*time.Second, 5)
}

func stopEngine(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 exit=0", patientEnd)
	begin := time.Now()
	must(s, s.c.Stop(40*time.Second))
	s.waitExit(0)
	if took := time.Since(begin); took > atOnce {
		t.Errorf("stop took %v", took)
	}
}

func stopCommand(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 exit=5", patientEnd)
	code, out, err := engine.Exec(limit(t), s.c, "/entrypoint", "stop")
	s.promptly(atOnce, 5)
	t.Logf("stop: code %d %v %s", code, err, out) // the engine may end the client with the container
}

// stopLeftovers: what the app leaves behind is told to end, not left to the kernel.
func stopLeftovers(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 exit=5 orphans=3 orphan=5m", patientEnd)
	s.signal(15)
	s.promptly(atOnce, 5)
}
