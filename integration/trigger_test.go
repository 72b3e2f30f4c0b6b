//go:build integration

package integration

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

var errAgain = errors.New("not yet")

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestTriggers(t *testing.T) {
	table(t, "", []row{
		{"hup-flood", hupFlood},
		{"two-reloads", twoReloads},
		{"client-killed", clientKilled},
		{"client-timeout", clientTimeout},
		{"remapped", remapped},
		{"restart", restarted},
		{"hardened", hardened},
		{"hardened-read-only", hardenedReadOnly},
		{"user-words", userWords},
	})
}

// hupFlood: however many come during a swap, exactly one more follows.
func hupFlood(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	s.put("version=v2 boot=4s")
	s.signal(syscall.SIGHUP)
	s.waitStatus("there is a candidate", func(st status) bool { return st.Candidate == 2 })
	for range 1000 {
		must(s, syscall.Kill(s.c.PID(), syscall.SIGHUP))
	}
	s.waitVersion("v2")
	st := s.waitStatus("the remembered swap is over", func(st status) bool {
		return len(st.swaps()) >= 2 && st.Candidate == 0 && st.live() == 1 && st.State == "serving"
	})
	s.lossless()
	if st.Active != 3 || len(st.swaps()) != 2 {
		t.Errorf("1,000 HUPs during a swap: active %d after %d swaps, want 3 after 2", st.Active, len(st.swaps()))
	}
}

func twoReloads(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.put("version=v2 boot=6s")
	first, out := s.background("reload")
	s.waitStatus("there is a candidate", func(st status) bool { return st.Candidate == 2 })
	s.reload(3)
	if err := first.Wait(); err != nil {
		t.Errorf("the first reload: %v: %s", err, out)
	}
	s.waitVersion("v2")
}

// clientKilled: a swap does not need whoever asked for it.
func clientKilled(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	s.put("version=v2 boot=4s")
	client, _ := s.background("reload")
	s.waitStatus("there is a candidate", func(st status) bool { return st.Candidate == 2 })
	must(s, client.Process.Kill())
	client.Wait()
	s.waitVersion("v2")
	s.settled()
	s.lossless()
}

func clientTimeout(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.begins()
	s.put("version=v2 boot=5s")
	if code, out := s.exec("reload", "--timeout", "100ms"); code != 124 {
		t.Errorf("reload --timeout 100ms: %d %s", code, out)
	}
	s.waitVersion("v2")
}

// remapped: signals mean what ENTRYPOINT_SIGNALS says.
func remapped(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1 exit=5", "ENTRYPOINT_SIGNALS=HUP=forward,USR2=reload,WINCH=ignore,QUIT=USR1,INT=stop")
	s.put("version=v2 exit=6")
	s.signal(syscall.SIGHUP)
	s.signal(syscall.SIGWINCH)
	s.signal(syscall.SIGQUIT)
	s.eventually("HUP and USR1 arrive", func() error {
		if got := strings.Join(s.state().Signals, " "); got != "1 10" && got != "10 1" {
			return fmt.Errorf("signals %q", got)
		}
		return nil
	})
	s.signal(syscall.SIGUSR2)
	s.waitStatus("v2 is active", func(st status) bool { return st.Active == 2 }) // its exit code counts from then on
	s.waitVersion("v2")
	s.signal(syscall.SIGINT)
	s.waitExit(6)
}

func restarted(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.begins()
	old, _ := s.who()
	s.underLoad()
	if code, out := s.exec("restart"); code != 0 {
		t.Errorf("restart: %d %s", code, out)
	}
	w, err := s.who()
	if err != nil || w.pid == old.pid || w.version != "v1" {
		t.Errorf("after restart: %+v %v", w, err)
	}
	s.lossless()
}

// hardened: no root, no capability, no new privileges; all commands work.
func hardened(t *testing.T, e engine.Engine) {
	s := playSpec(t, e, "version=v1", engine.Spec{User: "65534:65534", DropCaps: true})
	s.everyCommand()
}

// hardenedReadOnly: and no path that can be written to.
func hardenedReadOnly(t *testing.T, e engine.Engine) {
	s := playSpec(t, e, "version=v1", engine.Spec{User: "65534:65534", DropCaps: true, ReadOnly: true})
	s.everyCommand()
}

func (s *scene) everyCommand() {
	s.t.Helper()
	s.underLoad()
	s.put("version=v2")
	s.reload(0)
	s.waitVersion("v2")
	s.put("version=v3 fail=1")
	s.reload(1)
	s.put("version=v4")
	s.signal(syscall.SIGHUP)
	s.waitVersion("v4")
	s.settled()
	for _, words := range []string{"status", "status --json", "ps", "health", "config", "version", "signal USR1"} {
		if code, out := s.exec(strings.Fields(words)...); code != 0 || out == "" {
			s.t.Errorf("%s: %d %q", words, code, out)
		}
	}
	s.lossless()
}

// userWords: usage errors, the code without an init, and a command that has the name
// of a word.
func userWords(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	for words, want := range map[string]int{"reload --nonsense": 2, "signal NOSUCH": 2, "help": 0, "check": 0} {
		if code, out := s.exec(strings.Fields(words)...); code != want {
			t.Errorf("%s: code %d, want %d: %s", words, code, want, out)
		}
	}
	c := startPlain(t, e, engine.Spec{Init: []string{"/entrypoint", "status"}})
	if code, err := c.Wait(limit(t)); err != nil || code != 4 {
		t.Errorf("status without an init: %d %v", code, err)
	}
	faulty := startPlain(t, e, engine.Spec{Command: []string{"/testapp"}, Env: []string{"ENTRYPOINT_LISTN=x", "ENTRYPOINT_DRAIN_TIMEOUT=soon"}})
	if code, err := faulty.Wait(limit(t)); err != nil || code != 78 {
		t.Errorf("faulty configuration: %d %v", code, err)
	}
	for _, name := range []string{"ENTRYPOINT_LISTN", "ENTRYPOINT_DRAIN_TIMEOUT"} {
		if !strings.Contains(faulty.Logs(), name) {
			t.Errorf("the faults do not name %s: %s", name, faulty.Logs())
		}
	}
}
