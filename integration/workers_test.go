//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// Generations of several workers: eight processes of an interpreter that know nothing of each other, and that bind one port each by
// themselves, or inherit it.

// crewRow is one case.
type crewRow struct {
	name string
	run  func(t *testing.T, e engine.Engine, own bool)
}

func TestWorkers(t *testing.T) {
	var rows []row
	for _, c := range []crewRow{
		{"roll", crewRoll},
		{"roll-fails", crewRollFails},
		{"roll-aborted", crewRollAborted},
		{"scale", crewScale},
		{"killed", crewKilled},
		{"often", crewOften},
	} {
		rows = append(rows,
			row{c.name + "/inherited", func(t *testing.T, e engine.Engine) { c.run(t, e, false) }},
			row{c.name + "/transparent", func(t *testing.T, e engine.Engine) { c.run(t, e, true) }})
	}
	rows = append(rows, row{"roll-shared", crewShared}, row{"roll-exclusive", crewExclusive})
	table(t, "unshare", rows)
}

// TestWorkersDocker rolls in a hardened container of a real engine.
func TestWorkersDocker(t *testing.T) {
	table(t, "docker", []row{{"roll-hardened", crewHardened}})
}

// crew starts n workers of the interpreted server.
func crew(t *testing.T, e engine.Engine, own bool, n int, env ...string) *scene {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("SKIPPED: no python3")
	}
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	_, port, _ := net.SplitHostPort(s.addr)
	env = append(env, "ENTRYPOINT_WORKERS="+strconv.Itoa(n), backToBack)
	if !own {
		env = append(env, "ENTRYPOINT_LISTEN=tcp4://"+s.addr)
	}
	s.start(e, "version=none", engine.Spec{
		HostTools: true, Env: env, Command: []string{"/usr/bin/python3", "/app/workers.py", port},
		Files: map[string]string{"/app/workers.py": "testdata/workers.py", "/app/version": s.versionFile("v1")},
	})
	s.waitStatus("generation 1 serves", func(st status) bool { return st.State == "serving" && st.Active == 1 })
	return s
}

// turnout is who serves, by the sockets that take new connections and the processes behind them.
type turnout struct {
	State       string
	Active      int
	Generations []struct {
		Gen     int
		State   string
		Share   string
		Workers []struct {
			Worker, PID, Restarts int
			State                 string
		}
	}
	Sockets []struct {
		Slots []struct {
			Generation, Worker int
			Portion            float64
		}
	}
}

func (s *scene) turnout() turnout {
	s.t.Helper()
	var c turnout
	code, out := s.exec("status", "--json")
	if err := json.Unmarshal([]byte(out), &c); code != 0 || err != nil {
		s.t.Fatalf("status: %d, %v: %s", code, err, out)
	}
	return c
}

// serving counts the slots that get new connections.
func (c turnout) serving() (n int) {
	for _, sl := range c.Sockets[0].Slots {
		if sl.Portion > 0 {
			n++
		}
	}
	return n
}

// ofOne tells whether exactly the workers 0..n-1 of one generation serve, and are all that there is.
func (c turnout) ofOne(gen, n int) bool {
	processes := 0
	for _, g := range c.Generations {
		for _, w := range g.Workers {
			if w.State != "exited" {
				processes++
			}
		}
	}
	for _, sl := range c.Sockets[0].Slots {
		if sl.Portion > 0 && (sl.Generation != gen || sl.Worker >= n) {
			return false
		}
	}
	return c.State == "serving" && c.Active == gen && c.serving() == n && processes == n
}

// census watches without pause until the returned function is called, which gives the fewest that served at any look, the most
// processes, and how often it looked.
func (s *scene) census() func() (fewest, most, looks int) {
	fewest, most, looks := 1000, 0, 0
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			cmd := s.c.Command(limit(s.t), "/entrypoint", "status", "--json")
			out, err := cmd.Output()
			var c turnout
			if err != nil || json.Unmarshal(out, &c) != nil {
				s.t.Errorf("status: %v: %s", err, out)
				return
			}
			looks++
			fewest = min(fewest, c.serving())
			processes := 0
			for _, g := range c.Generations {
				for _, w := range g.Workers {
					if w.State != "exited" {
						processes++
					}
				}
			}
			most = max(most, processes)
		}
	})
	return func() (int, int, int) { close(stop); watch.Wait(); return fewest, most, looks }
}

func (s *scene) newVersion(version string) {
	s.t.Helper()
	must(s, s.c.Put(s.versionFile(version), "/app/version"))
}

