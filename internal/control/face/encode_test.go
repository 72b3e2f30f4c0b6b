package face

import (
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEncodeGolden(t *testing.T) {
	for name, open := range map[string]bool{"metrics.txt": false, "metrics.openmetrics": true} {
		text := encode(families(sampleFacts(), map[string]int{"web": 12}), open)
		golden(t, name, []byte(strings.ReplaceAll(string(text), runtime.Version(), "GO")))
	}
}

// TestReaders gives both formats to strict readers of others, where they are installed; the integration tests require them.
func TestReaders(t *testing.T) {
	for open, argv := range map[bool][]string{
		false: {"promtool", "check", "metrics"},
		true:  {"/usr/bin/python3", "-c", "import sys;from prometheus_client.openmetrics.parser import text_string_to_metric_families as p;list(p(sys.stdin.read()))"},
	} {
		if _, err := exec.LookPath(argv[0]); err != nil || open && exec.Command(argv[0], "-c", "import prometheus_client").Run() != nil {
			t.Logf("SKIPPED: no %s", argv[0])
			continue
		}
		for _, f := range []*Facts{sampleFacts(), {}} {
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Stdin = strings.NewReader(string(encode(families(f, nil), open)))
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %v: %s", argv[0], err, out)
			}
		}
	}
}

// TestFamilies holds what OpenMetrics asks of names, and that the series are the same whatever happened.
func TestFamilies(t *testing.T) {
	name := regexp.MustCompile(`^entrypoint_[a-z_]+[a-z]$`)
	seen := map[string]bool{}
	for _, f := range families(sampleFacts(), map[string]int{"web": 1}) {
		if seen[f.name] || !name.MatchString(f.name) || f.help == "" || !strings.HasSuffix(f.help, ".") {
			t.Errorf("%q, %q", f.name, f.help)
		}
		seen[f.name] = true
		if f.unit != "" && !strings.HasSuffix(f.name, "_"+f.unit) || strings.HasSuffix(f.name, "_total") || strings.HasSuffix(f.name, "_info") && f.kind == info {
			t.Errorf("%q is no name of a %s with the unit %q", f.name, f.kind, f.unit)
		}
		for _, s := range f.samples {
			if f.kind != histogram && s.suffix != suffixOf(f.kind) {
				t.Errorf("%q has a sample with %q", f.name, s.suffix)
			}
			for i := 0; i < len(s.labels); i += 2 {
				if s.labels[i] == "pid" || s.labels[i] == "generation" {
					t.Errorf("%q has the label %s", f.name, s.labels[i])
				}
			}
		}
	}
	fresh := func(f *Facts) (all []string) {
		for line := range strings.Lines(string(encode(families(f, nil), false))) {
			if strings.Contains(line, "_total{") || strings.Contains(line, "_bucket{") {
				all = append(all, line[:strings.LastIndexByte(line, ' ')])
			}
		}
		return all
	}
	empty := strings.Join(fresh(&Facts{}), "\n")
	for _, line := range fresh(sampleFacts()) {
		if !strings.Contains(empty, line) && !strings.Contains(line, "signals") && !strings.Contains(line, "cpu") {
			t.Errorf("%s appears out of nothing", line)
		}
	}
}

func TestNegotiation(t *testing.T) {
	for accept, open := range map[string]bool{
		"":    false,
		"*/*": false,
		"text/html,application/xhtml+xml,*/*;q=0.8": false,
		"text/plain":                   false,
		"text/plain;version=0.0.4":     false,
		"application/openmetrics-text": true,
		"Application/OpenMetrics-Text; version=1.0.0; charset=utf-8": true,
		`application/openmetrics-text;version="1.0.0"`:               true,
		"application/openmetrics-text;version=2.0.0":                 false,
		"application/openmetrics-text;q=0":                           false,
		"application/openmetrics-text;q=x":                           false,
		"application/openmetrics-text;q=0.5,text/plain":              false,
		"application/openmetrics-text;q=0.5,text/plain;q=0.5":        true,
		// what Prometheus 2.42 and 3 send
		"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1":                                                      true,
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1": true,
	} {
		if got := wantsOpenMetrics(accept); got != open {
			t.Errorf("%q: %v", accept, got)
		}
	}
}

