package graceful

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// wanted is an address that a program asks for.
type wanted struct {
	network string
	ip      net.IP // nil: any
	zone    string
	port    int
	path    string // of a unix socket
}

// parseAddress reads an address as package net does.
func parseAddress(network, address string) (wanted, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		a, err := net.ResolveTCPAddr(network, address)
		if err != nil {
			return wanted{}, err
		}
		return wanted{network: network, ip: a.IP, zone: a.Zone, port: a.Port}, nil
	case "udp", "udp4", "udp6":
		a, err := net.ResolveUDPAddr(network, address)
		if err != nil {
			return wanted{}, err
		}
		return wanted{network: network, ip: a.IP, zone: a.Zone, port: a.Port}, nil
	case "unix", "unixpacket", "unixgram":
		return wanted{network: network, path: address}, nil
	}
	return wanted{}, fmt.Errorf("unknown network %q", network)
}

// fits tells whether a bound socket is what was asked for.
func (w wanted) fits(bound net.Addr) bool {
	switch b := bound.(type) {
	case *net.TCPAddr:
		return strings.HasPrefix(w.network, "tcp") && w.fitsIP(b.IP, b.Zone, b.Port)
	case *net.UDPAddr:
		return strings.HasPrefix(w.network, "udp") && w.fitsIP(b.IP, b.Zone, b.Port)
	case *net.UnixAddr:
		return w.network == b.Net && w.path != "" && samePath(w.path, b.Name)
	}
	return false
}

func (w wanted) fitsIP(ip net.IP, zone string, port int) bool {
	if w.port != port { // port 0 is that of no bound socket
		return false
	}
	v4 := ip.To4() != nil
	if strings.HasSuffix(w.network, "4") && !v4 || strings.HasSuffix(w.network, "6") && v4 {
		return false
	}
	if w.ip == nil || w.ip.IsUnspecified() {
		return ip == nil || ip.IsUnspecified()
	}
	return w.ip.Equal(ip) && w.zone == zone
}

// samePath compares the names of unix sockets; abstract ones ("@") must be equal, paths may be written differently.
func samePath(a, b string) bool {
	if a == b || a[0] == '@' || b == "" || b[0] == '@' {
		return a == b
	}
	x, errX := filepath.Abs(a)
	y, errY := filepath.Abs(b)
	return errX == nil && errY == nil && x == y
}
