package handoff

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/puppet"
	"github.com/hotswap-init/entrypoint/handoff/transparent"
)

// journal keeps what a Set says.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) logf(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.lines, func(line string) bool { return strings.Contains(line, text) })
}

func (j *journal) all() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

// learning opens a Set for programs that bind by themselves.
func learning(t *testing.T, list string, change ...func(*Config)) (*Set, *journal) {
	t.Helper()
	j := &journal{}
	c := Config{Steer: true, Learn: true, Logf: j.logf}
	for _, f := range change {
		f(&c)
	}
	return open(t, list, c), j
}

// program is a generation that opens its own sockets: a puppet whose calls its lease answers.
type program struct {
	*puppet.Puppet
	*Lease
	served chan error
}

func run(t *testing.T, s *Set, gen int, change ...func(*exec.Cmd)) *program {
	t.Helper()
	return runOn(t, lease(t, s, gen), change...)
}

func runOn(t *testing.T, l *Lease, change ...func(*exec.Cmd)) *program {
	t.Helper()
	p := &program{Lease: l, served: make(chan error, 1)}
	var filter *transparent.Filter
	p.Puppet = puppet.Start(t, func() (err error) {
		filter, err = transparent.Install()
		return err
	}, change...)
	go func() { p.served <- filter.Serve(p.Lease, t.Logf) }()
	return p
}

// leave ends the program and its lease.
func (p *program) leave(t *testing.T) {
	t.Helper()
	p.End()
	select {
	case err := <-p.served:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Serve does not end")
	}
	p.Release()
}

// listens makes the program serve on a new socket with that name; answers are its generation.
func (p *program) listens(name, kind, address string) {
	p.OK("socket %s %s\nbind %s %s\nlisten %s 5\nserve %s %d", name, kind, name, address, name, name, p.gen)
}

// nextPort is where vacantPort goes on: none is given twice.
var nextPort = time.Now().Nanosecond() / 100 % 2500

// vacantPort is a port that nobody has at this moment, below the range that the kernel takes for clients and above the one
// that the integration tests use.
func vacantPort(t *testing.T) string {
	t.Helper()
	for {
		nextPort++
		port := 30000 + nextPort%2500
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		defer l.Close()
		c, err := net.ListenPacket("udp", ":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		c.Close()
		return strconv.Itoa(port)
	}
}

// later is a client whose answer may take its time.
func later(address string) chan string {
	answer := make(chan string, 1)
	go func() {
		gen, err := ask(net.Dial("tcp", address))
		answer <- fmt.Sprint(gen, " ", err)
	}()
	return answer
}

// wantAnswer wants the generation of a client that asked before.
func wantAnswer(t *testing.T, answer chan string, gen int) {
	t.Helper()
	select {
	case got := <-answer:
		if got != fmt.Sprint(gen, " <nil>") {
			t.Errorf("the client that waited got %s, want generation %d", got, gen)
		}
	case <-time.After(30 * time.Second):
		t.Error("the client that waited got no answer")
	}
}

// wantRefused wants nobody to listen.
func wantRefused(t *testing.T, address string) {
	t.Helper()
	until(t, address+" is refused", func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			c.Close()
		}
		return err != nil && strings.Contains(err.Error(), unix.ECONNREFUSED.Error())
	})
}

// at is the held address with that name, learned or not.
func (s *Set) named(t *testing.T, address string) SocketStatus {
	t.Helper()
	for _, st := range s.Status() {
		if st.Address == address {
			return st
		}
	}
	t.Fatalf("%s is not held: %+v", address, s.Status())
	return SocketStatus{}
}

// queued is how many connections wait in the slot that has the traffic.
func (s *Set) queued(t *testing.T, address string) int {
	t.Helper()
	for _, sl := range s.named(t, address).Slots {
		if sl.Current {
			return sl.Queue
		}
	}
	return 0
}
