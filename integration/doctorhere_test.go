//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// hereFindings is what a program reads from `doctor --json`.
type hereFindings struct {
	Schema, Code int
	Text         string
	Follows      []struct{ What, Value, Why string }
	Running      *struct {
		PID           int
		Handoff, Exec string
		Sockets       []string
	}
	Checks    []struct{ Name, State, Found, Remedy string }
	ElapsedMS int64 `json:"elapsed_ms"`
}

// row is the state and the text of a check.
func (f hereFindings) row(name string) (state, found string) {
	for _, c := range f.Checks {
		if c.Name == name {
			return c.State, c.Found
		}
	}
	return "none", ""
}

// follows is the mode that follows, and why.
func (f hereFindings) follows(what string) string {
	for _, c := range f.Follows {
		if c.What == what {
			return c.Value
		}
	}
	return "none"
}

// TestDoctorHere takes things away, really, and asks the doctor what works.
func TestDoctorHere(t *testing.T) {
	table(t, "unshare,docker", []row{
		{"all-well", hereAllWell},
		{"unprivileged", hereUnprivileged},
		{"beside-an-init", hereBesideAnInit},
	})
	t.Run("taken-away", func(t *testing.T) {
		table(t, "docker", []row{
			{"memfd", hereWithoutMemfd},
			{"seccomp", hereWithoutSeccomp},
			{"steering", hereWithoutSteering},
			{"small-things", hereWithoutSmallThings},
			{"limits", hereLimits},
			{"state-dir", hereStateDir},
			{"same-as-the-init", hereSameAsTheInit},
		})
	})
}

// diagnose runs the doctor as the container's only program: no init is needed.
func diagnose(t *testing.T, e engine.Engine, code int, spec engine.Spec) hereFindings {
	t.Helper()
	spec.Command = []string{"doctor", "--json"}
	got, logs := runTo(t, e, spec)
	return readFindings(t, got, code, logs)
}

func readFindings(t *testing.T, got, want int, text string) hereFindings {
	t.Helper()
	var f hereFindings
	if err := json.Unmarshal([]byte(text), &f); err != nil || got != want || f.Code != want || f.Schema != 1 {
		t.Fatalf("doctor: exit code %d, want %d: %v\n%s", got, want, err, text)
	}
	if f.ElapsedMS > 5000 { // milliseconds on a machine that has nothing else to do
		t.Errorf("it took %d ms", f.ElapsedMS)
	}
	for _, c := range f.Checks {
		if c.Found == "" || (c.State == "fails" || c.State == "missing") && c.Remedy == "" {
			t.Errorf("nothing is said about %+v", c)
		}
	}
	return f
}

// want compares the state of checks.
func (f hereFindings) want(t *testing.T, states map[string]string) {
	t.Helper()
	for name, want := range states {
		if state, found := f.row(name); state != want {
			t.Errorf("%s: %s, want %s: %s", name, state, want, found)
		}
	}
}

func hereAllWell(t *testing.T, e engine.Engine) {
	f := diagnose(t, e, 0, engine.Spec{Env: []string{"ENTRYPOINT_WATCH=/app/server", "ENTRYPOINT_GRACE=10s"}})
	f.want(t, map[string]string{"variables": "works", "memfd": "works", "seccomp": intercepts(e), "steering": "works", "pidfd": "works", "inotify": "works",
		"/proc": "works", "subreaper": "works", "rights": "works", "low ports": "works", "nofile": "works", "root": "works", "state dir": "works", "grace": "works"})
	if f.Running != nil || f.follows("handoff") != "transparent" || f.follows("exec") != "private copies in memory" ||
		f.follows("steer") != "each generation has a socket of its own" || f.follows("watch") != "inotify, and a look every 2s" {
		t.Errorf("got %+v", f)
	}
}

// intercepts is how well: Docker's default set of capabilities lacks SYS_ADMIN, and the filter then sets no_new_privs.
func intercepts(e engine.Engine) string {
	if e.Name() == "docker" {
		return "limited"
	}
	return "works"
}

