package syslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	for text, want := range map[string]Target{
		"": {}, "stderr": {}, "Syslog": {"unixgram", "/dev/log"}, "syslog:///run/x/log": {"unixgram", "/run/x/log"},
		"udp://logs": {"udp", "logs:514"}, "udp://[::1]:5140": {"udp", "[::1]:5140"}, "tcp://logs": {"tcp", "logs:601"}, "tcp://10.0.0.1:6514/": {"tcp", "10.0.0.1:6514"},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"stdout", "/var/log/x", "udp://", "tcp://a:1/x", "udp://a:b", "syslog://host", "syslog://", "http://a", "udp://a?x=1"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestMessages(t *testing.T) {
	s := sender{Host: "box 1", Tag: "entrypoint", PID: 1}
	at := time.Date(2026, 11, 2, 3, 4, 5, 6000, time.UTC)
	line := []byte(`{"time":"2026-11-02T03:04:05Z","level":"WARN","msg":"level=ERROR"}`)
	if got, want := string(s.local(line, at)), "<28>Nov  2 03:04:05 entrypoint[1]: "+string(line); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := string(s.rfc5424([]byte("time=x level=ERROR msg=y"), at)), "<27>1 2026-11-02T03:04:05.000006Z box1 entrypoint 1 - - time=x level=ERROR msg=y"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := string(counted([]byte("ab"))); got != "2 ab" {
		t.Error(got)
	}
	if got := string(sender{}.rfc5424([]byte("x"), at)); got != "<30>1 2026-11-02T03:04:05.000006Z - - 0 - - x" {
		t.Error(got)
	}
}

// TestSeverity asks many times: what a message says must not count in any of them.
func TestSeverity(t *testing.T) {
	for line, want := range map[string]int{
		`{"time":"2026-11-02T03:04:05Z","level":"DEBUG","msg":"level=ERROR"}`: 7,
		`{"time":"2026-11-02T03:04:05Z","level":"INFO","msg":"level=ERROR"}`:  6,
		`{"time":"2026-11-02T03:04:05Z","level":"WARN","msg":"level=ERROR"}`:  4,
		`{"time":"x","level":"ERROR","msg":"a \"level\":\"WARN"}`:             3,
		`time=2026-11-02T03:04:05Z level=INFO msg="level=DEBUG level=WARN"`:   6,
		`time=2026-11-02T03:04:05Z level=WARN msg="level=ERROR"`:              4,
		`level=ERROR+2 msg={"level":"DEBUG"}`:                                 3,
		"":                                                                    6,
		"panic: no line of slog":                                              6,
		strings.Repeat("x", 80) + "level=ERROR":                               6,
	} {
		for range 100 {
			if got := severity([]byte(line)); got != want {
				t.Errorf("%s: severity %d, want %d", line, got, want)
				break
			}
		}
	}
}

// server is one end of connections; reads notes what comes.
type server struct {
	mu    sync.Mutex
	down  bool
	dials int
	got   bytes.Buffer
	conns []net.Conn
	wg    sync.WaitGroup
	stall bool
}

func (s *server) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	if s.down {
		return nil, errors.New("connection refused")
	}
	mine, theirs := net.Pipe()
	s.conns = append(s.conns, theirs)
	if s.stall {
		return mine, nil
	}
	s.wg.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := theirs.Read(b)
			s.mu.Lock()
			s.got.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	return mine, nil
}

func (s *server) set(down, stall bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.stall = down, stall
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

// TestForwarder: lines that a server does not take are on standard error, and it hears how many; it is tried again with growing pauses.
func TestForwarder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		var stderr bytes.Buffer
		f := &forwarder{Target: Target{"tcp", "logs:601"}, sender: sender{Host: "h", Tag: "entrypoint", PID: 1}, dial: s.dial, stderr: &stderr}
		f.one([]byte("first"))
		synctest.Wait()
		s.set(true, false) // it goes away
		synctest.Wait()
		for i := range 100 {
			f.one(fmt.Appendf(nil, "lost %d", i))
			time.Sleep(100 * time.Millisecond)
		}
		if got := strings.Count(stderr.String(), "\n"); got != 101 || !strings.Contains(stderr.String(), "connection refused") || !strings.Contains(stderr.String(), "lost 99\n") {
			t.Errorf("on standard error are %d lines: %s", got, stderr.String())
		}
		if s.dials > 9 {
			t.Errorf("connected %d times in ten seconds", s.dials)
		}
		s.set(false, false)
		time.Sleep(mostPause)
		f.one([]byte("last"))
		synctest.Wait()
		if got := s.got.String(); !strings.Contains(got, "- - first") || !strings.Contains(got, "100 log lines were not sent here") || !strings.HasSuffix(got, "- - last") || strings.Contains(got, "lost") {
			t.Errorf("the server got %q", got)
		}
		s.set(false, true) // it stalls
		f.one([]byte("a"))
		began := time.Now()
		f.one([]byte("b"))
		if took := time.Since(began); took > sendTime || !strings.Contains(stderr.String(), "a\n") {
			t.Errorf("%v, %s", took, stderr.String())
		}
		f.hangUp()
		s.set(true, false)
		s.wg.Wait()
	})
}

// TestQueueIsBounded: what finds no room is on standard error.
func TestQueueIsBounded(t *testing.T) {
	var text, stderr bytes.Buffer
	for i := range room + 50 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	fmt.Fprintf(&text, "half")
	lines := make(chan []byte, room)
	read(&text, lines, &stderr)
	if len(lines) != room || strings.Count(stderr.String(), "\n") != 51 || !strings.Contains(stderr.String(), fmt.Sprintf("line %d\n", room)) {
		t.Errorf("%d queued, %q", len(lines), stderr.String())
	}
	drain(lines, io.Discard)
}
