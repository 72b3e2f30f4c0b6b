package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dockerd is a Docker engine of our own, in fresh folders, with no bridge and no
// packet rules: nothing of the machine's network is touched. Any other engine that
// may run on the machine is left alone.
type Dockerd struct {
	dir   string
	apart bool // in a network namespace of its own, with a bridge
	cmd   *exec.Cmd
}

// StartDockerd starts the engine and waits until it answers. It needs root and the
// packages docker.io and runc.
func StartDockerd(ctx context.Context) (*Dockerd, error) { return startDockerd(ctx, false) }

// StartDockerdApart starts an engine that has a network namespace to itself, and there all that a plain engine has: a bridge, and
// `-p 8080:8080`. What talks to its containers has to be in that network, see Shell. It needs the program ip.
func StartDockerdApart(ctx context.Context) (*Dockerd, error) { return startDockerd(ctx, true) }

func startDockerd(ctx context.Context, apart bool) (*Dockerd, error) {
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "epdk")
	if err != nil {
		return nil, err
	}
	d := &Dockerd{dir: dir, apart: apart}
	if err := d.start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := d.await(ctx); err != nil {
		err = fmt.Errorf("the private Docker engine does not answer: %w\n%s", err, d.logTail())
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Dockerd) file(name string) string { return filepath.Join(d.dir, name) }

// Host is the value for DOCKER_HOST.
func (d *Dockerd) Host() string { return "unix://" + d.file("s") }

func (d *Dockerd) start() error {
	log, err := os.Create(d.file("log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"dockerd", "-H", d.Host(),
		"--data-root", d.file("data"), "--exec-root", d.file("exec"), "--pidfile", d.file("pid"),
		"--iptables=false", "--ip6tables=false", "--ip-masq=false",
		"--exec-opt", "native.cgroupdriver=cgroupfs"}
	if d.apart { // unshare and sh are replaced by what they start, so the process is the engine in the end
		args = append([]string{"unshare", "-n", "sh", "-c", `ip link set lo up && exec "$@"`, "sh"}, append(args, "--bip", bridgeAddress)...)
	} else {
		args = append(args, "--bridge=none", "--ip-forward=false")
	}
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	return startTied(d.cmd)
}

// bridgeAddress is that of the bridge of an engine with a network to itself.
const bridgeAddress = "172.31.255.1/24"

// Shell prepares a command in the network of the engine, where `docker` talks to it.
func (d *Dockerd) Shell(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(d.cmd.Process.Pid), "-n", "--"}, argv...)...)
	cmd.Env = d.environ()
	return cmd
}

// startLimit is generous: an idle machine needs 0.3 s.
const startLimit = 20 * time.Second

func (d *Dockerd) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return again(ctx, func() error {
		_, err := d.Run(ctx, "version")
		return err
	})
}

// again tries until it succeeds; when ctx is done, the last error is the answer.
func again(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Command prepares a client command for this engine.
func (d *Dockerd) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = d.environ()
	return cmd
}

func (d *Dockerd) environ() []string {
	return append(os.Environ(), "DOCKER_HOST="+d.Host(), "DOCKER_BUILDKIT=0", "DOCKER_CONFIG="+d.dir)
}

// clientLimit is the longest that one client command may take; `wait` has none.
const clientLimit = 60 * time.Second

// Run runs a client command to its end and returns its standard output.
func (d *Dockerd) Run(ctx context.Context, args ...string) (string, error) {
	if args[0] != "wait" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, clientLimit)
		defer cancel()
	}
	out, err := d.Command(ctx, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("docker %s: %w: %s", args[0], err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

func (d *Dockerd) logTail() string {
	text, _ := os.ReadFile(d.file("log"))
	return string(text[max(0, len(text)-4000):])
}

// Close removes the containers, ends the engine politely (its containerd and shims
// then end too), and removes its folders and mounts.
func (d *Dockerd) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if ids, err := d.Run(ctx, "ps", "-aq"); err == nil && ids != "" {
		d.Run(ctx, append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
	}
	err := d.terminate(ctx)
	return errors.Join(err, d.remove(ctx))
}

// remove tries again as long as a shim that has not left yet puts something there.
func (d *Dockerd) remove(ctx context.Context) error {
	return again(ctx, func() error {
		d.unmount()
		return os.RemoveAll(d.dir)
	})
}

func (d *Dockerd) terminate(ctx context.Context) error {
	d.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- d.cmd.Wait() }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		d.cmd.Process.Kill()
		return fmt.Errorf("dockerd did not end on TERM (pid %s)", strconv.Itoa(d.cmd.Process.Pid))
	}
}

// unmount takes away what a killed engine leaves mounted below our folder.
func (d *Dockerd) unmount() {
	text, _ := os.ReadFile("/proc/self/mounts")
	lines := strings.Split(string(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if fields := strings.Fields(lines[i]); len(fields) > 1 && strings.HasPrefix(fields[1], d.dir+"/") {
			unix.Unmount(fields[1], unix.MNT_DETACH)
		}
	}
}
