package reaper

import (
	"bytes"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// stat is what we need of /proc/PID/stat.
type stat struct {
	pid, parent int
	group       int
	state       byte
	start       string // ticks since boot: with the number it names a process for good
}

// parseStat reads a line of /proc/PID/stat. The name in parentheses may hold anything, parentheses and numbers too: only
// the last closing one ends it.
func parseStat(pid int, line []byte) (stat, bool) {
	i := bytes.LastIndexByte(line, ')')
	f := bytes.Fields(line[i+1:])
	if i < 0 || len(f) < 20 || len(f[0]) != 1 || f[0][0]|0x20 < 'a' || f[0][0]|0x20 > 'z' {
		return stat{}, false
	}
	parent, err := strconv.Atoi(string(f[1]))
	group, gerr := strconv.Atoi(string(f[2]))
	return stat{pid: pid, parent: parent, group: group, state: f[0][0], start: string(f[19])}, err == nil && gerr == nil
}

func (s stat) zombie() bool { return s.state == 'Z' || s.state == 'X' }

// table is a view of all processes, by number.
type table map[int]stat

func readStat(pid int) (stat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	return parseStat(pid, b)
}

// Descendants lists the live processes below this one at every depth, adopted orphans included, zombies not, nor what was started with
// Spec.Own. It reads /proc; where that cannot be read it lists the children that Start made.
func (r *Reaper) Descendants() []int {
	var pids []int
	for _, s := range r.descendants() {
		pids = append(pids, s.pid)
	}
	return pids
}

func (r *Reaper) descendants() []stat {
	t := readTable()
	if len(t) == 0 {
		return r.children()
	}
	below := map[int][]stat{}
	for _, s := range t {
		below[s.parent] = append(below[s.parent], s)
	}
	var all []stat
	own := r.own()
	for queue := []int{os.Getpid()}; len(queue) > 0; queue = queue[1:] {
		for _, s := range below[queue[0]] {
			if own[s.pid] {
				continue
			}
			queue = append(queue, s.pid)
			if !s.zombie() {
				all = append(all, s)
			}
		}
		delete(below, queue[0]) // a number that was reused while we read must not make a circle
	}
	return all
}

// groupLives tells whether the group has a member that is not a zombie, or that cannot be told.
func groupLives(group int) bool {
	t := readTable()
	for _, s := range t {
		if s.group == group && !s.zombie() {
			return true
		}
	}
	return len(t) == 0
}

// readTable reads what /proc has of all processes; nothing if it is not there or belongs to another pid namespace, whose
// numbers mean nothing to us.
func readTable() table {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return nil
	}
	names, err := readNames("/proc")
	if err != nil {
		return nil
	}
	t := table{}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			t.look(pid)
		}
	}
	t.adopt()
	return t
}

func (t table) look(pid int) {
	if s, ok := readStat(pid); ok {
		t[pid] = s
	} else {
		delete(t, pid)
	}
}

// adopt looks once more at those whose parent ended while the table was read: they have a new one.
func (t table) adopt() {
	for pid, s := range t {
		if _, ok := t[s.parent]; !ok && s.parent != 0 {
			t.look(pid)
		}
	}
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (r *Reaper) children() []stat {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []stat
	for pid, p := range r.processes {
		if !p.own {
			all = append(all, stat{pid: pid})
		}
	}
	return all
}

// own lists the children that are the init's own.
func (r *Reaper) own() map[int]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list map[int]bool
	for pid, p := range r.processes {
		if p.own {
			if list == nil {
				list = map[int]bool{}
			}
			list[pid] = true
		}
	}
	return list
}

// SignalDescendants sends sig to each of Descendants and tells how many it reached. Never to a stranger: the number is
// tied to the process by a descriptor (5.3) before it is looked at once more.
func (r *Reaper) SignalDescendants(sig syscall.Signal) int {
	n := 0
	for _, s := range r.descendants() {
		if r.signalOne(s, sig) {
			n++
		}
	}
	return n
}

func (r *Reaper) signalOne(s stat, sig syscall.Signal) bool {
	r.mu.Lock() // our own children keep their numbers meanwhile
	defer r.mu.Unlock()
	fd, err := unix.PidfdOpen(s.pid, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	if again, ok := readStat(s.pid); s.start != "" && (!ok || again.start != s.start) {
		return false
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	if err == unix.ENOSYS || err == unix.EPERM { // no such call here, or a filter refuses it
		err = unix.Kill(s.pid, sig)
	}
	return err == nil
}
