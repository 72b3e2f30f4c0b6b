//go:build integration

package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// TestUnmodified is the default: an app that binds by itself, and no configuration.
func TestUnmodified(t *testing.T) {
	table(t, "", []row{
		{"hup", byItself},
		{"user", byItselfAsUser},
	})
}

// TestUnmodifiedMore are behaviours that do not depend on the back end.
func TestUnmodifiedMore(t *testing.T) {
	table(t, "unshare", []row{
		{"unix", unixByItself},
		{"udp", udpByItself},
		{"declared-too", declaredToo},
		{"declared-and-another", declaredAndAnother},
		{"inherits-and-binds", inheritsAndBinds},
		{"binds-something-else", bindsSomethingElse},
		{"binds-later", bindsLater},
		{"binds-again", bindsAgain},
		{"new-port", newPort},
		{"refused-new-port", refusedNewPort},
		{"given-up-port", givenUpPort},
		{"another-port", anotherPort},
		{"never-listens", neverListens},
		{"listens-and-crashes", listensAndCrashes},
		{"unhealthy", unhealthy},
		{"shared-socket", sharedByItself},
		{"crash", crashByItself},
		{"nothing-bound", nothingBound},
		{"families", bothFamilies},
	})
}

// alone starts the app with listen=tcp:ADDR and without ENTRYPOINT_LISTEN. It does not say
// READY=1: readiness is what the init sees.
func alone(t *testing.T, e engine.Engine, settings string, spec engine.Spec) *scene {
	t.Helper()
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, s.binds(settings), spec)
	s.waitVersion(versionOf(settings))
	return s
}

// binds are settings of an app that binds the scene's address.
func (s *scene) binds(settings string) string {
	return settings + " ready=false listen=tcp:" + s.addr
}

// onward swaps to the next version and wants it to answer.
func (s *scene) onward(version string) {
	s.t.Helper()
	s.put(s.binds("version=" + version))
	s.reload(0)
	if w, err := s.who(); err != nil || w.version != version {
		s.t.Errorf("after the reload %q answers (%v), want %s", w.version, err, version)
	}
}

func byItself(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1", engine.Spec{Env: []string{backToBack}})
	s.underLoad()
	for i := range 4 {
		s.onward(fmt.Sprint("v", i+2))
	}
	st := s.settled()
	s.lossless()
	if st.Handoff != "transparent" || len(st.Sockets) != 1 || !st.Sockets[0].Learned || st.Sockets[0].Mode != "steered" || len(st.NotHeld) > 0 {
		t.Errorf("status %+v", st)
	}
}

// byItselfAsUser: the init is root and the app is not.
func byItselfAsUser(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_USER=65534:65534"}})
	s.underLoad()
	s.onward("v2")
	s.onward("v3")
	s.settled()
	s.lossless()
}

func unixByItself(t *testing.T, e engine.Engine) {
	s := &scene{t: t, dir: t.TempDir()}
	settings := " ready=false linger=0s listen=unix:/tmp/s"
	s.start(e, "version=v1"+settings, engine.Spec{Env: []string{backToBack}})
	s.waitStatus("the path is held", func(st status) bool { return len(st.Sockets) == 1 && st.State == "serving" })
	s.load = load.Start(t.Context(), load.Options{
		Network: "unix", Address: s.inside("/tmp/s"), Fresh: 3, Slow: 1, SlowPath: "/slow?ms=60", Pace: time.Millisecond,
	})
	for i := range 10 {
		version := fmt.Sprint("v", i+2)
		s.put("version=" + version + settings)
		s.reload(0)
		if err := s.load.WaitVersion(limit(t), version); err != nil {
			t.Fatal(err)
		}
	}
	st := s.settled()
	s.lossless()
	if st.Sockets[0].Mode != "renamed" || !st.Sockets[0].Learned {
		t.Errorf("sockets %+v", st.Sockets)
	}
}

func udpByItself(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	settings := " ready=false listen=tcp:" + s.addr + ",udp:" + s.addr
	s.start(e, "version=v1"+settings, engine.Spec{Env: []string{backToBack}})
	s.waitVersion("v1")
	s.swapUnderEchoes(settings)
}

// declaredToo: the address is configured, and the app binds it all the same.
func declaredToo(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, s.binds("version=v1"), engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr}})
	s.waitVersion("v1")
	s.underLoad()
	s.onward("v2")
	s.onward("v3")
	st := s.settled()
	s.lossless()
	if len(st.Sockets) != 1 || st.Sockets[0].Name != "web" || st.Sockets[0].Learned {
		t.Errorf("sockets %+v", st.Sockets)
	}
}

