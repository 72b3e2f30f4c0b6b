//go:build integration

package integration

import (
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// The harness is shown to work with inits of other people, so that a red row below
// speaks of our init and not of the harness.

func TestHarness(t *testing.T) {
	on(t, "", func(t *testing.T, e engine.Engine) {
		t.Run("exit-codes", func(t *testing.T) { harnessExitCodes(t, e) })
		t.Run("files", func(t *testing.T) { harnessFiles(t, e) })
		t.Run("stop", func(t *testing.T) { harnessStop(t, e) })
		t.Run("hardened", func(t *testing.T) { harnessHardened(t, e) })
	})
}

func harnessExitCodes(t *testing.T, e engine.Engine) {
	for _, want := range []int{0, 1, 77, 255} {
		c := startPlain(t, e, engine.Spec{Init: []string{"/testapp", "tool", "exit", strconv.Itoa(want)}})
		if code, err := c.Wait(limit(t)); err != nil || code != want {
			t.Errorf("exit code %d (%v), want %d", code, err, want)
		}
	}
}

// harnessFiles serves without any init and replaces the app's file both ways.
func harnessFiles(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{Init: []string{server, "listen=tcp:" + s.addr}, Command: []string{}})
	s.waitVersion("v1")
	s.underLoad()
	s.put("version=v2")
	if err := s.c.Copy(s.stamp("version=v3"), "/app/other"); err != nil {
		t.Fatal(err)
	}
	code, out, err := engine.Exec(limit(t), s.c, "/app/other", "fail=9")
	if err != nil || code != 9 {
		t.Errorf("exec of the copied file: %d, %v, %s", code, err, out)
	}
	if err := s.c.Remove("/app/other"); err != nil {
		t.Error(err)
	}
	s.lossless()
}

func harnessStop(t *testing.T, e engine.Engine) {
	polite := startPlain(t, e, engine.Spec{Init: []string{"/testapp", "listen=none", "exit=5", "linger=0s"}})
	waitLog(t, polite, "serving")
	if err := polite.Stop(10 * time.Second); err != nil {
		t.Error(err)
	}
	if code, err := polite.Wait(limit(t)); err != nil || code != 5 {
		t.Errorf("after stop: %d, %v, want 5", code, err)
	}
	stubborn := startPlain(t, e, engine.Spec{Init: []string{"/testapp", "listen=none", "term=ignore"}})
	waitLog(t, stubborn, "serving")
	if err := stubborn.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if code, err := stubborn.Wait(limit(t)); err != nil || code != 137 {
		t.Errorf("after KILL: %d, %v, want 137", code, err)
	}
}

func harnessHardened(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "version=v1", engine.Spec{
		Init: []string{server, "listen=tcp:" + s.addr}, Command: []string{},
		User: "65534:65534", DropCaps: true, ReadOnly: true,
	})
	s.waitVersion("v1")
	st := s.state()
	if st.UID != 65534 || st.GID != 65534 || st.PID != 1 {
		t.Errorf("uid %d gid %d pid %d", st.UID, st.GID, st.PID)
	}
	if st.Status["CapBnd"] != "0000000000000000" || st.Status["NoNewPrivs"] != "1" {
		t.Errorf("privileges left: %v", st.Status)
	}
	if code, out, err := engine.Exec(limit(t), s.c, "/testapp", "tool", "mv", "/testapp", "/x"); err != nil || code == 0 {
		t.Errorf("the root file system can be written to: %d %v %s", code, err, out)
	}
}

// TestCalibration runs plain rows against tini, as the yardstick of these rows.
func TestCalibration(t *testing.T) {
	if _, err := exec.LookPath("tini"); err != nil {
		t.Skip("SKIPPED: tini is not installed")
	}
	on(t, "unshare", func(t *testing.T, e engine.Engine) {
		c := startPlain(t, e, engine.Spec{
			HostTools: true, Init: []string{"/usr/bin/tini", "--", "/testapp", "listen=none", "exit=3", "orphans=5"},
		})
		waitLog(t, c, "serving")
		if err := c.Stop(10 * time.Second); err != nil {
			t.Error(err)
		}
		if code, err := c.Wait(limit(t)); err != nil || code != 3 {
			t.Errorf("tini: %d, %v, want 3", code, err)
		}
	})
}
