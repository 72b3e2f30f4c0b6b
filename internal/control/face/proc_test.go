package face

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

func TestUsageOfThisProcess(t *testing.T) {
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	a := &accountant{root: "/proc", last: map[int]time.Duration{}}
	st := &swap.Status{Active: 2, Generations: []swap.Generation{{Number: 1, PID: child.Process.Pid}, {Number: 2, PID: os.Getpid()}, {Number: 3}}}
	u := a.look(st)
	if u == nil || u.Processes < 2 || u.Resident < 1<<20 || u.Files < 5 {
		t.Fatalf("%+v", u)
	}
	burnt := 0
	for was, deadline := u.CPU, time.Now().Add(20*time.Second); u.CPU <= was; u = a.look(st) {
		if time.Now().After(deadline) {
			t.Fatal("its processor time stands still")
		}
		burnt += len(strings.Repeat("x", 1<<20))
	}
	if burnt == 0 {
		t.Error("nothing was done")
	}
	was := u.CPU
	st.Active, st.Generations = 1, st.Generations[:1]
	if u = a.look(st); u == nil || u.Processes != 1 || u.CPU < was {
		t.Errorf("after a swap: %+v, was %v", u, was)
	}
	if len(a.last) != 1 {
		t.Errorf("%d generations are remembered", len(a.last))
	}
	if st.Active = 0; a.look(st) != nil {
		t.Error("something is active")
	}
}

// TestUsageNeverGoesBack: children that somebody else waits for take their time along.
func TestUsageNeverGoesBack(t *testing.T) {
	dir := t.TempDir()
	write := func(pid, ticks string) {
		t.Helper()
		if err := os.MkdirAll(dir+"/"+pid, 0o755); err != nil {
			t.Fatal(err)
		}
		line := pid + " (a ) b) S 1 1 1 0 -1 0 0 0 0 0 " + ticks + " 0 0 0 20 0 1 0 100 0 7\n"
		if err := os.WriteFile(dir+"/"+pid+"/stat", []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a := &accountant{root: dir, last: map[int]time.Duration{}}
	st := &swap.Status{Active: 1, Generations: []swap.Generation{{Number: 1, PID: 7}}}
	for _, step := range []struct {
		ticks string
		want  time.Duration
	}{{"100", time.Second}, {"40", time.Second}, {"100", time.Second}, {"150", 1500 * time.Millisecond}} {
		write("7", step.ticks)
		if u := a.look(st); u == nil || u.CPU != step.want || u.Resident != 7*int64(os.Getpagesize()) {
			t.Errorf("at %s ticks: %+v", step.ticks, u)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (x) S 0 1 1 0 -1 0 0 0 0 0 5 6 7 8 20 0 1 0 100 0 7"))
	f.Add([]byte("1 (x"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if cpu, pages, ok := parseStat(line); ok && (cpu < 0 || pages < 0) {
			t.Fatalf("%q is %v and %d", line, cpu, pages)
		}
	})
}

func TestCountConnections(t *testing.T) {
	st := sampleStatus()
	counts := countConnections(&st, "testdata")
	if len(counts) != 1 || counts["web"] != 3 {
		t.Errorf("%v", counts)
	}
	if counts := countConnections(&st, "testdata/nothing"); counts != nil {
		t.Errorf("without /proc: %v", counts)
	}
	if counts := countConnections(&swap.Status{}, "testdata"); counts != nil {
		t.Errorf("without listeners: %v", counts)
	}
}

func TestOwner(t *testing.T) {
	all := []listener{
		{"any4", netip.MustParseAddrPort("0.0.0.0:80")}, {"any6", netip.MustParseAddrPort("[::]:80")}, {"one", netip.MustParseAddrPort("10.0.0.1:80")},
	}
	for _, c := range []struct {
		at   string
		six  bool
		want string
	}{
		{"10.0.0.1:80", false, "one"}, {"[::ffff:10.0.0.1]:80", true, "one"}, {"10.0.0.2:80", false, "any4"},
		{"[::ffff:10.0.0.2]:80", true, "any6"}, {"[2001:db8::1]:80", true, "any6"}, {"10.0.0.1:81", false, ""},
	} {
		if got, _ := owner(all, netip.MustParseAddrPort(c.at), c.six); got != c.want {
			t.Errorf("%s: %q, want %q", c.at, got, c.want)
		}
	}
}

func FuzzHexAddress(f *testing.F) {
	f.Add("0100007F:1F90")
	f.Add("00000000000000000000000001000000:0035")
	f.Add(":")
	f.Fuzz(func(t *testing.T, text string) {
		if at, ok := parseHexAddress(text); ok && !at.IsValid() {
			t.Fatalf("%q is %v", text, at)
		}
	})
}

// TestCensus: who asks while the last count is young shares it.
func TestCensus(t *testing.T) {
	st := sampleStatus()
	c := &census{at: time.Now(), took: time.Hour, counts: map[string]int{"web": 99}}
	if got := c.take(&st, "testdata"); got["web"] != 99 {
		t.Errorf("a young count is not shared: %v", got)
	}
	c.took = 0
	if got := c.take(&st, "testdata"); got["web"] != 3 || c.took <= 0 {
		t.Errorf("an old count is not renewed: %v after %v", got, c.took)
	}
}

// TestCensusStandsStill: a count that had to wait is not an old one for ten times as long as it waited.
func TestCensusStandsStill(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(root+"/self/net", 0o755); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile("testdata/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(root+"/self/net/tcp", 0o600); err != nil {
		t.Fatal(err)
	}
	const still = 300 * time.Millisecond
	wrote := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(root+"/self/net/tcp", os.O_WRONLY, 0)
		if err == nil {
			time.Sleep(still) // the reader has opened it, and waits
			_, err = f.Write(list)
			_ = f.Close()
		}
		wrote <- err
	}()
	st := sampleStatus()
	c, began := &census{}, time.Now()
	if got := c.take(&st, root); got["web"] != 3 {
		t.Errorf("the count is %v", got)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if whole := time.Since(began); whole < still || c.took <= 0 || c.took > whole-still/2 {
		t.Errorf("a count that stood still for %v of %v is said to have taken %v", still, whole, c.took)
	}
}
