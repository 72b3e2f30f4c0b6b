package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// passwd is /etc/passwd of every container.
const passwd = "root:x:0:0:root:/:/testapp\napp:x:1234:1234:app:/:/testapp\nnobody:x:65534:65534:nobody:/:/testapp\n"
const group = "root:x:0:\napp:x:1234:\nextra:x:4321:app\nnogroup:x:65534:\n"

// rootfs is a container's tree as a folder of the machine.
type rootfs struct{ dir string }

// newRootfs makes the tree of a Spec below a new short path (unix sockets in it have
// to fit into 108 bytes).
func newRootfs(b Binaries, s Spec) (rootfs, error) {
	dir, err := os.MkdirTemp("", "ep")
	if err != nil {
		return rootfs{}, err
	}
	r := rootfs{filepath.Join(dir, "r")}
	if err := r.fill(b, s); err != nil {
		os.RemoveAll(dir)
		return rootfs{}, err
	}
	return r, nil
}

func (r rootfs) fill(b Binaries, s Spec) error {
	if err := os.Chmod(filepath.Dir(r.dir), 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"app", "tmp", "proc", "dev"} {
		if err := os.MkdirAll(filepath.Join(r.dir, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(r.dir, "tmp"), 0o1777); err != nil {
		return err
	}
	if err := r.accounts(s); err != nil {
		return err
	}
	for path, src := range map[string]string{"/entrypoint": b.Entrypoint, "/testapp": b.TestApp} {
		if err := linkOrCopy(src, r.host(path)); err != nil {
			return err
		}
	}
	for path, src := range s.Files {
		if err := copyFile(src, r.host(path)); err != nil {
			return err
		}
	}
	return nil
}

func (r rootfs) accounts(s Spec) error {
	if s.HostTools {
		return nil
	}
	if err := os.MkdirAll(r.host("/etc"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(r.host("/etc/passwd"), []byte(passwd), 0o644); err != nil {
		return err
	}
	return os.WriteFile(r.host("/etc/group"), []byte(group), 0o644)
}

func linkOrCopy(src, dst string) error {
	if os.Link(src, dst) == nil {
		return nil
	}
	return copyFile(src, dst)
}

func (r rootfs) host(path string) string { return filepath.Join(r.dir, path) }

func (r rootfs) Put(src, path string) error {
	aside := r.host(path) + ".new"
	os.Remove(aside)
	if err := copyFile(src, aside); err != nil {
		return err
	}
	return os.Rename(aside, r.host(path))
}

func (r rootfs) Copy(src, path string) error {
	os.Remove(r.host(path))
	return copyFile(src, r.host(path))
}

func (r rootfs) Remove(path string) error { return os.Remove(r.host(path)) }

func (r rootfs) remove() error { return os.RemoveAll(filepath.Dir(r.dir)) }

// process is the command of a back end whose exit is the container's exit.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	code int
	err  error
	once sync.Once
}

// startProcess starts cmd with its streams in a log file, unless it has its own, or on the terminal.
func startProcess(cmd *exec.Cmd, log string, tty *os.File) (*process, error) {
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.Stderr = cmd.Stdout
	if tty != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	if err := startTied(cmd); err != nil {
		return nil, err
	}
	go func() {
		p.code, p.err = exitCode(cmd.Wait())
		close(p.done)
	}()
	return p, nil
}

func (p *process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.code, p.err
	case <-ctx.Done():
		return -1, fmt.Errorf("the container has not exited: %w", context.Cause(ctx))
	}
}

// kill ends the container's init, unless it has ended: its number may be somebody else's then.
func (p *process) kill(pid int) {
	select {
	case <-p.done:
	default:
		if pid > 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (p *process) Logs() string {
	text, _ := os.ReadFile(p.log)
	return string(text)
}

// stop sends sig by send, and KILL after the grace time.
func stop(c Container, send func(syscall.Signal) error, sig syscall.Signal, grace time.Duration) error {
	if err := send(sig); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if _, err := c.Wait(ctx); err == nil {
		return nil
	}
	return send(syscall.SIGKILL)
}
