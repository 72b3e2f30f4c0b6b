package face

import (
	"runtime"
	"slices"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// appName is the value of the label app.
func (f *Facts) appName() string {
	if f.App == "" {
		return "app" // the only one
	}
	return f.App
}

// ofAll is families for every app: what is measured of each has a sample of each.
func ofAll(f *Facts, conns func(*Facts) map[string]int) []family {
	all := families(f, conns(f))
	for _, o := range f.Others {
		for _, more := range families(o, conns(o)) {
			i := slices.IndexFunc(all, func(have family) bool { return have.name == more.name })
			for _, s := range more.samples {
				if i >= 0 && len(s.labels) > 0 && s.labels[0] == "app" {
					all[i].samples = append(all[i].samples, s)
				}
			}
		}
	}
	return all
}

// maxListeners bounds the series of listeners.
const maxListeners = 256

// families lays out everything that is measured. conns are the open connections by listener; those that are not in it cannot be counted.
func families(f *Facts, conns map[string]int) (all []family) {
	st, c, app := &f.Status, &f.Counters, f.appName()
	one := func(name, kind, unit, help string, value float64, labels ...string) {
		all = append(all, family{name, kind, unit, help, []sample{{suffixOf(kind), labels, value}}})
	}
	ofApp := func(name, kind, unit, help string, value float64) { one(name, kind, unit, help, value, "app", app) }
	add := func(more ...family) { all = append(all, more...) }

	one("entrypoint_build", info, "", "The running init.", 1, "version", st.Version, "goversion", runtime.Version())
	one("entrypoint_start_time_seconds", gauge, "seconds", "When the init started, in seconds since 1970.", seconds(st.StartedAt))
	ofApp("entrypoint_app_up", gauge, "", "Whether a generation is active.", truth(st.Active != 0))
	ofApp("entrypoint_app_ready", gauge, "", "Whether /readyz says yes.", truth(f.Health.OK))
	ofApp("entrypoint_generation", gauge, "", "The number of the active generation, 0 if there is none.", float64(st.Active))
	add(generationInfo(app, generation(st, st.Active)), swaps(app, c), phases(app, c))
	ofApp("entrypoint_last_swap_timestamp_seconds", gauge, "seconds", "When a swap last succeeded, in seconds since 1970; 0 before the first one.", seconds(c.LastDone))
	ofApp("entrypoint_candidate_share_ratio", gauge, "", "The part of the new connections that the candidate gets: 0 without one, 1 while it bakes.", candidateShare(st))
	add(counted(app, "entrypoint_app_restarts", "Starts of the same bytes once more, by reason.", swap.RestartReasons, c.Restarts))
	n, open := draining(st)
	ofApp("entrypoint_draining_generations", gauge, "", "Replaced generations that have not ended yet.", float64(n))
	ofApp("entrypoint_draining_connections", gauge, "", "Connections that they still have, as far as they can be counted.", float64(open))
	ofApp("entrypoint_drain_cut_connections", counter, "", "Connections that replaced generations still had when they were killed, as far as they could be counted.", float64(c.Cut))
	add(listeners(app, st, conns)...)
	add(reaped(st), signals(f.Signals), watchBackend(f.Watch))
	add(counted(app, "entrypoint_verify_failures", "Programs that were refused because they did not show what they had to, by what was wanting.", swap.VerifyReasons, c.VerifyFailures))
	ofApp("entrypoint_drift", gauge, "", "1 if the active bytes are not those that the container started with.", truth(st.Drift))
	ofApp("entrypoint_artifact_memory_bytes", gauge, "bytes", "Memory that private copies of programs occupy.", float64(st.Memory))
	add(usage(app, f.Usage)...)
	one("entrypoint_log_dropped_lines", counter, "", "Lines of the init's own log that were dropped because nobody read them.", float64(f.LogDropped))
	one("entrypoint_goroutines", gauge, "", "Goroutines of the init.", float64(f.Goroutines))
	one("entrypoint_config_deprecated", gauge, "", "How many deprecated variables are in use.", float64(f.Deprecated))
	return all
}

// counted is a counter by reason, with a sample for each of those that are known, so that none appears out of nothing.
func counted(app, name, help string, keys []string, counts map[string]uint64) family {
	f := family{name: name, kind: counter, help: help}
	for _, k := range keys {
		f.samples = append(f.samples, sample{"_total", []string{"app", app, "reason", k}, float64(counts[k])})
	}
	return f
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// seconds is a time as metrics have it; 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func generation(st *swap.Status, n int) *swap.Generation {
	i := slices.IndexFunc(st.Generations, func(g swap.Generation) bool { return n != 0 && g.Number == n })
	if i < 0 {
		return nil
	}
	return &st.Generations[i]
}

// generationInfo is a gauge and no info: as one its family would have the name of the gauge with the number.
func generationInfo(app string, active *swap.Generation) family {
	f := family{name: "entrypoint_generation_info", kind: gauge, help: "The active bytes: their SHA-256 once it is known, and as their version the trusted comment of their signature."}
	if active == nil {
		return f
	}
	version := ""
	if active.Artifact != nil {
		version = active.Artifact.Comment
	}
	f.samples = []sample{{"", []string{"app", app, "sha256", active.SHA256, "version", version}, 1}}
	return f
}

func swaps(app string, c *swap.Counters) family {
	f := family{name: "entrypoint_swaps", kind: counter, help: "Swaps that were decided, the first start included, by what asked for them and how they ended."}
	for _, t := range swap.Triggers {
		for _, r := range swap.Results {
			f.samples = append(f.samples, sample{"_total", []string{"app", app, "trigger", t, "result", r}, float64(c.Swaps[t][r])})
		}
	}
	return f
}

func phases(app string, c *swap.Counters) family {
	f := family{name: "entrypoint_swap_duration_seconds", kind: histogram, unit: "seconds", help: "How long swaps were in each of their phases; drain is how long a replaced generation took to end."}
	for _, p := range swap.PhaseNames {
		h := c.Phases[p]
		labels := []string{"app", app, "phase", p}
		n := 0.0
		for i := range len(swap.PhaseBounds) + 1 {
			le := "+Inf"
			if i < len(swap.PhaseBounds) {
				le = bound(swap.PhaseBounds[i].Seconds())
			}
			if i < len(h.Counts) {
				n += float64(h.Counts[i])
			}
			f.samples = append(f.samples, sample{"_bucket", append(slices.Clone(labels), "le", le), n})
		}
		f.samples = append(f.samples, sample{"_sum", labels, h.Sum.Seconds()}, sample{"_count", labels, n})
	}
	return f
}

// candidateShare is what of the new connections goes to the candidate: the greatest part that any address gives it.
func candidateShare(st *swap.Status) float64 {
	g := generation(st, st.Candidate)
	if g == nil {
		return 0
	}
	if g.State == swap.Baking {
		return 1
	}
	part := 0.0
	for _, s := range st.Sockets {
		for _, slot := range s.Slots {
			if slot.Generation == st.Candidate {
				part = max(part, slot.Portion)
			}
		}
	}
	return part
}

// draining counts the replaced generations that have not ended, and the connections that they are known to have.
func draining(st *swap.Status) (n, open int) {
	for _, g := range st.Generations {
		if g.DrainingAt.IsZero() || !g.EndedAt.IsZero() {
			continue
		}
		n++
		if g.Load != nil {
			open += g.Load.Open
		}
	}
	return n, open
}

func listeners(app string, st *swap.Status, conns map[string]int) []family {
	queue := family{name: "entrypoint_listener_accept_queue", kind: gauge, help: "Connections that wait to be accepted (of datagram sockets: 1 if anything waits)."}
	open := family{name: "entrypoint_listener_connections", kind: gauge, help: "Connections that are open; TCP only."}
	seen := map[string]bool{}
	for _, s := range st.Sockets {
		if seen[s.Name] || len(seen) == maxListeners {
			continue
		}
		seen[s.Name] = true
		n := 0
		for _, slot := range s.Slots {
			n += slot.Queue
		}
		labels := []string{"app", app, "listener", s.Name}
		queue.samples = append(queue.samples, sample{"", labels, float64(n)})
		if n, known := conns[s.Name]; known {
			open.samples = append(open.samples, sample{"", labels, float64(n)})
		}
	}
	return []family{queue, open}
}

func reaped(st *swap.Status) family {
	return family{name: "entrypoint_reaped", kind: counter, help: "Processes whose end was collected: child, started by the init; orphan, given to it by the kernel.", samples: []sample{
		{"_total", []string{"kind", "child"}, float64(st.Reaped.Children)},
		{"_total", []string{"kind", "orphan"}, float64(st.Reaped.Orphans)},
	}}
}

func signals(counts []SignalCount) family {
	f := family{name: "entrypoint_signals", kind: counter, help: "Signals that the init got, and what it did with them."}
	for _, s := range counts {
		f.samples = append(f.samples, sample{"_total", []string{"signal", s.Signal, "action", s.Action}, float64(s.Count)})
	}
	return f
}

func watchBackend(backend string) family {
	f := family{name: "entrypoint_watch_backend", kind: info, help: "How changes of files are noticed; nothing where no file is watched."}
	if backend != "" {
		f.samples = []sample{{"_info", []string{"backend", backend}, 1}}
	}
	return f
}

func usage(app string, u *Usage) []family {
	memory := family{name: "entrypoint_app_resident_memory_bytes", kind: gauge, unit: "bytes", help: "Resident memory of the active generation's processes, summed up: what they share counts for each."}
	files := family{name: "entrypoint_app_open_fds", kind: gauge, help: "Open file descriptors of the active generation's processes."}
	processes := family{name: "entrypoint_app_processes", kind: gauge, help: "Processes of the active generation."}
	cpu := family{name: "entrypoint_app_cpu_seconds", kind: counter, unit: "seconds", help: "Processor time of all generations. What one used after it was last looked at and before it ended is not in it."}
	if u != nil {
		of := []string{"app", app}
		memory.samples = []sample{{"", of, float64(u.Resident)}}
		files.samples = []sample{{"", of, float64(u.Files)}}
		processes.samples = []sample{{"", of, float64(u.Processes)}}
		cpu.samples = []sample{{"_total", of, u.CPU.Seconds()}}
	}
	return []family{memory, cpu, files, processes}
}
