package swap

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/reaper"
)

// family is a process with a child, both candidates to be killed first; the child has a session of its own where apart.
func family(t *testing.T, r *reaper.Reaper, apart bool) (p *reaper.Process, child int) {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	run := "sleep 1000"
	if apart {
		run = "setsid " + run
	}
	script := "echo " + strconv.Itoa(expendable) + " >/proc/$$/oom_score_adj; " + run + " & echo $!; wait"
	p, err = r.Start(reaper.Spec{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Session: true, Umask: -1, Files: []int{-1, int(out.Fd()), 2}, Env: []string{"PATH=/bin:/usr/bin"}})
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err == nil {
		child, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		t.Fatal(err)
	}
	return p, child
}

// TestExpendableAtOnce: a candidate is killed first from its first instruction, and the first generation, with nobody to lose, never is.
func TestExpendableAtOnce(t *testing.T) {
	sockets, err := handoff.Open(nil, handoff.Config{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "scores")
	s := runReal(t, sockets, `exec:["/bin/sh", "-c", "[ -s `+path+` ]"]`, &App{}, Options{
		Command: []string{"/bin/sh", "-c", "read n </proc/self/oom_score_adj; echo $n >>" + path + "; exec sleep 1000"}, StopSignal: syscall.SIGTERM,
	})
	settled(t, s.Supervisor, func() bool { return true })
	if err := os.Rename(path, path+".first"); err != nil {
		t.Fatal(err)
	}
	if res := s.Swap(t.Context(), Request{Kind: Reload, Cause: "test"}, nil); res.Code != CodeDone {
		t.Fatalf("%+v", res)
	}
	for name, want := range map[string]int{path + ".first": ownScore(), path: expendable} {
		if b, err := os.ReadFile(name); err != nil || string(b) != strconv.Itoa(want)+"\n" {
			t.Errorf("%s has %q (%v), want %d", filepath.Base(name), b, err, want)
		}
	}
}

// TestSpare: what a generation has started is spared with it, and what belongs to another one is not.
func TestSpare(t *testing.T) {
	r := reaper.New()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() { r.SignalDescendants(9); stop(); <-done })
	a := &App{Reaper: r, processes: map[handoff.Seat]*reaper.Process{}}
	var pids []int
	for gen := 1; gen <= 2; gen++ {
		p, child := family(t, r, gen == 1)
		a.processes[handoff.Seat{Generation: gen}] = p
		pids = append(pids, p.PID(), child)
	}
	a.spare(1)
	for i, want := range []int{ownScore(), ownScore(), expendable, expendable} {
		if got, err := oomScore(pids[i]); err != nil || got != want {
			t.Errorf("process %d has %d (%v), want %d", i, got, err, want)
		}
	}
}
