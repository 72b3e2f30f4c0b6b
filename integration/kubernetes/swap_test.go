//go:build kubernetes

package kubernetes

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// TestReload: every pod of a Deployment is reloaded, three times, while clients of its Service go on.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{Replicas: 2, Container: probed})
	s.underLoad()
	for range 3 {
		for _, pod := range s.names() {
			before := s.status(pod).Active
			s.exec(pod, 0, "/entrypoint", "reload")
			if after := s.hashed(pod).Active; after != before+1 {
				t.Errorf("%s: generation %d after generation %d", pod, after, before)
			}
			s.answered(50)
		}
	}
	s.lossless()
	s.restarts(0)
	if n := len(s.names()); n != 2 {
		t.Errorf("%d pods are left", n)
	}
}

// nonRoot is a container that cannot write anywhere, and is not root.
const nonRoot = `
securityContext: {runAsUser: 65534, runAsGroup: 65534, readOnlyRootFilesystem: true}
`

// TestPut: a program reaches a scratch image that cannot be written to through standard input, and is refused where it is bad.
func TestPut(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{Container: probed + nonRoot})
	pod := s.names()[0]
	image := s.hashed(pod)
	if image.Drift || image.running() != image.Image {
		t.Errorf("the image's program runs: drift %v, %s, %s", image.Drift, image.running(), image.Image)
	}
	v2, sum := s.stamp("v2")
	s.underLoad()
	if said := s.put(pod, v2, 0); !strings.Contains(said, "a restart of the container runs the old program") {
		t.Errorf("put says: %s", said)
	}
	s.answeredBy("v2")
	st := s.hashed(pod)
	if !st.Drift || st.running() != sum || st.Image != image.Image {
		t.Errorf("drift %v, %s runs, want %s; image %s, was %s", st.Drift, st.running(), sum, st.Image, image.Image)
	}
	bad, _ := s.stamp("v3", "fail=9")
	if said := s.put(pod, bad, 1); !strings.Contains(said, "9") {
		t.Errorf("put of a program that ends says: %s", said)
	}
	s.put(pod, v2, 1, "--sha256", strings.Repeat("0", 64))
	if after := s.hashed(pod); after.Active != st.Active || after.running() != sum {
		t.Errorf("a refused program took the place: %+v", after)
	}
	s.lossless()
	s.restarts(0)
}

// TestCopy: kubectl cp, and what Tilt and Skaffold run, in an image from scratch with links of the names tar and rm. Each is one swap.
func TestCopy(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{Env: map[string]string{"ENTRYPOINT_WATCH": "auto"}, Container: probed + "securityContext: {runAsUser: 65534, runAsGroup: 65534}"})
	pod := s.names()[0]
	s.underLoad()
	for i, way := range []struct {
		name string
		copy func(file string)
	}{
		{"kubectl cp", func(file string) { s.must("cp", file, pod+":/app/server") }},
		{"kubectl cp --no-preserve", func(file string) { s.must("cp", "--no-preserve", file, pod+":/app/server") }},
		{"Tilt", func(file string) {
			s.execWith(pod, 0, archive(t, file), "tar", "-C", "/", "-x", "-v", "-f", "-")
			s.execWith(pod, 0, archive(t, file, "/app/old"), "tar", "-C", "/", "-x", "-f", "-")
			s.exec(pod, 0, "rm", "-rf", "/app/old", "/app/never")
		}},
		{"Skaffold", func(file string) {
			s.execWith(pod, 0, archive(t, file), "tar", "xmf", "-", "-C", "/", "--no-same-owner")
			s.exec(pod, 0, "rm", "-rf", "--", "/app/never")
		}},
	} {
		version := fmt.Sprintf("v%d", i+2)
		file, sum := s.stamp(version)
		way.copy(file)
		s.answeredBy(version)
		s.answered(300) // time enough for a swap too many
		if st := s.hashed(pod); st.swaps() != i+1 || st.running() != sum || !st.Drift {
			t.Errorf("after %s: %d swaps, want %d; %s runs, want %s; drift %v", way.name, st.swaps(), i+1, st.running(), sum, st.Drift)
		}
	}
	back := s.dir + "/back"
	s.must("cp", pod+":/app/server", back)
	if got, want := hashOf(t, back), s.status(pod).running(); got != want {
		t.Errorf("kubectl cp brings back %s, want %s", got, want)
	}
	s.lossless()
	s.restarts(0)
}

// TestRestart: what was put lasts as long as the container. The next container has the image's program, in the same pod.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{Container: probed})
	pod := s.pods()[0]
	name := pod.Metadata.Name
	image := s.hashed(name).Image
	v2, _ := s.stamp("v2")
	if said := s.put(name, v2, 0); !strings.Contains(said, "replaced /app/server") {
		t.Errorf("put says: %s", said)
	}
	if !s.hashed(name).Drift {
		t.Error("no drift is shown")
	}
	s.kill(pod)
	s.eventually("the container is restarted", func() error {
		p := s.pods()[0]
		if c := p.Status.ContainerStatuses[0]; p.Metadata.Name != name || c.RestartCount != 1 || !c.Ready {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	if st := s.hashed(name); st.Drift || st.Image != image || st.running() != image {
		t.Errorf("after the restart: drift %v, image %s, %s runs, want %s", st.Drift, st.Image, st.running(), image)
	}
	if said := s.must("logs", name, "-c", "app", "--previous"); !strings.Contains(said, "testapp v2 ") {
		t.Errorf("the log of the container before does not know v2: %s", said)
	}
}

// kill sends KILL to the first process of the pod's app, as the kernel does when memory is used up.
func (s *scene) kill(p pod) {
	s.t.Helper()
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	if _, err := node("ctr", "tasks", "kill", "--signal", "KILL", id); err != nil {
		s.t.Fatal(err)
	}
}

// archive is what tools send: the app's file under its whole path, and a few bytes at other paths.
func archive(t *testing.T, file string, more ...string) io.Reader {
	t.Helper()
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(path string, text []byte) {
		header := tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path, "/"), Mode: 0o755, Size: int64(len(text)), ModTime: time.Now()}
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	add("/app/server", program)
	for _, path := range more {
		add(path, []byte("old"))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}
