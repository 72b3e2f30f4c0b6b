package netprobe

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hotswap-init/entrypoint/internal/probe"
)

// TestMain lets the test binary be the helper process: it finds its question on descriptor 0, its connection on 3.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "helper" {
		syscall.Exit(Main(0, 3)) // os.Exit would wait for a second for the race detector
	}
	goleak.VerifyTestMain(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server answers one connection with what respond writes, and returns a connection to it and the request it got.
func server(t *testing.T, respond func(c net.Conn)) (client *net.TCPConn, request <-chan *http.Request) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	got, ended := make(chan *http.Request, 1), make(chan struct{})
	go func() {
		defer close(ended)
		if c, err := l.Accept(); err == nil {
			reply(c, respond, got)
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	t.Cleanup(func() { c.Close(); l.Close(); <-ended })
	return c.(*net.TCPConn), got
}

// reply lets respond answer the one request of a connection, and tells of it where somebody wants to know.
func reply(c net.Conn, respond func(net.Conn), got chan<- *http.Request) {
	defer c.Close()
	if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil && got != nil {
		got <- r
	}
	respond(c)
}

func say(text string) func(net.Conn) {
	return func(c net.Conn) { io.WriteString(c, text) }
}

// question is the request of a check as users write it, with time enough to be answered.
func question(t *testing.T, check string) *probe.Request {
	t.Helper()
	checks, err := probe.Parse(check)
	must(t, err)
	return within(checks[0].Request, 20*time.Second)
}

func within(r *probe.Request, d time.Duration) *probe.Request {
	r.Left, r.Timeout = d, d
	return r
}

func TestRequest(t *testing.T) {
	c, request := server(t, say("HTTP/1.1 204 No Content\r\n\r\n"))
	must(t, Ask(c, question(t, "http://user:pw@service.local:8080/healthz?deep=1;header=X-A: b;header=x-a: c;host=other:1;method=options")))
	r := <-request
	user, password, _ := r.BasicAuth()
	if r.Method != "OPTIONS" || r.Host != "other:1" || r.URL.RequestURI() != "/healthz?deep=1" || strings.Join(r.Header["X-A"], "") != "bc" ||
		r.Header.Get("Connection") != "close" || r.Header.Get("Accept-Encoding") != "" || user != "user" || password != "pw" {
		t.Errorf("%v %v %v %v", r.Method, r.Host, r.URL, r.Header)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}

func TestAnswers(t *testing.T) {
	block := func(c net.Conn) { io.Copy(io.Discard, c) }
	found := say("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well\n")
	cases := map[string]struct {
		respond func(net.Conn)
		want    string // "" is a yes
		options string
	}{
		"201 is not 200": {respond: say("HTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n"), want: "answered 201", options: ";status=200+404"},
		"404 is right":   {respond: say("HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"), options: ";status=200+404"},
		"head":           {respond: say("HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n"), options: ";method=HEAD"},
		"body":           {respond: found, options: ";body=is well"},
		"other body":     {respond: found, want: `answered 200 without "is bad" in its body`, options: ";body=is bad"},
		"pattern":        {respond: found, options: ";body~=^all .* well\\s$"},
		"other pattern":  {respond: found, want: `answered 200 with a body that does not match "^well"`, options: ";body~=^well"},
		"200":            {respond: say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), want: ""},
		"1.0":            {respond: say("HTTP/1.0 200 OK\r\n\r\nall that follows"), want: ""},
		"redirect":       {respond: say("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), want: ""},
		"399":            {respond: say("HTTP/1.1 399 X\r\nContent-Length: 0\r\n\r\n"), want: ""},
		"early":          {respond: say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), want: ""},
		"404":            {respond: say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), want: "answered 404"},
		"503":            {respond: say("HTTP/1.1 503 X\r\nContent-Length: 99\r\n\r\n"), want: "answered 503"},
		"silence":        {respond: block, want: "did not answer within 100ms"},
		"closed":         {respond: say(""), want: "closed the connection without a whole answer"},
		"half a line":    {respond: say("HTTP/1."), want: "does not speak HTTP"},
		"other":          {respond: say("SSH-2.0-OpenSSH\r\n\r\n"), want: "does not speak HTTP: "},
		"broken body":    {respond: say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), want: "answered 200 but broke off: closed"},
		"stalled body":   {respond: func(c net.Conn) { say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")(c); block(c) }, want: "answered 200 but broke off: did not answer"},
		"endless body": {respond: func(c net.Conn) {
			say("HTTP/1.1 200 OK\r\n\r\n")(c)
			for {
				if _, err := c.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}},
		"endless header": {respond: func(c net.Conn) {
			say("HTTP/1.1 200 OK\r\n")(c)
			for {
				if _, err := fmt.Fprintf(c, "X-Y: %s\r\n", strings.Repeat("z", 4000)); err != nil {
					return
				}
			}
		}, want: "gave no answer: "},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var err error
			if strings.Contains(c.want, "did not") {
				synctest.Test(t, func(t *testing.T) { // what comes in time comes in time there
					conn, theirs := net.Pipe()
					go reply(theirs, c.respond, nil)
					err = Ask(conn, within(question(t, "http://h/"+c.options), 100*time.Millisecond))
				})
			} else {
				conn, _ := server(t, c.respond)
				err = Ask(conn, question(t, "http://h/"+c.options))
			}
			if got := fmt.Sprint(err); (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(got, c.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// asked runs the real thing: another process that is given a connection.
func asked(t *testing.T, question []byte, conn *os.File) (code int, out string) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer f.Close()
	_, err = f.Write(question)
	must(t, err)
	cmd := exec.Command(os.Args[0], "helper")
	cmd.Stdin = f
	if conn != nil {
		cmd.ExtraFiles = []*os.File{conn}
	}
	text, _ := cmd.Output()
	return cmd.ProcessState.ExitCode(), string(text)
}

func TestHelper(t *testing.T) {
	encode := func(r *probe.Request) []byte { b, err := json.Marshal(r); must(t, err); return b }
	ask := encode(within(question(t, "http://h/"), 5*time.Second))
	cases := []struct {
		respond  string
		question []byte
		code     int
		out      string
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ask, 0, ""},
		{"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", ask, 1, "answered 503\n"},
		{"rubbish \x1b[2J\r\n\r\n", ask, 1, "does not speak HTTP"},
		{"", []byte("{"), 2, "cannot be asked: internal error: the request"},
		{"", nil, 2, "cannot be asked: internal error: the request"},
		{"", encode(&probe.Request{Kind: probe.HTTP, URL: "http://u:sesame@h%zz/", Left: time.Minute}), 1, "cannot be asked: it is no URL"},
	}
	for _, c := range cases {
		conn, _ := server(t, say(c.respond))
		f, err := conn.File()
		must(t, err)
		code, out := asked(t, c.question, f)
		must(t, f.Close())
		must(t, conn.Close())
		if code != c.code || !strings.HasPrefix(out, c.out) || (c.out == "") != (out == "") {
			t.Errorf("%s: exit code %d, %q", c.question, code, out)
		}
		if strings.Count(out, "\n") > 1 || strings.Contains(out, "\x1b") || strings.Contains(out, "sesame") {
			t.Errorf("%s: not one clean line: %q", c.question, out)
		}
	}
	if code, out := asked(t, ask, nil); code != 2 || !strings.HasPrefix(out, "cannot be asked: ") {
		t.Errorf("without a connection: exit code %d, %q", code, out)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\nb\x1b[c\x7f" + strings.Repeat("x", 1000)); !strings.HasPrefix(got, "a b [c x") || len(got) != 300 {
		t.Errorf("%q", got)
	}
}
