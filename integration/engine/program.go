package engine

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Daemon is the engine that the containers run on.
func (d *Docker) Daemon() *Dockerd { return d.daemon }

// ProgramImage imports an image that has only this machine's programs of these names, and the libraries that they need.
func (d *Dockerd) ProgramImage(ctx context.Context, name string, programs ...string) error {
	var paths []string
	for _, program := range programs {
		path, err := exec.LookPath(program)
		if err != nil {
			return err
		}
		libraries, err := librariesOf(ctx, path)
		if err != nil {
			return err
		}
		for _, file := range append(libraries, path) {
			paths = append(paths, strings.TrimPrefix(file, "/"))
		}
	}
	tar := exec.CommandContext(ctx, "tar", append([]string{"-c", "-h", "-C", "/"}, paths...)...)
	return d.importTar(ctx, tar, name, "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin")
}

// FileImage imports an image that has only one file, in its root folder.
func (d *Dockerd) FileImage(ctx context.Context, name, file string) error {
	return d.importTar(ctx, exec.CommandContext(ctx, "tar", "-c", "-C", filepath.Dir(file), filepath.Base(file)), name)
}

// Build builds the Dockerfile of a folder without any network. Each pair is a build argument: NAME=VALUE.
func (d *Dockerd) Build(ctx context.Context, name, dir string, pairs ...string) error {
	return d.BuildFile(ctx, name, dir, filepath.Join(dir, "Dockerfile"), pairs...)
}

// BuildFile is Build with a Dockerfile elsewhere below the folder.
func (d *Dockerd) BuildFile(ctx context.Context, name, dir, file string, pairs ...string) error {
	args := []string{"build", "-q", "--network", "none", "-t", name, "-f", file}
	for _, pair := range pairs {
		args = append(args, "--build-arg", pair)
	}
	if out, err := d.Command(ctx, append(args, dir)...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w: %s", file, err, out)
	}
	return nil
}
