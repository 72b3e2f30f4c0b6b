package carry

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// errClosed says that nothing was written, because nobody is there to read it.
var errClosed = errors.New("the worker has closed the connection")

// way is a connection to a worker that is careful where net/http is not.
//
// Before the first byte of a request it looks whether the worker is there. A connection that waited for the next request may have been closed by its
// worker, or with it; the kernel knows that at once, and net/http a moment later. A request that is written in that moment would be lost, if its
// method may not be repeated. One of which nothing was written is sent again.
//
// After that, a worker that takes no more of a request has most likely answered already: that it is too long, for example. An error of writing
// would close the connection before the answer was read. So the rest is thrown away, and what there is to read says what has happened.
type way struct {
	net.Conn
	raw   syscall.RawConn
	fresh atomic.Bool // nothing of the request was written yet
}

func wayBack(c net.Conn) (net.Conn, error) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, &refused{errors.Join(err, c.Close())}
	}
	return &way{Conn: c, raw: raw}, nil
}

// begins makes a way know where a request begins.
func begins(i httptrace.GotConnInfo) {
	if w, ok := i.Conn.(*way); ok {
		w.fresh.Store(true)
	}
}

func traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: begins})
}

func (w *way) Write(b []byte) (int, error) {
	first := w.fresh.Swap(false)
	if first && w.closed() {
		return 0, errClosed
	}
	n, err := w.Conn.Write(b)
	if !first && (errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)) {
		return len(b), nil
	}
	return n, err
}

// closed looks whether the next that can be read is the end.
func (w *way) closed() (yes bool) {
	_ = w.raw.Control(func(fd uintptr) { // closed by ourselves: Write says so
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		yes = err == nil && n == 0 || errors.Is(err, unix.ECONNRESET)
	})
	return yes
}
