//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// refusedHUP asks for a swap by a signal and waits until it was refused: the log says so, for nobody else may be able to ask.
func (o *ordeal) refusedHUP() {
	o.t.Helper()
	refused := func() int { return strings.Count(o.c.Logs(), `"result":"rejected"`) }
	before := refused()
	o.signal(syscall.SIGHUP)
	o.eventually("a swap is refused", func() error {
		if refused() == before {
			return errAgain
		}
		return nil
	})
}

// limitInit sets a limit of the init, and gives back what puts the old one back.
func (o *ordeal) limitInit(resource int, most uint64) (back func()) {
	o.t.Helper()
	var old unix.Rlimit
	must(o.scene, unix.Prlimit(o.c.PID(), resource, nil, &old))
	must(o.scene, unix.Prlimit(o.c.PID(), resource, &unix.Rlimit{Cur: most, Max: old.Max}, nil))
	return func() {
		o.t.Helper()
		must(o.scene, unix.Prlimit(o.c.PID(), resource, &old, nil))
	}
}

// lowestFree is the descriptor that the init would get next.
func (o *ordeal) lowestFree() uint64 {
	for n := uint64(0); ; n++ {
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", o.c.PID(), n)); errors.Is(err, os.ErrNotExist) {
			return n
		}
	}
}

// noDescriptors: the init gets no descriptor any more, from a phase on. What is refused then is refused with a sentence; what serves
// goes on.
func noDescriptors(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{})
	o.starve(at, func(o *ordeal) func() {
		back := o.limitInit(unix.RLIMIT_NOFILE, o.lowestFree())
		asked := o.during("status") // it waits to be let in
		o.eventually("a client is not let in", func() error {
			if strings.Contains(o.c.Logs(), "cannot accept a control client") {
				return nil
			}
			select {
			case <-asked.done: // by a descriptor that was given back meanwhile
				o.limitInit(unix.RLIMIT_NOFILE, o.lowestFree())
				asked = o.during("status")
			default:
			}
			return errAgain
		})
		return func() {
			o.t.Helper()
			back()
			asked.await() // it was let in at last, or too early, and told that it is not
		}
	})
}

// starve takes something away from the init while a swap is held still: limit does, and its result gives it back. The swap may be refused or
// not; what serves goes on.
func (o *ordeal) starve(at []string, limit func(o *ordeal) (back func())) {
	o.t.Helper()
	o.settle()
	o.atEach(at, func(o *ordeal, phase string) {
		o.clients()
		o.reach(phase)
		back := limit(o)
		if phase == "after" {
			o.refusedHUP()
			back()
		}
		o.release()
		if phase != "after" {
			o.answered(50)
			back()
			o.eitherWay(phase)
		}
		o.answered(20)
		o.lossless()
		o.settled()
		o.waitVersion(o.serving)
	})
}

// noThreads: each start takes a thread of its own, which ends with it. Where no other can be made, the runtime must not need one.
func noThreads(t *testing.T, e engine.Engine, _ []string) {
	o := &ordeal{scene: playSpec(t, e, "version=v1 linger=0s", engine.Spec{User: "23457:23457"}), swaps: 1, serving: "v1"}
	o.begins()
	o.base = footprintOf(t, o.c.PID())
	o.clients()
	back := o.limitForks()
	for range 30 {
		o.refusedHUP()
	}
	back()
	o.candidate("")
	o.orders(0, "is active", "reload")
	o.settled()
	o.lossless()
}

// limitForks lets the init make no more processes and threads. It is done by the init's own user, who may.
func (o *ordeal) limitForks() (back func()) {
	o.t.Helper()
	o.tool("limit", "1", strconv.Itoa(unix.RLIMIT_NPROC), "1")
	return func() { o.t.Helper(); o.tool("limit", "1", strconv.Itoa(unix.RLIMIT_NPROC), "max") }
}

