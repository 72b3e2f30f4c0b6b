package handoff

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Adopted is a socket that we were started with.
type Adopted struct {
	// Name is what LISTEN_FDNAMES called it.
	Name string
	// FD is the descriptor. It belongs to the Set that it is given to.
	FD int
}

// firstInherited is SD_LISTEN_FDS_START: sockets are passed from descriptor 3 on.
const firstInherited = 3

// maxAdopted bounds what an environment can make us touch.
const maxAdopted = 1024

// Adoptable finds the sockets that systemd, Podman or another init passed to the process pid (ours), by the protocol of
// sd_listen_fds(3): LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES. They are made close-on-exec. Nothing if they are meant for another
// process, or if a descriptor is not open.
func Adoptable(environ []string, pid int) []Adopted {
	value := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		value[k] = v
	}
	n, err := strconv.Atoi(value["LISTEN_FDS"])
	if err != nil || n < 1 || n > maxAdopted || value["LISTEN_PID"] != strconv.Itoa(pid) {
		return nil
	}
	names := strings.Split(value["LISTEN_FDNAMES"], ":")
	var out []Adopted
	for i := 0; i < n; i++ {
		a := Adopted{Name: "unknown", FD: firstInherited + i} // systemd's own word for a nameless one
		if i < len(names) && names[i] != "" {
			a.Name = names[i]
		}
		if _, err := unix.FcntlInt(uintptr(a.FD), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil
		}
		out = append(out, a)
	}
	return out
}

func examineAll(list []Adopted) []*held {
	var out []*held
	for _, a := range list {
		out = append(out, examine(a))
	}
	return out
}

// examine describes an adopted descriptor as a held address. What is no socket that listens or receives (a FIFO, a
// connection) is passed on all the same, without a scheme.
func examine(a Adopted) *held {
	h := &held{adopted: true}
	h.share("adopted from whoever started us")
	h.addr = Address{Name: a.Name, Raw: fmt.Sprintf("fd:%d", a.FD), Options: Options{Mode: -1}}
	h.adoptSlot(a.FD)
	typ, err := unix.GetsockoptInt(a.FD, unix.SOL_SOCKET, unix.SO_TYPE)
	sa, nameErr := unix.Getsockname(a.FD)
	if err != nil || nameErr != nil {
		return h
	}
	if n, err := unix.GetsockoptInt(a.FD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && n == 0 && typ != unix.SOCK_DGRAM {
		return h
	}
	switch sa := sa.(type) {
	case *unix.SockaddrUnix:
		h.addr.Scheme, h.addr.Path = unixScheme(typ), sa.Name
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		h.describeInet(a.FD, typ, sa)
	default:
		return h
	}
	h.addr.Raw = h.String()
	return h
}

func (h *held) describeInet(fd, typ int, sa unix.Sockaddr) {
	ap := addrPortOf(sa)
	h.addr.Scheme, h.addr.Port = "tcp", int(ap.Port())
	if typ == unix.SOCK_DGRAM {
		h.addr.Scheme = "udp"
	}
	h.at = place{family: unix.AF_INET, ip: ap.Addr(), port: h.addr.Port}
	if _, ok := sa.(*unix.SockaddrInet6); ok {
		h.at.family = unix.AF_INET6
		n, _ := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		h.at.v6only = n != 0
	}
	if !ap.Addr().IsUnspecified() {
		h.addr.Host = ap.Addr().String()
	} else if h.at.family == unix.AF_INET || h.at.v6only {
		h.addr.Scheme += map[int]string{unix.AF_INET: "4", unix.AF_INET6: "6"}[h.at.family]
	}
}

func unixScheme(typ int) string {
	switch typ {
	case unix.SOCK_DGRAM:
		return "unixgram"
	case unix.SOCK_SEQPACKET:
		return "unixpacket"
	}
	return "unix"
}

// takeAdopted takes the adopted socket that is a configured address out of the list; nil if there is none. It then
// appears under the configured name.
func takeAdopted(a *Address, list *[]*held) *held {
	for i, h := range *list {
		if h.addr.Scheme == "" || !sameAddress(a, h) {
			continue
		}
		*list = append((*list)[:i:i], (*list)[i+1:]...)
		h.addr = *a
		return h
	}
	return nil
}

func sameAddress(a *Address, h *held) bool {
	if a.family() != h.addr.family() {
		return false
	}
	if !a.inet() {
		return a.Path == h.addr.Path
	}
	if a.Port != h.at.port || a.Port == 0 {
		return false
	}
	places, err := candidates(a)
	for _, p := range places {
		if err == nil && samePlace(p, h.at) {
			return true
		}
	}
	return false
}

func samePlace(a, b place) bool {
	zero := netip.Addr{}
	return a.family == b.family && a.ip != zero && a.ip == b.ip && a.port == b.port
}
