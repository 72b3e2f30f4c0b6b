//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// build is the Dockerfile of an example and an image of this machine to build it from.
type build struct {
	name     string
	packages []string // of Debian, in the image that it is built from
	whole    bool     // the build needs the whole repository
	pid      bool     // answers with its pid, because it cannot tell its generation
	slow     bool     // only by make examples
}

var builds = []build{
	{name: "go", whole: true, slow: true},
	{name: "node", packages: []string{"nodejs"}},
	{name: "python-gunicorn", packages: []string{"gunicorn"}},
	{name: "python-uvicorn", packages: []string{"uvicorn"}},
	{name: "ruby-puma", packages: []string{"puma"}},
	{name: "java", slow: true},
	{name: "rust", packages: []string{"gcc", "libc6-dev"}, slow: true},
	{name: "php", packages: []string{"php-cli"}},
	{name: "nginx", packages: []string{"nginx"}, pid: true},
	{name: "haproxy", packages: []string{"haproxy"}},
}

// TestExampleBuilds builds the Dockerfiles of examples/ as they are, without any network, from images that have this machine's
// packages of the language. Each image is run with nothing but its own ENTRYPOINT, CMD and environment, in a network of its own,
// asked for a page, swapped, and asked again.
//
// With EXAMPLE_BUILDS=all those are built too whose build takes long.
func TestExampleBuilds(t *testing.T) {
	var rows []row
	for _, b := range builds {
		if !b.slow || os.Getenv("EXAMPLE_BUILDS") == "all" {
			rows = append(rows, row{b.name, b.run})
		}
	}
	table(t, "docker", rows)
}

// buildLimit is for the slowest, Go, which compiles the standard library anew, on a busy machine.
const buildLimit = 5 * time.Minute

func (b build) run(t *testing.T, e engine.Engine) {
	daemon := e.(*engine.Docker).Daemon()
	initImage(t, daemon)
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	if err := b.image(ctx, daemon); err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, addr: "127.0.0.1:" + examplePort}
	s.c = startPlain(t, e, engine.Spec{Image: b.tag(), Network: "none"})
	first := b.answers(s, "")
	if !b.pid && first != "g1" {
		t.Errorf("the first generation answers %q", first)
	}
	s.settled()
	s.reload(0)
	second := b.answers(s, first)
	if !b.pid && second != "g2" {
		t.Errorf("the second generation answers %q", second)
	}
	if st := s.settled(); st.Handoff != "transparent" || st.Active != 2 {
		t.Errorf("generation %d, hand-off %s %s", st.Active, st.Handoff, st.HandoffWhy)
	}
}

func (b build) tag() string { return "example-build-" + b.name }

// image builds the Dockerfile from the base.
func (b build) image(ctx context.Context, daemon *engine.Dockerd) error {
	base := "base-of-" + b.name
	packages, more, pairs := b.packages, []string(nil), []string(nil)
	var err error
	switch b.name {
	case "go":
		base, err = daemon.BuilderImage(ctx)
	case "java":
		packages, err = jdk(ctx)
	case "rust":
		more, pairs, err = rustup(ctx)
	}
	if err == nil && b.name != "go" {
		err = daemon.PackageImage(ctx, base, packages, more, pairs)
	}
	if err != nil {
		return err
	}
	folder := filepath.Join("..", "examples", b.name)
	if b.whole {
		return daemon.BuildFile(ctx, b.tag(), "..", filepath.Join(folder, "Dockerfile"), "BASE="+base)
	}
	return daemon.Build(ctx, b.tag(), folder, "BASE="+base)
}

// jdk is the package that javac is in; its name has the version.
func jdk(ctx context.Context) ([]string, error) {
	path, err := exec.LookPath("javac")
	if err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "dpkg-query", "-S", path).Output()
	name, _, _ := strings.Cut(string(out), ":")
	return []string{name}, err
}

// rustup is what rustc and its standard library are in, wherever they were installed.
func rustup(ctx context.Context) (more, pairs []string, err error) {
	out, err := exec.CommandContext(ctx, "rustc", "--print", "sysroot").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("rustc: %w", err)
	}
	root := strings.TrimSpace(string(out))
	libraries, err := filepath.Glob(filepath.Join(root, "lib", "*.so*"))
	more = append(libraries, filepath.Join(root, "bin", "rustc"), filepath.Join(root, "lib", "rustlib"))
	return more, []string{"PATH=" + filepath.Join(root, "bin") + ":/usr/sbin:/usr/bin:/sbin:/bin"}, err
}

// initImages makes the image `entrypoint`, which all Dockerfiles take the init from, once.
var initImages sync.Map

func initImage(t *testing.T, daemon *engine.Dockerd) {
	t.Helper()
	once, _ := initImages.LoadOrStore(daemon, sync.OnceValue(func() error {
		return daemon.FileImage(context.Background(), "entrypoint", binaries.Entrypoint)
	}))
	if err := once.(func() error)(); err != nil {
		t.Fatal(err)
	}
}

// answers asks the container from within its network, until somebody else than before answers, and tells who.
func (b build) answers(s *scene, before string) (version string) {
	s.t.Helper()
	s.eventually(b.name+" answers in its container", func() (err error) {
		inNetworkOf(s.c.PID(), &err, func() { version, err = load.Ask(load.Options{Address: s.addr}, "/") })
		if err == nil && version == before {
			err = fmt.Errorf("%s answers still", before)
		}
		return err
	})
	return version
}

// inNetworkOf runs f in the network of a process. The thread that f runs on ends with it, and not in that network.
func inNetworkOf(pid int, err *error, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		var fd int
		if fd, *err = unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0); *err != nil {
			return
		}
		defer unix.Close(fd)
		if *err = unix.Setns(fd, unix.CLONE_NEWNET); *err == nil {
			f()
		}
	}()
	<-done
}
