//go:build amd64 || arm64

package transparent

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/internal/puppet"
)

// swallow ends every call with success, so that no test takes a port.
func swallow(*Call) Answer { return Answer{Done: true} }

func TestBindIsSeen(t *testing.T) {
	w := watch(t, swallow)
	inet := func(address string) netip.AddrPort { return netip.MustParseAddrPort(address) }
	for _, c := range []struct {
		socket, bind string
		want         Call
	}{
		{"tcp4", "127.0.0.1:7", Call{Protocol: "TCP", Family: unix.AF_INET, Addr: inet("127.0.0.1:7")}},
		{"tcp4 nonblock", "0.0.0.0:7", Call{Protocol: "TCP", NonBlocking: true, Family: unix.AF_INET, Addr: inet("0.0.0.0:7")}},
		{"tcp4 cloexec", "127.0.0.1:0", Call{Protocol: "TCP", CloseOnExec: true, Family: unix.AF_INET, Addr: inet("127.0.0.1:0")}},
		{"tcp6", "[::1]:65535", Call{Protocol: "TCPv6", Family: unix.AF_INET6, Addr: inet("[::1]:65535")}},
		{"tcp6 nonblock cloexec", "[::]:7", Call{Protocol: "TCPv6", NonBlocking: true, CloseOnExec: true, Family: unix.AF_INET6, Addr: inet("[::]:7")}},
		{"tcp6", "[fe80::1%3]:7", Call{Protocol: "TCPv6", Family: unix.AF_INET6, Addr: inet("[fe80::1%3]:7")}},
		{"tcp6", "[::ffff:127.0.0.1]:7", Call{Protocol: "TCPv6", Family: unix.AF_INET6, Addr: inet("[::ffff:127.0.0.1]:7")}},
		{"udp4", "127.0.0.1:7", Call{Protocol: "UDP", Family: unix.AF_INET, Addr: inet("127.0.0.1:7")}},
		{"udp6", "[::1]:7", Call{Protocol: "UDPv6", Family: unix.AF_INET6, Addr: inet("[::1]:7")}},
		{"mptcp4", "127.0.0.1:7", Call{Protocol: "MPTCP", Family: unix.AF_INET, Addr: inet("127.0.0.1:7")}},
		{"mptcp6", "[::1]:7", Call{Protocol: "MPTCPv6", Family: unix.AF_INET6, Addr: inet("[::1]:7")}},
		{"unix", "unix:@name", Call{Protocol: "UNIX-STREAM", Family: unix.AF_UNIX, Path: "@name"}},
		{"unix", "unix:/tmp/s", Call{Protocol: "UNIX-STREAM", Family: unix.AF_UNIX, Path: "/tmp/s", Umask: 0o22}},
		{"unixgram", "unix:/tmp/../gram", Call{Protocol: "UNIX", Family: unix.AF_UNIX, Path: "/gram", Umask: 0o22}},
	} {
		t.Run(c.socket+" "+c.bind, func(t *testing.T) {
			w.Do("umask 022")
			if reply := w.Do("socket a %s", c.socket); strings.HasPrefix(c.socket, "mptcp") && reply != "ok" {
				t.Skipf("SKIPPED: no MPTCP here: %s", reply)
			}
			w.OK("bind a %s", c.bind)
			if c.want.Family == unix.AF_UNIX && c.want.Path[0] != '@' {
				c.want.UID, c.want.GID = os.Getuid(), os.Getgid()
			}
			wantCall(t, w, c.want)
			w.OK("close a")
		})
	}
	w.end(t)
}

// wantCall compares all but the numbers that the kernel chose, which must be there.
func wantCall(t *testing.T, w *subject, want Call) {
	t.Helper()
	got := w.one(t)
	if got.TID == 0 || want.Op != Unlink && (got.Inode == 0 || got.FD < 3) {
		t.Errorf("thread %d, descriptor %d, inode %d", got.TID, got.FD, got.Inode)
	}
	want.TID, want.FD, want.Inode = got.TID, got.FD, got.Inode
	if want.UID == got.UID && got.PID > 0 { // of a path
		want.PID, want.Parent = w.PID(), os.Getpid()
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("seen %+v\nwant %+v", got, want)
	}
}

