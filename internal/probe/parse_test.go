package probe

import (
	"encoding/json"
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
	request := func(k Kind, u string) *Request { return &Request{Kind: k, URL: u} }
	want := []Check{
		{Kind: Auto, Text: "auto"},
		{Kind: Notify, Text: "notify"},
		{Kind: Accept, Text: "accept"},
		{Kind: Delay, Text: "delay:2s", Delay: 2 * time.Second},
		{Kind: Delay, Text: "delay:1m30s", Delay: 90 * time.Second},
		{Kind: Delay, Text: "delay: 3", Delay: 3 * time.Second},
		{Kind: HTTP, Text: "http://127.0.0.1:8080/healthz?a=b", Network: "tcp", Address: "127.0.0.1:8080", Request: request(HTTP, "http://127.0.0.1:8080/healthz?a=b")},
		{Kind: HTTP, Text: "http://[::1]/it%27s", Network: "tcp", Address: "[::1]:80", Request: request(HTTP, "http://[::1]/it%27s")},
		{Kind: TCP, Text: "tcp://localhost:5432/", Network: "tcp", Address: "localhost:5432"},
		{Kind: Exec, Text: `exec:/bin/check -q "a,b" 'c,d' e\,f`, Argv: []string{"/bin/check", "-q", "a,b", "c,d", "e,f"}},
		{Kind: Exec, Text: `exec: ["/bin/check", "a,b]", "\"[,"]`, Argv: []string{"/bin/check", "a,b]", `"[,`}},
	}
	got[7].Text, got[7].Request.URL = want[7].Text, want[7].Request.URL // how an apostrophe is written is not the point
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, empty := range []string{"", " , ,"} {
		if checks, err := Parse(empty); err != nil || checks != nil {
			t.Errorf("%q: %v, %v", empty, checks, err)
		}
	}
}

