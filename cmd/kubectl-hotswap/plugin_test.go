package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// play is one cluster and what the plugin did to it.
type play struct {
	t    *testing.T
	dir  string
	file string // a program for amd64
	sum  string

	code      int
	out, errs string
}

func start(t *testing.T, w *world) *play {
	t.Helper()
	t.Parallel()
	p := &play{t: t, dir: t.TempDir()}
	p.file = filepath.Join(p.dir, "server")
	self, err := os.Executable()
	check(err)
	check(os.Symlink(self, filepath.Join(p.dir, "kubectl")))
	check(os.WriteFile(p.file, elfFor(62), 0o755))
	text, err := json.Marshal(w)
	check(err)
	check(os.WriteFile(filepath.Join(p.dir, "world.json"), text, 0o600))
	prog, err := openProgram(p.file)
	check(err)
	p.sum = prog.sum
	prog.file.Close()
	return p
}

// command prepares the plugin.
func (p *play) command(args ...string) (cmd *exec.Cmd, out, errs *bytes.Buffer) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	p.t.Cleanup(cancel)
	self, err := os.Executable()
	check(err)
	cmd = exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), "HOTSWAP_ROLE=plugin", "HOTSWAP_WORLD="+p.dir, "KUBECTL="+filepath.Join(p.dir, "kubectl"), "GORACE=atexit_sleep_ms=0")
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, errs
	return cmd, out, errs
}

// do runs the plugin and wants this exit code.
func (p *play) do(want int, args ...string) *play {
	p.t.Helper()
	cmd, out, errs := p.command(args...)
	_ = cmd.Run() // the code says it
	p.code, p.out, p.errs = cmd.ProcessState.ExitCode(), out.String(), errs.String()
	if p.code != want {
		p.t.Fatalf("hotswap %q: code %d, want %d\n%s%s", args, p.code, want, p.out, p.errs)
	}
	return p
}

func (p *play) push(want int, args ...string) *play {
	p.t.Helper()
	return p.do(want, append([]string{"push", p.file, "deploy/web"}, args...)...)
}

// row fails unless the table has a line for the pod with these parts.
func (p *play) row(pod string, parts ...string) {
	p.t.Helper()
	for line := range strings.Lines(p.out) {
		if strings.HasPrefix(line, pod+" ") {
			for _, part := range parts {
				if !strings.Contains(line, part) {
					p.t.Errorf("no %q in the row %q", part, line)
				}
			}
			return
		}
	}
	p.t.Errorf("no row for %s:\n%s", pod, p.out)
}

func (p *play) says(parts ...string) {
	p.t.Helper()
	for _, part := range parts {
		if !strings.Contains(p.errs, part) {
			p.t.Errorf("%q is not said:\n%s", part, p.errs)
		}
	}
}

// runs wants the active program of each pod, in order.
func (p *play) runs(sums ...string) {
	p.t.Helper()
	for i, want := range sums {
		name := fmt.Sprintf("web-77-%d", i+1)
		pod := p.state(name)
		if got := pod.Sums[pod.Active-1]; got != want {
			p.t.Errorf("%s runs %s, want %s", name, got, want)
		}
	}
}

var old = strings.Repeat("a", 64)

func TestPush(t *testing.T) {
	p := start(t, newWorld("", "", "")).push(0)
	p.runs(p.sum, p.sum, p.sum)
	for i := range 3 {
		p.row(fmt.Sprintf("web-77-%d", i+1), "node-", "1→2", p.sum[:12], "done", "generation 2 is active")
	}
	var begun []string
	for _, line := range p.lines("begin") {
		begun = append(begun, strings.Fields(line)[0])
	}
	if want := []string{"web-77-1", "web-77-2", "web-77-3"}; !slices.Equal(begun, want) {
		t.Errorf("touched %q, want %q", begun, want)
	}
	p.push(0)
	p.row("web-77-1", "unchanged", "run already")
	if n := len(p.lines("begin")); n != 3 {
		t.Errorf("the same program was pushed again: %d uploads", n)
	}
	p.push(0, "--force")
	p.row("web-77-1", "2→3", "done")
}

