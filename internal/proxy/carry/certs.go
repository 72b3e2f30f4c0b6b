package carry

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/internal/proxy"
)

const (
	// certsAge is how old what is known of the certificate files may be at a handshake.
	certsAge = time.Second
	// certsPatience is how long a handshake waits for PID 1 to look at them; then it is made with those that are known.
	certsPatience = 2 * time.Second
)

// certs are the certificates of the listeners. PID 1 reads their files, which may be root's alone, when it is asked to: at a handshake, so that
// nothing has to look at them again and again.
type certs struct {
	ask func(n uint64) error // for Pairs with that number
	say func(string)

	mu     sync.Mutex
	pairs  map[string]*tls.Certificate
	asked  uint64
	looked time.Time     // when the last answer came
	answer chan struct{} // closed when the one under way has come; nil: none is
}

// heard takes the answer to a question. What is not a pair leaves those before in force.
func (c *certs) heard(p *proxy.Pairs) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.For != c.asked {
		return
	}
	c.looked = time.Now()
	if c.answer != nil {
		close(c.answer)
		c.answer = nil
	}
	switch {
	case p.Err != "":
		c.say(p.Err)
	case !p.Same:
		c.take(p.List)
	}
}

func (c *certs) take(list []proxy.Pair) {
	pairs := map[string]*tls.Certificate{}
	for _, p := range list {
		pair, err := tls.X509KeyPair(p.Cert, p.Key)
		if err != nil {
			c.say(fmt.Sprintf("cannot use a certificate of ENTRYPOINT_PROXY_TLS: %v; those before stay in force", err))
			return
		}
		pairs[p.Name] = &pair
	}
	c.pairs = pairs
}

// get is the certificate of a listener. It blocks until it is known whether the file has changed, for at most certsPatience.
func (c *certs) get(listener string) (*tls.Certificate, error) {
	c.refresh()
	c.mu.Lock()
	defer c.mu.Unlock()
	pair := c.pairs[listener]
	if pair == nil {
		pair = c.pairs[""]
	}
	if pair == nil {
		return nil, errors.New("there is no certificate")
	}
	return pair, nil
}

// refresh asks PID 1, unless it was asked lately, and waits for the answer.
func (c *certs) refresh() {
	c.mu.Lock()
	if c.answer == nil && time.Since(c.looked) < certsAge {
		c.mu.Unlock()
		return
	}
	wait := c.answer
	if wait == nil {
		wait = make(chan struct{})
		c.answer = wait
		c.asked++
		if err := c.ask(c.asked); err != nil {
			c.answer = nil
			c.mu.Unlock()
			return
		}
	}
	c.mu.Unlock()
	select {
	case <-wait:
	case <-time.After(certsPatience):
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.answer == wait {
			c.answer, c.looked = nil, time.Now()
		}
	}
}

// config is TLS for one listener.
func (c *certs) config(listener string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.get(listener) },
	}
}
