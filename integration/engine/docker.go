package engine

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Docker is the back end of a real engine: the private one of StartDockerd.
type Docker struct {
	daemon *Dockerd
	image  string
}

// OnDockerd is the back end of an engine that runs; every Spec must name an Image.
func OnDockerd(daemon *Dockerd) *Docker { return &Docker{daemon: daemon} }

// NewDocker starts a private engine and imports the base image into it.
func NewDocker(ctx context.Context, b Binaries) (*Docker, error) {
	daemon, err := StartDockerd(ctx)
	if err != nil {
		return nil, err
	}
	d := &Docker{daemon: daemon, image: "entrypoint-integration:base"}
	if err := d.importBase(ctx, b); err != nil {
		daemon.Close()
		return nil, err
	}
	return d, nil
}

func (d *Docker) Name() string { return "docker" }

func (d *Docker) Close() error { return d.daemon.Close() }

// importBase makes an image of the tree that the other back ends use as a folder.
func (d *Docker) importBase(ctx context.Context, b Binaries) error {
	root, err := newRootfs(b, Spec{})
	if err != nil {
		return err
	}
	defer root.remove()
	// Copies of their own: a link that another back end makes meanwhile changes the file, and tar complains of that.
	for path, src := range map[string]string{"/entrypoint": b.Entrypoint, "/testapp": b.TestApp} {
		if err := os.Remove(root.host(path)); err != nil {
			return err
		}
		if err := copyFile(src, root.host(path)); err != nil {
			return err
		}
	}
	return d.daemon.importTar(ctx, exec.CommandContext(ctx, "tar", "-C", root.dir, "-c", "."), d.image)
}

func (d *Docker) Start(ctx context.Context, s Spec) (Container, error) {
	c := &dockerContainer{engine: d, spec: s, name: uniqueName(), done: make(chan struct{})}
	if err := c.start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

type dockerContainer struct {
	engine *Docker
	spec   Spec
	name   string
	pid    int
	volume string // host folder of /app, when the root is read-only
	done   chan struct{}
	code   int
	err    error
	once   sync.Once
}

// start creates, copies the files in, and starts: `docker cp` works on a container
// that has not run yet. A read-only root takes no copies; its /app is a volume.
func (c *dockerContainer) start(ctx context.Context) error {
	args, err := c.createArguments()
	if err != nil {
		return err
	}
	if _, err := c.docker(ctx, args...); err != nil {
		return err
	}
	if err := c.copyFiles(ctx); err != nil {
		return err
	}
	if err := c.run(ctx); err != nil {
		return err
	}
	return c.follow(ctx)
}

// follow learns which process the started container is, and when it ends.
func (c *dockerContainer) follow(ctx context.Context) error {
	pid, err := c.docker(ctx, "inspect", "-f", "{{.State.Pid}}", c.name)
	if err != nil {
		return err
	}
	c.pid, err = strconv.Atoi(strings.TrimSpace(pid))
	go c.await()
	return err
}

// Restart is `docker restart`. What the container writes afterwards is in its log as well.
func (c *dockerContainer) Restart(ctx context.Context) error {
	if _, err := c.docker(ctx, "stop", c.name); err != nil {
		return err
	}
	if _, err := c.Wait(ctx); err != nil {
		return err
	}
	c.done = make(chan struct{})
	if _, err := c.docker(ctx, "start", c.name); err != nil {
		return err
	}
	return c.follow(ctx)
}

// copyFiles copies all files in at once, as a tar: so folders that are not there are made.
func (c *dockerContainer) copyFiles(ctx context.Context) error {
	if len(c.spec.Files) == 0 {
		return nil // a root that cannot be written to takes no archive at all
	}
	if c.volume != "" {
		for path, src := range c.spec.Files {
			if err := c.Copy(src, path); err != nil {
				return err
			}
		}
		return nil
	}
	var archive bytes.Buffer
	if err := writeTar(&archive, c.spec.Files); err != nil {
		return err
	}
	cmd := c.engine.daemon.Command(ctx, "cp", "-", c.name+":/")
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker cp: %w: %s", err, out)
	}
	return nil
}

