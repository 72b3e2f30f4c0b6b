//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// Judging the candidate. Each case runs with an app that inherits its sockets, and with one that binds them by itself.

// judging is one case.
type judging struct {
	name string
	run  func(t *testing.T, e engine.Engine, own bool)
}

func TestJudge(t *testing.T) {
	judge(t, "unshare", []judging{
		{"shares", shares},
		{"networks", networks},
		{"smoke-http", smokeHTTP},
		{"smoke-http-ipv6", smokeHTTP6},
		{"smoke-http-unix", smokeUnix},
		{"smoke-http-shared", smokeShared},
		{"smoke-exec", smokeExec},
		{"smoke-grpc", smokeGRPC},
		{"smoke-tcp", smokeTCP},
		{"fails-in-canary", failsInCanary},
		{"fails-in-bake", failsInBake},
		{"by-hand", byHand},
		{"meanwhile", meanwhile},
		{"stop-in-canary", stopInCanary},
		{"stop-in-bake", stopInBake},
		{"active-killed", activeKilled},
		{"shared-refuses", sharedRefuses},
		{"hangs", activeHangs},
		{"sick", activeSick},
		{"exits", activeExits},
		{"starves", activeStarves},
		{"check-hangs", checkHangs},
	})
}

// TestJudgeDocker is one case of each kind under a real engine, with its seccomp profile and capabilities.
func TestJudgeDocker(t *testing.T) {
	judge(t, "docker", []judging{{"smoke-http", smokeHTTP}, {"fails-in-bake", failsInBake}, {"hangs", activeHangs}})
}

func judge(t *testing.T, engines string, cases []judging) {
	var rows []row
	for _, c := range cases {
		rows = append(rows,
			row{c.name + "/inherited", func(t *testing.T, e engine.Engine) { c.run(t, e, false) }},
			row{c.name + "/transparent", func(t *testing.T, e engine.Engine) { c.run(t, e, true) }})
	}
	table(t, engines, rows)
}

// trial is a scene whose app has its sockets one way or the other.
type trial struct {
	*scene
	own       bool
	addresses []string // as in ENTRYPOINT_LISTEN
}

// newTrial has one TCP address, and starts nothing.
func newTrial(t *testing.T, own bool) *trial {
	t.Helper()
	j := &trial{scene: &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}, own: own}
	j.addresses = []string{"tcp://" + j.addr}
	return j
}

// settings are those of an app that finds its sockets.
func (j *trial) settings(more string) string {
	if !j.own {
		return "witness=true " + more
	}
	return "witness=true ready=false listen=" + strings.ReplaceAll(strings.Join(j.addresses, ","), "://", ":") + " " + more
}

func (j *trial) put(settings string) { j.t.Helper(); j.scene.put(j.settings(settings)) }

// begin starts version v1. HERE in the environment is the trial's address.
func (j *trial) begin(e engine.Engine, settings string, env ...string) {
	j.t.Helper()
	j.beginSpec(e, settings, engine.Spec{Env: env})
}

func (j *trial) beginSpec(e engine.Engine, settings string, spec engine.Spec) {
	j.t.Helper()
	for i := range spec.Env {
		spec.Env[i] = strings.ReplaceAll(spec.Env[i], "HERE", j.addr)
	}
	if !j.own {
		spec.Env = append(spec.Env, "ENTRYPOINT_LISTEN="+strings.Join(j.addresses, ","))
	}
	j.start(e, j.settings("version=v1 "+settings), spec)
	j.waitStatus("generation 1 serves", func(st status) bool { return st.State == "serving" && st.Active == 1 })
}

// pending is a command of ours that is not over.
type pending struct {
	s    *scene
	done chan struct{}
	out  bytes.Buffer
	code int
	err  error
	end  time.Time
}

// during begins a command that waits for something that the test is about to do, however long that takes; it ends with the test.
func (s *scene) during(args ...string) *pending {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &pending{s: s, done: make(chan struct{})}
	cmd := s.c.Command(ctx, append([]string{"/entrypoint"}, args...)...)
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.WaitDelay = time.Second // what it runs inside is killed with the container only
	must(s, cmd.Start())
	go func() {
		defer cancel()
		defer close(p.done)
		p.err = cmd.Wait()
		p.end = time.Now()
		p.code = cmd.ProcessState.ExitCode()
	}()
	s.t.Cleanup(func() { cancel(); <-p.done })
	return p
}

// await waits for its end.
func (p *pending) await() (code int) {
	p.s.t.Helper()
	select {
	case <-p.done:
	case <-limit(p.s.t).Done():
		p.s.t.Fatalf("the command is not over")
	}
	return p.code
}

// result waits for its end, and wants that code and these words.
func (p *pending) result(want int, says ...string) {
	p.s.t.Helper()
	if code := p.await(); code != want {
		p.s.t.Errorf("exit code %d (%v), want %d: %s", code, p.err, want, p.out.String())
	}
	for _, words := range says {
		if !strings.Contains(p.out.String(), words) {
			p.s.t.Errorf("it does not say %q: %s", words, p.out.String())
		}
	}
}

// try puts a version in place, and returns when it has that state on its way to being active.
func (j *trial) try(settings, state string) (*pending, status) {
	j.t.Helper()
	j.put(settings)
	p := j.during("reload")
	return p, j.waitStatus("the candidate is "+state, func(st status) bool { return st.Candidate != 0 && st.stateOf(st.Candidate) == state })
}

