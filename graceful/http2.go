package graceful

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"
)

// The keys of http.Server.TLSNextProto. The second is by which net/http and golang.org/x/net/http2 pass each other connections
// without TLS, as a net.Conn hidden in a *tls.Conn. It is the only door through which an HTTP/2 server takes a net.Conn
// that is not made by crypto/tls; where it is not found, everything is as without us, with one GOAWAY.
const (
	protoTLS   = "h2"
	protoPlain = "unencrypted_http2"
)

// preface is what an HTTP/2 client says first, and prefaceTime how long net/http waits for it.
const (
	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	prefaceTime = 10 * time.Second
)

// unlistened is a listener that has already failed.
type unlistened struct{ net.Listener }

func (unlistened) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (unlistened) Close() error              { return nil }
func (unlistened) Addr() net.Addr            { return &net.TCPAddr{} }

// wrapHTTP2 puts itself between net/http and its HTTP/2 server, before the first connection. The server exists
// once an accept loop has begun, so start is called with a listener that fails; what it says it will say again to
// the real one. Afterwards the map is only read.
func (s *Server) wrapHTTP2(start func(net.Listener) error) {
	h := s.Server
	base := h.BaseContext
	h.BaseContext = nil // not for this one
	_ = start(unlistened{})
	h.BaseContext = base

	plain, secure := h.TLSNextProto[protoPlain], h.TLSNextProto[protoTLS]
	if plain == nil {
		return
	}
	h.TLSNextProto[protoPlain] = func(hs *http.Server, hidden *tls.Conn, handler http.Handler) {
		nc := revealed(hidden)
		if nc == nil || !isKey(nc) {
			plain(hs, hidden, handler)
			return
		}
		plain(hs, hide(s.conns.wrap(nc)), handler)
	}
	if secure == nil {
		return
	}
	h.TLSNextProto[protoTLS] = func(hs *http.Server, nc *tls.Conn, handler http.Handler) {
		if greeted(nc) { // this door is for connections whose preface was read
			plain(hs, hide(h2TLSConn{s.conns.wrap(nc)}), handler)
		}
	}
}

// greeted reads the preface. Without it the connection is closed by the caller, as ever.
func greeted(nc net.Conn) bool {
	if err := nc.SetReadDeadline(time.Now().Add(prefaceTime)); err != nil {
		return false
	}
	buf := make([]byte, len(preface))
	_, err := io.ReadFull(nc, buf)
	return err == nil && string(buf) == preface && nc.SetReadDeadline(time.Time{}) == nil
}

// hidden is how a connection is hidden in a *tls.Conn.
type hidden struct {
	net.Conn
}

func (h hidden) UnencryptedNetConn() net.Conn { return h.Conn }

func hide(nc net.Conn) *tls.Conn { return tls.Client(hidden{nc}, nil) }

// revealed is the connection that is hidden in c, or nil.
func revealed(c *tls.Conn) net.Conn {
	h, ok := c.NetConn().(interface{ UnencryptedNetConn() net.Conn })
	if !ok {
		return nil
	}
	return h.UnencryptedNetConn()
}
