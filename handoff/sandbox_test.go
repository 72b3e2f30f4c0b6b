package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() { helpers["sandboxed"] = sandboxed }

// forbid makes the kernel refuse the steering program and sock_diag to this process, as gVisor and old kernels do.
func forbid() error {
	refuse := func(errno unix.Errno) unix.SockFilter {
		return stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(errno))
	}
	const nr, arg0, arg2 = 0, 16, 32 // offsets in struct seccomp_data, little endian
	load := func(at uint32) unix.SockFilter { return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, at) }
	prog := []unix.SockFilter{
		load(nr), skipUnless(unix.SYS_SETSOCKOPT, 3),
		load(arg2), skipUnless(unix.SO_ATTACH_REUSEPORT_CBPF, 5), refuse(unix.EOPNOTSUPP),
		skipUnless(unix.SYS_SOCKET, 3),
		load(arg0), skipUnless(unix.AF_NETLINK, 1), refuse(unix.EPROTONOSUPPORT),
		stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW),
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	if e != 0 {
		return e
	}
	return nil
}

func sandboxed() int {
	fail := func(v ...any) int { fmt.Fprintln(os.Stderr, v...); return 1 }
	if err := forbid(); err != nil {
		return fail("seccomp:", err)
	}
	addrs, _ := ParseAddresses("tcp4://127.0.0.1:0")
	s, err := Open(addrs, Config{Steer: true})
	if err != nil {
		return fail(err)
	}
	if st := s.Status()[0]; st.Mode != modeShared || st.Why == "" {
		return fail("status:", st)
	}
	l, err := s.Lease(1)
	if err != nil {
		return fail(err)
	}
	ln, err := listenerOf(l.Files()[0].FD)
	if err != nil {
		return fail(err)
	}
	accepted := make(chan net.Conn, 9)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Accepted(ctx, 1, nil); err != nil { // by /proc/net/tcp
		return fail("accepted:", err)
	}
	probe := <-accepted
	fmt.Println("probe from", probe.RemoteAddr())
	probe.Close()
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.held[0].at.port))
	if err != nil {
		return fail(err)
	}
	server := <-accepted
	fmt.Println("client is", c.LocalAddr(), "accepted", server.RemoteAddr())
	if load, err := l.Load(); err != nil || load != (Load{Open: 1, Busy: 1, Known: true}) {
		return fail("load:", load, err)
	}
	c.Close()
	server.Close()
	if err := errors.Join(ln.Close(), s.Close()); err != nil {
		return fail(err)
	}
	return 0
}

func TestWithoutSteeringAndSockDiag(t *testing.T) {
	if out, err := helper(t, "sandboxed", nil, os.Environ()).Output(); err != nil {
		t.Errorf("%v %s", err, out)
	}
}
