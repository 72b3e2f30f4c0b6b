//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// TestApps runs several apps in one container.
func TestApps(t *testing.T) {
	table(t, "unshare docker", []row{
		{"crash-loop", appsCrashLoop},
		{"crash-loop-to-the-end", appsGiveUp},
		{"swap-one", appsSwapOne},
		{"hup-swaps-all", appsHup},
		{"stop-in-order", appsStop},
		{"main-ends", appsMainEnds},
		{"same-address", appsSameAddress},
		{"transparent", appsTransparent},
		{"metrics", appsMetrics},
		{"faults", appsFaults},
	})
}

// several starts a container with the apps web, under test, and jobs. The stamped program is both, unless env says otherwise.
func several(t *testing.T, e engine.Engine, settings string, env ...string) *scene {
	t.Helper()
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, settings, engine.Spec{HostTools: true, Command: []string{}, Env: append([]string{
		"ENTRYPOINT_APPS=web,jobs", "ENTRYPOINT_APP_WEB_COMMAND=" + server, "ENTRYPOINT_APP_WEB_LISTEN=web=tcp://" + s.addr,
		`ENTRYPOINT_APP_JOBS_COMMAND=["/app/server","listen=none"]`, "ENTRYPOINT_APP_JOBS_READY=notify",
	}, env...)})
	s.waitVersion(versionOf(settings))
	return s
}

// of is the status of one app.
func (s *scene) of(app string) (status, error) {
	code, out := s.exec("status", "--json", app)
	if code != 0 {
		return status{}, fmt.Errorf("code %d: %s", code, out)
	}
	var st status
	return st, json.Unmarshal([]byte(out), &st)
}

func (s *scene) waitOf(app, what string, ok func(status) bool) (st status) {
	s.t.Helper()
	s.eventually(app+": "+what, func() (err error) {
		if st, err = s.of(app); err == nil && !ok(st) {
			err = fmt.Errorf("status %+v", st)
		}
		return err
	})
	return st
}

func serving(gen int) func(status) bool {
	return func(st status) bool { return st.State == "serving" && st.Active == gen && st.live() == 1 }
}

// wants asks about an app and wants this exit code.
func (s *scene) wants(want int, args ...string) string {
	s.t.Helper()
	code, out := s.exec(args...)
	if code != want {
		s.t.Fatalf("%v: exit code %d, want %d:\n%s", args, code, want, out)
	}
	return out
}

// appsCrashLoop: one crashes again and again, the other one does not notice, and can be swapped meanwhile.
func appsCrashLoop(t *testing.T, e engine.Engine) {
	s := several(t, e, "version=v1", `ENTRYPOINT_APP_JOBS_COMMAND=["/bin/sh","-c","exit 3"]`,
		"ENTRYPOINT_APP_JOBS_RESTART=always", "ENTRYPOINT_APP_JOBS_RESTART_DELAY=10ms", "ENTRYPOINT_APP_JOBS_RESTART_MAX_DELAY=20ms",
		"ENTRYPOINT_APP_JOBS_START_LIMIT_INTERVAL=0")
	s.underLoad()
	before := s.waitOf("web", "serves", serving(1))
	s.waitOf("jobs", "crashes", func(st status) bool { return st.Restarts > 20 })
	after, err := s.of("web")
	if err != nil || after.Active != 1 || after.Restarts != 0 || after.Generations[0].PID != before.Generations[0].PID {
		t.Errorf("web: %+v, %v", after, err)
	}
	s.put("version=v2")
	s.wants(0, "reload", "web")
	s.waitVersion("v2")
	s.waitOf("jobs", "crashes on", func(st status) bool { return st.Restarts > after.Restarts+5 })
	if out := s.wants(1, "health"); !strings.Contains(out, `app "jobs"`) {
		t.Errorf("health: %s", out)
	}
	s.wants(0, "health", "web")
	s.lossless()
}

// appsGiveUp: an app that may not be started again waits for somebody, and the container goes on.
func appsGiveUp(t *testing.T, e engine.Engine) {
	s := several(t, e, "version=v1", `ENTRYPOINT_APP_JOBS_COMMAND=["/bin/sh","-c","exit 3"]`, "ENTRYPOINT_APP_JOBS_READY=")
	s.underLoad()
	s.waitOf("jobs", "waits", func(st status) bool { return st.State == "waiting" })
	s.waitOf("web", "serves", serving(1))
	s.wants(0, "run", "--app", "jobs", "--", server, "listen=none")
	s.waitOf("jobs", "serves", func(st status) bool { return st.State == "serving" })
	s.wants(0, "health")
	s.lossless()
}

