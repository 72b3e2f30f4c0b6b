//go:build integration

package integration

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
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

func TestProxy(t *testing.T) {
	table(t, "unshare", []row{
		{"storm-go", proxyStormGo},
		{"storm-python", proxyStormPython},
		{"storm-python-http10", proxyStormPython10},
		{"storm-node", proxyStormNode},
		{"storm-tcp", proxyStormTCP},
		{"websocket", proxyWebSocket},
		{"grpc", proxyGRPC},
		{"killed-helper", proxyKilledHelper},
		{"haproxy-behind", proxyHAProxy},
		{"canary", proxyCanary},
		{"smoke-refused", proxySmokeRefused},
		{"health-and-rollback", proxyBake},
		{"restart-waits", proxyRestart},
		{"unprivileged", proxyUnprivileged},
		{"environment", proxyEnvironment},
		{"stop", proxyStop},
		{"workers-roll", proxyRoll},
		{"workers-blue-green", proxyBlueGreen},
		{"workers-scale", proxyScale},
		{"workers-tcp", proxyRollTCP},
		{"apps", proxyApps},
		{"upgrade", proxyUpgrade},
	})
}

// TestProxyDocker is the mode under a real engine, with its seccomp profile and capabilities, and hardened.
func TestProxyDocker(t *testing.T) {
	table(t, "docker", []row{{"storm", proxyStormGo}, {"hardened", proxyHardened}})
}

// proxySwaps is how many swaps a storm has: PROXY_SWAPS, or what a test run has time for.
func proxySwaps(few int) int {
	if n, err := strconv.Atoi(os.Getenv("PROXY_SWAPS")); err == nil {
		return n
	}
	return few
}

// proxied starts a container whose app is behind the proxy.
func proxied(t *testing.T, e engine.Engine, settings string, spec engine.Spec) *scene {
	t.Helper()
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	spec.Env = append([]string{"ENTRYPOINT_HANDOFF=proxy", "ENTRYPOINT_LISTEN=web=tcp://" + s.addr, "ENTRYPOINT_PROXY_RANGE=" + portRange(), backToBack}, spec.Env...)
	if spec.Command == nil {
		spec.Command = []string{server, "listen=tcp:127.0.0.1:{port}", "ready=false"}
	}
	s.start(e, settings, spec)
	s.waitStatus("generation 1 serves", func(st status) bool { return st.State == "serving" && st.Active == 1 })
	return s
}

var nextRange atomic.Int64

// portRange is one of its own for each container, for those of a test run share a network; above what freeAddress gives away, and below what the
// kernel takes for clients.
func portRange() string {
	from := 30050 + nextRange.Add(1)%26*100
	return fmt.Sprintf("%d-%d", from, from+99)
}

// posters are clients that keep their connections, send POSTs, and never try again.
func (s *scene) posters(n int) {
	s.t.Helper()
	s.load = load.Start(s.t.Context(), load.Options{Address: s.addr, Reused: n, Post: 300, Timeout: 3 * patience, Duration: 20 * time.Minute, Pace: time.Millisecond})
	s.answered(n)
}

// stormed swaps under the load, and fails for every request lost. Answers of each generation are waited for.
func (s *scene) stormed(swaps int, put func(generation int)) {
	s.t.Helper()
	for i := range swaps {
		if put != nil {
			put(i + 2)
		}
		s.reload(0)
		s.answered(50)
	}
	s.settled()
	s.unlost()
}

// unlost ends the load, and fails for every request lost, on whichever connection.
func (s *scene) unlost() {
	s.t.Helper()
	r := s.load.Stop()
	s.load = nil
	s.t.Logf("%s", r)
	if n := r.Failures(load.Fresh, load.Slow, load.Reused); n > 0 || r.Requests() < 50 {
		s.t.Errorf("%d lost: %s\n%s", n, r, strings.Join(r.Samples, "\n"))
	}
}

