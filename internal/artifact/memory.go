package artifact

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
)

// Bounds of a copy in memory, which stays as long as the generation and is kept for a rollback besides. The kernel
// answers its want of memory not with an error but by killing somebody, so it has to be known before.
const (
	maxInMemory  = 256 << 20
	shareOfFree  = 4 // a copy may take a quarter of what is free
	maxTreeDepth = 64
)

// fits says why a copy of size bytes should not be in memory. Who insists on copies gets one that there is room for.
func (s *Store) fits(size int64) error {
	share, most := int64(shareOfFree), int64(maxInMemory)
	if s.exec == ExecCopy {
		share, most = 1, math.MaxInt64
	}
	const hint = "set ENTRYPOINT_STATE_DIR, for a copy on disk"
	if size > most {
		return fmt.Errorf("%s are more than the %s that are copied to memory; %s", mebibytes(size), mebibytes(most), hint)
	}
	if free := s.memory.free(size * share); size > free/share {
		return fmt.Errorf("%s are too much for the %s of memory that are free; %s", mebibytes(size), mebibytes(free), hint)
	}
	return nil
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }

// memoryView is where the kernel tells of memory.
type memoryView struct {
	proc    string // /proc
	cgroups string // /sys/fs/cgroup
}

var systemMemory = memoryView{"/proc", "/sys/fs/cgroup"}

// free is how many bytes may still be allocated in our control group and all above it that can be seen, and on the
// machine. File pages that nobody used lately count as free. Once it is sure that there are enough, it is not looked at
// more closely. What cannot be read sets no limit.
func (v memoryView) free(enough int64) int64 {
	free := v.available()
	dir, names := v.group()
	for range maxTreeDepth {
		free = min(free, groupFree(dir, names, enough))
		if dir == names.root {
			break
		}
		dir = filepath.Dir(dir)
	}
	return max(free, 0)
}

// available is the machine's estimate for new programs.
func (v memoryView) available() int64 {
	text, err := readSmall(filepath.Join(v.proc, "meminfo"))
	if err != nil {
		return math.MaxInt64
	}
	kib, ok := field(text, "MemAvailable:")
	if !ok {
		return math.MaxInt64
	}
	return kib << 10
}

// memoryNames are the files of one version of control groups.
type memoryNames struct{ root, limit, usage, idle string }

// group is our control group: its directory, and how its files are called.
func (v memoryView) group() (string, memoryNames) {
	two := memoryNames{v.cgroups, "memory.max", "memory.current", "inactive_file"}
	one := memoryNames{filepath.Join(v.cgroups, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
	text, _ := readSmall(filepath.Join(v.proc, "self/cgroup"))
	unified := ""
	for _, line := range strings.Split(text, "\n") {
		_, rest, _ := strings.Cut(line, ":")
		controllers, path, _ := strings.Cut(rest, ":")
		if strings.Contains(","+controllers+",", ",memory,") {
			return filepath.Join(one.root, filepath.Clean("/"+path)), one
		}
		if strings.HasPrefix(line, "0::") {
			unified = path
		}
	}
	return filepath.Join(two.root, filepath.Clean("/"+unified)), two
}

// groupFree is what one control group leaves.
func groupFree(dir string, names memoryNames, enough int64) int64 {
	limit, ok := number(filepath.Join(dir, names.limit))
	if !ok {
		return math.MaxInt64
	}
	usage, _ := number(filepath.Join(dir, names.usage))
	if free := limit - usage; free >= enough {
		return free
	}
	stat, _ := readSmall(filepath.Join(dir, "memory.stat"))
	idle, _ := field(stat, names.idle)
	return limit - usage + min(idle, usage)
}

// number reads a file with one number. "max" is none.
func number(path string) (int64, bool) {
	text, err := readSmall(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return n, err == nil && n >= 0
}

// field finds the number behind a word at the beginning of a line.
func field(text, name string) (int64, bool) {
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) > 1 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return max(n, 0), err == nil
		}
	}
	return 0, false
}
