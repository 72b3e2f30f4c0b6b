package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/internal/proxy"
)

// certify writes a certificate with that serial number, and its key.
func certify(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"test.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, text, text, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTLS: HTTP/1.1 and HTTP/2 over TLS, the app is told so, and a new certificate is in force without anybody being told.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certify(t, cert, key, 1)
	s, _ := serving(t, proxy.Options{Kind: proxy.HTTP, TLS: []proxy.Files{{Cert: cert, Key: key}}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-Proto"))
	}))
	ask := func(h2 bool) int64 {
		t.Helper()
		p := &http.Protocols{}
		p.SetHTTP1(!h2)
		p.SetHTTP2(h2)
		tr := &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "test.example"}}
		defer tr.CloseIdleConnections()
		a, err := (&http.Client{Transport: tr, Timeout: patience}).Get("https://" + s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, _ := io.ReadAll(a.Body)
		if string(b) != "https" || h2 != (a.ProtoMajor == 2) {
			t.Errorf("%q by %s", b, a.Proto)
		}
		return a.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if n := ask(false); n != 1 {
		t.Errorf("certificate %d", n)
	}
	if n := ask(true); n != 1 {
		t.Errorf("certificate %d", n)
	}
	certify(t, cert, key, 2)
	s.eventually("the new certificate is in force", func() error { // the files are looked at once a second at most
		if n := ask(true); n != 2 {
			return fmt.Errorf("certificate %d", n)
		}
		return nil
	})
	if err := os.WriteFile(cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // they are looked at again, and nothing is to happen
	if n := ask(false); n != 2 {
		t.Errorf("certificate %d after it was broken", n)
	}
}
