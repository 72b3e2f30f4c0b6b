package reaper

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var helperPipe = helper("raw-pipe", func([]string) {
	c := make(chan os.Signal, 100)
	Notify(c)
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	f := os.NewFile(uintptr(p[0]), "x")
	conn, err := net.FileConn(f)
	must(err)
	f.Close()
	unix.Close(p[1])
	_, err = conn.Write([]byte("progress\n"))
	fmt.Println("write:", err)
	select {
	case s := <-c:
		fmt.Println("GOT", s)
	case <-time.After(100 * time.Millisecond): // what did not happen leaves no event
		fmt.Println("none")
	}
})

func TestOwnSIGPIPE(t *testing.T) {
	out := output(t, helperSpec(t, helperPipe))
	if strings.Contains(out, "GOT") {
		t.Error("a SIGPIPE of our own write reaches the channel")
	}
}

func TestSignals32And33(t *testing.T) {
	for _, sig := range []syscall.Signal{32, 33} {
		p := startReading(t, Spec{Path: loadProgram(t, false), Args: []string{"load"}, Env: []string{"A=1"}, Umask: -1})
		p.line(t)
		if err := p.Signal(sig); err != nil {
			t.Fatal(err)
		}
		_ = p.out.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 100)
		if n, err := p.out.Read(b); n == 0 {
			t.Errorf("%d did not arrive: %v, %v", sig, err, p.Status())
		}
	}
}

func TestIgnoredJobControl(t *testing.T) {
	s := shell("trap '' TSTP TTIN TTOU; exec -a helper:mask " + executable(t))
	s.Path = "/bin/bash"
	p := startReading(t, s)
	for {
		line := p.line(t)
		if strings.HasPrefix(line, "SigIgn") {
			if !strings.Contains(line, "0000000000380000") {
				t.Error("TSTP TTIN TTOU were ignored at our start; child: " + line)
			}
			break
		}
	}
	_ = p.Signal(syscall.SIGKILL)
}

var helperIgnore = helper("raw-ignore", func([]string) {
	signal.Ignore(syscall.SIGUSR1, syscall.SIGPIPE)
	r, stop := running()
	p, err := r.Start(Spec{Path: "/bin/grep", Args: []string{"grep", "SigIgn", "/proc/self/status"}, Umask: -1})
	must(err)
	<-p.Done()
	stop()
})

func TestIgnoreLeak(t *testing.T) {
	out := output(t, helperSpec(t, helperIgnore))
	if !strings.Contains(out, "0000000000000000") {
		t.Error("signal.Ignore of ours leaks into the child: " + out)
	}
}

func TestStaleStop(t *testing.T) {
	p := start(t, Spec{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Umask: -1})
	_ = p.Signal(syscall.SIGSTOP)
	eventually(t, "stop noted", func() bool { return len(p.stopped) == 1 })
	_ = p.Signal(syscall.SIGCONT)
	eventually(t, "stop taken back", func() bool { return len(p.stopped) == 0 })
}

func TestPIDVarTwice(t *testing.T) {
	s := shell("echo $LISTEN_PID $$")
	s.Env, s.PIDVars = []string{"LISTEN_PID=1"}, []string{"LISTEN_PID"}
	sees := strings.Fields(output(t, s))
	s = Spec{Path: "/usr/bin/env", Args: []string{"env"}, Umask: -1, Env: []string{"LISTEN_PID=1"}, PIDVars: []string{"LISTEN_PID"}}
	out := output(t, s)
	if len(sees) != 2 || sees[0] != sees[1] || strings.Count(out, "LISTEN_PID=") != 1 {
		t.Errorf("a shell sees %v, the environment is\n%s", sees, out)
	}
}

func TestRealtimeBurst(t *testing.T) {
	p := startReading(t, Spec{Path: loadProgram(t, false), Args: []string{"load"}, Env: []string{"A=1"}, Umask: -1})
	p.line(t)
	const n = 300
	for range n {
		if err := p.Signal(sigRTMin + 3); err != nil {
			t.Fatal(err)
		}
	}
	_ = p.out.SetReadDeadline(time.Now().Add(10 * time.Second))
	var all strings.Builder
	got := 0
	for b := make([]byte, 4096); got < n; {
		m, err := p.out.Read(b)
		all.Write(b[:m])
		got = strings.Count(all.String(), "37\n")
		if err != nil {
			break
		}
	}
	if got != n {
		t.Errorf("%d of %d queued SIGRTMIN+3 arrived", got, n)
	}
}

var helper33 = helper("raw-33", func([]string) {
	c := make(chan os.Signal, 100)
	Notify(c)
	stop := make(chan struct{})
	for range 4 {
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		}()
	}
	for range 200 { // the runtime's own use of 33 must go on, and nothing of it may arrive
		_, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 0, 0)
		if e == unix.ENOTSUP {
			fmt.Println("cgo")
			break
		}
		check(e == 0, "%v", e)
	}
	close(stop)
	check(len(c) == 0, "%d arrived", len(c))
})

func TestRuntimeKeeps33(t *testing.T) { output(t, helperSpec(t, helper33)) }

func TestPreemptRule(t *testing.T) {
	for _, test := range []struct {
		linked, env string
		want        bool
	}{{"", "", true}, {"1", "", false}, {"1", "asyncpreemptoff=0", true}, {"", "a=b,asyncpreemptoff=1", false},
		{"", "asyncpreemptoff=1,asyncpreemptoff=0", true}, {"1", "asyncpreemptoff=x", false}, {"", "xasyncpreemptoff=1", true}} {
		if got := preempts(test.linked, test.env); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
