//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// gate holds a moment still until it is opened; see testapp/hold.go.
type gate struct {
	s     *scene
	path  string
	write *os.File
}

// root is a path inside the container, as this machine reaches it.
func (s *scene) root(path string) string { return fmt.Sprintf("/proc/%d/root%s", s.c.PID(), path) }

// gate is one of that name. It holds those who stop at any gate that they meet (hooks, smoke tests) from arm on, and the app where its settings say so.
func (s *scene) gate(name string) *gate {
	return &gate{s: s, path: s.root("/gates/" + name)}
}

func (g *gate) arm() *gate {
	g.s.t.Helper()
	must(g.s, syscall.Mkfifo(g.path, 0o666))
	must(g.s, os.Chmod(g.path, 0o666))
	return g
}

// reached waits until somebody stands at the gate.
func (g *gate) reached() {
	g.s.t.Helper()
	g.s.eventually(filepath.Base(g.path)+" is reached", func() (err error) {
		g.write, err = os.OpenFile(g.path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err
	})
	g.s.t.Cleanup(func() { g.write.Close() })
}

// open lets go on who stands there, and whoever comes later.
func (g *gate) open() {
	g.s.t.Helper()
	must(g.s, os.Remove(g.path))
	must(g.s, g.write.Close())
}

// ordeal is a scene in which a swap can be held still at every phase.
type ordeal struct {
	*scene
	swaps   int      // that were begun
	version string   // of the last candidate
	serving string   // the version that serves
	reload  *pending // of the swap that is held
	old     int      // the generation that was active when it began
	held    *gate    // where; nil: nowhere
	base    footprint
	more    string // settings of all candidates
	hungry  bool   // who shall be killed takes more memory than there is, and there are no clients
}

// phases are those of a swap in their order. After it there is none.
var phases = []string{"check", "start", "ready", "smoke", "promote", "canary", "bake", "drain", "stop", "after"}

// candidateAlone tells where the candidate has a process, and no client.
func candidateAlone(phase string) bool {
	return slices.Contains([]string{"start", "ready", "smoke", "promote"}, phase)
}

func onTrial(phase string) bool { return phase == "canary" || phase == "bake" }

// undecided tells where the swap can still fail.
func undecided(phase string) bool {
	return phase == "check" || candidateAlone(phase) || onTrial(phase)
}

// ordealEnv stops swaps where a gate is: before the start, at the smoke tests, before they are promoted; and by themselves on trial.
var ordealEnv = []string{
	"ENTRYPOINT_READY=notify", "ENTRYPOINT_SMOKE=exec:/testapp tool hold smoke",
	"ENTRYPOINT_HOOK_PRE_START=/testapp tool hold check", "ENTRYPOINT_HOOK_PRE_PROMOTE=/testapp tool hold promote",
	"ENTRYPOINT_CANARY=50%+" + pinned, "ENTRYPOINT_BAKE=10m", "ENTRYPOINT_DRAIN_QUIET=2m", "ENTRYPOINT_DRAIN_TIMEOUT=2m",
}

// endure starts v1, which exits with 5 when it is told to end; later versions exit with 6.
func endure(t *testing.T, e engine.Engine, spec engine.Spec) *ordeal {
	t.Helper()
	o := &ordeal{scene: &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}, serving: "v1"}
	spec.Env = slices.Concat(ordealEnv, []string{"ENTRYPOINT_LISTEN=web=tcp://" + o.addr}, spec.Env)
	for i := range spec.Env {
		spec.Env[i] = strings.ReplaceAll(spec.Env[i], "HERE", o.addr)
	}
	o.start(e, "version=v1 exit=5 linger=0s", spec)
	o.begins()
	o.waitVersion("v1")
	must(o.scene, os.Mkdir(o.root("/gates"), 0o777))
	must(o.scene, os.Chmod(o.root("/gates"), 0o777)) // for any user
	return o
}

