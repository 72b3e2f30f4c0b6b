package carry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hotswap-init/entrypoint/internal/proxy"
)

const (
	// headerTimeout bounds how long a client may take to send the header of a request: nobody needs longer who means it.
	headerTimeout = 30 * time.Second
	// clientIdle is how long a kept-alive connection of a client stays open without a request: longer than the balancers in front do, which
	// then close theirs first and lose nothing.
	clientIdle = 10 * time.Minute
	// maxHeader bounds the header of a request, and maxAnswerHeader that of an answer.
	maxHeader       = 128 << 10
	maxAnswerHeader = 1 << 20
	// backendIdle is how long a connection to a worker waits for the next request. Servers close theirs after 2 s (gunicorn), 5 s (Node,
	// uvicorn) and more, and a request that meets this is lost: so we go first. A new one costs next to nothing on loopback.
	backendIdle = time.Second
	// dialTimeout bounds one attempt to reach a worker on loopback: longer means that its queue is full.
	dialTimeout = 5 * time.Second
	// continueTimeout is how long a body waits for the worker's word that it wants it, if the client asked for that.
	continueTimeout = time.Second
	// lingering is how long a proxy that is replaced goes on with idle connections, whose clients may be about to speak: the answer tells
	// them to go.
	lingering = time.Second
	// smallBody is how long a body may be that is read before a worker is asked.
	smallBody = 16 << 10
	// copyBuffer is for a body on its way.
	copyBuffer = 32 << 10
)

type contextKey int

const (
	visitorKey contextKey = iota // *visitor, of a connection
	visitKey                     // *visit, of a request
)

// web carries requests.
type web struct {
	table   *table
	setup   *proxy.Setup
	server  *http.Server
	reverse *httputil.ReverseProxy
	leaving atomic.Bool // every answer tells its client to go
	open    atomic.Int64
}

// visit is one request: where it is served.
type visit struct {
	*visitor
	seat    *seat
	small   []byte  // the whole body; nil: there is none, or it is not small
	body    *replay // what is not; nil: there is none
	streams bool    // the body of HTTP/1 is read while the answer is written
	http1   bool    // is what the client speaks
}

func newWeb(t *table, s *proxy.Setup) *web {
	p := &web{table: t, setup: s}
	p.reverse = &httputil.ReverseProxy{
		Rewrite: p.rewrite, Transport: p, FlushInterval: -1, BufferPool: buffers{}, ModifyResponse: p.answered,
		ErrorHandler: p.fail, ErrorLog: silent,
	}
	idle := s.IdleTimeout
	if idle == 0 {
		idle = clientIdle
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	p.server = &http.Server{
		Handler: p, Protocols: protocols, ReadHeaderTimeout: headerTimeout, IdleTimeout: idle, MaxHeaderBytes: maxHeader, ErrorLog: silent,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, visitorKey, visitorOf(c))
		},
		ConnState: p.count,
		// OPTIONS * is the app's to answer.
		DisableGeneralOptionsHandler: true,
	}
	return p
}

// silent drops what net/http would log: strangers could fill a log with it.
var silent = log.New(io.Discard, "", 0)

// count keeps the number of connections.
func (p *web) count(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		p.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		p.open.Add(-1)
	}
}

// ServeHTTP serves one request, however long that takes.
func (p *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		// We lead to one app and nowhere else.
		w.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE")
		page(w, http.StatusMethodNotAllowed, "CONNECT is not allowed here")
		return
	}
	v := &visit{visitor: r.Context().Value(visitorKey).(*visitor), http1: r.ProtoMajor == 1}
	defer v.leave()
	if err := v.read(w, r); err != nil {
		w.Header().Set("Connection", "close")
		page(w, http.StatusBadRequest, "the body of the request broke off")
		return
	}
	p.reverse.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitKey, v)))
	if v.streams && !v.body.atEnd() {
		v.leave()
		hearOut(w, r)
	}
}

// hearOut throws away what a client still sends of its request after it has its answer, for a while. Closed at once, the connection would be reset
// under its hands, and many a client gives up then without a look at the answer.
func hearOut(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	if c.Flush() != nil || c.SetReadDeadline(time.Now().Add(farewell)) != nil {
		return // it is gone
	}
	_, _ = io.Copy(io.Discard, r.Body)
}

// read takes a small body from the client before anybody is asked, so that a request goes to its worker in one piece, and again if need be. Any other
// body is passed on as it comes: it may be one side of a talk, so the answer must not wait for its end, nor may net/http take the rest of it
// away when the answer begins, as it does by itself.
func (v *visit) read(w http.ResponseWriter, r *http.Request) error {
	if r.ProtoMajor != 1 || r.ContentLength == 0 {
		return nil
	}
	if r.ContentLength < 0 || r.ContentLength > smallBody || r.Header.Get("Expect") != "" {
		v.streams = true
		return http.NewResponseController(w).EnableFullDuplex()
	}
	v.small = make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, v.small); err != nil {
		return err
	}
	var end [1]byte
	if _, err := r.Body.Read(end[:]); !errors.Is(err, io.EOF) {
		return errors.Join(err, errors.New("no end"))
	}
	return nil
}

func (v *visit) leave() {
	if v.seat != nil {
		v.seat.leave()
		v.seat = nil
	}
}

