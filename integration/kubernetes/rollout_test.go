//go:build kubernetes

package kubernetes

import (
	"cmp"
	"os"
	"testing"
)

// TestRollout: Kubernetes replaces all pods, twice, and no client notices. It takes a while until everybody has heard that a pod
// ends: so long the pod has to serve on, which ENTRYPOINT_SHUTDOWN_DELAY does. ROLLOUT_DELAY=0s shows what is lost without it.
func TestRollout(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{
		Replicas: 2, Container: probed,
		Env: map[string]string{
			"ENTRYPOINT_READY":          knownPort,
			"ENTRYPOINT_SHUTDOWN_DELAY": cmp.Or(os.Getenv("ROLLOUT_DELAY"), "10s"), "ENTRYPOINT_GRACE": "30s",
		},
	})
	s.underLoad()
	before := s.names()
	for range 2 {
		s.must("rollout", "restart", "deployment/web")
		s.rolledOut("web")
		s.must("wait", "pod", "--for=delete", "--timeout="+patience.String(), before[0], before[1])
		before = s.names()
		s.answered(100)
	}
	s.lossless()
}
