// Package httpget makes one HTTP request over a connection that somebody else made.
//
// It is the part of the probes that parses what comes from the network, so it runs in a helper process of its own, with
// the app's or an unprivileged user: PID 1 dials the candidate, starts the helper with the connection as a descriptor,
// and reads one sentence and an exit status. It is a package of its own so that nothing else imports net/http.
//
// One GET, HTTP/1.1, "Connection: close", no redirect followed, no proxy, no compression. Header and body are read up to
// 64 KiB each. A status from 200 to 399 is a yes. No TLS and no HTTP/2 in this version.
package httpget

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// maxRead bounds the header and the body: a probe's answer is a few bytes, and the app may be hostile.
const maxRead = 64 << 10

// Get asks for u over c and returns nil when the status is from 200 to 399. The Host header and the credentials are
// those of u. It blocks for at most timeout, reads at most 64 KiB of the body, and closes c. Errors go on where a
// sentence begins with the URL: "answered 503", "closed the connection without an answer".
func Get(c net.Conn, u *url.URL, timeout time.Duration) error {
	defer c.Close() // a request is answered or not; closing cannot change it
	ctx, stop := context.WithTimeout(context.Background(), timeout)
	defer stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("cannot be asked: %w", err)
	}
	r.Header.Set("User-Agent", "entrypoint-probe")
	transport := over(c, timeout)
	defer transport.CloseIdleConnections()
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(r)
	if err != nil {
		return explain(ctx, err, timeout)
	}
	defer answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("answered %d", answer.StatusCode)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, maxRead)); err != nil {
		return fmt.Errorf("answered %d but broke off: %w", answer.StatusCode, explain(ctx, err, timeout))
	}
	return nil
}

// over is a transport that has one connection and will never have another.
func over(c net.Conn, timeout time.Duration) *http.Transport {
	conns := make(chan net.Conn, 1)
	conns <- c
	return &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case c := <-conns:
				return c, nil
			default:
				return nil, errUsed
			}
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxRead,
		ResponseHeaderTimeout:  timeout,
	}
}

var errUsed = errors.New("the connection is used up")

// explain turns an error of net/http into the end of a sentence.
func explain(ctx context.Context, err error, timeout time.Duration) error {
	var ue *url.Error
	if errors.As(err, &ue) { // its text repeats the method and the URL
		err = ue.Err
	}
	var ne net.Error
	switch {
	case ctx.Err() != nil, errors.As(err, &ne) && ne.Timeout():
		return fmt.Errorf("did not answer within %v", timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errUsed):
		return errors.New("closed the connection without a whole answer")
	case strings.Contains(err.Error(), "malformed HTTP"):
		return fmt.Errorf("does not speak HTTP: %w", err)
	}
	return fmt.Errorf("gave no answer: %w", err)
}

// Main is the helper process: args are the URL and a timeout as time.ParseDuration reads it, connFD is the connection,
// which Main takes over. It returns the exit status, 0 for a yes; for a no, 1, it prints the end of a sentence that
// begins with the URL on standard output. 2 is a wrong call.
func Main(args []string, connFD int) int {
	err := helper(args, connFD)
	if err == nil {
		return 0
	}
	if _, e := fmt.Println(oneLine(err.Error())); e != nil {
		return 2
	}
	var wrong *wrongCall
	if errors.As(err, &wrong) {
		return 2
	}
	return 1
}

type wrongCall struct{ err error }

func (w *wrongCall) Error() string { return "cannot be asked: " + w.err.Error() }

func helper(args []string, connFD int) error {
	if len(args) != 2 {
		return &wrongCall{fmt.Errorf("internal error: %d arguments instead of a URL and a timeout", len(args))}
	}
	u, err := url.Parse(args[0])
	if err != nil {
		return &wrongCall{errors.New("internal error: not a URL")}
	}
	timeout, err := time.ParseDuration(args[1])
	if err != nil {
		return &wrongCall{fmt.Errorf("internal error: %w", err)}
	}
	f := os.NewFile(uintptr(connFD), "connection")
	if f == nil {
		return &wrongCall{fmt.Errorf("internal error: no descriptor %d", connFD)}
	}
	c, err := net.FileConn(f) // a copy
	f.Close()
	if err != nil {
		return &wrongCall{err}
	}
	return Get(c, u, timeout)
}

// oneLine keeps what an app sent from looking like more than one answer, and bounds it.
func oneLine(text string) string {
	const enough = 300
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return text[:min(len(text), enough)]
}
