package main

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"

	ps "github.com/mitchellh/go-ps"

	"github.com/hotswap-init/entrypoint/internal/control"
)

var psCommand = &command{
	name:    "ps",
	summary: "list the processes of the container, for people",
	details: "The processes that this command can see, joined with what the init knows of them. The two are taken at " +
		"different moments and by different ways; where they disagree, it says so. The init never decides anything by this list.",
	run: func(c *call) int {
		if len(c.args) > 0 {
			return c.usage("ps takes no words: got %q", c.args[0])
		}
		var page string
		// Processes come and go between the two lists. A disagreement that is gone in the next try was only that.
		for range 3 {
			seen, err := visible()
			if err != nil {
				c.fault("cannot list the processes: " + err.Error())
				return codeRejected
			}
			r := c.ask(control.Request{Op: control.OpPS})
			if r.Code != codeDone {
				return c.end(r)
			}
			var agree bool
			if page, agree = psPage(seen, r.Processes, os.Getpid()); agree {
				break
			}
		}
		c.text(page)
		return codeDone
	},
}

// process is a process as this command sees it.
type process struct {
	pid, parent int    // as go-ps says
	name        string // of at most 15 bytes, and the process may set it to anything
	realParent  int    // as /proc says, read without being misled by the name; 0: gone meanwhile
	zombie      bool
}

// visible lists the processes by go-ps, which gives names for display, and reads what go-ps does not offer from /proc.
func visible() ([]process, error) {
	listed, err := ps.Processes()
	if err != nil {
		return nil, err
	}
	all := make([]process, 0, len(listed))
	for _, l := range listed {
		p := process{pid: l.Pid(), parent: l.PPid(), name: l.Executable()}
		if stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/stat"); err == nil {
			p.realParent, p.zombie = parentIn(string(stat))
		}
		all = append(all, p)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].pid < all[j].pid })
	return all, nil
}

// parentIn takes the parent and the state from a line of /proc/<pid>/stat. The name in it may contain anything, also
// parentheses, so the fields are counted from the last one.
func parentIn(stat string) (parent int, zombie bool) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	parent, _ = strconv.Atoi(fields[1])
	return parent, fields[0] == "Z"
}

// psPage joins the two lists. self is this command, which is no part of what it shows.
func psPage(seen []process, known []control.Process, self int) (page string, agree bool) {
	registry := map[int]control.Process{}
	for _, k := range known {
		registry[k.PID] = k
	}
	parents := map[int]int{}
	var rows [][]string
	var disagree []string
	for _, p := range seen {
		parents[p.pid] = p.realParent
	}
	delete(registry, self)
	for _, p := range seen {
		if p.pid == self {
			continue
		}
		k, ours := registry[p.pid]
		delete(registry, p.pid)
		row, complaint := psRow(p, k, ours, generationAbove(p.pid, parents, known))
		rows = append(rows, row)
		disagree = append(disagree, complaint...)
	}
	for _, k := range known {
		if _, missing := registry[k.PID]; missing {
			disagree = append(disagree, fmt.Sprintf("pid %d: the init knows it%s, and it is not visible here", k.PID, inGeneration(k)))
		}
	}
	columns := []column{{"PID", true}, {"PARENT", true}, {"GEN", true}, {"STATE", false}, {"NAME", false}}
	page = "visible processes, a listing for people\n\n" + table(columns, rows, width)
	for i, d := range disagree {
		if i == 0 {
			page += "\n"
		}
		page += wrap("!", 2, d)
	}
	return page, len(disagree) == 0
}

// psRow is the row of one visible process, and what the two lists disagree about.
func psRow(p process, k control.Process, ours bool, above int) (row, complaints []string) {
	gen, state := "-", "outside"
	switch {
	case ours && k.State != "":
		state = k.State
	case ours:
		state = "child"
	}
	switch {
	case k.Generation != 0:
		gen = fmt.Sprint(k.Generation)
		if k.Worker > 0 {
			gen += fmt.Sprintf(" w%d", k.Worker)
		}
	case above != 0:
		gen = fmt.Sprint(above)
	}
	if p.zombie {
		state = "zombie"
	}
	if !ours && above != 0 && !p.zombie {
		complaints = append(complaints, fmt.Sprintf("pid %d: it is below generation %d, and the init does not know it", p.pid, above))
	}
	if p.realParent != 0 && p.realParent != p.parent {
		complaints = append(complaints, fmt.Sprintf("pid %d: its name %q misleads process listings: they take %d for its parent, which is %d",
			p.pid, p.name, p.parent, p.realParent))
	}
	return []string{fmt.Sprint(p.pid), fmt.Sprint(p.realParent), gen, state, p.name}, complaints
}

func inGeneration(k control.Process) string {
	if k.Generation == 0 {
		return ""
	}
	return fmt.Sprintf(" as generation %d, %s", k.Generation, k.State)
}

// generationAbove is the generation whose main process is pid or above it, 0 if there is none.
func generationAbove(pid int, parents map[int]int, known []control.Process) int {
	for range len(parents) {
		for _, k := range known {
			if k.PID == pid && k.Generation != 0 {
				return k.Generation
			}
		}
		if pid = parents[pid]; pid == 0 {
			break
		}
	}
	return 0
}
