package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseMetrics(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "off": "", "tcp://:9090": "tcp://:9090", "tcp4://127.0.0.1:0": "tcp4://127.0.0.1:0", "tcp6://[::1]:9090": "tcp6://[::1]:9090",
		"unix:///run/metrics.sock?mode=0660": "unix:///run/metrics.sock", "unix://@metrics": "unix://@metrics",
	} {
		var s setup
		err := s.parseMetrics(text)
		got := ""
		if s.metrics != nil {
			got = s.metrics.Raw
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		":9090": "no scheme", "tcp://:9090,tcp://:9091": "one address", "udp://:9090": "cannot serve HTTP", "unixgram:///x": "cannot serve HTTP", "http://:9090": "unknown scheme", ",": "one address",
	} {
		var s setup
		if err := s.parseMetrics(text); err == nil || !strings.Contains(err.Error(), want) || s.metrics != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := load([]string{"ENTRYPOINT_METRICS=nine"}, []string{"/app"})
	if err == nil || !strings.Contains(err.Error(), "ENTRYPOINT_METRICS") {
		t.Errorf("the fault does not name the variable: %v", err)
	}
}

// TestFacePort: clients can connect before anybody accepts, and the file of a unix socket goes with it.
func TestFacePort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "face")
	for _, text := range []string{"tcp://127.0.0.1:0", "unix://" + path} {
		var s setup
		if err := s.parseMetrics(text); err != nil {
			t.Fatal(err)
		}
		f, err := openFace(s.metrics, t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		scheme, where, _ := strings.Cut(f.at, "://")
		c, err := net.DialTimeout(scheme, where, 10*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", f.at, err)
		}
		c.Close()
		if err := f.close(); err != nil {
			t.Error(err)
		}
		if c, err := net.DialTimeout(scheme, where, 10*time.Second); err == nil {
			c.Close()
			t.Errorf("%s is still open", f.at)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
	if f, err := openFace(nil, t.Logf); f != nil || err != nil || f.close() != nil {
		t.Errorf("nothing: %v, %v", f, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var s setup
	if err := s.parseMetrics("tcp://" + l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if _, err := openFace(s.metrics, t.Logf); err == nil || !strings.Contains(err.Error(), "ENTRYPOINT_METRICS") {
		t.Errorf("an address in use: %v", err)
	}
}

func TestSignalCounts(t *testing.T) {
	var s signalCounts
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGTERM, 64} {
		s.add(sig, "forward")
	}
	s.add(syscall.SIGHUP, "reload")
	if got := fmt.Sprint(s.list()); got != "[{SIGHUP forward 2} {SIGTERM forward 1} {SIGRTMIN+30 forward 1} {SIGHUP reload 1}]" {
		t.Error(got)
	}
}
