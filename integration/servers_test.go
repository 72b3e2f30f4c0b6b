//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// realServer is a server that people run, with its own reader of one of the inherit
// protocols.
type realServer struct {
	name    string
	needs   string   // a program of the machine
	check   []string // a command that succeeds when all is there
	files   []string // of testdata, for /app
	command []string
	env     []string
}

var realServers = []realServer{
	{name: "go-listen-fds", command: []string{server, "linger=0s"}},
	{name: "gunicorn", needs: "gunicorn", files: []string{"app.py"}, check: []string{"/usr/bin/gunicorn", "--version"},
		command: []string{"/usr/bin/gunicorn", "--workers", "2", "--threads", "4", "--log-level", "warning", "--chdir", "/app", "app:app"}},
	{name: "node-fd", needs: "node", files: []string{"server.js"}, command: []string{"node", "/app/server.js", "{fd}"}},
	{name: "perl-server-starter", needs: "perl", files: []string{"server.pl"}, check: []string{"/usr/bin/perl", "-MServer::Starter", "-e1"},
		command: []string{"/usr/bin/perl", "/app/server.pl"}},
	{name: "libsystemd", needs: "python3", files: []string{"server.py"}, check: []string{"/usr/bin/python3", "-c", "import systemd.daemon"},
		command: []string{"/usr/bin/python3", "/app/server.py"}, env: []string{"ENTRYPOINT_READY=notify"}},
}

// backToBack lets many old generations drain at once: these tests swap faster than
// their slow requests end, and one drain too many would be cut short.
const backToBack = "ENTRYPOINT_MAX_DRAINING=50"

// serverSwaps is how often each server is swapped under load.
const serverSwaps = 20

// TestServers swaps real servers under load: no connection may be refused, reset or
// lost, whether the old generation ends politely or is KILLed after its drain.
func TestServers(t *testing.T) {
	var rows []row
	for _, r := range realServers {
		rows = append(rows,
			row{r.name + "/polite", func(t *testing.T, e engine.Engine) { r.swapOften(t, e) }},
			row{r.name + "/killed", func(t *testing.T, e engine.Engine) { r.swapOften(t, e, "ENTRYPOINT_STOP_SIGNAL=KILL") }})
	}
	table(t, "unshare", rows)
}

func (r realServer) swapOften(t *testing.T, e engine.Engine, env ...string) {
	r.available(t)
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{
		HostTools: true, Command: r.command, Files: r.appFiles(s),
		Env: append(append([]string{"ENTRYPOINT_LISTEN=tcp://" + s.addr, backToBack}, r.env...), env...),
	})
	s.eventually("the first generation answers", func() error { _, err := s.get("/"); return err })
	s.underLoad()
	for i := range serverSwaps {
		version := fmt.Sprint("v", i+2)
		s.release(version)
		s.reload(0)
		if err := s.load.WaitVersion(limit(t), version); err != nil {
			t.Fatal(err)
		}
	}
	s.settled()
	report := s.lossless()
	t.Logf("%d swaps, %d versions, reused failures %d", serverSwaps, len(report.Versions), report.Failures(load.Reused))
}

// available fails the test where the server was required, else skips it.
func (r realServer) available(t *testing.T) {
	t.Helper()
	err := error(nil)
	if r.needs != "" {
		_, err = exec.LookPath(r.needs)
	}
	if err == nil && r.check != nil {
		err = exec.Command(r.check[0], r.check[1:]...).Run()
	}
	switch {
	case err == nil:
	case len(required) > 0:
		t.Fatalf("%s is required: %v", r.name, err)
	default:
		t.Skipf("SKIPPED: no %s: %v", r.name, err)
	}
}

func (r realServer) appFiles(s *scene) map[string]string {
	files := map[string]string{"/app/version": s.versionFile("v1")}
	for _, name := range r.files {
		files["/app/"+name] = filepath.Join("testdata", name)
	}
	return files
}

func (s *scene) versionFile(version string) string {
	s.t.Helper()
	file := filepath.Join(s.dir, "version")
	must(s, os.WriteFile(file, []byte(version), 0o644))
	return file
}

// release puts a new version of the Go server and of the interpreted ones in place.
func (s *scene) release(version string) {
	s.t.Helper()
	must(s, s.c.Put(s.versionFile(version), "/app/version"))
	s.put("version=" + version + " linger=0s")
}

// TestServersInDocker is one of them in a real engine.
func TestServersInDocker(t *testing.T) {
	t.Parallel()
	on(t, "docker", func(t *testing.T, e engine.Engine) {
		for _, r := range realServers {
			if strings.HasPrefix(r.name, "gunicorn") {
				r.swapOften(t, e)
			}
		}
	})
}
