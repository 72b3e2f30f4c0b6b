//go:build amd64 || arm64

package transparent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/puppet"
)

// TestReplace: the program's number leads to our socket, with the close-on-exec mark that it had.
func TestReplace(t *testing.T) {
	fd, name := ephemeral(t)
	w := watch(t, func(*Call) Answer { return Answer{Replace: true, FD: fd} })
	for _, mark := range []string{"", " cloexec"} {
		w.OK("socket a tcp4%s\nbind a 127.0.0.1:7", mark)
		w.Want(name, "name a")
		w.Want("flags:"+mark, "flags a")
	}
	if inodeOf(t, fd) == w.take()[1].Inode {
		t.Error("the inode that the handler was told is that of our socket")
	}
	w.end(t)
}

func inodeOf(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestOwned: a descriptor that is given away is closed here, and one that is lent is not.
func TestOwned(t *testing.T) {
	lent, _ := ephemeral(t)
	var given []int
	w := watch(t, func(c *Call) Answer {
		if c.Addr.Port() == 7 {
			return Answer{Replace: true, FD: lent}
		}
		fd, err := loopbackSocket()
		if err != nil {
			return Answer{Errno: unix.EIO}
		}
		given = append(given, fd)
		return Answer{Replace: true, FD: fd, Owned: true}
	})
	w.OK("socket a tcp4\nbind a 127.0.0.1:7\nsocket b tcp4\nbind b 127.0.0.1:8")
	w.end(t)
	inodeOf(t, lent)
	if err := unix.Fstat(given[0], new(unix.Stat_t)); err == nil {
		t.Error("the socket that was given away is still open here")
	}
}

func TestErrno(t *testing.T) {
	w := watch(t, func(*Call) Answer { return Answer{Errno: unix.EADDRINUSE} })
	w.OK("socket a tcp4")
	w.Want("EADDRINUSE", "bind a 127.0.0.1:0")
	w.Want("EADDRINUSE", "listen a 1")
	w.Want("EADDRINUSE", "set a %d %d 1", unix.SOL_SOCKET, unix.SO_REUSEPORT)
	w.Want("0.0.0.0:0", "name a")
	w.end(t)
}

// TestPanic: a fault of ours costs the program nothing.
func TestPanic(t *testing.T) {
	w := watch(t, func(*Call) Answer { panic("on purpose") })
	w.OK("socket a tcp4\nbind a 127.0.0.1:0\nlisten a 1")
	w.Want("flags: listening", "flags a")
	w.End()
	if err := within(t, "the end of Serve", w.served); err != nil {
		t.Error(err)
	}
	if logs := w.said(); len(logs) != 2 || !strings.Contains(logs[0], "on purpose") {
		t.Errorf("said %q", logs)
	}
}

// TestNoSocketToGive: what cannot be put in place is left to the kernel, and said.
func TestNoSocketToGive(t *testing.T) {
	w := watch(t, func(*Call) Answer { return Answer{Replace: true, FD: 1 << 20} })
	w.OK("socket a tcp4\nbind a 127.0.0.1:0")
	if reply := w.Do("name a"); !strings.HasPrefix(reply, "127.0.0.1:") || strings.HasSuffix(reply, ":0") {
		t.Errorf("the socket is called %s", reply)
	}
	w.End()
	within(t, "the end of Serve", w.served)
	if logs := w.said(); len(logs) != 1 {
		t.Errorf("said %q", logs)
	}
}

// TestServeEndsWithTheLast: an orphan in a session of its own is answered, and waited for.
func TestServeEndsWithTheLast(t *testing.T) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	w := watch(t, nil, puppet.Files(theirIn, theirOut))
	theirIn.Close()
	theirOut.Close()
	w.OK("leave")
	w.End()
	reply := make([]byte, 64)
	for _, command := range []string{"socket a tcp4", "bind a 127.0.0.1:0"} {
		fmt.Fprintln(in, command)
		if n, err := out.Read(reply); err != nil || string(reply[:n]) != "ok\n" {
			t.Fatalf("the orphan says %q, %v", reply[:n], err)
		}
	}
	w.one(t)
	select {
	case err := <-w.served:
		t.Fatalf("Serve ended with %v while an orphan lives", err)
	default:
	}
	in.Close()
	if err := within(t, "the end of Serve", w.served); err != nil {
		t.Error(err)
	}
}

