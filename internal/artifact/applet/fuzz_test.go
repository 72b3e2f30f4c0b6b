package applet

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzExtract: whatever comes in, nothing outside changes, no temporary name stays, and what was refused changed nothing.
func FuzzExtract(f *testing.F) {
	for _, row := range hostile {
		f.Add(pack(f, row.members...))
	}
	f.Add(pack(f, folder("server"), regular("server/x", "x"), regular("twice", "1"), hardLinkTo("h", "twice"), regular("twice", "2")))
	f.Add(pack(f, regular("server", "new"), regular("in/y", "y"), linkTo("l", "full"))[:1536])
	small := limits{file: 1 << 20, total: 2 << 20, members: 100, name: 4096, names: 1 << 16, depth: 20}
	f.Fuzz(func(t *testing.T, archive []byte) {
		outer, inner := yard(t)
		before, inside := snapshot(t, outer), snapshot(t, inner)
		var errs bytes.Buffer
		s := streams{name: "tar", in: bytes.NewReader(archive), out: &errs, err: &errs}
		code := s.extract(tarArgs{dir: inner, sameOwner: no, samePermissions: no}, &roots{list: []string{inner}}, small, false)
		noTemporaries(t, outer)
		if code == failed {
			if diff := cmp.Diff(before, snapshot(t, outer)); diff != "" {
				t.Errorf("refused (%s), and changed:\n%s", errs.String(), diff)
			}
			return
		}
		if err := os.RemoveAll(inner); err != nil {
			t.Fatal(err)
		}
		if got, want := snapshot(t, outer), without(before, inside); len(got) != want || read(t, filepath.Join(outer, "secret")) != "secret" {
			t.Errorf("outside is %q", got)
		}
	})
}

// without is how many entries outer has beside those of inner.
func without(outer, inner []string) int { return len(outer) - len(inner) }
