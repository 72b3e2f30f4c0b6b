//go:build kubernetes

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// pushed is what `kubectl hotswap --json` prints.
type pushed struct {
	Code int
	Text string
	Pods []struct {
		Pod, Result, Text string
		Code              int
		Before            int `json:"generation_before"`
		After             int `json:"generation"`
		SHA256            string
	}
}

// results are the words of all rows, in their order.
func (p pushed) results() string {
	var words []string
	for _, row := range p.Pods {
		words = append(words, row.Result)
	}
	return strings.Join(words, ", ")
}

// hotswap runs the plugin as a user does, and wants this exit code.
func (s *scene) hotswap(want int, args ...string) pushed {
	s.t.Helper()
	args = append([]string{"hotswap"}, append(args, "--json", "--namespace", s.ns)...)
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*patience)
	defer cancel()
	cmd := s.command(ctx, args...)
	cmd.Args = append(cmd.Args[:1], args...) // a plugin gets only what stands behind its name
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != want {
		s.t.Fatalf("kubectl %q: exit code %d, want %d: %v\n%s", args, code, want, err, out)
	}
	var p pushed
	if want == 2 {
		return p
	}
	if err := json.Unmarshal(out, &p); err != nil {
		s.t.Fatalf("kubectl %q: %v\n%s", args, err, out)
	}
	if p.Code != want {
		s.t.Errorf("kubectl %q: code %d in the answer, want %d", args, p.Code, want)
	}
	return p
}

// runs fails the test unless exactly so many pods run this program.
func (s *scene) runs(sum string, want int) {
	s.t.Helper()
	n := 0
	for _, pod := range s.names() {
		if s.hashed(pod).running() == sum {
			n++
		}
	}
	if n != want {
		s.t.Errorf("%d pods run %.12s, want %d", n, sum, want)
	}
}

// TestPlugin: kubectl hotswap over two and over three replicas, while clients of the Service go on.
func TestPlugin(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{Replicas: 2, Container: probed + nonRoot, Env: map[string]string{"ENTRYPOINT_READY": knownPort}})
	v2, sum2 := s.stamp("v2")
	v3, sum3 := s.stamp("v3")
	bad, _ := s.stamp("v4", "fail=9")
	s.underLoad()

	p := s.hotswap(0, "push", v2, "deploy/web")
	if p.results() != "done, done" {
		t.Errorf("push: %s", p.results())
	}
	for _, row := range p.Pods {
		if row.Before != 1 || row.After != 2 || row.SHA256 != sum2 {
			t.Errorf("push: %+v", row)
		}
	}
	s.runs(sum2, 2)
	if p := s.hotswap(0, "push", v2, "deploy/web"); p.results() != "unchanged, unchanged" {
		t.Errorf("the same bytes again: %s", p.results())
	}

	s.must("scale", "deployment/web", "--replicas=3") // the third one runs the program of its image
	s.rolledOut("web")
	s.runs(sum2, 2)
	if p := s.hotswap(0, "push", v3, "deploy/web", "--max-unavailable=2"); p.results() != "done, done, done" {
		t.Errorf("push to three, two at once: %s", p.results())
	}
	s.runs(sum3, 3)
	p = s.hotswap(1, "push", bad, "deploy/web")
	if p.results() != "refused, not touched, not touched" {
		t.Errorf("push of a program that ends at its start: %s", p.results())
	}
	s.runs(sum3, 3)
	if p := s.hotswap(0, "reload", "deploy/web", "--force"); p.results() != "done, done, done" {
		t.Errorf("reload: %s", p.results())
	}
	if p := s.hotswap(0, "status", "deploy/web"); len(p.Pods) != 3 {
		t.Errorf("status: %+v", p)
	}
	s.lossless()
	s.restarts(0)
}

// guarded is a pod that takes no program but that of its image. Its name is longer than that of any pod of web, so it comes last.
const guarded = `
apiVersion: v1
kind: Pod
metadata: {name: web-with-a-program-that-must-stay, labels: {swapped: together}}
spec:
  containers:
  - name: app
    image: localhost/app:v1
    imagePullPolicy: Never
    env: [{name: ENTRYPOINT_VERIFY, value: "sha256:%s"}]
    readinessProbe: {exec: {command: [/entrypoint, health]}, periodSeconds: 1, timeoutSeconds: 20}
`

// TestPluginStops: the last pod refuses. The ones before it keep what they got, or are put back if that was asked for.
func TestPluginStops(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.deploy(workload{Replicas: 2, Container: probed + nonRoot})
	v1 := s.hashed(s.names()[0]).running()
	s.apply(fmt.Sprintf(guarded, v1))
	s.must("wait", "pod", "--selector=swapped=together", "--for=condition=Ready", "--timeout="+patience.String())
	v2, sum2 := s.stamp("v2")
	s.underLoad()

	p := s.hotswap(5, "push", v2, "-l", "swapped=together", "--undo-on-failure")
	if p.results() != "put back, put back, refused" {
		t.Errorf("push with a way back: %s: %s", p.results(), p.Text)
	}
	s.runs(v1, 2)
	p = s.hotswap(1, "push", v2, "-l", "swapped=together")
	if p.results() != "done, done, refused" {
		t.Errorf("push: %s: %s", p.results(), p.Text)
	}
	s.runs(sum2, 2)
	if p := s.hotswap(0, "rollback", "deploy/web"); p.results() != "done, done" {
		t.Errorf("rollback: %s: %s", p.results(), p.Text)
	}
	s.runs(v1, 2)
	s.hotswap(2, "push", v2)
	s.hotswap(2, "push", v2, "service/web")
	s.hotswap(4, "push", v2, "deploy/nothing")
	s.lossless()
	s.restarts(0)
}
