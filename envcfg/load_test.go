package envcfg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain sees to it that all the calls of Load together left nothing behind
// in the process environment.
func TestMain(m *testing.M) {
	before := os.Environ()
	code := m.Run()
	after := os.Environ()
	slices.Sort(before)
	slices.Sort(after)
	if diff := cmp.Diff(before, after); diff != "" && code == 0 {
		fmt.Fprintf(os.Stderr, "the tests changed the process environment:\n%s", diff)
		code = 1
	}
	os.Exit(code)
}

// load is Load for an environment that must be good; names are without prefix.
func load(t *testing.T, environ ...string) *Config {
	t.Helper()
	c, err := Load(prefixed(environ))
	if err != nil {
		t.Fatalf("Load(%q): %v", environ, err)
	}
	return c
}

// faults is Load for an environment that must be refused.
func faults(t *testing.T, environ ...string) []string {
	t.Helper()
	c, err := Load(prefixed(environ))
	if err == nil || c != nil {
		t.Fatalf("Load(%q) = %v, %v, want an error alone", environ, c, err)
	}
	var out []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var f *Fault
		if !errors.As(e, &f) {
			t.Errorf("%v is not a *Fault", e)
		}
		out = append(out, e.Error())
	}
	return out
}

func prefixed(environ []string) []string {
	out := make([]string, len(environ))
	for i, kv := range environ {
		out[i] = Prefix + kv
	}
	return out
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	c, err := Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Variables{
		Umask: KeepUmask, Workers: 1, Rollout: "bluegreen", Handoff: "auto", Steer: "auto", Protocols: "all", Ready: "auto",
		Proxy: "http", ProxyRange: "10000-11000", ProxyConnectTimeout: Duration(time.Minute), ProxyProtocol: "off",
		StartTimeout: Duration(time.Minute), DrainQuiet: Duration(5 * time.Second), StopSignal: Signal(syscall.SIGTERM),
		DrainTimeout: Duration(30 * time.Second), MaxDraining: 2, ShutdownTimeout: Duration(8 * time.Second),
		Restart: "no", RestartDelay: Duration(100 * time.Millisecond), RestartMaxDelay: Duration(30 * time.Second),
		StartLimitBurst: 5, StartLimitInterval: Duration(time.Minute), OnFatal: "exit",
		Signals: Signals{syscall.SIGHUP: {Action: ActionReload}, syscall.SIGTERM: {Action: ActionStop}},
		Group:   true, Subreaper: "auto", TTY: "auto", WatchSettle: Duration(300 * time.Millisecond),
		WatchPoll: Duration(2 * time.Second), Exec: "auto", Keep: 2, HookTimeout: Duration(30 * time.Second),
		HealthInterval: Duration(10 * time.Second), HealthTimeout: Duration(5 * time.Second), HealthFailures: 3, HealthAction: "replace",
		Rollback: "off", Control: "auto", LogLevel: "info", LogFormat: "auto", Log: "stderr", AppLog: "inherit",
	}
	if diff := cmp.Diff(want, c.Variables); diff != "" {
		t.Error(diff)
	}
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings without any variable: %q", w)
	}
}

func TestEmptyIsUnset(t *testing.T) {
	var environ []string
	for _, f := range newTable().fields {
		environ = append(environ, f.name+"=", f.name+"_FILE=")
	}
	got, err := Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := Load(nil)
	if diff := cmp.Diff(want.Entries(), got.Entries()); diff != "" {
		t.Error(diff)
	}
	file := load(t, "START_TIMEOUT_FILE="+write(t, "\n"))
	if file.StartTimeout != Duration(time.Minute) || file.Source("ENTRYPOINT_START_TIMEOUT") != FromDefault {
		t.Errorf("an empty file counts as a value: %v", file.StartTimeout)
	}
}