// TestClose ends Serve while the program waits for an answer of it, and while it does not.
func TestClose(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		w := watch(t, nil)
		w.OK("socket a tcp4")
		w.filter.Close()
		if err := within(t, "the end of Serve", w.served); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
		w.Want("ENOSYS", "bind a 127.0.0.1:0")
	})
	t.Run("answering", func(t *testing.T) {
		asked, release := make(chan struct{}), make(chan struct{})
		w := watch(t, func(*Call) Answer { close(asked); <-release; return Answer{} })
		w.OK("socket a tcp4")
		w.Send("bind a 127.0.0.1:0")
		within(t, "the bind", asked)
		closed := make(chan error, 1)
		go func() { closed <- w.filter.Close() }()
		close(release)
		if err := within(t, "the end of Close", closed); err != nil {
			t.Error(err)
		}
		if err := within(t, "the end of Serve", w.served); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
		if reply := w.Reply(); reply != "ok" && reply != "ENOSYS" {
			t.Errorf("the program got %s", reply)
		}
	})
}

// TestKilledWhileAsked: nobody is there any more for the answer, and that is nothing to complain of.
func TestKilledWhileAsked(t *testing.T) {
	for name, answer := range map[string]Answer{"go on": {}, "done": {Done: true}, "errno": {Errno: unix.EACCES}, "replace": {Replace: true, Owned: true}} {
		t.Run(name, func(t *testing.T) {
			if answer.Replace {
				fd, err := loopbackSocket()
				if err != nil {
					t.Fatal(err)
				}
				answer.FD = fd
			}
			asked, release := make(chan struct{}), make(chan struct{})
			w := watch(t, func(*Call) Answer { close(asked); <-release; return answer })
			w.OK("socket a tcp4")
			w.Send("bind a 127.0.0.1:0")
			within(t, "the bind", asked)
			w.Kill()
			close(release)
			w.end(t)
			if answer.Replace && unix.Fstat(answer.FD, new(unix.Stat_t)) == nil {
				t.Error("the socket that nobody took is still open")
			}
		})
	}
}

// lessRun names the test that is being run again with fewer capabilities.
const lessRun = "ENTRYPOINT_TEST_LESS"

// without runs the test again in a process that lacks capabilities; it is true there.
func without(t *testing.T, capabilities ...uintptr) bool {
	t.Helper()
	if os.Getenv(lessRun) == t.Name() {
		return true
	}
	needRoot(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), lessRun+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := puppet.OnThread(func() error {
		for _, c := range capabilities {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Errorf("without capabilities %v: %v\n%s", capabilities, err, out.String())
	}
	return false
}

const nobody = 65534

// TestOtherUser: with the rights of a container (no CAP_SYS_PTRACE) a program of another user is looked into by its own
// filesystem identity, until it has changed that without exec.
func TestOtherUser(t *testing.T) {
	if !without(t, unix.CAP_SYS_PTRACE) {
		return
	}
	fd, name := ephemeral(t)
	w := watch(t, func(c *Call) Answer { return Answer{Replace: c.Addr.IsValid(), FD: fd, Done: c.Path != ""} }, puppet.As(nobody, nobody))
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil { // the fork that changed its uid shared our memory
		t.Fatal(err)
	}
	w.OK("umask 027\nsocket a tcp6 cloexec\nset a %d %d 1\nbind a [::1]:7", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	calls := w.take()
	if c := calls[0]; c.Blind != nil || len(c.Value) != 4 {
		t.Errorf("the option: %+v", c)
	}
	if c := calls[1]; c.Blind != nil || c.Addr.String() != "[::1]:7" || !c.CloseOnExec || c.Protocol != "TCPv6" {
		t.Errorf("the bind: %+v", c)
	}
	w.Want(name, "name a")
	w.OK("socket u unix\nbind u unix:/tmp/s")
	if c := w.one(t); c.UID != nobody || c.GID != nobody || c.Umask != 0o27 || c.Path != "/tmp/s" {
		t.Errorf("the path: %+v", c)
	}
	w.end(t)
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n != 1 {
		t.Errorf("we are no longer dumpable: %d, %v", n, err)
	}
}

func TestUserChangedWithoutExec(t *testing.T) {
	if !without(t, unix.CAP_SYS_PTRACE) {
		return
	}
	w := watch(t, nil)
	w.OK("socket a tcp4\nsocket b tcp4\nbind a 127.0.0.1:0\nsetuid %d", nobody)
	if c := w.one(t); c.Blind != nil {
		t.Errorf("blind already: %v", c.Blind)
	}
	w.OK("bind b 127.0.0.1:0\nlisten b 1")
	for _, c := range w.take() {
		if !errors.Is(c.Blind, syscall.EACCES) && !errors.Is(c.Blind, syscall.EPERM) || c.Inode != 0 {
			t.Errorf("seen %+v, want it to be blind", c)
		}
	}
	w.end(t)
}
