package puppet

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long one reply may take; nothing waits for it on a good day.
const patience = 2 * time.Minute

// Puppet is a started puppet. It ends with the test at the latest.
type Puppet struct {
	t       testing.TB
	cmd     *exec.Cmd
	in      io.WriteCloser
	replies chan string
	done    chan struct{} // closed when it has ended and was waited for
}

// Start starts the test binary as a puppet. thread runs before, on the thread that forks; change sets more of the command.
func Start(t testing.TB, thread func() error, change ...func(*exec.Cmd)) *Puppet {
	t.Helper()
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{Role}, Stderr: os.Stderr}
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // the race detector would sleep for a second at each end
	for _, f := range change {
		f(cmd)
	}
	p := &Puppet{t: t, cmd: cmd, replies: make(chan string, 64), done: make(chan struct{})}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	if err := OnThread(func() error {
		if err := thread(); err != nil {
			return err
		}
		return cmd.Start()
	}); err != nil {
		t.Fatal(err)
	}
	go p.listen(out)
	t.Cleanup(p.Kill)
	return p
}

// OnThread runs f on a thread that ends with it and is not the main one.
func OnThread(f func() error) error {
	failed := make(chan error)
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			failed <- f()
			return
		}
		next := make(chan struct{})
		go func() { defer close(next); run() }()
		<-next
		runtime.UnlockOSThread()
	}
	go run()
	return <-failed
}

func (p *Puppet) listen(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		p.replies <- lines.Text()
	}
	close(p.replies)
	_ = p.cmd.Wait()
	close(p.done)
}

// Send gives a command without waiting for the reply.
func (p *Puppet) Send(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatalf("cannot tell %q: %v", fmt.Sprintf(format, args...), err)
	}
}

// Reply waits for the reply to a command; it is "gone" when the puppet has ended.
func (p *Puppet) Reply() string {
	p.t.Helper()
	select {
	case reply, ok := <-p.replies:
		if !ok {
			return "gone"
		}
		return reply
	case <-time.After(patience):
		p.t.Fatalf("no reply within %v", patience)
		return ""
	}
}

// Do gives a command and returns the reply.
func (p *Puppet) Do(format string, args ...any) string {
	p.t.Helper()
	p.Send(format, args...)
	return p.Reply()
}

// Want gives a command and wants this reply.
func (p *Puppet) Want(reply, format string, args ...any) {
	p.t.Helper()
	if got := p.Do(format, args...); got != reply {
		p.t.Fatalf("%s: %s, want %s", fmt.Sprintf(format, args...), got, reply)
	}
}

// OK gives commands, one a line, that must all succeed.
func (p *Puppet) OK(format string, args ...any) {
	p.t.Helper()
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		if line = strings.TrimSpace(line); line != "" {
			p.Want("ok", "%s", line)
		}
	}
}

// PID is its process number.
func (p *Puppet) PID() int { return p.cmd.Process.Pid }

// End lets it end by itself, and waits.
func (p *Puppet) End() {
	p.t.Helper()
	_ = p.in.Close()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("the puppet does not end")
	}
}

// Kill kills it and waits.
func (p *Puppet) Kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
}

// Files gives the puppet these descriptors, from 3 on.
func Files(files ...*os.File) func(*exec.Cmd) {
	return func(c *exec.Cmd) { c.ExtraFiles = files }
}

// As makes it another user.
func As(uid, gid uint32) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		attr(c).Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
}

// In gives it namespaces of its own (CLONE_NEW…).
func In(namespaces uintptr) func(*exec.Cmd) {
	return func(c *exec.Cmd) { attr(c).Cloneflags = namespaces }
}

func attr(c *exec.Cmd) *syscall.SysProcAttr {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	return c.SysProcAttr
}
