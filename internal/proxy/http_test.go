package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/proxy"
)

// client makes requests over HTTP/1.1, or over HTTP/2 without TLS.
func client(t *testing.T, h2 bool) *http.Client {
	p := &http.Protocols{}
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	tr := &http.Transport{Protocols: p, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// serving is a stage with one generation that has the traffic.
func serving(t *testing.T, o proxy.Options, h http.Handler) (*stage, *generation) {
	t.Helper()
	s := present(t, o)
	g := s.start(naive(h))
	s.steer(g)
	t.Cleanup(g.stop)
	return s, g
}

func (s *stage) url(path string) string { return "http://" + s.addr + path }

// seen is what a backend got.
type seen struct {
	Method, URI, Host, Proto string
	Header                   http.Header
	Trailer                  http.Header
	Length                   int64
	Body                     string
}

// mirrored answers with what it got, as JSON.
var mirrored = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Host, r.Proto, r.Header, r.Trailer, r.ContentLength, string(b)})
})

// exchange sends raw text and reads one answer.
func (s *stage) exchange(text string) (*http.Response, seen) {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, text)
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatalf("%q: %v", text, err)
	}
	defer a.Body.Close()
	b, _ := io.ReadAll(a.Body)
	var got seen
	json.Unmarshal(b, &got)
	return a, got
}

// TestRequestArrivesAsItWas: only what belongs to the hop is changed.
func TestRequestArrivesAsItWas(t *testing.T) {
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP}, mirrored)
	a, got := s.exchange("PATCH /a%2Fb/../c?x=1;y&%zz HTTP/1.1\r\nHost: shop.example:81\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n" +
		"Forwarded: for=x\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Own: a\r\nX-Own: b\r\nContent-Length: 3\r\n\r\nabc")
	if a.StatusCode != 200 || got.Method != "PATCH" || got.URI != "/a%2Fb/../c?x=1;y&%zz" || got.Host != "shop.example:81" || got.Body != "abc" || got.Length != 3 {
		t.Errorf("%d %+v", a.StatusCode, got)
	}
	h := got.Header
	if h.Get("X-Forwarded-For") != "203.0.113.9, 127.0.0.1" || h.Get("X-Forwarded-Proto") != "http" || h.Get("X-Forwarded-Host") != "shop.example:81" || h.Get("Forwarded") != "" {
		t.Errorf("forwarded headers: %v", h)
	}
	if h.Get("X-Hop") != "" || h.Get("Keep-Alive") != "" || h.Get("Accept-Encoding") != "" || h.Get("User-Agent") != "" || strings.Join(h["X-Own"], " ") != "a b" {
		t.Errorf("headers: %v", h)
	}
}

func TestTrustedProxy(t *testing.T) {
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP, Trust: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, mirrored)
	_, got := s.exchange("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\nForwarded: for=x\r\nConnection: close\r\n\r\n")
	if h := got.Header; h.Get("X-Forwarded-Proto") != "https" || h.Get("X-Forwarded-Host") != "outer" || h.Get("Forwarded") != "for=x" {
		t.Errorf("headers: %v", h)
	}
}

// TestNowhereElse: whatever a request names, it goes to our app, and what could be read in two ways is refused.
func TestNowhereElse(t *testing.T) {
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP}, mirrored)
	for _, tt := range []struct {
		text   string
		status int
	}{
		{"GET http://127.0.0.1:1/x HTTP/1.1\r\nHost: other\r\n\r\n", 200},
		{"GET //127.0.0.1:1/x HTTP/1.1\r\nHost: a\r\n\r\n", 200},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200},
		{"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
		{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("b", 200<<10) + "\r\n\r\n", 431},
	} {
		a, got := s.exchange(tt.text)
		if a.StatusCode != tt.status || tt.status == 200 && a.Header.Get("X-Generation") != "1" {
			t.Errorf("%.60q: %d, want %d: %+v", tt.text, a.StatusCode, tt.status, got)
		}
	}
}

// TestSmuggling: of a body with two lengths the app gets one, and not what an attacker wrote.
func TestSmuggling(t *testing.T) {
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP}, mirrored)
	a, got := s.exchange("POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n")
	if a.StatusCode != 200 || got.URI != "/one" || got.Body != "abcde" || got.Length != -1 || got.Header.Get("Content-Length") != "" {
		t.Errorf("%d %+v", a.StatusCode, got)
	}
}

