//go:build kubernetes

package kubernetes

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// volumes mounts the two ConfigMaps of TestConfigMap.
const volumes = `
volumes:
- {name: settings, configMap: {name: settings}}
- {name: limits, configMap: {name: limits}}
`

// TestConfigMap: the kubelet changes a volume by flipping a link; each flip of what is watched is one swap, or one signal, as configured.
func TestConfigMap(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.configMap("settings", "app.conf", "version=c0")
	s.configMap("limits", "limits.conf", "0")
	s.deploy(workload{
		Pod: volumes,
		Env: map[string]string{
			"TESTAPP_FILE":     "/etc/settings/app.conf",
			"ENTRYPOINT_WATCH": "/etc/settings/app.conf,/etc/limits/*.conf=signal:USR1",
		},
		Container: probed + "volumeMounts: [{name: settings, mountPath: /etc/settings}, {name: limits, mountPath: /etc/limits}]",
	})
	pod := s.names()[0]
	s.underLoad()
	for i := 1; i <= 3; i++ {
		version := fmt.Sprintf("c%d", i)
		s.configMap("settings", "app.conf", "version="+version)
		s.syncNow(pod)
		s.answeredBy(version)
		s.configMap("limits", "limits.conf", fmt.Sprint(i))
		s.syncNow(pod)
		s.waitLog(pod, ": signal 10\n", i)
	}
	s.answered(300) // time enough for a swap or a signal too many
	if st := s.status(pod); st.swaps() != 3 || st.Active != 4 {
		t.Errorf("%d swaps to generation %d, want 3 to generation 4", st.swaps(), st.Active)
	}
	s.waitLog(pod, ": signal 10\n", 3)
	s.lossless()
	s.restarts(0)
}

// configMap makes or replaces a ConfigMap of one file.
func (s *scene) configMap(name, file, text string) {
	s.t.Helper()
	s.apply(fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s}, data: {%s: %q}}", name, file, text))
}

// syncNow makes the kubelet look at the pod at once, and not within a minute: it does for every change of the pod.
func (s *scene) syncNow(pod string) {
	s.t.Helper()
	s.must("annotate", "pod", pod, "--overwrite", "touched="+strings.ReplaceAll(time.Now().Format(time.RFC3339Nano), ":", ""))
}
