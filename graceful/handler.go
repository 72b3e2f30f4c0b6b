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
		if reflect.TypeOf(nc).Comparable() { // any sane one; it becomes a map key
			ctx = context.WithValue(ctx, connKey{}, s.conns.add(nc, time.Now()))
		}
		if connContext != nil {
			ctx = connContext(ctx, nc)
		}
		return ctx
	}
	h.ConnState = func(nc net.Conn, state http.ConnState) {
		if reflect.TypeOf(nc).Comparable() {
			s.conns.set(nc, state, time.Now())
		}
		if connState != nil {
			connState(nc, state)
		}
	}
}

// handler says Connection: close while draining, and counts. The ResponseWriter stays what it is, so Flusher, Hijacker
// and the kernel's sendfile work as without us.
type handler struct {
	next   http.Handler
	server *Server
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*conn)
	h.server.conns.begin(c, r.ProtoMajor == 1)
	defer h.server.conns.end(c)
	if h.server.announce.Load() && !upgrades(r) {
		w.Header().Set("Connection", "close") // net/http makes a GOAWAY of it for HTTP/2
	}
	h.next.ServeHTTP(w, r)
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
