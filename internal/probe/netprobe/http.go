package netprobe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/hotswap-init/entrypoint/internal/probe"
)

// maxRead bounds the header and the body: a probe's answer is a few bytes, and the app may be hostile.
const maxRead = 64 << 10

// Ask makes the request over c and returns nil when the answer is a yes. It blocks for what r has Left at most, reads at
// most 64 KiB of the body, and closes c. Errors go on where a sentence begins with the URL: "answered 503", "closed the
// connection without a whole answer".
func Ask(c net.Conn, r *probe.Request) error {
	defer c.Close() // a request is answered or not; closing cannot change it
	ctx, stop := context.WithTimeout(context.Background(), r.Left)
	defer stop()
	transport, err := over(c, r)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	if r.Kind == probe.GRPC || r.Kind == probe.GRPCS {
		err = askHealth(ctx, transport, r)
	} else {
		err = askPage(ctx, transport, r)
	}
	return explain(ctx, err, r)
}

// askPage makes one request of HTTP.
func askPage(ctx context.Context, transport *http.Transport, r *probe.Request) error {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	q, err := newRequest(ctx, method, r, nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if !r.Accepts(answer.StatusCode) {
		return said("answered %d", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxRead))
	if err != nil {
		return said("answered %d but broke off: %v", answer.StatusCode, explain(ctx, err, r))
	}
	return matches(r, answer.StatusCode, body)
}

// matches looks for what the body must have in it.
func matches(r *probe.Request, status int, body []byte) error {
	if !strings.Contains(string(body), r.Body) {
		return said("answered %d without %q in its body", status, r.Body)
	}
	if r.Pattern == "" {
		return nil
	}
	re, err := regexp.Compile(r.Pattern)
	if err != nil {
		return said("cannot be asked: %v", err)
	}
	if !re.Match(body) {
		return said("answered %d with a body that does not match %q", status, r.Pattern)
	}
	return nil
}

// newRequest makes a request with the headers that r asks for. https and http are all that net/http knows.
func newRequest(ctx context.Context, method string, r *probe.Request, body io.Reader) (*http.Request, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, said("cannot be asked: it is no URL")
	}
	u.Scheme = "http"
	if r.Kind.Encrypted() {
		u.Scheme = "https"
	}
	q, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, said("cannot be asked: %v", withoutURL(err))
	}
	if u.User != nil {
		password, _ := u.User.Password()
		q.SetBasicAuth(u.User.Username(), password)
	}
	q.Header.Set("User-Agent", "entrypoint-probe")
	for _, f := range r.Header {
		if strings.EqualFold(f.Name, "User-Agent") {
			q.Header.Del("User-Agent")
		}
		q.Header.Add(f.Name, f.Value)
	}
	q.Host = r.Host
	return q, nil
}

// over is a transport that has one connection and will never have another.
func over(c net.Conn, r *probe.Request) (*http.Transport, error) {
	conns := make(chan net.Conn, 1)
	conns <- c
	t := &http.Transport{
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
		Protocols:              protocols(r.Kind),
	}
	if !r.Kind.Encrypted() {
		return t, nil
	}
	var err error
	t.TLSClientConfig, err = encryption(r)
	return t, err
}

func protocols(k probe.Kind) *http.Protocols {
	p := &http.Protocols{}
	switch k {
	case probe.HTTP:
		p.SetHTTP1(true)
	case probe.HTTPS:
		p.SetHTTP1(true)
		p.SetHTTP2(true)
	case probe.GRPCS:
		p.SetHTTP2(true)
	default:
		p.SetUnencryptedHTTP2(true)
	}
	return p
}

// encryption is whom to believe.
func encryption(r *probe.Request) (*tls.Config, error) {
	c := &tls.Config{InsecureSkipVerify: r.Insecure, ServerName: r.ServerName}
	if r.CA == "" {
		return c, nil
	}
	f, err := os.Open(r.CA)
	if err != nil {
		return nil, said("cannot be verified: %v", err)
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, 4<<20)) // a system's whole list has a quarter of a megabyte
	if err != nil {
		return nil, said("cannot be verified: %v", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, said("cannot be verified: there is no certificate in %q", r.CA)
	}
	return c, nil
}

var errUsed = errors.New("the connection is used up")

// sentence is an error that is the end of a sentence already.
type sentence struct{ text string }

func (s *sentence) Error() string { return s.text }

func said(format string, args ...any) error { return &sentence{fmt.Sprintf(format, args...)} }

func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) { // its text repeats the method and the URL, with a password
		return ue.Err
	}
	return err
}

// explain turns an error of net/http into the end of a sentence.
func explain(ctx context.Context, err error, r *probe.Request) error {
	if err == nil || errors.As(err, new(*sentence)) {
		return err
	}
	err = withoutURL(err)
	var ne net.Error
	var unverified *tls.CertificateVerificationError
	switch {
	case ctx.Err() != nil, errors.As(err, &ne) && ne.Timeout():
		return said("did not answer within %v", r.Timeout)
	case errors.As(err, &unverified):
		return said("has a certificate that cannot be verified: %v; name the authority with ca=FILE, another name with servername=NAME, or use insecure", unverified.Err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errUsed):
		return said("closed the connection without a whole answer")
	case errors.As(err, new(tls.RecordHeaderError)), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return said("does not speak TLS: %v", err)
	case strings.Contains(err.Error(), "malformed HTTP"), strings.Contains(err.Error(), "http2: "):
		return said("does not speak %s: %v", language(r.Kind), err)
	}
	return said("gave no answer: %v", err)
}

func language(k probe.Kind) string {
	if k == probe.HTTP || k == probe.HTTPS {
		return "HTTP"
	}
	return "HTTP/2"
}