func TestWhereToConnect(t *testing.T) {
	for text, want := range map[string][3]string{
		"http://localhost/x":                   {"tcp", "localhost:80", "http://localhost/x"},
		"http://[::1]":                         {"tcp", "[::1]:80", "http://[::1]"},
		"http://:8080/x":                       {"tcp", ":8080", "http://localhost:8080/x"},
		"https://h":                            {"tcp", "h:443", "https://h"},
		"h2c://h:81/x":                         {"tcp", "h:81", "h2c://h:81/x"},
		"tcp://[::1]:5":                        {"tcp", "[::1]:5", ""},
		"tcp://:5":                             {"tcp", ":5", ""},
		"grpc://h:81":                          {"tcp", "h:81", "grpc://h:81"},
		"GRPCS://h:81/a.B":                     {"tcp", "h:81", "grpcs://h:81/a.B"},
		"unix:///run/x":                        {"unix", "/run/x", ""},
		"unix://@x":                            {"unix", "@x", ""},
		"http+unix:///run/x.sock":              {"unix", "/run/x.sock", "http://localhost"},
		"http+unix:///run/x%3Ay%2Cz:/a:/b?c=d": {"unix", "/run/x:y,z", "http://localhost/a:/b?c=d"},
		"https+unix://@x:/a":                   {"unix", "@x", "https://localhost/a"},
		"h2c+unix:///x:/":                      {"unix", "/x", "h2c://localhost/"},
		"grpc+unix:///run/x:/a.B":              {"unix", "/run/x", "grpc://localhost/a.B"},
	} {
		checks, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := [3]string{checks[0].Network, checks[0].Address}
		if r := checks[0].Request; r != nil {
			got[2] = r.URL
		}
		if got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func TestOptions(t *testing.T) {
	got, err := Parse(`https://h/x; Status=200-299+404 ;header=X-A: b;header="X-B: c,d;e";method=post;host=a.example:80;body='x;y'` +
		`;body~="a\"[,;]+";ca=/ca.pem;servername=s;successes=2;failures=3;period=50ms;timeout=1;deadline=20s,` +
		`exec:sh -c "a;b";timeout=2s,exec:["a;b"];timeout=3s,notify;deadline=4s,accept;timeout=5s,grpcs://h:1;insecure,auto;`)
	must(t, err)
	want := []Check{
		{Kind: HTTPS, Text: "https://h/x", Network: "tcp", Address: "h:443", Successes: 2, Failures: 3, Period: 50 * time.Millisecond,
			Timeout: time.Second, Deadline: 20 * time.Second, Request: &Request{Kind: HTTPS, URL: "https://h/x", Method: "POST",
				Host: "a.example:80", Header: []Field{{"X-A", "b"}, {"X-B", "c,d;e"}}, Status: []Range{{200, 299}, {404, 404}},
				Body: "x;y", Pattern: `a"[,;]+`, CA: "/ca.pem", ServerName: "s"}},
		{Kind: Exec, Text: `exec:sh -c "a;b"`, Argv: []string{"sh", "-c", "a;b"}, Timeout: 2 * time.Second},
		{Kind: Exec, Text: `exec:["a;b"]`, Argv: []string{"a;b"}, Timeout: 3 * time.Second},
		{Kind: Notify, Text: "notify", Deadline: 4 * time.Second},
		{Kind: Accept, Text: "accept", Timeout: 5 * time.Second},
		{Kind: GRPCS, Text: "grpcs://h:1", Network: "tcp", Address: "h:1", Request: &Request{Kind: GRPCS, URL: "grpcs://h:1", Insecure: true}},
		{Kind: Auto, Text: "auto"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r := got[0].Request
	for code, want := range map[int]bool{199: false, 200: true, 299: true, 302: false, 404: true, 500: false} {
		if r.Accepts(code) != want {
			t.Errorf("%d: %v", code, !want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	cases := map[string]string{
		"https://h;insecure=1":             "takes no value",
		"https://h;insecure;ca=/x":         "nothing would be verified",
		"https://h;ca=x":                   "absolute path",
		"http://h;insecure":                "not for http",
		"http://h;color=red":               "no option \"color\"; a semicolon of a URL",
		"http://h;a=b;c=d":                 "\n",
		"http://h;status=2xx":              "200-299+404",
		"http://h;status=300-200":          "200-299+404",
		"http://h;status=":                 "a value is missing",
		"http://h;method=a b":              "no method",
		"http://h;method=CONNECT":          "tunnel",
		"http://h;method=HEAD;body=x":      "no body",
		"http://h;header=x":                "Name: value",
		"http://h;header=a: b\r\nc":        "control",
		"http://h;header=Host: b":          "option host",
		"http://h;host=a/b":                "host:port",
		"http://h;body~=(":                 "missing closing",
		"http://h;body='a":                 "not closed",
		"http://h;body='a'b":               "follows the closing",
		"http://h;successes=0":             "from 1",
		"http://h;successes=1;successes=2": "twice",
		"http://h;timeout=0":               "like 2s",
		"http://h;timeout=3;deadline=2":    "longer than its deadline",
		"delay:1s;timeout=2s":              "not for delay",
		"notify;successes=2":               "not for notify",
		"exec:a;b":                         "quote a semicolon",
		";timeout=1":                       "none of auto",
		"grpc://h":                         "a port from 1",
		"grpc://h:1/a/b":                   "/service",
		"grpc://u:p@h:1":                   "/service",
		"unix://x":                         "path of a socket",
		"unix:///":                         "from 2",
		"http+unix:///a%00b:/":             "no NUL",
		"tcp+unix:///a":                    "none of auto",
		"exec+unix:///a":                   "none of auto",
		"ready":                            "none of auto",
		"auto:1s":                          "takes no argument",
		"delay":                            "needs a duration",
		"delay:-1s":                        "needs a duration",
		"delay:soon":                       "needs a duration",
		"http:///x":                        "write http://host:port",
		"http:h":                           "write http://host:port",
		"http://h:0/":                      "a port from 1",
		"http://h:/":                       "a port from 1",
		"http://h:70000/":                  "a port from 1",
		"tcp://h":                          "a port from 1",
		"tcp://h:1/path":                   "nothing else",
		"tcp://u@h:1":                      "nothing else",
		"http://h%zz/":                     "escape",
		"exec:":                            "no command",
		`exec:""`:                          "no command",
		"exec:[]":                          "no command",
		`exec:["a", 1]`:                    "JSON array",
		`exec:["a"`:                        "JSON array",
		`exec:sh -c "x`:                    "quote",
		"exec:a \x00":                      "NUL",
		"exec:check a,b":                   "quote a comma",
		"ready, delay, grpc://h/":          "\n",
	}
	for list, part := range cases {
		checks, err := Parse(list)
		if err == nil || checks != nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v, %v", list, checks, err)
		}
	}
	_, err := Parse("ready, delay, grpc://h/")
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d faults instead of 3: %v", n, err)
	}
}

// TestNoPassword looks for the secret in everything that is shown.
func TestNoPassword(t *testing.T) {
	checks, err := Parse("http://user:sesame@h/x")
	must(t, err)
	if strings.Contains(checks[0].String(), "sesame") || !strings.Contains(checks[0].Request.URL, "user:sesame@") {
		t.Errorf("%v", checks[0])
	}
	for _, list := range []string{
		"grpc://user:sesame@h:1/x", "http+unix://user:sesame@/x", "http://user:sesame@h/;header=Authorization: Bearer :sesame;x=y", "http://h/;header=:sesame", "tcp://user:sesame@h:1", "http://user:sesame@h:0/", "http://user:sesame@h%zz/",
		"ftp://user:sesame@h/", "http://user:se/sesame@h:x/",
	} {
		if _, err := Parse(list); err == nil || strings.Contains(err.Error(), ":sesame") {
			t.Errorf("%q: %v", list, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`auto,delay:2s,http://h/x,exec:["a,b"],exec:sh -c "a,b"`)
	f.Add(`https://h;status=200+301-399;header="a: b;c",grpc+unix:///x:/y;timeout=1s,exec:a;period=1`)
	f.Add(`http://h;body="a\`)
	f.Fuzz(func(t *testing.T, list string) {
		var joined []string
		for _, parts := range split(list) {
			joined = append(joined, strings.Join(parts, ";"))
		}
		if got := strings.Join(joined, ","); got != list {
			t.Errorf("split loses bytes: %q", got)
		}
		checks, err := Parse(list)
		if err != nil && checks != nil {
			t.Error("checks beside an error")
		}
		for _, c := range checks {
			if c.Text == "" || (c.Kind == Exec) != (len(c.Argv) > 0) || c.Kind.asks() != (c.Request != nil) || c.Kind.connects() != (c.Address != "") {
				t.Errorf("%+v", c)
			}
			if b, err := json.Marshal(c.Request); err != nil || len(b) > 100+40*len(list) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		}
	})
}