func TestPassedOn(t *testing.T) {
	w := newWorld("")
	w.Pods[0].Command = []string{"/hotswap/entrypoint", "/app/server"}
	w.Pods[0].Annotation = "log"
	p := start(t, w)
	sig := filepath.Join(p.dir, "sig")
	check(os.WriteFile(sig, []byte("untrusted comment: x\nRWQ\n"), 0o600))
	p.push(0, "--context", "prod", "-n", "shop", "--kubeconfig=/k", "--wait", "drained", "--timeout", "90", "--signature", sig, "--sha256", strings.ToUpper(p.sum))
	for _, call := range p.lines("call") {
		if !strings.HasPrefix(call, "--kubeconfig=/k --context=prod --namespace=shop ") {
			t.Errorf("kubectl was called with %q", call)
		}
	}
	want := "exec -i web-77-1 -c log -- /hotswap/entrypoint put --json --sha256 " + p.sum + " --signature-text untrusted comment: x"
	if calls := strings.Join(p.lines("call"), "\n"); !strings.Contains(calls, want) {
		t.Errorf("no call with %q:\n%s", want, calls)
	}
	p.do(0, "reload", "deployment", "web", "-capp", "--entrypoint=/e", "--force", "--wait=promoted")
	if calls := strings.Join(p.lines("call"), "\n"); !strings.Contains(calls, "exec web-77-1 -c app -- /e reload --json --force --wait promoted --timeout 10m0s") {
		t.Errorf("reload:\n%s", calls)
	}
	p.do(0, "rollback", "-l", "app=web")
	p.do(0, "promote", "pod/web-77-1", "--full")
	p.do(1, "abort", "web-77-1")
	if begun := strings.Join(p.lines("begin"), "\n"); !strings.Contains(begun, "rollback --json --timeout 10m0s") || !strings.Contains(begun, "promote --json --full") || !strings.Contains(begun, "abort --json") {
		t.Errorf("begun:\n%s", begun)
	}
}

func TestStopsAtTheFirst(t *testing.T) {
	for script, want := range map[string]struct {
		code   int
		result string
	}{
		"reject": {1, "refused"}, "busy": {3, "busy"}, "took-back": {5, "rolled back"}, "waits-no-more": {124, "timed out"}, "no-init": {4, "no answer"},
	} {
		t.Run(script, func(t *testing.T) {
			p := start(t, newWorld("", script, "")).push(want.code)
			p.runs(p.sum, old, old)
			p.row("web-77-1", "done")
			p.row("web-77-2", want.result)
			p.row("web-77-3", "not touched")
			p.says("web-77-2: ", "not touched: 1 of 3")
			for _, line := range p.lines("begin") {
				if strings.HasPrefix(line, "web-77-3") {
					t.Errorf("the third pod was touched: %s", line)
				}
			}
		})
	}
}