// eitherWay lets a swap end that a fault may have refused, or not.
func (o *ordeal) eitherWay(phase string) {
	o.t.Helper()
	if !undecided(phase) {
		return
	}
	o.decide()
	switch code := o.reload.await(); code {
	case 0:
		o.serving = o.version
	case 1, 5:
		if !strings.Contains(o.reload.out.String(), "serves on") {
			o.t.Errorf("at %s: %s", phase, o.reload.out.String())
		}
	default:
		o.t.Errorf("exit code %d at %s: %s", code, phase, o.reload.out.String())
	}
}

// noProcesses: nothing can be forked any more by the user of the container.
func noProcesses(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{User: "23456:23456"})
	o.starve(at, (*ordeal).limitForks)
}

// diskFull: nothing more can be written where the copies of programs are kept.
func diskFull(t *testing.T, e engine.Engine, at []string) {
	full(t, e, at, "/state", engine.Spec{Tmpfs: []string{"/state:size=40m"}, Env: []string{"ENTRYPOINT_STATE_DIR=/state", "ENTRYPOINT_KEEP=1"}})
}

// tmpFull: nothing more can be written where programs write what they write somewhere.
func tmpFull(t *testing.T, e engine.Engine, at []string) {
	full(t, e, at, "/tmp", engine.Spec{Tmpfs: []string{"/tmp:size=1m"}})
}

func full(t *testing.T, e engine.Engine, at []string, dir string, spec engine.Spec) {
	o := endure(t, e, spec)
	o.settle()
	o.atEach(at, func(o *ordeal, phase string) {
		o.clients()
		if phase == "before" {
			o.fill(dir)
			o.swap()
			if facts, _ := o.facts(); facts.Exec != "memfd" {
				o.t.Errorf("the copy is a %s: %s", facts.Exec, facts.Why)
			}
		} else {
			o.reach(phase)
			o.fill(dir)
			o.proceed(phase)
		}
		must(o.scene, os.Remove(o.root(dir+"/filler")))
		o.answered(20)
		o.lossless()
		o.settled()
		o.waitVersion(o.serving)
	})
}

// fill writes until nothing more can be written.
func (o *ordeal) fill(dir string) {
	o.t.Helper()
	f, err := os.Create(o.root(filepath.Join(dir, "filler")))
	must(o.scene, err)
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		n, err := f.Write(block)
		switch {
		case errors.Is(err, unix.ENOSPC) && n == 0:
			block = block[:len(block)/2]
		case err != nil && !errors.Is(err, unix.ENOSPC):
			must(o.scene, err)
		}
	}
}

// goodEnd does something at each of the phases at which a swap stands still: the swap comes to its good end, and nothing is lost.
func (o *ordeal) goodEnd(at []string, meanwhile func(o *ordeal, phase string)) {
	o.t.Helper()
	o.settle()
	o.atEach(at, func(o *ordeal, phase string) {
		o.clients()
		o.reach(phase)
		meanwhile(o, phase)
		o.proceed(phase)
		o.answered(20)
		o.lossless()
	})
}

// storm: signals, orphans and forged messages, as fast as they can be sent.
func storm(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{})
	o.goodEnd(at, func(o *ordeal, phase string) {
		st, err := o.status()
		must(o.scene, err)
		for i := range 600 {
			o.signal([]syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH}[i%3])
		}
		for _, path := range []string{"/orphans?n=60&life=1ms", "/notify?n=3000"} {
			if _, err := o.get(path); err != nil {
				o.t.Error(err)
			}
		}
		if phase == "ready" { // the one that has to say that it is ready
			if code, out, err := engine.Exec(limit(o.t), o.c, "/testapp", "tool", "forge", strconv.Itoa(st.pidOf(st.Candidate)), "2000"); err != nil || code != 0 {
				o.t.Errorf("forge: %d %v %s", code, err, out)
			}
			if now, err := o.status(); err != nil || now.stateOf(st.Candidate) != "starting" || strings.Contains(now.Generations[len(now.Generations)-1].StatusText, "forged") {
				o.t.Errorf("a stranger was heard: %+v (%v)", now.Generations, err)
			}
		}
	})
}

