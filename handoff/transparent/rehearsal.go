package transparent

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// rehearsalPort is what the rehearsing program binds. It never gets it: nothing else on the machine is touched.
const rehearsalPort = 9

// Rehearsal is the Handler of a process that runs RehearsalMain: it shows whether the whole path works here, for a program
// of that identity. Make one with NewRehearsal, close it at the end.
type Rehearsal struct {
	mu      sync.Mutex
	bound   int // a bound socket
	ready   int // a listening one
	step    int // how many calls were answered as they should be
	blinded error
}

// NewRehearsal opens two sockets at ephemeral ports of the loopback address.
func NewRehearsal() (*Rehearsal, error) {
	r := &Rehearsal{bound: -1, ready: -1}
	var err error
	if r.bound, err = loopbackSocket(); err == nil {
		if r.ready, err = loopbackSocket(); err == nil {
			err = unix.Listen(r.ready, 1)
		}
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("cannot rehearse a bind: %w", err)
	}
	return r, nil
}

func loopbackSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Handle puts the one socket under the bind and the other one under the listen.
func (r *Rehearsal) Handle(c *Call) Answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case c.Blind != nil:
		r.blinded = c.Blind
	case c.Op == Bind && c.TCP() && c.Addr.Port() == rehearsalPort:
		r.step = 1
		return Answer{Replace: true, FD: r.bound}
	case c.Op == Listen && r.step == 1:
		r.step = 2
		return Answer{Replace: true, FD: r.ready}
	}
	return Answer{}
}

// Unlinks is false.
func (r *Rehearsal) Unlinks() bool { return false }

// Verdict is nil if everything happened as it should; code is the exit code of RehearsalMain.
func (r *Rehearsal) Verdict(code int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.blinded != nil:
		return fmt.Errorf("cannot look into a process of the app's user: %w; a sandbox (Yama, AppArmor) forbids it", r.blinded)
	case code != 0 || r.step != 2:
		return fmt.Errorf("a rehearsed bind was not given our socket (step %d of 2, exit code %d)", r.step, code)
	}
	return nil
}

// Close closes the sockets.
func (r *Rehearsal) Close() {
	for _, fd := range []int{r.bound, r.ready} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

var errNotReplaced = errors.New("not replaced")

// RehearsalMain is the program: it binds, listens, and exits with 0 if it got sockets that it did not ask for.
func RehearsalMain() int {
	if rehearse() != nil {
		return 1
	}
	return 0
}

func rehearse() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: rehearsalPort, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := replaced(fd, 0); err != nil {
		return err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return err
	}
	return replaced(fd, 1)
}

func replaced(fd, listening int) error {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if in4, ok := sa.(*unix.SockaddrInet4); err != nil || !ok || in4.Port == rehearsalPort || n != listening {
		return errNotReplaced
	}
	return nil
}

// Probe tells whether the filter can be installed here, and whether that sets no_new_privs, without starting anything: it
// installs one on a thread that ends at once.
func Probe() (noNewPrivs bool, err error) {
	done := make(chan struct{})
	onFreshThread(func() {
		defer close(done)
		var f *Filter
		if f, err = Install(); err == nil {
			noNewPrivs = f.NoNewPrivs
			_ = f.Close()
		}
	})
	<-done
	return noNewPrivs, err
}
