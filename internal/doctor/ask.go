package doctor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// Kind says what happened to a request that was lost.
type Kind string

// The kinds. They come from the error number of the call that failed, not from its message.
const (
	Refused Kind = "refused" // connect: nobody listens
	Reset   Kind = "reset"   // the app or its kernel threw the connection away
	EOF     Kind = "eof"     // closed before the whole answer had come
	Timeout Kind = "timeout" // no whole answer in time
	Wrong   Kind = "wrong"   // an answer that is no HTTP, or of another class of status than before the load
	Local   Kind = "local"   // trouble on this side, such as no free port
)

// wrong is an answer that is not the app's usual one.
type wrong struct{ text string }

func (w wrong) Error() string { return w.text }

// kindOf tells the kind of an error of connect, read or write.
func kindOf(err error) Kind {
	var timeout net.Error
	switch {
	case errors.As(err, new(wrong)):
		return Wrong
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return Reset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return EOF
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS):
		return Local
	}
	return Wrong
}

// line is one connection of a client.
type line struct {
	conn   net.Conn
	reader *bufio.Reader
	opened time.Time // when connect was called: from then on the kernel may have chosen the generation
	asked  int
}

func dial(o *Options, deadline time.Time) (*line, error) {
	opened := time.Now()
	d := net.Dialer{Deadline: deadline}
	conn, err := d.Dial("tcp", o.Address)
	if err != nil {
		return nil, err
	}
	return &line{conn: conn, reader: bufio.NewReader(conn), opened: opened}, nil
}

// hungUp tells whether the app has closed the connection already. It takes nothing that was sent on it.
func (l *line) hungUp() bool {
	raw, err := l.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n == 0 && err == nil || errors.Is(err, syscall.ECONNRESET)
	})
	return gone || err != nil
}

// answer is what came back.
type answer struct {
	status int
	begun  bool // at least a byte came
	last   bool // the app said that it closes the connection
}

// ask sends one request and reads its whole answer.
func (l *line) ask(request []byte) (a answer, err error) {
	l.asked++
	if _, err := l.conn.Write(request); err != nil {
		return a, err
	}
	if _, err := l.reader.Peek(1); err != nil {
		return a, err
	}
	a.begun = true
	r, err := http.ReadResponse(l.reader, nil)
	if err != nil {
		return a, err
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return a, err
	}
	a.status, a.last = r.StatusCode, r.Close
	return a, nil
}

// request is the bytes that a client sends; last says that it wants no other answer on the connection.
func request(o *Options, last bool) []byte {
	var b strings.Builder
	method := "GET"
	if o.Post > 0 {
		method = "POST"
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: entrypoint-doctor\r\n", method, o.Path, o.Host)
	if o.Post > 0 {
		fmt.Fprintf(&b, "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", o.Post)
	}
	if last {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n" + strings.Repeat("x", o.Post))
	return []byte(b.String())
}
