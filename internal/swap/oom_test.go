package swap

import (
	"bufio"
	"context"
	"os"
	"strconv"
	"strings"
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
