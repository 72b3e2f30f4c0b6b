//go:build integration

package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

func TestHooks(t *testing.T) {
	table(t, "unshare", []row{
		{"order", hooksInOrder},
		{"refuse", hooksRefuse},
		{"too-slow", hookTooSlow},
		{"stop-and-abort", hooksEnded},
	})
}

// playHooks starts the app with one script for all of these moments.
func playHooks(t *testing.T, e engine.Engine, script string, moments []string, env ...string) *scene {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hook")
	must(&scene{t: t}, os.WriteFile(file, []byte("#!/bin/sh\n"+script), 0o755))
	for _, m := range moments {
		env = append(env, "ENTRYPOINT_HOOK_"+m+"=/hook")
	}
	return playSpec(t, e, "version=v1", engine.Spec{HostTools: true, Env: env, Files: map[string]string{"/hook": file}})
}

var allMoments = []string{"PRE_START", "PRE_PROMOTE", "POST_PROMOTE", "DRAINED", "FAILED", "EXIT"}

// said lists what hooks have written, as the log has it.
func (s *scene) said() []string {
	var lines []string
	for line := range strings.Lines(s.c.Logs()) {
		var record struct{ Msg, Line string }
		if json.Unmarshal([]byte(line), &record) == nil && record.Msg == "hook says" {
			lines = append(lines, record.Line)
		}
	}
	return lines
}

const tellAll = `echo "$ENTRYPOINT_HOOK_EVENT $ENTRYPOINT_HOOK_GENERATION<$ENTRYPOINT_HOOK_PREVIOUS active $ENTRYPOINT_HOOK_ACTIVE code $ENTRYPOINT_HOOK_CODE"
[ -z "$LISTEN_FDS$NOTIFY_SOCKET" ] || echo "has the app's sockets"
[ ${#ENTRYPOINT_HOOK_SHA256} = 64 ] || [ $ENTRYPOINT_HOOK_EVENT = exit ] || [ $ENTRYPOINT_HOOK_EVENT = drained ] || echo "$ENTRYPOINT_HOOK_EVENT has no hash"
case $ENTRYPOINT_HOOK_SOCKETS in web=*) ;; *) echo "no sockets: $ENTRYPOINT_HOOK_SOCKETS";; esac
`

func hooksInOrder(t *testing.T, e engine.Engine) {
	s := playHooks(t, e, tellAll, allMoments)
	s.underLoad()
	s.put("version=v2")
	s.reload(0)
	s.settled()
	s.put("version=v3 fail=7")
	s.reload(1)
	s.settled()
	s.lossless()
	s.eventually("the failure was told", func() error {
		if !slices.Contains(s.said(), "failed 3<2 active 2 code 1") {
			return errAgain
		}
		return nil
	})
	s.signal(syscall.SIGTERM)
	s.waitExit(0)
	want := []string{
		"pre_start 1< active  code 0", "pre_promote 1< active  code 0", "post_promote 1< active 1 code 0",
		"pre_start 2<1 active 1 code 0", "pre_promote 2<1 active 1 code 0", "post_promote 2<1 active 2 code 0", "drained 1< active 2 code 0",
		"pre_start 3<2 active 2 code 0", "failed 3<2 active 2 code 1", "exit 2< active  code 0",
	}
	if got := s.said(); !slices.Equal(got, want) {
		t.Errorf("the hooks said\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func hooksRefuse(t *testing.T, e engine.Engine) {
	s := playHooks(t, e, `[ ! -e /tmp/refuse-$ENTRYPOINT_HOOK_EVENT ] || { echo "cannot reach the balancer" >&2; exit 3; }`, []string{"PRE_START", "PRE_PROMOTE"})
	s.begins()
	s.underLoad()
	for _, moment := range []string{"pre_start", "pre_promote"} {
		runIn(s, "touch", "/tmp/refuse-"+moment)
		s.put("version=v2")
		if out := s.reload(1); !strings.Contains(out, "the hook "+moment+" failed: exited with code 3") || !strings.Contains(out, "serves on") {
			t.Errorf("%s: reload said %s", moment, out)
		}
		if st := s.settled(); st.LastSwaps[len(st.LastSwaps)-1].Phase != "hook" {
			t.Errorf("%s: the record is %+v", moment, st.LastSwaps)
		}
		s.waitVersion("v1")
		runIn(s, "rm", "/tmp/refuse-"+moment)
	}
	s.reload(0)
	s.waitVersion("v2")
	s.settled()
	s.lossless()
	s.eventually("both have said it", func() error { // the log is written by a goroutine of its own
		if len(s.said()) < 2 {
			return errAgain
		}
		return nil
	})
	if got := s.said(); !slices.Equal(got, []string{"cannot reach the balancer", "cannot reach the balancer"}) {
		t.Errorf("the hooks said %q", got)
	}
}

// runIn runs a program of the machine in the container.
func runIn(s *scene, argv ...string) {
	s.t.Helper()
	if code, out, err := engine.Exec(limit(s.t), s.c, argv...); err != nil || code != 0 {
		s.t.Fatalf("%v: %d %v %s", argv, code, err, out)
	}
}

func hookTooSlow(t *testing.T, e engine.Engine) {
	s := playHooks(t, e, `[ $ENTRYPOINT_HOOK_GENERATION = 1 ] || sleep 1000`, []string{"PRE_PROMOTE"}, "ENTRYPOINT_HOOK_TIMEOUT=5s") // the first one's shell has to start in it
	s.begins()
	if out := s.reload(1); !strings.Contains(out, "it took longer than 5s and was killed") {
		t.Errorf("reload said %s", out)
	}
	s.settled()
}

func hooksEnded(t *testing.T, e engine.Engine) {
	s := playHooks(t, e, `[ $ENTRYPOINT_HOOK_GENERATION = 1 ] || { echo begun $$; sleep 1000; }`, []string{"PRE_PROMOTE", "PRE_START"}, "ENTRYPOINT_HOOK_TIMEOUT=1h")
	begun := func(n int) {
		s.eventually("the hook has begun", func() error {
			if len(s.said()) < n {
				return errAgain
			}
			return nil
		})
	}
	s.begins()
	first, out := s.background("reload")
	begun(1)
	if code, out := s.exec("abort"); code != 0 {
		t.Errorf("abort: %d %s", code, out)
	}
	if err := first.Wait(); err == nil {
		t.Errorf("the reload that was aborted ended well: %s", out)
	}
	s.settled()
	s.none("sleep")
	second, _ := s.background("reload")
	begun(2)
	s.signal(syscall.SIGTERM)
	s.waitExit(0)
	second.Wait()
}

// none waits until no process of that name is left in the container.
func (s *scene) none(name string) {
	s.t.Helper()
	s.eventually("no "+name+" is left", func() error {
		_, out, err := engine.Exec(limit(s.t), s.c, "sh", "-c", "cat /proc/[0-9]*/comm")
		if err == nil && strings.Contains("\n"+out, "\n"+name+"\n") {
			err = errAgain
		}
		return err
	})
}
