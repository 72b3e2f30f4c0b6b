package load

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// counts is the running tally of a load.
type counts struct {
	answered   int
	ok         map[Class]int
	failed     map[Class]map[Kind]int
	samples    []string
	lastFailed time.Time
	versions   map[string]*Seen
	latency    map[Class]*histogram
}

// Seen says how often and when a version answered.
type Seen struct {
	Answers   int
	First     time.Time // when the first answer was there
	LastBegun time.Time // when the last of the requests began: an answer may be noted long after it came
}

func newCounts() *counts {
	return &counts{
		ok: map[Class]int{}, failed: map[Class]map[Kind]int{},
		versions: map[string]*Seen{}, latency: map[Class]*histogram{},
	}
}

func (l *Load) ok(class Class, version string, begun time.Time, took time.Duration) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count.answered++
	l.count.ok[class]++
	if l.count.latency[class] == nil {
		l.count.latency[class] = &histogram{}
	}
	l.count.latency[class].add(took)
	seen := l.count.versions[version]
	if seen == nil {
		seen = &Seen{First: now}
		l.count.versions[version] = seen
	}
	seen.Answers++
	if begun.After(seen.LastBegun) {
		seen.LastBegun = begun
	}
}

// maxSamples failures are kept word for word.
const maxSamples = 10

func (l *Load) failed(class Class, f *failure, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if begun.After(l.count.lastFailed) {
		l.count.lastFailed = begun
	}
	if l.count.failed[class] == nil {
		l.count.failed[class] = map[Kind]int{}
	}
	l.count.failed[class][f.kind]++
	if len(l.count.samples) < maxSamples {
		at := time.Since(l.started).Round(time.Millisecond)
		l.count.samples = append(l.count.samples, fmt.Sprintf("%v %s %v", at, class, f))
	}
}

// Report is the result of a load.
type Report struct {
	Elapsed    time.Duration
	OK         map[Class]int
	Failed     map[Class]map[Kind]int
	Samples    []string  // the first failures, word for word
	LastFailed time.Time // when the last of the failed requests began
	Versions   map[string]Seen
	Latency    map[Class]Latency
}

// Latency of answered requests, connecting included. P99 is exact to a tenth.
type Latency struct{ P50, P99, Max time.Duration }

func (c *counts) report(elapsed time.Duration) Report {
	r := Report{
		Elapsed: elapsed, OK: maps.Clone(c.ok), Failed: map[Class]map[Kind]int{},
		Samples: slices.Clone(c.samples), LastFailed: c.lastFailed, Versions: map[string]Seen{}, Latency: map[Class]Latency{},
	}
	for class, kinds := range c.failed {
		r.Failed[class] = maps.Clone(kinds)
	}
	for version, seen := range c.versions {
		r.Versions[version] = *seen
	}
	for class, h := range c.latency {
		r.Latency[class] = Latency{h.quantile(0.50), h.quantile(0.99), h.max}
	}
	return r
}

// Requests is how many requests ended, one way or the other.
func (r Report) Requests() int {
	n := r.Failures(Fresh, Slow, Reused)
	for _, ok := range r.OK {
		n += ok
	}
	return n
}

// Failures counts the failed requests of the classes.
func (r Report) Failures(classes ...Class) int {
	n := 0
	for _, class := range classes {
		for _, failed := range r.Failed[class] {
			n += failed
		}
	}
	return n
}

// String is one line for people: `12034 requests in 3.1s, max 9ms, failed: none`.
func (r Report) String() string {
	var worst time.Duration
	for _, class := range []Class{Fresh, Reused} {
		worst = max(worst, r.Latency[class].Max)
	}
	return fmt.Sprintf("%d requests in %v, fresh p99 %v, max %v, failed: %s", r.Requests(),
		r.Elapsed.Round(10*time.Millisecond), r.Latency[Fresh].P99.Round(10*time.Microsecond),
		worst.Round(10*time.Microsecond), r.FailedText())
}

// FailedText lists the failures by class and kind, or says "none".
func (r Report) FailedText() string {
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(r.Failed)) {
		for _, kind := range slices.Sorted(maps.Keys(r.Failed[class])) {
			parts = append(parts, fmt.Sprintf("%d %s %s", r.Failed[class][kind], class, kind))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