// proxyStormGo: a Go server that ends at TERM at once, and knows nothing of us.
func proxyStormGo(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1 term=now", engine.Spec{})
	s.posters(64)
	s.stormed(proxySwaps(20), func(n int) { s.put(fmt.Sprintf("version=v%d term=now", n)) })
}

func proxyStormPython(t *testing.T, e engine.Engine) {
	s := proxiedFile(t, e, "proxied.py", "/usr/bin/python3", "/app/proxied.py", "HTTP/1.1")
	s.posters(64)
	s.stormed(proxySwaps(6), nil)
}

// proxyStormPython10: a server that closes after each answer.
func proxyStormPython10(t *testing.T, e engine.Engine) {
	s := proxiedFile(t, e, "proxied.py", "/usr/bin/python3", "/app/proxied.py", "HTTP/1.0")
	s.posters(16)
	s.stormed(proxySwaps(4), nil)
}

func proxyStormNode(t *testing.T, e engine.Engine) {
	s := proxiedFile(t, e, "proxied.js", "/usr/bin/node", "/app/proxied.js", "{port}")
	s.posters(64)
	s.stormed(proxySwaps(6), nil)
}

// proxiedFile runs a file of testdata with the machine's own tools.
func proxiedFile(t *testing.T, e engine.Engine, file string, command ...string) *scene {
	t.Helper()
	needs(t, command[0])
	return proxied(t, e, "version=v0", engine.Spec{
		HostTools: true, Files: map[string]string{"/app/" + file: "testdata/" + file}, Command: command, Env: []string{"PYTHONDONTWRITEBYTECODE=1"},
	})
}

func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := os.Stat(program); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
}

// proxyStormTCP: connections that are carried, to a server that ends at TERM at once.
func proxyStormTCP(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1 term=now", engine.Spec{Env: []string{"ENTRYPOINT_PROXY=tcp"}})
	s.load = load.Start(t.Context(), load.Options{Address: s.addr, Fresh: 16, Slow: 4, SlowPath: "/slow?ms=60", Timeout: 3 * patience, Duration: 20 * time.Minute, Pace: time.Millisecond})
	s.answered(50)
	s.stormed(proxySwaps(20), func(n int) { s.put(fmt.Sprintf("version=v%d term=now", n)) })
}

// frame is a WebSocket message of a client, or of a server without its mask.
func frame(text string) []byte {
	mask := []byte{1, 2, 3, 4}
	b := append([]byte{0x81, 0x80 | byte(len(text))}, mask...)
	for i := range len(text) {
		b = append(b, text[i]^mask[i%4])
	}
	return b
}

func readFrame(r *bufio.Reader) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	b := make([]byte, head[1]&0x7f)
	_, err := io.ReadFull(r, b)
	return string(b), err
}

// proxyWebSocket: a WebSocket stays with the old generation as long as its client likes, and new ones go to the new one.
func proxyWebSocket(t *testing.T, e engine.Engine) {
	if exec.Command("/usr/bin/python3", "-c", "import aiohttp").Run() != nil {
		t.Skip("SKIPPED: python3-aiohttp is not installed")
	}
	s := proxiedFile(t, e, "proxied_ws.py", "/usr/bin/python3", "/app/proxied_ws.py")
	open := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", s.addr)
		must(s, err)
		t.Cleanup(func() { c.Close() })
		must(s, c.SetDeadline(time.Now().Add(3*patience)))
		key := make([]byte, 16)
		rand.Read(key)
		fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", base64.StdEncoding.EncodeToString(key))
		r := bufio.NewReader(c)
		a, err := http.ReadResponse(r, nil)
		must(s, err)
		if a.StatusCode != 101 {
			t.Fatalf("upgrade: %s", a.Status)
		}
		return c, r
	}
	say := func(c net.Conn, r *bufio.Reader, want string) {
		t.Helper()
		_, err := c.Write(frame("hello"))
		must(s, err)
		if got, err := readFrame(r); err != nil || got != want+" hello" {
			t.Fatalf("%q %v, want %s", got, err, want)
		}
	}
	c, r := open()
	say(c, r, "v1")
	s.reload(0)
	say(c, r, "v1")
	s.waitStatus("the old one drains, with its WebSocket", func(st status) bool {
		return st.stateOf(1) == "draining" && len(st.Proxy.Generations) > 0 && st.Proxy.Generations[0].Gen == 1 && st.Proxy.Generations[0].Upgrades == 1
	})
	c2, r2 := open()
	say(c2, r2, "v2")
	say(c, r, "v1")
	if st, err := s.status(); err != nil || st.stateOf(1) != "draining" {
		t.Errorf("with a WebSocket open the old generation is %s (%v)", st.stateOf(1), err)
	}
	c.Close()
	s.settled()
	say(c2, r2, "v2")
}