// declaredAndAnother: a wildcard is configured and the app binds one family of it.
func declaredAndAnother(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	_, port, _ := strings.Cut(s.addr, ":")
	settings := " ready=false listen=tcp4:0.0.0.0:" + port
	s.start(e, "version=v1"+settings, engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=web=tcp://:" + port}})
	s.waitVersion("v1")
	s.underLoad()
	for i := range 2 {
		s.put(fmt.Sprint("version=v", i+2, settings))
		s.reload(0)
		s.waitVersion(fmt.Sprint("v", i+2))
	}
	s.settled()
	s.lossless()
}

// inheritsAndBinds: one address comes as a descriptor, another one is bound.
func inheritsAndBinds(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	other := &scene{t: t, addr: freeAddress(t)}
	settings := " ready=false listen=auto,tcp:" + other.addr
	s.start(e, "version=v1"+settings, engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr}})
	s.waitVersion("v1")
	other.waitVersion("v1")
	s.underLoad()
	other.underLoad()
	for i := range 3 {
		s.put(fmt.Sprint("version=v", i+2, settings))
		s.reload(0)
	}
	s.waitVersion("v4")
	other.waitVersion("v4")
	s.settled()
	s.lossless()
	other.lossless()
}

// bindsSomethingElse: what is configured is never used.
func bindsSomethingElse(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, s.binds("version=v1"), engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=web=tcp://" + freeAddress(t)}})
	s.waitVersion("v1")
	s.waitStatus("it counts as ready", func(st status) bool { return st.State == "serving" })
	s.underLoad()
	s.onward("v2")
	s.settled()
	s.lossless()
}

// bindsLater: an address that is opened long after the app has become active, also by the
// next generation, whose clients meanwhile wait.
func bindsLater(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	other := &scene{t: t, addr: freeAddress(t)}
	settings := s.binds(" after=1500ms later=tcp:" + other.addr)
	s.start(e, "version=v1"+settings, engine.Spec{})
	s.waitVersion("v1")
	other.waitVersion("v1")
	s.waitStatus("both are held", func(st status) bool { return len(st.Sockets) == 2 })
	s.underLoad()
	other.underLoad()
	s.put("version=v2" + settings)
	s.reload(0)
	s.waitVersion("v2")
	other.waitVersion("v2")
	s.settled()
	s.lossless()
	other.lossless()
}

// bindsAgain: the app closes its socket and binds again; clients do not notice, before and
// after a swap.
func bindsAgain(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1 reopen=300ms", engine.Spec{})
	s.underLoad()
	waitLog(t, s.c, "opened tcp:")
	s.answered(50)
	s.onward("v2")
	s.settled()
	s.lossless()
}

// newPort: the new version has one more. Who connects there before it is promoted waits.
func newPort(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_READY=delay:3s"}})
	s.waitStatus("it counts as ready", func(st status) bool { return st.State == "serving" })
	other := &scene{t: t, addr: freeAddress(t)}
	s.put(s.binds("version=v2") + ",tcp:" + other.addr)
	reload, output := s.background("reload")
	s.waitStatus("the candidate listens", func(st status) bool { return st.Candidate == 2 && len(st.Sockets) == 2 })
	answer := make(chan string, 1)
	go func() {
		text, err := other.get("/")
		answer <- fmt.Sprint(text, err)
	}()
	for text := ""; text == ""; {
		select {
		case text = <-answer:
		case <-time.After(20 * time.Millisecond):
		}
		st, err := s.status()
		must(s, err)
		if text != "" && (st.Candidate == 2 || !strings.HasPrefix(text, "v2 ")) {
			t.Errorf("%q came while the candidate was %d", text, st.Candidate)
		}
	}
	if err := reload.Wait(); err != nil {
		t.Errorf("reload: %v: %s", err, output)
	}
	s.settled()
	other.waitVersion("v2")
}

// refusedNewPort: the new version has one more, and is refused: the port is closed again.
func refusedNewPort(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1", engine.Spec{})
	other := freeAddress(t)
	s.underLoad()
	s.put("version=v2 ready=false crash=300ms listen=tcp:" + other)
	s.reload(1)
	r := s.lossless()
	if _, ok := r.Versions["v2"]; ok {
		t.Error("clients reached the refused one")
	}
	gone := &scene{t: t, addr: other}
	s.eventually("its port is closed", func() error {
		if text, err := gone.get("/"); err == nil || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("%q %v", text, err)
		}
		return nil
	})
	if st := s.settled(); len(st.Sockets) != 1 {
		t.Errorf("sockets %+v", st.Sockets)
	}
}

// givenUpPort: the new version has one less. It is waited for, then promoted.
func givenUpPort(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	other := &scene{t: t, addr: freeAddress(t)}
	s.start(e, s.binds("version=v1")+",tcp:"+other.addr, engine.Spec{})
	s.waitVersion("v1")
	other.waitVersion("v1")
	s.waitStatus("it counts as ready", func(st status) bool { return st.State == "serving" })
	s.underLoad()
	s.onward("v2")
	waitLog(t, s.c, "going on without")
	s.settled()
	s.lossless()
}

// anotherPort: the new version listens somewhere else altogether. That is refused.
func anotherPort(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_START_TIMEOUT=7s"}})
	s.underLoad()
	s.put("version=v2 ready=false listen=tcp:" + freeAddress(t))
	if output := s.reload(1); !strings.Contains(output, "does not listen on tcp://"+s.addr) {
		t.Errorf("the refusal does not name the address: %s", output)
	}
	s.settled()
	s.lossless()
	s.waitVersion("v1")
}

