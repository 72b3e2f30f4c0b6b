//go:build integration

package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// soakSteps is how many things happen between two looks at what the init holds.
const soakSteps = 25

// listening is a held socket. soakSlots is how many more than at first there may be: where the kernel would move a slot that has traffic, spare ones
// stay, until swaps that follow need them or they can go.
const (
	listening = "tcp state 0A"
	soakSlots = 8
)

// soakClients is how many requests are under way at once, so that no more can be lost with one process that is killed.
const soakClients = 7

// TestSoak swaps under load, as fast as swaps go, and lets things go wrong by chance: for SOAK (a minute; make soak: an hour). What the init holds stays
// flat, and each lost request is one that a process had accepted which the test has killed, or restarted: the app does not linger. SOAK_SEED has the same things happen again.
func TestSoak(t *testing.T) {
	table(t, "unshare", []row{{"swaps-and-faults", soak}})
}

// soaking is a container under soak.
type soaking struct {
	*faced
	dice    *rand.Rand
	version int
	kills   int // processes that were killed, or stopped without a successor, in this round
	did     map[string]int
	diary   []string // of this round
}

func soak(t *testing.T, e engine.Engine) {
	length, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		length = time.Minute
	}
	seed, err := strconv.ParseUint(os.Getenv("SOAK_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("SOAK_SEED=%d", seed)
	s := &soaking{dice: rand.New(rand.NewPCG(seed, 1)), did: map[string]int{}}
	s.faced = playFaced(t, e, "version=v0 linger=0s", "ENTRYPOINT_DRAIN_TIMEOUT=5s", "ENTRYPOINT_RESTART=always", "ENTRYPOINT_RESTART_DELAY=10ms", "ENTRYPOINT_RESTART_MAX_DELAY=20ms",
		"ENTRYPOINT_START_LIMIT_INTERVAL=0", backToBack)
	s.next("")
	s.told("reload", 0)
	looks := []footprint{s.look(nil)}
	swaps, requests, killed := 0, 0, 0
	for end := time.Now().Add(length); len(looks) < 5 || time.Now().Before(end); {
		r := s.round()
		swaps, requests, killed = swaps+soakSteps, requests+r.Requests(), killed+s.kills
		looks = append(looks, s.look(looks))
	}
	first, last := looks[0], looks[len(looks)-1]
	t.Logf("%d steps %v, %d requests, %d processes killed or stopped; descriptors %d -> %d, threads %d -> %d, goroutines %d -> %d, anonymous memory %d -> %d KiB",
		swaps, s.did, requests, killed, first.total, last.total, first.threads, last.threads, first.goroutines, last.goroutines, first.anon, last.anon)
	// Garbage comes and goes by some MiB, so few rounds say little.
	if slope := growth(looks); len(looks) > 15 && slope > 300 || last.anon > first.anon+16<<10 {
		t.Errorf("anonymous memory grows by %.0f KiB a round, from %d to %d KiB", slope, first.anon, last.anon)
	}
}

// growth is the slope of a straight line through the anonymous memory of the looks but the first two, in KiB a round.
func growth(looks []footprint) float64 {
	looks = looks[2:]
	var n, x, y, xy, xx float64
	for i, f := range looks {
		n, x, y, xy, xx = n+1, x+float64(i), y+float64(f.anon), xy+float64(i)*float64(f.anon), xx+float64(i)*float64(i)
	}
	return (n*xy - x*y) / (n*xx - x*x)
}

// round lets things happen, and accounts for each request that was lost.
func (s *soaking) round() load.Report {
	s.t.Helper()
	s.kills, s.diary = 0, nil
	s.underLoad()
	for range soakSteps {
		s.step()
	}
	s.again("round")
	s.answered(20)
	r := s.load.Stop()
	s.load = nil
	stamped, err := filepath.Glob(filepath.Join(s.dir, "server-*"))
	must(s.scene, err)
	for _, file := range stamped { // what has been put: 6 MiB each
		must(s.scene, os.Remove(file))
	}
	lost := 0
	for class, kinds := range r.Failed {
		for kind, n := range kinds {
			if class == load.Reused { // the app does not linger: see docs/keepalive.md
				continue
			}
			if lost += n; kind != load.Reset && kind != load.EOF {
				s.t.Errorf("%d requests are %s", n, kind)
			}
		}
	}
	if lost > s.kills*soakClients {
		s.t.Errorf("%d requests are lost with %d processes that were killed or stopped: %s\n%s\n%s", lost, s.kills, r, strings.Join(r.Samples, "\n"), strings.Join(s.diary, "\n"))
	}
	return r
}

// look waits until all is calm, and the init holds no more than at the first look.
func (s *soaking) look(before []footprint) (f footprint) {
	s.t.Helper()
	pid := s.initPID()
	s.eventually("the init holds what it held", func() error {
		s.settled()
		if zombies, all := zombiesOf(pid), len(s.processes()); zombies > 0 || all > 3 { // the init, the app, the helper of the metrics
			return fmt.Errorf("%d zombies, %d processes", zombies, all)
		}
		f = footprintOf(s.t, pid)
		f.goroutines = int(s.series()["entrypoint_goroutines"])
		if len(before) == 0 {
			return nil
		}
		base, slots := before[0], f.fds[listening]-before[0].fds[listening]
		if f.total-slots > base.total || slots > soakSlots || f.threads > base.threads+12 || f.goroutines > base.goroutines {
			return fmt.Errorf("descriptors %v, then %v; threads %d, then %d; goroutines %d, then %d", base.fds, f.fds, base.threads, f.threads, base.goroutines, f.goroutines)
		}
		return nil
	})
	return f
}

// step is one thing that happens.
func (s *soaking) step() {
	s.t.Helper()
	acts := []struct {
		name string
		odds int
		do   func()
	}{
		{"swap", 8, func() { s.next(""); s.told("reload", 0) }},
		{"put", 2, func() { s.version++; s.upload(fmt.Sprintf("version=v%d linger=0s", s.version)) }},
		{"rollback", 2, func() { s.told("rollback", 0, 1) }},
		{"refused", 3, func() { s.next("fail=3"); s.told("reload", 1) }},
		{"hup", 2, func() {
			s.next("")
			for range 3 {
				s.signal(syscall.SIGHUP)
			}
		}},
		{"impatient client", 2, s.impatient},
		{"active killed", 2, s.killActive},
		{"orphans", 1, func() {
			if _, err := s.get("/orphans?n=50&life=1ms"); err != nil {
				s.t.Error(err)
			}
		}},
		{"restart", 1, func() { s.kills++; s.told("restart", 0) }},
	}
	all := 0
	for _, a := range acts {
		all += a.odds
	}
	n := s.dice.IntN(all)
	for _, a := range acts {
		if n -= a.odds; n < 0 {
			s.did[a.name]++
			s.diary = append(s.diary, fmt.Sprintf("%s %s", time.Now().UTC().Format("15:04:05.000"), a.name))
			a.do()
			s.again(a.name)
			return
		}
	}
}

// next puts another version into the app's place.
func (s *soaking) next(more string) {
	s.version++
	s.put(fmt.Sprintf("version=v%d linger=0s %s", s.version, more))
}

// told gives a command and wants one of these exit codes. While a signal's swap is under way it is given again.
func (s *soaking) told(command string, codes ...int) {
	s.t.Helper()
	s.eventually(command+" is done", func() error {
		code, out := s.patientExec(command)
		if code == 3 {
			return errAgain
		}
		if !slices.Contains(codes, code) {
			s.t.Errorf("%s: %d %s", command, code, out)
		}
		return nil
	})
}

// again waits until a generation serves and nothing else is under way.
func (s *soaking) again(after string) status {
	s.t.Helper()
	return s.waitStatus("it serves after "+after, func(st status) bool {
		return st.State == "serving" && st.Candidate == 0 && st.stateOf(st.Active) == "active"
	})
}

// impatient asks for a swap and does not wait for the answer.
func (s *soaking) impatient() {
	s.t.Helper()
	s.next("")
	cmd, _ := s.background("reload")
	time.Sleep(time.Duration(s.dice.IntN(40)) * time.Millisecond) // at any phase
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// killActive ends the process that serves, as a crash would.
func (s *soaking) killActive() {
	s.t.Helper()
	var st status
	pid := 0
	s.eventually("the process that serves is found", func() error { // the swap of a signal may replace it meanwhile
		st = s.again("all before")
		if pid = s.hostOf(st.pidOf(st.Active)); pid == 0 {
			return errAgain
		}
		return nil
	})
	s.kills++
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.t.Fatal(err)
	}
	s.waitStatus("another process serves", func(now status) bool {
		return now.State == "serving" && (now.Active != st.Active || now.pidOf(now.Active) != st.pidOf(st.Active))
	})
}