// TestValues tries every accepted spelling and what it becomes.
func TestValues(t *testing.T) {
	tests := []struct{ set, want string }{
		{"START_TIMEOUT=30", "30s"}, {"START_TIMEOUT=30s", "30s"}, {"START_TIMEOUT=1m30s", "1m30s"},
		{"START_TIMEOUT=1.5", "1.5s"}, {"START_TIMEOUT= 250ms ", "250ms"}, {"DRAIN_QUIET=0", "0s"}, {"GRACE=3600", "1h"}, {"GRACE=1h0m5s", "1h0m5s"}, {"GRACE=10m", "10m"},
		{"NO_NEW_PRIVS=true", "true"}, {"NO_NEW_PRIVS=YES", "true"}, {"NO_NEW_PRIVS=on", "true"}, {"NO_NEW_PRIVS=1", "true"},
		{"GROUP=False", "false"}, {"GROUP=no", "false"}, {"GROUP=OFF", "false"}, {"GROUP=0", "false"},
		{"MAX_DRAINING=07", "7"}, {"UMASK=022", "0022"}, {"UMASK=0o27", "0027"}, {"UMASK=0", "0000"}, {"UMASK=777", "0777"},
		{"COMMAND=/a -b 'c d'", `["/a","-b","c d"]`}, {`COMMAND=["/a","<&>"]`, `["/a","<&>"]`},
		{"DIR=/srv/ app", "/srv/ app"}, {"USER=app:1000", "app:1000"}, {"USER=1000", "1000"},
		{"HANDOFF=Exclusive", "exclusive"}, {"STEER=off", "off"}, {"STEER=false", "off"}, {"RESTART=false", "no"},
		{"RESTART=on-failure", "on-failure"}, {"SUBREAPER=1", "true"}, {"TTY=no", "false"}, {"TTY=AUTO", "auto"},
		{"LISTEN=http=tcp://:80?backlog=9,unix:///a", "http=tcp://:80?backlog=9,unix:///a"},
		{"READY=exec:a b,delay:2s", "exec:a b,delay:2s"}, {"PROTOCOLS=systemd", "systemd"},
		{"STOP_SIGNAL=sigquit", "QUIT"}, {"STOP_SIGNAL=10", "USR1"}, {"STOP_SIGNAL=RTMIN+3", "RTMIN+3"}, {"STOP_SIGNAL=CLD ", "!"},
		{"EXIT_REMAP= 143=0, 130=0,", "130=0,143=0"},
		{"WATCH=off", ""}, {"WATCH=No", ""}, {"WATCH=auto", "auto"}, {"WATCH=/a=signal:HUP", "/a=signal:HUP"},
		{"CONTROL=0", "off"}, {"CONTROL=@name", "@name"}, {"CONTROL=/run/e.sock", "/run/e.sock"}, {"STATE_DIR=/state", "/state"},
		{"LOG_LEVEL=WARN", "warn"}, {"GRACE=30", "30s"}, {"START_LIMIT_INTERVAL=0", "0s"},
	}
	for _, tt := range tests {
		name, _, _ := strings.Cut(Prefix+tt.set, "=")
		c, err := Load([]string{Prefix + tt.set})
		if tt.want == "!" {
			if err == nil {
				t.Errorf("%s was accepted", tt.set)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.set, err)
			continue
		}
		if e := entry(c, name); e.Value != tt.want || e.Source != FromEnv {
			t.Errorf("%s = %q from %s, want %q", tt.set, e.Value, e.Source, tt.want)
		}
	}
}

func entry(c *Config, name string) Entry {
	all := c.Entries()
	return all[slices.IndexFunc(all, func(e Entry) bool { return e.Name == name })]
}