// proxyGRPC: a stream stays where it is, and the next call on the same connection goes to the new generation.
func proxyGRPC(t *testing.T, e engine.Engine) {
	if exec.Command("/usr/bin/python3", "-c", "import grpc").Run() != nil {
		t.Skip("SKIPPED: python3-grpcio is not installed")
	}
	s := proxiedFile(t, e, "proxied_grpc.py", "/usr/bin/python3", "/app/proxied_grpc.py", "server", "{port}")
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/proxied_grpc.py", "client", s.addr)
	in, err := cmd.StdinPipe()
	must(s, err)
	out, err := cmd.StdoutPipe()
	must(s, err)
	cmd.Stderr = os.Stderr
	must(s, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	lines := bufio.NewReader(out)
	say := func(word, want string) {
		t.Helper()
		if word != "" {
			fmt.Fprintln(in, word)
		}
		if got, err := lines.ReadString('\n'); err != nil || got != want+"\n" {
			t.Fatalf("%q: %q %v, want %q", word, got, err, want)
		}
	}
	say("one", "v1 one")
	say("call", "v1 alone")
	s.reload(0)
	say("two", "v1 two")
	say("call", "v2 alone")
	say("three", "v1 three")
	in.Close()
	say("", "StatusCode.OK")
	s.settled()
}

// proxyPID is the helper's process, as this machine numbers it; 0: there is none.
func (s *scene) proxyPID() int {
	if all := s.proxies(); len(all) > 0 {
		return all[0]
	}
	return 0
}

// proxies are all that run, also those that were replaced.
func (s *scene) proxies() (all []int) {
	for _, pid := range s.processes() {
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasPrefix(string(text), "entrypoint:proxy") {
			all = append(all, pid)
		}
	}
	return all
}

// proxyKilledHelper: what goes through the helper dies with it, and no new connection is refused.
func proxyKilledHelper(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1", engine.Spec{})
	s.load = load.Start(t.Context(), load.Options{Address: s.addr, Fresh: 6, Slow: 2, SlowPath: "/slow?ms=60", Timeout: 3 * patience, Pace: time.Millisecond})
	s.answered(50)
	for range 2 {
		pid := s.proxyPID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill of %d: %v", pid, err)
		}
		s.eventually("there is another one", func() error {
			if now := s.proxyPID(); now == 0 || now == pid {
				return fmt.Errorf("process %d", now)
			}
			return nil
		})
		s.answered(50)
	}
	s.put("version=v2")
	s.reload(0)
	s.answered(50)
	r := s.load.Stop()
	s.load = nil
	t.Logf("%s", r)
	for class, kinds := range r.Failed {
		for kind, n := range kinds {
			if kind != load.Reset && kind != load.EOF || n > 2*8 {
				t.Errorf("%d %s requests: %s", n, class, kind)
			}
		}
	}
	if r.Versions["v2"].Answers == 0 {
		t.Error("the new helper was not told of the swap")
	}
	if st, err := s.status(); err != nil || st.Proxy.Restarts != 2 {
		t.Errorf("%+v %v", st.Proxy, err)
	}
}

