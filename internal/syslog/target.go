package syslog

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
)

// Target is where lines go. The zero value is standard error.
type Target struct {
	Network string `json:"network"` // unixgram, udp or tcp; "": standard error
	Address string `json:"address"`
}

// localSocket is where a syslog on this machine listens.
const localSocket = "/dev/log"

// Parse reads the text of ENTRYPOINT_LOG.
func Parse(text string) (Target, error) {
	text = strings.TrimSpace(text)
	switch strings.ToLower(text) {
	case "", "stderr":
		return Target{}, nil
	case "syslog":
		return Target{"unixgram", localSocket}, nil
	}
	bad := func(why string) (Target, error) {
		return Target{}, fmt.Errorf("%q %s: write stderr, syslog, syslog:///PATH, udp://HOST:PORT or tcp://HOST:PORT", text, why)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return bad("cannot be read")
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return bad("has more than a place")
	case u.Scheme == "syslog" && u.Host == "" && filepath.IsAbs(u.Path):
		return Target{"unixgram", filepath.Clean(u.Path)}, nil
	case u.Scheme != "udp" && u.Scheme != "tcp":
		return bad("is no place for a log")
	case u.Path != "" && u.Path != "/":
		return bad("has a path")
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"udp": "514", "tcp": "601"}[u.Scheme]
	}
	if host == "" {
		return bad("names no host")
	}
	return Target{u.Scheme, net.JoinHostPort(host, port)}, nil
}
