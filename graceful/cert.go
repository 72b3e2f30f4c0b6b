package graceful

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// certCheck is how often a handshake looks at the files: a renewal may take a second to be seen, and a thousand handshakes
// a second cost one look.
const certCheck = time.Second

// ReloadCertificate reads a pair of PEM files and returns a function for tls.Config.GetCertificate which reads them again when
// one has changed (time, size or file), looking at most once a second and only when a client connects: there is
// no goroutine. A pair that cannot be read, as between the writing of one file and the other, leaves the old one in
// use, and is tried again after a second. The error is that of the first reading. The function is safe for concurrent use.
//
// Server.ListenAndServeTLS and ServeTLS use it by themselves.
func ReloadCertificate(certFile, keyFile string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	r, err := newReloader(certFile, keyFile, time.Now)
	if err != nil {
		return nil, err
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.current(), nil }, nil
}

type reloader struct {
	certFile, keyFile string
	now               func() time.Time

	mu        sync.Mutex
	cert      *tls.Certificate
	certSeen  os.FileInfo
	keySeen   os.FileInfo
	nextCheck time.Time
}

func newReloader(certFile, keyFile string, now func() time.Time) (*reloader, error) {
	r := &reloader{certFile: certFile, keyFile: keyFile, now: now}
	if err := r.load(); err != nil {
		return nil, fmt.Errorf("cannot load the certificate %q: %w", certFile, err)
	}
	r.nextCheck = now().Add(certCheck)
	return r, nil
}

func (r *reloader) current() *tls.Certificate {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); !now.Before(r.nextCheck) {
		r.nextCheck = now.Add(certCheck)
		_ = r.load() // the old pair stays
	}
	return r.cert
}

// load reads the pair if a file has changed. It looks at the files before it reads them: a change meanwhile is then
// seen the next time.
func (r *reloader) load() error {
	certNow, err := os.Stat(r.certFile)
	if err != nil {
		return err
	}
	keyNow, err := os.Stat(r.keyFile)
	if err != nil {
		return err
	}
	if same(r.certSeen, certNow) && same(r.keySeen, keyNow) {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(r.certFile, r.keyFile)
	if err != nil {
		return err
	}
	r.cert, r.certSeen, r.keySeen = &cert, certNow, keyNow
	return nil
}

func same(a, b os.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
