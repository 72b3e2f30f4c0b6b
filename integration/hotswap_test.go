//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// TestHotswap runs the kubectl plugin against containers: its kubectl is a script that knows them as pods, and whose exec is that of the back end.
// What answers in them is the init itself.
func TestHotswap(t *testing.T) {
	table(t, "unshare docker", []row{
		{"push", hotswapPush},
		{"refused", hotswapRefused},
		{"signed", hotswapSigned},
		{"words", hotswapWords},
		{"trial", hotswapTrial},
		{"torn", hotswapTorn},
	})
}

// pods are scenes that a Deployment named web seems to have.
type pods struct {
	t      *testing.T
	dir    string
	plugin string
	scenes []*scene
}

// deploy makes pods of scenes: web-77-1, web-77-2, …
func deploy(t *testing.T, scenes ...*scene) *pods {
	t.Helper()
	p := &pods{t: t, dir: t.TempDir(), scenes: scenes}
	p.plugin = filepath.Join(p.dir, "kubectl-hotswap")
	build := exec.Command("go", "build", "-o", p.plugin, "../cmd/kubectl-hotswap")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the plugin: %v\n%s", err, out)
	}
	var objects []string
	for i := range scenes {
		object := fmt.Sprintf(`{"metadata":{"name":"web-77-%d","uid":"u%d","labels":{"pod-template-hash":"77"},"ownerReferences":[{"kind":"ReplicaSet","name":"web-77","controller":true}]},
"spec":{"nodeName":"here","containers":[{"name":"web"}]},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`, i+1, i+1)
		objects = append(objects, object)
		p.write(fmt.Sprintf("pod-web-77-%d", i+1), object)
	}
	p.write("pods-", `{"items":[`+strings.Join(objects, ",")+`]}`)
	p.write("deployment-web", `{"metadata":{"name":"web"},"spec":{"selector":{"matchLabels":{"app":"web"}}}}`)
	p.script("")
	return p
}

func (p *pods) write(name, text string) {
	p.t.Helper()
	syscall.ForkLock.RLock() // a child that another test forks meanwhile would have it open for writing, and it could not be executed
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o755); err != nil {
		p.t.Fatal(err)
	}
}

// script writes the kubectl; around is what stands around a command with input in a pod: "head -c 9 | %s", or nothing.
func (p *pods) script(around string) {
	p.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "#!/bin/sh\nverb=$1; shift\necho \"$verb $*\" >>%s/calls\n", p.dir)
	fmt.Fprintf(&b, "if [ $verb = get ]; then\n [ $1 = nodes ] && { echo here %s; exit; }\n name=$4; [ $3 = pods ] && name=\n exec cat \"%s/$3-$name\"\nfi\n", runtime.GOARCH, p.dir)
	b.WriteString("input=; [ \"$1\" = -i ] && { input=1; shift; }\npod=$1; shift 4\ncase $pod in\n")
	for i, s := range p.scenes {
		command := inside(s) + ` "$@"`
		fmt.Fprintf(&b, "web-77-%d)", i+1)
		if around != "" {
			fmt.Fprintf(&b, " [ -z \"$input\" ] || { "+around+"; }\n", command)
		}
		fmt.Fprintf(&b, " exec %s;;\n", command)
	}
	b.WriteString("esac\n")
	p.write("kubectl", b.String())
}

