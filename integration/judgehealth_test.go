//go:build integration

package integration

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// watchful checks the active generation often, and gives an old one that hangs little time.
func watchful(more ...string) []string {
	return append([]string{
		"ENTRYPOINT_HEALTH=http://HERE/healthz", "ENTRYPOINT_HEALTH_INTERVAL=100ms", "ENTRYPOINT_HEALTH_FAILURES=2",
		"ENTRYPOINT_HEALTH_TIMEOUT=2s", "ENTRYPOINT_DRAIN_QUIET=300ms", "ENTRYPOINT_DRAIN_TIMEOUT=700ms",
	}, more...)
}

// replaced waits until another process of the same bytes serves.
func (j *trial) replaced(says string) {
	j.t.Helper()
	st := j.waitStatus("generation 2 serves alone", func(st status) bool { return st.Active == 2 && st.live() == 1 && st.State == "serving" })
	if w, err := j.who(); err != nil || w.version != "v1" || w.gen != 2 {
		j.t.Errorf("%+v answers (%v)", w, err)
	}
	last := st.LastSwaps[len(st.LastSwaps)-1]
	if last.Code != 0 || last.From != 1 || last.To != 2 || !strings.Contains(last.Cause, "health") || !strings.Contains(last.Cause, says) {
		j.t.Errorf("last swap %+v, want the cause %q", last, says)
	}
	if st.Restarts != 1 {
		j.t.Errorf("%d restarts", st.Restarts)
	}
}

// activeHangs: a stopped process is replaced. What it had accepted is lost with it, who waits in its queue is not.
func activeHangs(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "", watchful()...)
	j.clientele()
	w, err := j.who()
	must(j.scene, err)
	pid := j.host(w.pid)
	must(j.scene, syscall.Kill(pid, syscall.SIGSTOP))
	j.replaced("2 checks in a row failed")
	j.answered(50)
	r := j.load.Stop()
	j.load = nil
	if n := r.Failures("fresh", "slow", "reused"); n > clients {
		t.Errorf("%d clients lost %d requests: %s", clients, n, r.Samples)
	}
	for class, kinds := range r.Failed {
		if kinds["refused"]+kinds["timeout"]+kinds["status"]+kinds["wrong"] > 0 {
			t.Errorf("%s requests were lost that were not accepted: %s\n%s", class, r, strings.Join(r.Samples, "\n"))
		}
	}
	t.Logf("lost with the process that hung: %s of %d", r.FailedText(), r.Requests())
}

// activeSick: an app that says that it is not well is replaced, and loses nothing.
func activeSick(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "", watchful("ENTRYPOINT_DRAIN_QUIET=5s", "ENTRYPOINT_DRAIN_TIMEOUT=30s")...)
	j.clientele()
	j.tell("/set?health=500")
	j.replaced("answered 500")
	j.answered(50)
	j.lossless()
}

func activeExits(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "exit=5", watchful("ENTRYPOINT_HEALTH_ACTION=exit")...)
	j.tell("/set?health=500")
	j.waitExit(1)
}

// activeStarves: the app stops feeding its watchdog.
func activeStarves(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.begin(e, "feed=300ms", "ENTRYPOINT_WATCHDOG=4s")
	j.clientele()
	j.tell("/set?feed=off")
	j.replaced("fed its watchdog for 4s")
	j.answered(50)
	j.lossless()
}

// checkHangs: a check that never ends, with children, is ended at its time, again and again. Nothing of it stays.
func checkHangs(t *testing.T, e engine.Engine, own bool) {
	j := newTrial(t, own)
	j.beginSpec(e, "", engine.Spec{HostTools: true, Env: []string{
		`ENTRYPOINT_HEALTH=exec:["/bin/sh","-c","sleep 1000 & timeout 1000 sleep 1000 | sleep 1000"]`, "ENTRYPOINT_HEALTH_INTERVAL=10ms",
		"ENTRYPOINT_HEALTH_TIMEOUT=100ms", "ENTRYPOINT_HEALTH_FAILURES=1000",
	}})
	const one = 5 // the shell, its three children, and one below timeout, in a group of its own
	most := 0
	for deadline := time.Now().Add(2 * patience); strings.Count(j.c.Logs(), "health check failed") < 20; time.Sleep(5 * time.Millisecond) {
		most = max(most, len(slices.DeleteFunc(j.processes(), dying)))
		if time.Now().After(deadline) {
			t.Fatalf("there were no 20 checks")
		}
	}
	t.Logf("at most %d processes in the container", most)
	if most > 2+2*one {
		t.Errorf("%d processes, more than the init, the app, one check, and one that is being ended", most)
	}
	j.eventually("nothing of a check is a zombie", func() error {
		for _, pid := range j.processes() {
			if stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); strings.Contains(string(stat), ") Z ") {
				return errAgain
			}
		}
		return nil
	})
	j.meets("127.2.0.1", "v1")
}

// dying tells whether a process has been killed, or has ended: when it is gone is up to the kernel and its scheduler.
func dying(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil || strings.Contains(string(text), "\nState:\tZ") {
		return true
	}
	_, after, _ := strings.Cut(string(text), "\nSigPnd:\t")
	word, _, _ := strings.Cut(after, "\n")
	pending, _ := strconv.ParseUint(word, 16, 64)
	return pending&(1<<(syscall.SIGKILL-1)) != 0
}
