//go:build amd64 || arm64

package transparent

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// seccompData is struct seccomp_data, which a filter reads.
type seccompData struct {
	nr   uint32
	arch uint32
	ip   uint64
	args [6]uint64
}

// run interprets a filter as the kernel would; it knows the instructions that ours has.
func run(code []unix.SockFilter, d seccompData) (uint32, error) {
	var mem [64]byte
	binary.NativeEndian.PutUint32(mem[0:], d.nr)
	binary.NativeEndian.PutUint32(mem[4:], d.arch)
	binary.NativeEndian.PutUint64(mem[8:], d.ip)
	for i, a := range d.args {
		binary.NativeEndian.PutUint64(mem[16+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(code); pc++ {
		in := code[pc]
		var holds bool
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if in.K%4 != 0 || in.K > 60 {
				return 0, fmt.Errorf("instruction %d loads at %d, which the kernel refuses", pc, in.K)
			}
			acc = binary.NativeEndian.Uint32(mem[in.K:])
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K, nil
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			holds = acc == in.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			holds = acc&in.K != 0
		default:
			return 0, fmt.Errorf("instruction %d has code %#x", pc, in.Code)
		}
		if holds {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	return 0, fmt.Errorf("it ran off the end")
}

func call(nr int, args ...uint64) seccompData {
	d := seccompData{nr: uint32(nr), arch: auditArch}
	copy(d.args[:], args)
	return d
}

// high is a bit in the upper half of a register, which a 32-bit comparison does not see and the kernel ignores.
const high = 1 << 40

func TestFilter(t *testing.T) {
	setopt := func(level, name uint64) seccompData { return call(unix.SYS_SETSOCKOPT, 3, level, name, 0x1000, 4) }
	foreign := func(nr uint32, arch uint32) seccompData { return seccompData{nr: nr, arch: arch} }
	cases := []struct {
		name string
		data seccompData
		want bool // to be shown
	}{
		{"bind of sockaddr_in", call(unix.SYS_BIND, 3, 0x1000, 16), true},
		{"bind of sockaddr_in6", call(unix.SYS_BIND, 3, 0x1000, 28), true},
		{"bind of sockaddr_un", call(unix.SYS_BIND, 3, 0x1000, 110), true},
		{"bind of a short path", call(unix.SYS_BIND, 3, 0x1000, 5), true},
		{"bind of sockaddr_storage", call(unix.SYS_BIND, 3, 0x1000, 128), true},
		{"bind of no length", call(unix.SYS_BIND, 3, 0x1000, 0), true},
		{"bind of sockaddr_nl", call(unix.SYS_BIND, 3, 0x1000, 12), false},
		{"bind of sockaddr_nl, rubbish above", call(unix.SYS_BIND, 3, 0x1000, high|12), false},
		{"listen", call(unix.SYS_LISTEN, 3, 5), true},
		{"accept4", call(unix.SYS_ACCEPT4, 3), false},
		{"connect", call(unix.SYS_CONNECT, 3, 0x1000, 16), false},
		{"socket", call(unix.SYS_SOCKET, 2, 1, 0), false},
		{"getsockopt", call(unix.SYS_GETSOCKOPT, 3, unix.SOL_SOCKET, unix.SO_RCVBUF), false},
		{"read", call(unix.SYS_READ, 3), false},
		{"ioctl", call(unix.SYS_IOCTL, 3, 0x5421), false},
		{"a number beyond all", call(1 << 20), false},
		{"seccomp with a listener", call(unix.SYS_SECCOMP, 1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER), true},
		{"seccomp with a listener and more", call(unix.SYS_SECCOMP, 1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_TSYNC), true},
		{"seccomp without", call(unix.SYS_SECCOMP, 1, unix.SECCOMP_FILTER_FLAG_TSYNC), false},
		{"seccomp, strict", call(unix.SYS_SECCOMP, 0, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER), false},
		{"seccomp, a question", call(unix.SYS_SECCOMP, 2, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER), false},
		{"SO_REUSEPORT", setopt(unix.SOL_SOCKET, unix.SO_REUSEPORT), true},
		{"SO_REUSEPORT, rubbish above", setopt(high|unix.SOL_SOCKET, high|unix.SO_REUSEPORT), true},
		{"SO_REUSEADDR", setopt(unix.SOL_SOCKET, unix.SO_REUSEADDR), false},
		{"SO_KEEPALIVE", setopt(unix.SOL_SOCKET, unix.SO_KEEPALIVE), false},
		{"SO_LINGER", setopt(unix.SOL_SOCKET, unix.SO_LINGER), false},
		{"TCP_NODELAY", setopt(unix.IPPROTO_TCP, unix.TCP_NODELAY), false},
		{"TCP_KEEPIDLE", setopt(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), false},
		{"IPV6_V6ONLY", setopt(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY), true},
		{"any of IP", setopt(unix.IPPROTO_IP, 9999), true},
		{"any of UDP", setopt(unix.IPPROTO_UDP, 100), true},
		{"of SCTP", setopt(unix.IPPROTO_SCTP, unix.SO_REUSEPORT), false},
		{"of another ABI: 32-bit x86", foreign(361, 0x40000003), false},
		{"of another ABI: 32-bit arm", foreign(282, 0x40000028), false},
		{"of another ABI: our own numbers", foreign(unix.SYS_LISTEN, auditArch^0x80000000), false},
		{"x32", call(unix.SYS_LISTEN|0x40000000, 3, 5), false},
	}
	code := program()
	for _, c := range cases {
		wantShown(t, code, c.name, c.data, c.want)
	}
	const path = 0x7f0012345678
	if nr := sysUnlink; nr >= 0 {
		wantShown(t, code, "unlink", call(nr, path), true)
	}
	for _, c := range []struct {
		name  string
		dirfd uint64
		flags uint64
		want  bool
	}{
		{"unlinkat of a path", cwd, 0, true},
		{"the same, sign-extended", 0xffffff9c | 0xffffffff<<32, 0, true},
		{"of a folder", cwd, unix.AT_REMOVEDIR, false},
		{"in an open folder", 7, 0, false},
	} {
		wantShown(t, code, c.name, call(unix.SYS_UNLINKAT, c.dirfd, path, c.flags), c.want)
	}
}

func wantShown(t *testing.T, code []unix.SockFilter, name string, d seccompData, want bool) {
	t.Helper()
	got, err := run(code, d)
	if err != nil || got != unix.SECCOMP_RET_ALLOW && got != unix.SECCOMP_RET_USER_NOTIF {
		t.Fatalf("%s: %#x, %v", name, got, err)
	}
	if shown := got == unix.SECCOMP_RET_USER_NOTIF; shown != want {
		t.Errorf("%s: shown %v, want %v", name, shown, want)
	}
}

// TestFilterOptions asks for every option of every level: only what is listed is shown.
func TestFilterOptions(t *testing.T) {
	code := program()
	for level := range uint64(400) {
		for name := range uint64(120) {
			wantShown(t, code, fmt.Sprintf("option %d of level %d", name, level), call(unix.SYS_SETSOCKOPT, 3, level, name), listed(level, name))
		}
	}
}

func listed(level, name uint64) bool {
	for _, w := range watched {
		if uint64(w.level) != level {
			continue
		}
		if w.options == nil {
			return true
		}
		for _, o := range w.options {
			if uint64(o) == name {
				return true
			}
		}
	}
	return false
}

// TestFilterCalls asks for every number: nothing else may ever wait for us.
func TestFilterCalls(t *testing.T) {
	code := program()
	for nr := range 600 {
		switch nr {
		case unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_SETSOCKOPT, unix.SYS_SECCOMP, sysUnlink, unix.SYS_UNLINKAT:
			continue
		}
		wantShown(t, code, fmt.Sprint("system call ", nr), call(nr, 1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, 16), false)
	}
}

// TestFilterReach: a classic BPF jump reaches 255 instructions, and silently another one if it is to reach more.
func TestFilterReach(t *testing.T) {
	if n := len(program()); n > 255 {
		t.Errorf("%d instructions: the jumps to its end may not reach it", n)
	}
}
