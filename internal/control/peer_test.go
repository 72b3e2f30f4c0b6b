package control

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

func TestRefusedProofs(t *testing.T) {
	s := start(t, ServerOptions{})
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	ns, err := os.Open(namespaceFile)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	network, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	for name, c := range map[string]struct {
		files []*os.File
		want  string
	}{
		"none":              {nil, "no proof of your mount namespace"},
		"another file":      {[]*os.File{null}, "is not a /proc/self/ns/mnt"},
		"another namespace": {[]*os.File{network}, "you are in another mount namespace"},
		"three":             {[]*os.File{ns, ns, ns}, "more descriptors"},
		"many":              {[]*os.File{ns, ns, ns, ns, ns}, "more descriptors"},
		"not the first":     {[]*os.File{null, ns}, "is not a /proc/self/ns/mnt"},
	} {
		t.Run(name, func(t *testing.T) {
			var fds []int
			for _, f := range c.files {
				fds = append(fds, int(f.Fd()))
			}
			conn := dialRaw(t, s.address)
			conn.send(`{"v":1,"op":"stop"}`+"\n", fds...)
			if r := conn.result(); r.Code != swap.CodeNoInit || !strings.Contains(r.Text, c.want) {
				t.Errorf("got %d %q, want code 4 and %q", r.Code, r.Text, c.want)
			}
		})
	}
}

// Real processes in other namespaces and of other uids.
func TestRefusedPeers(t *testing.T) {
	s := start(t, ServerOptions{})
	if got := output(t, 0, "ask", s.address); got != "0 serving" {
		t.Errorf("a process beside us: %q", got)
	}
	if got := output(t, unix.CLONE_NEWNS, "ask", s.address); got != "4 not allowed: you are in another mount namespace, that is, in another container" {
		t.Errorf("a process in another mount namespace: %q", got)
	}
	if got := output(t, unix.CLONE_NEWPID, "ask", s.address); got != "0 serving" {
		t.Errorf("a process in a pid namespace below ours: %q", got)
	}
	if os.Geteuid() == 0 {
		want := fmt.Sprintf("4 not allowed: your uid is 4711, this init answers uid %d and root", os.Geteuid())
		if got := output(t, 0, "ask", s.address, "4711"); got != want {
			t.Errorf("a process of another uid: %q", got)
		}
	}
}

// An init in a pid namespace of its own has no number for us.
func TestRefusedFromOutside(t *testing.T) {
	cmd := helper(unix.CLONE_NEWPID, "init")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stdin.Close(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasSuffix(line, "/1\n") {
		t.Fatalf("%q, %v", line, err)
	}
	address := strings.TrimSpace(line)
	if got := helperAsk([]string{address}); got != "4 not allowed: you are in another pid namespace, that is, in another container" {
		t.Errorf("a process of the pid namespace above: %q", got)
	}
	if _, err := Dial(context.Background(), address); err == nil || !strings.Contains(err.Error(), "the name belongs to pid 1, but pid") {
		t.Errorf("a client of the pid namespace above: %v", err)
	}
}

// The same judgement without the privilege to make such processes.
func TestCredentials(t *testing.T) {
	for _, c := range []struct {
		peer    unix.Ucred
		own     uint32
		allowed bool
	}{
		{unix.Ucred{Pid: 5, Uid: 1000}, 1000, true},
		{unix.Ucred{Pid: 5, Uid: 0}, 1000, true},
		{unix.Ucred{Pid: 5, Uid: 1001}, 1000, false},
		{unix.Ucred{Pid: 5, Uid: 1000}, 0, false},
		{unix.Ucred{Pid: 5, Uid: 65534}, 0, false},
		{unix.Ucred{Pid: 0, Uid: 0}, 0, false},
		{unix.Ucred{Pid: 0, Uid: 1000}, 1000, false},
	} {
		if err := checkClient(c.peer, c.own); (err == nil) != c.allowed {
			t.Errorf("%+v at uid %d: %v", c.peer, c.own, err)
		}
	}
	for _, c := range []struct {
		peer    unix.Ucred
		pid     int
		own     uint32
		trusted bool
	}{
		{unix.Ucred{Pid: 1, Uid: 0}, 1, 1000, true},
		{unix.Ucred{Pid: 1, Uid: 1000}, 1, 1000, true},
		{unix.Ucred{Pid: 1, Uid: 1000}, 1, 0, true},
		{unix.Ucred{Pid: 1, Uid: 1001}, 1, 1000, false},
		{unix.Ucred{Pid: 9, Uid: 1000}, 1, 1000, false},
		{unix.Ucred{Pid: 9, Uid: 1000}, 0, 1000, true},
		{unix.Ucred{Pid: 0, Uid: 0}, 1, 0, false},
		{unix.Ucred{Pid: 0, Uid: 0}, 0, 0, false},
	} {
		if err := checkServer(c.peer, c.pid, c.own); (err == nil) != c.trusted {
			t.Errorf("server %+v named pid %d seen by uid %d: %v", c.peer, c.pid, c.own, err)
		}
	}
}

// A stranger is refused by what the kernel says, before a byte of it is read and without taking a place.
func TestStrangersTakeNoPlace(t *testing.T) {
	s := start(t, ServerOptions{}, func(s *Server) {
		s.peer = func(*net.UnixConn) (unix.Ucred, error) { return unix.Ucred{Pid: 0}, nil }
	})
	for range 10 * maxClients {
		c := dialRaw(t, s.address)
		if r := c.result(); r.Code != swap.CodeNoInit || !strings.Contains(r.Text, "another pid namespace") {
			t.Fatalf("got %d %q", r.Code, r.Text)
		}
	}
}

func TestPathSocket(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := socketPath(t)
	s := start(t, ServerOptions{Address: path})
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Open(ServerOptions{Address: path}); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("a second init on a live socket: %v", err)
	}
	s.stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket file is still there: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := socketPath(t)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	s := start(t, ServerOptions{Address: path})
	if r, _ := ask(t, s.address, Request{Op: OpHealth}); r.Code != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		if _, err := Open(ServerOptions{Address: path}); err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if b, err := os.ReadFile(link); string(b) != "precious" {
		t.Errorf("file: %q, %v", b, err)
	}
	if _, err := Open(ServerOptions{Address: filepath.Join(dir, "no", "dir")}); err == nil {
		t.Error("a directory that does not exist was no error")
	}
}

// Whoever put another socket at our path keeps it.
func TestOnlyTheOwnFileIsRemoved(t *testing.T) {
	path := socketPath(t)
	s := start(t, ServerOptions{Address: path})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s.stop()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other socket was removed: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	for _, good := range []string{"", "auto", "off", "/run/x", "@x"} {
		if err := CheckAddress(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"run/x", "on", "tcp://:1", "@", "/" + strings.Repeat("x", 107), "/a\x00b", "./x"} {
		if err := CheckAddress(bad); err == nil {
			t.Errorf("%q was good", bad)
		} else if _, err := Open(ServerOptions{Address: bad}); err == nil {
			t.Errorf("%q was opened", bad)
		}
	}
	name := anyName()
	start(t, ServerOptions{Address: name})
	if _, err := Open(ServerOptions{Address: name}); err == nil || !strings.Contains(err.Error(), "ENTRYPOINT_CONTROL sets another") {
		t.Errorf("a taken name: %v", err)
	}
}