func TestOptionIsSeen(t *testing.T) {
	w := watch(t, swallow)
	w.OK("socket a tcp6")
	w.OK("set a %d %d 7", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
	wantCall(t, w, Call{Op: Set, Level: unix.IPPROTO_TCP, Name: unix.TCP_DEFER_ACCEPT, Value: []byte{7, 0, 0, 0}})
	w.OK("set a %d %d :reno", unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	wantCall(t, w, Call{Op: Set, Level: unix.IPPROTO_TCP, Name: unix.TCP_CONGESTION, Value: []byte("reno")})
	long := strings.Repeat("x", 300)
	w.OK("set a %d %d :%s", unix.IPPROTO_TCP, unix.TCP_CONGESTION, long)
	wantCall(t, w, Call{Op: Set, Level: unix.IPPROTO_TCP, Name: unix.TCP_CONGESTION, Value: []byte(long[:maxValue])})
	w.OK("set a %d %d 1", unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	if calls := w.take(); len(calls) > 0 {
		t.Errorf("an option that programs set on every connection is shown: %+v", calls)
	}
	w.OK("listen a 5")
	wantCall(t, w, Call{Op: Listen, Protocol: "TCPv6"})
	w.end(t)
}

// TestPathOfNetlinkLength: the filter takes a unix address of twelve bytes for one of netlink, which it lets pass unseen.
// That is a path of nine characters with a zero behind it, or of ten without.
func TestPathOfNetlinkLength(t *testing.T) {
	t.Chdir(t.TempDir())
	w := watch(t, swallow)
	w.OK("socket a unix\nbind a unix:nine.sock")
	if calls := w.take(); len(calls) > 0 {
		t.Errorf("it is seen: %+v", calls)
	}
	w.OK("socket b unix\nbind b unix:eleven.sock")
	w.one(t)
	w.end(t)
}

// TestKernelAnswers: what is wrong in itself goes to the kernel, which has the right error for it, and to nobody else.
func TestKernelAnswers(t *testing.T) {
	w := watch(t, swallow)
	w.OK("socket a tcp4\nopen f /dev/null\nsocket gone tcp4\nclose gone")
	w.Want("EFAULT", "oddbind a 16 nowhere")
	w.Want("EBADF", "bind gone 127.0.0.1:7")
	w.Want("EBADF", "listen gone 1")
	w.Want("ENOTSOCK", "bind f 127.0.0.1:7")
	w.Want("ENOTSOCK", "listen f 1")
	if calls := w.take(); len(calls) > 0 {
		t.Errorf("the handler was asked: %+v", calls)
	}
	w.end(t)
}

func TestUnlinkIsSeen(t *testing.T) {
	dir := t.TempDir()
	w := watch(t, nil)
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b, c := write("a"), write("b"), write("c")
	w.OK("unlink %s", a)
	wantCall(t, w, Call{Op: Unlink, FD: -1, Path: a})
	w.OK("chdir %s\nunlinkat ./b 0", dir)
	wantCall(t, w, Call{Op: Unlink, FD: -1, Path: b})
	w.OK("cliff %s", c)
	wantCall(t, w, Call{Op: Unlink, FD: -1, Path: c})
	w.Want("ENOENT", "unlink %s", c)
	w.take()
	w.Want("ENOENT", "unlinkat ./none %d", unix.AT_REMOVEDIR)
	if calls := w.take(); len(calls) > 0 {
		t.Errorf("the removal of a folder is shown: %+v", calls)
	}
	for _, path := range []string{a, b, c} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	w.end(t)
}

func TestForeignNetwork(t *testing.T) {
	needRoot(t)
	w := watch(t, swallow, puppet.In(unix.CLONE_NEWNET))
	w.OK("socket a tcp4\nbind a 127.0.0.1:7")
	wantCall(t, w, Call{Protocol: "TCP", Foreign: true, Family: unix.AF_INET, Addr: netip.MustParseAddrPort("127.0.0.1:7")})
	w.end(t)
}

func TestForeignMounts(t *testing.T) {
	needRoot(t)
	w := watch(t, swallow, puppet.In(unix.CLONE_NEWNS))
	w.OK("umask 0\nsocket a unix\nbind a unix:/tmp/s")
	wantCall(t, w, Call{Protocol: "UNIX-STREAM", Elsewhere: true, Family: unix.AF_UNIX, Path: "/tmp/s"})
	w.end(t)
}

// TestPolled: an epoll set would lose the socket with the descriptor, so the handler is told.
func TestPolled(t *testing.T) {
	w := watch(t, swallow)
	w.OK("socket a tcp4\nsocket b tcp4\nepoll a\nbind a 127.0.0.1:7")
	wantCall(t, w, Call{Protocol: "TCP", Polled: true, Family: unix.AF_INET, Addr: netip.MustParseAddrPort("127.0.0.1:7")})
	w.OK("bind b 127.0.0.1:7")
	wantCall(t, w, Call{Protocol: "TCP", Family: unix.AF_INET, Addr: netip.MustParseAddrPort("127.0.0.1:7")})
	w.end(t)
}

// TestNested: a program of ours that wants a notification descriptor cannot have one; all other filters it can.
func TestNested(t *testing.T) {
	w := watch(t, nil)
	w.Want("EBUSY", "nested %d", unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	if c := w.one(t); c.Op != Nested || c.TID == 0 {
		t.Errorf("seen %+v", c)
	}
	w.OK("nested 0")
	if calls := w.take(); len(calls) > 0 {
		t.Errorf("a harmless filter is shown: %+v", calls)
	}
	w.OK("socket a tcp4\nbind a 127.0.0.1:0")
	w.one(t)
	w.end(t)
}

// TestCrowd: 2,000 binds of 100 threads at the same time get the right answer each.
func TestCrowd(t *testing.T) {
	const threads, each = 100, 20
	fd, name := ephemeral(t)
	w := watch(t, func(*Call) Answer { return Answer{Replace: true, FD: fd} })
	_, port, _ := strings.Cut(name, ":")
	w.Want(fmt.Sprint(threads*each), "crowd %d %d %s", threads, each, port)
	if n := len(w.take()); n != threads*each {
		t.Errorf("the handler saw %d binds", n)
	}
	w.end(t)
}
