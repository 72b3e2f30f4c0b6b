package probe

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestParse(t *testing.T) {
	list := ` auto, notify,accept ,delay:2s,delay:1m30s,delay: 3,
		http://127.0.0.1:8080/healthz?a=b,HTTP://[::1]/it's, tcp://localhost:5432/,
		exec:/bin/check -q "a,b" 'c,d' e\,f , exec: ["/bin/check", "a,b]", "\"[,"] ,`
	got, err := Parse(list)
	must(t, err)
	web := func(s string) *url.URL { u, err := url.Parse(s); must(t, err); return u }
	want := []Check{
		{Kind: Auto, Text: "auto"},
		{Kind: Notify, Text: "notify"},
		{Kind: Accept, Text: "accept"},
		{Kind: Delay, Text: "delay:2s", Delay: 2 * time.Second},
		{Kind: Delay, Text: "delay:1m30s", Delay: 90 * time.Second},
		{Kind: Delay, Text: "delay: 3", Delay: 3 * time.Second},
		{Kind: HTTP, Text: "http://127.0.0.1:8080/healthz?a=b", URL: web("http://127.0.0.1:8080/healthz?a=b")},
		{Kind: HTTP, Text: "http://[::1]/it%27s", URL: web("http://[::1]/it's")},
		{Kind: TCP, Text: "tcp://localhost:5432/", URL: web("tcp://localhost:5432/")},
		{Kind: Exec, Text: `exec:/bin/check -q "a,b" 'c,d' e\,f`, Argv: []string{"/bin/check", "-q", "a,b", "c,d", "e,f"}},
		{Kind: Exec, Text: `exec: ["/bin/check", "a,b]", "\"[,"]`, Argv: []string{"/bin/check", "a,b]", `"[,`}},
	}
	want[7].Text = got[7].Text // how an apostrophe is written is not the point
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, empty := range []string{"", " , ,"} {
		if checks, err := Parse(empty); err != nil || checks != nil {
			t.Errorf("%q: %v, %v", empty, checks, err)
		}
	}
}

func TestHostPort(t *testing.T) {
	for text, want := range map[string]string{
		"http://localhost/x": "localhost:80", "http://[::1]": "[::1]:80", "tcp://[::1]:5": "[::1]:5", "http://h:81": "h:81",
	} {
		checks, err := Parse(text)
		must(t, err)
		if got := checks[0].hostPort(); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	cases := map[string]string{
		"https://h/":               "not in this version",
		"grpc://h:1":               "not in this version",
		"ready":                    "none of auto",
		"auto:1s":                  "takes no argument",
		"delay":                    "needs a duration",
		"delay:-1s":                "needs a duration",
		"delay:soon":               "needs a duration",
		"http:///x":                "write http://host:port",
		"http:h":                   "write http://host:port",
		"http://h:0/":              "a port from 1",
		"http://h:/":               "a port from 1",
		"http://h:70000/":          "a port from 1",
		"tcp://h":                  "a port from 1",
		"tcp://h:1/path":           "nothing else",
		"tcp://u@h:1":              "nothing else",
		"http://h%zz/":             "escape",
		"exec:":                    "no command",
		`exec:""`:                  "no command",
		"exec:[]":                  "no command",
		`exec:["a", 1]`:            "JSON array",
		`exec:["a"`:                "JSON array",
		`exec:sh -c "x`:            "quote",
		"exec:a \x00":              "NUL",
		"exec:check a,b":           "quote a comma",
		"ready, delay, https://h/": "\n",
	}
	for list, part := range cases {
		checks, err := Parse(list)
		if err == nil || checks != nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v, %v", list, checks, err)
		}
	}
	_, err := Parse("ready, delay, https://h/")
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d faults instead of 3: %v", n, err)
	}
}

// TestNoPassword looks for the secret in everything that is shown.
func TestNoPassword(t *testing.T) {
	checks, err := Parse("http://user:sesame@h/x")
	must(t, err)
	if strings.Contains(checks[0].String(), "sesame") || checks[0].URL.User == nil {
		t.Errorf("%v", checks[0])
	}
	for _, list := range []string{
		"https://user:sesame@h/x", "tcp://user:sesame@h:1", "http://user:sesame@h:0/", "http://user:sesame@h%zz/",
		"ftp://user:sesame@h/", "http://user:se/sesame@h:x/",
	} {
		if _, err := Parse(list); err == nil || strings.Contains(err.Error(), ":sesame") {
			t.Errorf("%q: %v", list, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`auto,delay:2s,http://h/x,exec:["a,b"],exec:sh -c "a,b"`)
	f.Fuzz(func(t *testing.T, list string) {
		if got := strings.Join(split(list), ","); got != list {
			t.Errorf("split loses bytes: %q", got)
		}
		checks, err := Parse(list)
		if err != nil && checks != nil {
			t.Error("checks beside an error")
		}
		for _, c := range checks {
			if c.Text == "" || (c.Kind == Exec) != (len(c.Argv) > 0) || (c.Kind == HTTP || c.Kind == TCP) != (c.URL != nil) {
				t.Errorf("%+v", c)
			}
		}
	})
}