// hereUnprivileged is what a restricted pod allows. A low port is what it does not.
func hereUnprivileged(t *testing.T, e engine.Engine) {
	spec := engine.Spec{User: "65534:65534", DropCaps: true, ReadOnly: true, Env: []string{"ENTRYPOINT_LISTEN=tcp://:8080"}}
	f := diagnose(t, e, 0, spec)
	f.want(t, map[string]string{"memfd": "works", "seccomp": "works", "steering": "works", "inotify": "works"})
	if _, found := f.row("root"); !strings.Contains(found, "read-only") {
		t.Errorf("root: %s", found)
	}
	if _, found := f.row("rights"); found != "uid 65534, capabilities: none that matter here" {
		t.Errorf("rights: %s", found)
	}
	spec.Env = []string{"ENTRYPOINT_LISTEN=tcp://:80", "ENTRYPOINT_GRACE=5"}
	f = diagnose(t, e, 1, spec)
	f.want(t, map[string]string{"low ports": "fails", "grace": "limited", "variables": "limited"})
	spec.Env = []string{"ENTRYPOINT_LISTEN=tcp:/:80"}
	diagnose(t, e, 1, spec).want(t, map[string]string{"variables": "fails"})
}

// hereBesideAnInit: by exec, the doctor tells what the running init chose, and does not disturb it.
func hereBesideAnInit(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.begins()
	code, text := s.exec("doctor", "--json")
	f := readFindings(t, code, 0, text)
	if f.Running == nil || f.Running.PID != 1 || f.Running.Handoff != "transparent" || f.Running.Exec != "memfd" || len(f.Running.Sockets) != 1 {
		t.Errorf("running: %+v", f.Running)
	}
	code, page := s.exec("doctor")
	fits(t, page, 80)
	if code != 0 || !strings.Contains(page, "init        pid 1 chose transparent") || !strings.Contains(page, "  memfd       works  ") {
		t.Errorf("exit code %d:\n%s", code, page)
	}
	if st := s.settled(); st.Active != 1 || len(st.swaps()) > 0 {
		t.Errorf("the app was disturbed: %+v", st)
	}
}

// profile is a seccomp profile that forbids one system call, with one of its arguments if index is not negative.
func profile(t *testing.T, call string, index, value int) []string {
	t.Helper()
	rule := map[string]any{"names": []string{call}, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
	if index >= 0 {
		rule["args"] = []any{map[string]any{"index": index, "value": value, "op": "SCMP_CMP_EQ"}}
	}
	text, err := json.Marshal(map[string]any{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []any{rule}})
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/profile.json"
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"--security-opt", "seccomp=" + file}
}

func hereWithoutMemfd(t *testing.T, e engine.Engine) {
	spec := engine.Spec{Args: profile(t, "memfd_create", -1, 0)}
	f := diagnose(t, e, 0, spec)
	f.want(t, map[string]string{"memfd": "missing", "seccomp": intercepts(e)})
	if got := f.follows("exec"); got != "the program's own file" {
		t.Errorf("exec: %s", got)
	}
	spec.Env = []string{"ENTRYPOINT_EXEC=copy"}
	diagnose(t, e, 1, spec).want(t, map[string]string{"memfd": "fails"})
	spec.Env = append(spec.Env, "ENTRYPOINT_STATE_DIR=/state")
	spec.Args = append(spec.Args, "--tmpfs", "/state:exec")
	f = diagnose(t, e, 0, spec)
	f.want(t, map[string]string{"memfd": "missing", "state dir": "works"})
	if got := f.follows("exec"); got != `private copies below "/state"` {
		t.Errorf("exec: %s", got)
	}
}

func hereWithoutSeccomp(t *testing.T, e engine.Engine) {
	spec := engine.Spec{Args: profile(t, "seccomp", -1, 0)}
	f := diagnose(t, e, 0, spec)
	f.want(t, map[string]string{"seccomp": "missing", "memfd": "works"})
	if got := f.follows("handoff"); got != "none" {
		t.Errorf("handoff: %s", got)
	}
	spec.Env = []string{"ENTRYPOINT_LISTEN=tcp://127.0.0.1:0"}
	if got := diagnose(t, e, 0, spec).follows("handoff"); got != "inherit" {
		t.Errorf("handoff with ENTRYPOINT_LISTEN: %s", got)
	}
	spec.Env = []string{"ENTRYPOINT_HANDOFF=transparent"}
	f = diagnose(t, e, 1, spec)
	f.want(t, map[string]string{"seccomp": "fails"})
	if got := f.follows("handoff"); got != "the init does not start" {
		t.Errorf("handoff: %s", got)
	}
}

func hereWithoutSteering(t *testing.T, e engine.Engine) {
	const attachCBPF = 51 // SO_ATTACH_REUSEPORT_CBPF
	spec := engine.Spec{Args: profile(t, "setsockopt", 2, attachCBPF)}
	f := diagnose(t, e, 0, spec)
	f.want(t, map[string]string{"steering": "missing"})
	if got := f.follows("steer"); got != "all generations share one socket" {
		t.Errorf("steer: %s", got)
	}
	spec.Env = []string{"ENTRYPOINT_CANARY=5%:30s"}
	diagnose(t, e, 1, spec).want(t, map[string]string{"steering": "fails"})
}

