//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/pages"
)

// TestBlocks runs the command blocks of README.md and of all pages in docs/, as somebody would who reads them: each page in a
// scratch folder of its own, its blocks in their order, in one shell, with a real Docker engine that has a network to itself. What a
// page shows as output is compared. docs/development.md has the rules; a block without a marker is run.
//
// One page: -run 'TestBlocks/put.md'.
func TestBlocks(t *testing.T) {
	t.Parallel()
	all, err := pages.Repository("..")
	if err != nil {
		t.Fatal(err)
	}
	listNotRun(t, all)
	for _, lane := range [][]*pages.Page{all[:1], all[1:]} { // the first page builds from source, which takes longest
		t.Run("", func(t *testing.T) {
			t.Parallel()
			runLane(t, lane, readme(all))
		})
	}
}

func readme(all []*pages.Page) *pages.Page { return all[0] }

// listNotRun says which blocks nobody runs here, and what holds them instead.
func listNotRun(t *testing.T, all []*pages.Page) {
	n, run := 0, 0
	for _, p := range all {
		for _, b := range p.Blocks {
			if reason, by, ok := pages.NotRun(b.Run); ok {
				n++
				t.Logf("NOT RUN: %s:%d: %s; held by %s", p.File, b.Line, reason, by)
			} else if runs(&b) {
				run++
			}
		}
	}
	t.Logf("%d blocks are run, %d are not", run, n)
}

// runs tells whether a block is one of commands that are run.
func runs(b *pages.Block) bool {
	_, _, not := pages.NotRun(b.Run)
	return !not && (b.Language == "sh" || b.Language == "console")
}

// runLane runs pages one after the other on an engine of their own.
func runLane(t *testing.T, lane []*pages.Page, first *pages.Page) {
	d := &desk{repository: first}
	t.Cleanup(func() { d.close(t) })
	for _, p := range lane {
		if !slices.ContainsFunc(p.Blocks, func(b pages.Block) bool { return runs(&b) || b.File != "" || checkers[b.Language] != nil }) {
			continue
		}
		t.Run(filepath.Base(p.File), func(t *testing.T) {
			for _, b := range p.Blocks {
				if _, _, not := pages.NotRun(b.Run); !not && checkers[b.Language] != nil {
					if err := checkers[b.Language](t, b.Text); err != nil {
						t.Errorf("%s:%d: %v", p.File, b.Line, err)
					}
				}
			}
			d.run(t, p)
		})
	}
}

// checkers look at what is no command, before anything runs.
var checkers = map[string]func(t *testing.T, text string) error{
	"go": func(t *testing.T, text string) error { return checked(t, "main.go", text, "..", "go", "vet") },
	"python": func(t *testing.T, text string) error {
		return checked(t, "app.py", text, ".", "/usr/bin/python3", "-m", "py_compile")
	},
	"js": func(t *testing.T, text string) error { return checked(t, "app.js", text, ".", "node", "--check") },
	"json": func(t *testing.T, text string) error {
		var v any
		return json.Unmarshal([]byte(text), &v)
	},
}

// checked writes a file and has a command look at it.
func checked(t *testing.T, name, text, dir string, command ...string) error {
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(limit(t), command[0], append(command[1:], file)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s does not like it: %w\n%s", strings.Join(command, " "), err, out)
	}
	return nil
}

// desk is where the commands of pages are typed: a Docker engine with a network to itself, and the images that pages begin from.
type desk struct {
	repository *pages.Page
	daemon     *engine.Dockerd
	images     map[string]bool
	apps       string // the folder of what `<!-- begin: web -->` puts into scratch folders; empty: not made yet
	err        error  // why there is no engine
}

// engine starts the engine when the first page wants it.
func (d *desk) engine(t *testing.T) *engine.Dockerd {
	t.Helper()
	if len(chosen) > 0 && !slices.Contains(chosen, "docker") {
		t.Skip("docker is not among the chosen back ends")
	}
	if d.daemon == nil && d.err == nil {
		d.images = map[string]bool{}
		d.daemon, d.err = engine.StartDockerdApart(limit(t))
	}
	switch {
	case d.err == nil:
	case slices.Contains(required, "docker"):
		t.Fatalf("docker is required and not usable: %v", d.err)
	default:
		t.Skipf("SKIPPED: no docker: %v", d.err)
	}
	return d.daemon
}

func (d *desk) close(t *testing.T) {
	if d.apps != "" {
		if err := os.RemoveAll(d.apps); err != nil {
			t.Error(err)
		}
	}
	if d.daemon != nil {
		if err := d.daemon.Close(); err != nil {
			t.Errorf("cannot end the engine: %v", err)
		}
	}
}

// pageLimit is for the slowest page, which builds the init from source on a busy machine.
const pageLimit = 10 * time.Minute

// run types what the page says.
func (d *desk) run(t *testing.T, p *pages.Page) {
	if !slices.ContainsFunc(p.Blocks, func(b pages.Block) bool { return runs(&b) }) {
		return
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), pageLimit, fmt.Errorf("the page took longer than %v", pageLimit))
	defer cancel()
	s := newSession(t, t.TempDir())
	for _, b := range p.Blocks {
		if err := s.add(&b); err != nil {
			t.Fatalf("%s: %v", p.File, err)
		}
	}
	shell := func(argv ...string) *exec.Cmd { return exec.CommandContext(ctx, argv[0], argv[1:]...) }
	if s.docker || p.Begin != "" {
		daemon := d.engine(t)
		t.Cleanup(func() { removeContainers(t, daemon) })
		s.env = d.prepare(ctx, t, p, s.work)
		shell = func(argv ...string) *exec.Cmd { return daemon.Shell(ctx, argv...) }
	}
	for _, fault := range s.run(shell, p.Begin == "web") {
		t.Errorf("%s:%s", p.File, fault)
	}
	for _, line := range s.slow() {
		t.Logf("%s: %s", p.File, line)
	}
}

func removeContainers(t *testing.T, daemon *engine.Dockerd) {
	ctx := context.Background()
	ids, err := daemon.Run(ctx, "ps", "-aq")
	if err == nil && ids != "" {
		_, err = daemon.Run(ctx, append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
	}
	if err != nil {
		t.Error(err)
	}
}
