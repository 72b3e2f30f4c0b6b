//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// asked is a check whose requests the app can tell from those of clients.
const asked = "http://HERE/healthz;timeout=15s;header=X-Probe: 1"

func smokeHTTP(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "", "ENTRYPOINT_SMOKE="+asked)
	j.clientele()
	j.refuses("status=500", "answered 500", true)
}

func smokeHTTP6(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	_, port, _ := strings.Cut(j.addr, ":")
	j.addr = "[::1]:" + port
	j.addresses = []string{"tcp://" + j.addr}
	j.begin(e, "", "ENTRYPOINT_SMOKE="+asked)
	j.clientele()
	j.refuses("status=500", "answered 500", true)
}

func smokeUnix(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.addresses = []string{"unix:///tmp/s"}
	j.begin(e, "", "ENTRYPOINT_SMOKE=http+unix:///tmp/s:/healthz;timeout=15s;header=X-Probe: 1")
	j.load = load.Start(t.Context(), load.Options{
		Network: "unix", Address: j.inside("/tmp/s"), Fresh: 3, Slow: 1, SlowPath: "/slow?ms=60", Pace: 2 * time.Millisecond, Timeout: 2 * patience,
	})
	j.answered(20)
	j.refuses("status=500", "answered 500", true)
}

// smokeShared: where the kernel does not choose, whoever accepted is looked at, and an answer of the old generation never counts.
// It may be that the candidate is not met at all; then it is refused for that. A candidate accepts clients' connections there as
// soon as it listens, so nothing is said about those.
func smokeShared(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "", "ENTRYPOINT_STEER=off", "ENTRYPOINT_SMOKE="+asked+";failures=5")
	met := 0
	for range 3 { // about half of all connections of the check are the old generation's
		j.put("version=v2 health=500")
		p := j.during("reload")
		p.result(1, "a smoke test failed", "generation 1 serves on")
		if strings.Contains(p.out.String(), "answered 500") {
			met++
		} else {
			p.result(1, "was seen to be accepted by generation")
		}
		j.inSmoke()
	}
	t.Logf("the check met the candidate %d times of 3", met)
	j.put("version=v3")
	j.eventually("v3 is met, and passes", func() error {
		if code, out := j.exec("reload"); code != 0 {
			return fmt.Errorf("code %d: %s", code, out)
		}
		return nil
	})
	j.waitVersion("v3")
}

func smokeExec(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.beginSpec(e, "", engine.Spec{HostTools: true, Env: []string{
		`ENTRYPOINT_SMOKE=exec:["/bin/sh","-c","curl -sS -f -H X-Probe:1 http://$ENTRYPOINT_CANDIDATE_ADDRESS/healthz 2>&1"];timeout=15s`,
	}})
	j.clientele()
	j.refuses("status=500", "500", true)
}

func smokeGRPC(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "", "ENTRYPOINT_SMOKE=grpc://HERE;timeout=15s")
	j.clientele()
	j.refuses("status=500", "NOT_SERVING", true)
}

// smokeTCP: it says that it is ready, listens, and accepts nothing.
func smokeTCP(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "ready=true", "ENTRYPOINT_READY=notify", "ENTRYPOINT_SMOKE=tcp://HERE;timeout=3s")
	j.clientele()
	j.refuses("ready=true deaf=true", "did not accept a connection within 3s", false)
}

// refuses puts a candidate in place that fails its smoke test in these words, then one that passes. No client met the first.
func (j *trial) refuses(settings, says string, answers bool) {
	j.t.Helper()
	before, err := j.status()
	must(j.scene, err)
	j.put("version=v2 " + settings)
	j.during("reload").result(1, "smoke", says, "generation 1 serves on")
	j.inSmoke()
	j.answered(50)
	r := j.lossless()
	if answers {
		waitLog(j.t, j.c, "gen 2: reached by a probe")
	}
	logs := j.c.Logs()
	if _, met := r.Versions["v2"]; met || saidBy(logs, "v2", "reached by a client") {
		j.t.Errorf("clients reached the refused candidate: %+v", r.Versions)
	}
	if answers != saidBy(logs, "v2", "reached by a probe") {
		j.t.Errorf("that a probe reached the candidate: %v", !answers)
	}
	j.put("version=v3 ready=true")
	j.during("reload").result(0)
	st := j.waitStatus("v3 is active", func(st status) bool { return st.Active == 3 })
	if st.pidOf(1) != 0 && st.pidOf(1) != before.pidOf(1) {
		j.t.Errorf("generation 1 was started again")
	}
}

// saidBy tells whether a version of the test app has said that.
func saidBy(logs, version, words string) bool {
	for line := range strings.Lines(logs) {
		if strings.Contains(line, "testapp "+version+" ") && strings.Contains(line, words) {
			return true
		}
	}
	return false
}

// inSmoke wants the last swap to have failed in that phase, by code 1.
func (j *trial) inSmoke() {
	j.t.Helper()
	st, err := j.status()
	must(j.scene, err)
	if last := st.LastSwaps[len(st.LastSwaps)-1]; last.Code != 1 || last.Phase != "smoke" {
		j.t.Errorf("the last swap: %+v", last)
	}
}