// rewrite makes the request for a worker of the client's. The worker is chosen in RoundTrip.
func (p *web) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", placeholder
	r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came: what it means is the app's business
	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	r.SetXForwarded()
	if p.trusted(r.In) {
		for _, name := range []string{"X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded"} {
			if v, ok := r.In.Header[name]; ok {
				r.Out.Header[name] = v
			}
		}
	}
	r.Out.Trailer = r.In.Trailer // which is filled when the body has been read
	v := r.In.Context().Value(visitKey).(*visit)
	if v.small == nil {
		v.body = replayable(r.Out)
	}
}

// placeholder is the host of a request until its worker is known.
const placeholder = "backend.invalid"

// trusted tells whether the connection comes from a proxy that may speak for its clients.
func (p *web) trusted(r *http.Request) bool {
	if len(p.setup.Trust) == 0 {
		return false
	}
	v := r.Context().Value(visitorKey).(*visitor)
	return slices.ContainsFunc(p.setup.Trust, func(n netip.Prefix) bool { return n.Contains(v.addr) })
}

// refused is the error of a worker that could not be reached: nothing was sent to it.
type refused struct{ err error }

func (r *refused) Error() string { return r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

// transports are how the requests of one generation travel. Each generation has its own, so that no request is ever put on a connection to
// another one, and the connections of an old generation can be closed all at once.
func transports() (web, grpc *http.Transport) {
	h2c := &http.Protocols{}
	h2c.SetUnencryptedHTTP2(true)
	http1 := &http.Protocols{}
	http1.SetHTTP1(true)
	return newTransport(http1, wayBack), newTransport(h2c, func(c net.Conn) (net.Conn, error) { return c, nil })
}

func newTransport(p *http.Protocols, wrap func(net.Conn) (net.Conn, error)) *http.Transport {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := d.DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, &refused{err}
			}
			return wrap(c)
		},
		Protocols: p, DisableCompression: true, MaxIdleConnsPerHost: 1 << 16, IdleConnTimeout: backendIdle,
		ExpectContinueTimeout: continueTimeout, MaxResponseHeaderBytes: maxAnswerHeader,
	}
}

// RoundTrip sends a request to a worker and gives its answer. A worker that cannot be reached has got nothing: the request goes to another one,
// or waits until there is one.
func (p *web) RoundTrip(r *http.Request) (*http.Response, error) {
	v := r.Context().Value(visitKey).(*visit)
	until := time.Now().Add(p.setup.ConnectTimeout)
	for {
		seat, err := p.table.enter(r.Context(), v.visitor, until)
		if err != nil {
			return nil, err
		}
		answer, err := seat.transport(r).RoundTrip(v.at(r, seat))
		if err == nil {
			v.seat = seat
			return answer, nil
		}
		var unreached *refused
		if !errors.As(err, &unreached) || r.Context().Err() != nil {
			seat.leave()
			return nil, err
		}
		seat.failed()
	}
}

// at is the request for one worker. Its body may be read again by the next one.
func (v *visit) at(r *http.Request, s *seat) *http.Request {
	out := r.WithContext(traced(r.Context()))
	out.URL = new(url.URL)
	*out.URL = *r.URL
	out.URL.Host = s.at.String()
	switch {
	case v.small != nil:
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(v.small)), nil }
		out.Body, _ = out.GetBody()
	case v.body != nil:
		out.Body, _ = v.body.again() // it has not been read
	}
	return out
}

// transport is the way of a request: gRPC needs HTTP/2, and everybody understands HTTP/1.1.
func (s *seat) transport(r *http.Request) *http.Transport {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return s.w.grpc
	}
	return s.w.web
}

// answered sees the header of an answer.
func (p *web) answered(r *http.Response) error {
	v := r.Request.Context().Value(visitKey).(*visit)
	// An answer before the end of the body leaves the rest of it on the connection, where nothing may follow it.
	early := v.streams && !v.body.atEnd()
	if (early || p.leaving.Load()) && v.http1 && r.StatusCode != http.StatusSwitchingProtocols {
		r.Header.Set("Connection", "close")
	}
	if r.StatusCode == http.StatusSwitchingProtocols {
		v.seat.upgraded()
	}
	return nil
}

// fail answers a request that no worker has answered.
func (p *web) fail(w http.ResponseWriter, r *http.Request, err error) {
	if p.leaving.Load() && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	switch {
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client is gone
	case errors.Is(err, errNobody):
		w.Header().Set("Retry-After", "1")
		page(w, http.StatusServiceUnavailable, "the service is starting; try again in a moment")
	default:
		page(w, http.StatusBadGateway, "the service closed the connection without an answer")
	}
}

func page(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the client may be gone
}

// buffers are lent to copies of bodies.
type buffers struct{}

var bufferPool = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

func (buffers) Get() []byte  { return *bufferPool.Get().(*[]byte) }
func (buffers) Put(b []byte) { bufferPool.Put(&b) }

// serve accepts on l until it is closed.
func (p *web) serve(l net.Listener) { _ = p.server.Serve(l) }

// drain ends the service: clients are told to go with their next answer, idle connections are closed after a while, and what is in flight is
// finished, or cut when ctx ends.
func (p *web) drain(ctx context.Context) {
	p.leaving.Store(true)
	select {
	case <-time.After(lingering):
	case <-ctx.Done():
	}
	_ = p.server.Shutdown(ctx) // what is left then is cut by the end of the process
}
