package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseInits(t *testing.T) {
	got := parseInits([]byte("init internal/bytealg @0.008 ms, 0 ms clock, 0 bytes, 0 allocs\nsomething else\ninit net/http @6.9 ms, 0.070 ms clock, 6248 bytes, 133 allocs\n"))
	if want := []initialized{{"internal/bytealg", 0, 0}, {"net/http", 0.07, 133}}; !slices.Equal(got, want) {
		t.Errorf("want %v, got %v", want, got)
	}
}

func TestPackageOf(t *testing.T) {
	for symbol, want := range map[string]string{
		"runtime.mallocgc": "runtime", "net/http.(*Server).Serve": "net/http", "main.main": "main",
		"golang.org/x/sys/unix.Fstat": "golang.org/x/sys/unix", "gopkg.in/yaml%2ev3.parse": "gopkg.in/yaml.v3",
		"slices.SortFunc[go.shape.[]github.com/a/b.T,go.shape.int]": "slices", "type:*os.File": "(types, strings and tables)", "go:func.*": "(types, strings and tables)",
		"x_cgo_init": "(others)",
	} {
		if got := packageOf(symbol); got != want {
			t.Errorf("%s: want %s, got %s", symbol, want, got)
		}
	}
}

// TestSymbolSizes reads a program that has its symbols: it has the runtime in it, and no package is larger than the file.
func TestSymbolSizes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bareinit")
	if out, err := exec.Command("go", "build", "-o", path, "./bareinit").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	sizes, err := symbolSizes(path)
	if err != nil {
		t.Fatal(err)
	}
	sum, runtime := 0, 0
	for _, s := range sizes {
		sum += s.bytes
		if s.name == "runtime" {
			runtime = s.bytes
		}
	}
	if runtime == 0 || sum > int(info.Size()) || sizes[0].bytes < sizes[len(sizes)-1].bytes {
		t.Errorf("runtime %d, all %d of %d bytes", runtime, sum, info.Size())
	}
}
