package graceful

import (
	"fmt"
	"net"
)

// Listen returns the inherited socket of that network ("tcp", "tcp4", "tcp6", "unix", "unixpacket") and address, or else binds a
// new one as net.Listen does. The address is written as for net.Listen; a wildcard fits a wildcard (":80", "0.0.0.0:80" and
// "[::]:80" are one address to net.Listen too), but never a single address, and port 0 always binds. The caller closes the
// listener; closing an inherited one does not refuse clients, because the init holds the socket too. Each inherited
// socket is given out once. It does not block, but for a host name that must be looked up. Errors are those of net.Listen, or a malformed
// LISTEN_FDS. Safe for concurrent use.
func Listen(network, address string) (net.Listener, error) {
	return inherited.listen("", network, address)
}

// ListenNamed returns the inherited socket of that name in LISTEN_FDNAMES (of entrypoint's ENTRYPOINT_LISTEN, or of systemd's
// FileDescriptorName=), whatever its address, or else does what Listen does. An empty network means: do not
// bind; it is an error if there is no such socket.
func ListenNamed(name, network, address string) (net.Listener, error) {
	return inherited.listen(name, network, address)
}

// ListenPacket is Listen for datagrams: "udp", "udp4", "udp6", "unixgram".
func ListenPacket(network, address string) (net.PacketConn, error) {
	return inherited.listenPacket(network, address)
}

// Listeners takes all inherited listening sockets that Listen and ListenNamed have not given out, in the order in which they
// were passed. The caller closes them. None, and no error, if there are none. The error is a malformed LISTEN_FDS.
func Listeners() ([]net.Listener, error) {
	var out []net.Listener
	for {
		s, found, err := inherited.take(func(s socket) bool { return s.listener != nil })
		if err != nil || !found {
			return out, err
		}
		out = append(out, s.listener)
	}
}

// PacketConns is Listeners for datagram sockets.
func PacketConns() ([]net.PacketConn, error) {
	var out []net.PacketConn
	for {
		s, found, err := inherited.take(func(s socket) bool { return s.packet != nil })
		if err != nil || !found {
			return out, err
		}
		out = append(out, s.packet)
	}
}

func (a *activation) listen(name, network, address string) (net.Listener, error) {
	if name != "" {
		s, found, err := a.take(func(s socket) bool { return s.listener != nil && s.name == name })
		if err != nil || found {
			return s.listener, err
		}
	}
	if network == "" {
		return nil, fmt.Errorf("cannot listen: no socket named %q was passed", name)
	}
	want, err := parseAddress(network, address)
	if err == nil {
		s, found, err := a.take(func(s socket) bool { return s.listener != nil && want.fits(s.listener.Addr()) })
		if err != nil || found {
			return s.listener, err
		}
	}
	return net.Listen(network, address) // says better than we what is wrong with an address
}

func (a *activation) listenPacket(network, address string) (net.PacketConn, error) {
	want, err := parseAddress(network, address)
	if err == nil {
		s, found, err := a.take(func(s socket) bool { return s.packet != nil && want.fits(s.packet.LocalAddr()) })
		if err != nil || found {
			return s.packet, err
		}
	}
	return net.ListenPacket(network, address)
}
