package artifact

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAsksForItself wherever the name is, across the border of two pieces too.
func TestAsksForItself(t *testing.T) {
	for _, at := range []int{0, 1, itselfChunk - len(executableName) - 1, itselfChunk - len(executableName), itselfChunk - 5, itselfChunk, 2*itselfChunk - 20, 3 * itselfChunk} {
		text := strings.Repeat("x", at) + executableName + strings.Repeat("x", 100)
		if !asksForItself(strings.NewReader(text), int64(len(text))) {
			t.Errorf("not found at %d", at)
		}
		cut := text[:at+len(executableName)-1]
		if asksForItself(strings.NewReader(cut), int64(len(cut))) {
			t.Errorf("found at %d, where its end is missing", at)
		}
	}
}

// TestGoProgramsThatAskForThemselves compiles two: they differ by one call, and run from different places.
func TestGoProgramsThatAskForThemselves(t *testing.T) {
	dir := t.TempDir()
	build := func(name, body string) string {
		source, out := filepath.Join(dir, name+".go"), filepath.Join(dir, name)
		if err := os.WriteFile(source, []byte("package main\nimport \"os\"\nfunc main() { "+body+" }\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", out, source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return out
	}
	s, err := NewStore(StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for path, want := range map[string]string{
		build("asks", "p, _ := os.Executable(); println(p)"): atPath,
		build("does-not", "println(os.Args[0])"):             inMemory,
	} {
		a, err := s.Open(t.Context(), path, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if i := a.Info(); i.Exec != want {
			t.Errorf("%s: %+v, want %s", path, i, want)
		}
		a.Close()
	}
}
