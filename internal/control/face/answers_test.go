package face

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// get makes one request on a connection of its own.
func (s *served) get(path string, header ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+s.at+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Close = true
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return a, string(b)
}

func TestProbes(t *testing.T) {
	s := serveFake(t, nil)
	want := func(path string, code int, text string) {
		t.Helper()
		if a, got := s.get(path); a.StatusCode != code || got != text {
			t.Errorf("%s: %d %q", path, a.StatusCode, got)
		}
	}
	want("/livez", 200, "alive\n")
	want("/readyz", 200, "ready\n")
	s.init.sicken(errSick)
	want("/livez", 200, "alive\n")
	want("/readyz", 503, "not ready: generation 2 is unhealthy:  [31m<no> answer\n")
	s.init.sicken(nil)
	want("/readyz", 200, "ready\n")
	want("/readyz?verbose=1", 200, "ready\n")
	want("/livez/", 404, "there are /, /metrics, /livez, /readyz, /status and /events\n")
	s.ours.Close()
	want("/livez", 503, "the init does not answer\n")
	want("/readyz", 503, "not ready: the init does not answer\n")
	want("/metrics", 503, "the init does not answer\n")
}

// TestInitDoesNotAnswer: PID 1 has a second to show that it lives.
func TestInitDoesNotAnswer(t *testing.T) {
	s := serveFake(t, nil)
	s.ours.deaf.Store(true)
	began := time.Now()
	if a, _ := s.get("/livez"); a.StatusCode != 503 {
		t.Errorf("code %d", a.StatusCode)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("it gave up after %v", took)
	}
}

func TestMetricsAndStatus(t *testing.T) {
	s := serveFake(t, nil)
	a, text := s.get("/metrics")
	if a.Header.Get("Content-Type") != typeText || !strings.Contains(text, `entrypoint_listener_connections{app="app",listener="web"} 3`+"\n") || strings.Contains(text, "# EOF") {
		t.Errorf("%v\n%s", a.Header, text)
	}
	if a, text = s.get("/metrics", "Accept", "application/openmetrics-text"); a.Header.Get("Content-Type") != typeOpenMetrics || !strings.HasSuffix(text, "\n# EOF\n") || a.Header.Get("Vary") != "Accept" {
		t.Errorf("%v\n%s", a.Header, text)
	}
	_, text = s.get("/status")
	want, err := json.MarshalIndent(sampleStatus(), "", "  ")
	if err != nil || text != string(want)+"\n" {
		t.Errorf("%v: %s", err, text)
	}
}

// TestSharedQuestions: many requests cost few questions, and none gets an answer that is older than itself.
func TestSharedQuestions(t *testing.T) {
	s := serveFake(t, nil)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if _, err := s.link.Facts(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.init.mu.Lock()
	asked := s.init.asked
	s.init.mu.Unlock()
	if asked > 20 {
		t.Errorf("40 requests at once cost %d questions", asked)
	}
	stop := make(chan struct{})
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = s.link.Health(context.Background())
			}
		}
	})
	for i := range 50 {
		sick := i%2 == 0
		if s.init.sicken(nil); sick {
			s.init.sicken(errSick)
		}
		if h, err := s.link.Health(context.Background()); err != nil || h.OK == sick {
			t.Errorf("an answer of before: %+v, %v", h, err)
		}
	}
	close(stop)
	all.Wait()
}

// stream reads server-sent events.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	in   *bufio.Reader
}

func (s *served) stream(path, last string) *stream {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+s.at+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	if a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("%s: %d, %v", path, a.StatusCode, a.Header)
	}
	s.t.Cleanup(func() { a.Body.Close() })
	return &stream{s.t, a.Body, bufio.NewReader(a.Body)}
}

// next reads one event.
func (s *stream) next() (id, kind, data string) {
	s.t.Helper()
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.t.Fatal(err)
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			data = value
		case "":
			if kind != "" {
				return id, kind, data
			}
		}
	}
}

// report gives the helper news with these numbers.
func (s *served) report(from, to uint64, lost uint64) {
	var news []swap.News
	for n := from; n <= to; n++ {
		news = append(news, swap.News{Number: n, Kind: swap.NewsHealth, Text: fmt.Sprintf("news\nno. %d", n)})
	}
	s.link.board.add(epoch, news, lost)
}

func TestEvents(t *testing.T) {
	s := serveFake(t, nil)
	s.report(1, 3, 0)
	a := s.stream("/events", "")
	last := ""
	for n := 1; n <= 3; n++ {
		id, kind, data := a.next()
		if want := fmt.Sprintf(`{"number":%d,"time":"0001-01-01T00:00:00Z","kind":"health","text":"news\nno. %d"}`, n, n); kind != "health" || data != want {
			t.Errorf("%s %s", kind, data)
		}
		last = id
	}
	s.report(4, 4, 0)
	if id, _, _ := a.next(); !strings.HasSuffix(id, "-4") {
		t.Errorf("then came %s", id)
	}
	for path, id := range map[string]string{"/events": last, "/events?after=" + last: ""} {
		if id, _, _ := s.stream(path, id).next(); !strings.HasSuffix(id, "-4") {
			t.Errorf("%s behind %s begins with %s", path, last, id)
		}
	}
	for _, nonsense := range []string{"x", "-", "zz-1", "0-99", last + "9"} { // another init's, or nobody's
		if nonsense == last+"9" {
			continue // a number of the future: nothing comes
		}
		if id, _, _ := s.stream("/events", nonsense).next(); !strings.HasSuffix(id, "-1") {
			t.Errorf("behind %q it begins with %s", nonsense, id)
		}
	}
	s.report(5, 5+boardRoom, 0)
	if _, kind, data := s.stream("/events", last).next(); kind != "lost" || data != `{"lost":2}` {
		t.Errorf("who comes late is told %s %s", kind, data)
	}
	s.report(boardRoom+100, boardRoom+100, 94)
	b := s.stream("/events", strings.TrimSuffix(last, "3")+fmt.Sprint(boardRoom+5))
	if _, kind, data := b.next(); kind != "lost" || data != `{"lost":94}` {
		t.Errorf("of what the helper has lost it is told %s %s", kind, data)
	}
}

