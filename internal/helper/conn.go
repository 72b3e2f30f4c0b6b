package helper

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// sendTimeout is how long the other side may leave a message unread: it does nothing else than to read them.
	sendTimeout = 5 * time.Second
	// maxFromHelper bounds a message to PID 1, which keeps its memory small and does not trust what talks to the network.
	maxFromHelper = 64 << 10
	// maxFromInit bounds a message to a helper.
	maxFromInit = 16 << 20
)

// ready is the message that a run serves. It is no message of the role: Receive takes it out.
type ready struct {
	Ready bool `json:"helper_ready"`
}

// readyLine is ready as it is sent; a test compares the two. It is written out, because what is made at start is waited for by the app.
const readyLine = `{"helper_ready":true}`

// Conn carries messages between PID 1 and one run of a helper, one line of JSON each. Send may be called from several goroutines at
// once, Receive from one.
type Conn struct {
	c   net.Conn
	in  *bufio.Reader
	max int

	mu     sync.Mutex // of writing
	served func()     // PID 1's side: the run has said that it serves
}

func newConn(c net.Conn, most int) *Conn {
	return &Conn{c: c, in: bufio.NewReaderSize(c, 4<<10), max: most}
}

// Send sends a message. It blocks while the other side has not read the ones before, at most for five seconds. After an error the Conn
// is of no more use.
func (c *Conn) Send(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("internal error: cannot encode a message: %w", err)
	}
	return c.write(line)
}

func (c *Conn) write(line []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err := c.c.Write(append(line, '\n'))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("a message was not read for %s", sendTimeout)
	}
	return err
}

// Ready tells PID 1 that this run serves.
func (c *Conn) Ready() error { return c.write([]byte(readyLine)) }

// Receive waits for the next message and decodes it. io.EOF means that the other side is gone, or wants the end. A message that is too
// long (64 KiB to PID 1, 16 MiB to a helper) or cannot be decoded is an error after which the Conn is of no more use.
func (c *Conn) Receive(v any) error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		if c.served != nil && string(line) == readyLine {
			c.served()
			continue
		}
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("a message cannot be read: %w", err)
		}
		return nil
	}
}

// line reads one line, without its end.
func (c *Conn) line() ([]byte, error) {
	var line []byte
	for {
		part, err := c.in.ReadSlice('\n')
		if len(line)+len(part) > c.max {
			return nil, fmt.Errorf("a message is longer than %d bytes", c.max)
		}
		if err == nil && line == nil {
			return part[:len(part)-1], nil
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// Close closes this side.
func (c *Conn) Close() error { return c.c.Close() }

// connFD is where a helper finds its Conn, and firstFile the first of Options.Files.
const (
	connFD    = 3
	firstFile = 4
)

// Parent gives a helper its way to PID 1, and takes what capabilities it may still have from it: those of a root that may not
// become somebody else. It is called once, before anything else.
func Parent() (*Conn, error) {
	dropCapabilities()
	f := os.NewFile(connFD, "init")
	if f == nil {
		return nil, errors.New("internal error: a helper without a way to the init")
	}
	c, err := net.FileConn(f) // a copy
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("internal error: a helper without a way to the init: %w", err)
	}
	return newConn(c, maxFromInit), nil
}

// dropCapabilities empties the capability sets of all threads. An error is of no interest: then there was nothing to give up that the
// kernel lets go. In a binary with cgo, as the race detector's are, nothing happens.
func dropCapabilities() {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
}

// File gives a helper its descriptor number i of Options.Files, as a copy that the caller owns and closes once.
func File(i int) *os.File { return os.NewFile(uintptr(firstFile+i), fmt.Sprintf("file %d", i)) }
