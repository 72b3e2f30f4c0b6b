//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// terminal is the far end of a pty: what a person types and sees.
type terminal struct {
	master *os.File
	mu     sync.Mutex
	seen   bytes.Buffer
}

// openTerminal returns the near end, to be given to a container, and the far one.
func openTerminal(t *testing.T) (near *os.File, far *terminal) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	far = &terminal{master: os.NewFile(uintptr(fd), "ptmx")}
	near, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.master.Close() })
	go far.read()
	return near, far
}

func (f *terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := f.master.Read(buf)
		f.mu.Lock()
		f.seen.Write(buf[:n])
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (f *terminal) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen.String()
}

// scene of a container on a terminal.
type sitting struct {
	*scene
	screen *terminal
}

func sit(t *testing.T, e engine.Engine, spec engine.Spec) *sitting {
	t.Helper()
	near, far := openTerminal(t)
	spec.TTY = near
	spec.Env = append(spec.Env, "ENTRYPOINT_HANDOFF=none", "TERM=dumb", "PS1=prompt> ")
	c := startPlain(t, e, spec)
	s := &sitting{&scene{t: t, c: c}, far}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen:\n%s", far.text())
		}
	})
	return s
}

func (s *sitting) keys(text string) {
	s.t.Helper()
	if _, err := s.screen.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sitting) shows(text string) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("the screen shows %q", text), func() error {
		if !strings.Contains(s.screen.text(), text) {
			return errAgain
		}
		return nil
	})
}

func TestTerminal(t *testing.T) {
	table(t, "", []row{{"ctrl-c-once", ctrlCOnce}, {"window-size", windowSize}})
	t.Run("shell", func(t *testing.T) {
		table(t, "", []row{{"job-control", jobControl}})
	})
}

// ctrlCOnce: the kernel sends INT to the foreground group; the init, being in another
// group, gets none, and forwards none.
func ctrlCOnce(t *testing.T, e engine.Engine) {
	s := sit(t, e, engine.Spec{Command: []string{"/testapp", "listen=none", "exit=3", "linger=400ms"}})
	s.shows("serving")
	s.keys("\x03")
	s.shows("drained")
	s.waitExit(3)
	if n := strings.Count(s.screen.text(), "signal 2"); n != 1 {
		t.Errorf("Ctrl-C arrived %d times", n)
	}
}

// windowSize: the app hears of a new size once, and sees it.
func windowSize(t *testing.T, e engine.Engine) {
	s := sit(t, e, engine.Spec{Command: []string{"/testapp", "listen=none"}})
	s.shows("serving")
	size := unix.Winsize{Row: 41, Col: 132}
	if err := unix.IoctlSetWinsize(int(s.screen.master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		t.Fatal(err)
	}
	s.shows("signal 28")
	s.keys("\x03")
	s.shows("drained")
	if n := strings.Count(s.screen.text(), "signal 28"); n != 1 {
		t.Errorf("a new window size arrived %d times", n)
	}
}

// jobControl: an interactive shell works: Ctrl-Z stops its job, fg goes on, Ctrl-C
// ends the job and not the shell.
func jobControl(t *testing.T, e engine.Engine) {
	s := sit(t, e, engine.Spec{HostTools: true, Command: []string{"/bin/bash", "--norc", "--noprofile", "-i"}})
	s.shows("prompt> ")
	s.keys("sleep 300\r")
	s.shows("sleep 300\r\n")
	s.eventually("sleep runs in the foreground", s.foregroundIs("sleep"))
	s.keys("\x1a")
	s.shows("Stopped")
	s.keys("fg\r")
	s.eventually("sleep runs in the foreground again", s.foregroundIs("sleep"))
	s.keys("\x03")
	s.eventually("the shell is back", s.foregroundIs("bash"))
	s.keys("echo code-$?\r")
	s.shows("code-130")
	s.keys("exit 7\r")
	s.waitExit(7)
}

// TestJobOfAShell: not PID 1 but a job of an interactive shell: Ctrl-Z stops the app and the init with it, so that the shell
// is back; fg continues both and gives the app the terminal; Ctrl-C ends it.
func TestJobOfAShell(t *testing.T) {
	near, far := openTerminal(t)
	cmd := exec.Command("/bin/bash", "--norc", "--noprofile", "-i")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = near, near, near
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	cmd.Env = []string{"PATH=/usr/bin:/bin", "PS1=prompt> ", "TERM=dumb", "ENTRYPOINT_LOG_LEVEL=error", "ENTRYPOINT_CONTROL=off"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s := &sitting{&scene{t: t}, far}
	s.shows("prompt> ")
	s.keys(binaries.Entrypoint + " -- sleep 300\r")
	s.eventually("sleep runs in the foreground", foreground(cmd.Process.Pid, "sleep"))
	s.keys("\x1a")
	s.shows("Stopped")
	s.eventually("the shell is back", foreground(cmd.Process.Pid, "bash"))
	s.keys("fg\r")
	s.eventually("sleep runs in the foreground again", foreground(cmd.Process.Pid, "sleep"))
	s.keys("\x03")
	s.eventually("the shell is back at the end", foreground(cmd.Process.Pid, "bash"))
	s.keys("echo code-$?\r")
	s.shows("code-130")
	s.keys("exit 7\r")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("the shell ended with %v", err)
	}
}

// foregroundIs asks the init's PID namespace who leads the terminal's foreground.
func (s *sitting) foregroundIs(name string) func() error { return foreground(s.c.PID(), name) }

func foreground(root int, name string) func() error {
	return func() error {
		for _, pid := range append(descendants(root), root) {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			_, after, _ := strings.Cut(string(text), "(")
			comm, after, _ := strings.Cut(after, ") ")
			fields := strings.Fields(after)
			if comm == name && len(fields) > 5 && fields[2] == fields[5] && fields[0] != "T" {
				return nil
			}
		}
		return errAgain
	}
}

// descendants lists the processes below pid.
func descendants(pid int) []int {
	var all []int
	for _, child := range children(pid) {
		all = append(append(all, child), descendants(child)...)
	}
	return all
}
