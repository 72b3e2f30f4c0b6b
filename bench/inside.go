package main

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// knobs compares settings of the Go runtime that people reach for, as the environment of PID 1: what they do to the start, and to the
// memory when all is quiet.
func (b *bench) knobs() ([]line, error) {
	knobs := []string{"", "GOMAXPROCS=1", "GOGC=off", "GOGC=20", "GOMEMLIMIT=8MiB"}
	took := map[string][]time.Duration{}
	ours := initCommand{mine, []string{b.binaries.Entrypoint, "--"}}
	for range b.times(200) {
		for _, knob := range knobs {
			cmd := inNamespace(ours, "/bin/true")
			cmd.Env = append(cmd.Env, knob)
			began := time.Now()
			if err := cmd.Run(); err != nil {
				return nil, fmt.Errorf("%s: %w", knob, err)
			}
			took[knob] = append(took[knob], time.Since(began))
		}
	}
	pids := map[string]int{}
	for _, knob := range knobs {
		cmd := withOwnProc(ours, "/bin/sleep", "100")
		cmd.Env = []string{"PATH=/usr/bin:/bin", "ENTRYPOINT_READY=delay:10ms", "ENTRYPOINT_LOG_LEVEL=error", knob}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		pids[knob] = cmd.Process.Pid
	}
	time.Sleep(settling)
	t := table{title: "Settings of the runtime", head: []string{"in the environment", "start, with a whole container", "to that as it is", "resident", "anonymous", "threads"},
		notes: []string{"None is set in the product, because an app written in Go would inherit it."}}
	for _, knob := range knobs {
		f := footprintOf(pids[knob])
		t.rows = append(t.rows, []string{cmp.Or(knob, "nothing"), figureOf(in(time.Millisecond, took[knob])).text("ms"),
			figureOf(pairs(in(1, took[knob]), in(1, took[""]), over)).text(""), number(float64(f.resident)) + " KiB", number(float64(f.anonymous)) + " KiB", fmt.Sprint(f.threads)})
	}
	b.add(t)
	return nil, nil
}

// traced finds a package, its milliseconds, bytes and allocations in what the runtime says of an initialization.
var traced = regexp.MustCompile(`^init (\S+) @[0-9.]+ ms, ([0-9.]+) ms clock, ([0-9]+) bytes, ([0-9]+) allocs`)

// initialized is one package's part of what happens before main.
type initialized struct {
	name   string
	clock  float64 // milliseconds
	allocs int
}

func parseInits(text []byte) (all []initialized) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		m := traced.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		clock, _ := strconv.ParseFloat(m[2], 64)
		allocs, _ := strconv.Atoi(m[4])
		all = append(all, initialized{m[1], clock, allocs})
	}
	return all
}

// startup looks at what happens before the app is there: the initialization of packages, and the pages that are touched.
func (b *bench) startup() ([]line, error) {
	clocks, allocs := map[string][]float64{}, map[string]int{}
	var sums []float64
	for range b.times(50) {
		cmd := exec.CommandContext(b.ctx, b.binaries.Entrypoint, "version")
		cmd.Env = []string{"GODEBUG=inittrace=1"}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			return nil, err
		}
		sum := 0.0
		for _, p := range parseInits(stderr.Bytes()) {
			clocks[p.name] = append(clocks[p.name], p.clock)
			allocs[p.name] = p.allocs
			sum += p.clock
		}
		sums = append(sums, sum)
	}
	faults := map[string][]float64{}
	for range b.times(50) {
		for name, argv := range map[string][]string{mine: {b.binaries.Entrypoint, "version"}, bareGo: {b.bare, "/bin/true"}} {
			cmd := exec.CommandContext(b.ctx, argv[0], argv[1:]...)
			if err := cmd.Run(); err != nil {
				return nil, err
			}
			faults[name] = append(faults[name], pageFaults(cmd))
		}
	}
	t := table{title: "Before main", head: []string{"package", "its initialization", "allocations"},
		notes: []string{"The ten slowest of " + fmt.Sprint(len(clocks)) + ". The clock is that of the runtime's own trace, which itself takes time between packages, not in them."}}
	byClock := slices.SortedFunc(maps.Keys(clocks), func(a, c string) int {
		return cmp.Or(cmp.Compare(figureOf(clocks[c]).value, figureOf(clocks[a]).value), strings.Compare(a, c))
	})
	for _, name := range byClock[:min(10, len(byClock))] {
		t.rows = append(t.rows, []string{name, figureOf(clocks[name]).text("ms"), fmt.Sprint(allocs[name])})
	}
	b.add(t)
	return []line{
		{"initialization of all packages", figureOf(sums).text("ms"), "-", "-", "-"},
		{"page faults of a run that says its version", figureOf(faults[mine]).text(""), bareGo + " that runs a program " + figureOf(faults[bareGo]).text(""), "-", "-"},
	}, nil
}

