package artifact

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hotswap-init/entrypoint/reaper"
)

// programOf is a program of at least size bytes: ours, with a payload behind it.
func programOf(t testing.TB, path string, size int) string {
	t.Helper()
	body := contents(t, self(t))
	if more := size - len(body); more > 0 {
		random := rand.NewChaCha8([32]byte{1})
		payload := make([]byte, more)
		_, _ = random.Read(payload)
		body = append(body, payload...)
	}
	must(t, os.WriteFile(path, body, 0o755))
	return path
}

// BenchmarkCopy is what a private copy costs on top of BenchmarkOpen.
func BenchmarkCopy(b *testing.B) {
	for _, dir := range []string{"", b.TempDir()} {
		for _, mib := range []int{10, 100} {
			path := programOf(b, filepath.Join(b.TempDir(), "server"), mib<<20)
			b.Run(fmt.Sprintf("file=%v/%dMiB", dir != "", mib), func(b *testing.B) {
				s, err := NewStore(StoreOptions{StateDir: dir})
				must(b, err)
				defer s.Close()
				b.SetBytes(int64(mib) << 20)
				for b.Loop() {
					a, err := s.Open(b.Context(), path, "", "")
					must(b, err)
					must(b, a.Close())
				}
			})
		}
	}
}

// BenchmarkNewStore is what is spent before the first program.
func BenchmarkNewStore(b *testing.B) {
	for _, dir := range []string{"", b.TempDir()} {
		b.Run(fmt.Sprintf("file=%v", dir != ""), func(b *testing.B) {
			for b.Loop() {
				s, err := NewStore(StoreOptions{StateDir: dir, Try: reaper.New().TryExec})
				must(b, err)
				_ = s.sealed()
				must(b, s.Close())
			}
		})
	}
}
