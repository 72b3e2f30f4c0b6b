//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/pages"
)

// stock are the images that a page may begin from, made of this machine's packages because there may be no registry.
var stock = map[string]func(ctx context.Context, daemon *engine.Dockerd, name string) error{
	"entrypoint": func(ctx context.Context, daemon *engine.Dockerd, name string) error {
		return daemon.FileImage(ctx, name, binaries.Entrypoint)
	},
	"golang:1.26": func(ctx context.Context, daemon *engine.Dockerd, name string) error {
		made, err := daemon.BuilderImage(ctx)
		if err == nil {
			_, err = daemon.Run(ctx, "tag", made, name)
		}
		return err
	},
	"python:3":  packaged("python3-minimal", "libpython3-stdlib"),
	"node:20":   packaged("nodejs"),
	"nginx:1":   packaged("nginx"),
	"debian:12": packaged("bash", "curl"),
	"languages": packaged("python3-minimal", "libpython3-stdlib", "nodejs", "perl-base"),
	"scratch":   nil,
	"web":       nil, // of `<!-- begin: web -->`
}

func packaged(names ...string) func(context.Context, *engine.Dockerd, string) error {
	return func(ctx context.Context, daemon *engine.Dockerd, name string) error {
		return daemon.PackageImage(ctx, name, names, nil, nil)
	}
}

// prepare makes what is there before the first block: the images that the page begins from and does not make itself, a repository to clone,
// and with `<!-- begin: web -->` the app of the README as image web, and as files server, server-v2 and server-v3.
// It returns variables for the shell.
func (d *desk) prepare(ctx context.Context, t *testing.T, p *pages.Page, work string) (env []string) {
	t.Helper()
	for _, m := range builtAs.FindAllStringSubmatch(p.Text, -1) {
		delete(d.images, m[1]) // of an earlier page, and of this one for the next
	}
	for _, name := range bases(p) {
		if d.images[name] {
			continue
		}
		made, known := stock[name]
		if !known {
			t.Fatalf("%s: there is no image %q without a registry; known are those in stock (integration/blocks_images_test.go)", p.File, name)
		}
		if made == nil {
			continue
		}
		if err := made(ctx, d.daemon, name); err != nil {
			t.Fatal(err)
		}
		d.images[name] = true
	}
	if p.Begin == "web" {
		d.web(ctx, t, work)
	}
	if strings.Contains(p.Text, "git clone") {
		env = cloned(t)
	}
	return env
}

var (
	fromLine = regexp.MustCompile(`(?mi)^(?:FROM|COPY --from=)\s*(\S+)`)
	stageAs  = regexp.MustCompile(`(?mi)^FROM\s+\S+\s+AS\s+(\S+)`)
	builtAs  = regexp.MustCompile(`(?m)docker build .*-t (\S+)`)
)

// bases are the images that the Dockerfiles of a page name and the page does not make.
func bases(p *pages.Page) []string {
	var all, own []string
	for _, m := range builtAs.FindAllStringSubmatch(p.Text, -1) {
		own = append(own, m[1])
	}
	if p.Begin == "web" {
		all = append(all, "entrypoint")
	}
	for _, b := range p.Blocks {
		if b.Language != "dockerfile" {
			if strings.Contains(b.Text, "Dockerfile.example") {
				all = append(all, "golang:1.26")
			}
			continue
		}
		for _, m := range stageAs.FindAllStringSubmatch(b.Text, -1) {
			own = append(own, m[1])
		}
		for _, m := range fromLine.FindAllStringSubmatch(b.Text, -1) {
			all = append(all, m[1])
		}
	}
	return slices.DeleteFunc(all, func(name string) bool { return slices.Contains(own, name) })
}

// upstream is the address by which a page clones this repository.
const upstream = "https://github.com/hotswap-init/entrypoint"

// cloned makes a repository of the files of this working tree. It returns the variables by which git takes it for what is at upstream.
func cloned(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	script := `set -e
cd "$1"
if [ -e .git ]; then git ls-files -z --cached --others --exclude-standard; else find . -type f -not -path './bin/*' -not -path './test-logs/*' -print0; fi |
	while IFS= read -r -d '' f; do [ ! -e "$f" ] || printf '%s\0' "$f"; done | tar --null -T - -cf - | tar -C "$2" -xf -
cd "$2"
git init -q
git add -A
git -c user.name=test -c user.email=test@localhost commit -q -m all`
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(limit(t), "bash", "-c", script, "bash", root, dir).CombinedOutput(); err != nil {
		t.Fatalf("cannot make a repository to clone: %v: %s", err, out)
	}
	return []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url." + dir + ".insteadOf", "GIT_CONFIG_VALUE_0=" + upstream}
}

// web puts the app of the README into the scratch folder, in three versions, and makes the image of the first.
func (d *desk) web(ctx context.Context, t *testing.T, work string) {
	t.Helper()
	if d.apps == "" {
		dir, err := os.MkdirTemp("", "epapps")
		if err != nil {
			t.Fatal(err)
		}
		d.apps = dir
		d.buildApps(ctx, t)
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", d.apps+"/.", work).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !d.images["web"] {
		d.webImage(ctx, t)
	}
}

func (d *desk) buildApps(ctx context.Context, t *testing.T) {
	t.Helper()
	text := ""
	for _, b := range d.repository.Blocks {
		if b.File == "main.go" {
			text = b.Text
		}
	}
	if !strings.Contains(text, `"v1"`) {
		t.Fatal("README.md has no file main.go with a version v1")
	}
	for version, name := range map[string]string{"v1": "server", "v2": "server-v2", "v3": "server-v3"} {
		source := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(source, []byte(strings.ReplaceAll(text, `"v1"`, fmt.Sprintf("%q", version))), 0o644); err != nil {
			t.Fatal(err)
		}
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(d.apps, name), source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("cannot build the app of the README: %v: %s", err, out)
		}
	}
}

func (d *desk) webImage(ctx context.Context, t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	file := "FROM scratch\nCOPY --from=entrypoint /entrypoint /entrypoint\nCOPY server /app/server\nENTRYPOINT [\"/entrypoint\"]\nCMD [\"/app/server\"]\n"
	if out, err := exec.CommandContext(ctx, "cp", filepath.Join(d.apps, "server"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.daemon.Build(ctx, "web", dir); err != nil {
		t.Fatal(err)
	}
	d.images["web"] = true
}
