//go:build integration

package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// Every fault at every phase of a swap at which it means something else. A phase is held still while the fault happens; what
// follows is the same then, however fast the machine is.

// before has a moment more: the fault is there before the swap begins.
var before = append([]string{"before"}, phases...)

// hazard is a fault, and what follows from it: a line of docs/faults.md.
type hazard struct {
	name  string
	what  string   // happens, for the page
	at    []string // the phases
	then  string   // for the page
	run   func(t *testing.T, e engine.Engine, at []string)
	where string // the engine; "" is unshare
}

var hazards = []hazard{
	{name: "candidate-killed", what: "the candidate is killed", at: []string{"start", "ready", "smoke", "promote", "canary", "bake"},
		then: "The swap is refused, on trial rolled back; the answer names the signal. The active generation serves on. Of the clients only those lose a request whose connection the candidate had accepted.",
		run:  candidateKilled},
	{name: "active-killed", what: "the active generation is killed", at: []string{"check", "start", "ready", "smoke", "promote", "canary", "bake"},
		then: "The swap goes on and leaves out what is left of its trial; until the candidate is active, clients wait in the held sockets.",
		run:  activeKilledAt},
	{name: "new-killed", what: "the new active generation is killed", at: []string{"drain", "stop", "after"},
		then: "While the old generation has been told nothing yet (drain), it has the traffic again. Later the restart policy starts the new bytes again, and clients wait in the held sockets.",
		run:  newKilled},
	{name: "both-killed", what: "the candidate and the active generation are killed", at: []string{"start", "ready", "smoke", "promote", "canary", "bake"},
		then: "The swap is refused, or rolled back, and the restart policy starts what was active again; clients wait in the held sockets.",
		run:  bothKilled},
	{name: "stop", what: "TERM", at: phases,
		then: "The swap is refused; both generations end inside one deadline; the container ends as the generation does that was active.",
		run:  stoppedAt},
	{name: "stop-first", what: "TERM during the first start", at: []string{"start", "ready", "smoke"},
		then: "The container ends as its first generation does.",
		run:  stoppedFirst},
	{name: "first-killed", what: "the first generation is killed", at: []string{"start", "ready", "smoke"},
		then: "The container ends with 137, or the restart policy starts it again.",
		run:  firstKilled},
	{name: "second-reload", what: "`reload` again, and HUP three times", at: phases,
		then: "The command is told that another swap is under way (exit code 3). The signals are remembered: one more swap follows. From drain on, the next swap begins at once.",
		run:  reloadedAgain},
	{name: "client-killed", what: "the client that waits for the answer is killed", at: []string{"check", "start", "ready", "smoke", "promote", "canary", "bake"},
		then: "The swap goes on.",
		run:  clientLost},
	{name: "no-descriptors", what: "the init gets no descriptor any more", at: phases,
		then: "What needs one is refused with a sentence; what serves goes on. With descriptors the next swap works.",
		run:  noDescriptors},
	{name: "no-processes", what: "nothing can be forked any more", at: phases,
		then: "What needs a process is refused with a sentence; what serves goes on. With processes the next swap works.",
		run:  noProcesses},
	{name: "no-threads", what: "nothing can be forked, and thirty swaps are asked for", at: []string{"after"},
		then: "Each is refused with a sentence; the init lives, for it keeps the threads that it has.",
		run:  noThreads},
	{name: "disk-full", what: "`ENTRYPOINT_STATE_DIR` is full", at: before,
		then: "The copy is made in memory instead; the swap goes on.",
		run:  diskFull},
	{name: "tmp-full", what: "`/tmp` is full", at: before,
		then: "Nothing.",
		run:  tmpFull},
	{name: "storm", what: "hundreds of signals, of orphans and of READY=1 of another user, and thousands of messages of the app", at: phases,
		then: "Signals are forwarded to the active generation, orphans reaped, strangers not heard; the swap goes on.",
		run:  storm},
	{name: "flood", what: "forty clients of the control socket that say nothing, half a request, or nonsense", at: phases,
		then: "Each is sent away after 5 s, or at once; sixteen are heard at a time, and commands wait for their turn; the swap goes on.",
		run:  flooded},
	{name: "hidden-processes", what: "/proc shows a user only that user's processes (`hidepid=2`)", at: phases,
		then: "Nothing.",
		run:  hiddenProcesses},
	{name: "no-proc", what: "/proc is covered by an empty folder", at: phases,
		then: "The swap goes on.",
		run:  noProc},
	{name: "no-reader", what: "nobody reads what the container writes", at: []string{"stuck", "gone"},
		then: "Lines of the log are dropped; swaps and the stop go on.",
		run:  noReader},
	{name: "other-clock", what: "monotonic and boot time are days ahead (a time namespace)", at: []string{"always"},
		then: "Nothing.",
		run:  otherClock},
	{name: "clock-set", what: "the wall clock is set two days ahead, or a day back", at: phases,
		then: "Nothing.",
		run:  clockSet},
	{name: "expendable", what: "whom the kernel would kill where memory ends", at: []string{"ready", "smoke", "promote", "canary", "bake", "drain", "after"},
		then: "The candidate, until it has the traffic; then all are alike.",
		run:  expendable},
	{name: "expendable-for-good", what: "whom the kernel would kill where memory ends, and the init has no right to take that back", at: []string{"ready", "bake"},
		then: "All are alike.",
		run:  expendableForGood},
	{name: "paused", what: "`docker pause`, `docker unpause`", at: phases, where: "docker",
		then: "The swap goes on.",
		run:  paused},
	{name: "pids-limit", what: "the cgroup lets the container have no more processes", at: []string{"after"}, where: "docker",
		then: "Swaps are refused with a sentence; the init and the app live, as long as the app needs no thread. With processes the next swap works.",
		run:  pidsLimit},
	{name: "out-of-memory", what: "a generation wants more memory than the container may have", at: phases, where: "docker",
		then: "The kernel kills the candidate, although the active generation is larger: the swap is refused or rolled back, and names the signal. " +
			"Who has the traffic is killed if it is the largest; then it is as if it was killed otherwise.",
		run: outOfMemory},
}