func writeTar(out io.Writer, files map[string]string) error {
	w := tar.NewWriter(out)
	for path, src := range files {
		text, err := os.ReadFile(src)
		if err != nil {
			return err
		}
		header := &tar.Header{Name: strings.TrimPrefix(path, "/"), Mode: int64(mode(src)), Size: int64(len(text)), ModTime: time.Now()}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return w.Close()
}

// run starts the created container, with a client attached where there is a terminal.
func (c *dockerContainer) run(ctx context.Context) error {
	if c.spec.TTY == nil {
		_, err := c.docker(ctx, "start", c.name)
		return err
	}
	client, err := startProcess(c.engine.daemon.Command(context.Background(), "start", "-ai", c.name), os.DevNull, c.spec.TTY)
	if err != nil {
		return err
	}
	for {
		running, err := c.docker(ctx, "inspect", "-f", "{{.State.Status}}", c.name)
		if err != nil || strings.TrimSpace(running) != "created" {
			return err
		}
		select {
		case <-client.done:
			return fmt.Errorf("docker start -ai ended with %d", client.code)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *dockerContainer) createArguments() ([]string, error) {
	s := c.spec
	init := s.argv()
	args := []string{"create", "--name", c.name, "--network", cmp.Or(s.Network, "host")}
	if s.Image == "" {
		args = append(args, "--entrypoint", init[0])
	}
	for _, pair := range s.Env {
		args = append(args, "-e", pair)
	}
	if s.User != "" {
		args = append(args, "--user", s.User)
	}
	if s.DropCaps {
		args = append(args, "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
	}
	if s.HostTools {
		for _, dir := range hostFolders {
			args = append(args, "-v", dir+":"+dir+":ro")
		}
	}
	for _, folder := range s.Binds {
		args = append(args, "-v", folder)
	}
	args = append(args, s.Args...)
	if s.TTY != nil {
		args = append(args, "-it")
	}
	if s.StopSignal != "" {
		args = append(args, "--stop-signal", s.StopSignal)
	}
	if s.ReadOnly {
		var err error
		if c.volume, err = os.MkdirTemp("", "epvol"); err != nil {
			return nil, err
		}
		if err := os.Chmod(c.volume, 0o755); err != nil {
			return nil, err
		}
		args = append(args, "--read-only", "-v", c.volume+":/app")
	}
	if s.Tmp {
		args = append(args, "--tmpfs", "/tmp")
	}
	if s.Image != "" {
		return append(append(args, s.Image), s.Command...), nil
	}
	return append(append(args, c.engine.image), init[1:]...), nil
}

// docker runs one client command with a limit.
func (c *dockerContainer) docker(ctx context.Context, args ...string) (string, error) {
	return c.engine.daemon.Run(ctx, args...)
}

func (c *dockerContainer) await() {
	out, err := c.docker(context.WithoutCancel(context.Background()), "wait", c.name)
	if err == nil {
		c.code, err = strconv.Atoi(strings.TrimSpace(out))
	}
	c.err = err
	close(c.done)
}

func (c *dockerContainer) PID() int { return c.pid }

func (c *dockerContainer) Signal(sig syscall.Signal) error {
	_, err := c.docker(context.Background(), "kill", "-s", strconv.Itoa(int(sig)), c.name)
	return err
}

func (c *dockerContainer) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return c.engine.daemon.Command(ctx, append([]string{"exec", c.name}, argv...)...)
}

// Put copies aside and renames inside, with the tool that every image here has.
func (c *dockerContainer) Put(src, path string) error {
	if c.volume != "" {
		return rootfs{filepath.Dir(c.inVolume("/app"))}.Put(src, filepath.Base(c.volume)+strings.TrimPrefix(path, "/app"))
	}
	aside := path + ".new"
	if err := c.Copy(src, aside); err != nil {
		return err
	}
	_, err := c.docker(context.Background(), "exec", "--user", "0", c.name, "/testapp", "tool", "mv", aside, path)
	return err
}

func (c *dockerContainer) inVolume(path string) string {
	return filepath.Join(c.volume, strings.TrimPrefix(path, "/app"))
}

func (c *dockerContainer) Copy(src, path string) error {
	if c.volume != "" {
		os.Remove(c.inVolume(path))
		return copyFile(src, c.inVolume(path))
	}
	_, err := c.docker(context.Background(), "cp", src, c.name+":"+path)
	return err
}

// Pause is `docker pause`, or `docker unpause`.
func (c *dockerContainer) Pause(on bool) error {
	verb := "pause"
	if !on {
		verb = "unpause"
	}
	_, err := c.docker(context.Background(), verb, c.name)
	return err
}

// Fetch copies a file out of the container.
func (c *dockerContainer) Fetch(path, dst string) error {
	_, err := c.docker(context.Background(), "cp", c.name+":"+path, dst)
	return err
}

func (c *dockerContainer) Remove(path string) error {
	if c.volume != "" {
		return os.Remove(c.inVolume(path))
	}
	_, err := c.docker(context.Background(), "exec", "--user", "0", c.name, "/testapp", "tool", "rm", path)
	return err
}

func (c *dockerContainer) Wait(ctx context.Context) (int, error) {
	select {
	case <-c.done:
		return c.code, c.err
	case <-ctx.Done():
		return -1, fmt.Errorf("the container has not exited: %w", context.Cause(ctx))
	}
}

func (c *dockerContainer) Logs() string {
	out, err := c.engine.daemon.Command(context.Background(), "logs", c.name).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s(docker logs: %v)", out, err)
	}
	return string(out)
}

func (c *dockerContainer) Stop(grace time.Duration) error {
	_, err := c.docker(context.Background(), "stop", "-t", strconv.Itoa(int(grace.Seconds())), c.name)
	return err
}

func (c *dockerContainer) Close() error {
	var err error
	c.once.Do(func() {
		_, err = c.docker(context.Background(), "rm", "-f", c.name)
		if c.volume != "" {
			os.RemoveAll(c.volume)
		}
	})
	return err
}
