//go:build kubernetes

package kubernetes

import (
	"strings"
	"testing"
)

// restricted is what Pod Security's strictest profile demands, and a root that cannot be written to.
const restricted = `
securityContext:
  runAsNonRoot: true
  runAsUser: 65534
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
`

// TestHardened: everything works where the cluster enforces the profile `restricted`, the transparent hand-off included.
func TestHardened(t *testing.T) {
	t.Parallel()
	s := newScene(t, "pod-security.kubernetes.io/enforce=restricted")
	code, _, said := s.run(nil, "run", "lax", "--image=localhost/app:v1", "--restart=Never")
	if code == 0 || !strings.Contains(said, `violates PodSecurity "restricted:latest"`) {
		t.Fatalf("the profile is not enforced: %d, %s", code, said)
	}
	s.deploy(workload{Replicas: 2, Container: probed + restricted})
	v2, sum := s.stamp("v2")
	s.underLoad()
	for _, pod := range s.names() {
		if st := s.status(pod); st.Handoff != "transparent" {
			t.Errorf("%s: the hand-off is %s: %s", pod, st.Handoff, st.HandoffWhy)
		}
		s.exec(pod, 0, "/entrypoint", "reload")
		s.put(pod, v2, 0)
		if st := s.hashed(pod); st.Active != 3 || st.running() != sum {
			t.Errorf("%s: generation %d, %s, want 3, %s", pod, st.Active, st.running(), sum)
		}
	}
	s.lossless()
	s.restarts(0)
}