// noProc: nothing can be read below /proc for a while.
func noProc(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{})
	o.goodEnd(at, func(o *ordeal, _ string) {
		o.tool("cover", "/proc")
		o.release()
		o.answered(50)
		o.tool("uncover", "/proc") // a client has to find the init
	})
}

func (o *ordeal) tool(args ...string) {
	o.t.Helper()
	if code, out, err := engine.Exec(limit(o.t), o.c, append([]string{"/testapp", "tool"}, args...)...); err != nil || code != 0 {
		o.t.Fatalf("%v: %d %v %s", args, code, err, out)
	}
}

// flooded: strangers to the protocol take the places of the control socket's clients.
func flooded(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{})
	o.goodEnd(at, func(o *ordeal, _ string) {
		flood := o.c.Command(limit(o.t), "/testapp", "tool", "flood", "40")
		must(o.scene, flood.Start())
		o.t.Cleanup(func() { must(o.scene, flood.Wait()) })
	})
}

// hiddenProcesses: /proc shows to each user only what is that user's.
func hiddenProcesses(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{User: "23458:23458"})
	hide := exec.CommandContext(limit(t), "nsenter", "-t", strconv.Itoa(o.c.PID()), "-m", "-p", "/testapp", "tool", "hide", "/proc")
	if out, err := hide.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o.goodEnd(at, func(*ordeal, string) {})
}

// pidsLimit: the container has as many processes and threads as its cgroup lets it have. The app is not asked meanwhile: it may need threads, too.
func pidsLimit(t *testing.T, e engine.Engine, _ []string) {
	o := endure(t, e, engine.Spec{})
	o.settle()
	dir, active := o.pidsGroup(), o.part(false)
	threads := 0 // of the two that stay
	for _, pid := range []int{o.c.PID(), active} {
		threads += numberBehind(string(o.read(fmt.Sprintf("/proc/%d/status", pid))), "Threads:")
	}
	must(o.scene, os.WriteFile(dir+"/pids.max", []byte(strconv.Itoa(threads)), 0))
	for range 3 {
		o.refusedHUP()
	}
	must(o.scene, os.WriteFile(dir+"/pids.max", []byte("max"), 0))
	if now := o.part(false); now != active {
		o.t.Errorf("process %d serves, not %d", now, active)
	}
	o.unhurt()
}

// pidsGroup is the folder of the cgroup that counts the container's processes, of either version.
func (o *ordeal) pidsGroup() string {
	o.t.Helper()
	for line := range strings.Lines(string(o.read(fmt.Sprintf("/proc/%d/cgroup", o.c.PID())))) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		kind, path, _ := strings.Cut(rest, ":")
		for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
			if kind == "" || kind == "pids" {
				if _, err := os.Stat(root + path + "/pids.max"); err == nil {
					return root + path
				}
			}
		}
	}
	o.t.Fatal("no cgroup counts the container's processes")
	return ""
}

// noReader: what the container writes is read by nobody, or the reader has gone.
func noReader(t *testing.T, e engine.Engine, at []string) {
	for _, how := range at {
		t.Run(how, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			_, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
			if err != nil {
				t.Fatal(err)
			}
			if how == "gone" {
				r.Close()
			}
			words := filepath.Join(t.TempDir(), "words") // more lines than wait for a reader
			if err := os.WriteFile(words, []byte(strings.Repeat("a line\n", 400)), 0o644); err != nil {
				t.Fatal(err)
			}
			o := endure(t, e, engine.Spec{
				Output: w, Files: map[string]string{"/app/words": words}, Env: []string{"ENTRYPOINT_HOOK_POST_PROMOTE=/testapp tool cat /app/words"},
			})
			w.Close()
			o.clients()
			for range 5 {
				o.swap()
				o.waitStatus("it is active", func(st status) bool { return st.State == "serving" })
			}
			o.lossless()
			o.signal(syscall.SIGTERM)
			o.promptly(patience, 6)
		})
	}
}