// TestTrailers go through, both ways, announced or not.
func TestTrailers(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s, _ := serving(t, proxy.Options{Kind: proxy.HTTP}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Announced")
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s", b, r.Trailer.Get("X-Sum"))
			w.Header().Set("X-Announced", "yes")
			w.Header().Set(http.TrailerPrefix+"X-Sudden", "too")
		}))
		r, _ := http.NewRequest("POST", s.url("/"), io.MultiReader(strings.NewReader("body")))
		r.Trailer = http.Header{"X-Sum": {"17"}}
		a, err := client(t, h2).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if string(b) != "body 17" || a.Trailer.Get("X-Announced") != "yes" || a.Trailer.Get("X-Sudden") != "too" {
			t.Errorf("h2 %v: %q, trailers %v", h2, b, a.Trailer)
		}
	}
}

// TestInformational answers go through: 103, and 100 when the app wants the body.
func TestInformational(t *testing.T) {
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</x>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	}))
	var hints, goOn int
	trace := &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code == 103 && h.Get("Link") != "" {
				hints++
			}
			return nil
		},
		Got100Continue: func() { goOn++ },
	}
	r, _ := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "POST", s.url("/"), strings.NewReader("body"))
	r.Header.Set("Expect", "100-continue")
	c := client(t, false)
	c.Transport.(*http.Transport).ExpectContinueTimeout = patience
	a, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(a.Body)
	a.Body.Close()
	if string(b) != "body" || hints != 1 || goOn != 1 {
		t.Errorf("%q, %d hints, %d times continue", b, hints, goOn)
	}
}

// talk is a handler that answers each line before the next one comes.
var talk = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	rc.EnableFullDuplex()
	w.WriteHeader(200)
	rc.Flush()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		fmt.Fprintf(w, "%s to you\n", lines.Text())
		rc.Flush()
	}
})

// TestTalk: a request and its answer stream at the same time, also over swaps, and the old generation is not idle until the end.
func TestTalk(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s, old := serving(t, proxy.Options{Kind: proxy.HTTP}, talk)
		in, out := io.Pipe()
		r, _ := http.NewRequest("POST", s.url("/"), in)
		if h2 {
			r.Header.Set("Content-Type", "application/grpc") // takes HTTP/2 to the app too
		}
		a, err := client(t, h2).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		answers := bufio.NewReader(a.Body)
		for i := range 3 {
			fmt.Fprintf(out, "line %d\n", i)
			if got, err := answers.ReadString('\n'); err != nil || got != fmt.Sprintf("line %d to you\n", i) {
				t.Fatalf("h2 %v: %q %v", h2, got, err)
			}
			next := s.start(naive(talk))
			t.Cleanup(next.stop)
			s.steer(next)
		}
		if l, err := old.lease.Load(); err != nil || l.Busy != 1 || !l.Known {
			t.Errorf("h2 %v: while the talk goes on: %+v %v", h2, l, err)
		}
		out.Close()
		io.Copy(io.Discard, answers)
		s.eventually("the old generation is idle", func() error {
			if l, err := old.lease.Load(); err != nil || l.Open != 0 {
				return fmt.Errorf("%+v %v", l, err)
			}
			return nil
		})
	}
}

// upgrader echoes lines over an upgraded connection.
var upgrader = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "echo" {
		http.Error(w, "upgrade", http.StatusUpgradeRequired)
		return
	}
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
	io.Copy(c, rw)
})

// TestUpgrade: an upgraded connection stays with its generation over a swap, counts as its own, and ends with its client.
func TestUpgrade(t *testing.T) {
	s, old := serving(t, proxy.Options{Kind: proxy.HTTP}, upgrader)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
	r := bufio.NewReader(c)
	a, err := http.ReadResponse(r, nil)
	if err != nil || a.StatusCode != 101 || a.Header.Get("X-Generation") != "" && a.Header.Get("X-Generation") != "1" {
		t.Fatalf("%v %v", a, err)
	}
	say := func(word string) {
		io.WriteString(c, word+"\n")
		if got, err := r.ReadString('\n'); err != nil || got != word+"\n" {
			t.Fatalf("%q %v", got, err)
		}
	}
	say("before")
	next := s.start(naive(upgrader))
	t.Cleanup(next.stop)
	s.steer(next)
	say("after")
	st := s.front.Status()
	if !st.Known || len(st.Generations) != 2 || st.Generations[0].Upgrades != 1 || st.Generations[0].Requests != 0 {
		t.Errorf("%+v", st)
	}
	if l, _ := old.lease.Load(); l.Busy != 1 {
		t.Errorf("%+v", l)
	}
	c.Close()
	s.end(old)
}

