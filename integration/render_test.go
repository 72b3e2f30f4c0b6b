//go:build integration

package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

func TestRender(t *testing.T) {
	table(t, "unshare", []row{
		{"nginx-follows", nginxFollows},
		{"nginx-follows-workers", nginxFollowsWorkers},
		{"refused", renderRefuses},
		{"faults", renderFaults},
	})
}

// balancer is the template of an nginx that goes to whichever generation is to serve.
const balancer = `daemon on; pid /tmp/nginx.pid; error_log /tmp/nginx.log; worker_processes 1;
events { worker_connections 1000; }
http {
	access_log off; client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
	upstream app {
{{- range .Workers}}
		server NET.{{.Generation}}:8080; # pid {{.PID}}, {{.State}}
{{- else}}
		server NET.255:8080 down;
{{- end}}
	}
	# {{range .Generations}}{{.Generation}} {{.State}}{{if .Serving}} serves{{end}}, {{end}}after {{.Event}}
	server {
		listen FRONT deferred;
		location / { proxy_pass http://app; proxy_next_upstream off; }
	}
}
`

// follow reloads the nginx and waits until no old worker of it is left: nothing of it goes to the old generation then.
const follow = `#!/bin/sh
[ -e /tmp/nginx.pid ] || exit 0
master=$(cat /tmp/nginx.pid)
old=$(cat /proc/$master/task/$master/children)
kill -HUP $master
for worker in $old; do
	while [ -e /proc/$worker ]; do sleep 0.02; done
done
`

// ownNet is a part of the loopback network that nobody else uses: the generation is the last number of an address.
func ownNet() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d", 10+pid>>8%200, pid&255)
}

// nginxFollows: the app listens on an address of its own for each generation, and the nginx before it is told by template and hook.
func nginxFollows(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.followed(e, strings.NewReplacer("NET", ownNet()).Replace(balancer), engine.Spec{
		Command: []string{server, "listen=tcp:" + ownNet() + ".{generation}:8080"},
		// What is held is only there so that generations overlap.
		Env: []string{"ENTRYPOINT_LISTEN=unix://@follow-" + ownNet(), "ENTRYPOINT_HANDOFF=inherit", "ENTRYPOINT_READY=notify"},
	})
	_, conf, err := engine.Exec(limit(t), s.c, "cat", "/tmp/nginx.conf")
	if st := s.settled(); err != nil || strings.Count(conf, "server "+ownNet()) != 1 || !strings.Contains(conf, fmt.Sprintf("server %s.%d:8080;", ownNet(), st.Active)) {
		t.Errorf("the last configuration (%v), generation %d being active:\n%s", err, st.Active, conf)
	}
}

// nginxFollowsWorkers: three workers, a port of ours each, and an nginx that goes to them past our own proxy.
func nginxFollowsWorkers(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.followed(e, strings.NewReplacer("NET.{{.Generation}}:8080", "{{.Address}}", "NET.255:8080", "127.0.0.1:9").Replace(balancer), engine.Spec{
		Command: []string{server, "listen=tcp:127.0.0.1:{port}", "ready=false"},
		Env: []string{"ENTRYPOINT_LISTEN=unix://@follow-ports-" + ownNet(), "ENTRYPOINT_HANDOFF=proxy", "ENTRYPOINT_PROXY_RANGE=" + portRange(),
			"ENTRYPOINT_WORKERS=3", backToBack},
	})
	_, conf, err := engine.Exec(limit(t), s.c, "cat", "/tmp/nginx.conf")
	if err != nil || strings.Count(conf, "server 127.0.0.1:") != 3 {
		t.Errorf("the last configuration (%v):\n%s", err, conf)
	}
}

// followed swaps an app 20 times under load behind an nginx that is rendered and reloaded.
func (s *scene) followed(e engine.Engine, template string, spec engine.Spec) {
	s.t.Helper()
	const swaps = 20
	template = strings.ReplaceAll(template, "FRONT", s.addr)
	files := map[string]string{"/app/nginx.tmpl": filepath.Join(s.dir, "nginx.tmpl"), "/hook": filepath.Join(s.dir, "hook")}
	must(s, os.WriteFile(files["/app/nginx.tmpl"], []byte(template), 0o644))
	must(s, os.WriteFile(files["/hook"], []byte(follow), 0o755))
	spec.HostTools, spec.Files = true, files
	spec.Env = append(spec.Env, "ENTRYPOINT_RENDER=/app/nginx.tmpl:/tmp/nginx.conf", "ENTRYPOINT_HOOK_PRE_PROMOTE=/hook", "ENTRYPOINT_HOOK_FAILED=/hook")
	s.start(e, "version=v0", spec)
	s.begins()
	runIn(s, "/usr/sbin/nginx", "-e", "/tmp/nginx.log", "-c", "/tmp/nginx.conf")
	s.waitVersion("v0")
	s.load = load.Start(context.Background(), load.Options{Address: s.addr, Fresh: 2, Slow: 2, SlowPath: "/slow?ms=60", Pace: 2 * time.Millisecond, Timeout: 10 * time.Second})
	kept := keepAlive(s, 4)
	for i := range swaps {
		if i == swaps/2 { // a candidate that does not work is nobody's upstream
			s.put("version=vX fail=3")
			s.reload(1)
		}
		version := fmt.Sprintf("v%d", i+1)
		s.put("version=" + version)
		s.reload(0)
		s.waitVersion(version)
		s.eventually("the keep-alive clients meet "+version, func() error { return kept.met(version) })
	}
	s.lossless()
	kept.stop(swaps)
}