// pidOf is the process of a generation, as the container sees it.
func (st status) pidOf(gen int) int {
	for _, g := range st.Generations {
		if g.Gen == gen {
			return g.PID
		}
	}
	return 0
}

// host is the number that this machine gives a process of the container.
func (s *scene) host(pid int) int {
	s.t.Helper()
	p := s.hostOf(pid)
	if p == 0 {
		s.t.Fatalf("process %d is not in the container", pid)
	}
	return p
}

// hostOf is the same; 0: it is not there.
func (s *scene) hostOf(pid int) int {
	for _, p := range s.processes() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		_, after, _ := strings.Cut(string(text), "\nNSpid:")
		line, _, _ := strings.Cut(after, "\n")
		if numbers := strings.Fields(line); len(numbers) > 0 && numbers[len(numbers)-1] == strconv.Itoa(pid) {
			return p
		}
	}
	return 0
}

// processes are all of the container, as this machine numbers them.
func (s *scene) processes() []int {
	name := func(pid string) string { link, _ := os.Readlink("/proc/" + pid + "/ns/pid"); return link }
	own := name(strconv.Itoa(s.c.PID()))
	all, _ := filepath.Glob("/proc/[0-9]*")
	var list []int
	for _, dir := range all {
		if pid := filepath.Base(dir); own != "" && name(pid) == own {
			n, _ := strconv.Atoi(pid)
			list = append(list, n)
		}
	}
	return list
}

// pinned is a client whom every canary here sends to the candidate.
const pinned = "127.9.0.1"

// from asks the app once from an address of the machine, and tells which version answered.
func (s *scene) from(address, path string) (string, error) {
	return load.Ask(load.Options{Address: s.addr, From: address, Timeout: patience}, path)
}

// meets wants a version to answer a client.
func (s *scene) meets(address, version string) {
	s.t.Helper()
	if got, err := s.from(address, "/"); err != nil || got != version {
		s.t.Errorf("a client from %s meets %q (%v), want %s", address, got, err, version)
	}
}

// dialogue is a connection on which one request was answered: it was accepted.
type dialogue struct {
	s      *scene
	conn   net.Conn
	reader *bufio.Reader
}

func (s *scene) dialogue(from string) *dialogue {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := d.Dial("tcp", s.addr)
	must(s, err)
	s.t.Cleanup(func() { conn.Close() })
	return &dialogue{s, conn, bufio.NewReader(conn)}
}

func (d *dialogue) send(path string) {
	d.s.t.Helper()
	_, err := fmt.Fprintf(d.conn, "GET %s HTTP/1.1\r\nHost: dialogue\r\n\r\n", path)
	must(d.s, err)
}

// hold sends a request, and returns once the app has it: it answers when the gate is opened.
func (d *dialogue) hold(name string) *gate {
	d.s.t.Helper()
	d.send("/hold?gate=" + name)
	g := d.s.gate(name)
	g.reached()
	return g
}

// answer wants an answer of a version.
func (d *dialogue) answer(version string) {
	d.s.t.Helper()
	must(d.s, d.conn.SetDeadline(time.Now().Add(patience)))
	r, err := http.ReadResponse(d.reader, nil)
	if err != nil {
		d.s.t.Errorf("no answer of %s: %v", version, err)
		return
	}
	defer r.Body.Close()
	if text, err := io.ReadAll(r.Body); err != nil || !strings.HasPrefix(string(text), version+" ") {
		d.s.t.Errorf("%q (%v) is no answer of %s", text, err, version)
	}
}

// clients is how many clients clientele has: so many connections are accepted at most at one time.
const clients = 7

// clientele starts the usual clients, who have more patience than the steps of a trial take.
func (s *scene) clientele() {
	s.t.Helper()
	s.load = load.Start(context.Background(), load.Options{
		Address: s.addr, Fresh: 3, Slow: 2, Reused: clients - 5,
		SlowPath: "/slow?ms=60", Pace: 2 * time.Millisecond, Timeout: 2 * patience,
	})
	s.answered(20)
}

// lostOnlyAccepted ends the load: a process was killed at that moment, which a command told of, and only what it had accepted may be lost.
func (s *scene) lostOnlyAccepted(at time.Time, told *pending) {
	s.t.Helper()
	s.answered(50)
	r := s.load.Stop()
	s.load = nil
	for class, kinds := range r.Failed {
		for kind := range kinds {
			if kind != load.Reset && kind != load.EOF {
				s.t.Errorf("%s: %s requests were not accepted, and lost", class, kind)
			}
		}
	}
	lost := r.Failures(load.Fresh, load.Slow, load.Reused)
	late := r.LastFailed.Sub(at)
	if lost > clients || r.LastFailed.After(told.end) {
		s.t.Errorf("%d clients lost %d requests, the last one begun %v after the crash:\n%s", clients, lost, late, strings.Join(r.Samples, "\n"))
	}
	if lost == 0 {
		late = 0
	}
	s.t.Logf("%d of %d requests were lost with the process (%s); the last of them began %v after the crash",
		lost, r.Requests(), r.FailedText(), late.Round(10*time.Microsecond))
}

// orders runs a client of the init, and wants this code and these words.
func (s *scene) orders(want int, says string, args ...string) {
	s.t.Helper()
	if code, out := s.exec(args...); code != want || !strings.Contains(out, says) {
		s.t.Errorf("%v: exit code %d, want %d; it says %q, want %q", args, code, want, out, says)
	}
}