// appsSwapOne: each is swapped by itself, and must be named.
func appsSwapOne(t *testing.T, e engine.Engine) {
	s := several(t, e, "version=v1")
	s.underLoad()
	s.waitOf("web", "serves", serving(1))
	s.waitOf("jobs", "serves", serving(1))
	if out := s.wants(2, "reload"); !strings.Contains(out, "name one of web, jobs") {
		t.Errorf("reload: %s", out)
	}
	if out := s.wants(2, "reload", "cron"); !strings.Contains(out, `no app "cron" here`) {
		t.Errorf("reload: %s", out)
	}
	s.put("version=v2")
	s.wants(0, "reload", "jobs")
	s.waitOf("jobs", "is swapped", serving(2))
	s.waitOf("web", "is not", serving(1))
	s.wants(0, "reload", "web")
	s.waitVersion("v2")
	s.waitOf("web", "is swapped", serving(2))
	s.wants(0, "rollback", "web")
	s.waitVersion("v1")
	s.wants(0, "restart", "jobs")
	s.waitOf("jobs", "is restarted", serving(3))
	s.wants(0, "signal", "--app", "jobs", "USR1")
	waitLog(t, s.c, "gen 3: signal 10")
	if out := s.wants(0, "status"); !strings.Contains(out, "web") || !strings.Contains(out, "jobs") {
		t.Errorf("status: %s", out)
	}
	s.lossless()
}

func appsHup(t *testing.T, e engine.Engine) {
	s := several(t, e, "version=v1")
	s.underLoad()
	s.waitOf("web", "serves", serving(1))
	s.waitOf("jobs", "serves", serving(1))
	s.signal(syscall.SIGHUP)
	s.waitOf("web", "is swapped", serving(2))
	s.waitOf("jobs", "is swapped", serving(2))
	s.lossless()
}

// appsStop: the last one ends first, and the container ends as the main one.
func appsStop(t *testing.T, e engine.Engine) {
	s := several(t, e, "version=v1 exit=5", "ENTRYPOINT_APP_JOBS_APP_ENV=TESTAPP=exit=6")
	s.waitOf("web", "serves", serving(1))
	s.waitOf("jobs", "serves", serving(1))
	s.signal(syscall.SIGTERM)
	s.waitExit(5)
	var order []string
	for _, line := range strings.Split(s.c.Logs(), "\n") {
		var l struct{ Msg, App, To string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "generation" && l.To == "exited" {
			order = append(order, l.App)
		}
	}
	if !slices.Equal(order, []string{"jobs", "web"}) {
		t.Errorf("they ended in the order %q", order)
	}
}

// appsMainEnds: the end of the main one, which need not be the first one, is that of the container.
func appsMainEnds(t *testing.T, e engine.Engine) {
	s := several(t, e, "version=v1", "ENTRYPOINT_MAIN=jobs")
	jobs := s.waitOf("jobs", "serves", serving(1))
	web := s.waitOf("web", "serves", serving(1))
	if _, err := s.c.Command(limit(t), "/bin/kill", "-KILL", fmt.Sprint(web.Generations[0].PID)).CombinedOutput(); err != nil {
		t.Fatal(err)
	}
	s.waitOf("web", "waits", func(st status) bool { return st.State == "waiting" })
	if _, err := s.c.Command(limit(t), "/bin/kill", "-KILL", fmt.Sprint(jobs.Generations[0].PID)).CombinedOutput(); err != nil {
		t.Fatal(err)
	}
	s.waitExit(137)
}

// appsSameAddress: what the one binds the other one is refused, and the first one keeps all of its clients.
func appsSameAddress(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1 listen=tcp:"+s.addr, engine.Spec{Env: []string{
		"ENTRYPOINT_APPS=web,jobs", `ENTRYPOINT_APP_JOBS_COMMAND=["/bin/sh","-c","while [ ! -e /app/go ]; do sleep 0.05; done; exec /app/server version=v9"]`,
	}, HostTools: true})
	s.waitVersion("v1")
	s.waitOf("web", "serves", func(st status) bool { return st.State == "serving" })
	s.underLoad()
	must(s, s.c.Put("testdata/go", "/app/go"))
	waitLog(t, s.c, "address already in use")
	s.waitOf("jobs", "gave up", func(st status) bool { return st.State == "waiting" })
	s.wants(0, "reload", "web")
	s.waitOf("web", "is swapped", serving(2))
	s.lossless()
}