// TestEvents: a stream of events is passed on as it comes.
func TestEvents(t *testing.T) {
	more := make(chan struct{})
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			http.NewResponseController(w).Flush()
			<-more
		}
	}))
	a, err := client(t, false).Get(s.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	r := bufio.NewReader(a.Body)
	for i := range 3 {
		if got, err := r.ReadString('\n'); err != nil || got != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q %v", got, err)
		}
		r.ReadString('\n')
		more <- struct{}{}
	}
}

// TestWaiting: requests wait for the first generation, and for one that takes the place of another that has ended.
func TestWaiting(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.HTTP})
	answers := make(chan string, 8)
	ask := func() {
		a, err := client(t, false).Post(s.url("/"), "text/plain", strings.NewReader("hello"))
		if err != nil {
			answers <- err.Error()
			return
		}
		defer a.Body.Close()
		b, _ := io.ReadAll(a.Body)
		answers <- fmt.Sprint(a.StatusCode, " ", a.Header.Get("X-Generation"), " ", string(b))
	}
	waiting := func() error {
		if st := s.front.Status(); st.Waiting != 1 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	}
	for i := range 2 {
		go ask()
		s.eventually("a client waits", waiting)
		g := s.start(naive(mirror))
		s.steer(g)
		if got := <-answers; got != fmt.Sprint("200 ", i+1, " hello") {
			t.Errorf("%q", got)
		}
		g.stop()
		g.lease.Release()
	}
}

// TestRefusedFirst: a worker that is not there yet, or not any more, costs no request.
func TestRefusedFirst(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.HTTP})
	s.next++
	lease, err := s.front.Lease(handoff.Seat{Generation: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.front.Steer(1); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		a, err := client(t, false).Post(s.url("/"), "text/plain", strings.NewReader("hello"))
		if err == nil {
			b, _ := io.ReadAll(a.Body)
			a.Body.Close()
			if a.StatusCode != 200 || string(b) != "hello" {
				err = fmt.Errorf("%d %q", a.StatusCode, b)
			}
		}
		done <- err
	}()
	s.eventually("it was tried", func() error {
		if st := s.front.Status(); st.Waiting != 1 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	time.Sleep(50 * time.Millisecond) // some refusals
	l, err := net.Listen("tcp4", lease.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	stop := naive(mirror)(1, l)
	defer stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNobody: who has waited for too long is told so, and when to come again.
func TestNobody(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.HTTP, ConnectTimeout: 100 * time.Millisecond})
	a, err := client(t, false).Get(s.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, _ := io.ReadAll(a.Body)
	if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || len(b) == 0 || len(b) > 200 {
		t.Errorf("%d %v %q", a.StatusCode, a.Header, b)
	}
}

// TestStopped: at the end of the container nobody waits, and nobody is accepted.
func TestStopped(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.HTTP})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	s.eventually("a client waits", func() error {
		if st := s.front.Status(); st.Waiting != 1 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	s.front.Stop()
	c.SetDeadline(time.Now().Add(patience))
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || a.StatusCode != 503 || !a.Close {
		t.Errorf("%v %v", a, err)
	}
}

// TestBrokenAnswer: a worker that dies in the middle is not asked again, and the client is not told that all is well.
func TestBrokenAnswer(t *testing.T) {
	calls := make(chan string, 16)
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		calls <- string(b)
		if r.URL.Path == "/half" {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler)
	}))
	a, err := client(t, false).Post(s.url("/none"), "text/plain", strings.NewReader("x"))
	if err != nil || a.StatusCode != 502 {
		t.Fatalf("%v %v", a, err)
	}
	a.Body.Close()
	a, err = client(t, false).Post(s.url("/half"), "text/plain", strings.NewReader("y"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(a.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half an answer: %v", err)
	}
	a.Body.Close()
	if first, second := <-calls, <-calls; first != "x" || second != "y" || len(calls) > 0 {
		t.Errorf("asked for %q, %q and %d times more", first, second, len(calls))
	}
}

// raw is a backend by hand: each connection is handled until handle is false.
func raw(handle func(c net.Conn, r *bufio.Reader) bool) func(int, net.Listener) func() {
	return func(_ int, l net.Listener) func() {
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer c.Close()
					c.SetDeadline(time.Now().Add(2 * patience))
					for r := bufio.NewReader(c); handle(c, r); {
					}
				})
			}
		})
		return func() { l.Close(); wg.Wait() }
	}
}

