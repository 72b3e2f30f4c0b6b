//go:build integration

package integration

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// TestTransparent: apps that open their own sockets.
func TestTransparent(t *testing.T) {
	table(t, "unshare", []row{
		{"declared", ownDeclared},
		{"inherits-and-binds", ownAndInherited},
		{"user-low-port", ownLowPort},
		{"exec-of-user", ownSetpriv},
		{"never-listens", ownNeverListens},
		{"crashes", ownCrashes},
		{"sick", ownSick},
		{"loop-of-crashes", ownRestarted},
		{"polled", ownPolled},
		{"no-filter", ownNoFilter},
		{"no-filter-demanded", ownNoFilterDemanded},
	})
	t.Run("everywhere", func(t *testing.T) {
		table(t, "unshare docker", []row{
			{"auto", ownSwapped},
			{"exclusive", ownExclusive},
		})
	})
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

// binds are settings of an app that binds the scene's address and does not say that it is ready.
func (s *scene) binds(settings string) string { return settings + " ready=false listen=tcp:" + s.addr }

// learned wants the scene's address among the held ones as one that was not configured.
func (s *scene) learned(st status, mode string) {
	s.t.Helper()
	if len(st.Sockets) != 1 || !st.Sockets[0].Learned || st.Sockets[0].Mode != mode || st.Sockets[0].Address != "tcp://"+s.addr {
		s.t.Errorf("sockets %+v", st.Sockets)
	}
}

// ownSwapped is the plain case, and what status says of it.
func ownSwapped(t *testing.T, e engine.Engine) {
	s := own(t, e, "version=v1")
	s.underLoad()
	for _, version := range []string{"v2", "v3"} {
		s.put(s.binds("version=" + version))
		s.reload(0)
		if w, err := s.who(); err != nil || w.version != version {
			t.Errorf("after reload said done, %q answers (%v)", w.version, err)
		}
	}
	st := s.settled()
	s.lossless()
	s.learned(st, "steered")
	if st.Handoff != "transparent" || len(st.NotHeld) != 0 {
		t.Errorf("hand-off %q (%s), not held %+v", st.Handoff, st.HandoffWhy, st.NotHeld)
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
	if r.Versions["v1"].Last.After(r.Versions["v2"].First) {
		t.Errorf("v1 answered %v after v2 had begun", r.Versions["v1"].Last.Sub(r.Versions["v2"].First))
	}
	st := s.settled()
	s.learned(st, "shared")
	if st.Handoff != "exclusive" || st.Sockets[0].Why == "" {
		t.Errorf("hand-off %q, sockets %+v", st.Handoff, st.Sockets)
	}
}

// ownDeclared: the address is in ENTRYPOINT_LISTEN, and the app binds it all the same.
func ownDeclared(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, s.binds("version=v1"), engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr}})
	s.waitVersion("v1")
	s.settled()
	s.underLoad()
	s.put(s.binds("version=v2"))
	s.reload(0)
	s.waitVersion("v2")
	st := s.settled()
	s.lossless()
	if len(st.Sockets) != 1 || st.Sockets[0].Learned || st.Sockets[0].Name != "web" || st.Handoff != "transparent" {
		t.Errorf("hand-off %q, sockets %+v", st.Handoff, st.Sockets)
	}
}

// ownAndInherited: one address is handed over, another one the app binds; both are swapped.
func ownAndInherited(t *testing.T, e engine.Engine) {
	second := freeAddress(t)
	settings := " ready=false listen=systemd+tcp:" + second
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1"+settings, engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=tcp://" + s.addr}})
	s.waitVersion("v1")
	s.settled()
	s.underLoad()
	other := load.Start(t.Context(), load.Options{Address: second, Fresh: 3, Pace: 2 * time.Millisecond})
	if err := other.WaitVersion(limit(t), "v1"); err != nil {
		t.Fatal(err)
	}
	s.put("version=v2" + settings)
	s.reload(0)
	s.waitVersion("v2")
	if err := other.WaitVersion(limit(t), "v2"); err != nil {
		t.Fatal(err)
	}
	st := s.settled()
	s.lossless()
	if r := other.Stop(); r.Failures(load.Fresh) > 0 {
		t.Errorf("the second address: %s %v", r, r.Samples)
	}
	if len(st.Sockets) != 2 || st.Sockets[0].Learned || !st.Sockets[1].Learned {
		t.Errorf("sockets %+v", st.Sockets)
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
	s.waitVersion("v1")
	if st := s.state(); st.UID != 65534 {
		t.Errorf("the app is %d", st.UID)
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
	s.waitVersion("v1")
	if st := s.state(); st.UID != 65534 {
		t.Errorf("the app is %d", st.UID)
	}
	s.settled()
	s.underLoad()
	s.put(s.binds("version=v2"))
	s.reload(0)
	s.waitVersion("v2")
	s.learned(s.settled(), "steered")
	s.lossless()
}

// refused puts a candidate that is no good: it must be refused with these words, and no client may have met it.
func (s *scene) refused(settings, says string) {
	s.t.Helper()
	s.underLoad()
	s.put(settings)
	if out := s.reload(1); !strings.Contains(out, says) {
		s.t.Errorf("the refusal does not say %q: %s", says, out)
	}
	s.answered(50)
	r := s.lossless()
	for version := range r.Versions {
		if version != "v1" {
			s.t.Errorf("%s answered %d clients", version, r.Versions[version].Answers)
		}
	}
	if w, err := s.who(); err != nil || w.version != "v1" {
		s.t.Errorf("%q answers, %v", w.version, err)
	}
	s.learned(s.settled(), "steered")
}

func ownNeverListens(t *testing.T, e engine.Engine) {
	s := own(t, e, "version=v1", "ENTRYPOINT_START_TIMEOUT=2s")
	s.refused("version=v2 ready=false listen=none", "it does not listen on tcp://"+s.addr)
}

// ownCrashes: the candidate listens, and dies before its probation is over.
func ownCrashes(t *testing.T, e engine.Engine) {
	s := own(t, e, "version=v1", "ENTRYPOINT_READY=delay:2s")
	s.refused(s.binds("version=v2 crash=300ms crashcode=9"), "code 9")
}

// ownSick: it listens and accepts, but its own page says that it is not well.
func ownSick(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, s.binds("version=v1"), engine.Spec{
		Env: []string{"ENTRYPOINT_START_TIMEOUT=2s", "ENTRYPOINT_READY=http://" + s.addr + "/healthz"},
	})
	s.settled()
	s.refused(s.binds("version=v2 health=500"), "answered 500")
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

// TestTransparentHealth: the page that ownSick relies on is the app's own.
func TestTransparentHealth(t *testing.T) {
	t.Parallel()
	on(t, "unshare", func(t *testing.T, e engine.Engine) {
		s := own(t, e, "version=v1 health=503")
		r, err := client.Get("http://" + s.addr + "/healthz")
		must(s, err)
		if r.Body.Close(); r.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("it answers %s", r.Status)
		}
	})
}
