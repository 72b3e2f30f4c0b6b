//go:build kubernetes

// Package kubernetes shows the built binary at work in a real Kubernetes node, under a load that counts every failure.
//
//	go test -tags kubernetes ./integration/kubernetes -run TestPut -v
//
// It brings a node up by node.sh and takes it down again; one that was brought up by hand before is used and left alone, which
// saves the time while tests are written. ENTRYPOINT_BINARY=FILE tests that file. The tests run in the node's network namespace, so
// that they reach pods and services as a client inside the cluster does.
package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

const (
	kubeconfig = "/run/entrypoint-k8s/kubeconfig"
	// entered is set in the environment of a test binary that is in the node's network: to the node's first process if the
	// node is the test's own, to "borrowed" if it is not.
	entered = "KUBERNETES_TEST_ENTERED"
)

var (
	binaries engine.Binaries
	home     string // of kubectl, which keeps a cache there; its plugin lies there too
	programs string // the directory of kubectl
)

func TestMain(m *testing.M) {
	if os.Getenv(entered) == "" {
		fmt.Fprintln(os.Stderr, "kubernetes:", enter())
		os.Exit(1)
	}
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// node runs node.sh with its errors on our standard error.
func node(args ...string) (string, error) {
	cmd := exec.Command("bash", append([]string{"node.sh"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("node.sh %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), err
}

// enter makes sure that a node runs, and starts this program again in its network. It returns only if that fails. A node of our own
// ends with this process, whatever happens to it.
func enter() error {
	how, begun := "borrowed", time.Now()
	pid, err := exec.Command("bash", "node.sh", "pid").Output()
	if err != nil {
		if _, err := node("up", strconv.Itoa(os.Getpid())); err != nil {
			return err
		}
		how = "own"
		if pid, err = exec.Command("bash", "node.sh", "pid").Output(); err != nil {
			return fmt.Errorf("the node has ended at once: %w", err)
		}
	}
	fmt.Printf("kubernetes: the node is ready after %v\n", time.Since(begun).Round(100*time.Millisecond))
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{nsenter, "--net", "--target", strings.TrimSpace(string(pid)), "--", self}, os.Args[1:]...)
	return syscall.Exec(nsenter, args, append(os.Environ(), entered+"="+how))
}

func runAll(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "epk8s")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	home = dir
	if os.Getenv(entered) == "own" {
		defer func() {
			if code != 0 || err != nil { // it ends with us, and the logs stay
				fmt.Println("kubernetes: `node.sh logs` shows what the node says, and `node.sh down` removes it")
				return
			}
			_, err = node("down")
		}()
	}
	if programs, err = node("programs"); err != nil {
		return 1, err
	}
	if binaries, err = engine.Build(dir); err != nil {
		return 1, err
	}
	if err := buildPlugin(dir); err != nil {
		return 1, err
	}
	if err := makeImages(dir); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// buildPlugin makes kubectl-hotswap, where the kubectl of the tests finds it.
func buildPlugin(dir string) error {
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "kubectl-hotswap"), "../../cmd/kubectl-hotswap")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the plugin: %w: %s", err, out)
	}
	return nil
}

// settings of the test app in every image. It lingers for longer than any client here pauses, also on a busy machine, so that a
// keep-alive client always hears in time that its connection ends.
const settings = " listen=tcp::8080 linger=3s"

// makeImages makes what the tests run, each from scratch:
//
//	localhost/app:v1    the init, the app as v1, and tar and rm as links to the init; /app belongs to 65534
//	localhost/plain:v1  the app alone, at another path
//	localhost/init:v1   the init alone
//	localhost/box:v1    busybox, and the init
//
// The first three have the names too that deploy/kubernetes uses: server:v1, plain:v1 and entrypoint:v1 of docker.io.
func makeImages(dir string) error {
	app, plain, alone, box := tree{dir, "app"}, tree{dir, "plain"}, tree{dir, "init"}, tree{dir, "box"}
	server := filepath.Join(dir, "server")
	if err := binaries.Stamp(server, "version=v1"+settings); err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	for _, step := range []error{
		app.file("/entrypoint", binaries.Entrypoint), app.file("/app/server", server), app.link("/bin/tar", "/entrypoint"),
		app.link("/bin/rm", "/entrypoint"), app.own("/app", "/app/server"),
		app.image(`{"Entrypoint":["/entrypoint"],"Cmd":["/app/server"],"Env":["PATH=/bin"]}`, "localhost/app:v1", "docker.io/library/server:v1"),
		plain.file("/srv/server", server),
		plain.image(`{"Entrypoint":["/srv/server"]}`, "localhost/plain:v1", "docker.io/library/plain:v1"),
		alone.file("/entrypoint", binaries.Entrypoint),
		alone.image(`{"Entrypoint":["/entrypoint"]}`, "localhost/init:v1", "docker.io/library/entrypoint:v1"),
		box.file("/entrypoint", binaries.Entrypoint), box.file("/bin/busybox", busybox), box.link("/bin/sh", "busybox"),
		box.link("/bin/kill", "busybox"), box.link("/bin/env", "busybox"), box.link("/bin/cat", "busybox"), box.link("/bin/sleep", "busybox"),
		box.image(`{"Cmd":["/bin/sleep","100000"],"Env":["PATH=/bin"]}`, "localhost/box:v1"),
	} {
		if step != nil {
			return step
		}
	}
	return nil
}

// tree is a folder that becomes an image.
type tree struct{ dir, name string }

func (t tree) path(inside string) string { return filepath.Join(t.dir, "image-"+t.name, inside) }

func (t tree) file(inside, from string) error {
	if err := os.MkdirAll(filepath.Dir(t.path(inside)), 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(t.path(inside), text, 0o755)
}

func (t tree) link(inside, to string) error {
	if err := os.MkdirAll(filepath.Dir(t.path(inside)), 0o755); err != nil {
		return err
	}
	return os.Symlink(to, t.path(inside))
}

func (t tree) own(paths ...string) error {
	for _, path := range paths {
		if err := os.Chown(t.path(path), 65534, 65534); err != nil {
			return err
		}
	}
	return nil
}

func (t tree) image(config string, names ...string) error {
	for _, name := range names {
		if _, err := node("image", name, t.path("/"), config); err != nil {
			return err
		}
	}
	return nil
}