// TestFastAnswers: an answer that comes as soon as the last byte of the body is there, and in two parts, is whole.
func TestFastAnswers(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.HTTP})
	g := s.start(raw(func(c net.Conn, r *bufio.Reader) bool {
		q, err := http.ReadRequest(r)
		if err != nil {
			return false
		}
		b, err := io.ReadAll(q.Body)
		if err != nil {
			return false
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(b))
		runtime.Gosched()
		_, err = c.Write(b)
		return err == nil
	}))
	s.steer(g)
	storm := begin(clients, poster(s.url("/")))
	s.answers(storm, 1000)
	storm.lossless(t)
	s.end(g)
}

// TestUnreadBodies: a worker that answers without reading the body costs no request that follows, of any size and form.
func TestUnreadBodies(t *testing.T) {
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "unread") }))
	for _, size := range []int{1, 300, 16 << 10, 17 << 10, 100 << 10, 400 << 10} {
		for _, length := range []int64{int64(size), -1} {
			c := client(t, false)
			for range 20 {
				r, _ := http.NewRequest(http.MethodPost, s.url("/"), io.MultiReader(bytes.NewReader(make([]byte, size))))
				r.ContentLength = length
				a, err := c.Do(r)
				if err != nil {
					t.Fatalf("%d bytes, length %d: %v", size, length, err)
				}
				b, err := io.ReadAll(a.Body)
				a.Body.Close()
				if string(b) != "unread" || err != nil {
					t.Fatalf("%d bytes, length %d: %q %v", size, length, b, err)
				}
			}
		}
	}
}

// TestEarlyRefusal: a worker that refuses a large body, and closes without reading it, is heard.
func TestEarlyRefusal(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.HTTP})
	g := s.start(raw(func(c net.Conn, r *bufio.Reader) bool {
		if _, err := http.ReadRequest(r); err != nil {
			return false
		}
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\n")
		time.Sleep(5 * time.Millisecond)
		io.WriteString(c, "too large")
		c.(*net.TCPConn).CloseWrite()
		io.CopyN(io.Discard, c, 300<<10)
		return false
	}))
	s.steer(g)
	for range 10 {
		a, err := client(t, false).Post(s.url("/"), "text/plain", bytes.NewReader(make([]byte, 200<<10)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(a.Body)
		a.Body.Close()
		if a.StatusCode != 413 || string(b) != "too large" {
			t.Errorf("%d %q %v", a.StatusCode, b, err)
		}
	}
	s.end(g)
}

// TestShare: so many connections as the share says, each one for all of its requests; then all of them.
func TestShare(t *testing.T) {
	s, old := serving(t, proxy.Options{Kind: proxy.HTTP}, mirror)
	next := s.start(naive(mirror))
	defer next.stop()
	share := func(text string) {
		sh, err := handoff.ParseShare(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.front.Split(old.number, next.number, sh); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(c *http.Client) string {
		a, err := c.Get(s.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		return a.Header.Get("X-Generation")
	}
	share("20%")
	const n = 1000
	got := 0
	for range n {
		c := client(t, false)
		first := ask(c)
		if ask(c) != first {
			t.Error("one connection met two generations")
		}
		c.CloseIdleConnections()
		if first == "2" {
			got++
		}
	}
	if spread := 4.9 * math.Sqrt(n*0.2*0.8); math.Abs(float64(got)-n*0.2) > spread {
		t.Errorf("%d of %d connections", got, n)
	}
	kept := client(t, false)
	ask(kept)
	share("127.0.0.0/8")
	if ask(kept) != "2" {
		t.Error("the network does not lead to the candidate")
	}
	share("100%+!127.0.0.0/8")
	if ask(kept) != "1" {
		t.Error("the network that is never to go there went there")
	}
	share("100%@source")
	if ask(kept) != "2" {
		t.Error("all of the addresses are not all")
	}
	s.steer(old)
	if ask(kept) != "1" {
		t.Error("the way back")
	}
}

// TestBackendConnectionsEnd: when a generation has lost the traffic, its idle connections are closed, and not only when their time is over.
func TestBackendConnectionsEnd(t *testing.T) {
	s := present(t, proxy.Options{Kind: proxy.HTTP})
	for range 5 {
		closed := make(chan time.Time, 1)
		old := s.start(raw(func(c net.Conn, r *bufio.Reader) bool {
			if _, err := http.ReadRequest(r); err != nil {
				closed <- time.Now()
				return false
			}
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		}))
		s.steer(old)
		a, err := client(t, false).Get(s.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		begin := time.Now()
		next := s.start(naive(mirror))
		defer next.stop()
		s.steer(next)
		took := (<-closed).Sub(begin)
		old.stop()
		old.lease.Release()
		if took < 900*time.Millisecond { // an idle connection has a second
			return
		}
	}
	t.Error("five times nothing was closed before its time")
}
