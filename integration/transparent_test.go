//go:build integration

package integration

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// TestTransparent: what the system around an app that binds by itself allows or not.
func TestTransparent(t *testing.T) {
	table(t, "unshare", []row{
		{"user-low-port", ownLowPort},
		{"exec-of-user", ownSetpriv},
		{"loop-of-crashes", ownRestarted},
		{"polled", ownPolled},
		{"foreign-abi", ownForeign},
		{"no-filter", ownNoFilter},
		{"no-filter-demanded", ownNoFilterDemanded},
	})
}

// TestTransparentExclusive: one after the other behind the socket that the app has bound.
func TestTransparentExclusive(t *testing.T) {
	table(t, "unshare docker", []row{{"swap", ownExclusive}})
}

// own starts an app that binds its address by itself.
func own(t *testing.T, e engine.Engine, settings string, env ...string) *scene {
	t.Helper()
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, s.binds(settings), engine.Spec{Env: env})
	s.waitVersion(versionOf(settings))
	s.settled()
	return s
}

// learned wants the scene's address among the held ones as one that was not configured.
func (s *scene) learned(st status, mode string) {
	s.t.Helper()
	if len(st.Sockets) != 1 || !st.Sockets[0].Learned || st.Sockets[0].Mode != mode || st.Sockets[0].Address != "tcp://"+s.addr {
		s.t.Errorf("sockets %+v", st.Sockets)
	}
}

// ownExclusive: one after the other behind the held socket; clients wait.
func ownExclusive(t *testing.T, e engine.Engine) {
	s := own(t, e, "version=v1", "ENTRYPOINT_HANDOFF=exclusive")
	s.underLoad()
	s.put(s.binds("version=v2 boot=200ms"))
	s.reload(0)
	s.waitVersion("v2")
	s.answered(30)
	r := s.lossless()
	if r.Versions["v1"].LastBegun.After(r.Versions["v2"].First) {
		t.Errorf("v1 answered what was asked %v after v2 had begun", r.Versions["v1"].LastBegun.Sub(r.Versions["v2"].First))
	}
	st := s.settled()
	s.learned(st, "shared")
	if st.Handoff != "exclusive" || st.Sockets[0].Why == "" {
		t.Errorf("hand-off %q, sockets %+v", st.Handoff, st.Sockets)
	}
}

// lowAddress is one below 1024 that nobody has.
func lowAddress(t *testing.T) string {
	t.Helper()
	for port := 1023; port > 600; port-- {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port below 1024")
	return ""
}

// ownLowPort: an app that is nobody has a port that only root may bind.
func ownLowPort(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: lowAddress(t), dir: t.TempDir()}
	s.start(e, s.binds("version=v1"), engine.Spec{Env: []string{"ENTRYPOINT_USER=65534:65534"}})
	s.swapsAsNobody()
}

// swapsAsNobody swaps an app that has no rights.
func (s *scene) swapsAsNobody() {
	s.t.Helper()
	s.waitVersion("v1")
	if st := s.state(); st.UID != 65534 {
		s.t.Errorf("the app is %d", st.UID)
	}
	s.settled()
	s.underLoad()
	s.put(s.binds("version=v2"))
	s.reload(0)
	s.waitVersion("v2")
	s.learned(s.settled(), "steered")
	s.lossless()
}

// ownSetpriv: the command becomes another user by exec, as gosu, su-exec and setpriv do.
func ownSetpriv(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, s.binds("version=v1"), engine.Spec{
		HostTools: true, Command: []string{"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", server},
	})
	s.swapsAsNobody()
}

// ownRestarted: the app crashes again and again under load. Requests in flight die with it; whoever comes meanwhile waits.
func ownRestarted(t *testing.T, e engine.Engine) {
	s := own(t, e, "version=v1", "ENTRYPOINT_RESTART=always", "ENTRYPOINT_RESTART_DELAY=50ms")
	s.underLoad()
	for i := range 3 {
		before, err := s.who()
		must(s, err)
		_, _ = s.get("/exit?code=-9")
		s.eventually("another process answers", func() error {
			w, err := s.who()
			if err == nil && w.pid == before.pid {
				err = fmt.Errorf("pid %d is still there after crash %d", w.pid, i+1)
			}
			return err
		})
		s.waitStatus("it serves", func(st status) bool { return st.State == "serving" })
	}
	s.answered(30)
	r := s.load.Stop()
	s.load = nil
	for class, kinds := range r.Failed {
		if kinds["refused"] > 0 || kinds["timeout"] > 0 {
			t.Errorf("%s: %v: %v", class, r, r.Samples)
		}
	}
	s.learned(s.waitStatus("it serves", func(st status) bool { return st.State == "serving" && st.Restarts == 3 }), "steered")
}

