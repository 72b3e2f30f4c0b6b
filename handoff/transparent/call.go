package transparent

import (
	"net/netip"
	"syscall"
)

// Op is which call a program made.
type Op int

// The operations that the filter shows.
const (
	Bind   Op = iota // bind(2) of an IPv4, IPv6 or unix socket
	Listen           // listen(2)
	Set              // setsockopt(2)
	Unlink           // unlink(2), or unlinkat(2) of a path
	Nested           // seccomp(2) that asks for a notification descriptor: the kernel will answer EBUSY
)

// Call is one system call of a program that waits for its answer.
type Call struct {
	Op  Op
	TID int // the calling thread, in our pid namespace
	FD  int // the program's descriptor
	// Blind says why the program could not be looked into; nothing below is known then.
	Blind error
	// Inode is the socket's, 0 if the descriptor is no socket.
	Inode uint64
	// Protocol is the kernel's name: TCP, TCPv6, MPTCP, MPTCPv6, UDP, UDPv6, UNIX, UNIX-STREAM, ... Not of Set.
	Protocol string
	// NonBlocking and CloseOnExec are the descriptor's flags. Not of Set.
	NonBlocking, CloseOnExec bool
	// Foreign is true in another network namespace than ours.
	Foreign bool
	// Polled is true if one of the program's epoll sets has the socket already. Only of Bind, and of no port 0, which is the kernel's
	// to choose: the search is the longest part of looking.
	Polled bool
	// Family, Addr and Path are what is bound. Addr of IPv6 has the zone as a number; Path of an abstract socket begins with
	// "@", any other is absolute. Path is also what is unlinked.
	Family int
	Addr   netip.AddrPort
	Path   string
	// Elsewhere is true if Path is not one of our own file system tree: another mount namespace, or another root.
	Elsewhere bool
	// UID, GID and Umask are what a file that the program makes would get, PID and Parent the numbers of the process and of
	// the one that started it. Only of the bind of a path.
	UID, GID, Umask int
	PID, Parent     int
	// Level, Name and Value are of Set.
	Level, Name int
	Value       []byte
}

// TCP tells whether the socket is one of TCP, or of MPTCP, which Go listens with.
func (c *Call) TCP() bool {
	switch c.Protocol {
	case "TCP", "TCPv6", "MPTCP", "MPTCPv6":
		return true
	}
	return false
}

// UDP tells whether the socket is one of UDP.
func (c *Call) UDP() bool { return c.Protocol == "UDP" || c.Protocol == "UDPv6" }

// Answer is what becomes of a call. The zero Answer lets the kernel carry it out.
type Answer struct {
	// Replace puts a copy of FD in the place of the program's descriptor, with the same close-on-exec mark.
	Replace bool
	FD      int
	// Owned closes FD afterwards; else it stays the handler's.
	Owned bool
	// Done ends the call with success without the kernel. A call whose descriptor was replaced is always ended so.
	Done bool
	// Errno, if it is not 0, ends the call with that error.
	Errno syscall.Errno
}

// Handler decides. Its method is called by the goroutine of Serve while the program waits, so it must be quick. A panic lets
// the kernel carry the call out.
type Handler interface {
	Handle(c *Call) Answer
	// Unlinks tells whether calls of Unlink are of interest now. If not they are not looked at: they are frequent.
	Unlinks() bool
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(c *Call) Answer

// Handle calls f.
func (f HandlerFunc) Handle(c *Call) Answer { return f(c) }

// Unlinks is true.
func (f HandlerFunc) Unlinks() bool { return true }