// haproxyPage answers with the address that the PROXY protocol told.
const haproxyPage = `global
	nbthread 1
defaults
	mode http
	timeout client 10s
	timeout connect 10s
	timeout server 10s
frontend f
	bind 127.0.0.1:"${PORT}" accept-proxy
	http-request return status 200 content-type text/plain lf-string "%[src] to %[dst_port]\n"
`

// proxyHAProxy: an app that speaks the PROXY protocol learns who its clients are.
func proxyHAProxy(t *testing.T, e engine.Engine) {
	needs(t, "/usr/sbin/haproxy")
	for _, version := range []string{"v1", "v2"} {
		config := filepath.Join(t.TempDir(), "haproxy.cfg")
		if err := os.WriteFile(config, []byte(haproxyPage), 0o644); err != nil {
			t.Fatal(err)
		}
		s := proxied(t, e, "version=v0", engine.Spec{
			HostTools: true, Files: map[string]string{"/app/haproxy.cfg": config},
			Command: []string{"/usr/sbin/haproxy", "-db", "-f", "/app/haproxy.cfg"},
			Env:     []string{"ENTRYPOINT_PROXY=tcp", "ENTRYPOINT_PROXY_PROTOCOL=" + version},
		})
		_, port, _ := net.SplitHostPort(s.addr)
		for _, from := range []string{"127.0.0.1", "127.7.8.9"} {
			got, err := load.Ask(load.Options{Address: s.addr, From: from, Timeout: patience, Version: func(body string) (string, bool) { return strings.TrimSpace(body), true }}, "/")
			if err != nil || got != from+" to "+port {
				t.Errorf("%s: %q %v", version, got, err)
			}
		}
	}
}