func TestFaults(t *testing.T) { table(t, "unshare", rowsOf(hazards, "")) }

// TestFaultsDocker has those that need a real engine.
func TestFaultsDocker(t *testing.T) { table(t, "docker", rowsOf(hazards, "docker")) }

func rowsOf(list []hazard, where string) []row {
	var rows []row
	for _, h := range list {
		if h.where == where {
			rows = append(rows, row{h.name, func(t *testing.T, e engine.Engine) { h.run(t, e, h.at) }})
		}
	}
	return rows
}

// restarts lets the policy start again what was killed, as often as the phases are.
func restarts() engine.Spec {
	return engine.Spec{Env: []string{"ENTRYPOINT_RESTART=always", "ENTRYPOINT_RESTART_DELAY=1ms", "ENTRYPOINT_RESTART_MAX_DELAY=1ms", "ENTRYPOINT_START_LIMIT_BURST=100"}}
}

func candidateKilled(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, restarts())
	o.settle()
	o.atEach(at, loseCandidate)
}

func loseCandidate(o *ordeal, phase string) {
	o.clients()
	active := o.part(false)
	o.reach(phase)
	o.kill(o.part(true))
	want, words := 1, "was refused"
	if onTrial(phase) {
		want, words = 5, "was rolled back"
	}
	o.reload.result(want, words, "killed by SIGKILL", "serves on")
	if onTrial(phase) || o.hungry {
		o.lostWith(1)
	} else {
		o.answered(20)
		o.lossless()
	}
	o.release()
	o.settled()
	if now := o.part(false); now != active {
		o.t.Errorf("process %d serves, not %d", now, active)
	}
}

func activeKilledAt(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, restarts())
	o.settle()
	o.atEach(at, loseActive)
}

