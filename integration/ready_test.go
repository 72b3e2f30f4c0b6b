//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// TestReady shows each kind of check on a candidate that answers, and on one that answers nothing but errors while the
// old generation, on the same address, answers well: a check that reached whoever answers would let it through.
func TestReady(t *testing.T) {
	check := func(ready string, whenBad int, says string, env ...string) row {
		name, _, _ := strings.Cut(ready, ":")
		return row{strings.Join(append(env, name+"-"+says), "-"), func(t *testing.T, e engine.Engine) { readiness(t, e, ready, whenBad, says, env) }}
	}
	const shared = "ENTRYPOINT_STEER=off"
	table(t, "unshare", []row{
		check("http://ADDR/health", 1, "answered 500"),
		check("http://ADDR/health,delay:50ms", 1, "answered 500"),
		check("tcp://ADDR", 0, "is active"),
		check("http://ADDR/health;status=200+500", 0, "is active"),
		check("http://ADDR/health;status=200", 1, "answered 500", shared),
		check("http://ADDR/health;failures=9;successes=3;period=10ms", 1, "9 times in a row"),
		check("exec:/bin/true", 0, "is active"),
		check("exec:/bin/sh -c 'curl -fsS --noproxy \"*\" http://$ENTRYPOINT_CANDIDATE_ADDRESS/health'", 1, "returned error: 500"),
		check("exec:/usr/bin/grep -q 200 /app/code", 1, "exited with code 1"),
		check("delay:200ms", 0, "is active"),
		check("accept", 0, "is active"),
		{"notify-command", notifyCommand},
	})
}

// notifyCommand: a script says that it is ready, and how it is, with the init's own binary.
func notifyCommand(t *testing.T, e engine.Engine) {
	s := &scene{t: t, c: startPlain(t, e, engine.Spec{
		HostTools: true, Env: []string{"ENTRYPOINT_HANDOFF=none", "ENTRYPOINT_READY=notify"},
		Command: []string{"/bin/sh", "-c", "sleep 0.2; /entrypoint notify READY=1 STATUS=warm; exec sleep 1000"},
	})}
	s.waitStatus("it is ready by its own word", func(st status) bool {
		return st.Active == 1 && len(st.Generations) == 1 && st.Generations[0].StatusText == "warm"
	})
	s.reload(0)
}

func readiness(t *testing.T, e engine.Engine, ready string, whenBad int, says string, env []string) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	code := func(text string) string {
		file := filepath.Join(s.dir, "code-"+text)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	s.c = startPlain(t, e, engine.Spec{
		HostTools: true, Command: []string{"/usr/bin/python3", "/app/health.py"},
		Files: map[string]string{"/app/health.py": "testdata/health.py", "/app/code": code("200")},
		Env: append([]string{
			"ENTRYPOINT_LISTEN=tcp://" + s.addr, "ENTRYPOINT_START_TIMEOUT=10s",
			"ENTRYPOINT_READY=" + strings.ReplaceAll(ready, "//ADDR", "//"+s.addr),
		}, env...),
	})
	s.waitStatus("the first one serves", func(st status) bool { return st.Active == 1 && st.State == "serving" })
	s.reload(0)
	if got, err := s.get("/"); err != nil || got != "200" { // it has read its code by now
		t.Fatalf("answers %q, %v", got, err)
	}
	if err := s.c.Put(code("500"), "/app/code"); err != nil {
		t.Fatal(err)
	}
	if out := s.reload(whenBad); !strings.Contains(out, says) {
		t.Errorf("reload says %q, want %q", out, says)
	}
	s.settled() // a candidate that was refused has a shared socket until it has ended
	want := map[int]string{0: "500", 1: "200"}[whenBad]
	if got, err := s.get("/"); err != nil || got != want {
		t.Errorf("answers %q, %v; want %s", got, err, want)
	}
}
