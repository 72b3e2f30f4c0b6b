//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// patience is how long a test waits for anything that should happen at once. It is
// wide, because the machine may be busy; nothing waits for it on a good day. INTEGRATION_PATIENCE
// sets another one, for rows that shall fail.
var patience = patienceOf(os.Getenv("INTEGRATION_PATIENCE"))

func patienceOf(text string) time.Duration {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d
	}
	return 45 * time.Second
}

func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, fmt.Errorf("waited %v", patience))
	t.Cleanup(cancel)
	return ctx
}

// scene is one container with a stamped test app at /app/server, and its load.
type scene struct {
	begun bool // the first generation is active
	t     *testing.T
	c     engine.Container
	addr  string
	load  *load.Load
	dir   string // of stamped binaries
}

// server is the app's path in every container.
const server = "/app/server"

// play starts a container whose app is the test app with these settings. The init
// holds one TCP address; env adds to its environment.
func play(t *testing.T, e engine.Engine, settings string, env ...string) *scene {
	t.Helper()
	return playSpec(t, e, settings, engine.Spec{Env: env})
}

func playSpec(t *testing.T, e engine.Engine, settings string, spec engine.Spec) *scene {
	t.Helper()
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	spec.Env = append([]string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr}, spec.Env...)
	s.start(e, settings, spec)
	if strings.Contains(settings, "fail=") || strings.Contains(settings, "hang=") {
		return s
	}
	s.waitVersion(versionOf(settings))
	return s
}

// start runs a Spec with the stamped app, and takes everything down after the test.
func (s *scene) start(e engine.Engine, settings string, spec engine.Spec) {
	s.t.Helper()
	if spec.Files == nil {
		spec.Files = map[string]string{}
	}
	spec.Files[server] = s.stamp(settings)
	if spec.Command == nil {
		spec.Command = []string{server}
	}
	c, err := e.Start(limit(s.t), spec)
	if err != nil {
		s.t.Fatalf("cannot start on %s: %v", e.Name(), err)
	}
	s.c = c
	s.t.Cleanup(func() {
		if s.load != nil {
			s.load.Stop()
		}
		if s.t.Failed() {
			showLog(s.t, c)
		}
		if err := c.Close(); err != nil {
			s.t.Errorf("cannot remove the container: %v", err)
		}
	})
}

