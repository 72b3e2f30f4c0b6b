package handoff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func init() {
	helpers["systemd"] = systemdApp
	helpers["adopting"] = adoptingInit
}

// systemdApp reads what it was given with go-systemd, says READY=1 with it, and prints what it found.
func systemdApp() int {
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	found := map[string]string{}
	for _, f := range activation.Files(false) {
		flags, _ := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		sa, _ := unix.Getsockname(int(f.Fd()))
		found[f.Name()] = fmt.Sprintf("fd %d cloexec %d %T", f.Fd(), flags, sa)
	}
	sent, err := daemon.SdNotify(false, "STATUS=warm\nREADY=1")
	found["notify"] = fmt.Sprint(sent, err)
	if err := SdNotify(os.Getenv("NOTIFY_SOCKET"), []string{"WATCHDOG=1"}); err != nil {
		found["barrier"] = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(found)
	return 0
}

func TestGoSystemdReads(t *testing.T) {
	s := open(t, "web=tcp4://127.0.0.1:0,dns=udp4://127.0.0.1:0,unix://"+t.TempDir()+"/s", Config{Steer: true})
	l := lease(t, s, 1)
	got := make(chan Message, 9)
	n := notify(t, func(int) bool { return true }, got)
	h := l.Handover(AllProtocols, n, 1, 0)
	if d := cmp.Diff([]string{"LISTEN_PID"}, h.PIDVars); d != "" {
		t.Error(d)
	}
	cmd := helper(t, "systemd", h.FDs, h.Env)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"web": "fd 3 cloexec 1 *unix.SockaddrInet4", "dns": "fd 4 cloexec 1 *unix.SockaddrInet4",
		"unix1": "fd 5 cloexec 1 *unix.SockaddrUnix", "notify": "true <nil>",
	}
	if d := cmp.Diff(want, found); d != "" {
		t.Error(d)
	}
	m := <-got
	if !m.Ready || m.Status != "warm" || m.PID != cmd.Process.Pid {
		t.Errorf("message %+v", m)
	}
}