// settle makes what the init holds when it is calm, after a swap, the measure of what it may hold at the end.
func (o *ordeal) settle() {
	o.t.Helper()
	o.swap()
	o.settled()
	o.base = footprintOf(o.t, o.c.PID())
}

// clients begin to ask, each on a new connection for each request.
func (o *ordeal) clients() {
	o.t.Helper()
	if o.hungry {
		return
	}
	o.load = load.Start(context.Background(), load.Options{
		Address: o.addr, Fresh: 3, Slow: 2, SlowPath: "/slow?ms=30", Pace: 5 * time.Millisecond, Timeout: 2 * patience,
	})
	o.answered(10)
}

// candidate puts the next version in place.
func (o *ordeal) candidate(settings string) {
	o.t.Helper()
	o.swaps++
	o.version = fmt.Sprint("v", o.swaps+1)
	o.put("version=" + o.version + " exit=6 linger=0s " + o.more + settings)
}

// reach begins a swap and returns when it stands still at that phase.
func (o *ordeal) reach(phase string) {
	o.t.Helper()
	o.held, o.reload = nil, nil
	settings := ""
	switch phase {
	case "start", "ready":
		settings = "holds=" + phase
	case "check", "smoke", "promote":
		o.held = o.gate(phase).arm()
	case "drain", "after":
		// by a request of ours, or not at all
	case "stop":
		o.swap("holds=term") // the one that is to be replaced
		o.settled()
	}
	busy := o.serving
	o.candidate(settings)
	if settings != "" {
		o.held = o.gate(o.version + "-" + phase)
	}
	if phase == "drain" {
		o.keepBusy("/hold?gate=busy")
		o.held = o.gate("busy")
		o.held.reached()
	}
	st, err := o.status()
	must(o.scene, err)
	o.old = st.Active
	o.reload = o.during("reload")
	switch phase {
	case "canary":
		o.stands("canary")
	case "bake":
		o.stands("canary")
		o.orders(0, "100%", "promote")
		o.stands("baking")
	case "drain", "stop", "after":
		o.stands("canary")
		o.orders(0, "is active", "promote", "--full")
		o.reload.result(0)
		o.serving = o.version
	default:
		o.held.reached()
	}
	switch phase {
	case "start", "ready":
		o.forked()
	case "drain":
		o.waitStatus("the old generation drains", func(st status) bool { return st.stateOf(o.old) == "draining" })
	case "stop":
		o.held = o.gate(busy + "-term")
		o.held.reached()
	case "after":
		o.settled()
	}
}

// forked waits until the init knows the process of its candidate, which may stand at a gate before that.
func (o *ordeal) forked() {
	o.t.Helper()
	o.waitStatus("the candidate has a process", func(st status) bool { return st.pidOf(st.Candidate) != 0 })
}

// keepBusy asks for something, whose answer nobody waits for.
func (o *ordeal) keepBusy(path string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = o.get(path)
	}()
	o.t.Cleanup(func() { <-done })
}

// stands waits until the candidate has that state.
func (o *ordeal) stands(state string) status {
	o.t.Helper()
	return o.waitStatus("the candidate is "+state, func(st status) bool { return st.Candidate != 0 && st.stateOf(st.Candidate) == state })
}

// release opens the gate at which a phase is held, if it is held at one.
func (o *ordeal) release() {
	o.t.Helper()
	if o.held != nil {
		o.held.open()
		o.held = nil
	}
}

// proceed lets the held swap go to its good end.
func (o *ordeal) proceed(phase string) {
	o.t.Helper()
	o.release()
	if !undecided(phase) {
		o.settled()
		return
	}
	if phase != "bake" {
		o.stands("canary")
	}
	o.orders(0, "is active", "promote", "--full")
	o.reload.result(0)
	o.serving = o.version
	o.settled()
}

// swap is a whole one, which nothing disturbs.
func (o *ordeal) swap(settings ...string) {
	o.t.Helper()
	o.candidate(strings.Join(settings, " "))
	p := o.during("reload")
	o.stands("canary")
	o.orders(0, "is active", "promote", "--full")
	p.result(0)
	o.serving = o.version
	o.waitVersion(o.version)
}