func (s *scene) wantOne(gen, n int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d workers of generation %d are all there is", n, gen), func() error {
		if c := s.turnout(); !c.ofOne(gen, n) {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

// crewRoll: eight are rolled under load; nothing is lost, never do fewer than eight serve, never are there more than nine.
func crewRoll(t *testing.T, e engine.Engine, own bool) {
	s := crew(t, e, own, 8, "ENTRYPOINT_ROLLOUT=rolling")
	s.wantOne(1, 8)
	s.underLoad()
	s.newVersion("v2")
	end := s.census()
	s.begins()
	code, out := s.patientExec("reload")
	fewest, most, looks := end()
	if code != 0 {
		t.Fatalf("reload: %d\n%s", code, out)
	}
	if n := strings.Count(out, "rolled"); n != 7 {
		t.Errorf("%d places were told of:\n%s", n, out)
	}
	t.Logf("at least %d served, at most %d processes, in %d looks", fewest, most, looks)
	if fewest < 8 || most > 9 {
		t.Errorf("at least %d served, at most %d processes", fewest, most)
	}
	s.wantOne(2, 8)
	s.answered(50)
	r := s.lossless()
	if r.Failures(load.Reused) > 0 || r.Versions["v2"].Answers == 0 {
		t.Errorf("%+v", r.Versions)
	}
	if w, err := s.who(); err != nil || w.version != "v2" {
		t.Errorf("%v answers, %v", w, err)
	}
}

// patientExec is exec for what takes as long as eight starts and drains of an interpreter.
func (s *scene) patientExec(args ...string) (code int, output string) {
	s.t.Helper()
	cmd := s.c.Command(s.t.Context(), append([]string{"/entrypoint"}, args...)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		s.t.Fatalf("entrypoint %v: %v: %s", args, err, out)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// crewRollFails: the fourth does not start; all eight old ones serve at the end.
func crewRollFails(t *testing.T, e engine.Engine, own bool) {
	s := crew(t, e, own, 8, "ENTRYPOINT_ROLLOUT=rolling")
	s.underLoad()
	s.newVersion("broken")
	end := s.census()
	s.begins()
	code, out := s.patientExec("reload")
	fewest, most, looks := end()
	t.Logf("at least %d served, at most %d processes, in %d looks", fewest, most, looks)
	if code != 5 || !strings.Contains(out, "worker 3") || fewest < 8 || most > 10 {
		t.Errorf("reload: %d, at least %d served, at most %d processes\n%s", code, fewest, most, out)
	}
	s.newVersion("v1") // the file that its next start would read
	s.wantOne(1, 8)
	if r := s.lossless(); r.Failures(load.Reused) > 0 {
		t.Errorf("%s", r)
	}
}

// crewRollAborted: somebody thinks better of it, while the third does not get ready.
func crewRollAborted(t *testing.T, e engine.Engine, own bool) {
	s := crew(t, e, own, 4, "ENTRYPOINT_ROLLOUT=rolling", "ENTRYPOINT_START_TIMEOUT=10m")
	s.underLoad()
	s.newVersion("hangs")
	s.begins()
	p := s.during("reload")
	s.eventually("the roll is under way", func() error {
		c := s.turnout()
		if g := c.Generations[len(c.Generations)-1]; g.Share != "2/4" {
			return fmt.Errorf("%+v", g)
		}
		return nil
	})
	if code, text := s.exec("reload"); code != 3 {
		t.Errorf("a second reload: %d %s", code, text)
	}
	if code, text := s.exec("abort"); code != 0 {
		t.Errorf("abort: %d %s", code, text)
	}
	p.result(5)
	s.newVersion("v1") // the file that its next start would read
	s.wantOne(1, 4)
	s.lossless()
}

// crewScale: two, eight, three under load.
func crewScale(t *testing.T, e engine.Engine, own bool) {
	s := crew(t, e, own, 2)
	s.underLoad()
	s.begins()
	for _, n := range []int{8, 3} {
		if code, out := s.patientExec("scale", strconv.Itoa(n)); code != 0 {
			t.Fatalf("scale %d: %d %s", n, code, out)
		}
		if c := s.turnout(); c.serving() != n {
			t.Errorf("%d serve after scale %d", c.serving(), n)
		}
		s.answered(50)
	}
	s.wantOne(1, 3)
	s.newVersion("v2")
	s.reload(0)
	s.wantOne(2, 3)
	s.answered(20)
	if r := s.lossless(); r.Failures(load.Reused) > 0 {
		t.Errorf("%s", r)
	}
	for _, bad := range []string{"0", "65", "many"} {
		if code, out := s.exec("scale", bad); code != 2 {
			t.Errorf("scale %s: %d %s", bad, code, out)
		}
	}
}

// crewKilled: of a worker that is killed, no more is lost than the requests that it had accepted: each client had at most one.
func crewKilled(t *testing.T, e engine.Engine, own bool) {
	s := crew(t, e, own, 4, "ENTRYPOINT_RESTART=always")
	s.underLoad()
	s.begins()
	const kills = 5
	for i := range kills {
		c := s.turnout()
		victim := c.Generations[0].Workers[i%4]
		if err := s.killInside(victim.PID); err != nil {
			t.Fatal(err)
		}
		s.eventually("it is back", func() error {
			c := s.turnout()
			if w := c.Generations[0].Workers[i%4]; w.PID == victim.PID || c.serving() != 4 || w.State != "active" {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
		s.answered(30)
	}
	r := s.load.Stop()
	s.load = nil
	t.Logf("%s\n%s", r, strings.Join(r.Samples, "\n"))
	clients := 3 + 2 + 2
	if lost := r.Failures(load.Fresh, load.Slow, load.Reused); lost > kills*clients {
		t.Errorf("%d requests are lost, and %d at most could be", lost, kills*clients)
	}
	for class, kinds := range r.Failed {
		for kind, n := range kinds {
			if kind == "refused" || kind == "timeout" {
				t.Errorf("%d %s requests met %s: nobody had accepted them", n, class, kind)
			}
		}
	}
	if st := s.turnout(); st.Active != 1 {
		t.Errorf("generation %d is active", st.Active)
	}
}

// killInside kills a process by its number in the container.
func (s *scene) killInside(pid int) error {
	return s.c.Command(limit(s.t), "/usr/bin/python3", "-c", fmt.Sprintf("import os; os.kill(%d, %d)", pid, syscall.SIGKILL)).Run()
}

// crewOften: four workers, twenty swaps at once.
func crewOften(t *testing.T, e engine.Engine, own bool) {
	s := crew(t, e, own, 4)
	s.underLoad()
	for i := range 20 {
		version := fmt.Sprint("v", i+2)
		s.newVersion(version)
		s.reload(0)
		if err := s.load.WaitVersion(limit(t), version); err != nil {
			t.Fatal(err)
		}
	}
	s.wantOne(21, 4)
	if r := s.lossless(); r.Failures(load.Reused) > 0 {
		t.Errorf("%s", r)
	}
}

// crewShared: where all share one socket, the kernel divides, and a roll is one all the same.
func crewShared(t *testing.T, e engine.Engine) {
	s := crew(t, e, false, 3, "ENTRYPOINT_ROLLOUT=rolling", "ENTRYPOINT_STEER=off")
	s.underLoad()
	s.newVersion("v2")
	s.begins()
	if code, out := s.patientExec("reload"); code != 0 {
		t.Fatalf("reload: %d\n%s", code, out)
	}
	s.answered(50)
	r := s.lossless()
	if r.Versions["v2"].Answers == 0 {
		t.Errorf("%+v", r.Versions)
	}
}

// crewExclusive: an old worker stops before its successor starts, and the others serve on.
func crewExclusive(t *testing.T, e engine.Engine) {
	s := crew(t, e, false, 3, "ENTRYPOINT_ROLLOUT=rolling", "ENTRYPOINT_HANDOFF=exclusive")
	s.underLoad()
	s.newVersion("v2")
	end := s.census()
	s.begins()
	code, out := s.patientExec("reload")
	_, most, _ := end()
	if code != 0 || most > 3 {
		t.Fatalf("reload: %d, at most %d processes\n%s", code, most, out)
	}
	s.answered(50)
	s.lossless()
}

// crewHardened: nobody, without capabilities, on a read-only root, binds by itself.
func crewHardened(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, s.binds("version=v1"), engine.Spec{User: "65534:65534", DropCaps: true, Env: []string{"ENTRYPOINT_WORKERS=4", "ENTRYPOINT_ROLLOUT=rolling"}})
	s.waitVersion("v1")
	s.begins()
	s.underLoad()
	s.put(s.binds("version=v2"))
	end := s.census()
	code, out := s.patientExec("reload")
	fewest, most, looks := end()
	t.Logf("at least %d served, at most %d processes, in %d looks", fewest, most, looks)
	if code != 0 || fewest < 4 || most > 5 {
		t.Errorf("reload: %d, at least %d served, at most %d processes\n%s", code, fewest, most, out)
	}
	s.wantOne(2, 4)
	s.lossless()
}