// showLog shows the end of a container's log; with INTEGRATION_LOGS=DIR the whole of
// it is kept there.
func showLog(t *testing.T, c engine.Container) {
	logs := c.Logs()
	t.Logf("log of the container:\n%s", tail(logs, 60))
	if dir := os.Getenv("INTEGRATION_LOGS"); dir != "" {
		name := strings.ReplaceAll(t.Name(), "/", "_") + ".log"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(logs), 0o644); err != nil {
			t.Logf("cannot keep the log: %v", err)
		}
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func versionOf(settings string) string {
	for word := range strings.FieldsSeq(settings) {
		if v, ok := strings.CutPrefix(word, "version="); ok {
			return v
		}
	}
	return "v0"
}

// stamp makes a binary with these settings and returns its file.
func (s *scene) stamp(settings string) string {
	s.t.Helper()
	file := filepath.Join(s.dir, "server-"+versionOf(settings))
	if err := binaries.Stamp(file, settings); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// put makes the app in the container the test app with these settings.
func (s *scene) put(settings string) { s.t.Helper(); s.putFile(s.stamp(settings)) }

func (s *scene) putFile(file string) {
	s.t.Helper()
	if err := s.c.Put(file, server); err != nil {
		s.t.Fatalf("cannot put %s: %v", file, err)
	}
}

// nextPort hands out ports below the range that the kernel takes for clients, so no
// connection of a load generator can sit on one.
var nextPort atomic.Int64

func freeAddress(t *testing.T) string {
	t.Helper()
	nextPort.CompareAndSwap(0, 12000+int64(os.Getpid()*37%15000))
	for range 500 {
		port := 12000 + (nextPort.Add(1)-12000)%18000
		address := "127.0.0.1:" + strconv.FormatInt(port, 10)
		l, err := net.Listen("tcp", address)
		if err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// client makes a new connection for each request.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// get asks the app once.
func (s *scene) get(path string) (string, error) { return s.getBy(client, path) }

func (s *scene) getBy(c *http.Client, path string) (string, error) {
	r, err := c.Get("http://" + s.addr + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

// who is what the app says of itself.
type who struct {
	version string
	pid     int
	gen     int
}

func (s *scene) who() (who, error) { return s.whoTo(client) }

func (s *scene) whoTo(c *http.Client) (who, error) {
	text, err := s.getBy(c, "/")
	if err != nil {
		return who{}, err
	}
	var w who
	_, err = fmt.Sscanf(text, "%s %d %d", &w.version, &w.pid, &w.gen)
	return w, err
}

// eventually waits until ok says so; what is named in the failure, with the last
// reason that ok gave.
func (s *scene) eventually(what string, ok func() error) {
	s.t.Helper()
	ctx := limit(s.t)
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("not within %v: %s: %v", patience, what, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *scene) waitVersion(version string) who {
	s.t.Helper()
	var w who
	s.eventually("version "+version+" answers", func() (err error) {
		if w, err = s.who(); err == nil && w.version != version {
			err = fmt.Errorf("%s answers", w.version)
		}
		return err
	})
	return w
}

// exec runs the init's own binary inside, as `docker exec C /entrypoint …`.
func (s *scene) exec(args ...string) (code int, output string) {
	s.t.Helper()
	code, output, err := engine.Exec(limit(s.t), s.c, append([]string{"/entrypoint"}, args...)...)
	if err != nil {
		s.t.Fatalf("entrypoint %v: %v: %s", args, err, output)
	}
	return code, output
}

// reload asks for a swap and wants this exit code.
func (s *scene) reload(want int) string {
	s.t.Helper()
	s.begins()
	code, output := s.exec("reload")
	if code != want {
		s.t.Fatalf("reload: exit code %d, want %d:\n%s", code, want, output)
	}
	return output
}

// begins waits until the start is decided: the app may answer before that, and until then everybody else is told that the init is busy.
func (s *scene) begins() {
	s.t.Helper()
	if !s.begun {
		s.waitStatus("the start is decided", func(st status) bool { return st.State != "starting" })
		s.begun = true
	}
}

func (s *scene) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.c.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// swapRecord is one entry of the history in status.
type swapRecord struct {
	Cause    string
	From, To int
	Code     int
	Phase    string
	Text     string

	ElapsedMS int64 `json:"elapsed_ms"`
}

// status is what a program outside reads from `status --json`.
type status struct {
	State       string
	Command     []string
	Active      int
	Candidate   int
	PID         int
	Restarts    int
	Remembered  bool
	Generations []struct {
		Gen        int
		State      string
		PID        int
		Reason     string
		Exit       string
		StatusText string `json:"status_text"`
		SHA256     string
		Artifact   artifactFacts
	}
	Drift   bool
	Image   string `json:"image_sha256"`
	Kept    []struct{ Gen int }
	Memory  int64 `json:"artifact_memory"`
	Sockets []struct {
		Name, Address, Mode, Why string
		Learned                  bool
	}
	LastSwaps  []swapRecord `json:"last_swaps"`
	Handoff    string
	HandoffWhy string                          `json:"handoff_why"`
	NotHeld    []struct{ Address, Why string } `json:"not_held"`
	Reaped     struct {
		Children, Orphans uint64
	}
	Proxy *struct {
		Kind        string
		PID         int
		Restarts    int
		Clients     int
		Generations []struct{ Gen, Requests, Upgrades, Connections int }
	}
}

func (s *scene) status() (status, error) {
	cmd := s.c.Command(limit(s.t), "/entrypoint", "status", "--json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return status{}, fmt.Errorf("status: %w: %s", err, stderr.String())
	}
	var st status
	return st, json.Unmarshal(out, &st)
}

// waitStatus waits until the status is as wanted; ok returns what is not yet so.
func (s *scene) waitStatus(what string, ok func(status) bool) status {
	s.t.Helper()
	var st status
	s.eventually(what, func() (err error) {
		if st, err = s.status(); err == nil && !ok(st) {
			err = fmt.Errorf("status %+v", st)
		}
		return err
	})
	return st
}

// swaps are the swaps that were tried, without the first start.
func (st status) swaps() []swapRecord {
	var all []swapRecord
	for _, r := range st.LastSwaps {
		if r.From > 0 {
			all = append(all, r)
		}
	}
	return all
}

// live counts the generations whose process has not ended.
func (st status) live() int {
	n := 0
	for _, g := range st.Generations {
		if g.State != "exited" && g.State != "failed" || g.PID > 0 && g.Exit == "" {
			n++
		}
	}
	return n
}

func (st status) stateOf(gen int) string {
	for _, g := range st.Generations {
		if g.Gen == gen {
			return g.State
		}
	}
	return "gone"
}

// settled waits until only the active generation is left.
func (s *scene) settled() status {
	s.t.Helper()
	return s.waitStatus("only the active generation is left", func(st status) bool {
		return st.State == "serving" && st.Candidate == 0 && st.live() == 1
	})
}

// underLoad starts the usual mix of clients.
func (s *scene) underLoad() {
	s.t.Helper()
	s.load = load.Start(context.Background(), load.Options{
		Address: s.addr, Fresh: 3, Slow: 2, Reused: 2,
		SlowPath: "/slow?ms=60", Pace: 2 * time.Millisecond, Timeout: 10 * time.Second, Duration: 10 * time.Minute,
	})
	if err := s.load.WaitRequests(limit(s.t), 20); err != nil {
		s.t.Fatalf("the load gets no answers: %v: %v", err, s.load.Report().Samples)
	}
}

// lossless ends the load and fails the test for every request lost on a connection
// that had not answered before. Those on reused ones are shown.
func (s *scene) lossless() load.Report {
	s.t.Helper()
	r := s.load.Stop()
	s.load = nil
	if r.Failures(load.Fresh, load.Slow) > 0 || r.Requests() == 0 {
		s.t.Errorf("lost: %s\n%s", r, strings.Join(r.Samples, "\n"))
	}
	s.t.Logf("%s", r)
	return r
}

// answered waits until the load got more answers, so that something under way has
// seen traffic.
func (s *scene) answered(n int) {
	s.t.Helper()
	if err := s.load.WaitRequests(limit(s.t), n); err != nil {
		s.t.Fatalf("the load gets no answers: %v: %v", err, s.load.Report().Samples)
	}
}

// waitExit waits for the end of the container.
func (s *scene) waitExit(want int) {
	s.t.Helper()
	code, err := s.c.Wait(limit(s.t))
	if err != nil || code != want {
		s.t.Fatalf("the container exited with %d (%v), want %d", code, err, want)
	}
}

// background starts a command inside without waiting for it.
func (s *scene) background(args ...string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	if args[0] == "reload" {
		s.begins()
	}
	cmd := s.c.Command(limit(s.t), append([]string{"/entrypoint"}, args...)...)
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd, out
}
