package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuilderImage imports an image with this machine's Go toolchain, make and the module's
// dependencies, so that a Dockerfile can be built without any registry. It returns its name.
func (d *Dockerd) BuilderImage(ctx context.Context) (string, error) {
	const name = "golang-of-this-machine:local"
	dir, err := os.MkdirTemp("", "epgo")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := busyboxTree(dir); err != nil {
		return "", err
	}
	needed, err := moduleFiles(ctx)
	if err != nil {
		return "", err
	}
	root, modules, err := goFolders(ctx)
	if err != nil {
		return "", err
	}
	paths, err := builderPaths(ctx, root, needed)
	if err != nil {
		return "", err
	}
	tar := exec.CommandContext(ctx, "tar", append([]string{"-c", "-h", "-C", dir, ".", "-C", "/"}, paths...)...)
	return name, d.importTar(ctx, tar, name,
		"--change", "ENV PATH="+filepath.Join(root, "bin")+":/bin:/usr/bin",
		"--change", "ENV GOMODCACHE="+modules,
		"--change", "ENV GOPROXY=off", "--change", "ENV GOFLAGS=-buildvcs=false", "--change", "ENV GOTOOLCHAIN=local", "--change", "ENV GOCACHE=/cache")
}

// busyboxTree is a folder with a shell and what a Makefile calls.
func busyboxTree(dir string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	for _, name := range []string{"bin", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o777); err != nil {
			return err
		}
	}
	for _, applet := range strings.Fields("sh mkdir stat grep cat rm echo true false env ls") {
		if err := linkOrCopy(busybox, filepath.Join(dir, "bin", applet)); err != nil {
			return err
		}
	}
	return nil
}

// moduleFiles fills the module cache with what the module needs, for a build without a registry cannot fetch what a fresh machine has
// never used, and lists these files and folders of it: the cache of a machine that is used for other work may be large.
func moduleFiles(ctx context.Context) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go mod download: %w: %s", err, stderr.String())
	}
	var files []string
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct{ Info, GoMod, Zip, Dir string }
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			return files, nil
		} else if err != nil {
			return nil, fmt.Errorf("go mod download: %w", err)
		}
		files = append(files, m.Info, m.GoMod, m.Zip, m.Zip+"hash", m.Dir)
	}
}

// goFolders finds the toolchain and the module cache.
func goFolders(ctx context.Context) (root, modules string, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		return "", "", err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 {
		return "", "", fmt.Errorf("go env says %q", out)
	}
	return lines[0], lines[1], nil
}

// builderPaths lists what the image takes from the machine, relative to its root.
func builderPaths(ctx context.Context, root string, modules []string) ([]string, error) {
	make, err := exec.LookPath("make")
	if err != nil {
		return nil, err
	}
	paths := append([]string{make}, modules...)
	for _, name := range []string{"bin", "pkg", "src", "lib", "go.env", "VERSION"} {
		paths = append(paths, filepath.Join(root, name))
	}
	libraries, err := librariesOf(ctx, make)
	if err != nil {
		return nil, err
	}
	paths = append(paths, libraries...)
	for i, path := range paths {
		paths[i] = strings.TrimPrefix(path, "/")
	}
	return paths, nil
}

// librariesOf asks ldd for the files that a dynamic program needs.
func librariesOf(ctx context.Context, program string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	var files []string
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, "/") {
			files = append(files, word)
		}
	}
	return files, nil
}

// importTar pipes what tar writes into `docker import`.
func (d *Dockerd) importTar(ctx context.Context, tar *exec.Cmd, name string, options ...string) error {
	load := d.Command(ctx, append(append([]string{"import"}, options...), "-", name)...)
	archive, err := tar.StdoutPipe()
	if err != nil {
		return err
	}
	load.Stdin = archive
	var said bytes.Buffer
	tar.Stderr, tar.Env = &said, append(os.Environ(), "LC_ALL=C")
	if err := tar.Start(); err != nil {
		return err
	}
	out, err := load.CombinedOutput()
	archive.Close() // or a tar that was not read to its end would wait forever
	if err2 := tar.Wait(); err == nil && !foldersChanged(err2, said.String()) {
		err = err2
	}
	if err != nil {
		return fmt.Errorf("cannot import %s: %w: %s%s", name, err, out, &said)
	}
	return nil
}

// foldersChanged tells whether all that tar complained of is that something changed while it stood at it: with other tests beside this one a file
// came into /tmp or /run, or a program got another hard link. The archive is whole.
func foldersChanged(err error, said string) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		return false
	}
	for line := range strings.Lines(said) {
		if !strings.HasSuffix(line, ": file changed as we read it\n") {
			return false
		}
	}
	return said != ""
}
