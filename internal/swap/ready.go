package swap

import (
	"bytes"
	"context"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/probe"
)

// ready blocks until the configured checks hold for this generation and no other.
func (c *child) ready(ctx context.Context) error {
	err := probe.Wait(ctx, c.app.Checks, c.target())
	if err == nil && c.filter != nil {
		c.survey()
	}
	return err
}

// smoke asks each check once, in order; the error is an *probe.Unmet with the sentence of the first that did not hold.
func (c *child) smoke(ctx context.Context, checks []probe.Check) error {
	return probe.Run(ctx, checks, c.target())
}

// health asks round after round until ctx ends, and blocks for so long; see probe.Watch.
func (c *child) health(ctx context.Context, checks []probe.Check, o probe.MonitorOptions, report func(probe.Health)) {
	probe.Watch(ctx, checks, c.target(), o, report)
}

// target leads every check to this generation and no other.
func (c *child) target() probe.Target {
	t := probe.Target{
		Dial:     c.dialHeld,
		Notified: c.notified,
		Exec:     c.exec,
		Ask:      c.ask,
	}
	switch {
	case c.ports != nil:
		t.Dial, t.Accept = c.dialBack, c.acceptedBack
	case c.filter != nil:
		t.Accept = func(ctx context.Context) error { return c.shown(ctx, true) }
		t.Shown = func(ctx context.Context) error { return c.shown(ctx, false) }
	case c.streams():
		t.Accept = func(ctx context.Context) error { return c.lease.Accepted(ctx, c.pids) }
	}
	return t
}

// dialHeld reaches this worker and no other.
func (c *child) dialHeld(ctx context.Context, network, address string) (net.Conn, error) {
	return c.lease.DialAccepted(ctx, network, address, handoff.Processes{
		Own: c.pids, Others: c.others, Alone: c.app.Alone != nil && c.app.Alone(),
	})
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
func (c *child) pids() []int { return c.descendants(true) }

// others lists our processes that are not of this generation.
func (c *child) others() []int { return c.descendants(false) }

func (c *child) descendants(own bool) []int {
	var list []int
	for _, pid := range c.app.Reaper.Descendants() {
		if c.belongs(pid) == own {
			list = append(list, pid)
		}
	}
	return list
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
