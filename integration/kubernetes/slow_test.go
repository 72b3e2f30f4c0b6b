//go:build kubernetes

package kubernetes

import (
	"cmp"
	"os"
	"testing"
)

// TestSlowStart: an app that needs seconds until it listens is no pod's readiness before that, if the check names its port. Which port an
// app will bind is not known before its first start: `auto` waits for a second then, and SLOW_READY=auto shows what is lost by that.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{
		Replicas: 2, Container: probed,
		Env: map[string]string{
			"TESTAPP": "boot=4s", "ENTRYPOINT_READY": cmp.Or(os.Getenv("SLOW_READY"), knownPort),
			"ENTRYPOINT_SHUTDOWN_DELAY": "10s", "ENTRYPOINT_GRACE": "30s",
		},
	})
	s.underLoad()
	s.must("rollout", "restart", "deployment/web")
	s.rolledOut("web")
	s.answered(100)
	s.lossless()
}