// TestSlowReaderIsDropped: who does not read loses its connection; others go on.
func TestSlowReaderIsDropped(t *testing.T) {
	s := serveFake(t, func(s *server, _ *face) { s.limit.answer = time.Second })
	c, err := net.Dial("tcp", s.at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprintf(c, "GET /events HTTP/1.1\r\n\r\n")
	streams := func() int {
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		return s.server.streams
	}
	for deadline := time.Now().Add(20 * time.Second); streams() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came")
		}
	}
	for n := uint64(1); streams() > 0; n += 100 {
		s.report(n, n+99, 0)
		if n > 10_000_000 {
			t.Fatal("it is still there")
		}
		time.Sleep(time.Millisecond)
	}
	if a, _ := s.get("/livez"); a.StatusCode != 200 {
		t.Errorf("code %d", a.StatusCode)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := serveFake(t, func(s *server, f *face) { s.limit.streams, f.heartbeat = 2, 10*time.Millisecond })
	first := s.stream("/events", "")
	s.stream("/events", "")
	if a, _ := s.get("/events"); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("the third: %d", a.StatusCode)
	}
	first.body.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.server.mu.Lock()
		n := s.server.streams
		s.server.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d streams are left", n)
		}
	}
	if line, err := s.stream("/events", "").in.ReadString('\n'); err != nil || line != "retry: 2000\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// TestPage: it says what there is, loads nothing, and nothing that somebody else said is markup.
func TestPage(t *testing.T) {
	s := serveFake(t, nil)
	s.init.status.Generations[0].Reason = `<script>alert("1")</script>` + "\x1b]0;x\a"
	s.init.status.LastSwaps[0].Text = `"><img src=x onerror=alert(2)>`
	s.link.board.add(epoch, []swap.News{{Number: 1, Kind: swap.NewsHealth, Text: "<b>bold</b>"}}, 0)
	a, text := s.get("/")
	for _, want := range []string{"swapping, generation 3 is the candidate, generation 2 is active", "4 open, 1 busy, 2 waiting", "25 %", "generation 2 75 %, generation 3 25 %",
		"&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;", "&lt;b&gt;bold", "check 1.5 ms", "<title>swapping · server</title>", "drift"} {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(text, "<img") || strings.Count(text, "<script>") != 1 || strings.ContainsAny(text, "\x1b\a") {
		t.Error("what somebody else said is markup")
	}
	if m := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9]|@import|url\(|style=| on[a-z]+="`).FindString(strings.ReplaceAll(text, "tcp://", "")); m != "" && !strings.Contains("udp://", m) {
		t.Errorf("the page has %q", m)
	}
	policy := a.Header.Get("Content-Security-Policy")
	for _, block := range []string{"style", "script"} {
		_, rest, _ := strings.Cut(text, "<"+block+">")
		inner, _, _ := strings.Cut(rest, "</"+block+">")
		sum := sha256.Sum256([]byte(inner))
		if want := block + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, want) {
			t.Errorf("the policy %q has no %q", policy, want)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	empty := page(&view{Facts: &Facts{}, Now: epoch})
	if !strings.Contains(string(empty.body), "None yet.") {
		t.Error("nothing is not shown as nothing")
	}
}

func TestAxis(t *testing.T) {
	now := epoch.Add(40 * 24 * time.Hour)
	a := newAxis([]*swap.Generation{{StartedAt: epoch}}, now)
	if a.at(now) != 100 || a.at(epoch) != 0 || a.at(epoch.Add(-time.Hour)) != 0 || a.at(now.Add(time.Hour)) != 100 {
		t.Errorf("%v %v", a.at(now), a.at(epoch))
	}
	if moment := 100 - a.at(now.Add(-10*time.Second)); moment < 5 {
		t.Errorf("ten seconds have %v hundredths of forty days", moment)
	}
	last := 100.0
	for _, d := range a.ticks() {
		if x := a.at(now.Add(-d)); last-x < 10 {
			t.Errorf("the lines of %v are too close", d)
		} else {
			last = x
		}
	}
}

func TestLife(t *testing.T) {
	st := sampleStatus()
	now := epoch.Add(100 * time.Second)
	for gen, want := range []string{
		"starting for 1 s, ready for 1 s, active for 48 s, draining for 50 s",
		"starting for 1 s, ready for 1 s, active for 50 s",
		"starting for 1 s, ready for 1 s, canary for 8 s",
	} {
		if got := lifeText(&st.Generations[gen], now); got != want {
			t.Errorf("generation %d: %s", gen+1, got)
		}
	}
	failed := swap.Generation{State: swap.Exited, StartedAt: epoch, SignalledAt: epoch.Add(time.Second), KilledAt: epoch.Add(6 * time.Second), EndedAt: epoch.Add(7 * time.Second)}
	if got := lifeText(&failed, now); got != "starting for 1 s, failed for 5 s, killed for 1 s" {
		t.Error(got)
	}
}

func TestSpans(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0 ms": -time.Second, "340 ms": 340 * time.Millisecond, "2.5 s": 2500 * time.Millisecond, "42 s": 42*time.Second + 1, "1 m": time.Minute, "1 m 5 s": 65 * time.Second,
		"3 h": 3 * time.Hour, "2 d 3 h": 51 * time.Hour,
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
