package graceful

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func env(kv ...string) func(string) string {
	m := map[string]string{}
	for _, s := range kv {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return func(k string) string { return m[k] }
}

func TestParseInherited(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		want string // fd:name, or error
	}{
		{"nothing", nil, "[]"},
		{"two, one named", []string{"LISTEN_FDS=2", "LISTEN_PID=7", "LISTEN_FDNAMES=web"}, "[{3 web} {4 }]"},
		{"more names than sockets", []string{"LISTEN_FDS=1", "LISTEN_PID=7", "LISTEN_FDNAMES=a:b"}, "[{3 a}]"},
		{"empty name between", []string{"LISTEN_FDS=3", "LISTEN_PID=7", "LISTEN_FDNAMES=a::c"}, "[{3 a} {4 } {5 c}]"},
		{"none", []string{"LISTEN_FDS=0", "LISTEN_PID=7"}, "[]"},
		{"another process", []string{"LISTEN_FDS=1", "LISTEN_PID=8"}, "[]"},
		{"no process", []string{"LISTEN_FDS=1"}, "[]"},
		{"another's nonsense", []string{"LISTEN_FDS=x", "LISTEN_PID=8"}, "[]"},
		{"nonsense", []string{"LISTEN_FDS=x", "LISTEN_PID=7"}, "error"},
		{"negative", []string{"LISTEN_FDS=-1", "LISTEN_PID=7"}, "error"},
		{"too many", []string{"LISTEN_FDS=1025", "LISTEN_PID=7"}, "error"},
		{"overflow", []string{"LISTEN_FDS=99999999999999999999", "LISTEN_PID=7"}, "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, err := parseInherited(env(c.env...), 7)
			got := fmt.Sprint(list)
			if err != nil {
				got = "error"
			}
			if got != c.want {
				t.Errorf("got %s (%v), want %s", got, err, c.want)
			}
		})
	}
}

func FuzzParseInherited(f *testing.F) {
	f.Add("2", "7", "a:b", 7)
	f.Add("1024", "1", "", 1)
	f.Add("-1", "1", ":::", 1)
	f.Add("0x2", "+1", "a", 1)
	f.Fuzz(func(t *testing.T, fds, pid, names string, self int) {
		get := func(k string) string {
			return map[string]string{"LISTEN_FDS": fds, "LISTEN_PID": pid, "LISTEN_FDNAMES": names}[k]
		}
		list, err := parseInherited(get, self)
		if len(list) > 0 && (err != nil || pid != strconv.Itoa(self)) {
			t.Fatalf("took %v of pid %q, error %v", list, pid, err)
		}
		if len(list) > maxInherited {
			t.Fatalf("took %d", len(list))
		}
		for i, d := range list {
			if d.fd != firstInherited+i || strings.Contains(d.name, ":") {
				t.Fatalf("number %d is %v", i, d)
			}
		}
	})
}

func FuzzWatchdogInterval(f *testing.F) {
	f.Add("1000000", "7", 7)
	f.Add("9223372036854775807", "", 7)
	f.Fuzz(func(t *testing.T, usec, pid string, self int) {
		d, err := watchdogInterval(env("WATCHDOG_USEC="+usec, "WATCHDOG_PID="+pid), self)
		if d < 0 || err != nil && d != 0 {
			t.Fatalf("%q: %v, %v", usec, d, err)
		}
	})
}

