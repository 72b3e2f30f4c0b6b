package graceful

import (
	"crypto/tls"
	"math/big"
	"os"
	"testing"
	"time"
)

func serial(t *testing.T, c *tls.Certificate) int64 {
	t.Helper()
	return c.Leaf.SerialNumber.Int64()
}

func TestReloadCertificate(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1000, 0)
	certFile, keyFile := writeCert(t, dir, 1)
	r, err := newReloader(certFile, keyFile, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, want int64) {
		t.Helper()
		if got := serial(t, r.current()); got != want {
			t.Errorf("%s: certificate %d, want %d", when, got, want)
		}
	}
	expect("at first", 1)
	writeCert(t, dir, 2)
	age(t, certFile, keyFile) // so that it surely has another time
	expect("within the second", 1)
	now = now.Add(certCheck)
	expect("after it", 2)
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	writeBytes(t, keyFile, []byte("half"))
	now = now.Add(certCheck)
	expect("half written", 2)
	writeBytes(t, keyFile, key)
	now = now.Add(certCheck)
	expect("whole again", 2)
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	now = now.Add(certCheck)
	expect("gone", 2)
	writeCert(t, dir, 3)
	age(t, certFile, keyFile)
	now = now.Add(certCheck)
	expect("renewed", 3)
}

func TestReloadCertificateFirstError(t *testing.T) {
	if _, err := ReloadCertificate("/no/cert", "/no/key"); err == nil {
		t.Error("no error")
	}
}

func age(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.Chtimes(p, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
}

func writeBytes(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestServeTLSReloads(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := writeCert(t, dir, 1)
	r := serveTest(t, NewServer("", nil), func(s *Server) error { return s.ServeTLS(listenLocal(t, s), certFile, keyFile) })
	want := func(n int64) bool {
		c, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true, ServerName: "x"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(big.NewInt(n)) == 0
	}
	if !want(1) {
		t.Error("not the first certificate")
	}
	writeCert(t, dir, 2)
	age(t, certFile, keyFile)
	for end := time.Now().Add(deadline); !want(2); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the certificate is not reloaded")
		}
	}
	r.drain()
}
