package reaper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loadProgram is testdata/load as the product is linked, without preemption signals, or plainly.
func loadProgram(t *testing.T, preempt bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "load")
	args := []string{"go", "build", "-o", path}
	if !preempt {
		args = append(args, "-ldflags", "-X=runtime.godebugDefault=asyncpreemptoff=1 -X github.com/hotswap-init/entrypoint/reaper.preemptOff=1")
	}
	compiler, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	s := Spec{Path: compiler, Args: append(args, "./testdata/load"), Env: append(os.Environ(), "CGO_ENABLED=0"), Umask: -1}
	p := start(t, s)
	select {
	case <-p.Done():
	case <-time.After(10 * limit): // the standard library may have to be compiled
		t.Fatal("the helper is not built")
	}
	if st := p.Status(); !st.Success() {
		t.Fatalf("cannot build the helper: %v", st)
	}
	return path
}

func startLoad(t *testing.T, path, preempts string, args ...string) started {
	t.Helper()
	p := startReading(t, Spec{Path: path, Args: append([]string{"load"}, args...), Env: []string{"A=1"}, Umask: -1})
	if line := p.line(t); line != "preempts "+preempts {
		t.Fatal(line)
	}
	return p
}

// arrivesOnce sends each signal and sees it arrive before the next, alone.
func arrivesOnce(t *testing.T, p started, urgent bool) {
	t.Helper()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Fatal("no handler for SIGPROF and 34 on this machine")
	}
	for sig := syscall.Signal(1); sig <= maxSignal; sig++ {
		switch sig {
		case syscall.SIGKILL, syscall.SIGSTOP, 32, 33:
			continue
		}
		if err := p.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if sig == syscall.SIGCHLD || sig == syscall.SIGURG && !urgent {
			continue // the next line has to be of the next signal
		}
		if got := p.line(t); got != strconv.Itoa(int(sig)) {
			t.Fatalf("sent %d, arrived %s", sig, got)
		}
	}
}

func TestNotifyEach(t *testing.T) {
	t.Run("preempting", func(t *testing.T) { arrivesOnce(t, startLoad(t, loadProgram(t, true), "true"), false) })
	path := loadProgram(t, false)
	t.Run("not preempting", func(t *testing.T) { arrivesOnce(t, startLoad(t, path, "false"), true) })
	t.Run("busy", func(t *testing.T) { arrivesOnce(t, startLoad(t, path, "false", "busy"), true) })
}

func TestNothingSpurious(t *testing.T) {
	p := startLoad(t, loadProgram(t, false), "false", "busy")
	if err := p.out.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := p.out.Read(b); !os.IsTimeout(err) {
		t.Errorf("nobody sent %q (%v)", b[:n], err)
	}
}

// Signals of the first kind may merge, those of the second queue: each of them arrives.
func TestNotifyStorm(t *testing.T) {
	p := startLoad(t, loadProgram(t, false), "false", "busy")
	const n = 1000
	for range n {
		for _, sig := range []syscall.Signal{syscall.SIGPROF, sigRTMin} {
			if err := p.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.Signal(syscall.SIGPWR); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for got["34"] < n || got["30"] == 0 || got["27"] == 0 {
		got[p.line(t)]++
	}
	if got["27"] > n || got["30"] != 1 || len(got) != 3 {
		t.Errorf("arrived: %v", got)
	}
	t.Logf("%d of %d SIGPROF, %d signals 34", got["27"], n, got["34"])
}

// helperFork forks while signals that have our own handler come in: none may be handled twice, by the copy too.
var helperFork = helper("fork", func([]string) {
	c := make(chan os.Signal, 1<<16)
	Notify(c)
	r, stop := running()
	var sent int
	var group sync.WaitGroup
	ended := make(chan struct{})
	group.Go(func() {
		for {
			select {
			case <-ended:
				return
			default:
				must(unix.Kill(0, sigRTMin)) // the group: a fresh copy of us is in it for a moment
				sent++
			}
			select { // one at a time; taken, because nobody knows how many the forks have time for
			case <-c:
			case <-time.After(limit):
				must(fmt.Errorf("of %d the last has not arrived", sent))
			}
			check(len(c) == 0, "sent %d, arrived %d", sent, sent+len(c))
			time.Sleep(50 * time.Microsecond)
		}
	})
	for range 300 {
		p, err := r.Start(Spec{Path: "/bin/true", Umask: -1})
		must(err)
		<-p.Done()
	}
	close(ended)
	group.Wait()
	stop()
	check(len(c) == 0, "sent %d, arrived %d", sent, sent+len(c))
})

func TestNotifyAndFork(t *testing.T) { output(t, helperSpec(t, helperFork)) }

func TestSignalNames(t *testing.T) {
	for sig := syscall.Signal(1); sig <= maxSignal; sig++ {
		name := SignalName(sig)
		for _, s := range []string{name, strings.ToLower(name), strings.TrimPrefix(name, "SIG"), strconv.Itoa(int(sig)), " " + name + " "} {
			if got, err := ParseSignal(s); err != nil || got != sig {
				t.Errorf("%q: %v, %v, want %d", s, got, err, sig)
			}
		}
	}
	for s, want := range map[string]syscall.Signal{
		"HUP": 1, "SIGHUP": 1, "hup": 1, "1": 1, "RTMIN": 34, "RTMIN+3": 37, "SIGRTMIN+30": 64, "RTMAX": 64, "RTMAX-1": 63, "rtmax-30": 34,
		"POLL": 29, "IO": 29, "CLD": 17, "IOT": 6, "ABRT": 6,
	} {
		if got, err := ParseSignal(s); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "SIG", "0", "-1", "+5", "65", "TERMINATE", "RTMIN-1", "RTMAX+1", "RTMIN+31", "RTMIN3", "RTMIN++3", "SIG SIG", "SIG15", "RTMIN+9223372036854775807"} {
		if got, err := ParseSignal(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
	for s, hint := range map[string]string{"TREM": "TERM", "sigquitt": "QUIT", "HPU": "HUP", "URS1": "USR1"} {
		if _, err := ParseSignal(s); err == nil || !strings.Contains(err.Error(), "mean "+hint) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParseSignal(f *testing.F) {
	for _, s := range []string{"TERM", "sigrtmin+3", "RTMAX-1", "9", "RTMIN+99999999999999999999", "SIG"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sig, err := ParseSignal(s)
		if err != nil {
			return
		}
		again, err := ParseSignal(SignalName(sig))
		if sig < 1 || sig > maxSignal || again != sig || err != nil {
			t.Errorf("%q: %v, again %v: %v", s, sig, again, err)
		}
	})
}
