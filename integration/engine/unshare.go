package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Unshare is the back end of private namespaces. It needs root and util-linux.
type Unshare struct{ binaries Binaries }

func NewUnshare(b Binaries) (*Unshare, error) {
	for _, name := range []string{"unshare", "nsenter"} {
		if _, err := exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	return &Unshare{b}, nil
}

func (u *Unshare) Name() string { return "unshare" }
func (u *Unshare) Close() error { return nil }

// coverage is the folder of this machine into which an init built with -cover writes what of it ran (make cover); as a rule
// there is none. It has a name of its own inside, for /tmp is looked at by tests.
var coverage = os.Getenv("GOCOVERDIR")

const coverageInside = "/coverage"

func covered(env []string) []string {
	if coverage == "" {
		return env
	}
	return append(env, "GOCOVERDIR="+coverageInside)
}

func (u *Unshare) Start(ctx context.Context, s Spec) (Container, error) {
	root, err := newRootfs(u.binaries, s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("unshare", u.arguments(root, s)...)
	cmd.Env = covered(s.environ())
	if s.Output != nil {
		cmd.Stdout = s.Output
	}
	if s.Handed != nil {
		cmd.ExtraFiles = []*os.File{s.Handed}
	}
	p, err := startProcess(cmd, filepath.Join(filepath.Dir(root.dir), "log"), s.TTY)
	if err != nil {
		root.remove()
		return nil, err
	}
	c := &unshared{rootfs: root, process: p, spec: s}
	if err := c.findInit(ctx); err != nil {
		err = fmt.Errorf("%w\n%s", err, c.Logs())
		c.Close()
		return nil, err
	}
	return c, nil
}

// arguments puts the jail tool between unshare and the init: it executes the init in
// its own place, so the init is PID 1 (see testapp/enter.go).
func (u *Unshare) arguments(root rootfs, s Spec) []string {
	args := append([]string{"-m", "-p", "-f", "--kill-child"}, s.Args...)
	args = append(args, "--", u.binaries.TestApp, "tool", "enter", "root="+root.dir)
	if s.HostTools {
		for _, dir := range hostFolders {
			args = append(args, "bind="+dir)
		}
	}
	if coverage != "" {
		args = append(args, "share="+coverage+":"+coverageInside)
	}
	if s.ReadOnly {
		args = append(args, "ro")
	}
	if s.User != "" {
		args = append(args, "user="+s.User)
	}
	if s.DropCaps {
		args = append(args, "nocaps")
	}
	for _, dir := range s.Tmpfs {
		args = append(args, "tmpfs="+dir)
	}
	for _, d := range s.Deny {
		args = append(args, "deny="+d)
	}
	return append(append(args, "--"), s.argv()...)
}

type unshared struct {
	rootfs
	*process
	spec Spec
	pid  int
}

// findInit waits until the child of unshare executes something else than the jail
// tool. A command that ended so quickly that it was not seen is no error.
func (c *unshared) findInit(ctx context.Context) error {
	parent := c.cmd.Process.Pid
	for {
		if pid := onlyChild(parent); pid > 0 {
			c.pid = pid
			words := cmdline(pid)
			jail := words[0] == "unshare" || len(words) > 2 && words[1] == "tool" && words[2] == "enter"
			if words[0] != "" && !jail {
				return nil
			}
		}
		select {
		case <-c.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("no process under unshare: %w", context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
}

// onlyChild reads the child of a process with a single thread; 0 if it has none.
func onlyChild(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return child
}

func cmdline(pid int) []string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
}

func (c *unshared) PID() int { return c.pid }

func (c *unshared) Signal(sig syscall.Signal) error { return syscall.Kill(c.pid, sig) }

func (c *unshared) Command(ctx context.Context, argv ...string) *exec.Cmd {
	args := []string{"-t", strconv.Itoa(c.pid), "-m", "-p"}
	if uid, gid := c.spec.ids(); uid != 0 {
		args = append(args, "-S", strconv.Itoa(uid), "-G", strconv.Itoa(gid))
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(append(args, "--"), argv...)...)
	cmd.Env = covered(c.spec.environ())
	return cmd
}

// Wait repairs what unshare makes of a KILLed init: it tries to die of the same
// signal, cannot unblock it, and exits with 1 instead.
func (c *unshared) Wait(ctx context.Context) (int, error) {
	code, err := c.process.Wait(ctx)
	if code == 1 && strings.Contains(c.Logs(), "unshare: sigprocmask unblock failed") {
		return 128 + int(syscall.SIGKILL), err
	}
	return code, err
}

func (c *unshared) Stop(grace time.Duration) error {
	return stop(c, c.Signal, c.spec.stopSignal(), grace)
}

func (c *unshared) Close() error {
	c.once.Do(func() {
		c.kill(c.pid)
		c.cmd.Process.Kill()
		<-c.done
		c.rootfs.remove()
	})
	return nil
}
