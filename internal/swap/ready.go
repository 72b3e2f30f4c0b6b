package swap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/artifact"
	"github.com/hotswap-init/entrypoint/internal/probe"
	"github.com/hotswap-init/entrypoint/reaper"
)

// HTTPProbeRole is the argv[0] under which the init runs itself to speak HTTP for a probe.
const HTTPProbeRole = "entrypoint:http-probe"

// ready blocks until the configured checks hold for this generation and no other.
func (c *child) ready(ctx context.Context) error {
	t := probe.Target{
		Dial:     c.dial,
		Notified: c.notified,
		Exec:     c.exec,
		HTTP:     c.http,
	}
	switch {
	case c.filter != nil:
		t.Accept = func(ctx context.Context) error { return c.shown(ctx, true) }
		t.Shown = func(ctx context.Context) error { return c.shown(ctx, false) }
	case c.streams():
		t.Accept = func(ctx context.Context) error { return c.app.Sockets.Accepted(ctx, c.gen, c.pids) }
	}
	err := probe.Wait(ctx, c.app.Checks, t)
	if err == nil && c.filter != nil {
		c.survey()
	}
	return err
}

// dial reaches this generation and no other.
func (c *child) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.app.Sockets.Dial(ctx, c.gen, network, address)
	if errors.Is(err, handoff.ErrNotHeld) && c.app.Alone != nil && c.app.Alone() {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return conn, err
}

// streams tells whether a socket is held that connections are accepted from.
func (c *child) streams() bool {
	for _, f := range c.lease.Files() {
		if !strings.HasPrefix(f.Raw, "udp") && !strings.HasPrefix(f.Raw, "unixgram") {
			return true
		}
	}
	return false
}

// pids lists the processes of this generation.
func (c *child) pids() []int {
	var list []int
	for _, pid := range c.app.Reaper.Descendants() {
		if c.belongs(pid) {
			list = append(list, pid)
		}
	}
	return list
}

// exec runs a command as the app's user, without the app's sockets, and waits for it.
func (c *child) exec(ctx context.Context, argv []string) error {
	file, err := artifact.Open(argv[0], c.program.dir, lookup(c.env, "PATH"))
	if err != nil {
		return err
	}
	defer file.Close()
	spec := c.app.spec(&checkedProgram{Artifact: file, command: argv, dir: c.program.dir}, c.env)
	null, err := devNull()
	if err != nil {
		return err
	}
	defer null.Close()
	spec.Files = []int{rawFD(null), 2, 2}
	return c.app.runHelper(ctx, spec)
}

// runHelper starts a process and waits for its end; when ctx ends its whole group is killed.
func (a *App) runHelper(ctx context.Context, spec reaper.Spec) error {
	p, err := a.Reaper.Start(spec)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.SignalGroup(syscall.SIGKILL)
		<-p.Done()
		return context.Cause(ctx)
	}
	_ = p.SignalGroup(syscall.SIGKILL) // what it left behind
	if st := p.Status(); !st.Success() {
		return errors.New(st.String())
	}
	return nil
}

// httpPatience bounds one request of an HTTP probe.
const httpPatience = 5 * time.Second

// http runs one GET over conn in a helper process: PID 1 parses nothing that comes from the network.
func (c *child) http(ctx context.Context, conn net.Conn, u *url.URL) error {
	fd, err := dupConn(conn)
	if err != nil {
		return fmt.Errorf("cannot hand the connection to the probe: %w", err)
	}
	defer unix.Close(fd)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	null, err := devNull()
	if err != nil {
		return err
	}
	defer null.Close()
	spec := reaper.Spec{
		Path: c.app.Helper, Args: []string{HTTPProbeRole, u.String(), httpPatience.String()},
		Session: true, Credential: c.app.Credential, Umask: -1, NoNewPrivs: true,
		ParentDeathSignal: c.app.ParentDeath,
		Files:             []int{rawFD(null), rawFD(w), 2, fd},
	}
	err = c.app.runHelper(ctx, spec)
	w.Close()
	if err == nil {
		return nil
	}
	_ = r.SetReadDeadline(time.Now().Add(tailWait))
	said, _ := io.ReadAll(io.LimitReader(r, 1024))
	if said = bytes.TrimSpace(said); len(said) > 0 {
		return errors.New(string(said))
	}
	return err
}

// dupConn copies the descriptor of a connection, close-on-exec. The caller closes it.
func dupConn(conn net.Conn) (int, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, errors.New("it has no descriptor")
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, dup := -1, error(nil)
	err = rc.Control(func(n uintptr) { fd, dup = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	return fd, errors.Join(err, dup)
}

// maxDepth bounds the walk up a process tree: nobody nests deeper, and a tree that changes under us must not hold us.
const maxDepth = 64

// inTree tells whether pid is root, shares its session or group, or descends from it. An orphan that has left both is
// not recognised.
func inTree(pid, root int) bool {
	for range maxDepth {
		if pid == root {
			return true
		}
		if pid <= 1 {
			return false
		}
		if sid, err := unix.Getsid(pid); err == nil && sid == root {
			return true
		}
		if pgid, err := unix.Getpgid(pid); err == nil && pgid == root {
			return true
		}
		pid = parent(pid)
	}
	return false
}

// parent reads the parent of a process; 0 when it is gone. The name in parentheses may hold anything, a parenthesis too.
func parent(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	i := bytes.LastIndexByte(b, ')')
	f := bytes.Fields(b[i+1:])
	if i < 0 || len(f) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(string(f[1]))
	return ppid
}