func TestUndo(t *testing.T) {
	t.Run("in-reverse", func(t *testing.T) {
		p := start(t, newWorld("", "", "reject")).push(5, "--undo-on-failure")
		p.runs(old, old, old)
		var order []string
		for _, line := range p.lines("begin") {
			f := strings.Fields(line)
			order = append(order, f[0][7:]+f[1])
		}
		if want := []string{"1put", "2put", "3put", "2rollback", "1rollback"}; !slices.Equal(order, want) {
			t.Errorf("order %q, want %q", order, want)
		}
		p.row("web-77-1", "1→3", old[:12], "put back")
		p.row("web-77-3", "refused")
		p.says("put back: 2")
	})
	t.Run("nothing-to-undo", func(t *testing.T) {
		p := start(t, newWorld("reject", "")).push(1, "--undo-on-failure")
		p.row("web-77-2", "not touched")
	})
	t.Run("refused-too", func(t *testing.T) {
		w := newWorld("", "", "reject")
		w.Pods[0].Rollback = "reject"
		p := start(t, w).push(1, "--undo-on-failure")
		p.runs(p.sum, old, old)
		p.row("web-77-1", "not put back")
		p.says("not put back: 1")
	})
	t.Run("somebody-else-swapped", func(t *testing.T) {
		p := start(t, newWorld("other", "reject")).push(1, "--undo-on-failure")
		p.runs("other", old)
		p.row("web-77-1", "not put back", "generation 3 is active by now")
	})
	t.Run("what-timed-out", func(t *testing.T) { // the pod says that it goes on: it is aborted, or put back
		p := start(t, newWorld("", "waits-no-more")).push(5, "--undo-on-failure")
		p.runs(old, old)
		if begun := strings.Join(p.lines("begin"), "\n"); !strings.Contains(begun, "web-77-2 abort") {
			t.Errorf("not aborted:\n%s", begun)
		}
	})
	t.Run("not-asked-for", func(t *testing.T) {
		p := start(t, newWorld("", "reject")).push(1)
		p.runs(p.sum, old)
	})
}

// awaitLines waits until the journal has so many lines.
func (p *play) awaitLines(word string, n int) {
	p.t.Helper()
	for range 3000 {
		if len(p.lines(word)) >= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Fatalf("not %d lines %q: %q", n, word, p.lines("call"))
}

func (p *play) release() { check(os.WriteFile(filepath.Join(p.dir, "release"), nil, 0o600)) }

func TestSoManyAtOnce(t *testing.T) {
	p := start(t, newWorld("slow", "slow", "reject", ""))
	cmd, out, _ := p.command("push", p.file, "deploy/web", "--max-unavailable", "2")
	check(cmd.Start())
	p.awaitLines("begin", 2)
	if ended, begun := p.lines("end"), p.lines("begin"); len(ended) > 0 || len(begun) > 2 {
		t.Errorf("begun %q, ended %q", begun, ended)
	}
	p.release()
	_ = cmd.Wait()
	p.out = out.String()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("code %d", code)
	}
	p.row("web-77-1", "done")
	p.row("web-77-2", "done")
	p.row("web-77-3", "refused")
}

func TestLeftOut(t *testing.T) {
	w := newWorld("", "", "", "", "")
	w.Pods[0].NotReady = true
	w.Pods[1].Deleting = true
	w.Pods[2].Phase = "Pending"
	w.Pods[3].Owner = "ReplicaSet/other-77"
	p := start(t, w).push(0)
	p.row("web-77-1", "skipped", "not Ready")
	p.row("web-77-2", "skipped", "being deleted")
	p.row("web-77-3", "skipped", "Pending")
	p.row("web-77-5", "done")
	p.says("web-77-4 has the labels of deployment/web and belongs to ReplicaSet/other-77: left out")
	p.runs(old, old, old, old, p.sum)
}

func TestNobody(t *testing.T) {
	w := newWorld("")
	w.Pods[0].NotReady = true
	start(t, w).push(4).says("no pod of deployment/web is Ready")
}

func TestNoPods(t *testing.T) {
	start(t, newWorld()).push(4).says("no pod belongs to deployment/web")
}

func TestVanished(t *testing.T) {
	t.Run("one-of-several", func(t *testing.T) {
		p := start(t, newWorld("vanish", "renew", "")).push(0)
		p.row("web-77-1", "gone", "went away meanwhile")
		p.row("web-77-2", "gone")
		p.row("web-77-3", "done")
		p.says("web-77-2 came meanwhile and runs the program of its image")
	})
	t.Run("the-one", func(t *testing.T) {
		p := start(t, newWorld("vanish"))
		p.do(4, "push", p.file, "pod/web-77-1").row("web-77-1", "gone", "went away meanwhile")
		p.do(4, "push", p.file, "pod/web-77-1").says("not found")
	})
}

