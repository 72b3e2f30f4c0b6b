package handoff

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Errors that callers may test for.
var (
	// ErrNotSteerable says that it cannot be made certain which generation answers; the error's text has the remedy.
	ErrNotSteerable = errors.New("cannot choose the generation that answers")
	// ErrNotHeld says that the address is none that the Set holds.
	ErrNotHeld = errors.New("not a held address")
	// ErrNoStream says that the Set holds no socket that accepts connections.
	ErrNoStream = errors.New("no stream socket is held")
)

// Config says how a Set holds its addresses.
type Config struct {
	// Steer gives each generation slots of its own where the kernel can; false: one shared socket for each address.
	Steer bool
	// Shared promises that generations never overlap (one ends before the next is started): one socket for all of them,
	// and whoever accepts is the candidate.
	Shared bool
	// Learn lets leases answer for programs that bind by themselves (Lease.Handle).
	Learn bool
	// Adopt lists sockets that we were started with (Adoptable). The Set owns them from Open on.
	Adopt []Adopted
	// Logf gets what no call can return; nil drops it. It must not call the Set.
	Logf func(format string, args ...any)
	// Learned is told of each address that is held from now on because a program binds it, with the number of its
	// generation. It must not call the Set. nil: nobody is told.
	Learned func(gen int, s SocketStatus)
}

// Set holds addresses. Make one with Open. All methods are safe for concurrent use.
type Set struct {
	cfg    Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // relays and the path watch

	mu        sync.Mutex // guards everything below and all of held and slot
	held      []*held
	leases    map[Seat]*Lease
	colored   bool // colours can be read here
	lastColor uint8
	closed    bool
	watch     *os.File // inotify, nil without renamed paths
	watchFD   int      // its descriptor, which os.File would make blocking if asked for it
	relaying  chan struct{}
	routing   chan struct{} // places among the pairs for what is relayed

	active      int           // the generation that was steered to last
	lead        []Seat        // who has the traffic, less a candidate's share
	split       *splitting    // nil: no candidate has a share
	steered     int           // how many different ones were, in their order
	growth      chan struct{} // closed and made anew when a generation gets a slot by itself
	natives     []Native
	colorsTried bool

	unclaimedAtLeast, unclaimedAtMost time.Duration // the constants, but in tests
	quiesce                           func()        // the function of that name, but in tests
}

// Open opens all addresses and listens on them at once; adopted sockets that are no configured address follow them. It
// must be called while we still have the privileges that ports, owners and GroupUID need; every Lease opens more
// slots, so those privileges must last. On error everything is closed, adopted sockets too.
func Open(addrs []Address, c Config) (*Set, error) {
	s := &Set{cfg: c, leases: map[Seat]*Lease{}, relaying: make(chan struct{}, maxRelayed), routing: make(chan struct{}, maxRouted), growth: make(chan struct{}),
		unclaimedAtLeast: unclaimedAtLeast, unclaimedAtMost: unclaimedAtMost, quiesce: quiesce}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.colored = c.Steer && !c.Shared && slices.ContainsFunc(addrs, func(a Address) bool { return a.inet() && a.stream() }) && colorsWork()
	adopted := examineAll(c.Adopt)
	var faults []error
	for _, a := range addrs {
		h, err := s.openAddress(a, &adopted)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		s.held = append(s.held, h)
	}
	s.held = append(s.held, adopted...)
	if err := errors.Join(faults...); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.watchPaths(); err != nil {
		s.logf("unix paths are not watched: %v", err)
	}
	return s, nil
}

// openAddress holds one address: the adopted socket that is it, or a new one.
func (s *Set) openAddress(a Address, adopted *[]*held) (*held, error) {
	if a.Raw == "" {
		a.Raw = (&held{addr: a, at: place{port: a.Port}}).String()
	}
	if h := takeAdopted(&a, adopted); h != nil {
		return h, nil
	}
	h := &held{addr: a, mode: modeSteered, grouped: s.cfg.Learn}
	if !a.inet() {
		h.mode = modeRenamed
	}
	switch {
	case s.cfg.Shared:
		h.share("one socket serves all generations, as asked for")
	case !s.cfg.Steer:
		h.share("steering is switched off")
	case a.abstract():
		h.share("an abstract name cannot be renamed")
	case !a.inet() && hiddenName(a.Path) == "":
		h.share("the directory's name is too long for a second name beside the path")
	}
	var err error
	if a.inet() {
		err = s.openInet(h)
	} else {
		err = s.openUnix(h)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", h.addr.Raw, err)
	}
	return h, nil
}

