package artifact

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hotswap-init/entrypoint/reaper"
)

// Both tries leave the place as it was, the directories of other inits included.
func TestTryPlaces(t *testing.T) {
	if err := MemoryExecutable(reaper.New().TryExec); err != nil {
		t.Errorf("memory: %v", err)
	}
	dir := t.TempDir()
	dead := filepath.Join(dir, statePrefix+"0123456789abcdef")
	if err := os.Mkdir(dead, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dead, stateLock), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := DirectoryExecutable(dir, reaper.New().TryExec); err != nil {
		t.Errorf("directory: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(dead) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for _, bad := range []string{filepath.Join(dir, "missing"), filepath.Join(dead, stateLock)} {
		if DirectoryExecutable(bad, nil) == nil {
			t.Errorf("%s can hold programs", bad)
		}
	}
}
