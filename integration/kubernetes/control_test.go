//go:build kubernetes

package kubernetes

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
)

// TestControl: what an operator does with a pod by kubectl alone: send a signal, look, read the log.
func TestControl(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{Container: probed})
	pod := s.names()[0]
	s.exec(pod, 0, "/entrypoint", "signal", "USR1")
	s.waitLog(pod, ": signal 10\n", 1)
	v2, sum := s.stamp("v2")
	s.put(pod, v2, 0)
	if st := s.status(pod); st.State != "serving" && st.State != "swapping" || st.Active != 2 || st.PID != 1 {
		t.Errorf("status %+v", st)
	}
	s.eventually("the swap is summed up in the log", func() error { // which the container's runtime writes, some time after put has its answer
		if len(s.summaries(pod)) == 0 {
			return errors.New("there is no line")
		}
		return nil
	})
	if lines := s.summaries(pod); len(lines) != 1 || lines[0].From != 1 || lines[0].To != 2 {
		t.Errorf("the summaries of one swap in the log: %+v", lines)
	}
	if !strings.Contains(s.log(pod), sum) {
		t.Errorf("the log does not name the hash %s", sum)
	}
	// A container for debugging sees our init as its own PID 1, and may signal it as root or as the same user.
	s.must("debug", pod, "--image=localhost/box:v1", "--image-pull-policy=Never", "--target=app", "--container=look", "--profile=general", "--", "kill", "-HUP", "1")
	s.eventually("a reload by HUP", func() error { return s.active(pod, 3) })
	s.restarts(0)
}

// summary is the one line of our log about a swap.
type summary struct {
	Msg      string
	From, To int
}

// summaries are the lines about swaps, without the first start, in a pod's log.
func (s *scene) summaries(pod string) []summary {
	s.t.Helper()
	var found []summary
	for line := range strings.Lines(s.log(pod)) {
		var one summary
		if json.Unmarshal([]byte(line), &one) == nil && one.Msg == "swap" && one.From > 0 {
			found = append(found, one)
		}
	}
	return found
}

// shared is a pod whose containers see each other's processes, with a sidecar of another user and one of the same.
const (
	shared   = "shareProcessNamespace: true"
	sidecars = `
- {name: other, image: "localhost/box:v1", imagePullPolicy: Never, securityContext: {runAsUser: 2000}}
- {name: twin, image: "localhost/box:v1", imagePullPolicy: Never, securityContext: {runAsUser: 1000}}
- {name: root, image: "localhost/box:v1", imagePullPolicy: Never, securityContext: {runAsUser: 0}}
`
)

// TestSharedProcesses: the init is not PID 1 then. Its own container reaches it all the same, and no other container does, although
// they share the network, in which the names of its sockets are visible.
func TestSharedProcesses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{Pod: shared, Others: sidecars, Container: probed + "securityContext: {runAsUser: 1000}"})
	pod := s.names()[0]
	s.underLoad()
	if st := s.status(pod); st.PID == 1 {
		t.Error("the init is PID 1: the pod's containers do not share their processes")
	}
	s.exec(pod, 0, "/entrypoint", "reload")
	sockets := s.must("exec", pod, "-c", "other", "--", "cat", "/proc/net/unix")
	name := regexp.MustCompile(`@entrypoint/\d+/\d+`).FindString(sockets)
	if name == "" {
		t.Fatalf("the socket's name is not visible to a sidecar:\n%s", sockets)
	}
	for _, sidecar := range []string{"other", "twin", "root"} {
		for _, way := range [][]string{
			{"/entrypoint", "reload"}, {"/bin/env", "ENTRYPOINT_CONTROL=" + name, "/entrypoint", "reload"},
		} {
			code, out, said := s.run(nil, append([]string{"exec", pod, "-c", sidecar, "--"}, way...)...)
			t.Logf("%s %q: %d %s", sidecar, way, code, said)
			if code != 4 || out != "" {
				t.Errorf("%s reaches the init by %q: %d %s%s", sidecar, way, code, out, said)
			}
		}
	}
	if st := s.status(pod); st.Active != 2 {
		t.Errorf("generation %d is active, want 2", st.Active)
	}
	s.lossless()
	s.restarts(0)
}
