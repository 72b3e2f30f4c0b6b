package engine

import (
	"os/exec"
	"testing"
)

// TestFoldersChanged: tar ends with 1 where a folder changed while it was read, which other tests do to /tmp; all else is an error.
func TestFoldersChanged(t *testing.T) {
	const changed = "tar: tmp: file changed as we read it\n"
	for name, test := range map[string]struct {
		script, said string
		want         bool
	}{
		"changed":        {"exit 1", changed + changed, true},
		"well":           {"exit 0", "", false},
		"gone":           {"exit 1", changed + "tar: x: File removed before we read it\n", false},
		"without a word": {"exit 1", "", false},
		"fatal":          {"exit 2", changed, false},
		"killed":         {"kill -9 $$", changed, false},
	} {
		if got := foldersChanged(exec.Command("/bin/sh", "-c", test.script).Run(), test.said); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
