//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// TestFace shows the metrics and status endpoint of real containers. On docker they are from scratch and hardened: no capability, another
// user, a root that cannot be written to.
func TestFace(t *testing.T) {
	table(t, "unshare,docker", []row{
		{"scrape", faceScrape},
		{"answers", faceAnswers},
		{"stop", faceStop},
		{"swaps", faceSwaps},
		{"killed", faceKilled},
		{"user", faceUser},
		{"limits", faceLimits},
		{"off", faceOff},
	})
}

// faced starts a container with the endpoint. Its address is in the scene's environment.
type faced struct {
	*scene
	at string
}

func playFaced(t *testing.T, e engine.Engine, settings string, env ...string) *faced {
	t.Helper()
	f := &faced{at: freeAddress(t)}
	spec := engine.Spec{Env: append([]string{"ENTRYPOINT_METRICS=tcp://" + f.at}, env...)}
	if e.Name() == "docker" {
		spec.ReadOnly, spec.DropCaps, spec.User = true, true, "65534:65534"
	}
	f.scene = playSpec(t, e, settings, spec)
	f.waitServed()
	return f
}

// waitServed waits for the first run of the helper.
func (f *faced) waitServed() {
	f.t.Helper()
	f.begins()
	f.eventually("the endpoint answers", func() error {
		code, text, err := f.ask("/readyz")
		if err == nil && code != 200 {
			err = fmt.Errorf("%d %s", code, text)
		}
		return err
	})
}

// ask makes one request on a connection of its own. header are names and values in turn.
func (f *faced) ask(path string, header ...string) (code int, text string, err error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+f.at+path, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return a.StatusCode, string(b), err
}

// page is the text of an answer with code 200.
func (f *faced) page(path string, header ...string) string {
	f.t.Helper()
	code, text, err := f.ask(path, header...)
	if err != nil || code != 200 {
		f.t.Fatalf("%s: %d %v: %s", path, code, err, text)
	}
	return text
}

// series reads the metrics: a value for each name with its labels.
func (f *faced) series() map[string]float64 {
	f.t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(f.page("/metrics")) {
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			f.t.Fatalf("%q: %v", line, err)
		}
		all[line[:i]] = v
	}
	return all
}

// helperPID is the process of the endpoint as the machine sees it; 0 while there is none.
func (f *faced) helperPID() int {
	f.t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, dir := range dirs {
		line, err := os.ReadFile(dir + "/cmdline")
		if err != nil || !bytes.HasPrefix(line, []byte("entrypoint:face\x00")) {
			continue
		}
		st, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		rest := string(st[bytes.LastIndexByte(st, ')')+1:])
		if words := strings.Fields(rest); len(words) > 1 && words[1] == strconv.Itoa(f.c.PID()) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}

// faceScrape: both formats please their own strict readers, and what they say is so.
func faceScrape(t *testing.T, e engine.Engine) {
	f := playFaced(t, e, "version=v1", "ENTRYPOINT_WATCH=auto", "ENTRYPOINT_SHUTDOWN_TIMEOUT=2s")
	f.put("version=v2")
	f.waitVersion("v2")
	f.settled()
	f.signal(syscall.SIGUSR1)
	f.put("version=v3 fail=7")
	f.waitStatus("the third was refused", func(st status) bool { return len(st.swaps()) > 1 })
	f.reload(1)

	tool(t, f.page("/metrics"), "promtool", "check", "metrics")
	tool(t, f.page("/metrics", "Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), "/usr/bin/python3", "testdata/openmetrics.py")

	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	f.facts()
	st, err := f.status()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]float64
	f.eventually("the connection is counted", func() error { // a count is shared for a moment
		if m = f.series(); m[`entrypoint_listener_connections{app="app",listener="web"}`] != 1 {
			return fmt.Errorf("%v", m[`entrypoint_listener_connections{app="app",listener="web"}`])
		}
		return nil
	})
	for name, want := range map[string]float64{
		`entrypoint_app_up{app="app"}`:     1,
		`entrypoint_app_ready{app="app"}`:  1,
		`entrypoint_generation{app="app"}`: 2,
		`entrypoint_generation_info{app="app",sha256="` + st.Generations[1].SHA256 + `",version=""}`: 1,
		`entrypoint_swaps_total{app="app",trigger="start",result="done"}`:                            1,
		`entrypoint_swaps_total{app="app",trigger="watch",result="done"}`:                            1,
		`entrypoint_swaps_total{app="app",trigger="watch",result="rejected"}`:                        1,
		`entrypoint_swaps_total{app="app",trigger="command",result="rejected"}`:                      1,
		`entrypoint_swap_duration_seconds_count{app="app",phase="check"}`:                            4,
		`entrypoint_swap_duration_seconds_count{app="app",phase="promote"}`:                          2,
		`entrypoint_swap_duration_seconds_count{app="app",phase="drain"}`:                            1,
		`entrypoint_signals_total{signal="SIGUSR1",action="forward"}`:                                1,
		`entrypoint_watch_backend_info{backend="inotify"}`:                                           1,
		`entrypoint_drift{app="app"}`:                                                                1,
		`entrypoint_app_processes{app="app"}`:                                                        1,
		`entrypoint_listener_connections{app="app",listener="web"}`:                                  1,
		`entrypoint_listener_accept_queue{app="app",listener="web"}`:                                 0,
		`entrypoint_draining_generations{app="app"}`:                                                 0,
		`entrypoint_candidate_share_ratio{app="app"}`:                                                0,
		`entrypoint_log_dropped_lines_total`:                                                         0,
		`entrypoint_config_deprecated`:                                                               0,
	} {
		if got, there := m[name]; !there || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, there, want)
		}
	}
	for _, name := range []string{
		`entrypoint_app_resident_memory_bytes{app="app"}`, `entrypoint_app_open_fds{app="app"}`,
		`entrypoint_last_swap_timestamp_seconds{app="app"}`, `entrypoint_start_time_seconds`, `entrypoint_reaped_total{kind="child"}`,
		`entrypoint_artifact_memory_bytes{app="app"}`,
	} {
		if m[name] <= 0 {
			t.Errorf("%s is %v", name, m[name])
		}
	}
	f.underLoad()
	f.eventually("the app's processor time is counted", func() error {
		if f.series()[`entrypoint_app_cpu_seconds_total{app="app"}`] == 0 {
			return errors.New("0")
		}
		return nil
	})
	f.lossless()
}