func TestHandoverGolden(t *testing.T) {
	s := open(t, "web=tcp://:0,tcp4://127.0.0.1:0,tcp6://[::1]:0,unix://"+t.TempDir()+"/s", Config{Steer: true})
	l := lease(t, s, 3)
	n := notify(t, func(int) bool { return true }, make(chan Message, 1))
	h := l.Handover(AllProtocols, n, 3, 1)
	p := func(i int) string { return strconv.Itoa(s.held[i].at.port) }
	want := []string{
		"ENTRYPOINT_GENERATION=3", "ENTRYPOINT_WORKER=1",
		"LISTEN_FDS=4", "LISTEN_FDNAMES=web:tcp1:tcp2:unix1",
		"SERVER_STARTER_PORT=" + p(0) + "=3;127.0.0.1:" + p(1) + "=4;[::1]:" + p(2) + "=5;" + s.held[3].addr.Path + "=6",
		"SERVER_STARTER_GENERATION=3",
		"NOTIFY_SOCKET=" + n.Address(), "NOTIFY_FD=7",
		"EINHORN_FD_COUNT=4", "EINHORN_FD_0=3", "EINHORN_FD_1=4", "EINHORN_FD_2=5", "EINHORN_FD_3=6", "EINHORN_FDS=3 4 5 6",
		"EINHORN_MASTER_PID=" + strconv.Itoa(os.Getpid()), "EINHORN_CHILD_INDEX=1", "EINHORN_SOCK_FD=8", "EINHORN_SOCK_PATH=" + n.einhornPath,
	}
	if d := cmp.Diff(want, h.Env); d != "" {
		t.Error(d)
	}
	if len(h.FDs) != 6 || h.FDs[4] != n.crankFD || h.FDs[5] != n.einhornFD {
		t.Errorf("descriptors %v", h.FDs)
	}
	h = l.Handover(Systemd, nil, 3, 0)
	if len(h.FDs) != 4 || len(h.Env) != 4 {
		t.Errorf("systemd alone: %+v", h)
	}
	empty := lease(t, open(t, "", Config{}), 1)
	h = empty.Handover(Systemd|NotifySocket|Crank|ServerStarter, n, 1, 0)
	if d := cmp.Diff([]string{"ENTRYPOINT_GENERATION=1", "ENTRYPOINT_WORKER=0", "SERVER_STARTER_GENERATION=1", "NOTIFY_SOCKET=" + n.Address(), "NOTIFY_FD=3"}, h.Env); d != "" {
		t.Error(d)
	}
	for word, want := range map[string]string{
		"-p={port}":                 "-p=" + p(0),
		"{port:tcp1}/{fd:tcp1}":     p(1) + "/4",
		"{fd} {worker}{generation}": "3 23",
		"{fd:unix1} {port:unix1}":   "6 {port:unix1}",
		"{port:none} {x} {} {fd:}":  "{port:none} {x} {} {fd:}",
	} {
		if got := l.Expand(word, 3, 2); got != want {
			t.Errorf("Expand(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestProtocols(t *testing.T) {
	for in, want := range map[string]Protocols{"all": AllProtocols, "none": 0, "systemd, Notify": Systemd | NotifySocket, "crank,einhorn,server_starter": Crank | Einhorn | ServerStarter} {
		if got, err := ParseProtocols(in); err != nil || got != want {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
	if _, err := ParseProtocols("upstart"); err == nil {
		t.Error("unknown protocol accepted")
	}
	if s := AllProtocols.String(); s != "systemd,einhorn,server_starter,crank,notify" {
		t.Error(s)
	}
	got := StripEnv([]string{"A=1", "LISTEN_FDS=1", "LISTEN_ADDR=:80", "EINHORN_FD_0=3", "NOTIFY_SOCKET=/x", "SERVER_STARTER_PORT=1", "WATCHDOG_USEC=1", "B=2"})
	if d := cmp.Diff([]string{"A=1", "LISTEN_ADDR=:80", "B=2"}, got); d != "" {
		t.Error(d)
	}
}

// adoptingInit is us, started by a socket-activating parent: it holds one configured address that was passed, and one more that
// was passed and not configured.
func adoptingInit() int {
	pid := os.Getpid()
	env := append(os.Environ(), "LISTEN_PID="+strconv.Itoa(pid))
	fail := func(v ...any) int { fmt.Fprintln(os.Stderr, v...); return 1 }
	adopted := Adoptable(env, pid)
	if len(adopted) != 3 || len(Adoptable(env, pid+1)) != 0 {
		return fail("adoptable:", adopted)
	}
	addrs, err := ParseAddresses(os.Getenv("LISTEN"))
	if err != nil {
		return fail(err)
	}
	s, err := Open(addrs, Config{Steer: true, Adopt: adopted})
	if err != nil {
		return fail(err)
	}
	l, err := s.Lease(1)
	if err != nil {
		return fail(err)
	}
	for i, f := range l.Files() {
		flags, _ := unix.FcntlInt(uintptr(f.FD), unix.F_GETFD, 0)
		st := s.Status()[i]
		fmt.Printf("%s %d %d %s %s\n", f.Name, f.FD, flags, st.Mode, st.Address)
	}
	if err := s.Close(); err != nil {
		return fail(err)
	}
	return 0
}

func TestAdoptedSocketsArePassedOn(t *testing.T) {
	parent := open(t, "tcp4://127.0.0.1:0,udp://:0,unix://"+t.TempDir()+"/s", Config{})
	l := lease(t, parent, 1)
	h := l.Handover(Systemd, nil, 1, 0)
	p0, p1 := strconv.Itoa(parent.held[0].at.port), strconv.Itoa(parent.held[1].at.port)
	cmd := helper(t, "adopting", h.FDs, []string{"LISTEN_FDS=3", "LISTEN_FDNAMES=a:b:c", "LISTEN=web=tcp4://127.0.0.1:" + p0})
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "web 3 1 shared tcp4://127.0.0.1:" + p0 + "\nb 4 1 shared udp://:" + p1 + "\nc 5 1 shared unix://" + parent.held[2].current.hidden + "\n"
	if d := cmp.Diff(want, string(bytes.ToValidUTF8(out, nil))); d != "" {
		t.Error(d)
	}
	if c, err := net.Dial("unix", parent.held[2].addr.Path); err != nil {
		t.Errorf("the adopting process removed what is not its own: %v", err)
	} else {
		c.Close()
	}
	if !strings.HasPrefix(h.Env[2], "LISTEN_FDS=3") {
		t.Error(h.Env)
	}
}