// otherClock: the clocks that count from the start of the machine say something else.
func otherClock(t *testing.T, e engine.Engine, _ []string) {
	o := endure(t, e, engine.Spec{Args: []string{"-T", "--monotonic", "864000", "--boottime", "8640000"}})
	o.settle()
	o.clients()
	o.swap()
	o.settled()
	o.lossless()
	if r := o.last(); r.ElapsedMS < 0 || r.ElapsedMS > patience.Milliseconds() {
		o.t.Errorf("a swap that took %d ms", r.ElapsedMS)
	}
	o.unhurt()
}

// paused: all processes stand still for a moment and do not know it.
func paused(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{})
	o.goodEnd(at, func(o *ordeal, _ string) {
		c := o.c.(engine.Pauser)
		must(o.scene, c.Pause(true))
		must(o.scene, c.Pause(false))
	})
}

// outOfMemory: who shall be killed wants more than the container may have. Until a candidate has the traffic the active generation has most of it:
// first candidates that want it at once, or at each phase. There are no clients at that moment: while the kernel takes the memory of the killed one
// back it would choose once more, among those that are left, if one of them asked for some.
func outOfMemory(t *testing.T, e engine.Engine, at []string) {
	limited := restarts()
	limited.Args = []string{"--memory", "160m", "--memory-swap", "160m"}
	var marked, others []string
	for _, phase := range at {
		if candidateAlone(phase) || phase == "canary" {
			marked = append(marked, phase)
		} else {
			others = append(others, phase)
		}
	}
	t.Run("large", func(t *testing.T) { greedyCandidates(t, e, limited, marked) })
	t.Run("small", func(t *testing.T) {
		o := endure(t, e, limited)
		o.hungry, o.more = true, "gorge=400 "
		o.settle()
		o.atEach(others, func(o *ordeal, phase string) {
			switch phase {
			case "check":
				loseActive(o, phase)
			case "bake":
				loseCandidate(o, phase)
			default:
				loseNew(o, phase)
			}
		})
	})
}

func greedyCandidates(t *testing.T, e engine.Engine, limited engine.Spec, at []string) {
	o := endure(t, e, limited)
	o.swap("eat=90")
	o.settled()
	o.base = footprintOf(o.t, o.c.PID())
	active := o.part(false)
	o.candidate("eat=400")
	p := o.during("reload")
	p.result(1, "killed by SIGKILL", "serves on")
	o.clients()
	o.answered(20)
	o.lossless()
	if now := o.part(false); now != active {
		o.t.Errorf("process %d serves, not %d", now, active)
	}
	o.hungry, o.more = true, "gorge=400 "
	o.atEach(at, loseCandidate)
}

// expendable: the candidate is the one that the kernel would kill first, and not when it has the traffic.
func expendable(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{})
	o.goodEnd(at, func(o *ordeal, phase string) {
		st, err := o.status()
		must(o.scene, err)
		for _, g := range st.Generations {
			if g.State == "exited" {
				continue
			}
			want := scoreOf(o.t, o.c.PID())
			if g.Gen == st.Candidate && phase != "bake" { // it has the traffic then
				want = "987"
			}
			o.eventually(fmt.Sprintf("the score of generation %d is %s", g.Gen, want), func() error {
				if got := scoreOf(o.t, o.host(g.PID)); got != want {
					return fmt.Errorf("%s: %s", phase, got)
				}
				return nil
			})
		}
	})
}

// expendableForGood: a candidate of which the init could not take back that it is killed first does not become so.
func expendableForGood(t *testing.T, e engine.Engine, at []string) {
	o := endure(t, e, engine.Spec{
		Init: []string{"/usr/bin/setpriv", "--bounding-set", "-all,+setuid,+setgid,+kill", "/entrypoint"}, HostTools: true, Env: []string{"ENTRYPOINT_USER=65534"},
	})
	o.goodEnd(at, func(o *ordeal, phase string) {
		if got, want := scoreOf(o.t, o.part(true)), scoreOf(o.t, o.c.PID()); got != want {
			o.t.Errorf("%s: the score of the candidate is %s, want %s", phase, got, want)
		}
	})
}

// scoreOf is what the kernel adds when it looks for a process to kill.
func scoreOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
