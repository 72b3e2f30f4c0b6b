package httpget

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be the helper process: it finds its connection on descriptor 3.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "helper" {
		os.Exit(Main(os.Args[2:], 3))
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
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			got <- r
		}
		respond(c)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	t.Cleanup(func() { c.Close(); l.Close(); <-ended })
	return c.(*net.TCPConn), got
}

func say(text string) func(net.Conn) {
	return func(c net.Conn) { io.WriteString(c, text) }
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	must(t, err)
	return u
}

func TestRequest(t *testing.T) {
	c, request := server(t, say("HTTP/1.1 204 No Content\r\n\r\n"))
	must(t, Get(c, parse(t, "http://user:pw@service.local:8080/healthz?deep=1"), time.Second))
	r := <-request
	user, password, _ := r.BasicAuth()
	if r.Method != "GET" || r.Host != "service.local:8080" || r.URL.RequestURI() != "/healthz?deep=1" ||
		r.Header.Get("Connection") != "close" || r.Header.Get("Accept-Encoding") != "" || user != "user" || password != "pw" {
		t.Errorf("%v %v %v %v", r.Method, r.Host, r.URL, r.Header)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}

func TestAnswers(t *testing.T) {
	block := func(c net.Conn) { io.Copy(io.Discard, c) }
	cases := map[string]struct {
		respond func(net.Conn)
		want    string // "" is a yes
	}{
		"200":          {say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), ""},
		"1.0":          {say("HTTP/1.0 200 OK\r\n\r\nall that follows"), ""},
		"redirect":     {say("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), ""},
		"399":          {say("HTTP/1.1 399 X\r\nContent-Length: 0\r\n\r\n"), ""},
		"early":        {say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), ""},
		"404":          {say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "answered 404"},
		"503":          {say("HTTP/1.1 503 X\r\nContent-Length: 99\r\n\r\n"), "answered 503"},
		"silence":      {block, "did not answer within 100ms"},
		"closed":       {say(""), "closed the connection without a whole answer"},
		"half a line":  {say("HTTP/1."), "does not speak HTTP"},
		"other":        {say("SSH-2.0-OpenSSH\r\n\r\n"), "does not speak HTTP: "},
		"broken body":  {say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), "answered 200 but broke off: closed"},
		"stalled body": {func(c net.Conn) { say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")(c); block(c) }, "answered 200 but broke off: did not answer"},
		"endless body": {func(c net.Conn) {
			say("HTTP/1.1 200 OK\r\n\r\n")(c)
			for {
				if _, err := c.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, ""},
		"endless header": {func(c net.Conn) {
			say("HTTP/1.1 200 OK\r\n")(c)
			for {
				if _, err := fmt.Fprintf(c, "X-Y: %s\r\n", strings.Repeat("z", 4000)); err != nil {
					return
				}
			}
		}, "gave no answer: "},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, _ := server(t, c.respond)
			timeout := 10 * time.Second
			if strings.Contains(c.want, "did not") {
				timeout = 100 * time.Millisecond
			}
			err := Get(conn, parse(t, "http://h/"), timeout)
			if got := fmt.Sprint(err); (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(got, c.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestHelper runs the real thing: another process that is given a connection.
func TestHelper(t *testing.T) {
	cases := []struct {
		respond string
		args    []string
		code    int
		out     string
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", []string{"http://h/", "5s"}, 0, ""},
		{"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", []string{"http://h/", "5s"}, 1, "answered 503\n"},
		{"rubbish \x1b[2J\r\n\r\n", []string{"http://h/", "5s"}, 1, "does not speak HTTP"},
		{"", []string{"http://h/"}, 2, "cannot be asked: internal error: 1 arguments"},
		{"", []string{"http://h/", "soon"}, 2, "cannot be asked: internal error"},
		{"", []string{"http://%zz/", "1s"}, 2, "cannot be asked: internal error: not a URL"},
	}
	for _, c := range cases {
		conn, _ := server(t, say(c.respond))
		f, err := conn.File()
		must(t, err)
		cmd := exec.Command(os.Args[0], append([]string{"helper"}, c.args...)...)
		cmd.ExtraFiles = []*os.File{f}
		out, _ := cmd.Output()
		must(t, f.Close())
		must(t, conn.Close())
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.HasPrefix(string(out), c.out) || (c.out == "") != (len(out) == 0) {
			t.Errorf("%v: exit code %d, %q", c.args, code, out)
		}
		if strings.Count(string(out), "\n") > 1 || strings.Contains(string(out), "\x1b") {
			t.Errorf("%v: not one clean line: %q", c.args, out)
		}
	}
}

func TestHelperWithoutConnection(t *testing.T) {
	cmd := exec.Command(os.Args[0], "helper", "http://h/", "1s")
	out, _ := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.HasPrefix(string(out), "cannot be asked: ") {
		t.Errorf("exit code %d, %q", code, out)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\nb\x1b[c\x7f" + strings.Repeat("x", 1000)); !strings.HasPrefix(got, "a b [c x") || len(got) != 300 {
		t.Errorf("%q", got)
	}
}