func loseActive(o *ordeal, phase string) {
	o.clients()
	o.reach(phase)
	o.kill(o.part(false))
	o.waitStatus("it is gone", func(st status) bool {
		return st.Active == 0 || onTrial(phase) && st.Active == st.Generations[len(st.Generations)-1].Gen
	})
	o.release()
	if !onTrial(phase) { // with nobody to go back to, the new one is on trial all the same, or it is active
		o.decide()
	}
	o.reload.result(0, "is active")
	o.lostWith(1)
	o.serving = o.version
	o.settled()
	o.waitVersion(o.version)
}

// decide ends a trial well, if the swap comes to one: its command may end before.
func (o *ordeal) decide() {
	o.t.Helper()
	trial := false
	o.eventually("the swap is on trial, or over", func() error {
		select {
		case <-o.reload.done:
			return nil
		default:
		}
		st, err := o.status()
		if err != nil {
			return err
		}
		if trial = st.onTrial(); !trial {
			return fmt.Errorf("status %+v", st)
		}
		return nil
	})
	if trial {
		o.orders(0, "is active", "promote", "--full")
	}
}

func (st status) onTrial() bool {
	return slices.Contains([]string{"canary", "baking"}, st.stateOf(st.Candidate))
}

func newKilled(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, restarts())
	o.settle()
	o.atEach(at, loseNew)
}

func loseNew(o *ordeal, phase string) {
	o.clients()
	before := o.serving
	o.reach(phase)
	new := o.part(false)
	st, err := o.status()
	must(o.scene, err)
	o.kill(new)
	if phase == "drain" {
		o.waitStatus("the old one is back", func(now status) bool { return now.Active == o.old && now.State == "serving" })
		o.serving = before
	} else {
		o.waitStatus("it was started again", func(now status) bool { return now.Active == st.Active+1 && now.Restarts == st.Restarts+1 })
	}
	o.release()
	o.lostWith(1)
	o.settled()
	o.waitVersion(o.serving)
}

func bothKilled(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, restarts())
	o.settle()
	o.atEach(at, func(o *ordeal, phase string) {
		o.clients()
		o.reach(phase)
		candidate, active := o.part(true), o.part(false)
		o.kill(candidate)
		o.kill(active)
		killed := 1         // with clients
		if onTrial(phase) { // if the active one is found dead first, the candidate has been active for a moment
			killed = 2
			if code := o.reload.await(); code != 5 && code != 0 {
				o.t.Errorf("exit code %d: %s", code, o.reload.out.String())
			} else if code == 0 {
				o.serving = o.version
			}
		} else {
			o.reload.result(1, "was refused", "killed by SIGKILL")
		}
		o.release()
		o.lostWith(killed)
		o.settled()
		o.waitVersion(o.serving)
	})
}

func stoppedAt(t *testing.T, e engine.Engine, at []string) {
	for _, phase := range at {
		t.Run(phase, func(t *testing.T) {
			o := endure(t, e, engine.Spec{})
			o.reach(phase)
			o.signal(syscall.SIGTERM)
			want := 5
			if !undecided(phase) {
				want = 6
			}
			if phase == "stop" || phase == "drain" { // what is still to be done is done
				o.waitStatus("it is stopping", func(st status) bool { return st.State == "stopping" })
				o.release()
			}
			o.promptly(patience, want)
			if code := o.reload.await(); undecided(phase) && code != 1 && code != -1 { // the kernel ends it with the container
				t.Errorf("the reload that was cut off ends with %d: %s", code, o.reload.out.String())
			}
		})
	}
}

func stoppedFirst(t *testing.T, e engine.Engine, at []string) {
	for _, phase := range at {
		t.Run(phase, func(t *testing.T) {
			o := first(t, e, phase)
			o.signal(syscall.SIGTERM)
			o.promptly(patience, 5)
		})
	}
}

