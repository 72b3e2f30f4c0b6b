package handoff

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Address is one address to hold, as written in [name=]scheme://address[?option=value&…].
type Address struct {
	// Name identifies the socket to programs (LISTEN_FDNAMES) and people.
	Name string
	// Scheme is one of tcp tcp4 tcp6 udp udp4 udp6 unix unixgram unixpacket.
	Scheme string
	// Host is an IP address, a name of the hosts file, or empty for all addresses of the machine. Internet schemes only.
	Host string
	// Port is 0 to 65535; 0 lets the kernel choose one when the address is opened. Internet schemes only.
	Port int
	// Path is the file of a unix socket, or its abstract name when it begins with "@".
	Path string
	// Options are what follows the question mark.
	Options Options
	// Raw is scheme://address exactly as configured.
	Raw string
}

// validName tells what a socket may be called: LISTEN_FDNAMES separates with colons and allows no control characters.
func validName(name string) bool {
	return len(name) > 0 && len(name) <= 64 && strings.Trim(name, nameChars) == ""
}

const nameChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"

// schemes lists what ParseAddresses knows, in the order in which an error shows them.
var schemes = []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixgram", "unixpacket"}

// maxUnixPath is sizeof(sun_path) without the terminating zero.
const maxUnixPath = 107

// ParseAddresses reads a comma-separated list of [name=]scheme://address[?option=value&…]. All faults are reported at
// once (errors.Join). An empty list is no addresses and no error. Unnamed addresses are called by scheme and number:
// tcp1, tcp2, udp1, unix1.
func ParseAddresses(list string) ([]Address, error) {
	var out []Address
	var faults []error
	for _, item := range strings.Split(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		a, err := parseAddress(item)
		if err != nil {
			faults = append(faults, fmt.Errorf("cannot listen on %q: %w", item, err))
			continue
		}
		out = append(out, a)
	}
	nameAddresses(out)
	faults = append(faults, duplicates(out)...)
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return out, nil
}

// parseAddress reads one item of the list.
func parseAddress(item string) (Address, error) {
	var a Address
	head, rest, ok := strings.Cut(item, "://")
	if !ok {
		return a, errors.New(`no scheme; write for example "tcp://:8080" or "unix:///run/app.sock"`)
	}
	if name, scheme, named := strings.Cut(head, "="); named {
		if !validName(name) {
			return a, fmt.Errorf("name %q may only have letters, digits, '_', '-' and '.', at most 64", name)
		}
		a.Name, head = name, scheme
	}
	a.Scheme = head
	where, options, _ := strings.Cut(rest, "?")
	a.Raw = a.Scheme + "://" + where
	if err := a.parseWhere(where); err != nil {
		return a, err
	}
	return a, a.parseOptions(options)
}

// parseWhere reads what stands between "://" and "?".
func (a *Address) parseWhere(where string) error {
	switch a.Scheme {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return a.parseHostPort(where)
	case "unix", "unixgram", "unixpacket":
		return a.parsePath(where)
	}
	return fmt.Errorf("unknown scheme %q; known are %s", a.Scheme, strings.Join(schemes, ", "))
}

func (a *Address) parseHostPort(where string) error {
	i := strings.LastIndexByte(where, ':')
	if i < 0 || strings.HasSuffix(where, "]") {
		return fmt.Errorf(`no port in %q; write "%s://:8080" for all addresses`, where, a.Scheme)
	}
	host, port := where[:i], where[i+1:]
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	a.Port = int(n)
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return fmt.Errorf("%q is not an IPv6 address", host)
		}
	} else if strings.ContainsAny(host, ":[]/ ") {
		return fmt.Errorf(`host %q is not an address; an IPv6 address stands in brackets: "[::1]:8080"`, host)
	}
	if host == "*" {
		host = ""
	}
	a.Host = host
	return a.checkFamily()
}

// checkFamily refuses an IPv6 address under tcp4 and the like.
func (a *Address) checkFamily() error {
	ip, err := netip.ParseAddr(a.Host)
	if err != nil {
		return nil // empty, or a name
	}
	if strings.HasSuffix(a.Scheme, "4") && !ip.Is4() {
		return fmt.Errorf("%s is an IPv6 address, %s wants IPv4", ip, a.Scheme)
	}
	if strings.HasSuffix(a.Scheme, "6") && !ip.Is6() {
		return fmt.Errorf("%s is an IPv4 address, %s wants IPv6", ip, a.Scheme)
	}
	return nil
}

func (a *Address) parsePath(where string) error {
	a.Path = where
	switch {
	case where == "" || where == "@":
		return errors.New(`no path; write for example "unix:///run/app.sock" or "unix://@name"`)
	case len(where) > maxUnixPath:
		return fmt.Errorf("path has %d bytes, the kernel takes at most %d", len(where), maxUnixPath)
	case strings.HasSuffix(where, "/"):
		return errors.New("path is a directory")
	case strings.ContainsRune(where, 0):
		return errors.New("path has a zero byte")
	}
	return nil
}

// abstract reports whether the address is a unix socket without a file.
func (a *Address) abstract() bool { return strings.HasPrefix(a.Path, "@") }

// inet reports whether the address has a port.
func (a *Address) inet() bool { return !strings.HasPrefix(a.Scheme, "unix") }

// stream reports whether clients connect and are accepted.
func (a *Address) stream() bool {
	return strings.HasPrefix(a.Scheme, "tcp") || a.Scheme == "unix" || a.Scheme == "unixpacket"
}

// family is the scheme without its IP version: tcp, udp, unix, unixgram, unixpacket.
func (a *Address) family() string { return strings.TrimRight(a.Scheme, "46") }

// nameAddresses gives each unnamed address the scheme and the first number that is free.
func nameAddresses(list []Address) {
	taken := map[string]bool{}
	for _, a := range list {
		taken[a.Name] = true
	}
	next := map[string]int{}
	for i := range list {
		a := &list[i]
		for a.Name == "" {
			next[a.family()]++
			if n := a.family() + strconv.Itoa(next[a.family()]); !taken[n] {
				a.Name, taken[n] = n, true
			}
		}
	}
}

// duplicates finds names and addresses that stand in the list twice.
func duplicates(list []Address) []error {
	var faults []error
	names, places := map[string]bool{}, map[string]bool{}
	for _, a := range list {
		if names[a.Name] {
			faults = append(faults, fmt.Errorf("cannot listen on %q: the name %q is used twice", a.Raw, a.Name))
		}
		names[a.Name] = true
		place := a.place()
		if place != "" && places[place] {
			faults = append(faults, fmt.Errorf("cannot listen on %q: the address is listed twice", a.Raw))
		}
		places[place] = true
	}
	return faults
}

// place is a key that is equal for two spellings of one address; empty for port 0, which is a new place each time.
func (a *Address) place() string {
	if !a.inet() {
		return a.Path
	}
	if a.Port == 0 {
		return ""
	}
	host := a.Host
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = ""
	}
	return fmt.Sprintf("%s %s %d", a.family(), host, a.Port)
}

// spec is the address in the words of server_starter: port, host:port, [v6]:port, or a path.
func (a *Address) spec(port int) string {
	switch {
	case !a.inet():
		return a.Path
	case a.Host == "":
		return strconv.Itoa(port)
	}
	return joinHostPort(a.Host, port)
}

// joinHostPort is net.JoinHostPort for a number.
func joinHostPort(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(port)
}
