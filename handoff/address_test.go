package handoff

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseAddresses(t *testing.T) {
	no, yes := false, true
	opt := func(f func(*Options)) Options { o := Options{Mode: -1}; f(&o); return o }
	none := Options{Mode: -1}
	for _, c := range []struct {
		list string
		want []Address
	}{
		{"", nil},
		{" , ", nil},
		{"tcp://:8080", []Address{{Name: "tcp1", Scheme: "tcp", Port: 8080, Raw: "tcp://:8080", Options: none}}},
		{"web=tcp4://10.0.0.1:80, udp6://[::1]:53,tcp6://[fe80::1%eth0]:1", []Address{
			{Name: "web", Scheme: "tcp4", Host: "10.0.0.1", Port: 80, Raw: "tcp4://10.0.0.1:80", Options: none},
			{Name: "udp1", Scheme: "udp6", Host: "::1", Port: 53, Raw: "udp6://[::1]:53", Options: none},
			{Name: "tcp1", Scheme: "tcp6", Host: "fe80::1%eth0", Port: 1, Raw: "tcp6://[fe80::1%eth0]:1", Options: none}}},
		{"tcp1=tcp://*:1,tcp://localhost:2", []Address{
			{Name: "tcp1", Scheme: "tcp", Port: 1, Raw: "tcp://*:1", Options: none},
			{Name: "tcp2", Scheme: "tcp", Host: "localhost", Port: 2, Raw: "tcp://localhost:2", Options: none}}},
		{"unix:///run/a.sock?mode=0660&owner=www&group=33&backlog=5", []Address{{Name: "unix1", Scheme: "unix", Path: "/run/a.sock",
			Raw: "unix:///run/a.sock", Options: Options{Mode: 0o660, Owner: "www", Group: "33", Backlog: 5}}}},
		{"unixgram://@log", []Address{{Name: "unixgram1", Scheme: "unixgram", Path: "@log", Raw: "unixgram://@log", Options: none}}},
		{"tcp://:1?v6only=true", []Address{{Name: "tcp1", Scheme: "tcp", Port: 1, Raw: "tcp://:1", Options: opt(func(o *Options) { o.V6Only = &yes })}}},
		{"tcp6://:1?v6only=0&nodelay&keepalive=30&defer_accept=2s&fastopen=9&freebind=on&rcvbuf=1MiB&sndbuf=4096", []Address{{
			Name: "tcp1", Scheme: "tcp6", Port: 1, Raw: "tcp6://:1", Options: Options{Mode: -1, V6Only: &no, NoDelay: true, KeepAlive: 30 * time.Second,
				DeferAccept: 2 * time.Second, FastOpen: 9, FreeBind: true, RcvBuf: 1 << 20, SndBuf: 4096}}}},
	} {
		got, err := ParseAddresses(c.list)
		if err != nil {
			t.Errorf("%q: %v", c.list, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%q: %s", c.list, d)
		}
	}
}

func TestParseAddressesFaults(t *testing.T) {
	for list, want := range map[string]string{
		":8080":                               "no scheme",
		"http://:80":                          `unknown scheme "http"`,
		"tcp://8080":                          "no port",
		"tcp://:http":                         "not a number",
		"tcp://:65536":                        "not a number from 0 to 65535",
		"tcp://::1:80":                        "in brackets",
		"tcp://[::1]":                         "no port",
		"tcp://[1.2.3.4]:80":                  "not an IPv6 address",
		"tcp4://[::1]:80":                     "wants IPv4",
		"tcp6://1.2.3.4:80":                   "wants IPv6",
		"unix://":                             "no path",
		"unix:///run/":                        "directory",
		"unix:///" + strings.Repeat("x", 120): "at most 107",
		"a b=tcp://:1":                        "letters",
		"x=tcp://:1,x=tcp://:2":               "used twice",
		"tcp://:1,tcp4://0.0.0.0:1":           "listed twice",
		"tcp://:1?nope=1":                     `unknown option "nope"`,
		"tcp://:1?mode=0600":                  "no meaning for tcp",
		"udp://:1?nodelay":                    "no meaning for udp",
		"tcp4://:1?v6only":                    "no meaning for tcp4",
		"unix://@a?mode=0600":                 "abstract",
		"unix:///a?mode=999":                  "file mode",
		"unix:///a?owner=":                    "no name",
		"tcp://:1?backlog=0":                  "number from 1",
		"tcp://:1?nodelay=maybe":              "neither true nor false",
		"tcp://:1?keepalive=5ms":              "duration",
		"tcp://:1?rcvbuf=9GiB":                "size",
		"tcp://:1?backlog=1&backlog=2":        "given twice",
	} {
		if _, err := ParseAddresses(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want ...%s...", list, err, want)
		}
	}
	_, err := ParseAddresses("tcp://x,udp://y,unix://,tcp://:1?a=1&b=2")
	if err == nil || strings.Count(err.Error(), "\n") < 4 {
		t.Errorf("not all faults at once: %v", err)
	}
}

func FuzzParseAddresses(f *testing.F) {
	for _, s := range []string{"tcp://:80", "a=unix:///x?mode=0600", "tcp6://[::1]:1?v6only=true&backlog=1", ",,=://?&="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		got, err := ParseAddresses(list)
		if err != nil && got != nil {
			t.Error("both a result and an error")
		}
		for _, a := range got {
			again, err := ParseAddresses(a.Name + "=" + a.Raw)
			if err != nil || len(again) != 1 || again[0].place() != a.place() {
				t.Errorf("%q does not read back: %v", a.Raw, err)
			}
		}
	})
}

func FuzzDiagDecode(f *testing.F) {
	f.Add(make([]byte, inetDiagMsgLen+8))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c tcpConn
		c.decode(b)
		var u unixConn
		u.decode(b)
		_, _ = diagMessages(b, true, func([]byte) {})
		_, _ = parseProcTCP(string(b))
		namesGone(b)
	})
}
