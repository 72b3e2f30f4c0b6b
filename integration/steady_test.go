//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// children lists the children of a process, over all its threads.
func children(pid int) []int {
	var all []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for word := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(word); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// footprint is what a process holds.
type footprint struct {
	fds     map[string]int // kind of descriptor: how many
	total   int
	threads int
	rss     int // KiB
	anon    int // KiB of it that is no file

	goroutines int // where the metrics were asked
}

// socketKinds tells of each socket in the process's network what it is.
func socketKinds(pid int) map[string]string {
	kinds := map[string]string{}
	column := map[string]int{"tcp": 9, "udp": 9, "unix": 6, "netlink": 9}
	for _, kind := range []string{"tcp", "udp", "unix", "netlink"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, kind))
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) <= column[kind] {
				continue
			}
			name := kind
			if kind == "tcp" {
				name += " state " + fields[3]
			}
			if kind == "unix" {
				name += " type " + fields[4] + " state " + fields[5]
			}
			kinds[fields[column[kind]]] = name
		}
	}
	return kinds
}

func footprintOf(t *testing.T, pid int) footprint {
	t.Helper()
	f := footprint{fds: map[string]int{}}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		t.Fatalf("cannot read the descriptors of %d: %v", pid, err)
	}
	sockets := socketKinds(pid)
	for _, link := range links {
		name, _ := os.Readlink(link)
		kind, inode, _ := strings.Cut(strings.TrimSuffix(name, "]"), ":[")
		if kind == "socket" {
			kind = sockets[inode]
		}
		f.fds[kind]++
		f.total++
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch number, _ := strconv.Atoi(strings.Fields(value + " x")[0]); key {
		case "Threads":
			f.threads = number
		case "VmRSS":
			f.rss = number
		case "RssAnon":
			f.anon = number
		}
	}
	return f
}

// TestSteady swaps very often: nothing of the init may grow, and nothing of it may
// leak into the app.
func TestSteady(t *testing.T) {
	swaps := map[string]int{"unshare": 200, "runc": 60, "docker": 60}
	table(t, "", []row{{"swaps", func(t *testing.T, e engine.Engine) { steady(t, e, swaps[e.Name()]) }}})
}

func steady(t *testing.T, e engine.Engine, swaps int) {
	const fast = " linger=0s"
	s := play(t, e, "version=v0"+fast, "ENTRYPOINT_DRAIN_TIMEOUT=5s", backToBack)
	s.underLoad()
	var base footprint
	const calm = 3 // swaps in the end, one after the other is over: they bring the active slot to a low index, however many drained at once
	var st status
	for i := 1; i <= swaps+calm; i++ {
		version := fmt.Sprint("v", i)
		s.put("version=" + version + fast)
		s.reload(0)
		if i == 10 {
			s.settled()
			base = footprintOf(t, s.initPID())
		}
		if i >= swaps {
			st = s.settled()
		}
	}
	var end footprint
	s.eventually("the init holds as much as after 10 swaps", func() error { // it gives memory back once it is calm
		const spare = 2 // an address may have spare slots, so that no index in use ever moves
		// Pages of the executable come and go: an init that is calm gives them back, and a client's question brings some
		// again. What would leak is anonymous, and so much of it may be garbage that has not been collected.
		const garbage = 6 << 10
		end = footprintOf(t, s.initPID())
		if end.total > base.total+spare || end.anon > base.anon+garbage {
			return fmt.Errorf("now %v and %d KiB anonymous, then %v and %d KiB", end.fds, end.anon, base.fds, base.anon)
		}
		return nil
	})
	a := s.state()
	r := s.lossless()
	t.Logf("%d swaps: descriptors %d -> %d, threads %d -> %d, RSS %d -> %d KiB, anonymous %d -> %d KiB", swaps, base.total, end.total, base.threads, end.threads, base.rss, end.rss, base.anon, end.anon)
	if want := swaps + calm + 1; st.Active != want || a.Generation != strconv.Itoa(want) {
		t.Errorf("active %d, want %d", st.Active, want)
	}
	if end.threads > base.threads+12 { // the runtime makes some more where one of them is kept waiting; what leaks, leaks with each swap
		t.Errorf("threads of the init: %d, after 10 swaps %d", end.threads, base.threads)
	}
	if zombies := zombiesOf(s.initPID()); zombies > 0 {
		t.Errorf("%d zombies", zombies)
	}
	if r.Failures("reused") > 0 {
		t.Logf("reused connections lost with an app that does not linger: %s", r.FailedText())
	}
	strays(t, a)
}

// initPID is the init as the machine sees it.
func (s *scene) initPID() int { return s.c.PID() }
