//go:build kubernetes

package kubernetes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// deployed is the folder of manifests that people start from.
const deployed = "../../deploy/kubernetes"

// TestManifests: all of them, brought up by `kubectl apply -k` with other images, which is one line each, are Ready and can be swapped.
func TestManifests(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.container = "server"
	s.must("apply", "-k", kustomized(t))
	workloads := strings.Fields(s.must("get", "deployments", "-o", "jsonpath={.items[*].metadata.name}"))
	if len(workloads) != manifests(t) {
		t.Errorf("%d manifests have made the deployments %v", manifests(t), workloads)
	}
	for _, name := range workloads {
		s.rolledOut(name)
	}
	v2, sum := s.stamp("v2")
	for _, name := range workloads {
		s.app, s.binary = name, "/entrypoint"
		switch name {
		case "injected":
			s.binary = "/init/entrypoint"
		case "configured":
			s.configurable()
			continue
		case "dev":
			s.must("cp", v2, s.names()[0]+":/app/server")
			s.eventually("the copy is swapped in", func() error { return s.active(s.names()[0], 2) })
		}
		s.underLoad()
		s.hotswap(0, "push", v2, "deploy/"+name)
		s.runs(sum, len(s.names()))
		s.lossless()
		s.restarts(0)
	}
}

// configurable changes the settings of configmap.yaml and expects one swap of each pod.
func (s *scene) configurable() {
	s.t.Helper()
	s.underLoad()
	s.configMap("configured", "app.env", "TESTAPP=version=c2")
	pods := s.names()
	for _, pod := range pods {
		s.syncNow(pod)
	}
	for _, pod := range pods {
		s.eventually("the new settings are in force", func() error { return s.active(pod, 2) })
		s.eventually("the app has its new settings", func() error {
			if said := s.log(pod); !strings.Contains(said, "testapp c2 ") {
				return errors.New(said)
			}
			return nil
		})
	}
	s.lossless()
	s.restarts(0)
}

// TestRestrictedManifests: those that promise it stand the strictest profile of Pod Security, as they are.
func TestRestrictedManifests(t *testing.T) {
	t.Parallel()
	s := newScene(t, "pod-security.kubernetes.io/enforce=restricted")
	s.container = "server"
	v2, sum := s.stamp("v2")
	for name, binary := range map[string]string{"hardened": "/entrypoint", "injected": "/init/entrypoint"} {
		s.app, s.binary = name, binary
		s.must("apply", "-f", filepath.Join(deployed, name+".yaml"))
		s.rolledOut(name)
		s.hotswap(0, "push", v2, "deploy/"+name)
		s.runs(sum, 2)
		s.restarts(0)
	}
}

// kustomized is a copy of the manifests with this test's images: what a user does.
func kustomized(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(deployed)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "kustomization.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"server": "app", "entrypoint": "init", "plain": "plain"} {
		line := fmt.Sprintf("newName: %s,", from)
		if !strings.Contains(string(text), line) {
			t.Fatalf("kustomization.yaml has no line for the image %s:\n%s", from, text)
		}
		text = []byte(strings.ReplaceAll(string(text), line, fmt.Sprintf("newName: localhost/%s,", to)))
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// manifests counts the files that are one Deployment each.
func manifests(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(deployed, "*.yaml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("there are no manifests in %s: %v", deployed, err)
	}
	return len(files) - 1
}