// tool gives a program a text to judge.
func tool(t *testing.T, text, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if slices.Contains(required, "docker") {
			t.Errorf("%s is required and not installed", name)
		}
		t.Logf("SKIPPED: %s is not installed", name)
		return
	}
	cmd := exec.CommandContext(limit(t), name, args...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%s: %v: %s", name, err, out)
	}
}

// faceAnswers: every address answers as it should, to those who read.
func faceAnswers(t *testing.T, e engine.Engine) {
	f := playFaced(t, e, "version=v1")
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"} {
		for _, path := range []string{"/", "/metrics", "/status", "/nothing"} {
			r, err := http.NewRequest(method, "http://"+f.at+path, strings.NewReader("stop=1"))
			if err != nil {
				t.Fatal(err)
			}
			a, err := client.Do(r)
			if err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
			a.Body.Close()
			if a.StatusCode != 405 || a.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, %v", method, path, a.StatusCode, a.Header)
			}
		}
	}
	a, err := client.Head("http://" + f.at + "/metrics")
	if err != nil || a.StatusCode != 200 || a.ContentLength < 1000 {
		t.Errorf("HEAD: %v, %+v", err, a)
	}
	if code, _, err := f.ask("/secret"); err != nil || code != 404 {
		t.Errorf("an unknown path: %d, %v", code, err)
	}
	f.waitStatus("the bytes are hashed", func(st status) bool { return st.Generations[0].SHA256 != "" && st.Image != "" })
	code, out := f.exec("status", "--json")
	var told, served any
	if err := errors.Join(json.Unmarshal([]byte(out), &told), json.Unmarshal([]byte(f.page("/status")), &served)); err != nil || code != 0 {
		t.Fatalf("status: %d, %v", code, err)
	}
	if a, b := jsonShape(told), jsonShape(served); a != b {
		t.Errorf("status --json has\n%s\nand /status\n%s", a, b)
	}
}

// jsonShape is which fields a value has, at any depth, and of which kind they are.
func jsonShape(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var all []string
		for k, item := range v {
			all = append(all, k+":"+jsonShape(item))
		}
		slices.Sort(all)
		return "{" + strings.Join(all, " ") + "}"
	case []any:
		if len(v) == 0 {
			return "[]"
		}
		return "[" + jsonShape(v[0]) + "]"
	}
	return fmt.Sprintf("%T", v)
}