func TestLost(t *testing.T) {
	t.Run("kubectl-killed-when-done", func(t *testing.T) {
		p := start(t, newWorld("die", "")).push(0)
		p.row("web-77-1", "1→2", "done", "its answer was lost")
		p.runs(p.sum, p.sum)
	})
	t.Run("hash-not-known-yet", func(t *testing.T) {
		start(t, newWorld("die-unhashed")).push(0).row("web-77-1", "1→2", "done", "its answer was lost")
	})
	t.Run("torn-before", func(t *testing.T) {
		p := start(t, newWorld("die-first", "")).push(4)
		p.row("web-77-1", "no answer", "generation 1 serves on")
		p.runs(old, old)
	})
	t.Run("garbage", func(t *testing.T) {
		start(t, newWorld("garbage")).push(0).row("web-77-1", "done", "not understood")
	})
	t.Run("container-restarted", func(t *testing.T) {
		p := start(t, newWorld("restart", "")).push(4)
		p.row("web-77-1", "no answer", "restarted meanwhile (1 restarts)")
		p.row("web-77-2", "not touched")
	})
	t.Run("hangs", func(t *testing.T) {
		begin := time.Now()
		p := start(t, newWorld("hang", "")).push(124, "--timeout", "1s")
		p.row("web-77-1", "timed out", "generation 1 serves on")
		if took := time.Since(begin); took > 40*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestMachines(t *testing.T) {
	t.Run("another", func(t *testing.T) {
		w := newWorld("", "")
		w.Arch["node-b"] = "arm64"
		p := start(t, w).push(1)
		p.says("web-77-2 is on a node of another machine (arm64): no pod was touched")
		if n := len(p.lines("begin")); n > 0 {
			t.Errorf("%d pods were touched", n)
		}
	})
	t.Run("forbidden", func(t *testing.T) {
		w := newWorld("", "")
		w.Forbidden = "nodes"
		p := start(t, w).push(0)
		p.says("cannot see for which machine the nodes are built", "forbidden", "going on")
		p.runs(p.sum, p.sum)
	})
}

func TestInterrupt(t *testing.T) {
	t.Run("once", func(t *testing.T) {
		p := start(t, newWorld("slow", ""))
		cmd, out, _ := p.command("push", p.file, "deploy/web")
		said, err := os.Create(filepath.Join(p.dir, "said"))
		check(err)
		defer said.Close()
		cmd.Stderr = said
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		check(cmd.Start())
		p.awaitLines("begin", 1)
		check(syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)) // as the terminal: the whole group
		for range 3000 {
			text, err := os.ReadFile(said.Name())
			check(err)
			if p.errs = string(text); strings.Contains(p.errs, "interrupted: no further pod is touched") {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		p.says("interrupted: no further pod is touched")
		p.release()
		_ = cmd.Wait()
		p.out = out.String()
		if code := cmd.ProcessState.ExitCode(); code != codeTimeout {
			t.Errorf("code %d\n%s%s", code, p.out, p.errs)
		}
		p.row("web-77-1", "1→2", "done")
		p.row("web-77-2", "not touched")
		p.runs(p.sum, old)
	})
	t.Run("twice", func(t *testing.T) {
		p := start(t, newWorld("hang", ""))
		cmd, out, errs := p.command("push", p.file, "deploy/web")
		check(cmd.Start())
		p.awaitLines("hangs", 1)
		check(cmd.Process.Signal(syscall.SIGINT))
		check(cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait()
		p.out, p.errs = out.String(), errs.String()
		if code := cmd.ProcessState.ExitCode(); code != codeTimeout {
			t.Errorf("code %d\n%s%s", code, p.out, p.errs)
		}
		p.row("web-77-1", "timed out", "goes on in the pod")
	})
}

func TestDryRun(t *testing.T) {
	w := newWorld("", "")
	w.Pods[1].NotReady = true
	p := start(t, w).push(0, "--dry-run")
	p.row("web-77-1", "would swap", old[:12])
	p.row("web-77-2", "skipped")
	p.says("nothing was changed")
	if n := len(p.lines("begin")); n > 0 {
		t.Errorf("%d pods were touched", n)
	}
}

func TestStatus(t *testing.T) {
	p := start(t, newWorld("", "no-init"))
	p.push(4)
	p.do(4, "status", "deploy/web")
	p.row("web-77-1", "2", p.sum[:12], "serving", "drift")
	p.row("web-77-2", "no answer", `there is no /entrypoint in container "app"`)
	p.do(0, "status", "pod/web-77-1", "--json")
	var rep struct {
		Pods []struct {
			Status struct{ Active int }
		}
	}
	if err := json.Unmarshal([]byte(p.out), &rep); err != nil || len(rep.Pods) != 1 || rep.Pods[0].Status.Active != 2 || p.errs != "" {
		t.Errorf("%v %+v %q", err, rep, p.errs)
	}
}

func TestJSON(t *testing.T) {
	p := start(t, newWorld("", "reject", "")).push(1, "--json")
	var rep report
	if err := json.Unmarshal([]byte(p.out), &rep); err != nil || p.errs != "" {
		t.Fatalf("%v: %s%s", err, p.out, p.errs)
	}
	if rep.Code != 1 || rep.SHA256 != p.sum || rep.Target != "deployment/web" || len(rep.Pods) != 3 {
		t.Errorf("%+v", rep)
	}
	if r := rep.Pods[0]; r.Result != done || r.Before != 1 || r.After != 2 || r.HashBefore != old || r.Hash != p.sum || r.Node != "node-a" || r.Container != "app" {
		t.Errorf("%+v", r)
	}
	if r := rep.Pods[1]; r.Code != 1 || !strings.Contains(r.Text, "exited with code 3") {
		t.Errorf("%+v", r)
	}
	p.do(4, "push", p.file, "deploy/nothing", "--json")
	if err := json.Unmarshal([]byte(p.out), &rep); err != nil || rep.Code != 4 || !strings.Contains(rep.Text, "not found") || p.errs != "" {
		t.Errorf("%v: %s%s", err, p.out, p.errs)
	}
}

func TestKubectlFails(t *testing.T) {
	w := newWorld("")
	w.Down = true
	p := start(t, w).push(4)
	p.says("The connection to the server 127.0.0.1:1 was refused")
	cmd, _, errs := p.command("status", "deploy/web")
	cmd.Env = append(cmd.Env, "KUBECTL=/no/such/kubectl")
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 4 || !strings.Contains(errs.String(), "install kubectl") {
		t.Errorf("code %d: %s", code, errs)
	}
}

func TestFiles(t *testing.T) {
	p := start(t, newWorld(""))
	script := filepath.Join(p.dir, "script")
	check(os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755))
	p.do(1, "push", script, "deploy/web").says("it is no program for Linux")
	p.do(2, "push", filepath.Join(p.dir, "none"), "deploy/web").says("no such file")
	p.do(1, "push", p.dir, "deploy/web").says("not a regular file")
	p.push(1, "--sha256", strings.Repeat("0", 64)).says(p.sum, "no pod was touched")
	p.push(2, "--signature", filepath.Join(p.dir, "none")).says("cannot read the signature")
	p.push(2, "-c", "nobody").says(`has no container "nobody"`)
	if calls := p.lines("begin"); len(calls) > 0 {
		t.Errorf("touched: %q", calls)
	}
}

func TestNewcomers(t *testing.T) {
	p := start(t, newWorld("slow"))
	cmd, _, errs := p.command("push", p.file, "deploy/web")
	check(cmd.Start())
	p.awaitLines("begin", 1)
	at(p.dir, func(w *world) { w.Pods = append(w.Pods, newWorld("", "").Pods[1]) })
	p.release()
	_ = cmd.Wait()
	p.errs = errs.String()
	p.says("web-77-2 came meanwhile")
	p.runs(p.sum, old)
}