// proxyCanary: so many of the connections as configured, networks, and the way through to the end.
func proxyCanary(t *testing.T, e engine.Engine) {
	for _, kind := range []string{"http", "tcp"} {
		s := proxied(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_PROXY=" + kind, "ENTRYPOINT_CANARY=5%,25%+" + pinned}})
		j := &trial{scene: s}
		s.put("version=v2")
		p := s.during("reload")
		s.waitStatus("the candidate is in its canary", func(st status) bool { return st.Candidate != 0 && st.stateOf(st.Candidate) == "canary" })
		j.counts(s.addr, connections()/2, 0.05)
		s.orders(0, "25%", "promote")
		j.counts(s.addr, connections()/4, 0.25)
		for range 30 {
			s.meets(pinned, "v2")
		}
		s.orders(0, "is active", "promote")
		p.result(0)
		s.waitVersion("v2")
		s.put("version=v3")
		p = s.during("reload")
		s.waitStatus("the candidate is in its canary", func(st status) bool { return st.Candidate != 0 && st.stateOf(st.Candidate) == "canary" })
		s.orders(0, "", "abort")
		p.result(5)
		for range 30 {
			s.meets(pinned, "v2")
		}
	}
}

// proxySmokeRefused: a candidate that fails its smoke test has not met one client, and the test has met it.
func proxySmokeRefused(t *testing.T, e engine.Engine) {
	s := proxiedWith(t, e, "version=v1 witness=true", func(addr string) []string {
		return []string{"ENTRYPOINT_SMOKE=http://" + addr + "/healthz;timeout=15s;header=X-Probe: 1,exec:[\"/testapp\",\"tool\",\"true\"]"}
	})
	s.clientele()
	s.put("version=v2 witness=true status=500")
	code, out := s.exec("reload")
	if code != 1 || !strings.Contains(out, "answered 500") {
		t.Errorf("reload: %d %s", code, out)
	}
	s.answered(50)
	s.lossless()
	waitLog(t, s.c, "gen 2: reached by a probe")
	logs := s.c.Logs()
	if strings.Contains(logs, "gen 2: reached by a client") {
		t.Error("the candidate was not reached by the probe alone")
	}
	if !strings.Contains(logs, "gen 1: reached by a client") {
		t.Error("no client was seen at all")
	}
}

// proxiedWith is proxied with an environment that needs the address.
func proxiedWith(t *testing.T, e engine.Engine, settings string, env func(addr string) []string) *scene {
	t.Helper()
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	spec := engine.Spec{Command: []string{server, "listen=tcp:127.0.0.1:{port}", "ready=false"}}
	spec.Env = append(env(s.addr), "ENTRYPOINT_HANDOFF=proxy", "ENTRYPOINT_LISTEN=web=tcp://"+s.addr, "ENTRYPOINT_PROXY_RANGE="+portRange())
	s.start(e, settings, spec)
	s.waitStatus("generation 1 serves", func(st status) bool { return st.State == "serving" && st.Active == 1 })
	return s
}

// proxyBake: a candidate that is unhealthy while it has all of the traffic loses it again, and clients notice no more than its answers.
func proxyBake(t *testing.T, e engine.Engine) {
	s := proxiedWith(t, e, "version=v1", func(addr string) []string {
		return []string{"ENTRYPOINT_BAKE=10m", "ENTRYPOINT_HEALTH=http://" + addr + "/healthz", "ENTRYPOINT_HEALTH_INTERVAL=100ms", "ENTRYPOINT_HEALTH_FAILURES=2"}
	})
	s.clientele()
	s.put("version=v2")
	p := s.during("reload")
	s.waitVersion("v2")
	s.waitStatus("it bakes", func(st status) bool { return st.Candidate != 0 && st.stateOf(st.Candidate) == "baking" })
	if _, err := s.get("/set?health=500"); err != nil {
		t.Fatal(err)
	}
	p.result(5, "rolled back")
	s.waitVersion("v1")
	r := s.lossless()
	if n := r.Failures(load.Reused); n > 0 {
		t.Errorf("%d requests were lost on kept connections: %s", n, r)
	}
}

// proxyRestart: while the app is stopped and started again, requests wait.
func proxyRestart(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1 boot=300ms", engine.Spec{})
	s.posters(16)
	for range 3 {
		if code, out := s.exec("restart"); code != 0 {
			t.Errorf("restart: %d %s", code, out)
		}
		s.answered(50)
	}
	r := s.load.Stop()
	s.load = nil
	t.Logf("%s", r)
	if n := r.Failures(load.Fresh, load.Reused); n > 0 {
		t.Errorf("%d lost: %s\n%s", n, r, strings.Join(r.Samples, "\n"))
	}
}

// proxyUnprivileged: the helper has no capability, is not root, and has no more descriptors than it needs.
func proxyUnprivileged(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1", engine.Spec{})
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.proxyPID()))
	must(s, err)
	for _, want := range []string{"\nUid:\t65534\t", "\nCapEff:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n", "\nNoNewPrivs:\t1\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.proxyPID()))
	must(s, err)
	if strings.Contains(string(env), "ENTRYPOINT") || strings.Contains(string(env), "TESTAPP") {
		t.Errorf("the helper has the app's environment: %q", env)
	}
	st, err := s.status()
	must(s, err)
	if _, page := s.exec("status"); !strings.Contains(page, "http, pid ") {
		t.Errorf("status for people does not tell of the proxy: %s", page)
	}
	if st.Handoff != "proxy" || st.Proxy == nil || st.Proxy.Kind != "http" || len(st.Sockets) != 1 || st.Sockets[0].Mode != "proxied" {
		t.Errorf("status %+v", st)
	}
}

