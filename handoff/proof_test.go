package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { helpers["answers"] = answersMain }

// answersMain accepts from the sockets at descriptors 3 and above, or from one of its own at the address in BIND, and answers
// each line with the number in GEN. With SIT it accepts nothing. It ends when its standard input does.
func answersMain() int {
	var lns []net.Listener
	for fd := 3; ; fd++ {
		ln, err := net.FileListener(os.NewFile(uintptr(fd), ""))
		if err != nil {
			break
		}
		lns = append(lns, ln)
	}
	if network, address, ok := strings.Cut(os.Getenv("BIND"), " "); ok {
		ln, err := net.Listen(network, address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		lns = append(lns, ln)
		fmt.Println(ln.Addr())
	}
	for _, ln := range lns {
		if os.Getenv("SIT") != "" {
			break
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					if _, err := c.Read(make([]byte, 16)); err == nil {
						fmt.Fprint(c, os.Getenv("GEN"))
					}
				}()
			}
		}()
	}
	fmt.Println("up")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

// answerer starts that process and waits until it is up; what it bound is returned.
func answerer(t *testing.T, gen int, fds []int, env ...string) (p func() []int, bound string) {
	t.Helper()
	cmd := helper(t, "answers", fds, append(env, fmt.Sprint("GEN=", gen)))
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() }) // an orderly end takes a second with the race detector
	var word string
	for word != "up" {
		bound = word
		if _, err := fmt.Fscanln(out, &word); err != nil {
			t.Fatal(err)
		}
	}
	return func() []int { return []int{cmd.Process.Pid} }, bound
}

// where is how a check names the i-th held address.
func where(s *Set, i int) (network, address string) {
	h := s.held[i]
	if !h.addr.inet() {
		return h.addr.Scheme, h.addr.Path
	}
	return "tcp", joinHostPort(h.probeAddr().String(), h.at.port)
}

func joined(f []File) (fds []int) {
	for _, x := range f {
		fds = append(fds, x.FD)
	}
	return fds
}

// TestProofOnSharedSockets lets two generations accept from the same sockets: each check must reach the one it is of.
func TestProofOnSharedSockets(t *testing.T) {
	s := open(t, fmt.Sprintf("tcp4://127.0.0.1:0,tcp6://[::1]:0,tcp://:0,unix://%s/s,unix://@entrypoint-proof-%d", t.TempDir(), os.Getpid()), Config{})
	old, _ := answerer(t, 1, joined(lease(t, s, 1).Files()))
	candidate, _ := answerer(t, 2, joined(lease(t, s, 2).Files()))
	for i := range s.held {
		network, address := where(s, i)
		for gen, p := range map[int]Processes{1: {Own: old, Others: candidate}, 2: {Own: candidate, Others: old}} {
			reached := 0
			for range 6 {
				got, err := ask(s.DialAccepted(deadline(t, 10*time.Second), gen, network, address, p))
				switch {
				case err == nil && got == gen:
					reached++
				case errors.Is(err, ErrNotSteerable):
					t.Log(err)
				case err == nil || !errors.Is(err, ErrNotSteerable):
					t.Errorf("%s: %d instead of %d answered: %v", address, got, gen, err)
				}
			}
			if reached < 1 { // who accepts is the kernel's choice
				t.Errorf("%s of generation %d: only %d of 6 reached", address, gen, reached)
			}
		}
	}
}

// TestNoFalseProof has a candidate that never accepts, beside an old one that accepts everything.
func TestNoFalseProof(t *testing.T) {
	s := open(t, fmt.Sprintf("tcp4://127.0.0.1:0,tcp6://[::1]:0,unix://%s/s", t.TempDir()), Config{})
	old, _ := answerer(t, 1, joined(lease(t, s, 1).Files()))
	candidate, _ := answerer(t, 2, joined(lease(t, s, 2).Files()), "SIT=1")
	for i := range s.held {
		network, address := where(s, i)
		before := openFDs(t)
		claims := []Processes{{Own: candidate, Others: old}}
		if i == 0 {
			claims = append(claims, Processes{Own: candidate}, Processes{}, Processes{Own: old, Others: old})
		}
		for _, p := range claims {
			c, err := s.DialAccepted(deadline(t, 10*time.Second), 2, network, address, p)
			if !errors.Is(err, ErrNotSteerable) || !strings.Contains(err.Error(), "was seen to be accepted by generation 2") {
				t.Errorf("%s: %v", address, err)
			}
			if err == nil {
				c.Close()
			}
		}
		if after := openFDs(t); after > before { // those of an earlier test may still be on their way out
			t.Errorf("%s: %d descriptors, %d before", address, after, before)
		}
	}
}

