//go:build kubernetes

package kubernetes

import "testing"

// injected is the pod of TestInject: an init container brings the init, through a volume.
const injected = `
volumes: [{name: init, emptyDir: {}}]
initContainers:
- name: init
  image: localhost/init:v1
  imagePullPolicy: Never
  args: [install, /init]
  volumeMounts: [{name: init, mountPath: /init}]
` + securedPod

const securedPod = `securityContext: {runAsNonRoot: true, runAsUser: 65534, seccompProfile: {type: RuntimeDefault}}`

// TestInject: an image that knows nothing of the init is swapped in place, with nothing but a manifest.
func TestInject(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.binary = "/init/entrypoint"
	s.deploy(workload{
		Image: "localhost/plain:v1", Pod: injected,
		Container: `
command: [/init/entrypoint, /srv/server]
readinessProbe: {exec: {command: [/init/entrypoint, health]}, periodSeconds: 1, timeoutSeconds: 20}
volumeMounts: [{name: init, mountPath: /init, readOnly: true}]
`,
	})
	pod := s.names()[0]
	v2, sum := s.stamp("v2")
	s.underLoad()
	s.put(pod, v2, 0)
	s.answeredBy("v2")
	if st := s.hashed(pod); st.running() != sum || !st.Drift || st.PID != 1 {
		t.Errorf("status %+v, want %s", st, sum)
	}
	s.lossless()
	s.restarts(0)
}

// keeper is the pod of TestSidecar: a sidecar that starts first and stays brings the init, and asks for swaps through another volume.
const keeper = `
volumes: [{name: init, emptyDir: {}}, {name: asks, emptyDir: {}}]
initContainers:
- name: keeper
  image: localhost/box:v1
  imagePullPolicy: Never
  restartPolicy: Always
  command: [/bin/sh, -c, "/entrypoint install /init && exec /bin/sleep 100000"]
  startupProbe: {exec: {command: [/init/entrypoint, version]}, periodSeconds: 1, failureThreshold: 60, timeoutSeconds: 20}
  volumeMounts: [{name: init, mountPath: /init}, {name: asks, mountPath: /asks}]
` + securedPod

// TestSidecar: a container beside the app brings the init too, and has the app swapped by a file that both see; it could not talk to the init.
func TestSidecar(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.binary = "/init/entrypoint"
	s.deploy(workload{
		Image: "localhost/plain:v1", Pod: keeper, Env: map[string]string{"ENTRYPOINT_WATCH": "/asks/swap=trigger"},
		Container: `
command: [/init/entrypoint, /srv/server]
readinessProbe: {exec: {command: [/init/entrypoint, health]}, periodSeconds: 1, timeoutSeconds: 20}
volumeMounts: [{name: init, mountPath: /init, readOnly: true}, {name: asks, mountPath: /asks, readOnly: true}]
`,
	})
	pod := s.names()[0]
	s.underLoad()
	for gen := 2; gen <= 3; gen++ {
		s.must("exec", pod, "-c", "keeper", "--", "/bin/sh", "-c", "echo now >/asks/swap")
		s.eventually("it is swapped", func() error { return s.active(pod, gen) })
	}
	if code, _, said := s.run(nil, "exec", pod, "-c", "keeper", "--", "/entrypoint", "reload"); code != 4 {
		t.Errorf("the sidecar reaches the init: %d %s", code, said)
	}
	s.lossless()
	s.restarts(0)
}
