package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// probeHeader marks the requests of checks, so that those of clients can be told apart.
const probeHeader = "X-Probe"

// witness says once, in the log, that a client reached this instance, and once that a check did.
type witness struct{ client, probe sync.Once }

// judged does what the settings about being judged want: it says who asks, and answers all with one status.
func (a *app) judged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !a.witness:
		case r.Header.Get(probeHeader) != "" || r.ProtoMajor == 2:
			a.seenBy.probe.Do(func() { a.say("reached by a probe") })
		default:
			a.seenBy.client.Do(func() { a.say("reached by a client: %s from %s", r.URL.Path, r.RemoteAddr) })
		}
		if answer := int(a.answer.Load()); answer != http.StatusOK && r.ProtoMajor == 1 && r.URL.Path != "/set" {
			http.Error(w, a.name(), answer)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// set changes this instance while it runs: /set?health=500&answer=500&feed=off.
func (a *app) setNow(w http.ResponseWriter, r *http.Request) {
	if n, err := strconv.Atoi(r.FormValue("health")); err == nil {
		a.healthNow.Store(int64(n))
	}
	if n, err := strconv.Atoi(r.FormValue("answer")); err == nil {
		a.answer.Store(int64(n))
	}
	if r.FormValue("feed") == "off" {
		a.starving.Store(true)
	}
	a.who(w, r)
}

// feedWatchdog sends WATCHDOG=1 until the process ends or is told to stop that.
func (a *app) feedWatchdog() {
	name := os.Getenv("NOTIFY_SOCKET")
	if a.feed <= 0 || name == "" {
		return
	}
	c, err := net.Dial("unixgram", name)
	if err != nil {
		a.say("cannot feed the watchdog: %v", err)
		return
	}
	go func() {
		defer c.Close()
		for ; !a.starving.Load(); time.Sleep(a.feed) {
			c.Write([]byte("WATCHDOG=1"))
		}
	}()
}

// grpcHealth answers grpc.health.v1.Health/Check by hand: one message that holds one number, 1 for SERVING.
func (a *app) grpcHealth(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		http.Error(w, "this is gRPC", http.StatusUnsupportedMediaType)
		return
	}
	io.Copy(io.Discard, r.Body)
	serving := byte(1)
	if a.healthNow.Load() != http.StatusOK || a.answer.Load() != http.StatusOK {
		serving = 2
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	w.Write([]byte{0, 0, 0, 0, 2, 1 << 3, serving})
	w.Header().Set("Grpc-Status", "0")
}

// protocols are HTTP/1 and, for gRPC, HTTP/2 without TLS.
func protocols() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}
