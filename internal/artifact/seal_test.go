package artifact

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSealWaits seals a memory file whose pages somebody holds: who lets them go at some time, or never.
func TestSealWaits(t *testing.T) {
	for name, letsGo := range map[string]bool{"lets go": true, "holds on": false} {
		t.Run(name, func(t *testing.T) {
			f, err := NewMemory("held")
			must(t, err)
			defer f.Close()
			must(t, f.Truncate(4096))
			held, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, allSeals); err != unix.EBUSY {
				t.Fatalf("the kernel says %v, want EBUSY", err)
			}
			done := make(chan error, 1)
			go func() { done <- Seal(f) }()
			if letsGo {
				must(t, unix.Munmap(held))
				must(t, <-done)
				return
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), "cannot be sealed") {
				t.Errorf("sealed under a mapping: %v", err)
			}
			must(t, unix.Munmap(held))
		})
	}
}
