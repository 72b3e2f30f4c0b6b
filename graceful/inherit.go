package graceful

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

const (
	firstInherited = 3    // SD_LISTEN_FDS_START
	maxInherited   = 1024 // bounds what an environment can make us touch
)

// described is one descriptor as the environment describes it.
type described struct {
	fd   int
	name string // of LISTEN_FDNAMES; "" if it has none
}

// parseInherited reads LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES. Nothing if they are meant for another process.
func parseInherited(getenv func(string) string, pid int) ([]described, error) {
	count := getenv("LISTEN_FDS")
	if count == "" || getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxInherited {
		return nil, fmt.Errorf("LISTEN_FDS %q is no number from 0 to %d", count, maxInherited)
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	out := make([]described, n)
	for i := range out {
		out[i].fd = firstInherited + i
		if i < len(names) {
			out[i].name = names[i]
		}
	}
	return out, nil
}

// socket is one that was inherited and that nobody has taken yet. Exactly one of listener and packet is set.
type socket struct {
	name     string
	listener net.Listener
	packet   net.PacketConn
}

// activation are the sockets that we were started with.
type activation struct {
	getenv func(string) string
	pid    int

	once sync.Once
	err  error
	mu   sync.Mutex
	left []socket
}

var inherited = &activation{getenv: os.Getenv, pid: os.Getpid()}

// open looks at the descriptors, the first time. Those that are no listening or datagram sockets stay open and are not
// touched, but for close-on-exec.
func (a *activation) open() error {
	a.once.Do(func() {
		var list []described
		if list, a.err = parseInherited(a.getenv, a.pid); a.err != nil {
			return
		}
		for _, d := range list {
			if s, ok := adopt(d); ok {
				a.left = append(a.left, s)
			}
		}
	})
	return a.err
}

// take removes the first socket that fits and returns it.
func (a *activation) take(fits func(socket) bool) (socket, bool, error) {
	if err := a.open(); err != nil {
		return socket{}, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, s := range a.left {
		if fits(s) {
			a.left = append(a.left[:i:i], a.left[i+1:]...)
			return s, true, nil
		}
	}
	return socket{}, false, nil
}