func (h *held) share(why string) { h.mode, h.why = modeShared, why }

// openInet opens the first slot of an internet address, at the best place that there is.
func (s *Set) openInet(h *held) error {
	places, err := candidates(&h.addr)
	if err != nil {
		return err
	}
	for i, p := range places {
		h.at = p
		err = s.openFirst(h)
		fallBack := errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
		if err == nil || !fallBack || i == len(places)-1 {
			break
		}
	}
	return err
}

func (s *Set) openFirst(h *held) error {
	if err := vacant(&h.addr, h.at); err != nil {
		return err
	}
	if !h.addr.stream() && h.at.port == 0 {
		port, err := udpPort(&h.addr, h.at)
		if err != nil {
			return err
		}
		h.at.port = port
	}
	if h.mode == modeSteered {
		err := s.openGroup(h)
		if err == nil || h.mode == modeSteered {
			return err
		}
	}
	return h.openShared()
}

// openGroup opens the first member and attaches the program. If the kernel refuses that, the address becomes shared.
func (s *Set) openGroup(h *held) error {
	sl, err := s.joinGroup(h, s.freeColor(h))
	if err != nil {
		if errors.Is(err, unix.ENOPROTOOPT) {
			h.share("no SO_REUSEPORT here")
		}
		return err
	}
	port, err := portOf(sl.fd)
	if err == nil {
		h.at.port = port
		if err = h.program(aim{current: sl}); err != nil {
			h.share(err.Error())
		}
	}
	if err != nil {
		h.order.leave(sl)
		_ = unix.Close(sl.fd)
		return err
	}
	sl.inode, sl.phase, sl.served = inodeOf(sl.fd), idle, true
	h.slots, h.current = []*slot{sl}, sl
	return nil
}

// openShared opens the one socket of a shared internet address.
func (h *held) openShared() error {
	fd, err := openSocket(&h.addr, h.at, h.grouped, 0, h.extra...)
	if err != nil {
		return err
	}
	if h.at.port, err = portOf(fd); err != nil {
		_ = unix.Close(fd)
		return err
	}
	h.adoptSlot(fd)
	return nil
}

// adoptSlot makes fd the one slot of a shared address.
func (h *held) adoptSlot(fd int) {
	h.current = &slot{fd: fd, inode: inodeOf(fd), phase: idle, served: true}
	h.slots = []*slot{h.current}
}

// colorsWork reads the colour of a listener of our own back through sock_diag.
func colorsWork() bool {
	const want = 5
	p := place{family: unix.AF_INET, ip: loopback4}
	fd, err := openSocket(&Address{Scheme: "tcp"}, p, false, want)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	port, err := portOf(fd)
	if err != nil {
		return false
	}
	seen, inode := false, inodeOf(fd)
	err = dumpTCP(unix.AF_INET, port, 1<<tcpListen, func(c *tcpConn) {
		seen = seen || uint64(c.inode) == inode && c.colored && c.color == want
	})
	return err == nil && seen
}

func (s *Set) logf(format string, args ...any) {
	if s.cfg.Logf != nil {
		s.cfg.Logf(format, args...)
	}
}

// Close closes all sockets, ends what is still relayed, and unlinks the unix paths that are ours. Leases are void then.
func (s *Set) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.cancel()
	var errs []error
	if s.watch != nil {
		errs = append(errs, s.watch.Close())
	}
	s.mu.Unlock()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		if h.expiry != nil {
			h.expiry.Stop()
		}
		errs = append(errs, h.closeAll())
	}
	return errors.Join(errs...)
}

func (h *held) closeAll() error {
	var errs []error
	if !h.adopted && !h.addr.inet() && !h.addr.abstract() && h.addr.Scheme != "" {
		errs = append(errs, h.unlinkPath())
	}
	for _, sl := range h.slots {
		errs = append(errs, unix.Close(sl.fd))
		if sl.hidden != "" {
			_ = unix.Unlink(sl.hidden)
		}
	}
	h.slots = nil
	return errors.Join(errs...)
}
