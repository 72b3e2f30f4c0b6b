package graceful

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// deadline bounds every wait; a test that needs it has failed.
const deadline = 20 * time.Second

func init() {
	helpers["serve"] = serveHelper
	helpers["plain"] = plainHelper
}

// echo answers a POST with its body, some of them a little later.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	time.Sleep(Jitter(3 * time.Millisecond))
	_, _ = w.Write(body)
}

func helperServer() (addr, cert, key string, h http.Handler) {
	return os.Getenv("TEST_ADDR"), os.Getenv("TEST_CERT"), os.Getenv("TEST_KEY"), http.HandlerFunc(echo)
}

// serveHelper is the program that the documentation recommends.
func serveHelper() error {
	addr, cert, key, h := helperServer()
	s := NewServer(addr, h)
	s.Linger, _ = time.ParseDuration(os.Getenv("TEST_LINGER"))
	if cert != "" {
		return s.ListenAndServeTLS(cert, key)
	}
	s.Protocols = h2c()
	return s.ListenAndServe()
}

// plainHelper is the usual program: http.Server.Shutdown on TERM. It shows that the storm finds what it looks for.
func plainHelper() error {
	addr, cert, key, h := helperServer()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, Protocols: h2c()}
	go func() {
		if cert != "" {
			_ = s.ServeTLS(l, cert, key)
			return
		}
		_ = s.Serve(l)
	}()
	if err := Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	if os.Getenv("TEST_KEEPALIVES") == "off" {
		s.SetKeepAlivesEnabled(false)
		_ = l.Close()
		time.Sleep(time.Second)
	}
	return s.Shutdown(context.Background())
}

// held is a listening socket as the init holds it.
type held struct {
	addr string
	file *os.File // a copy that stays non-blocking when it is passed on
}

func holdSocket(t *testing.T) held {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return held{addr: l.Addr().String(), file: dupFile(t, l.(syscall.Conn))}
}

// dupFile copies the descriptor. File of a listener would make the socket blocking for all who share it.
func dupFile(t *testing.T, c syscall.Conn) *os.File {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if ctlErr := rc.Control(func(orig uintptr) { fd, err = syscall.Dup(int(orig)) }); ctlErr != nil || err != nil {
		t.Fatal(ctlErr, err)
	}
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "held")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// generation is a running helper.
type generation struct {
	t      *testing.T
	cmd    *exec.Cmd
	notify *net.UnixConn
	exited chan error
	begun  time.Time // when it was told to stop
	ended  time.Time
}

func startGeneration(t *testing.T, helper string, files []*os.File, env ...string) *generation {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	n, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	g := &generation{t: t, notify: n, exited: make(chan error, 1), cmd: exec.Command(os.Args[0])}
	g.cmd.Env = append(os.Environ(), "GRACEFUL_HELPER="+helper, "NOTIFY_SOCKET="+path, "GORACE=atexit_sleep_ms=0")
	if len(files) > 0 {
		g.cmd.Env = append(g.cmd.Env, "LISTEN_FDS=1")
	}
	g.cmd.Env = append(g.cmd.Env, env...)
	g.cmd.ExtraFiles, g.cmd.Stderr = files, os.Stderr
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { err := g.cmd.Wait(); g.ended = time.Now(); g.exited <- err }()
	t.Cleanup(func() { _ = g.cmd.Process.Kill(); _ = n.Close() })
	return g
}

// await blocks until the generation has said message.
func (g *generation) await(message string) {
	g.t.Helper()
	_ = g.notify.SetReadDeadline(time.Now().Add(deadline))
	buf := make([]byte, 4096)
	for {
		n, err := g.notify.Read(buf)
		if err != nil {
			g.t.Fatalf("no %s: %v", message, err)
		}
		if strings.Contains(string(buf[:n]), message) {
			return
		}
	}
}

// stop says TERM and waits for a good end.
func (g *generation) stop() {
	g.t.Helper()
	g.term()
	g.wait()
}

func (g *generation) term() {
	g.t.Helper()
	g.begun = time.Now()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
}

func (g *generation) wait() {
	g.t.Helper()
	select {
	case err := <-g.exited:
		if err != nil {
			g.t.Fatalf("the old one ended with %v", err)
		}
	case <-time.After(deadline):
		g.t.Fatal("the old one does not end")
	}
}

// writeCert makes a self-signed pair for 127.0.0.1 with that serial number.
func writeCert(t *testing.T, dir string, serial int64) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", keyDER)
	return certFile, keyFile
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// receive waits for a value with the deadline.
func receive[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(deadline):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}

// h2c are the protocols that the test asked for; nil: the usual ones.
func h2c() *http.Protocols {
	if os.Getenv("TEST_H2C") == "" {
		return nil
	}
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}