func TestNumbers(t *testing.T) {
	for want, v := range map[string]float64{
		"0": 0, "1": 1, "-3": -3, "0.5": .5, "1795278370.32": 1795278370.32, "1795278370": 1795278370, "1e+300": 1e300,
		"NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1), "1e-09": 1e-9,
	} {
		if got := number(v); got != want && want != "1795278370.32" {
			t.Errorf("%v is %q, want %q", v, got, want)
		} else if back, err := strconv.ParseFloat(got, 64); err != nil || back != v && !math.IsNaN(v) {
			t.Errorf("%q reads as %v, %v", got, back, err)
		}
	}
	for want, v := range map[string]float64{"0.001": .001, "1.0": 1, "1800.0": 1800} {
		if got := bound(v); got != want {
			t.Errorf("the bound %v is %q", v, got)
		}
	}
}

// unescape reads a label's value as the formats define it; ok is false if it would not be one.
func unescape(s string) (v string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\n':
			return "", false
		case c != '\\':
			b.WriteByte(c)
		case i+1 == len(s):
			return "", false
		default:
			i++
			switch s[i] {
			case '\\', '"':
				b.WriteByte(s[i])
			case 'n':
				b.WriteByte('\n')
			default:
				return "", false
			}
		}
	}
	return b.String(), true
}

// FuzzEscape: whatever a label's value is, it stays one value on one line, and the same value unless it was no text or too long.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", `"`, `\`, "\n", `\n`, "a\"b\\c\nd", "\xff\xfe", strings.Repeat("é", 300), "x\u2028y\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := escapeLabel(s)
		back, ok := unescape(got)
		if !ok || !utf8.ValidString(got) {
			t.Fatalf("%q became %q", s, got)
		}
		if len(s) <= maxLabel && utf8.ValidString(s) && back != s {
			t.Fatalf("%q became %q", s, back)
		}
		if len(back) > maxLabel {
			t.Fatalf("%d bytes are left", len(back))
		}
		for _, open := range []bool{false, true} {
			if help := escapeHelp(s, open); strings.Contains(help, "\n") || !utf8.ValidString(help) {
				t.Fatalf("the help %q became %q", s, help)
			}
			text := string(encode([]family{{"x", gauge, "", s, []sample{{"", []string{"l", s}, 1}}}}, open))
			if n := strings.Count(text, "\n"); n != 3 && !open || open && n != 4 {
				t.Fatalf("%d lines: %q", n, text)
			}
		}
	})
}

// FuzzMarkup: whatever a text is, none of it is markup, in and out of quotes.
func FuzzMarkup(f *testing.F) {
	for _, s := range []string{"", "<script>", `" onload="x`, "'", "&amp;", "\x00\x1b[31m", "\xff", "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var m markup
		m.f("%s", s)
		m.text(s)
		if got := m.String(); strings.ContainsAny(got, "<>\"'\x00\x1b\n\r") || !utf8.ValidString(got) {
			t.Fatalf("%q became %q", s, got)
		}
	})
}

// TestDocumented: the page about metrics has every one of them, with every label.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) == 6 {
			for _, name := range strings.Split(cells[1], ",") {
				rows["entrypoint_"+strings.Trim(name, " `")] = cells[3] + cells[2]
			}
		}
	}
	for _, f := range families(sampleFacts(), map[string]int{"web": 1}) {
		name, kind := f.name+suffixOf(f.kind), f.kind
		row, there := rows[name]
		if !there || !strings.Contains(row, kind) {
			t.Errorf("%s, a %s, is not documented: %q", name, kind, row)
		}
		for _, s := range f.samples {
			for i := 0; i < len(s.labels); i += 2 {
				if l := s.labels[i]; l != "le" && !strings.Contains(row, "`"+l+"`") {
					t.Errorf("the label %s of %s is not documented", l, name)
				}
			}
		}
	}
}

// TestSeveralApps: what is measured of an app has a sample for each of several, what is the container's has one.
func TestSeveralApps(t *testing.T) {
	main, other := sampleFacts(), sampleFacts()
	main.App, other.App = "web", "jobs"
	other.Status.Active, other.Extra = 0, Extra{}
	main.Others = []*Facts{other}
	none := func(*Facts) map[string]int { return nil }
	text := string(encode(ofAll(main, none), false))
	for line, want := range map[string]int{
		`entrypoint_app_up{app="web"} 1`: 1, `entrypoint_app_up{app="jobs"} 0`: 1, "\nentrypoint_start_time_seconds ": 1, "# TYPE entrypoint_swaps_total": 1,
		`entrypoint_swap_duration_seconds_count{app="jobs",phase="check"}`: 1, `app="app"`: 0,
	} {
		if got := strings.Count(text, line); got != want {
			t.Errorf("%q is there %d times, not %d:\n%.3000s", line, got, want, text)
		}
	}
	if page := page(&view{Facts: main, Now: epoch}); !strings.Contains(string(page.body), "<dt>jobs</dt>") {
		t.Error("the page does not name the other app")
	}
}
