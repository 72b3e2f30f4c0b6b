package puppet

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr reads "127.0.0.1:80", "[fe80::1%2]:80" (the zone is a number), or "unix:" and a path.
func sockaddr(word string) (unix.Sockaddr, error) {
	if path, ok := strings.CutPrefix(word, "unix:"); ok {
		return &unix.SockaddrUnix{Name: path}, nil
	}
	a, err := netip.ParseAddrPort(word)
	if err != nil {
		return nil, err
	}
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	zone, _ := strconv.ParseUint(a.Addr().Zone(), 10, 32)
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}, nil
}

func text(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrUnix:
		return "unix:" + sa.Name
	}
	return fmt.Sprintf("%T", sa)
}

// fork KID [NAME] starts a puppet that has the socket as its "3".
func (s *stage) fork(words []string) (string, error) {
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{Role}, Stderr: os.Stderr}
	if len(words) > 1 {
		fd, err := unix.FcntlInt(uintptr(s.fds[words[1]]), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return "", err
		}
		f := os.NewFile(uintptr(fd), "")
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	s.kids[words[0]] = &kid{cmd, in, bufio.NewReader(out)}
	return "", cmd.Start()
}

// to KID COMMAND… lets a puppet of the puppet do something.
func (s *stage) to(words []string) (string, error) {
	k := s.kids[words[0]]
	if k == nil {
		return "", fmt.Errorf("no kid %q", words[0])
	}
	fmt.Fprintln(k.in, strings.Join(words[1:], " "))
	line, err := k.out.ReadString('\n')
	return strings.TrimSpace(line), err
}

// leave starts a puppet in a session of its own that outlives us: its commands come from descriptor 3 and its replies go to 4.
func (s *stage) leave([]string) (string, error) {
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{Role}, Stderr: os.Stderr,
		Stdin: os.NewFile(3, ""), Stdout: os.NewFile(4, ""), SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	return "", cmd.Start()
}

// epoll NAME registers the socket in a new epoll set.
func (s *stage) epoll(words []string) (string, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return "", err
	}
	fd := s.fds[words[0]]
	return "", unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// oddBind NAME LENGTH [nowhere] passes a length that may be no good, or an address outside our memory.
func (s *stage) oddBind(words []string) (string, error) {
	var b [256]byte
	b[0] = unix.AF_INET
	at := uintptr(unsafe.Pointer(&b))
	if len(words) > 2 {
		at = 8
	}
	_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(s.fds[words[0]]), at, uintptr(number(words[1])))
	return result(errno)
}

func result(errno unix.Errno) (string, error) {
	if errno != 0 {
		return "", errno
	}
	return "", nil
}

// crowd THREADS EACH PORT: so many threads bind so many sockets each, and the answer is how many are called 127.0.0.1:PORT.
func (s *stage) crowd(words []string) (string, error) {
	var right atomic.Int64
	var wg sync.WaitGroup
	for range number(words[0]) {
		wg.Go(func() {
			runtime.LockOSThread()
			for range number(words[1]) {
				if boundTo("127.0.0.1:" + words[2]) {
					right.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return fmt.Sprint(right.Load()), nil
}

// boundTo binds port 1 and tells whether the socket has that name then.
func boundTo(name string) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if unix.Bind(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}) != nil {
		return false
	}
	sa, err := unix.Getsockname(fd)
	return err == nil && text(sa) == name
}

// nested FLAGS installs a filter that lets everything pass.
func nested(_ *stage, words []string) (string, error) {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return "", err
	}
	code := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
	prog := unix.SockFprog{Len: 1, Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(number(words[0])), uintptr(unsafe.Pointer(&prog)))
	return result(errno)
}

// cliff PATH unlinks a path that ends where the memory ends.
func cliff(_ *stage, words []string) (string, error) {
	page := os.Getpagesize()
	b, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return "", err
	}
	defer unix.Munmap(b)
	if err := unix.Mprotect(b[page:], unix.PROT_NONE); err != nil {
		return "", err
	}
	path := append([]byte(words[0]), 0)
	at := page - len(path)
	copy(b[at:], path)
	dir := unix.AT_FDCWD
	_, _, errno := unix.Syscall(unix.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&b[at])), 0)
	return result(errno)
}
