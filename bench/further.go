package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// measurement is one of all.
type measurement struct {
	name    string
	measure func(*bench) ([]line, error)
}

// further measurements come after those of main.go: what is large, or looks inside.
var further = []measurement{
	{"size", (*bench).size}, {"spurious", (*bench).spurious}, {"lost", (*bench).lost}, {"graceful", (*bench).keepAlive},
	{"sockets", (*bench).sockets}, {"workers", (*bench).workers}, {"swaps", (*bench).swaps}, {"draining", (*bench).draining},
	{"knobs", (*bench).knobs}, {"startup", (*bench).startup}, {"packages", (*bench).packages},
}

// What all measurements may take, and one of them. On a calm machine they take two thirds of it.
const (
	whole   = 20 * time.Minute
	longest = 4 * time.Minute
)

// build makes the programs. The tools go into containers without a C library, and bare Go is built as one builds without a thought.
func (b *bench) build(dir string) (err error) {
	if b.binaries, err = engine.Build(dir); err != nil {
		return err
	}
	b.tools, b.bare = filepath.Join(dir, "tools"), filepath.Join(dir, "bareinit")
	for _, program := range []string{"tools", "bareinit"} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, program), "./bench/"+program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot build %s: %w\n%s", program, err, out)
		}
	}
	b.engine, err = engine.NewUnshare(b.binaries)
	return err
}
