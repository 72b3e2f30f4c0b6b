package main

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocumented: every use of the plugin that the documents show is one, and the page tells of every option and code.
func TestDocumented(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	check(err)
	for _, pattern := range []string{"../../README.md", "../../deploy/*", "../../deploy/kubernetes/*"} {
		more, err := filepath.Glob(pattern)
		check(err)
		files = append(files, more...)
	}
	shown := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a folder
		}
		for line := range strings.Lines(string(text)) {
			_, use, ok := strings.Cut(line, "kubectl hotswap ")
			if !ok || strings.ContainsAny(line, "`|[") {
				continue // in a sentence
			}
			use, _, _ = strings.Cut(use, " #")
			use, _, _ = strings.Cut(use, "'")
			use, _, _ = strings.Cut(use, "  ")
			if _, err := parse(strings.Fields(use)); err != nil {
				t.Errorf("%s shows %q: %v", file, use, err)
			}
			shown++
		}
	}
	if shown < 8 {
		t.Errorf("only %d uses were found", shown)
	}
	page, err := os.ReadFile("../../docs/kubernetes.md")
	check(err)
	var a, b string
	var c bool
	for _, f := range (&options{}).flags(&a, &b, &c) {
		if !strings.Contains(string(page), "`--"+f.long) && !strings.Contains(string(page), "`-"+f.short+"`") && f.long != "help" && f.long != "full" {
			t.Errorf("docs/kubernetes.md does not tell of --%s", f.long)
		}
	}
}

// TestReproducible: two builds in different folders are the same bytes.
func TestReproducible(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../../Makefile")
	check(err)
	if !strings.Contains(string(makefile), "-trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/kubectl-hotswap ./cmd/kubectl-hotswap") {
		t.Error("the Makefile builds the plugin in another way than this test")
	}
	var sums [2][32]byte
	for i := range sums {
		dir := filepath.Join(t.TempDir(), strings.Repeat("deeper/", i), "cmd/kubectl-hotswap")
		check(os.MkdirAll(dir, 0o755))
		sources, err := filepath.Glob("*.go")
		check(err)
		for _, name := range append(sources, "../../go.mod") {
			text, err := os.ReadFile(name)
			check(err)
			check(os.WriteFile(filepath.Join(dir, name), text, 0o644))
		}
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=1", "-o", "out", ".")
		build.Dir = dir
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		text, err := os.ReadFile(filepath.Join(dir, "out"))
		check(err)
		sums[i] = sha256.Sum256(text)
	}
	if sums[0] != sums[1] {
		t.Error("two builds differ")
	}
}

// TestStandardLibrary: the plugin needs nothing but Go.
func TestStandardLibrary(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	check(err)
	if got := strings.Fields(string(out)); len(got) != 1 || !strings.HasSuffix(got[0], "/cmd/kubectl-hotswap") {
		t.Errorf("it is built from %q", got)
	}
}
