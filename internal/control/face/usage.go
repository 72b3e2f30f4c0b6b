package face

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

const (
	// clockTick is the unit of the times in /proc: the kernel shows USER_HZ, which is 100 on every architecture that Go has.
	clockTick = 10 * time.Millisecond
	// maxTree bounds the processes that are looked at, and maxFiles the descriptors that are counted one by one.
	maxTree    = 4096
	maxThreads = 1024 // of each process
	maxFiles   = 1 << 16
)

// accountant sums up what generations use. Its goroutine is the caller's.
type accountant struct {
	root  string                // /proc
	last  map[int]time.Duration // by generation: its processor time when it was last looked at
	total time.Duration         // never goes back
}

// look reads /proc for every generation that runs. What a generation used between the last look and its end is not counted.
func (a *accountant) look(st *swap.Status) *Usage {
	var active *Usage
	live := map[int]bool{}
	for _, g := range st.Generations {
		if g.PID == 0 || !g.EndedAt.IsZero() {
			continue
		}
		u := a.tree(g.PID, g.Number == st.Active)
		for _, w := range g.Workers {
			if w.PID != 0 && w.PID != g.PID && w.State != swap.Exited {
				u.add(a.tree(w.PID, g.Number == st.Active))
			}
		}
		if u.Processes == 0 {
			continue
		}
		live[g.Number] = true
		a.total += max(0, u.CPU-a.last[g.Number])
		a.last[g.Number] = max(u.CPU, a.last[g.Number]) // a process that somebody else waits for takes its time along
		if g.Number == st.Active {
			active = &u
		}
	}
	for gen := range a.last {
		if !live[gen] {
			delete(a.last, gen)
		}
	}
	if active != nil {
		active.CPU = a.total
	}
	return active
}

// tree sums up a process and all below it.
func (a *accountant) tree(root int, files bool) Usage {
	var sum Usage
	seen := map[int]bool{root: true}
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		dir := filepath.Join(a.root, strconv.Itoa(queue[0]))
		line, err := readSmall(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended
		}
		cpu, pages, ok := parseStat(line)
		if !ok {
			continue
		}
		sum.Processes++
		sum.CPU += cpu
		sum.Resident += pages * int64(os.Getpagesize())
		if files {
			sum.Files += countFiles(filepath.Join(dir, "fd"))
		}
		for _, child := range children(dir) {
			if !seen[child] && len(seen) < maxTree {
				seen[child] = true
				queue = append(queue, child)
			}
		}
	}
	return sum
}

// parseStat reads the processor time, that of waited-for children included, and the resident pages from a line of /proc/PID/stat. The name in
// parentheses may hold anything: only the last closing one ends it.
func parseStat(line []byte) (cpu time.Duration, pages int64, ok bool) {
	i := bytes.LastIndexByte(line, ')')
	f := bytes.Fields(line[i+1:])
	if i < 0 || len(f) < 22 {
		return 0, 0, false
	}
	for _, field := range f[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil || ticks < 0 || ticks > int64(1<<62/clockTick) {
			return 0, 0, false
		}
		cpu += time.Duration(ticks) * clockTick
	}
	pages, err := strconv.ParseInt(string(f[21]), 10, 64)
	return cpu, pages, err == nil && cpu >= 0 && pages >= 0 && pages < 1<<40
}

// children lists what the threads of a process have forked (CONFIG_PROC_CHILDREN; nothing where that is not there).
func children(dir string) (pids []int) {
	tasks, err := names(filepath.Join(dir, "task"), maxThreads)
	if err != nil {
		return nil
	}
	for _, task := range tasks {
		list, err := readSmall(filepath.Join(dir, "task", task, "children"))
		if err != nil {
			continue
		}
		for _, word := range bytes.Fields(list) {
			if pid, err := strconv.Atoi(string(word)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// countFiles counts the descriptors of a process: since Linux 6.2 the size of the directory is their number. 0 where we may not look.
func countFiles(dir string) int {
	if info, err := os.Stat(dir); err == nil && info.Size() > 0 {
		return int(info.Size())
	}
	list, _ := names(dir, maxFiles)
	return len(list)
}

// names lists a directory, at most so many.
func names(dir string, most int) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := d.Readdirnames(most)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return list, err
}

// readSmall reads a file of /proc, at most 64 KiB of it.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

// add counts another tree of the same generation.
func (u *Usage) add(o Usage) {
	u.Processes += o.Processes
	u.Resident += o.Resident
	u.Files += o.Files
	u.CPU += o.CPU
}
