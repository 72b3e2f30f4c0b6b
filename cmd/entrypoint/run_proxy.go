package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/artifact"
	helpers "github.com/hotswap-init/entrypoint/internal/helper"
	"github.com/hotswap-init/entrypoint/internal/proxy"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

// proxied tells whether a proxy leads clients to the app.
func (s *setup) proxied() bool { return s.cfg.Handoff == "proxy" }

func (s *setup) parseProxyRange(text string) (err error) {
	s.proxyRange, err = proxy.ParseRange(text)
	return err
}

func (s *setup) parseProxyTLS(text string) (err error) {
	s.proxyTLS, err = proxy.ParseTLS(text)
	return err
}

// parseProxyTrust reads networks, and single addresses.
func (s *setup) parseProxyTrust(text string) error {
	var faults []error
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		p, err := netip.ParsePrefix(item)
		if a, e := netip.ParseAddr(item); e == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%q is no network; write for example 10.0.0.0/8", item))
			continue
		}
		s.proxyTrust = append(s.proxyTrust, p.Masked())
	}
	return errors.Join(faults...)
}

// proxyFaults says which variables do not go together in the proxy mode.
func (s *setup) proxyFaults() error {
	if !s.proxied() {
		return nil
	}
	var faults []error
	fault := func(name, format string, a ...any) {
		faults = append(faults, s.fault(name, fmt.Errorf(format, a...)))
	}
	for _, a := range s.addresses {
		if !strings.HasPrefix(a.Scheme, "tcp") && a.Scheme != "unix" {
			fault("ENTRYPOINT_LISTEN", "the proxy does not carry %s, as of %q; hold tcp and unix addresses, or use another ENTRYPOINT_HANDOFF", a.Scheme, a.Raw)
		}
	}
	for _, f := range s.proxyTLS {
		if f.Name != "" && !slices.ContainsFunc(s.addresses, func(a handoff.Address) bool { return a.Name == f.Name }) {
			fault("ENTRYPOINT_PROXY_TLS", "no address of ENTRYPOINT_LISTEN has the name %q", f.Name)
		}
	}
	switch c := s.cfg; {
	case c.Proxy == "tcp" && len(s.proxyTLS) > 0:
		fault("ENTRYPOINT_PROXY_TLS", "with ENTRYPOINT_PROXY=tcp the app itself speaks TLS; unset one of the two")
	case c.Proxy == "tcp" && len(s.proxyTrust) > 0:
		fault("ENTRYPOINT_PROXY_TRUST", "with ENTRYPOINT_PROXY=tcp there are no headers; unset one of the two")
	case c.Proxy == "http" && c.ProxyProtocol != "off":
		fault("ENTRYPOINT_PROXY_PROTOCOL", "with ENTRYPOINT_PROXY=http clients share connections to the app, which learns of them by X-Forwarded-For; use ENTRYPOINT_PROXY=tcp")
	}
	return errors.Join(faults...)
}

// openFront holds the addresses for the proxy, and prepares it. The app's own set of sockets is empty then.
func (p *initProcess) openFront(adopt []handoff.Adopted) error {
	if clients, overlap := p.proxyRange.Clients(); overlap {
		p.log.Warn("a client's connection may sit on a port of ENTRYPOINT_PROXY_RANGE when the app wants to bind it: choose a range apart",
			"range", p.proxyRange.String(), "clients", clients.String())
	}
	var err error
	if p.public, err = handoff.Open(p.addresses, handoff.Config{Adopt: adopt, Logf: p.logfOf("sockets")}); err != nil {
		return err
	}
	o := proxy.Options{
		Kind: proxy.Kind(p.cfg.Proxy), Range: p.proxyRange, Protocol: proxy.Protocol(p.cfg.ProxyProtocol),
		ConnectTimeout: time.Duration(p.cfg.ProxyConnectTimeout), IdleTimeout: time.Duration(p.cfg.ProxyIdleTimeout),
		Trust: p.proxyTrust, TLS: p.proxyTLS, Grace: time.Duration(p.cfg.DrainTimeout),
		Sockets: p.public, Reaper: p.reaper, Path: "/proc/self/exe", User: p.helperUser(), Stderr: 2, Log: p.log,
	}
	if os.Getpid() != 1 {
		o.ParentDeath = syscall.SIGKILL
	}
	p.front, err = proxy.NewFront(o)
	return err
}

// upgrader is the operation upgrade; nil where there is no proxy.
func (p *initProcess) upgrader() func(context.Context, *swap.Upload) (string, error) {
	var fronted []*initProcess
	for _, m := range p.each() {
		if m.front != nil {
			fronted = append(fronted, m)
		}
	}
	if len(fronted) == 0 {
		return nil
	}
	var one sync.Mutex
	return func(ctx context.Context, u *swap.Upload) (string, error) {
		one.Lock()
		defer one.Unlock()
		var pids []string
		for _, m := range fronted {
			if err := m.upgrade(ctx, u); err != nil {
				return "", err
			}
			pids = append(pids, strconv.Itoa(m.front.Status().PID))
		}
		return "the proxy is a new process (pid " + strings.Join(pids, ", ") + "); the one before finishes what it has", nil
	}
}

// upgrade makes the proxy of the program that came, which is checked as the app's are.
func (p *initProcess) upgrade(ctx context.Context, u *swap.Upload) error {
	a, err := p.store.Adopt(ctx, int(u.File.Fd()), "/entrypoint", "/", artifact.Want{SHA256: u.SHA256, Signature: u.Signature})
	if err != nil {
		return err
	}
	path, fd := a.Exec()
	if err := p.front.Replace(ctx, helpers.Program{Path: path, FD: fd}); err != nil {
		return errors.Join(fmt.Errorf("%w; the one before goes on", err), a.Close())
	}
	if p.upgraded != nil {
		p.logError("proxy", p.upgraded.Close())
	}
	p.upgraded = a
	return nil
}

// front is a proxy as the supervisor sees it.
type front struct{ *proxy.Front }

// ports are a worker's of it.
type ports struct {
	*proxy.Lease
	requests bool
}

func (f front) Lease(at handoff.Seat) (swap.Ports, error) {
	l, err := f.Front.Lease(at)
	if err != nil {
		return nil, err
	}
	return ports{l, f.Kind() == proxy.HTTP}, nil
}

// Patient: what is in flight over HTTP is known exactly. Connections are judged by their silence, as everywhere.
func (p ports) Patient() bool { return p.requests }

func (f front) Status() swap.FrontStatus {
	s := f.Front.Status()
	out := swap.FrontStatus{
		Kind: string(s.Kind), PID: s.PID, Restarts: s.Restarts, Share: s.Share, Clients: s.Clients, Waiting: s.Waiting, Known: s.Known, Generations: []swap.FrontLoad{},
	}
	for _, c := range s.Generations {
		out.Generations = append(out.Generations, swap.FrontLoad{
			Generation: c.Generation, Requests: c.Requests, Upgrades: c.Upgrades, Connections: c.Connections,
		})
	}
	return out
}
