package integration_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/hotswap-init/entrypoint/"

// arrows are the imports that packages of this module may have of each other: the
// design's, and nothing else. cmd, the examples and the test and bench programs may import all.
var arrows = map[string][]string{
	"internal/control":  {"internal/swap"},
	"internal/swap":     {"reaper", "handoff", "internal/artifact", "internal/probe"},
	"reaper":            {},
	"graceful":          {},
	"handoff":           {},
	"internal/artifact": {},
	"internal/applog":   {"internal/helper", "reaper"},
	"internal/proxy":    {"reaper", "handoff", "internal/helper"},
	"internal/doctor":   {},
	"internal/helper":   {"reaper"},
	"internal/probe":    {},
	"internal/render":   {},
	"internal/syslog":   {"internal/helper", "reaper"},
	"internal/watch":    {},
	"envcfg":            {},
}

// free are the programs at the top.
var free = []string{"cmd/", "integration", "bench", "examples/"}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestArrows(t *testing.T) {
	for _, p := range list(t) {
		name, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours || isFree(name) {
			continue
		}
		for _, imported := range p.Imports {
			target, ours := strings.CutPrefix(imported, module)
			if ours && !allowed(name, target) {
				t.Errorf("%s must not import %s", name, target)
			}
		}
	}
}

func isFree(name string) bool {
	for _, prefix := range free {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// allowed reads arrows; a folder below a package belongs to it.
func allowed(from, to string) bool {
	for owner, targets := range arrows {
		if from != owner && !strings.HasPrefix(from, owner+"/") {
			continue
		}
		for _, target := range append(targets, owner) {
			if to == target || strings.HasPrefix(to, target+"/") {
				return true
			}
		}
	}
	return false
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(arrows) {
		t.Fatalf("go list names only %d packages", len(all))
	}
	return all
}

func TestEveryPackageHasArrows(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if isFree(name) || p.ImportPath+"/" == module {
			continue
		}
		known := false
		for owner := range arrows {
			known = known || name == owner || strings.HasPrefix(name, owner+"/")
		}
		if !known {
			t.Errorf("%s is not in the table of arrows", name)
		}
	}
}

func TestMainIsSmall(t *testing.T) {
	text, err := os.ReadFile("../cmd/entrypoint/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n >= 40 {
		t.Errorf("main.go has %d lines; wiring belongs into run.go", n)
	}
}

// TestRuntimeDefaults keeps the linked-in defaults in the one place that builds.
func TestRuntimeDefaults(t *testing.T) {
	text, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "runtime.godebugDefault=asyncpreemptoff=1,containermaxprocs=0,updatemaxprocs=0") {
		t.Error("the Makefile does not link the runtime defaults")
	}
}