// faceStop: ready until TERM and not after it, alive as long as the init is, answered to the end.
func faceStop(t *testing.T, e engine.Engine) {
	f := playFaced(t, e, "version=v1 linger=4s", "ENTRYPOINT_SHUTDOWN_DELAY=4s") // the end comes well behind the delay
	f.page("/readyz")
	before := time.Now()
	f.signal(syscall.SIGTERM)
	f.eventually("it is not ready after TERM", func() error {
		code, text, err := f.ask("/readyz")
		if err == nil && (code != 503 || !strings.Contains(text, "stopping")) {
			err = fmt.Errorf("%d %s", code, text)
		}
		return err
	})
	if took := time.Since(before); took > 1500*time.Millisecond {
		t.Logf("slow: %v from TERM to the first answer that it is not ready", took)
	}
	over := make(chan struct{})
	go func() { defer close(over); _, _ = f.c.Wait(limit(t)) }()
	answers, served := 0, 0
	var last time.Time
	for {
		code, text, err := f.ask("/readyz")
		if err != nil {
			break
		}
		if code != 503 {
			t.Fatalf("after it was not ready: %d %s", code, text)
		}
		if code, _, err := f.ask("/livez"); err == nil && code != 200 {
			t.Fatalf("not alive while it stops: %d", code)
		}
		if _, err := f.get("/"); err == nil {
			served++
		}
		answers, last = answers+1, time.Now()
		time.Sleep(5 * time.Millisecond)
	}
	<-over
	if answers < 2 || served < 2 || last.Sub(before) < 4*time.Second { // the delay: it was answered to its end
		t.Errorf("%d answers, the last one %v after TERM; the app served %d times meanwhile", answers, last.Sub(before), served)
	}
	f.waitExit(0)
}

// faceSwaps: never anything but ready and alive across ten swaps, one of them refused.
func faceSwaps(t *testing.T, e engine.Engine) {
	f := playFaced(t, e, "version=v0")
	ctx, stop := context.WithCancel(context.Background())
	var polling sync.WaitGroup
	polls := 0
	polling.Go(func() {
		for ; ctx.Err() == nil; polls++ {
			for _, path := range []string{"/readyz", "/livez"} {
				if code, text, err := f.ask(path); err != nil || code != 200 {
					t.Errorf("%s during swaps: %d %s %v", path, code, text, err)
					return
				}
			}
		}
	})
	for i := range 10 {
		if i == 5 {
			f.put("version=bad fail=3")
			f.reload(1)
		}
		f.put("version=v" + strconv.Itoa(i+1))
		f.reload(0)
	}
	f.settled()
	stop()
	polling.Wait()
	if polls < 20 {
		t.Errorf("only %d polls", polls)
	}
	if m := f.series(); m[`entrypoint_generation{app="app"}`] != 12 || m[`entrypoint_swaps_total{app="app",trigger="command",result="done"}`] != 10 {
		t.Errorf("generation %v", m[`entrypoint_generation{app="app"}`])
	}
	t.Logf("%d polls of each", polls)
}

