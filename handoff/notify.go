package handoff

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Notify receives what one generation says about itself: over a private abstract datagram socket (sd_notify; no
// writable path is needed), over an inherited datagram pair (crank), and over an inherited stream or a socket file
// (einhorn). Because every generation has its own, a message of a draining generation cannot be taken for one of its
// successor. Make one with NewNotify.
type Notify struct {
	belongs func(pid int) bool
	deliver func(Message)
	address string

	datagrams *net.UnixConn // NOTIFY_SOCKET
	crank     *net.UnixConn // our end; crankFD is the program's
	crankFD   int
	einhorn   *net.UnixConn // our end; einhornFD is the program's
	einhornFD int

	acks        *net.UnixListener // EINHORN_SOCK_PATH, nil where nothing is writable
	einhornPath string

	mu     sync.Mutex
	uids   map[uint32]bool
	closed bool
}

const (
	// maxAcks bounds einhorn clients at a time.
	maxAcks = 16
	// ackTimeout bounds one einhorn client on the socket file: it connects, writes a line and leaves.
	ackTimeout = 5 * time.Second
	// maxLine bounds an einhorn line.
	maxLine = 4096
)

// NewNotify opens the sockets of one generation, for those of the protocols that have any. belongs decides whether a process is one of the generation's; deliver
// gets each message, one at a time, from Run's goroutine: it may block, and then senders wait. Both must be safe to
// call until Run has returned.
func NewNotify(gen int, p Protocols, belongs func(pid int) bool, deliver func(Message)) (*Notify, error) {
	n := &Notify{belongs: belongs, deliver: deliver, crankFD: -1, einhornFD: -1, uids: map[uint32]bool{0: true, uint32(os.Geteuid()): true}}
	err := n.open(gen, p)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open the notify socket of generation %d: %w", gen, err), n.Close())
	}
	return n, nil
}

func (n *Notify) open(gen int, p Protocols) error {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	tag := hex.EncodeToString(random[:])
	var st unix.Stat_t
	_ = unix.Stat("/proc/self/ns/mnt", &st) // 0 without /proc: the random part is what makes the name private
	n.address = fmt.Sprintf("@entrypoint/notify/%d/%d/%d/%s", st.Ino, os.Getpid(), gen, tag)
	var err error
	if n.datagrams, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.address, Net: "unixgram"}); err != nil {
		return err
	}
	withFD(n.datagrams, func(fd int) { err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err != nil {
		return err
	}
	if p&Crank != 0 {
		if n.crank, n.crankFD, err = connectedPair(unix.SOCK_DGRAM); err != nil {
			return err
		}
	}
	if p&Einhorn != 0 {
		if n.einhorn, n.einhornFD, err = connectedPair(unix.SOCK_STREAM); err != nil {
			return err
		}
		n.openAckSocket(tag)
	}
	return nil
}

// connectedPair makes a socket pair: our end under the runtime's poller, the program's a plain descriptor, blocking and close-on-exec.
// The two are different open file descriptions, so the program's mode is its own affair.
func connectedPair(typ int) (*net.UnixConn, int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, err
	}
	f := os.NewFile(uintptr(pair[0]), "notify")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		_ = unix.Close(pair[1])
		return nil, -1, err
	}
	return c.(*net.UnixConn), pair[1], nil
}

// openAckSocket makes the file that EINHORN_SOCK_PATH names, where some directory is writable. Any user may connect: the
// sender is checked.
func (n *Notify) openAckSocket(tag string) {
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run", "/tmp", "/dev/shm"} {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, "einhorn-"+tag+".sock")
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			continue
		}
		if os.Chmod(path, 0o666) == nil {
			n.acks, n.einhornPath = ln, path
			return
		}
		_ = ln.Close()
	}
}

// Address is the value for NOTIFY_SOCKET.
func (n *Notify) Address() string { return n.address }

// AllowUID names the uid of the app. A message of a process that has ended before we could look at it is taken
// from that uid, from ours and from root.
func (n *Notify) AllowUID(uid uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.uids[uid] = true
}

// event is a message to deliver, or the descriptor of a barrier to close once everything before it was delivered.
type event struct {
	message Message
	barrier int
}

