// Package engine runs containers in three ways behind one interface, so that one
// table of behaviours can be run on all of them:
//
//	unshare  private PID and mount namespaces by util-linux; always there
//	runc     a hand-made OCI bundle
//	docker   a real Docker engine, private to this process (see dockerd.go)
//
// A container of any of them sees the same tree: /entrypoint (the init), /testapp,
// /app, /tmp, /etc/passwd, and what Spec.Files adds. It shares the machine's network,
// so tests talk to it on loopback ports. The init is PID 1 in each.
//
// Whatever is started here ends with this process, even when that is killed.
package engine

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Spec says what to run. The zero value of each field is the plain case.
type Spec struct {
	Image      string            // docker only: run this image as it is, instead of the base image
	Network    string            // docker only: default "host"
	Init       []string          // default: /entrypoint
	Command    []string          // arguments of the init: the app's command line
	Env        []string          // on top of a bare PATH
	Files      map[string]string // path inside: file on the host; mode 0755
	User       string            // "uid:gid"; default root
	ReadOnly   bool              // root file system
	Tmp        bool              // docker only: a /tmp that can be written to although the root is ReadOnly
	Binds      []string          // docker only: folders of the machine, "host:inside" or "host:inside:ro"
	Args       []string          // docker and unshare only: more options of `docker create`, or of unshare
	Tmpfs      []string          // unshare only: folders that are file systems in memory, "PATH:OPTIONS"
	Output     *os.File          // unshare only: where both output streams go; owned by the caller
	Handed     *os.File          // unshare only: the init gets it as descriptor 3, of which nobody told it; owned by the caller
	DropCaps   bool              // all capabilities, and no new privileges
	Deny       []string          // unshare only: system calls that fail, see testapp/deny.go
	HostTools  bool              // /usr, /bin, /lib, /lib64 and /etc of the machine, read-only
	StopSignal string            // what Stop sends; default TERM
	TTY        *os.File          // terminal to be given as standard streams; owned by the caller
}

// Engine is a back end.
type Engine interface {
	Name() string
	// Start runs a container; it returns when its first process exists.
	Start(ctx context.Context, s Spec) (Container, error)
	// Close ends the back end itself. All containers must be closed before.
	Close() error
}

// Container is one running container. Its methods may be used concurrently.
type Container interface {
	PID() int // of the init, as the machine sees it
	// Signal sends to the init the way a user of the back end does.
	Signal(sig syscall.Signal) error
	// Command prepares a command inside, as `docker exec`; not started yet.
	Command(ctx context.Context, argv ...string) *exec.Cmd
	// Put makes path the file src by rename(2): whole at any time.
	Put(src, path string) error
	// Copy replaces path the way `docker cp` does: a new file that grows in place.
	Copy(src, path string) error
	Remove(path string) error
	// Wait blocks until the init has exited: its code, or 128+n.
	Wait(ctx context.Context) (int, error)
	Logs() string
	// Stop is `docker stop`: the stop signal, then KILL after the grace time.
	Stop(grace time.Duration) error
	// Close kills what is left and removes everything. It can be called twice.
	Close() error
}

// Fetcher is a Container out of which files can be copied (docker).
type Fetcher interface {
	Fetch(path, dst string) error
}

// Pauser is a Container whose processes can all be stopped without their knowing (docker).
type Pauser interface {
	Pause(on bool) error
}

// Restarter is a Container that can be started again with its files as they are (docker). PID is another one then. It must not
// be used beside other methods.
type Restarter interface {
	Restart(ctx context.Context) error
}

// Exec runs a command inside to its end. Output holds both streams.
func Exec(ctx context.Context, c Container, argv ...string) (code int, output string, err error) {
	out, err := c.Command(ctx, argv...).CombinedOutput()
	code, err = exitCode(err)
	if ctx.Err() != nil {
		err = fmt.Errorf("%q inside the container: %w", argv, context.Cause(ctx))
	}
	return code, string(out), err
}

// exitCode takes the status out of the error of exec.Cmd.
func exitCode(err error) (int, error) {
	exit, ok := err.(*exec.ExitError)
	switch {
	case err == nil:
		return 0, nil
	case !ok:
		return -1, err
	}
	if w := exit.Sys().(syscall.WaitStatus); w.Signaled() {
		return 128 + int(w.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// hostFolders are what HostTools adds.
var hostFolders = []string{"/usr", "/bin", "/lib", "/lib64", "/etc"}

// basePath is the PATH of every container.
const basePath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (s Spec) argv() []string {
	init := s.Init
	if len(init) == 0 {
		init = []string{"/entrypoint"}
	}
	return append(append([]string{}, init...), s.Command...)
}

func (s Spec) environ() []string { return append([]string{basePath}, s.Env...) }

func (s Spec) ids() (uid, gid int) {
	u, g, _ := strings.Cut(s.User, ":")
	uid, _ = strconv.Atoi(u)
	gid, _ = strconv.Atoi(g)
	return uid, gid
}

func (s Spec) stopSignal() syscall.Signal {
	if s.StopSignal == "INT" {
		return syscall.SIGINT
	}
	return syscall.SIGTERM
}

var counter atomic.Int64

// uniqueName names a container: unique on this machine for this run.
func uniqueName() string {
	return fmt.Sprintf("ep-%d-%d", os.Getpid(), counter.Add(1))
}

// copyFile copies with mode 0755. The destination must not exist. Nobody forks meanwhile: a child that was held up before its exec would have
// a program open for writing that is to be executed.
func copyFile(src, dst string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Chmod(mode(src)); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

func mode(name string) os.FileMode {
	info, err := os.Stat(name)
	if err != nil {
		return 0o755
	}
	return info.Mode().Perm()
}
