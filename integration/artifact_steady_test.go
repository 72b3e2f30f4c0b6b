//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// warmUp is how many uploads come before the first look: by then every pool and cache has been used.
const warmUp = 20

// manyPuts swaps by put again and again; ARTIFACT_PUTS says how often. Nothing is to be left of it.
func manyPuts(t *testing.T, e engine.Engine) {
	n := 100
	if text := os.Getenv("ARTIFACT_PUTS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("ARTIFACT_PUTS: %v", err)
		}
	}
	s := play(t, e, "version=v0 linger=0s")
	s.load = load.Start(context.Background(), load.Options{ // without reused connections, for which each put would wait
		Address: s.addr, Fresh: 3, Slow: 2, SlowPath: "/slow?ms=60", Pace: 2 * time.Millisecond, Timeout: 10 * time.Second,
	})
	s.answered(20)
	s.begins()
	s.putOften(warmUp)
	before := s.putCost()
	begin := time.Now()
	s.putOften(n)
	took := time.Since(begin) / time.Duration(n)
	s.lossless()
	var after putCost
	s.eventually("init is as large as before", func() error {
		after = s.putCost()
		return after.within(before)
	})
	st, err := s.status()
	t.Logf("%d puts, %v each, %v of them swaps (median); before %+v, after %+v", n, took, st.median(), before, after)
	if err != nil || st.Active != 1+warmUp+n || len(st.Kept) != 1 {
		t.Errorf("active %d, kept %v (%v)", st.Active, st.Kept, err)
	}
}

// median is that of the times of the swaps that status remembers.
func (st status) median() time.Duration {
	var all []int64
	for _, r := range st.swaps() {
		all = append(all, r.ElapsedMS)
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return time.Duration(all[len(all)/2]) * time.Millisecond
}

// putOften puts so many programs from inside, so that not each of them needs a `docker exec` of its own.
func (s *scene) putOften(n int) {
	s.t.Helper()
	cmd := s.c.Command(s.t.Context(), "/testapp", "tool", "puts", strconv.Itoa(n), "linger=0s")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("puts: %v: %s", err, out)
	}
	s.settled()
}

// putCost is what PID 1 and its container need.
type putCost struct {
	fds, memfds, threads, anonymous int
	artifacts                       int64 // bytes, by status
	container                       int64 // bytes of memory without file pages
}

// within says what grew by more than chance.
func (f putCost) within(before putCost) error {
	const slack = 4 << 20
	const spare = 4    // an address may have spare slots, so that no index in use ever moves
	const waiting = 12 // threads that the runtime makes where one of them is kept waiting; what leaks, leaks with each put
	switch {
	case f.fds > before.fds+spare, f.memfds > before.memfds, f.threads > before.threads+waiting, f.artifacts > before.artifacts,
		f.anonymous > before.anonymous+slack, f.container > before.container+2*slack:
		return fmt.Errorf("%+v, before %+v", f, before)
	}
	return nil
}

func (s *scene) putCost() putCost {
	s.t.Helper()
	st := s.settled()
	f := putCost{artifacts: st.Memory}
	proc := fmt.Sprintf("/proc/%d", s.c.PID())
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		s.t.Fatal(err)
	}
	f.fds = len(fds)
	for _, fd := range fds {
		if link, _ := os.Readlink(filepath.Join(proc, "fd", fd.Name())); strings.HasPrefix(link, "/memfd:") {
			f.memfds++
		}
	}
	text := string(s.read(proc + "/status"))
	f.threads, f.anonymous = numberBehind(text, "Threads:"), numberBehind(text, "RssAnon:")<<10
	f.container = s.containerMemory()
	if f.memfds > 2 { // what serves and what is kept; others would be closed by the garbage collector, at some time
		s.t.Errorf("PID 1 has %d memory files open, want 2 at most", f.memfds)
	}
	return f
}

// numberBehind finds the one behind a word at the beginning of a line.
func numberBehind(text, word string) (n int) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, word); ok {
			_, _ = fmt.Sscan(value, &n)
		}
	}
	return n
}

// memoryFile is a file of the control group of the container, by the name that it has in version 1.
func (s *scene) memoryFile(name string) string {
	s.t.Helper()
	for line := range strings.Lines(string(s.read(fmt.Sprintf("/proc/%d/cgroup", s.c.PID())))) {
		if _, path, ok := strings.Cut(strings.TrimSpace(line), ":memory:"); ok {
			return filepath.Join("/sys/fs/cgroup/memory", path, name)
		}
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			if two := filepath.Join("/sys/fs/cgroup", path, versionTwo[name]); exists(two) {
				return two
			}
		}
	}
	s.t.Fatalf("the container has no memory group with %q", name)
	return ""
}

var versionTwo = map[string]string{"memory.oom_control": "memory.events", "memory.stat": "memory.stat"}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// containerMemory is what processes have, and memory files.
func (s *scene) containerMemory() int64 {
	s.t.Helper()
	text := string(s.read(s.memoryFile("memory.stat")))
	return int64(numberBehind(text, "rss ") + numberBehind(text, "anon ") + numberBehind(text, "shmem "))
}