// proxyEnvironment: each generation is told a port of its own, in every way, and no socket; a PORT of the container is the service's.
func proxyEnvironment(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1", engine.Spec{
		Env:     []string{"PORT=8080", "ENTRYPOINT_APP_ENV=URL=http://127.0.0.1:{port}/{generation}"},
		Command: []string{server, "listen=tcp:127.0.0.1:{port:web}", "ready=false"},
	})
	seen := map[string]bool{}
	for i := range 3 {
		a := s.state()
		port := a.env("PORT")
		if seen[port] || a.env("URL") != fmt.Sprintf("http://127.0.0.1:%s/%d", port, i+1) || a.Args[1] != "listen=tcp:127.0.0.1:"+port || a.env("LISTEN_FDS") != "" {
			t.Errorf("generation %d: args %v env %v", i+1, a.Args, a.Env)
		}
		seen[port] = true
		strays(t, a)
		s.reload(0)
	}
	s = proxied(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_APP_ENV=PORT=17"}})
	if a := s.state(); a.env("PORT") != "17" {
		t.Errorf("PORT is %q", a.env("PORT"))
	}
}

// proxyStop: a stop ends app and helper, with the app's status.
func proxyStop(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1 exit=5", engine.Spec{})
	s.posters(4)
	s.signal(syscall.SIGTERM)
	s.waitExit(5)
	r := s.load.Stop()
	s.load = nil
	t.Logf("%s", r)
}

func proxyHardened(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1 term=now", engine.Spec{User: "1234:1234", DropCaps: true, ReadOnly: true})
	s.posters(16)
	s.stormed(5, nil)
}

// everyone waits until n processes answer, each of which says that it is this version. It keeps what it connected until the end: where connections
// are carried, the worker that has the fewest gets the next one, so that one with more of the load's than the others would never be asked.
func (s *scene) everyone(n int, version string) {
	s.t.Helper()
	seen := map[int]bool{}
	var held []*http.Client
	defer func() {
		for _, own := range held {
			own.CloseIdleConnections()
		}
	}()
	s.eventually(fmt.Sprintf("%d workers of %s answer", n, version), func() error {
		own := &http.Client{Transport: &http.Transport{}, Timeout: patience}
		held = append(held, own)
		w, err := s.whoTo(own)
		if err != nil {
			return err
		}
		if w.version != version {
			s.t.Fatalf("%s answers", w.version)
		}
		if seen[w.pid] = true; len(seen) != n {
			return fmt.Errorf("%d so far", len(seen))
		}
		return nil
	})
}

// proxyRoll: workers behind the proxy are rolled one by one under clients that keep their connections; a failure in the middle takes all back.
func proxyRoll(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1 term=now", engine.Spec{Env: []string{"ENTRYPOINT_WORKERS=4", "ENTRYPOINT_ROLLOUT=rolling"}})
	s.everyone(4, "v1")
	s.posters(32)
	s.put("version=v2 term=now")
	if code, out := s.patientExec("reload"); code != 0 || strings.Count(out, "rolled") != 3 {
		t.Fatalf("reload: %d\n%s", code, out)
	}
	s.everyone(4, "v2")
	s.answered(50)
	s.put("version=v3 term=now fail-worker=2")
	if code, out := s.patientExec("reload"); code != 5 || !strings.Contains(out, "worker 2") {
		t.Errorf("reload: %d\n%s", code, out)
	}
	s.everyone(4, "v2")
	s.answered(50)
	s.unlost()
}

// proxyRollTCP: the same, carried without a look into it.
func proxyRollTCP(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_PROXY=tcp", "ENTRYPOINT_WORKERS=4", "ENTRYPOINT_ROLLOUT=rolling"}})
	s.everyone(4, "v1")
	s.underLoad()
	s.put("version=v2")
	if code, out := s.patientExec("reload"); code != 0 {
		t.Fatalf("reload: %d\n%s", code, out)
	}
	s.everyone(4, "v2")
	s.answered(50)
	s.lossless()
}

// proxyBlueGreen: all workers at once.
func proxyBlueGreen(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1 term=now", engine.Spec{Env: []string{"ENTRYPOINT_WORKERS=3"}})
	s.posters(32)
	s.stormed(4, func(n int) { s.put(fmt.Sprintf("version=v%d term=now", n)) })
	s.everyone(3, "v5")
}

