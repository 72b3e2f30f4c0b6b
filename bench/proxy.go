package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// rival is a proxy beside ours: its configuration, of which IN and OUT are addresses, and DIR a folder.
type rival struct {
	name, kind string
	needs      string // a file; "": none
	argv       []string
	config     string
}

const streamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

var rivals = []rival{
	{"HAProxy", "tcp", "", []string{"haproxy", "-db", "-f"}, `global
	maxconn 4000
defaults
	mode tcp
	timeout client 60s
	timeout server 60s
	timeout connect 5s
frontend in
	bind IN
	default_backend out
backend out
	server app OUT
`},
	{"nginx", "tcp", streamModule, []string{"nginx", "-g", "daemon off;", "-c"}, `load_module ` + streamModule + `;
worker_processes auto;
pid DIR/pid;
error_log DIR/errors;
events { worker_connections 4000; }
stream { server { listen IN; proxy_pass OUT; } }
`},
	{"HAProxy", "http", "", []string{"haproxy", "-db", "-f"}, `global
	maxconn 4000
defaults
	mode http
	option forwardfor
	http-reuse always
	timeout client 60s
	timeout server 60s
	timeout connect 5s
frontend in
	bind IN
	default_backend out
backend out
	server app OUT
`},
	{"nginx", "http", "", []string{"nginx", "-g", "daemon off;", "-c"}, `worker_processes auto;
pid DIR/pid;
error_log DIR/errors;
events { worker_connections 4000; }
http {
	access_log off;
	client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;
	keepalive_requests 1000000;
	upstream app { server OUT; keepalive 64; keepalive_requests 1000000; }
	server {
		listen IN;
		location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }
	}
}
`},
}

// proxies compares requests per second, and the time of one, through our proxy and through HAProxy and nginx, to the same app, by turns.
func (b *bench) proxies() ([]line, error) {
	var out []line
	for _, kind := range []string{"tcp", "http"} {
		lines, err := b.proxiesOf(kind)
		if err != nil {
			return nil, err
		}
		out = append(out, lines...)
	}
	return out, nil
}

func (b *bench) proxiesOf(kind string) ([]line, error) {
	names, addresses, stop, err := b.openProxies(kind)
	defer stop()
	if err != nil {
		return nil, err
	}
	var out []line
	for _, way := range []struct {
		what    string
		options load.Options
	}{
		{"keep-alive", load.Options{Reused: 16}}, {"a connection each", load.Options{Fresh: 16}},
	} {
		rounds, times := []map[string]float64{}, []map[string]float64{}
		for n := range b.times(20) {
			round, took := map[string]float64{}, map[string]float64{}
			for i := range names {
				name := names[(i+n)%len(names)]
				r, err := b.turn(way.options, addresses[name])
				if err != nil {
					return nil, fmt.Errorf("%s proxy, %s, %s: %w", kind, way.what, name, err)
				}
				round[name] = float64(r.Requests()) / r.Elapsed.Seconds()
				took[name] = float64(max(r.Latency[load.Fresh].P50, r.Latency[load.Reused].P50))
			}
			rounds, times = append(rounds, round), append(times, took)
		}
		rate := func(name string) string {
			return fmt.Sprintf("%.0f/s %s", middle(rounds, func(r map[string]float64) float64 { return r[name] }),
				us(time.Duration(middle(times, func(r map[string]float64) float64 { return r[name] }))))
		}
		var yardsticks, ratios []string
		for _, name := range names[1:] {
			yardsticks = append(yardsticks, name+" "+rate(name))
			ratios = append(ratios, fmt.Sprintf("%.2f", middle(rounds, func(r map[string]float64) float64 { return r[ours] / r[name] })))
		}
		budget := "-"
		if kind == "tcp" {
			budget = ">= 1.0 of HAProxy"
		}
		out = append(out, line{"proxy, " + kind + ", " + way.what, rate(ours), strings.Join(yardsticks, ", "), strings.Join(ratios, ", "), budget})
	}
	return out, nil
}

// ours is the name of our proxy among the others.
const ours = "entrypoint"

// openProxies starts the app behind ours, and the others in front of the same one. stop is never nil.
func (b *bench) openProxies(kind string) (names []string, addresses map[string]string, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, f := range stops {
			f()
		}
	}
	addresses = map[string]string{}
	front, err := freeAddress()
	if err != nil {
		return nil, nil, stop, err
	}
	c, err := b.engine.Start(b.ctx, engine.Spec{
		Env:     []string{"ENTRYPOINT_HANDOFF=proxy", "ENTRYPOINT_PROXY=" + kind, "ENTRYPOINT_LISTEN=tcp://" + front, "ENTRYPOINT_PROXY_RANGE=18500-18900"},
		Command: []string{"/testapp", "listen=tcp:127.0.0.1:{port}", "ready=false"},
	})
	if err != nil {
		return nil, nil, stop, err
	}
	stops = append(stops, func() { c.Close() })
	names, addresses[ours] = []string{ours}, front
	if err := b.answers(front); err != nil {
		return nil, nil, stop, err
	}
	app, err := backendOf(front)
	if err != nil {
		return nil, nil, stop, err
	}
	for _, r := range rivals {
		if r.kind != kind {
			continue
		}
		if _, err := exec.LookPath(r.argv[0]); err != nil {
			continue
		}
		if _, err := os.Stat(r.needs); r.needs != "" && err != nil {
			continue
		}
		address, kill, err := b.startRival(r, app)
		if err != nil {
			return nil, nil, stop, err
		}
		stops = append(stops, kill)
		if err := b.answers(address); err != nil {
			return nil, nil, stop, fmt.Errorf("%s: %w", r.name, err)
		}
		names, addresses[r.name] = append(names, r.name), address
	}
	return names, addresses, stop, nil
}

// backendOf asks the app where it listens behind our proxy.
func backendOf(front string) (string, error) {
	const mark = `"listen=tcp:`
	return load.Ask(load.Options{Address: front, Version: func(body string) (string, bool) {
		_, after, _ := strings.Cut(body, mark)
		address, _, ok := strings.Cut(after, `"`)
		return address, ok
	}}, "/state")
}

// startRival starts one in a session of its own, as ours has.
func (b *bench) startRival(r rival, app string) (address string, stop func(), err error) {
	if address, err = freeAddress(); err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "epbench-proxy")
	if err != nil {
		return "", nil, err
	}
	if err := os.Chmod(dir, 0o777); err != nil { // nginx's workers become another user
		return "", nil, err
	}
	text := strings.NewReplacer("IN", address, "OUT", app, "DIR", dir).Replace(r.config)
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return "", nil, err
	}
	cmd := exec.Command(r.argv[0], append(r.argv[1:], file)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	return address, func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		os.RemoveAll(dir)
	}, nil
}

// turn is one server's turn.
func (b *bench) turn(o load.Options, address string) (load.Report, error) {
	o.Address, o.Duration, o.MaxRequests = address, slice, 100_000
	l := load.Start(b.ctx, o)
	l.Wait()
	r := l.Report()
	if n := r.Failures(load.Fresh, load.Reused); n > 0 {
		return r, fmt.Errorf("%d requests failed: %s", n, r.FailedText())
	}
	return r, nil
}