func hereWithoutSmallThings(t *testing.T, e engine.Engine) {
	diagnose(t, e, 0, engine.Spec{Args: profile(t, "pidfd_open", -1, 0)}).want(t, map[string]string{"pidfd": "missing"})
	f := diagnose(t, e, 0, engine.Spec{Args: profile(t, "inotify_init1", -1, 0), Env: []string{"ENTRYPOINT_WATCH=auto"}})
	f.want(t, map[string]string{"inotify": "missing"})
	if got := f.follows("watch"); got != "a look every 2s" {
		t.Errorf("watch: %s", got)
	}
	const setChildSubreaper = 36
	spec := engine.Spec{Args: profile(t, "prctl", 0, setChildSubreaper)}
	diagnose(t, e, 0, spec).want(t, map[string]string{"subreaper": "missing"})
	spec.Env = []string{"ENTRYPOINT_SUBREAPER=true"}
	diagnose(t, e, 1, spec).want(t, map[string]string{"subreaper": "fails"})
}

func hereLimits(t *testing.T, e engine.Engine) {
	f := diagnose(t, e, 0, engine.Spec{Args: []string{"--ulimit", "nofile=512:512", "--memory", "64m", "--pids-limit", "64"}})
	f.want(t, map[string]string{"nofile": "limited", "memory": "works", "pids": "works"})
	for name, want := range map[string]string{"nofile": "512 descriptors", "memory": "of 64 MiB in use", "pids": "of 64 processes"} {
		if _, found := f.row(name); !strings.Contains(found, want) {
			t.Errorf("%s: %s, want %s", name, found, want)
		}
	}
	f = diagnose(t, e, 0, engine.Spec{Network: "none", Args: []string{"--sysctl", "net.core.somaxconn=64"}, Env: []string{"ENTRYPOINT_LISTEN=tcp://:80?backlog=500"}})
	f.want(t, map[string]string{"somaxconn": "limited", "low ports": "works"})
	f = diagnose(t, e, 1, engine.Spec{Args: []string{"--cap-drop", "ALL"}, Env: []string{"ENTRYPOINT_USER=1000:1000"}})
	f.want(t, map[string]string{"rights": "fails"})
}

// hereStateDir: Docker mounts a tmpfs without exec unless told otherwise.
func hereStateDir(t *testing.T, e engine.Engine) {
	for args, want := range map[string]int{"--tmpfs /state": 1, "--tmpfs /state:exec": 0, "--tmpfs /state:exec --user 1000:1000 --cap-drop ALL": 0,
		"--tmpfs /state:exec,mode=0755 --user 1000:1000 --cap-drop ALL": 1} {
		f := diagnose(t, e, want, engine.Spec{ReadOnly: true, Args: strings.Fields(args), Env: []string{"ENTRYPOINT_STATE_DIR=/state"}})
		f.want(t, map[string]string{"state dir": map[int]string{0: "works", 1: "fails"}[want]})
	}
	diagnose(t, e, 1, engine.Spec{Env: []string{"ENTRYPOINT_STATE_DIR=/no/such/dir"}}).want(t, map[string]string{"state dir": "fails"})
}

// hereSameAsTheInit: what the doctor says that follows is what an init in the same container does.
func hereSameAsTheInit(t *testing.T, e engine.Engine) {
	for name, args := range map[string][]string{
		"nothing": nil, "memfd": profile(t, "memfd_create", -1, 0), "seccomp": profile(t, "seccomp", -1, 0), "steering": profile(t, "setsockopt", 2, 51),
	} {
		s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
		s.start(e, "version=v1", engine.Spec{Env: []string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr}, Args: args})
		s.waitVersion("v1")
		s.begins()
		code, text := s.exec("doctor", "--json")
		f := readFindings(t, code, 0, text)
		if f.Running == nil {
			t.Errorf("without %s: no init is known", name)
			continue
		}
		exec := map[string]string{"memfd": "private copies in memory", "path": "the program's own file"}[f.Running.Exec]
		steer := "all generations share one socket"
		if fmt.Sprint(f.Running.Sockets) == "[web steered]" {
			steer = "each generation has a socket of its own"
		}
		if f.follows("handoff") != f.Running.Handoff || f.follows("exec") != exec || f.follows("steer") != steer {
			t.Errorf("without %s: follows %+v, the init chose %+v", name, f.Follows, f.Running)
		}
	}
}