// appsTransparent: both bind by themselves.
func appsTransparent(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	other := &scene{t: t, addr: freeAddress(t)}
	s.start(e, "version=v1", engine.Spec{Env: []string{
		"ENTRYPOINT_APPS=web,jobs", "ENTRYPOINT_APP_WEB_COMMAND=/app/server listen=tcp:" + s.addr,
		"ENTRYPOINT_APP_JOBS_COMMAND=/app/server listen=tcp:" + other.addr,
	}, Command: []string{}})
	s.waitVersion("v1")
	other.waitVersion("v1")
	s.waitOf("web", "serves", serving(1))
	s.waitOf("jobs", "serves", serving(1))
	s.underLoad()
	other.underLoad()
	for i := range 3 {
		s.wants(0, "reload", "web")
		s.wants(0, "reload", "jobs")
		s.waitOf("web", "is swapped", serving(i+2))
		s.waitOf("jobs", "is swapped", serving(i+2))
	}
	s.lossless()
	other.lossless()
}

// appsFaults: all of them at once, and nothing starts.
func appsFaults(t *testing.T, e engine.Engine) {
	c, err := e.Start(limit(t), engine.Spec{Command: []string{server}, Files: map[string]string{server: (&scene{t: t, dir: t.TempDir()}).stamp("version=v1")},
		Env: []string{"ENTRYPOINT_APPS=web,jobs", "ENTRYPOINT_APP_WEB_LISTN=x", "ENTRYPOINT_APP_JOBS_GRACE=3s"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	code, err := c.Wait(limit(t))
	for _, want := range []string{"did you mean ENTRYPOINT_APP_WEB_LISTEN?", "it is the container's, the same for all apps: set ENTRYPOINT_GRACE"} {
		if code != 78 || !strings.Contains(c.Logs(), want) {
			t.Errorf("code %d (%v), want %q: %s", code, err, want, c.Logs())
		}
	}
}

// appsMetrics: every app has its samples, and the container is ready while all are, and no stop was asked for.
func appsMetrics(t *testing.T, e engine.Engine) {
	face := &scene{t: t, addr: freeAddress(t)}
	s := several(t, e, "version=v1", "ENTRYPOINT_METRICS=tcp://"+face.addr, "ENTRYPOINT_SHUTDOWN_DELAY=1h")
	s.waitOf("web", "serves", serving(1))
	jobs := s.waitOf("jobs", "serves", serving(1))
	is := func(path, what string) func() error {
		return func() error {
			text, err := face.get(path)
			if err == nil && !strings.Contains(text, what) {
				err = fmt.Errorf("%s has no %q: %.300s", path, what, text)
			}
			return err
		}
	}
	face.eventually("it is ready", is("/readyz", "ready"))
	for _, app := range []string{"web", "jobs"} {
		face.eventually(app+" is measured", is("/metrics", `entrypoint_app_up{app="`+app+`"} 1`))
	}
	face.eventually("both have a status", is("/status", `"app": "jobs"`))
	if _, err := s.c.Command(limit(t), "/bin/kill", "-KILL", fmt.Sprint(jobs.Generations[0].PID)).CombinedOutput(); err != nil {
		t.Fatal(err)
	}
	face.eventually("one is not", is("/readyz", `app "jobs"`))
	s.wants(0, "reload", "jobs")
	face.eventually("it is ready again", is("/readyz", "ready\n"))
	s.signal(syscall.SIGTERM)
	face.eventually("it is to stop", is("/readyz", "stopping"))
	if _, err := s.who(); err != nil {
		t.Errorf("during the delay: %v", err)
	}
	s.signal(syscall.SIGTERM)
	if _, err := s.c.Wait(limit(t)); err != nil {
		t.Error(err)
	}
}