// TestRefused pins the sentences.
func TestRefused(t *testing.T) {
	const duration = ": write 30, 30s or 1m30s"
	tests := []struct{ set, want string }{
		{"START_TIMEOUT=soon", `="soon": not a duration` + duration},
		{"START_TIMEOUT=-1s", `="-1s": a duration cannot be negative` + duration},
		{"START_TIMEOUT=1d", `="1d": not a duration` + duration},
		{"START_TIMEOUT=.", `=".": not a duration` + duration},
		{"START_TIMEOUT=9999999999", `="9999999999": not a duration` + duration},
		{"START_TIMEOUT=4000000000", `="4000000000": longer than 100 years` + duration},
		{"START_TIMEOUT=0", `="0": it must be longer than 0s` + duration},
		{"DRAIN_TIMEOUT=0s", `="0s": it must be longer than 0s` + duration},
		{"SHUTDOWN_TIMEOUT=0", `="0": it must be longer than 0s` + duration},
		{"RESTART_DELAY=0", `="0": it must be longer than 0s` + duration},
		{"WATCH_POLL=0", `="0": it must be longer than 0s` + duration},
		{"HOOK_TIMEOUT=0", `="0": it must be longer than 0s` + duration},
		{"GROUP=y", `="y": not a yes or no: write true, false, yes, no, on, off, 1 or 0`},
		{"MAX_DRAINING=0", `="0": it must be at least 1`},
		{"START_LIMIT_BURST=0", `="0": it must be at least 1`},
		{"MAX_DRAINING=-1", `="-1": not a whole number: write digits only, such as 2`},
		{"MAX_DRAINING=0x2", `="0x2": not a whole number: write digits only, such as 2`},
		{"UMASK=1000", `="1000": not an octal file mode mask: write 000 to 777, such as 027`},
		{"UMASK=8", `="8": not an octal file mode mask: write 000 to 777, such as 027`},
		{"HANDOFF=magic", `="magic": not one of its values: write auto, transparent, inherit, proxy, exclusive or none`},
		{"HANDOFF=proxy", `=proxy without addresses for the proxy: set ENTRYPOINT_LISTEN, such as tcp://:8080`},
		{"HANDOFF=off", `="off": not one of its values: write auto, transparent, inherit, proxy, exclusive or none`},
		{"STEER=on", `="on": not one of its values: write auto or off`},
		{"RESTART=unless-stopped", `="unless-stopped": not one of its values: write no, on-failure or always`},
		{"USER=:staff", `=":staff": not a user: write user or user:group, names or numbers`},
		{"USER=a:", `="a:": not a user: write user or user:group, names or numbers`},
		{"USER=a:b:c", `="a:b:c": not a user: write user or user:group, names or numbers`},
		{"USER=a b", `="a b": not a user: write user or user:group, names or numbers`},
		{"STATE_DIR=state", `="state": not an absolute path: begin it with /`},
		{"CONTROL=e.sock", `="e.sock": not the place of a socket: write auto, off, an absolute path, or an abstract name that begins with @`},
		{"STOP_SIGNAL=STOP", `="STOP": a signal that never ends a program: write TERM, INT, QUIT or what the app documents`},
		{"STOP_SIGNAL=TREM", `="TREM": not a signal: "TREM", did you mean TERM?: write HUP, SIGHUP, 1 or RTMIN+3`},
		{"EXIT_REMAP=143=256", `="143=256": not a pair of exit statuses: "143=256": write FROM=TO with exit statuses from 0 to 255, such as 143=0,130=0`},
		{"EXIT_REMAP=1=0,1=2", `="1=0,1=2": an exit status is remapped twice: "1=2"`},
		{"COMMAND=a | b", `="a | b": a word that needs a shell: "|": quote it, or run a shell: ["/bin/sh","-c","…"]`},
		{"COMMAND=''", `="''": a command line without a program: write ["/app/server","-addr",":8080"] or /app/server -addr :8080`},
	}
	for _, tt := range tests {
		name, _, _ := strings.Cut(Prefix+tt.set, "=")
		if got := faults(t, tt.set); len(got) != 1 || got[0] != "cannot use "+name+tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.set, got, "cannot use "+name+tt.want)
		}
	}
	if got := faults(t, "CONTROL=/"+strings.Repeat("a", 107)); len(got) != 1 || !strings.Contains(got[0], "107 bytes") {
		t.Errorf("a socket path that is too long: %q", got)
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	got := faults(t, "START_TIMEOUT=x", "FLAVOUR=1s", "MAX_DRAINING=x", "HANDOFF=x", "DIR_FILE=/nonexistent/dir",
		"RESTART_DELAY=60s", "EXIT_REMAP=a,b,1=1", "LISTEN=tcp://:1", "USER=:")
	want := []string{"FLAVOUR", "DIR_FILE", "START_TIMEOUT", "MAX_DRAINING", `"a"`, `"b"`, "HANDOFF", "USER", "RESTART_MAX_DELAY"}
	if len(got) != len(want) {
		t.Fatalf("%d faults, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i, w := range want {
		if !strings.Contains(got[i], w) {
			t.Errorf("fault %d is %q, want %s", i, got[i], w)
		}
	}
}

func TestPairs(t *testing.T) {
	tests := []struct {
		environ []string
		want    string
	}{
		{[]string{"HANDOFF=none", "LISTEN=tcp://:80"}, "cannot hold the addresses of ENTRYPOINT_LISTEN with ENTRYPOINT_HANDOFF=none: unset one of them"},
		{[]string{"RESTART_DELAY=10s", "RESTART_MAX_DELAY=9s"}, `cannot use ENTRYPOINT_RESTART_MAX_DELAY "9s": it is shorter than ENTRYPOINT_RESTART_DELAY "10s": raise it to that or more`},
		{[]string{"DIR=/a", "DIR_FILE=/b"}, "cannot use both ENTRYPOINT_DIR and ENTRYPOINT_DIR_FILE: unset one of them"},
		{[]string{"ENV_FILE=/nonexistent/env"}, `cannot use the file "/nonexistent/env" of ENTRYPOINT_ENV_FILE: no such file or directory`},
	}
	for _, tt := range tests {
		if got := faults(t, tt.environ...); len(got) != 1 || got[0] != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.environ, got, tt.want)
		}
	}
	// A fault in one of a pair is not reported as a fault of the pair as well.
	if got := faults(t, "RESTART_DELAY=60s", "RESTART_MAX_DELAY=x"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if got := faults(t, "RESTART_DELAY=x", "RESTART_MAX_DELAY=50ms"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	load(t, "HANDOFF=none")
}

func TestFile(t *testing.T) {
	for text, want := range map[string]string{"1m\n": "1m", "1m": "1m", "1m\r\n": "1m"} {
		c := load(t, "START_TIMEOUT_FILE="+write(t, text))
		if c.StartTimeout.String() != want || c.Source("ENTRYPOINT_START_TIMEOUT") != FromFile {
			t.Errorf("%q: %v from %s", text, c.StartTimeout, c.Source("ENTRYPOINT_START_TIMEOUT"))
		}
	}
	if c := load(t, "DIR_FILE="+write(t, "/a\n\n")); c.Dir != "/a\n" {
		t.Errorf("more than one line end was dropped: %q", c.Dir)
	}
	load(t, "DIR=", "DIR_FILE="+write(t, "/a")) // empty is unset: not both
	env := write(t, "A=1")
	if c := load(t, "ENV_FILE_FILE="+write(t, env)); c.EnvFile != env {
		t.Errorf("ENV_FILE from a file is %q", c.EnvFile)
	}
}

func TestFileUnusable(t *testing.T) {
	dir := t.TempDir()
	fifo, huge := filepath.Join(dir, "fifo"), write(t, strings.Repeat("x", fileLimit+1))
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, why := range map[string]string{
		dir: "it is a directory", fifo: "it is not a regular file", huge: "it is larger than 1048576 bytes",
		dir + "/none": "no such file or directory",
	} {
		want := `cannot read "` + path + `" of ENTRYPOINT_DIR_FILE: ` + why
		if got := faults(t, "DIR_FILE="+path); len(got) != 1 || got[0] != want {
			t.Errorf("got %q\nwant %q", got, want)
		}
	}
	zero := write(t, "a\x00b")
	if got := faults(t, "DIR_FILE="+zero); len(got) != 1 || !strings.HasSuffix(got[0], "it has a zero byte") {
		t.Errorf("zero byte: %q", got)
	}
}

func TestUnprefixedIsTheApps(t *testing.T) {
	got, err := Load([]string{"HANDOFF=bad", "USER=a b c", "PORT=x", "LISTEN=tcp://:1", "ENTRYPOINT=x", "ENTRYPOINTS_X=1", "GROUP=maybe"})
	if err != nil || got.User != "" || got.Listen != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFirstOfTwoCounts(t *testing.T) {
	if c := load(t, "DIR=/a", "DIR=/b"); c.Dir != "/a" {
		t.Errorf("Dir = %q", c.Dir)
	}
}

// TestProcessEnvironmentIsRestored also shows that only the argument counts.
func TestProcessEnvironmentIsRestored(t *testing.T) {
	t.Setenv("ENTRYPOINT_DIR", "/process")
	t.Setenv("ENTRYPOINT_HANDOFF", "bad")
	t.Setenv("ENTRYPOINT_ZZZ_UNKNOWN", "x")
	t.Setenv("AFTER_ALL", "y")
	before := os.Environ()
	for _, environ := range [][]string{
		nil, {"ENTRYPOINT_DIR=/argument"}, {"ENTRYPOINT_USER=u", "ENTRYPOINT_RESTART=always"},
		{"ENTRYPOINT_DIR=/argument", "ENTRYPOINT_GROUP=bad", "ENTRYPOINT_USER=:"},
	} {
		c, err := Load(environ)
		if err == nil && c.Dir == "/process" {
			t.Errorf("%q: the process environment was read", environ)
		}
		if diff := cmp.Diff(before, os.Environ()); diff != "" {
			t.Errorf("%q changed the process environment:\n%s", environ, diff)
		}
	}
}

func TestLoadsExcludeEachOther(t *testing.T) {
	done := make(chan string)
	for _, dir := range []string{"/a", "/b", "/c", "/d"} {
		go func() {
			for range 50 {
				c, err := Load([]string{"ENTRYPOINT_DIR=" + dir})
				if err != nil || c.Dir != dir {
					done <- "another Load's value"
					return
				}
			}
			done <- ""
		}()
	}
	for range 4 {
		if bad := <-done; bad != "" {
			t.Error(bad)
		}
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		environ []string
		want    string // part of the only warning; "" for none
	}{
		{[]string{"GRACE=10s"}, ""},
		{[]string{"GRACE=8"}, ""},
		{[]string{"GRACE=10", "SHUTDOWN_DELAY=5"}, `ENTRYPOINT_SHUTDOWN_DELAY "5s" and ENTRYPOINT_SHUTDOWN_TIMEOUT "8s" together are longer than ENTRYPOINT_GRACE "10s"`},
		{[]string{"SHUTDOWN_DELAY=21"}, ""},
		{[]string{"SHUTDOWN_DELAY=22"}, `ENTRYPOINT_SHUTDOWN_DELAY "22s" and ENTRYPOINT_SHUTDOWN_TIMEOUT "8s" together are 30s or longer, and Docker kills after 10s`},
		{[]string{"SHUTDOWN_DELAY=22", "GRACE=30"}, ""},
		{[]string{"HEALTH_INTERVAL=1", "HEALTH_TIMEOUT=1"}, "ENTRYPOINT_HEALTH_INTERVAL, ENTRYPOINT_HEALTH_TIMEOUT without effect while ENTRYPOINT_HEALTH is not set"},
		{[]string{"HEALTH_INTERVAL=1", "HEALTH=accept"}, ""},
		{[]string{"WATCH_POLL=1"}, "ENTRYPOINT_WATCH_POLL without effect while ENTRYPOINT_WATCH is not set"},
		{[]string{"RESTART_DELAY=1s"}, "ENTRYPOINT_RESTART_DELAY without effect while ENTRYPOINT_RESTART is no"},
		{[]string{"RESTART_DELAY=1s", "RESTART=always"}, ""},
		{[]string{"PORT=tcp://10.0.0.1:80", "SERVICE_HOST=10.0.0.1"}, "2 variables such as ENTRYPOINT_PORT are Kubernetes links"},
		{[]string{"PORT=8080"}, "ENTRYPOINT_PORT is not read: it has the name of a Kubernetes service link"},
		{[]string{"X_SERVICE_PORT=80"}, "1 variables such as ENTRYPOINT_X_SERVICE_PORT are"},
		{[]string{"PORT_80_TCP_PORT=80"}, "1 variables such as ENTRYPOINT_PORT_80_TCP_PORT are"},
	}
	for _, tt := range tests {
		got := load(t, tt.environ...).Warnings()
		if tt.want == "" && len(got) == 0 {
			continue
		}
		if tt.want == "" || len(got) != 1 || !strings.Contains(got[0], tt.want) {
			t.Errorf("%q: warnings %q, want %q", tt.environ, got, tt.want)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	environ := append(os.Environ(), prefixed([]string{"LISTEN=tcp://:8080", "READY=http://localhost:8080/", "RESTART=always",
		"DRAIN_TIMEOUT=60", "COMMAND=/app/server -addr :8080", "SIGNALS=USR2=reload"})...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(environ); err != nil {
			b.Fatal(err)
		}
	}
}
