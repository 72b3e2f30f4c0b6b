//go:build integration

package integration

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// rolledBack goes back to bytes whose file is gone, and does not take the bad ones again by mistake.
func rolledBack(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_WATCH=auto,/app/touched=trigger")
	s.says(s.feed(nil, "rollback"), 1, "cannot roll back", "no other bytes were active")
	s.underLoad()
	s.uploaded("version=v2")
	s.overlooked(1)
	s.uploaded("version=v3")
	s.overlooked(2)
	if err := s.c.Remove(server); err != nil {
		t.Fatal(err)
	}
	s.says(s.feed(nil, "rollback"), 0, "generation 4")
	s.serves("v2", 4)
	s.barred()
	s.says(s.undisturbed("reload", "--force"), 0, "generation 5")
	s.serves("v3", 5)
	s.says(s.undisturbed("rollback"), 0, "generation 6")
	s.serves("v2", 6)
	s.put("version=v4") // the watch sees it
	s.waitVersion("v4")
	s.serves("v4", 7)
	s.lossless()
}

// overlooked waits until the watch has asked so often for what put had brought: meanwhile the init is busy.
func (s *scene) overlooked(n int) {
	s.t.Helper()
	s.eventually("the watch has seen the file of put", func() error {
		if strings.Count(s.c.Logs(), `"nothing to swap"`) < n {
			return errAgain
		}
		return nil
	})
}

// barred puts the bytes that were rolled back into the file again, and asks for them in every way.
func (s *scene) barred() {
	s.t.Helper()
	const sentence = "it still has the bytes that were rolled back"
	refused := func(cause string) func(status) bool {
		return func(st status) bool {
			return slices.ContainsFunc(st.swaps(), func(r swapRecord) bool {
				return r.Code == 1 && strings.Contains(r.Cause, cause) && strings.Contains(r.Text, sentence)
			})
		}
	}
	s.put("version=v3") // a change for the watch only if it has seen that the file was gone
	s.copyIn(s.stamp("version=touch"), "/app/touched")
	s.waitStatus("what the watch asks for is refused", refused("watch /app/")) // the two may be one event
	s.says(s.undisturbed("reload"), 1, sentence, "put others there, or use `entrypoint reload --force`")
	s.signal(syscall.SIGHUP)
	s.waitStatus("the swap by HUP is refused", refused("HUP"))
	s.serves("v2", 4)
}

// undisturbed is a command's reply, once no swap that the watch or a signal has asked for is in its way.
func (s *scene) undisturbed(args ...string) (r reply) {
	s.t.Helper()
	s.eventually("nothing else is going on", func() error {
		if r = s.feed(nil, args...); r.code == 3 {
			return fmt.Errorf("busy: %v", r)
		}
		return nil
	})
	return r
}

// rolledBackByItself: a build that goes on crashing gives way to what served before, and the container stays.
func rolledBackByItself(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_ROLLBACK=auto", "ENTRYPOINT_RESTART=on-failure",
		"ENTRYPOINT_START_LIMIT_BURST=1", "ENTRYPOINT_RESTART_DELAY=10ms")
	s.uploaded("version=v2", "--wait", "drained")
	for gen := 2; gen <= 3; gen++ { // the first crash is restarted
		s.eventually(fmt.Sprintf("generation %d serves", gen), func() error {
			w, err := s.who()
			if err == nil && (w.gen != gen || w.version != "v2") {
				err = fmt.Errorf("%+v answers", w)
			}
			return err
		})
		if _, err := s.get("/exit?code=9"); err != nil {
			t.Logf("the crash was quicker than its answer: %v", err)
		}
	}
	s.waitVersion("v1")
	st := s.settled() // it answers before that, where nobody else does
	s.serves("v1", 4)
	if last := st.LastSwaps[len(st.LastSwaps)-1]; last.Code != 0 || !strings.Contains(last.Cause, "crash") || st.Restarts != 1 {
		t.Errorf("last swap %+v, %d restarts", last, st.Restarts)
	}
	s.says(s.feed(nil, "reload"), 1, "it still has the bytes that were rolled back") // put had replaced the file
	one := play(t, e, "version=v1", "ENTRYPOINT_KEEP=1")
	one.uploaded("version=v2")
	one.says(one.feed(nil, "rollback"), 1, "the bytes of earlier generations are not kept", "set ENTRYPOINT_KEEP to 2 or more")
	one.serves("v2", 2)
}
