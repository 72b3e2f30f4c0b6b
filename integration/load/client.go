package load

import (
	"bufio"
	"context"
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

// Kind says how a request failed. Kinds are exact: they come from the error number
// of the system call that failed, not from a message.
type Kind string

const (
	Refused Kind = "refused" // connect: nobody listens
	Reset   Kind = "reset"   // the peer or its kernel threw the connection away
	EOF     Kind = "eof"     // closed before the whole answer had come
	Timeout Kind = "timeout" // no whole answer in time
	Wrong   Kind = "wrong"   // an answer that is none, or not from the app
	Status  Kind = "status"  // an HTTP status other than 200
	Local   Kind = "local"   // the load generator's own trouble, such as no free port
)

// failure is a request that failed.
type failure struct {
	kind Kind
	err  error
}

func (f *failure) Error() string { return fmt.Sprintf("%s: %v", f.kind, f.err) }

// classify tells the kind of an error of connect, read or write.
func classify(err error) *failure {
	var f *failure
	var timeout net.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return &failure{Refused, err}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return &failure{Reset, err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &failure{EOF, err}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &failure{Timeout, err}
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.EAGAIN):
		return &failure{Local, err}
	}
	return &failure{Wrong, err}
}

// client is one closed loop.
type client struct {
	load    *Load
	options *Options
	conn    net.Conn
	reader  *bufio.Reader
}

func (c *client) fresh(ctx context.Context) {
	for c.next(ctx) {
		c.ask(Fresh, c.options.Path, false)
		c.close()
	}
}

func (c *client) slow(ctx context.Context) {
	for c.next(ctx) {
		c.ask(Slow, c.options.SlowPath, false)
		c.close()
	}
}

func (c *client) reused(ctx context.Context) {
	defer c.close()
	for c.next(ctx) {
		class := Reused
		if c.conn == nil {
			class = Fresh
		}
		if !c.ask(class, c.options.Path, true) {
			c.close()
		}
	}
}

// next paces the loop; false ends it.
func (c *client) next(ctx context.Context) bool {
	if c.load.budget.Add(-1) < 0 {
		return false
	}
	if c.options.Pace > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(c.options.Pace):
		}
	}
	return ctx.Err() == nil
}

// ask makes one request and counts it; keep says the connection can serve another.
func (c *client) ask(class Class, path string, keep bool) (again bool) {
	begin := time.Now()
	version, again, err := c.request(path, keep)
	if err != nil {
		c.load.failed(class, classify(err), begin)
		return false
	}
	c.load.ok(class, version, begin, time.Since(begin))
	return again
}

func (c *client) request(path string, keep bool) (version string, again bool, err error) {
	deadline := time.Now().Add(c.options.Timeout)
	if err := c.connect(deadline); err != nil {
		return "", false, err
	}
	c.conn.SetDeadline(deadline)
	if c.options.Talk != nil {
		return c.options.Talk(c.conn, c.reader, path)
	}
	if _, err := io.WriteString(c.conn, c.text(path, keep)); err != nil {
		return "", false, err
	}
	return c.answer()
}

// text is a whole request, for one write.
func (c *client) text(path string, keep bool) string {
	method, header, body := "GET", "", ""
	if n := c.options.Post; n > 0 {
		method, header, body = "POST", fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\n", n), strings.Repeat("x", n)
	}
	if !keep {
		header += "Connection: close\r\n"
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: load\r\n%s\r\n%s", method, path, header, body)
}

func (c *client) connect(deadline time.Time) error {
	if c.conn != nil {
		return nil
	}
	d := net.Dialer{Deadline: deadline}
	if from := net.ParseIP(c.options.From); from != nil {
		d.LocalAddr = &net.TCPAddr{IP: from}
	}
	conn, err := d.Dial(c.options.Network, c.options.Address)
	if err != nil {
		return err
	}
	c.conn, c.reader = conn, bufio.NewReader(conn)
	return nil
}

// answer reads one whole response.
func (c *client) answer() (version string, again bool, err error) {
	r, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return "", false, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return "", false, err
	}
	if r.StatusCode != http.StatusOK {
		return "", false, &failure{Status, fmt.Errorf("status %d", r.StatusCode)}
	}
	version, ok := c.options.Version(string(body))
	if !ok {
		return "", false, &failure{Wrong, fmt.Errorf("body %.80q", body)}
	}
	return version, !r.Close, nil
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn, c.reader = nil, nil
}