// proxyScale: one, six, two.
func proxyScale(t *testing.T, e engine.Engine) {
	s := proxied(t, e, "version=v1 term=now", engine.Spec{})
	s.posters(32)
	for _, n := range []int{6, 2} {
		if code, out := s.patientExec("scale", strconv.Itoa(n)); code != 0 {
			t.Fatalf("scale %d: %d\n%s", n, code, out)
		}
		s.everyone(n, "v1")
		s.answered(50)
	}
	s.stormed(1, func(int) { s.put("version=v2 term=now") })
	s.everyone(2, "v2")
}

// proxyApps: two apps, each behind a proxy of its own, from the same range of ports.
func proxyApps(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	other := &scene{t: t, addr: freeAddress(t)}
	s.start(e, "version=v1 term=now", engine.Spec{HostTools: true, Command: []string{}, Env: []string{
		"ENTRYPOINT_APPS=web,api", "ENTRYPOINT_HANDOFF=proxy", "ENTRYPOINT_PROXY_RANGE=" + portRange(),
		"ENTRYPOINT_APP_WEB_COMMAND=" + server + " listen=tcp:127.0.0.1:{port} ready=false", "ENTRYPOINT_APP_WEB_LISTEN=web=tcp://" + s.addr,
		"ENTRYPOINT_APP_API_COMMAND=" + server + " listen=tcp:127.0.0.1:{port} ready=false", "ENTRYPOINT_APP_API_LISTEN=api=tcp://" + other.addr,
	}})
	s.waitOf("web", "serves", serving(1))
	s.waitOf("api", "serves", serving(1))
	s.posters(16)
	other.posters(16)
	for _, app := range []string{"web", "api", "web"} {
		s.wants(0, "reload", app)
		s.answered(50)
		other.answered(50)
	}
	s.waitOf("web", "is settled", serving(3))
	other.unlost()
	s.unlost()
}

// proxyUpgrade: the proxy is started anew from another program under clients that keep their connections, and none of them notices; what does not
// work, and what is not the program that was meant, changes nothing.
func proxyUpgrade(t *testing.T, e engine.Engine) {
	for _, kind := range []string{"http", "tcp"} {
		s := proxied(t, e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_PROXY=" + kind, "ENTRYPOINT_DRAIN_TIMEOUT=10m"}})
		if kind == "http" {
			s.posters(32)
		} else {
			s.underLoad()
		}
		pid := s.proxyRun()
		for range 3 {
			if code, out := s.exec("upgrade"); code != 0 {
				t.Fatalf("upgrade: %d %s", code, out)
			}
			s.answered(50)
			if now := s.proxyRun(); now == pid {
				t.Errorf("the proxy is process %d still", pid)
			} else {
				pid = now
			}
		}
		for _, bad := range [][]string{{"upgrade", "/testapp"}, {"upgrade", "/proc/self/status"}, {"upgrade", "--sha256", strings.Repeat("0", 64)}} {
			if code, out := s.patientExec(bad...); code != 1 || s.proxyRun() != pid {
				t.Errorf("%v: %d %s", bad, code, out)
			}
		}
		s.put("version=v2")
		s.reload(0)
		s.answered(50)
		if kind == "http" {
			s.unlost()
		} else {
			s.lossless()
		}
		s.eventually("the ones before have finished", func() error { // over TCP when their clients have
			if n := len(s.proxies()); n != 1 {
				return fmt.Errorf("%d proxies", n)
			}
			return nil
		})
	}
	s := playSpec(t, e, "version=v1", engine.Spec{})
	if code, out := s.exec("upgrade"); code != 1 || !strings.Contains(out, "there is no proxy") {
		t.Errorf("%d %s", code, out)
	}
}

// proxyRun is the process that takes new connections, by its number inside.
func (s *scene) proxyRun() int {
	s.t.Helper()
	var st struct{ Proxy struct{ PID int } }
	code, out := s.exec("status", "--json")
	if err := json.Unmarshal([]byte(out), &st); code != 0 || err != nil {
		s.t.Fatalf("status: %d, %v: %s", code, err, out)
	}
	return st.Proxy.PID
}