// first starts a container whose first generation stands still at that phase.
func first(t *testing.T, e engine.Engine, phase string, env ...string) *ordeal {
	t.Helper()
	o := &ordeal{scene: &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}, serving: "v1", version: "v1"}
	settings, gate := "version=v1 exit=5 linger=0s ", "v1-"+phase
	if phase == "smoke" {
		settings, gate = settings+"holds=start", "v1-start"
	} else {
		settings += "holds=" + phase
	}
	o.start(e, settings, engine.Spec{Env: slices.Concat(ordealEnv, []string{"ENTRYPOINT_LISTEN=web=tcp://" + o.addr}, env)})
	o.held = o.gate(gate)
	o.held.reached()
	o.forked()
	if phase == "smoke" { // the gate must be there before it is met
		before := o.held
		o.held = o.gate("smoke").arm()
		before.open()
		o.held.reached()
	}
	return o
}

func firstKilled(t *testing.T, e engine.Engine, at []string) {
	for _, phase := range at {
		t.Run(phase, func(t *testing.T) {
			o := first(t, e, phase)
			o.kill(o.part(true))
			o.waitExit(137)
		})
	}
	t.Run("restarted", func(t *testing.T) {
		o := first(t, e, "ready", restarts().Env...)
		o.kill(o.part(true))
		o.waitStatus("it is started again", func(st status) bool { return st.Restarts == 1 && st.Candidate == 2 })
		again := o.gate("v1-ready")
		again.reached()
		o.release()
		again.write.Close()
		o.waitVersion("v1")
	})
}

func reloadedAgain(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{})
	o.settle()
	o.atEach(at, func(o *ordeal, phase string) {
		o.clients()
		st, err := o.status()
		must(o.scene, err)
		o.reach(phase)
		if !undecided(phase) {
			o.follows()
			return
		}
		o.orders(3, "another swap is under way", "reload")
		own := o.version
		o.candidate("") // for the one that is to follow
		for range 3 {
			o.signal(syscall.SIGHUP)
		}
		o.waitStatus("they are remembered", func(st status) bool { return st.Remembered })
		o.release()
		if phase != "bake" {
			o.stands("canary")
		}
		o.orders(0, "is active", "promote", "--full")
		o.reload.result(0)
		o.waitVersion(own)
		o.waitStatus("the remembered one is on trial", func(now status) bool { return now.Candidate == st.Active+2 && now.stateOf(now.Candidate) == "canary" })
		o.orders(0, "is active", "promote", "--full")
		o.serving = o.version
		o.waitVersion(o.version)
		o.lossless()
		if now := o.settled(); now.Active != st.Active+2 || now.Remembered {
			o.t.Errorf("generation %d is active, want %d", now.Active, st.Active+2)
		}
	})
}

// follows has another swap while what the last one has left to do stands still, and one by HUP.
func (o *ordeal) follows() {
	o.t.Helper()
	o.swap()
	o.candidate("")
	o.signal(syscall.SIGHUP)
	o.stands("canary")
	o.orders(0, "is active", "promote", "--full")
	o.serving = o.version
	o.waitVersion(o.version)
	o.release()
	o.settled()
	o.lossless()
}

func clientLost(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{})
	o.settle()
	o.atEach(at, func(o *ordeal, phase string) {
		o.clients()
		o.reach(phase)
		o.kill(o.running("/entrypoint reload"))
		<-o.reload.done
		o.release()
		if phase != "bake" {
			o.stands("canary")
		}
		o.orders(0, "is active", "promote", "--full")
		o.lossless()
		o.serving = o.version
		o.settled()
		o.waitVersion(o.version)
		if r := o.last(); r.Code != 0 {
			o.t.Errorf("the last swap: %+v", r)
		}
	})
}

// running is the process of the container that runs this command line.
func (o *ordeal) running(command string) int {
	o.t.Helper()
	for _, pid := range o.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Join(strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"), " ") == command {
			return pid
		}
	}
	o.t.Fatalf("nobody runs %q: %s", command, o.named(o.processes()))
	return 0
}