// faceKilled: the helper is killed twenty times while clients poll. None is refused, and no counter goes back.
func faceKilled(t *testing.T, e engine.Engine) {
	f := playFaced(t, e, "version=v1")
	f.reload(0)
	before := f.series()
	ctx, stop := context.WithCancel(context.Background())
	var polling sync.WaitGroup
	answered, cut := 0, 0
	polling.Go(func() {
		for ctx.Err() == nil {
			c, err := net.DialTimeout("tcp", f.at, patience)
			if err != nil {
				t.Errorf("refused: %v", err)
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(c, "GET /livez HTTP/1.0\r\n\r\n")
			b, err := io.ReadAll(c)
			c.Close()
			switch {
			case err == nil && bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")):
				answered++
			case len(b) > 0 && !bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) || errors.Is(err, os.ErrDeadlineExceeded):
				t.Errorf("answered %q, %v", b, err)
				return
			default:
				cut++ // it was accepted by a process that was killed then
			}
		}
	})
	killed := map[int]bool{}
	fresh := func() (pid int) {
		f.eventually("there is a new helper", func() error {
			if pid = f.helperPID(); pid == 0 || killed[pid] {
				return errors.New("not yet")
			}
			return nil
		})
		return pid
	}
	for range 20 {
		pid := fresh()
		killed[pid] = true
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	fresh()
	after := f.series()
	stop()
	polling.Wait()
	t.Logf("%d answered, %d cut", answered, cut)
	if answered == 0 || cut > 2*20 {
		t.Errorf("%d answered, %d cut", answered, cut)
	}
	for name, v := range before {
		if (strings.Contains(name, "_total") || strings.Contains(name, "_count") || strings.Contains(name, "_bucket") || strings.Contains(name, "_sum")) && after[name] < v {
			t.Errorf("%s went from %v to %v", name, v, after[name])
		}
	}
	if st := f.settled(); st.Active != 2 {
		t.Errorf("generation %d is active", st.Active)
	}
}

// faceUser: who talks to the network may do nothing.
func faceUser(t *testing.T, e engine.Engine) {
	f := playFaced(t, e, "version=v1")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.helperPID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534\n", "Gid:\t65534\t65534\t65534\t65534\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapAmb:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the helper's status has no %q:\n%s", want, text)
		}
	}
	if _, out := f.exec("ps"); strings.Contains(out, "entrypoint:face") {
		t.Errorf("ps shows our own process as one of the app's: %s", out)
	}
	if err := f.c.Stop(10 * time.Second); err != nil {
		t.Error(err)
	}
	if logs := f.c.Logs(); strings.Contains(logs, "left running") {
		t.Error("the helper was taken for something that the app left running")
	}
}

// TestFaceUnix: a socket file serves as well.
func TestFaceUnix(t *testing.T) {
	table(t, "unshare", []row{{"unix", faceUnix}})
}

func faceUnix(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{HostTools: true, Env: []string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr, "ENTRYPOINT_METRICS=unix:///app/face.sock"}})
	s.waitVersion("v1")
	s.eventually("curl reads it", func() error {
		code, out, err := engine.Exec(limit(t), s.c, "/usr/bin/curl", "-sS", "--max-time", "5", "--unix-socket", "/app/face.sock", "http://x/readyz")
		if err == nil && (code != 0 || out != "ready\n") {
			err = fmt.Errorf("%d %q", code, out)
		}
		return err
	})
}

// faceLimits: those who say nothing do not keep out those who ask; nobody costs PID 1 more than a little.
func faceLimits(t *testing.T, e engine.Engine) {
	f := playFaced(t, e, "version=v1")
	var silent []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", f.at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	for range 3 {
		f.page("/readyz")
	}
	fmt.Fprintf(silent[0], "GET /readyz HTTP/1.1\r\nX: %s", strings.Repeat("x", 100_000)) // closed long ago, or refused
	c, err := net.Dial("tcp", f.at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nX: %s\r\n\r\n", strings.Repeat("x", 100_000))
	if line, err := bufio.NewReader(c).ReadString('\n'); err == nil && !strings.Contains(line, " 431 ") {
		t.Errorf("a long header: %q", line)
	}
	var flood sync.WaitGroup
	until := time.Now().Add(2 * time.Second)
	was := processorTime(t, f.c.PID())
	for range 16 {
		flood.Go(func() {
			for time.Now().Before(until) {
				if code, _, err := f.ask("/metrics"); err != nil || code != 200 {
					t.Errorf("in a flood: %d, %v", code, err)
					return
				}
			}
		})
	}
	flood.Wait()
	took := time.Since(until.Add(-2 * time.Second))
	if used := processorTime(t, f.c.PID()) - was; used > took/2 {
		t.Errorf("a flood of requests cost PID 1 %v in %v", used, took)
	} else {
		t.Logf("a flood cost PID 1 %v in %v", used, took)
	}
}

// processorTime is what a process has used.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, err1 := strconv.Atoi(words[11])
	system, err2 := strconv.Atoi(words[12])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// faceOff: nothing is opened and nothing runs unless it is asked for.
func faceOff(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	f := &faced{scene: s}
	s.begins()
	if pid := f.helperPID(); pid != 0 {
		t.Errorf("a helper runs: %d", pid)
	}
}

