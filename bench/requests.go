package main

import (
	"fmt"
	"math"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// slice is how long one server is asked before it is the next one's turn: all are up, the others idle.
const slice = 250 * time.Millisecond

// alone is the app without any init.
const alone = "alone"

// inherited is an init that holds the app's socket and hands it over as a descriptor; shared one that has all generations use the same
// socket, where the other has one for each, steered.
const (
	inherited = "ENTRYPOINT_LISTEN="
	shared    = "ENTRYPOINT_STEER=off"
)

// requests compares requests per second, and the time of one, of the same app alone, under an init that leaves it alone, through an
// inherited socket, and through a socket under its own bind. Short turns and the median of the rounds' ratios keep the machine's moods out.
func (b *bench) requests() ([]line, error) {
	modes := []string{alone, unheld, shared, inherited, watched}
	servers := map[string]server{}
	for _, mode := range modes {
		s, err := b.server(mode)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		if err := b.answers(s.address); err != nil {
			return nil, err
		}
		servers[mode] = s
	}
	var out []line
	for _, kind := range []struct {
		what    string
		options load.Options
	}{
		{"a connection each", load.Options{Fresh: 8}}, {"keep-alive", load.Options{Reused: 8}},
	} {
		rates, times, used, err := b.turns(kind.options, modes, servers)
		if err != nil {
			return nil, fmt.Errorf("requests/s, %s: %w", kind.what, err)
		}
		text := func(mode string) string {
			return fmt.Sprintf("%s/s, %s", number(math.Round(figureOf(rates[mode]).value)), figureOf(times[mode]).text("us"))
		}
		for _, row := range []struct{ mode, what string }{
			{shared, "inherited, one socket for all"}, {inherited, "inherited, steered"}, {watched, "under the app's own bind"},
		} {
			ratio := figureOf(pairs(rates[row.mode], rates[alone], over))
			out = append(out, line{
				"requests/s, " + kind.what + ", " + row.what, text(row.mode), "alone " + text(alone) + "; hand-off none " + text(unheld),
				ratio.text("") + "; " + figureOf(pairs(rates[row.mode], rates[unheld], over)).text(""), ">= 0.98",
			})
			b.judge("requests", row.what+", "+kind.what, ratio)
			out = append(out, line{
				"processor time a request, " + kind.what + ", " + row.what, figureOf(used[row.mode]).text("us"), "alone " + figureOf(used[alone]).text("us") + "; hand-off none " + figureOf(used[unheld]).text("us"),
				figureOf(pairs(used[row.mode], used[alone], over)).text("") + "; " + figureOf(pairs(used[row.mode], used[unheld], over)).text(""), "-",
			})
		}
	}
	return out, nil
}

// turns asks one server after the other, each round beginning with another one: requests per second, the median time of one, and what
// of a processor the app and its init have used for one, both in microseconds, round by round. The last one hardly depends on what else
// the machine has to do.
func (b *bench) turns(o load.Options, names []string, servers map[string]server) (rates, times, used map[string][]float64, err error) {
	rates, times, used = map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for n := range b.times(30) {
		for i := range names {
			name := names[(i+n)%len(names)]
			before := servers[name].processorTime()
			r, err := b.slice(o, servers[name].address)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("%s: %w", name, err)
			}
			more := servers[name].processorTime() - before
			took := max(r.Latency[load.Fresh].P50, r.Latency[load.Reused].P50)
			rates[name], times[name] = append(rates[name], perSecond(r)), append(times[name], float64(took.Microseconds()))
			used[name] = append(used[name], float64(more)/float64(time.Microsecond)/float64(max(1, r.Requests())))
		}
	}
	return rates, times, used, nil
}

func perSecond(r load.Report) float64 { return float64(r.Requests()) / r.Elapsed.Seconds() }

// middle is the median of a number of each round.
func middle(rounds []map[string]float64, of func(map[string]float64) float64) float64 {
	var values []float64
	for _, r := range rounds {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// server is an app that answers. Its processes are all that it runs in, the init included.
type server struct {
	address   string
	processes []int
	stop      func()
}

func (s server) processorTime() (sum time.Duration) {
	for _, pid := range s.processes {
		sum += processorTime(pid)
	}
	return sum
}

// server starts the app alone, or under the init in that mode. Alone it gets a session of its own, as the init gives it one:
// the kernel shares processors out between sessions.
func (b *bench) server(mode string) (s server, err error) {
	if s.address, err = freeAddress(); err != nil {
		return s, err
	}
	if mode != alone {
		spec := engine.Spec{Env: []string{mode}, Command: []string{"/testapp", "listen=tcp:" + s.address}}
		if mode == inherited || mode == shared {
			spec = engine.Spec{Env: []string{inherited + "tcp://" + s.address}, Command: []string{"/testapp"}}
		}
		if mode == shared {
			spec.Env = append(spec.Env, shared)
		}
		c, err := b.engine.Start(b.ctx, spec)
		if err != nil {
			return s, err
		}
		s.stop = func() { c.Close() }
		if err := b.answers(s.address); err != nil {
			s.stop()
			return s, err
		}
		s.processes = append(children(c.PID()), c.PID())
		return s, nil
	}
	cmd := exec.Command(b.binaries.TestApp, "listen=tcp:"+s.address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return s, err
	}
	s.processes, s.stop = []int{cmd.Process.Pid}, func() { cmd.Process.Kill(); cmd.Wait() }
	return s, nil
}

// slice is one server's turn.
func (b *bench) slice(o load.Options, address string) (load.Report, error) {
	o.Address, o.Duration, o.MaxRequests = address, slice, 50_000
	l := load.Start(b.ctx, o)
	l.Wait()
	r := l.Report()
	if n := r.Failures(load.Fresh, load.Reused); n > 0 {
		return r, fmt.Errorf("%d requests failed: %s", n, r.FailedText())
	}
	return r, nil
}
