package graceful

import (
	"context"
	"net"
	"net/http"
	"reflect"
	"strings"
	"time"
)

type connKey struct{}

// prepare puts our hooks before those of the program, once.
func (s *Server) prepare() {
	h := s.Server
	next := h.Handler
	if next == nil {
		next = http.DefaultServeMux
	}
	h.Handler = &handler{next: next, server: s}
	connContext, connState := h.ConnContext, h.ConnState
	h.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		if isKey(nc) {
			ctx = context.WithValue(ctx, connKey{}, s.conns.add(nc, time.Now()))
		}
		if connContext != nil {
			ctx = connContext(ctx, nc)
		}
		return ctx
	}
	h.ConnState = func(nc net.Conn, state http.ConnState) {
		if ours, ok := nc.(interface{ accepted() net.Conn }); ok {
			nc = ours.accepted()
		}
		if isKey(nc) {
			s.conns.set(nc, state, time.Now())
		}
		if connState != nil {
			connState(nc, state)
		}
	}
}

// isKey tells that a connection can be the key of a map, as any sane one.
func isKey(nc net.Conn) bool { return reflect.TypeOf(nc).Comparable() }

// handler says Connection: close while draining, and counts. The ResponseWriter stays what it is, so Flusher, Hijacker
// and the kernel's sendfile work as without us.
type handler struct {
	next   http.Handler
	server *Server
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*conn)
	h2 := h.server.conns.begin(c, r.ProtoMajor == 1)
	defer h.server.conns.end(c)
	if h.server.lastAnswer(h2) && !upgrades(r) {
		w.Header().Set("Connection", "close") // net/http makes a GOAWAY of it for HTTP/2
	}
	h.next.ServeHTTP(w, r)
}

// lastAnswer tells that a connection is to end with this answer. An HTTP/2 client that was warned has as long to go elsewhere as
// others have to come back: for its requests that have crossed the warning are answered, and those that come after the
// final GOAWAY are not.
func (s *Server) lastAnswer(h2 *h2Conn) bool {
	return s.announce.Load() && (h2 == nil || h2.toldFor(s.lingerTime()))
}

// upgrades tells a request that may become a WebSocket, whose answer needs the Connection header for itself.
func upgrades(r *http.Request) bool {
	if r.Header.Get("Upgrade") == "" {
		return false
	}
	for _, v := range r.Header.Values("Connection") {
		for _, token := range strings.Split(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}