// TestDialWaitsUntilAccepted: the kernel makes a connection also with an app that never takes it.
func TestDialWaitsUntilAccepted(t *testing.T) {
	s := open(t, fmt.Sprintf("tcp4://127.0.0.1:0,tcp6://[::1]:0,unix://%s/s", t.TempDir()), Config{Steer: true})
	answerer(t, 1, joined(lease(t, s, 1).Files()))
	l2 := lease(t, s, 2)
	answerer(t, 2, joined(l2.Files()), "SIT=1")
	for i := range s.held {
		network, address := where(s, i)
		if _, err := s.DialAccepted(deadline(t, 50*time.Millisecond), 2, network, address, Processes{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", address, err)
		}
		if got, err := ask(s.DialAccepted(deadline(t, 10*time.Second), 1, network, address, Processes{})); got != 1 {
			t.Errorf("%s: %d, %v", address, got, err)
		}
	}
	answerer(t, 2, joined(l2.Files()))
	for i := range s.held {
		network, address := where(s, i)
		if got, err := ask(s.DialAccepted(deadline(t, 10*time.Second), 2, network, address, Processes{})); got != 2 {
			t.Errorf("%s: %d, %v", address, got, err)
		}
	}
	if got := s.Endpoints(2); len(got) != 3 || got[0].Network != "tcp" || got[2].Address != s.held[2].addr.Path || s.Endpoints(3) != nil {
		t.Errorf("endpoints %v", got)
	}
}

// TestProofWithDeferredAccept: a socket that shows a connection only after its request cannot be proved in time.
func TestProofWithDeferredAccept(t *testing.T) {
	for steer, want := range map[bool]error{true: nil, false: ErrNotSteerable} {
		s := open(t, "tcp4://127.0.0.1:0?defer_accept=5s", Config{Steer: steer})
		old, _ := answerer(t, 1, joined(lease(t, s, 1).Files()))
		candidate, _ := answerer(t, 2, joined(lease(t, s, 2).Files()))
		got, err := ask(s.DialAccepted(deadline(t, 10*time.Second), 2, "tcp", local(s), Processes{Own: candidate, Others: old}))
		if !errors.Is(err, want) || (err == nil) != (got == 2) {
			t.Errorf("steered %v: %d, %v", steer, got, err)
		}
	}
}

// TestProofOfAddressesNotHeld: apps listen on more than we hold, such as a port for health checks.
func TestProofOfAddressesNotHeld(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	lease(t, s, 1)
	dir := t.TempDir()
	for _, bind := range []string{"tcp4 127.0.0.1:0", "tcp6 [::1]:0", "tcp :0", "unix " + dir + "/s"} {
		p, address := answerer(t, 1, nil, "BIND="+bind)
		network := "tcp"
		if strings.HasPrefix(bind, "unix") {
			network = "unix"
		}
		address = strings.Replace(address, "[::]", "localhost", 1)
		if got, err := ask(s.DialAccepted(deadline(t, 10*time.Second), 1, network, address, Processes{Own: p})); got != 1 {
			t.Errorf("%s: %d, %v", bind, got, err)
		}
		if _, err := s.DialAccepted(deadline(t, 10*time.Second), 1, network, address, Processes{Others: p}); !errors.Is(err, ErrNotSteerable) {
			t.Errorf("%s of a stranger: %v", bind, err)
		}
		if got, err := ask(s.DialAccepted(deadline(t, 10*time.Second), 1, network, address, Processes{Alone: true})); got != 1 {
			t.Errorf("%s of the only generation: %d, %v", bind, got, err)
		}
	}
	for address, want := range map[string]error{"192.0.2.1:80": ErrNotHeld, "127.0.0.1:1": unix.ECONNREFUSED} {
		if _, err := s.DialAccepted(deadline(t, 10*time.Second), 1, "tcp", address, Processes{}); !errors.Is(err, want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestConnectedBy(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cmd := exec.Command("/bin/bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/$0; read -r line <&3`, fmt.Sprint(ln.Addr().(*net.TCPAddr).Port))
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = cmd.Wait() }()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if by, known := ConnectedBy(c, []int{1 << 22, cmd.Process.Pid}); !by || !known {
		t.Error("the process that connected is not found", by, known)
	}
	if by, known := ConnectedBy(c, []int{os.Getpid()}); by || !known {
		t.Error("another process is taken for the one that connected", by, known)
	}
	c.Close()
}

// TestNoProofAfterShutdown: a candidate that has shut its socket is out of the group, and an index that was its own leads to whoever
// has the traffic. No check may take that one's answer for the candidate's.
func TestNoProofAfterShutdown(t *testing.T) {
	for _, address := range []string{"tcp4://127.0.0.1:0", "tcp6://[::1]:0"} {
		s := open(t, address, Config{Steer: true})
		serve(t, lease(t, s, 1))
		steer(t, s, 1)
		l2 := lease(t, s, 2)
		serve(t, l2)
		network, at := where(s, 0)
		c, err := s.DialAccepted(t.Context(), 2, network, at, Processes{})
		if err != nil {
			t.Fatal(err)
		}
		if gen, err := ask(c, nil); err != nil || gen != 2 {
			t.Fatalf("the candidate's check met %d, %v", gen, err)
		}
		if err := unix.Shutdown(l2.Files()[0].FD, unix.SHUT_RDWR); err != nil {
			t.Fatal(err)
		}
		if c, err := s.DialAccepted(t.Context(), 2, network, at, Processes{}); err == nil {
			gen, err := ask(c, nil)
			t.Errorf("the candidate's check met %d, %v", gen, err)
		} else if !strings.Contains(err.Error(), "generation 2 does not listen on") {
			t.Error(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := s.Accepted(ctx, 2, nil); err == nil {
			t.Error("the candidate is taken for one that has accepted")
		}
		stop()
		c, err = s.DialAccepted(t.Context(), 1, network, at, Processes{})
		if err != nil {
			t.Fatal(err)
		}
		if gen, err := ask(c, nil); err != nil || gen != 1 {
			t.Fatalf("the active generation's check met %d, %v", gen, err)
		}
	}
}

// TestNoProofAfterAnothersShutdown: a draining generation that shuts its socket moves the candidate's to another index.
func TestNoProofAfterAnothersShutdown(t *testing.T) {
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true})
	var first *Lease
	for gen := 1; gen <= 3; gen++ {
		l := lease(t, s, gen)
		serve(t, l)
		if gen == 1 {
			first = l
		}
		if gen < 3 {
			steer(t, s, gen)
		}
	}
	if err := unix.Shutdown(first.Files()[0].FD, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	for range 20 { // were it left to the kernel, half of them would meet the right one
		network, at := where(s, 0)
		c, err := s.DialAccepted(t.Context(), 3, network, at, Processes{})
		if err != nil {
			t.Fatal(err)
		}
		if gen, err := ask(c, nil); err != nil || gen != 3 {
			t.Fatalf("the candidate's check met %d, %v", gen, err)
		}
	}
}

// TestReleaseAfterClose: descriptors that were closed may be somebody else's by then.
func TestReleaseAfterClose(t *testing.T) {
	var said []string
	s := open(t, "tcp4://127.0.0.1:0", Config{Steer: true, Logf: func(f string, a ...any) { said = append(said, fmt.Sprintf(f, a...)) }})
	lease(t, s, 1)
	steer(t, s, 1)
	l2 := lease(t, s, 2)
	split(t, s, 1, 2, "5%")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l2.Release()
	if len(said) > 0 {
		t.Errorf("the sockets were used after they were closed: %q", said)
	}
}