// part is the process of the candidate, or of the active generation, as this machine numbers it.
func (o *ordeal) part(candidate bool) int {
	o.t.Helper()
	st, err := o.status()
	must(o.scene, err)
	gen := st.Active
	if candidate {
		gen = st.Candidate
	}
	return o.host(st.pidOf(gen))
}

func (o *ordeal) kill(pid int) time.Time {
	o.t.Helper()
	at := time.Now()
	if o.hungry {
		must(o.scene, syscall.Kill(pid, syscall.SIGUSR2))
		// Nothing is run in the container until its memory is free: whoever asks for some before that makes the kernel choose once more.
		o.eventually("it is gone", func() error {
			if err := syscall.Kill(pid, 0); err == nil {
				return errors.New("it is still there")
			}
			return nil
		})
		return at
	}
	must(o.scene, syscall.Kill(pid, syscall.SIGKILL))
	return at
}

// unhurt ends an ordeal: a swap works, and the init holds nothing that it did not hold when it was calm.
func (o *ordeal) unhurt() {
	o.t.Helper()
	o.swap()
	o.settled()
	const spare = 4 // an address may have spare slots, so that no index in use ever moves
	var now footprint
	o.eventually("the init holds as much as before", func() error {
		now = footprintOf(o.t, o.c.PID())
		if now.total > o.base.total+spare {
			return fmt.Errorf("descriptors %v, and before %v", now.fds, o.base.fds)
		}
		if list := o.processes(); len(list) != 2 { // the init and one process of the app
			return fmt.Errorf("processes %s", o.named(list))
		}
		return nil
	})
	if now.threads > o.base.threads+8 {
		o.t.Errorf("threads of the init: %d, before %d", now.threads, o.base.threads)
	}
}

// named is what processes are called.
func (o *ordeal) named(list []int) string {
	var words []string
	for _, pid := range list {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		words = append(words, fmt.Sprintf("%d %q", pid, strings.ReplaceAll(string(line), "\x00", " ")))
	}
	return strings.Join(words, ", ")
}

// lostWith ends the load: so many processes that had clients were killed, and what they had accepted may be lost with them.
func (o *ordeal) lostWith(killed int) {
	o.t.Helper()
	if o.hungry {
		return
	}
	o.answered(20)
	r := o.load.Stop()
	o.load = nil
	for class, kinds := range r.Failed {
		for kind := range kinds {
			if kind != load.Reset && kind != load.EOF {
				o.t.Errorf("%s: %s requests were not accepted, and lost: %v", class, kind, r.Samples)
			}
		}
	}
	if lost := r.Failures(load.Fresh, load.Slow); lost > 5*killed { // as many as there are clients
		o.t.Errorf("lost: %s\n%s", r, strings.Join(r.Samples, "\n"))
	}
}

// atEach runs what is done at each of the phases in one container, and looks at the end whether anything is left of it.
func (o *ordeal) atEach(list []string, do func(o *ordeal, phase string)) {
	o.t.Helper()
	t, s := o.t, o.scene
	for _, phase := range list {
		ok := t.Run(phase, func(t *testing.T) {
			sub := *s
			sub.t, sub.dir = t, t.TempDir()
			o.scene = &sub
			t.Cleanup(func() {
				if sub.load != nil {
					sub.load.Stop()
				}
			})
			do(o, phase)
		})
		o.scene = s
		if !ok {
			return
		}
	}
	o.unhurt()
}

// last is the record of the last swap.
func (o *ordeal) last() swapRecord {
	o.t.Helper()
	st, err := o.status()
	must(o.scene, err)
	if len(st.LastSwaps) == 0 {
		must(o.scene, errors.New("no swap was recorded"))
	}
	return st.LastSwaps[len(st.LastSwaps)-1]
}