// TestFacePage looks at the page with a browser: with and without scripts, light and dark, wide and narrow, while a swap happens.
func TestFacePage(t *testing.T) {
	on(t, "unshare", func(t *testing.T, e engine.Engine) {
		f := playFaced(t, e, "version=v1", "ENTRYPOINT_CANARY=30%", "ENTRYPOINT_DRAIN_QUIET=20s")
		f.underLoad()
		for i := range 3 {
			f.put(fmt.Sprintf("version=v%d", i+2))
			done := f.trial(i + 2)
			f.promote()
			done()
		}
		f.put("version=bad fail=1")
		f.reload(1)
		b := openBrowser(t)
		address := "http://" + f.at + "/"

		b.scripts(false)
		b.look(1200, 1300, "light")
		b.visit(address)
		rows := b.eval("document.querySelectorAll('section table')[0].rows.length")
		if text := b.eval("document.querySelectorAll('section table')[0].innerText"); rows == "1" || !strings.Contains(text, "active") || !strings.Contains(text, "exited with code 1") {
			t.Errorf("without scripts the table has %s rows: %s", rows, text)
		}
		if b.asked("/events") > 0 {
			t.Error("a script ran")
		}
		filled(t, b.picture("light"), color.White)

		b.scripts(true)
		b.look(1200, 1300, "dark")
		b.visit(address)
		filled(t, b.picture("dark"), color.Black)
		b.look(390, 1400, "light")
		b.visit(address)
		filled(t, b.picture("narrow"), color.White)
		if wide := b.eval("document.documentElement.scrollWidth"); wide != "390" {
			t.Errorf("on a phone the page is %s pixels wide", wide)
		}

		b.look(1200, 1300, "light")
		b.visit(address)
		newest := "document.querySelector('#events li').innerText" // of many only the last ones are there
		was := b.eval(newest)
		f.put("version=v9")
		done := f.trial(6)
		f.eventually("the page shows the candidate by itself", func() error {
			text := b.eval("document.querySelector('.lede').innerText + document.querySelectorAll('section table')[1].innerText")
			if !strings.Contains(text, "generation 6 is the candidate") || !strings.Contains(text, "generation 6 30 %") {
				return errors.New(text)
			}
			return nil
		})
		b.picture("canary")
		f.promote()
		done()
		f.eventually("the page shows the new generation by itself", func() error {
			if text := b.eval("document.querySelector('.lede').innerText"); !strings.Contains(text, "serving, generation 6 is active") {
				return errors.New(text)
			}
			return nil
		})
		f.eventually("the page shows new events", func() error {
			if now := b.eval(newest); now == was {
				return fmt.Errorf("the newest is %s still", now)
			}
			if live := b.eval("document.getElementById('live').innerText"); !strings.EqualFold(live, "live") {
				return fmt.Errorf("the page says %q", live)
			}
			return nil
		})
		if all := b.strangers(f.at); len(all) > 0 {
			t.Errorf("requests went outside: %q", all)
		}
		if b.asked("/events") == 0 {
			t.Error("no events were asked for")
		}
		if said := b.faults(); len(said) > 0 {
			t.Errorf("the browser complains: %s", said)
		}
		f.lossless()
	})
}

// trial begins a swap and waits until the candidate has its share. done waits for the end of the swap.
func (f *faced) trial(gen int) (done func()) {
	f.t.Helper()
	p := f.during("reload")
	f.waitStatus("the candidate is on trial", func(st status) bool { return st.stateOf(gen) == "canary" })
	return func() {
		f.t.Helper()
		p.result(0)
	}
}

func (f *faced) promote() {
	f.t.Helper()
	if code, out := f.exec("promote"); code != 0 {
		f.t.Fatalf("promote: %d: %s", code, out)
	}
}

// filled wants a picture that is not blank: enough colours, a ground near the wanted one, and ink on it.
func filled(t *testing.T, p image.Image, ground color.Color) {
	t.Helper()
	colors := map[color.Color]int{}
	bounds := p.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y += 3 {
		for x := bounds.Min.X; x < bounds.Max.X; x += 3 {
			colors[p.At(x, y)]++
		}
	}
	most, n := color.Color(nil), 0
	for c, k := range colors {
		if k > n {
			most, n = c, k
		}
	}
	want, got := color.GrayModel.Convert(ground).(color.Gray).Y, color.GrayModel.Convert(most).(color.Gray).Y
	if off := max(want, got) - min(want, got); off > 40 || len(colors) < 30 {
		t.Errorf("%d colours, and most of it is %v", len(colors), most)
	}
}
