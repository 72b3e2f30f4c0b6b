package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Runc is the back end of hand-made OCI bundles. It needs root and runc.
type Runc struct {
	binaries Binaries
	state    string
}

func NewRunc(b Binaries) (*Runc, error) {
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, err
	}
	state, err := os.MkdirTemp("", "eprunc")
	return &Runc{b, state}, err
}

func (r *Runc) Name() string { return "runc" }
func (r *Runc) Close() error { return os.RemoveAll(r.state) }

func (r *Runc) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "runc", append([]string{"--root", r.state}, args...)...)
}

// Start uses runc in the foreground: it then exits with the container's code.
func (r *Runc) Start(ctx context.Context, s Spec) (Container, error) {
	root, err := newRootfs(r.binaries, s)
	if err != nil {
		return nil, err
	}
	bundle := filepath.Dir(root.dir)
	c := &runcContainer{rootfs: root, engine: r, spec: s, name: uniqueName()}
	if err := c.start(ctx, bundle); err != nil {
		root.remove()
		return nil, err
	}
	return c, nil
}

type runcContainer struct {
	rootfs
	*process
	engine *Runc
	spec   Spec
	name   string
	pid    int
}

func (c *runcContainer) start(ctx context.Context, bundle string) error {
	config, err := json.Marshal(ociConfig(c.spec))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644); err != nil {
		return err
	}
	pidFile := filepath.Join(bundle, "pid")
	cmd := c.engine.command(context.Background(), "run", "--bundle", bundle, "--pid-file", pidFile, c.name)
	c.process, err = startProcess(cmd, filepath.Join(bundle, "log"), c.spec.TTY)
	if err != nil {
		return err
	}
	return c.findInit(ctx, pidFile)
}

// findInit waits for the pid file and until runc has executed the command: the file
// is written before.
func (c *runcContainer) findInit(ctx context.Context, pidFile string) error {
	for {
		if c.pid = readPID(pidFile); c.pid > 0 && c.executed() {
			return nil
		}
		select {
		case <-c.done:
			if c.pid = readPID(pidFile); c.pid > 0 {
				return nil // started and ended before we looked
			}
			return fmt.Errorf("runc did not start the container: %s", c.Logs())
		case <-ctx.Done():
			return fmt.Errorf("runc has not started the container: %w: %s", context.Cause(ctx), c.Logs())
		case <-time.After(time.Millisecond):
		}
	}
}

func readPID(file string) int {
	text, _ := os.ReadFile(file)
	pid, _ := strconv.Atoi(string(text))
	return pid
}

func (c *runcContainer) executed() bool {
	words := cmdline(c.pid)
	return len(words) > 0 && words[0] == c.spec.argv()[0]
}

func (c *runcContainer) PID() int { return c.pid }

func (c *runcContainer) Signal(sig syscall.Signal) error {
	out, err := c.engine.command(context.Background(), "kill", c.name, strconv.Itoa(int(sig))).CombinedOutput()
	if err != nil {
		return fmt.Errorf("runc kill %d: %w: %s", sig, err, out)
	}
	return nil
}

func (c *runcContainer) Command(ctx context.Context, argv ...string) *exec.Cmd {
	args := []string{"exec"}
	if c.spec.User != "" {
		args = append(args, "--user", c.spec.User)
	}
	return c.engine.command(ctx, append(append(args, c.name), argv...)...)
}

func (c *runcContainer) Stop(grace time.Duration) error {
	return stop(c, c.Signal, c.spec.stopSignal(), grace)
}

func (c *runcContainer) Close() error {
	c.once.Do(func() {
		c.kill(c.pid)
		<-c.done
		c.engine.command(context.Background(), "delete", "--force", c.name).Run()
		c.rootfs.remove()
	})
	return nil
}

// ociConfig is the bundle's config.json: what `runc spec` gives, with the machine's
// network.
func ociConfig(s Spec) map[string]any {
	uid, gid := s.ids()
	return map[string]any{
		"ociVersion": "1.0.2",
		"root":       map[string]any{"path": "r", "readonly": s.ReadOnly},
		"process": map[string]any{
			"args": s.argv(), "env": s.environ(), "cwd": "/",
			"user":            map[string]any{"uid": uid, "gid": gid},
			"capabilities":    ociCaps(s),
			"noNewPrivileges": s.DropCaps,
			"terminal":        s.TTY != nil,
		},
		"mounts": ociMounts(s),
		"linux": map[string]any{"namespaces": []map[string]string{
			{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
		}},
	}
}

// dockerCaps are the capabilities that Docker leaves a container.
const dockerCaps = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP"

func ociCaps(s Spec) map[string][]string {
	caps := []string{}
	if !s.DropCaps {
		for name := range strings.FieldsSeq(dockerCaps) {
			caps = append(caps, "CAP_"+name)
		}
	}
	return map[string][]string{"bounding": caps, "effective": caps, "permitted": caps}
}

func ociMounts(s Spec) []map[string]any {
	mounts := []map[string]any{
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755"}},
		{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666"}},
	}
	if s.HostTools {
		for _, dir := range hostFolders {
			mounts = append(mounts, map[string]any{"destination": dir, "type": "bind", "source": dir, "options": []string{"rbind", "ro"}})
		}
	}
	return mounts
}