// keptClients are clients with connections that stay, as browsers have them.
type keptClients struct {
	s         *scene
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	good, bad atomic.Int64
	mu        sync.Mutex
	versions  map[string]bool
	sample    string
}

func keepAlive(s *scene, n int) *keptClients {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keptClients{s: s, cancel: cancel, versions: map[string]bool{}}
	s.t.Cleanup(func() { cancel(); k.wg.Wait() })
	for range n {
		c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: patience}
		k.wg.Go(func() {
			for ctx.Err() == nil {
				k.once(ctx, c)
				time.Sleep(2 * time.Millisecond)
			}
			c.CloseIdleConnections()
		})
	}
	return k
}

func (k *keptClients) once(ctx context.Context, c *http.Client) {
	r, err := c.Get("http://" + k.s.addr + "/")
	var body []byte
	if err == nil {
		body, err = io.ReadAll(r.Body)
		r.Body.Close()
	}
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", r.StatusCode, body)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.bad.Add(1)
		k.sample = err.Error()
		return
	}
	k.good.Add(1)
	version, _, _ := strings.Cut(string(body), " ")
	k.versions[version] = true
}

// met tells whether one of them has met a version.
func (k *keptClients) met(version string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.versions[version] {
		return errAgain
	}
	return nil
}

// stop fails the test for every request that failed.
func (k *keptClients) stop(swaps int) {
	k.s.t.Helper()
	k.cancel()
	k.wg.Wait()
	k.s.t.Logf("keep-alive clients: %d requests, %d failed, %d versions seen", k.good.Load(), k.bad.Load(), len(k.versions))
	if k.bad.Load() > 0 || k.good.Load() == 0 || len(k.versions) < swaps {
		k.s.t.Errorf("keep-alive clients: %d requests, %d failed (%s), versions %v", k.good.Load(), k.bad.Load(), k.sample, k.versions)
	}
}

func renderRefuses(t *testing.T, e engine.Engine) {
	file := filepath.Join(t.TempDir(), "t")
	must(&scene{t: t}, os.WriteFile(file, []byte("{{.Event}} {{.Generation}} {{len .Sockets}}\n"), 0o644))
	s := playSpec(t, e, "version=v1", engine.Spec{HostTools: true, Files: map[string]string{"/app/t": file}, Env: []string{"ENTRYPOINT_RENDER=/app/t:/tmp/out"}})
	s.begins()
	s.underLoad()
	must(s, os.WriteFile(file, []byte("\n{{.Generations.X}}"), 0o644))
	must(s, s.c.Put(file, "/app/t"))
	s.put("version=v2")
	if out := s.reload(1); !strings.Contains(out, `cannot render "/tmp/out": /app/t:2: cannot look for .X in a list`) {
		t.Errorf("reload said %s", out)
	}
	must(s, os.WriteFile(file, []byte("{{.Event}} {{.Generation}} {{range .Sockets}}{{.Name}}{{end}}\n"), 0o644))
	must(s, s.c.Put(file, "/app/t"))
	s.reload(0)
	s.settled()
	s.lossless()
	s.eventually("the end of the old generation is rendered", func() error {
		_, out, err := engine.Exec(limit(t), s.c, "cat", "/tmp/out")
		if err == nil && out != "drained 3 web\n" {
			err = fmt.Errorf("it holds %q", out)
		}
		return err
	})
}

func renderFaults(t *testing.T, e engine.Engine) {
	file := filepath.Join(t.TempDir(), "t")
	must(&scene{t: t}, os.WriteFile(file, []byte("\n{{call .X}}"), 0o644))
	c := exec.Command(binaries.Entrypoint, "check", "true")
	c.Env = []string{"PATH=/bin:/usr/bin", "ENTRYPOINT_RENDER=a:b," + file + ":/x"}
	out, _ := c.CombinedOutput()
	if c.ProcessState.ExitCode() != 78 || !strings.Contains(string(out), `"a:b" are not absolute`) || !strings.Contains(string(out), file+`:2: the function "call" is not supported`) {
		t.Errorf("check: %v %s", c.ProcessState, out)
	}
}
