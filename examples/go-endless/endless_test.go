// Package endless_test builds the programs beside it and drains them under a client that keeps its connection.
package endless_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deadline bounds every wait; a test that needs it has failed.
const deadline = 20 * time.Second

func TestProgramsDrain(t *testing.T) {
	certs := t.TempDir()
	writeCert(t, certs)
	for _, c := range []struct {
		name   string
		flags  []string // an address follows each -addr
		secure bool
		says   []string // in this order
	}{
		{"simple", []string{"-addr"}, false, []string{"stopped"}},
		{"tls", []string{"-cert", filepath.Join(certs, "cert.pem"), "-key", filepath.Join(certs, "key.pem"), "-addr"}, true, []string{"stopped"}},
		{"multiport", []string{"-addr", "-addr2"}, false, []string{": <nil>", ": <nil>", "all stopped"}},
		{"hooks", []string{"-addr"}, false, []string{"serving", "before TERM", "after TERM", "stopped"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, c.name, c.flags)
			var clients []*client
			for _, a := range p.addrs {
				cl := dial(t, a, c.secure)
				if cl.get() {
					t.Error("closes before the drain")
				}
				clients = append(clients, cl)
			}
			p.term()
			for _, cl := range clients {
				for end := time.Now().Add(deadline); !cl.get(); { // the signal may be on its way
					if time.Now().After(end) {
						t.Fatal("is not told to close")
					}
				}
			}
			p.ended(c.says)
		})
	}
}

type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	addrs  []string
	log    strings.Builder
	exited chan error
}

// start builds a program and runs it as an init would, with a socket for each of its addresses.
func start(t *testing.T, name string, flags []string) *program {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", bin, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := &program{t: t, exited: make(chan error, 1)}
	p.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", bin) // which knows its number
	for _, f := range flags {
		p.cmd.Args = append(p.cmd.Args, f)
		if strings.HasPrefix(f, "-addr") {
			p.hold()
		}
	}
	p.cmd.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(p.addrs)))
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// hold makes a socket, whose address becomes the next argument.
func (p *program) hold() {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _, _ = l.Close(), f.Close() })
	p.addrs = append(p.addrs, l.Addr().String())
	p.cmd.Args = append(p.cmd.Args, l.Addr().String())
	p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, f)
}

func (p *program) term() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

// ended expects status 0 and these words in the log.
func (p *program) ended(words []string) {
	p.t.Helper()
	select {
	case err := <-p.exited:
		if err != nil {
			p.t.Errorf("ended with %v", err)
		}
	case <-time.After(deadline):
		p.t.Fatal("does not end")
	}
	rest := p.log.String()
	for _, w := range words {
		_, after, found := strings.Cut(rest, w)
		if !found {
			p.t.Fatalf("no %q in its place in\n%s", w, p.log.String())
		}
		rest = after
	}
}

type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// dial connects; the connection waits for the program in the socket.
func dial(t *testing.T, addr string, secure bool) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(deadline))
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	return &client{t, c, bufio.NewReader(c)}
}

// get sends a request, expects its answer, and tells whether it is the last.
func (c *client) get() (closes bool) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		c.t.Fatal(err)
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || !strings.HasPrefix(string(body), "WORLD") {
		c.t.Fatalf("answer %q, %v", body, err)
	}
	return res.Close
}

func writeCert(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