// sized is what a package has in a binary.
type sized struct {
	name  string
	bytes int
}

// symbolSizes adds up the symbols of a binary by package, the largest first. What is zero at the start has no bytes in the file, and is left out.
func symbolSizes(path string) ([]sized, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	sums := map[string]int{}
	for _, s := range symbols {
		if int(s.Section) < len(f.Sections) && f.Sections[s.Section].Type != elf.SHT_NOBITS {
			sums[packageOf(s.Name)] += int(s.Size)
		}
	}
	var all []sized
	for name, n := range sums {
		all = append(all, sized{name, n})
	}
	slices.SortFunc(all, func(a, c sized) int { return cmp.Or(c.bytes-a.bytes, strings.Compare(a.name, c.name)) })
	return all, nil
}

// packageOf is the path of the package of a symbol: what is before the first dot behind the last slash; types, strings and tables belong to
// nobody.
func packageOf(symbol string) string {
	for _, prefix := range []string{"type:", "go:", "runtime.pclntab", "runtime.etypes", "gclocals"} {
		if strings.HasPrefix(symbol, prefix) {
			return "(types, strings and tables)"
		}
	}
	symbol, _, _ = strings.Cut(symbol, "[") // of a generic function
	symbol, _, _ = strings.Cut(symbol, "(")
	slash := strings.LastIndexByte(symbol, '/') + 1
	name, _, found := strings.Cut(symbol[slash:], ".")
	if !found {
		return "(others)"
	}
	return strings.ReplaceAll(symbol[:slash]+name, "%2e", ".")
}

// packages tells what the binary consists of.
func (b *bench) packages() ([]line, error) {
	dir := filepath.Dir(b.binaries.TestApp)
	bin := filepath.Join(dir, "symbols")
	// As the product, but with its symbols, which do not count into its limit.
	build := exec.CommandContext(b.ctx, "make", "-s", "build", "BIN="+bin, "MAXSIZE=100000000", "LDFLAGS=-X=runtime.godebugDefault=asyncpreemptoff=1")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build it with symbols: %w\n%s", err, out)
	}
	all, err := symbolSizes(filepath.Join(bin, mine))
	if err != nil {
		return nil, err
	}
	total := 0
	for _, p := range all {
		total += p.bytes
	}
	t := table{title: "What the binary consists of", head: []string{"package", "KiB", "of all symbols"},
		notes: []string{"The twenty largest. The tables of types and lines, which every function adds to, belong to no package; most of them have no symbol, and are not in the sum."}}
	for _, p := range all[:min(20, len(all))] {
		t.rows = append(t.rows, []string{p.name, number(float64(p.bytes / 1024)), fmt.Sprintf("%.1f %%", 100*float64(p.bytes)/float64(total))})
	}
	b.add(t)
	return nil, nil
}

// pageFaults are those of a process that has ended, for which nothing had to be read.
func pageFaults(cmd *exec.Cmd) float64 {
	return float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Minflt)
}