func TestMatch(t *testing.T) {
	tcp := func(s string) net.Addr { a, _ := net.ResolveTCPAddr("tcp", s); return a }
	udp := func(s string) net.Addr { a, _ := net.ResolveUDPAddr("udp", s); return a }
	unix := func(network, s string) net.Addr { return &net.UnixAddr{Name: s, Net: network} }
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		network, address string
		bound            net.Addr
		want             bool
	}{
		{"tcp", ":80", tcp("[::]:80"), true},
		{"tcp", ":http", tcp("[::]:80"), true},
		{"tcp", "0.0.0.0:80", tcp("[::]:80"), true},
		{"tcp", "[::]:80", tcp("0.0.0.0:80"), true},
		{"tcp", ":80", tcp("127.0.0.1:80"), false},
		{"tcp", "127.0.0.1:80", tcp("[::]:80"), false}, // never wider than asked for
		{"tcp", "127.0.0.1:80", tcp("127.0.0.1:80"), true},
		{"tcp", "127.0.0.1:80", tcp("127.0.0.2:80"), false},
		{"tcp", ":80", tcp("[::]:81"), false},
		{"tcp", ":0", tcp("[::]:80"), false},
		{"tcp", "[::1]:80", tcp("[::1]:80"), true},
		{"tcp", "[fe80::1%eth0]:80", tcp("[fe80::1%eth1]:80"), false},
		{"tcp4", ":80", tcp("[::]:80"), false},
		{"tcp4", ":80", tcp("0.0.0.0:80"), true},
		{"tcp6", ":80", tcp("0.0.0.0:80"), false},
		{"tcp6", ":80", tcp("[::]:80"), true},
		{"tcp", ":80", udp("[::]:80"), false},
		{"udp", ":80", udp("[::]:80"), true},
		{"udp", ":80", tcp("[::]:80"), false},
		{"unix", "/run/a.sock", unix("unix", "/run/a.sock"), true},
		{"unix", "/run/../run/a.sock", unix("unix", "/run/a.sock"), true},
		{"unix", "/run/a.sock", unix("unix", "/run/b.sock"), false},
		{"unix", "/run/a.sock", unix("unixpacket", "/run/a.sock"), false},
		{"unix", "@a", unix("unix", "@a"), true},
		{"unix", "@a/../b", unix("unix", "@b"), false},
		{"unix", "@a", unix("unix", here+"/@a"), false},
		{"unix", "a", unix("unix", here+"/a"), true},
		{"unix", "", unix("unix", ""), false},
		{"unix", "/run/a.sock", tcp("[::]:80"), false},
	} {
		w, err := parseAddress(c.network, c.address)
		if err != nil {
			t.Errorf("%s %s: %v", c.network, c.address, err)
			continue
		}
		if got := w.fits(c.bound); got != c.want {
			t.Errorf("%s %q fits %v %v: %v, want %v", c.network, c.address, c.bound.Network(), c.bound, got, c.want)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, c := range [][2]string{{"tcp", "nonsense"}, {"udp", ":99999"}, {"carrier-pigeon", ":1"}} {
		if w, err := parseAddress(c[0], c[1]); err == nil {
			t.Errorf("%v is taken as %v", c, w)
		}
		if l, err := (&activation{getenv: env()}).listen("", c[0], c[1]); err == nil {
			t.Errorf("listens on %v: %v", c, l.Addr())
		}
	}
}

func init() { helpers["inherit"] = inheritHelper }

// TestInherit passes a child what an init may pass: sockets to take, and things that are none of our business.
func TestInherit(t *testing.T) {
	tcp := holdSocket(t)
	other := holdSocket(t)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	client, err := net.Dial("tcp", tcp.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := syscall.SetNonblock(int(tcp.file.Fd()), false); err != nil {
		t.Fatal(err)
	}
	files := []*os.File{r, tcp.file, dupFile(t, client.(syscall.Conn)), other.file, dupFile(t, udp.(syscall.Conn))}
	g := startGeneration(t, "inherit", files, "LISTEN_FDS=6", "LISTEN_FDNAMES=pipe:web:conn:admin:dns:gone",
		"TEST_ADDR="+tcp.addr, "TEST_UDP="+udp.LocalAddr().String())
	g.wait()
}

// inheritHelper is the child. Descriptors: 3 pipe, 4 web, 5 a connection, 6 admin, 7 dns, 8 not open.
func inheritHelper() error {
	l, err := Listen("tcp", os.Getenv("TEST_ADDR"))
	if err != nil {
		return fmt.Errorf("by address: %w", err)
	}
	if l.Addr().String() != os.Getenv("TEST_ADDR") || !closeOnExec(l.(syscall.Conn)) {
		return fmt.Errorf("by address: got %v, or it leaks", l.Addr())
	}
	again, err := Listen("tcp", os.Getenv("TEST_ADDR"))
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("given out twice: %v, %v", again, err)
	}
	p, err := ListenPacket("udp", os.Getenv("TEST_UDP"))
	if err != nil || p.LocalAddr().String() != os.Getenv("TEST_UDP") {
		return fmt.Errorf("datagram: %v, %v", p, err)
	}
	admin, err := ListenNamed("admin", "", "")
	if err != nil {
		return fmt.Errorf("by name: %w", err)
	}
	if _, err := ListenNamed("admin", "", ""); err == nil {
		return errors.New("by name: given out twice")
	}
	if rest, err := Listeners(); err != nil || len(rest) > 0 {
		return fmt.Errorf("left over: %v, %v", rest, err)
	}
	for _, fd := range []uintptr{3, 5} { // not ours: open, close-on-exec
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
			return fmt.Errorf("descriptor %d: flags %#x, %v", fd, flags, errno)
		}
	}
	if err := checkHeldOnce(l.(syscall.Conn)); err != nil {
		return err
	}
	return checkNonBlocking(l.(syscall.Conn), admin.(syscall.Conn))
}