// inside is the command line that runs what follows it in the container of a scene.
func inside(s *scene) string {
	cmd := s.feeding()
	argv := cmd.Args[:len(cmd.Args)-1] // without /entrypoint
	words := []string{"env", "-i"}
	for _, word := range append(slices.Clone(cmd.Env), append([]string{cmd.Path}, argv[1:]...)...) {
		words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}

// hotswap runs the plugin to its end.
func (p *pods) hotswap(args ...string) reply {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.plugin, args...)
	cmd.Env = append(os.Environ(), "KUBECTL="+filepath.Join(p.dir, "kubectl"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("hotswap %q: %v", args, err)
	}
	return reply{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func (p *pods) want(code int, args ...string) reply {
	p.t.Helper()
	r := p.hotswap(args...)
	if r.code != code {
		p.t.Fatalf("hotswap %q: want code %d, got %v", args, code, r)
	}
	return r
}

// row fails unless the line of a pod has these words, in order.
func (p *pods) row(r reply, pod int, words ...string) {
	p.t.Helper()
	for line := range strings.Lines(r.out) {
		rest, ok := strings.CutPrefix(line, fmt.Sprintf("web-77-%d ", pod))
		if !ok {
			continue
		}
		for _, word := range words {
			var found bool
			if _, rest, found = strings.Cut(rest, word); !found {
				p.t.Errorf("no %q in its place in %q", word, line)
				return
			}
		}
		return
	}
	p.t.Errorf("no row for pod %d: %v", pod, r)
}

func (p *pods) serve(versions ...string) {
	p.t.Helper()
	for i, version := range versions {
		if w, err := p.scenes[i].who(); err != nil || w.version != version {
			p.t.Errorf("pod %d: %s answers (%v), want %s", i+1, w.version, err, version)
		}
	}
}

func (p *pods) underLoad() {
	for _, s := range p.scenes {
		s.begins()
		s.underLoad()
	}
}

func (p *pods) lossless() {
	for _, s := range p.scenes {
		s.lossless()
	}
}

// hardSpec is a container as a hardened pod has it.
func hardSpec() engine.Spec {
	return engine.Spec{User: "65534:65534", DropCaps: true, ReadOnly: true}
}

func hotswapPush(t *testing.T, e engine.Engine) {
	p := deploy(t, playSpec(t, e, "version=v1", hardSpec()), play(t, e, "version=v1"), play(t, e, "version=v1"))
	p.underLoad()
	file := p.scenes[0].stamp("version=v2")
	dry := p.want(0, "push", file, "deploy/web", "--dry-run")
	p.row(dry, 3, "here", "1", "would swap")
	p.serve("v1", "v1", "v1")
	r := p.want(0, "push", file, "deploy/web")
	p.serve("v2", "v2", "v2")
	for pod := range 3 {
		p.row(r, pod+1, "here", "1→2", fileSum(t, file)[:12], "done", "generation 2 is active")
	}
	for _, s := range p.scenes {
		s.facts() // that the bytes are the same is seen by the hash
	}
	p.row(p.want(0, "push", file, "deploy/web"), 1, "unchanged")
	v3 := p.scenes[0].stamp("version=v3")
	r = p.want(0, "push", v3, "-l", "app=web", "--max-unavailable=3", "--wait", "drained", "--json")
	var rep struct {
		Code int
		Pods []struct {
			Result     string
			Generation int
			SHA256     string
		}
	}
	if err := json.Unmarshal([]byte(r.out), &rep); err != nil || r.err != "" || len(rep.Pods) != 3 || rep.Pods[2].Generation != 3 || rep.Pods[2].SHA256 != fileSum(t, v3) {
		t.Errorf("%v: %v", err, r)
	}
	for i, s := range p.scenes {
		if st := s.waitStatus("drift is known", func(st status) bool { return st.Drift }); st.stateOf(2) != "exited" {
			t.Errorf("pod %d after --wait drained: generation 2 is %s", i+1, st.stateOf(2))
		}
	}
	p.serve("v3", "v3", "v3")
	p.row(p.want(0, "status", "deploy/web"), 1, "3", fileSum(t, v3)[:12], "serving", "drift")
	p.lossless()
}

// hotswapRefused: the second pod takes nothing but the program that it has.
func hotswapRefused(t *testing.T, e engine.Engine) {
	one := play(t, e, "version=v1")
	sum := fileSum(t, one.stamp("version=v1"))
	p := deploy(t, one, play(t, e, "version=v1", "ENTRYPOINT_VERIFY=sha256:"+sum), play(t, e, "version=v1"))
	p.underLoad()
	r := p.want(1, "push", one.stamp("version=v2"), "deploy/web")
	p.serve("v2", "v1", "v1")
	p.row(r, 1, "1→2", "done")
	p.row(r, 2, "1", sum[:12], "refused", "ENTRYPOINT_VERIFY")
	p.row(r, 3, "not touched")
	one.facts() // the hash of v2, which is shown again
	r = p.want(5, "push", one.stamp("version=v3"), "deploy/web", "--undo-on-failure")
	p.serve("v2", "v1", "v1")
	p.row(r, 1, "2→4", fileSum(t, one.stamp("version=v2"))[:12], "put back")
	r = p.want(1, "push", one.stamp("version=v4 fail=3"), "deploy/web", "--undo-on-failure")
	p.row(r, 1, "refused", "exited with code 3")
	p.serve("v2", "v1", "v1")
	p.lossless()
}

func hotswapSigned(t *testing.T, e engine.Engine) {
	s, m := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}, newMinisigner(t)
	s.verified(e, m, "version=v1", hardSpec())
	p := deploy(t, s)
	p.underLoad()
	file := s.stamp("version=v2")
	p.row(p.want(1, "push", file, "pod/web-77-1"), 1, "refused", "without a signature")
	p.row(p.want(1, "push", file, "pod/web-77-1", "--signature", newMinisigner(t).sign(t, file, "x")), 1, "refused", "does not name")
	p.want(0, "push", file, "pod/web-77-1", "--signature", m.sign(t, file, "release two"))
	p.serve("v2")
	if facts, _ := s.facts(); facts.Comment != "release two" {
		t.Errorf("status: %+v", facts)
	}
	p.lossless()
}

// hotswapWords: reload, rollback and busy.
func hotswapWords(t *testing.T, e engine.Engine) {
	p := deploy(t, play(t, e, "version=v1"), play(t, e, "version=v1"))
	p.underLoad()
	for _, s := range p.scenes {
		s.put("version=v2")
	}
	p.row(p.want(0, "reload", "deploy/web"), 2, "1→2", "done")
	p.serve("v2", "v2")
	p.row(p.want(0, "rollback", "deploy/web"), 2, "2→3", "done")
	p.serve("v1", "v1")
	p.row(p.want(1, "reload", "deploy/web"), 1, "refused", "rolled back")
	p.want(0, "reload", "deploy/web", "--force")
	p.serve("v2", "v2")
	p.row(p.want(1, "abort", "deploy/web"), 2, "refused", "nothing to abort") // it asks all of them
	slow := p.scenes[1]
	slow.put("version=v3 hang=true")
	waiting, _ := slow.background("reload")
	slow.waitStatus("a candidate", func(st status) bool { return st.Candidate != 0 })
	r := p.want(3, "push", slow.stamp("version=v4"), "deploy/web", "--timeout=30s")
	p.row(r, 1, "done")
	p.row(r, 2, "busy", "another swap")
	p.row(p.want(1, "abort", "deploy/web"), 2, "done") // the first one has nothing to abort
	_ = waiting.Wait()
	if code := waiting.ProcessState.ExitCode(); code != 1 {
		t.Errorf("the reload that was aborted ended with %d", code)
	}
	p.serve("v4", "v2")
	p.lossless()
}

// hotswapTrial: a candidate that has a share waits for promote; one that is taken back is told by its code.
func hotswapTrial(t *testing.T, e engine.Engine) {
	p := deploy(t, play(t, e, "version=v1", "ENTRYPOINT_CANARY=50%"), play(t, e, "version=v1"))
	p.underLoad()
	file := p.scenes[0].stamp("version=v2")
	r := p.want(124, "push", file, "deploy/web", "--timeout", "5s")
	p.row(r, 1, "timed out")
	p.row(r, 2, "not touched")
	p.want(1, "promote", "deploy/web", "--full") // the second has no trial
	p.scenes[0].waitVersion("v2")
	p.scenes[0].settled()
	v3 := p.scenes[0].stamp("version=v3")
	r = p.want(5, "push", v3, "deploy/web", "--timeout", "5s", "--undo-on-failure")
	p.row(r, 1, "put back", "aborted: generation 2 serves on")
	p.scenes[0].settled()
	p.serve("v2", "v1")
	p.lossless()
}

// hotswapTorn: the line to the pod breaks in the middle of the upload, or when all of it is there.
func hotswapTorn(t *testing.T, e engine.Engine) {
	p := deploy(t, play(t, e, "version=v1"), play(t, e, "version=v1"))
	p.underLoad()
	file := p.scenes[0].stamp("version=v2")
	p.script("head -c 300000 | %s >/dev/null 2>&1; exit 1")
	r := p.want(4, "push", file, "deploy/web")
	p.row(r, 1, "1", "no answer", "generation 1 serves on")
	p.row(r, 2, "not touched")
	p.serve("v1", "v1")
	p.script("%s >/dev/null 2>&1; kill -9 $$")
	r = p.want(0, "push", file, "deploy/web")
	p.row(r, 2, "1→2", "done", "its answer was lost")
	p.serve("v2", "v2")
	p.lossless()
}