// Run delivers messages until ctx ends or Close is called, then closes. It returns nil.
func (n *Notify) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = n.Close() })
	defer stop()
	events := make(chan event)
	var readers sync.WaitGroup
	start := func(f func(chan<- event)) {
		readers.Add(1)
		go func() { defer readers.Done(); f(events) }()
	}
	start(n.readDatagrams)
	if n.crank != nil {
		start(n.readCrank)
	}
	if n.einhorn != nil {
		start(func(out chan<- event) { n.readEinhorn(n.einhorn, 0, out) })
	}
	if n.acks != nil {
		start(n.acceptAcks)
	}
	go func() { readers.Wait(); close(events) }()
	for e := range events {
		if e.barrier >= 0 {
			_ = unix.Close(e.barrier)
			continue
		}
		n.deliver(e.message)
	}
	cancel()
	return n.Close()
}

// Close closes all sockets, which ends Run. The program's descriptors are closed too, so it must have been started or
// have failed by now. Closing twice does nothing.
func (n *Notify) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	var errs []error
	for _, c := range []*net.UnixConn{n.datagrams, n.crank, n.einhorn} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	if n.acks != nil {
		errs = append(errs, n.acks.Close())
	}
	for _, fd := range []int{n.crankFD, n.einhornFD} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// accepts checks the sender: a process of the generation, or one that is gone already and had the right uid.
func (n *Notify) accepts(cred *unix.Ucred) bool {
	if cred == nil || cred.Pid <= 0 {
		return false
	}
	if n.belongs(int(cred.Pid)) {
		return true
	}
	if !errors.Is(unix.Kill(int(cred.Pid), 0), unix.ESRCH) {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.uids[cred.Uid]
}

func (n *Notify) readDatagrams(out chan<- event) {
	buf, oob := make([]byte, maxDatagram), make([]byte, 2048)
	for {
		size, oobSize, flags, _, err := n.datagrams.ReadMsgUnix(buf, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		if flags&unix.MSG_TRUNC != 0 { // half an assignment is none
			size = bytes.LastIndexByte(buf[:size], '\n') + 1
		}
		cred, fds := ancillary(oob[:oobSize])
		m, barrier := parseNotify(buf[:size])
		ok := n.accepts(cred)
		if ok && barrier && len(fds) == 1 {
			out <- event{barrier: fds[0]}
			continue
		}
		for _, fd := range fds { // we keep no descriptors for programs
			_ = unix.Close(fd)
		}
		if ok && len(m.Raw) > 0 && !barrier {
			m.PID = int(cred.Pid)
			out <- event{message: m, barrier: -1}
		}
	}
}

// ancillary takes credentials and descriptors out of the control data of one datagram.
func ancillary(oob []byte) (cred *unix.Ucred, fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, nil
	}
	for i := range msgs {
		switch msgs[i].Header.Type {
		case unix.SCM_CREDENTIALS:
			cred, _ = unix.ParseUnixCredentials(&msgs[i])
		case unix.SCM_RIGHTS:
			list, _ := unix.ParseUnixRights(&msgs[i])
			fds = append(fds, list...)
		}
	}
	return cred, fds
}

// readCrank reads the inherited pair: having its end is the proof of belonging.
func (n *Notify) readCrank(out chan<- event) {
	buf := make([]byte, maxDatagram)
	for {
		size, err := n.crank.Read(buf)
		if err != nil {
			return
		}
		if size > 0 {
			out <- event{message: parseCrank(buf[:size]), barrier: -1}
		}
	}
}

// readEinhorn reads lines until the end. pid, if not 0, is the process at the other end as the kernel knows it.
func (n *Notify) readEinhorn(c *net.UnixConn, pid int, out chan<- event) {
	lines := bufio.NewScanner(c)
	lines.Buffer(make([]byte, 0, 512), maxLine)
	for lines.Scan() {
		m, ok := parseEinhorn(lines.Bytes())
		if !ok {
			continue
		}
		if pid != 0 {
			m.PID = pid
		}
		out <- event{message: m, barrier: -1}
	}
}

// acceptAcks serves the socket file.
func (n *Notify) acceptAcks(out chan<- event) {
	var clients sync.WaitGroup
	defer clients.Wait()
	free := make(chan struct{}, maxAcks)
	for {
		c, err := n.acks.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(acceptLookMax) // out of descriptors: do not spin
			continue
		}
		free <- struct{}{}
		clients.Add(1)
		go func() {
			defer func() { _ = c.Close(); <-free; clients.Done() }()
			_ = c.SetDeadline(time.Now().Add(ackTimeout))
			if cred := peerOf(c); n.accepts(cred) {
				n.readEinhorn(c, int(cred.Pid), out)
			}
		}()
	}
}

// peerOf is who connected.
func peerOf(c *net.UnixConn) (cred *unix.Ucred) {
	withFD(c, func(fd int) { cred, _ = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred
}
