//go:build integration

package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// half sends every second connection, and the pinned client, to the candidate until somebody decides.
const half = "ENTRYPOINT_CANARY=50%+" + pinned

// briefly is how long an old generation waits for its keep-alive clients, who never rest here.
const briefly = "ENTRYPOINT_DRAIN_QUIET=300ms"

func failsInCanary(t *testing.T, e engine.Engine, own bool) { fails(t, e, own, "canary", half) }
func failsInBake(t *testing.T, e engine.Engine, own bool) {
	fails(t, e, own, "baking", "ENTRYPOINT_BAKE=10m")
}

// fails tries one candidate after another that fails while it has traffic. The first generation has all of it again at once, and is
// the same process in the end.
func fails(t *testing.T, e engine.Engine, own bool, state, trial string) {
	j := newTrial(t, own)
	j.begin(e, "feed=300ms", trial, "ENTRYPOINT_DRAIN_QUIET=1s", "ENTRYPOINT_HEALTH=http://HERE/healthz;timeout=10s", "ENTRYPOINT_HEALTH_INTERVAL=100ms",
		"ENTRYPOINT_HEALTH_FAILURES=2", "ENTRYPOINT_WATCHDOG=5s")
	old, err := j.who()
	must(j.scene, err)
	for i, c := range []struct {
		name, says string
		crash      bool
		fail       func(version string, st status) time.Time // when it was done
	}{
		{"killed", "killed by", true, func(_ string, st status) time.Time {
			pid := j.host(st.pidOf(st.Candidate))
			at := time.Now()
			must(j.scene, syscall.Kill(pid, syscall.SIGKILL))
			return at
		}},
		{"exits", "exited with code 3", true, func(version string, _ status) time.Time {
			j.meets(pinned, version)
			at := time.Now()
			_, _ = j.from(pinned, "/exit?code=3")
			return at
		}},
		{"unhealthy", "answered 500", false, func(string, status) time.Time { return j.tell("/set?health=500") }},
		{"starves", "fed its watchdog", false, func(string, status) time.Time { return j.tell("/set?feed=off") }},
		{"aborted", "aborted by", false, func(version string, st status) time.Time { return j.abortsBusy(version, st) }},
	} {
		version := fmt.Sprint("v", i+2)
		j.clientele()
		p, st := j.try("feed=300ms version="+version, state)
		must(j.scene, j.load.WaitVersion(limit(t), version))
		at := c.fail(version, st)
		p.result(5, fmt.Sprintf("generation %d was rolled back", st.Candidate), c.says, "generation 1 serves on")
		j.meets(pinned, "v1")
		t.Logf("%s in %s: reload had its answer after %v", c.name, state, p.end.Sub(at).Round(time.Millisecond))
		if c.crash {
			j.lostOnlyAccepted(at, p)
		} else {
			j.answered(50)
			j.lossless()
		}
		j.waitStatus("the candidate is gone", func(st status) bool { return st.live() == 1 && st.State == "serving" })
	}
	if w, err := j.who(); err != nil || w != old {
		t.Errorf("%+v (%v) serves, not %+v", w, err, old)
	}
}

// tell asks the candidate something that changes it, and tells when it asked.
func (s *scene) tell(path string) time.Time {
	s.t.Helper()
	at := time.Now()
	_, err := s.from(pinned, path)
	must(s, err)
	return at
}

// abortsBusy aborts while the candidate works on a request that it had accepted: it finishes that.
func (j *trial) abortsBusy(version string, st status) time.Time {
	j.t.Helper()
	busy := j.dialogue(pinned)
	busy.send("/")
	busy.answer(version)
	held := busy.hold("busy")
	at := time.Now()
	j.orders(0, "generation 1 serves on", "abort")
	j.meets(pinned, "v1")
	waitLog(j.t, j.c, fmt.Sprintf(`"gen":%d,"pid":%d,"from":%q,"to":"draining"`, st.Candidate, st.pidOf(st.Candidate), st.stateOf(st.Candidate)))
	held.open()
	busy.answer(version)
	return at
}

// byHand: steps without a time, taken one by one and all at once.
func byHand(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "", "ENTRYPOINT_CANARY=1%+"+pinned+",50%+"+pinned, "ENTRYPOINT_BAKE=10m", briefly)
	j.clientele()
	j.orders(1, "no candidate is on trial", "promote")
	j.orders(1, "no swap is under way", "abort")
	p, _ := j.try("version=v2", "canary")
	j.meets(pinned, "v2")
	j.orders(0, "generation 2 has 50%", "promote")
	j.orders(0, "generation 2 has 100%", "promote")
	j.meets("127.2.0.1", "v2")
	if st, err := j.status(); err != nil || st.stateOf(1) != "active" || st.stateOf(2) != "baking" {
		t.Errorf("status %+v (%v)", st, err)
	}
	j.orders(0, "generation 2 is active", "promote")
	p.result(0)
	p, _ = j.try("version=v3", "canary")
	j.orders(0, "generation 3 is active", "promote", "--full")
	p.result(0)
	j.meets("127.2.0.1", "v3")
	j.settled()
	j.lossless()
	j.timed(e)
}