// checkHeldOnce tells whether the socket has one descriptor, so that closing the listener lets go of it.
func checkHeldOnce(c syscall.Conn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	link := func(fd string) string { l, _ := os.Readlink("/proc/self/fd/" + fd); return l }
	var want string
	_ = rc.Control(func(fd uintptr) { want = link(strconv.Itoa(int(fd))) })
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	n := 0
	for _, e := range list {
		if link(e.Name()) == want {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("%s has %d descriptors", want, n)
	}
	return nil
}

func closeOnExec(c syscall.Conn) (set bool) {
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = rc.Control(func(fd uintptr) {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFD, 0)
		set = errno == 0 && flags&syscall.FD_CLOEXEC != 0
	})
	return set
}

func checkNonBlocking(conns ...syscall.Conn) error {
	for i, c := range conns {
		rc, err := c.SyscallConn()
		if err != nil {
			return err
		}
		var flags uintptr
		_ = rc.Control(func(fd uintptr) { flags, _, _ = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0) })
		if flags&syscall.O_NONBLOCK == 0 {
			return fmt.Errorf("socket %d blocks", i)
		}
	}
	return nil
}

// TestListenersTakesTheRest uses sockets that were made here, without descriptors.
func TestListenersTakesTheRest(t *testing.T) {
	one, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	a := &activation{getenv: env()}
	a.once.Do(func() { a.left = []socket{{name: "x", listener: one}} })
	s, found, err := a.take(func(s socket) bool { return s.listener != nil })
	if err != nil || !found || s.listener != one {
		t.Fatalf("took %v, %v, %v", s, found, err)
	}
	if _, found, _ := a.take(func(socket) bool { return true }); found {
		t.Error("given out twice")
	}
}

func TestListenBindsByItself(t *testing.T) {
	a := &activation{getenv: env()}
	l, err := a.listen("web", "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := a.listenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := a.listen("web", "", ""); err == nil || !strings.Contains(err.Error(), `"web"`) {
		t.Errorf("a name without a socket and a network: %v", err)
	}
	bad := &activation{getenv: env("LISTEN_FDS=x", "LISTEN_PID=7"), pid: 7}
	if l, err := bad.listen("", "tcp", "127.0.0.1:0"); err == nil {
		t.Errorf("a malformed LISTEN_FDS is passed over: %v", l.Addr())
	}
}