// neverListens: the candidate runs and does nothing.
func neverListens(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_START_TIMEOUT=7s"}})
	s.underLoad()
	s.put("version=v2 hang=true")
	if output := s.reload(1); !strings.Contains(output, "does not listen on tcp://"+s.addr) {
		t.Errorf("the refusal does not name the address: %s", output)
	}
	s.refusedUnseen("v2")
}

// refusedUnseen ends the load: version was refused, and no client ever reached it.
func (s *scene) refusedUnseen(version string) {
	s.t.Helper()
	s.settled()
	s.answered(50)
	r := s.lossless()
	if n, ok := r.Versions[version]; ok {
		s.t.Errorf("clients reached the refused candidate: %+v", n)
	}
	s.waitVersion("v1")
	s.put(s.binds("version=v3"))
	s.reload(0)
	s.waitVersion("v3")
}

// listensAndCrashes: the candidate binds, listens, and dies before it has shown anything.
func listensAndCrashes(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_READY=delay:2s"}})
	s.waitStatus("it counts as ready", func(st status) bool { return st.State == "serving" })
	s.underLoad()
	s.put(s.binds("version=v2 crash=200ms"))
	if output := s.reload(1); !strings.Contains(output, "exited with code 7") {
		t.Errorf("the refusal does not say how it ended: %s", output)
	}
	s.refusedUnseen("v2")
}

// unhealthy: the candidate listens and answers 500 to the check.
func unhealthy(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, s.binds("version=v1"), engine.Spec{
		Env: []string{"ENTRYPOINT_READY=http://" + s.addr + "/healthz", "ENTRYPOINT_START_TIMEOUT=5s"},
	})
	s.waitVersion("v1")
	s.waitStatus("it counts as ready", func(st status) bool { return st.State == "serving" })
	s.underLoad()
	s.put(s.binds("version=v2 health=500"))
	if output := s.reload(1); !strings.Contains(output, "answered 500") {
		t.Errorf("the refusal does not say what was wrong: %s", output)
	}
	s.refusedUnseen("v2")
}

// sharedByItself: without steering all generations share the one socket.
func sharedByItself(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_STEER=off"}})
	s.waitStatus("it counts as ready", func(st status) bool { return st.State == "serving" })
	s.underLoad()
	for i := range 3 {
		s.put(s.binds(fmt.Sprint("version=v", i+2)))
		s.reload(0)
	}
	s.waitVersion("v4")
	st := s.settled()
	s.lossless()
	if len(st.Sockets) != 1 || st.Sockets[0].Mode != "shared" {
		t.Errorf("sockets %+v", st.Sockets)
	}
}

// crashByItself: the app is killed and started again; who connects meanwhile waits.
func crashByItself(t *testing.T, e engine.Engine) {
	s := alone(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_RESTART=always", "ENTRYPOINT_RESTART_DELAY=200ms"}})
	s.waitStatus("it counts as ready", func(st status) bool { return st.State == "serving" })
	w, err := s.who()
	must(s, err)
	code, out := s.exec("signal", "KILL")
	if code != 0 {
		t.Fatalf("signal: %d %s", code, out)
	}
	next, err := s.who() // waits in the queue of the held socket
	if err != nil || next.pid == w.pid {
		t.Errorf("after the crash %+v answers (%v)", next, err)
	}
}

// nothingBound: a worker without sockets overlaps too, and a broken one is refused.
func nothingBound(t *testing.T, e engine.Engine) {
	s := &scene{t: t, dir: t.TempDir()}
	s.start(e, "version=v1 listen=none ready=false", engine.Spec{})
	s.waitStatus("it counts as ready", func(st status) bool { return st.State == "serving" })
	s.put("version=v2 listen=none ready=false")
	s.reload(0)
	s.put("version=v3 fail=3")
	s.reload(1)
	if st := s.settled(); st.Active != 2 || st.Handoff != "transparent" {
		t.Errorf("status %+v", st)
	}
}

// bothFamilies: IPv4 and IPv6 beside each other, and one socket for both.
func bothFamilies(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	_, port, _ := strings.Cut(s.addr, ":")
	six := &scene{t: t, addr: "[::1]:" + port}
	_, dual, _ := strings.Cut(freeAddress(t), ":")
	four, both := &scene{t: t, addr: "127.0.0.1:" + dual}, &scene{t: t, addr: "[::1]:" + dual}
	settings := fmt.Sprintf(" ready=false listen=tcp4:0.0.0.0:%s,tcp6:[::]:%s,tcp::%s", port, port, dual)
	s.start(e, "version=v1"+settings, engine.Spec{})
	all := []*scene{s, six, four, both}
	for _, one := range all {
		one.waitVersion("v1")
		one.underLoad()
	}
	for i := range 3 {
		s.put(fmt.Sprint("version=v", i+2, settings))
		s.reload(0)
	}
	for _, one := range all {
		one.waitVersion("v4")
	}
	s.settled()
	for _, one := range all {
		one.lossless()
	}
	s.signal(syscall.SIGTERM)
	s.waitExit(0)
}
