// Package puppet is a program for tests that makes the system calls that it is told, one a line, and says what came of each;
// and the hand that moves it. It stands for any app that opens its own sockets.
package puppet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Role is the argv[0] under which a test binary must call Main.
const Role = "helper:puppet"

// stage is what the puppet has: sockets, and puppets of its own, by name.
type stage struct {
	fds  map[string]int
	kids map[string]*kid
}

// kid is a child of the puppet.
type kid struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

// Main obeys until its standard input ends. A socket that it was started with is called "3".
func Main() int {
	s := &stage{fds: map[string]int{"3": 3}, kids: map[string]*kid{}}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return 0
		}
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		reply, err := "", error(fmt.Errorf("no command %q", name))
		if f := commands[name]; f != nil {
			reply, err = f(s, strings.Fields(rest))
		}
		fmt.Println(verdict(reply, err))
	}
}

// verdict is a reply: what was asked for, "ok", or the name of an error.
func verdict(reply string, err error) string {
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case err != nil:
		return "error: " + err.Error()
	case reply == "":
		return "ok"
	}
	return reply
}

// commands take words; the first one mostly names a socket.
var commands map[string]func(s *stage, words []string) (string, error)

func init() {
	commands = map[string]func(*stage, []string) (string, error){
		"socket": (*stage).socket, "bind": (*stage).bind, "connect": (*stage).connect, "set": (*stage).set, "get": (*stage).get,
		"name": (*stage).name, "flags": (*stage).flags, "serve": (*stage).serve, "fork": (*stage).fork, "to": (*stage).to,
		"leave": (*stage).leave, "epoll": (*stage).epoll, "oddbind": (*stage).oddBind, "crowd": (*stage).crowd,
		"nested": nested, "cliff": cliff, "open": (*stage).open,
		"listen":   func(s *stage, w []string) (string, error) { return "", unix.Listen(s.fds[w[0]], number(w[1])) },
		"close":    func(s *stage, w []string) (string, error) { return "", unix.Close(s.fds[w[0]]) },
		"shutdown": func(s *stage, w []string) (string, error) { return "", unix.Shutdown(s.fds[w[0]], unix.SHUT_RDWR) },
		"unlink":   func(_ *stage, w []string) (string, error) { return "", unix.Unlink(w[0]) },
		"unlinkat": func(_ *stage, w []string) (string, error) {
			return "", unix.Unlinkat(unix.AT_FDCWD, w[0], number(w[1]))
		},
		"chdir":  func(_ *stage, w []string) (string, error) { return "", unix.Chdir(w[0]) },
		"umask":  func(_ *stage, w []string) (string, error) { unix.Umask(number(w[0])); return "", nil },
		"setuid": func(_ *stage, w []string) (string, error) { return "", syscall.Setuid(number(w[0])) },
		"pid":    func(*stage, []string) (string, error) { return strconv.Itoa(os.Getpid()), nil },
		"exit":   func(_ *stage, w []string) (string, error) { os.Exit(number(w[0])); return "", nil },
	}
}

// number reads any base that Go writes; it is for tests, which write numbers.
func number(text string) int {
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		panic(err)
	}
	return int(n)
}