// timed: steps with times take themselves.
func (j *trial) timed(e engine.Engine) {
	j.t.Helper()
	k := newTrial(j.t, j.own)
	k.begin(e, "", "ENTRYPOINT_CANARY=10%:300ms,50%:300ms", "ENTRYPOINT_BAKE=300ms", briefly)
	k.clientele()
	k.put("version=v2")
	begin := time.Now()
	k.during("reload").result(0)
	if took := time.Since(begin); took < 900*time.Millisecond {
		j.t.Errorf("three steps of 300ms took %v", took)
	}
	k.settled()
	k.lossless()
}

// meanwhile: a command is told that a swap is under way, a signal is remembered.
func meanwhile(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "", half, briefly)
	j.clientele()
	p, _ := j.try("version=v2", "canary")
	j.orders(3, "another swap is under way", "reload")
	j.put("version=v3")
	for n := range 2 {
		j.signal(syscall.SIGHUP)
		j.eventually("it is remembered", func() error {
			if strings.Count(j.c.Logs(), `"msg":"remembered"`) != n+1 {
				return errAgain
			}
			return nil
		})
	}
	j.orders(0, "generation 2 is active", "promote", "--full")
	p.result(0)
	j.waitStatus("the remembered swap is in canary", func(st status) bool { return st.stateOf(3) == "canary" })
	j.meets(pinned, "v3")
	j.orders(0, "generation 2 serves on", "abort")
	st := j.settled()
	j.lossless()
	if all := st.swaps(); len(all) != 2 || all[1].Code != 5 || st.Active != 2 {
		t.Errorf("active %d after %+v", st.Active, all)
	}
}

func stopInCanary(t *testing.T, e engine.Engine, own bool) { stopIn(t, e, own, "canary", half) }
func stopInBake(t *testing.T, e engine.Engine, own bool) {
	stopIn(t, e, own, "baking", "ENTRYPOINT_BAKE=10m")
}

// stopIn: the container ends as the generation that is active does, not as the candidate. What both had accepted is answered.
func stopIn(t *testing.T, e engine.Engine, own bool, state, trial string) {
	j := newTrial(t, own)
	j.begin(e, "exit=5", trial, patientEnd)
	old := j.dialogue("127.2.0.1")
	old.send("/")
	old.answer("v1")
	p, _ := j.try("version=v2 exit=6", state)
	busy := j.dialogue(pinned)
	busy.send("/")
	busy.answer("v2")
	held := []*gate{busy.hold("busy"), old.hold("old")}
	j.signal(syscall.SIGTERM)
	j.waitStatus("it is stopping", func(st status) bool { return st.State == "stopping" })
	for _, g := range held {
		g.open()
	}
	old.answer("v1")
	busy.answer("v2")
	p.result(1, "the container is ending")
	j.waitExit(5)
}

// activeKilled: the generation that was active is killed during a canary. The candidate has everything at once.
func activeKilled(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "", half, briefly)
	j.clientele()
	p, st := j.try("version=v2", "canary")
	must(j.scene, j.load.WaitVersion(limit(t), "v2"))
	pid := j.host(st.pidOf(1))
	at := time.Now()
	must(j.scene, syscall.Kill(pid, syscall.SIGKILL))
	p.result(0, "generation 2 is active")
	j.meets("127.2.0.1", "v2")
	j.lostOnlyAccepted(at, p)
	if st := j.settled(); st.Active != 2 || st.Restarts != 0 {
		t.Errorf("active %d, %d restarts", st.Active, st.Restarts)
	}
}

// sharedRefuses: one socket for all generations cannot be shared out. The candidate is refused, before anybody met it in vain.
func sharedRefuses(t *testing.T, e engine.Engine, own bool) {
	if own { // what the app binds is shared only where that was asked for: that is found before anything starts
		code, logs := runTo(t, e, engine.Spec{Command: []string{"/testapp", "listen=none"}, Env: []string{"ENTRYPOINT_STEER=off", half}})
		if code != 78 || !strings.Contains(logs, "cannot use ENTRYPOINT_CANARY: with ENTRYPOINT_STEER=off all generations share one socket") {
			t.Errorf("exit code %d:\n%s", code, logs)
		}
		return
	}
	j := newTrial(t, own)
	j.addresses = append(j.addresses, "unix://@shared-"+j.addr) // an abstract name cannot be renamed
	j.begin(e, "", half)
	j.clientele()
	j.put("version=v2")
	j.during("reload").result(1, "one socket for all generations", "leave out ENTRYPOINT_CANARY", "generation 1 serves on")
	j.lossless()
}
