package netprobe

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// httpServer serves a handler, over TLS with a certificate for example.com, 127.0.0.1 and ::1 that is made for this test.
func httpServer(t *testing.T, encrypted bool, protocols func(*http.Protocols), h http.HandlerFunc) (*httptest.Server, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = &http.Protocols{}
	protocols(s.Config.Protocols)
	s.Config.ErrorLog = nil
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if encrypted {
		s.EnableHTTP2 = s.Config.Protocols.HTTP2()
		s.StartTLS()
		must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s, ca
}

func dial(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	must(t, err)
	return c
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := fmt.Sprint(err); (err == nil) != (want == "") || err != nil && !strings.Contains(got, want) {
		t.Errorf("%s: error %v, want %q", what, err, want)
	}
}

func TestTLS(t *testing.T) {
	for _, both := range []bool{false, true} {
		s, ca := httpServer(t, true, func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(both) },
			func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
		for options, want := range map[string]string{
			"":                           "has a certificate that cannot be verified: x509: certificate signed by unknown authority; name the authority with ca=FILE",
			";insecure":                  "",
			";ca=" + ca:                  "",
			";ca=/nowhere":               "cannot be verified: open /nowhere",
			";ca=/dev/null":              "cannot be verified: there is no certificate in",
			";servername=other;ca=" + ca: "not other",
			";insecure;status=404":       "answered 200",
			";insecure;body=" + map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[both]: "",
		} {
			wantError(t, options, Ask(dial(t, s), question(t, "https://example.com/"+options)), want)
		}
		wantError(t, "plain to TLS", Ask(dial(t, s), question(t, "http://h/")), "answered 400")
	}
	plain, _ := httpServer(t, false, func(p *http.Protocols) { p.SetHTTP1(true) }, func(http.ResponseWriter, *http.Request) {})
	wantError(t, "TLS to plain", Ask(dial(t, plain), question(t, "https://h/;insecure")), "does not speak TLS")
}

func TestH2C(t *testing.T) {
	s, _ := httpServer(t, false, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true); p.SetHTTP1(true) },
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/bad" {
				w.WriteHeader(500)
			}
			fmt.Fprint(w, r.Proto, r.Host)
		})
	wantError(t, "h2c", Ask(dial(t, s), question(t, "h2c://h/x;body=HTTP/2.0other;host=other")), "")
	wantError(t, "h2c", Ask(dial(t, s), question(t, "h2c://h/bad")), "answered 500")
	wantError(t, "http", Ask(dial(t, s), question(t, "http://h/x;body=HTTP/1.1h")), "")
	c, _ := server(t, say("HTTP/1.1 400 Bad Request\r\n\r\n"))
	wantError(t, "not h2c", Ask(c, question(t, "h2c://h/")), "does not speak HTTP/2")
}

// health is a handler of the protocol for a service that may be anything.
func health(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/grpc+proto")
	if r.Method != "POST" || r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Te") != "trailers" || r.Header.Get("Content-Type") != "application/grpc" {
		w.WriteHeader(400)
		return
	}
	service := ""
	if len(body) > 7 {
		service = string(body[7:])
	}
	status := func(code, message string) {
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", code)
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", message)
	}
	answer := func(b ...byte) { w.Write(frame(b)); status("0", "") }
	switch service {
	case "":
		answer(8, 1)
	case "down":
		answer(8, 2)
	case "zero":
		answer()
	case "later": // fields of a later version around the one we know
		answer(0x12, 2, 'h', 'i', 8, 1, 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8)
	case "odd":
		answer(8, 77)
	case "short":
		answer(8)
	case "nonsense":
		answer(0xff, 0xff, 0xff)
	case "unknown": // no message, and the status in the header
		w.Header().Set("Grpc-Status", "5")
	case "none":
		status("12", "")
	case "broken":
		status("13", "it%20burns")
	case "silent":
	case "endless":
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}
}

var healthAnswers = map[string]string{
	"": "", "/": "", "/later": "", "/down": "answered NOT_SERVING", "/zero": "answered UNKNOWN", "/odd": "unknown health status 77",
	"/short": "cannot be read: it is cut short", "/nonsense": "cannot be read", "/unknown": `does not know the service "unknown"`,
	"/none": "does not implement the health protocol", "/broken": "gRPC status 13: it burns", "/silent": "without a whole answer",
	"/endless": "without a whole answer",
}

func TestGRPC(t *testing.T) {
	s, _ := httpServer(t, false, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, health)
	for service, want := range healthAnswers {
		wantError(t, service, Ask(dial(t, s), question(t, "grpc://h:1"+service)), want)
	}
	secure, ca := httpServer(t, true, func(p *http.Protocols) { p.SetHTTP2(true) }, health)
	for options, want := range map[string]string{"": "cannot be verified", ";insecure": "", ";ca=" + ca: "", "/down;insecure": "NOT_SERVING"} {
		wantError(t, options, Ask(dial(t, secure), question(t, "grpcs://example.com:1"+options)), want)
	}
	page, _ := httpServer(t, false, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, func(http.ResponseWriter, *http.Request) {})
	wantError(t, "a page", Ask(dial(t, page), question(t, "grpc://h:1")), "answered 200 and does not speak gRPC")
}

// realServer is the Python binding of gRPC's own library, which answers with the bytes of the official encoding.
const realServer = `
import sys, grpc
from concurrent import futures
answers = {b"": b"\x08\x01", b"\x0a\x04down": b"\x08\x02"}
def check(request, context):
    if request not in answers:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return answers[request]
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health",
    {"Check": grpc.unary_unary_rpc_method_handler(check)}),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
`

func TestRealGRPC(t *testing.T) {
	const python = "/usr/bin/python3"
	if exec.Command(python, "-c", "import grpc").Run() != nil {
		t.Skip("no gRPC for Python here (python3-grpcio)")
	}
	cmd := exec.Command(python, "-c", realServer)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { in.Close(); cmd.Wait() }()
	var port int
	_, err = fmt.Fscan(out, &port)
	must(t, err)
	for service, want := range map[string]string{"": "", "/down": "answered NOT_SERVING", "/other": `does not know the service "other"`} {
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		must(t, err)
		wantError(t, service, Ask(c, within(question(t, "grpc://h:1"+service), 20*time.Second)), want)
	}
}

func FuzzHealthResponse(f *testing.F) {
	f.Add(frame([]byte{8, 1}))
	f.Add([]byte{0, 0, 0, 0, 9, 0x12, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := healthResponse(b); err == nil && len(b) < 5 {
			t.Error("nothing was read")
		}
	})
}