// kinds are the words of "socket".
var kinds = map[string]struct{ domain, kind, protocol int }{
	"tcp4": {unix.AF_INET, unix.SOCK_STREAM, 0}, "tcp6": {unix.AF_INET6, unix.SOCK_STREAM, 0},
	"mptcp4": {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, "mptcp6": {unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
	"udp4": {unix.AF_INET, unix.SOCK_DGRAM, 0}, "udp6": {unix.AF_INET6, unix.SOCK_DGRAM, 0},
	"unix": {unix.AF_UNIX, unix.SOCK_STREAM, 0}, "unixgram": {unix.AF_UNIX, unix.SOCK_DGRAM, 0},
}

// socket NAME KIND [nonblock] [cloexec]
func (s *stage) socket(words []string) (string, error) {
	k, ok := kinds[words[1]]
	if !ok {
		return "", fmt.Errorf("no kind %q", words[1])
	}
	if slices.Contains(words, "nonblock") {
		k.kind |= unix.SOCK_NONBLOCK
	}
	if slices.Contains(words, "cloexec") {
		k.kind |= unix.SOCK_CLOEXEC
	}
	fd, err := unix.Socket(k.domain, k.kind, k.protocol)
	s.fds[words[0]] = fd
	return "", err
}

// open NAME FILE gives a descriptor that is no socket.
func (s *stage) open(words []string) (string, error) {
	fd, err := unix.Open(words[1], unix.O_RDONLY, 0)
	s.fds[words[0]] = fd
	return "", err
}

func (s *stage) bind(words []string) (string, error) {
	sa, err := sockaddr(words[1])
	if err != nil {
		return "", err
	}
	return "", unix.Bind(s.fds[words[0]], sa)
}

func (s *stage) connect(words []string) (string, error) {
	sa, err := sockaddr(words[1])
	if err != nil {
		return "", err
	}
	return "", unix.Connect(s.fds[words[0]], sa)
}

// set NAME LEVEL OPTION VALUE: a number, or text that begins with a colon.
func (s *stage) set(words []string) (string, error) {
	fd, level, option := s.fds[words[0]], number(words[1]), number(words[2])
	if text, ok := strings.CutPrefix(words[3], ":"); ok {
		return "", unix.SetsockoptString(fd, level, option, text)
	}
	return "", unix.SetsockoptInt(fd, level, option, number(words[3]))
}

// get NAME LEVEL OPTION is an int.
func (s *stage) get(words []string) (string, error) {
	n, err := unix.GetsockoptInt(s.fds[words[0]], number(words[1]), number(words[2]))
	return strconv.Itoa(n), err
}

// name NAME is getsockname.
func (s *stage) name(words []string) (string, error) {
	sa, err := unix.Getsockname(s.fds[words[0]])
	return text(sa), err
}

// flags NAME tells which of the words nonblock, cloexec and listening are true.
func (s *stage) flags(words []string) (string, error) {
	fd := s.fds[words[0]]
	status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return "", err
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		return "", err
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	out := []string{"flags:"}
	for _, f := range []struct {
		name string
		is   bool
	}{{"nonblock", status&unix.O_NONBLOCK != 0}, {"cloexec", own&unix.FD_CLOEXEC != 0}, {"listening", listening != 0}} {
		if f.is {
			out = append(out, f.name)
		}
	}
	return strings.Join(out, " "), err
}

// serve NAME TEXT answers every connection, and every datagram, with the text.
func (s *stage) serve(words []string) (string, error) {
	fd := s.fds[words[0]]
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", err
	}
	answer := acceptOne
	if kind == unix.SOCK_DGRAM {
		answer = echoOne
	}
	go func() {
		for answer(fd, []byte(words[1])) {
		}
	}()
	return "", nil
}

// ready waits until there is something to read, on a copy of the descriptor if there may be a need to outlive it.
func ready(fd int) bool {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != unix.EINTR {
			return err == nil && p[0].Revents&(unix.POLLIN|unix.POLLHUP) == unix.POLLIN
		}
	}
}

func acceptOne(fd int, text []byte) bool {
	if !ready(fd) {
		return false
	}
	c, _, err := unix.Accept(fd)
	if err != nil {
		return err == unix.EAGAIN || err == unix.ECONNABORTED || err == unix.EINTR
	}
	go func() {
		defer unix.Close(c)
		if ready(c) {
			if n, _ := unix.Read(c, make([]byte, 16)); n > 0 {
				_, _ = unix.Write(c, text)
			}
		}
	}()
	return true
}

func echoOne(fd int, text []byte) bool {
	if !ready(fd) {
		return false
	}
	_, from, err := unix.Recvfrom(fd, make([]byte, 64), unix.MSG_DONTWAIT)
	if err == nil {
		err = unix.Sendto(fd, text, 0, from)
	}
	return err == nil || err == unix.EAGAIN
}