// ownPolled: a socket in an epoll set cannot be replaced. The app keeps it, the old generation is stopped first, and
// status says why.
func ownPolled(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{
		HostTools: true, Command: []string{"/usr/bin/python3", "/app/polled.py", s.addr},
		Files: map[string]string{"/app/polled.py": "testdata/polled.py", "/app/version": s.versionFile("v1")},
	})
	s.settled()
	for _, version := range []string{"v2", "v3"} {
		must(s, s.c.Put(s.versionFile(version), "/app/version"))
		s.reload(0)
		s.waitVersion(version)
	}
	st := s.settled()
	if len(st.Sockets) != 0 || len(st.NotHeld) != 1 || st.NotHeld[0].Address != "tcp://"+s.addr || !strings.Contains(st.NotHeld[0].Why, "epoll") {
		t.Errorf("sockets %+v, not held %+v", st.Sockets, st.NotHeld)
	}
	if !strings.Contains(st.HandoffWhy, "the old generation stops first") || st.live() != 1 {
		t.Errorf("hand-off %q: %q", st.Handoff, st.HandoffWhy)
	}
}

// underNotifier is an init inside a seccomp filter that has a notification descriptor already.
var underNotifier = []string{"/testapp", "tool", "notified", "/entrypoint"}

// ownNoFilter: where our filter cannot be, sockets are handed over as ever, and it is said once why.
func ownNoFilter(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{Init: underNotifier, Env: []string{"ENTRYPOINT_LISTEN=tcp://" + s.addr}})
	s.waitVersion("v1")
	s.settled()
	s.underLoad()
	s.put("version=v2")
	s.reload(0)
	st := s.settled()
	s.lossless()
	const why = "the container runtime uses one itself"
	if st.Handoff != "inherit" || !strings.Contains(st.HandoffWhy, why) {
		t.Errorf("hand-off %q: %q", st.Handoff, st.HandoffWhy)
	}
	if n := strings.Count(s.c.Logs(), why); n != 1 {
		t.Errorf("it is said %d times:\n%s", n, s.c.Logs())
	}
}

func ownNoFilterDemanded(t *testing.T, e engine.Engine) {
	code, logs := runTo(t, e, engine.Spec{
		Init: underNotifier, Command: []string{"/testapp", "listen=none"}, Env: []string{"ENTRYPOINT_HANDOFF=transparent"},
	})
	if code != 1 || !strings.Contains(logs, "the container runtime uses one itself") || !strings.Contains(logs, "auto takes what works") {
		t.Errorf("code %d\n%s", code, logs)
	}
}

// ownForeign: what binds by the calls of another ABI is not seen until it counts as ready. It is noticed then, and the next
// generation comes after it.
func ownForeign(t *testing.T, e engine.Engine) {
	if runtime.GOARCH != "amd64" {
		t.Log("there is no second ABI here")
		return
	}
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	program := filepath.Join(s.dir, "foreign")
	if out, err := exec.Command("gcc", "-O1", "-o", program, "testdata/foreign.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	_, port, _ := strings.Cut(s.addr, ":")
	s.start(e, "", engine.Spec{
		HostTools: true, Command: []string{"/app/foreign", port, "v1"}, Files: map[string]string{"/app/foreign": program},
	})
	first := s.waitVersion("v1")
	st := s.settled()
	if len(st.NotHeld) != 1 || st.NotHeld[0].Address != "tcp://"+s.addr || !strings.Contains(st.HandoffWhy, "the old generation stops first") {
		t.Errorf("not held %+v, why %q", st.NotHeld, st.HandoffWhy)
	}
	s.reload(0)
	if second := s.waitVersion("v1"); second.pid == first.pid {
		t.Errorf("pid %d answers still", second.pid)
	}
	s.settled()
}
