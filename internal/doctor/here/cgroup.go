package here

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
)

// A swap has two generations at once for a while: what one uses must be there a second time.
const overlap = 2

// group is our control group for one controller: the folder and the version. "" if there is none.
func (s System) group(controller string) (dir string, version int) {
	one, two := "", ""
	for line := range strings.Lines(s.read("proc/self/cgroup")) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		list, name, _ := strings.Cut(rest, ":")
		switch {
		case list == "":
			two = name
		case strings.Contains(","+list+",", ","+controller+","):
			one = name
		}
	}
	for line := range strings.Lines(s.read("proc/self/mountinfo")) {
		before, after, _ := strings.Cut(line, " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(kind) < 3 {
			continue
		}
		switch {
		case kind[0] == "cgroup2" && s.holds(f, two, controllerFile[controller]):
			return s.below(f, two), 2
		case kind[0] == "cgroup" && one != "" && strings.Contains(","+kind[2]+",", ","+controller+","):
			return s.below(f, one), 1
		}
	}
	return "", 0
}

// controllerFile tells by its presence that a controller is on in a group of version 2.
var controllerFile = map[string]string{"memory": "memory.max", "pids": "pids.max"}

// below is the folder of a group in a mount, whose fields 3 and 4 are the part of the tree that is mounted and where. Where the
// group is not in that part, as with a mount of the host's tree in a namespace, the mount itself is the best guess.
func (s System) below(mount []string, name string) string {
	root := mount[3]
	if rest, ok := strings.CutPrefix(name, strings.TrimSuffix(root, "/")); ok && root != name {
		if dir := path.Join(mount[4], rest); s.read(dir+"/cgroup.procs") != "" || s.read(dir+"/tasks") != "" {
			return dir
		}
	}
	return mount[4]
}

func (s System) holds(mount []string, name, file string) bool {
	return s.read(s.below(mount, name)+"/"+file) != ""
}

// limit reads a limit; none is the largest number.
func (s System) limit(path string) (int64, bool) {
	text := s.read(path)
	if text == "max" {
		return math.MaxInt64, true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false
	}
	if n > math.MaxInt64-1<<20 { // version 1 writes no limit as the largest number of whole pages
		return math.MaxInt64, true
	}
	return int64(n), true
}

// memory is whether a second generation has room.
func (e *examination) memory() Row {
	r := Row{Name: "memory", State: Works}
	dir, version := e.group("memory")
	limitFile, usageFile, idle := "memory.max", "memory.current", "inactive_file"
	if version == 1 {
		limitFile, usageFile, idle = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
	}
	limit, ok := e.limit(dir + "/" + limitFile)
	switch used := e.used(dir, usageFile, idle); {
	case version == 0 || !ok:
		r.Found = "no control group of memory can be seen"
	case limit == math.MaxInt64:
		r.Found = fmt.Sprintf("no limit in the control group (version %d)", version)
	case used > limit/overlap:
		r.State, r.Found = Limited, fmt.Sprintf("%s of %s in use (control group version %d): a swap runs two generations at once, and the kernel may kill one", mebibytes(used), mebibytes(limit), version)
		r.Remedy = "raise the memory limit to about twice of what one generation needs, or set ENTRYPOINT_HANDOFF=exclusive"
	default:
		r.Found = fmt.Sprintf("%s of %s in use (control group version %d)", mebibytes(used), mebibytes(limit), version)
	}
	return r
}

// used is what a group occupies, less file pages that nobody used lately.
func (e *examination) used(dir, file, idle string) int64 {
	used, _ := e.number(dir + "/" + file)
	for line := range strings.Lines(e.read(dir + "/memory.stat")) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == idle {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			used -= n
		}
	}
	return max(used, 0)
}

// pids is whether a second generation may be started.
func (e *examination) pids() Row {
	r := Row{Name: "pids", State: Works}
	dir, version := e.group("pids")
	limit, ok := e.limit(dir + "/pids.max")
	used, _ := e.number(dir + "/pids.current")
	switch {
	case version == 0 || !ok:
		r.Found = "no control group of pids can be seen"
	case limit == math.MaxInt64:
		r.Found = fmt.Sprintf("no limit in the control group (version %d)", version)
	case used > limit/overlap:
		r.State, r.Found = Limited, fmt.Sprintf("%d of %d processes and threads (control group version %d): a swap runs two generations at once", used, limit, version)
		r.Remedy = "raise the limit (docker --pids-limit, podPidsLimit)"
	default:
		r.Found = fmt.Sprintf("%d of %d processes and threads (control group version %d)", used, limit, version)
	}
	return r
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
