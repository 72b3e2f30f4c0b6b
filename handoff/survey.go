package handoff

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Survey looks for TCP listeners that a program has without our having seen it bind them: through io_uring, or by the calls of
// a foreign ABI. owns tells whether a socket, by its inode, is one of the program's; it is asked only about listeners of this
// network namespace that are not ours. What is found is noted (Natives). Without sock_diag nothing is found.
func (s *Set) Survey(owns func(inode uint64) bool) {
	s.mu.Lock()
	ours := map[uint64]bool{}
	for _, h := range s.held {
		for _, sl := range h.slots {
			ours[sl.inode] = true
		}
	}
	s.mu.Unlock()
	var found []netip.AddrPort
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		var c tcpConn
		_ = diagQuery(inetDiagRequest(family, 1<<tcpListen, netip.AddrPort{}, netip.AddrPort{}), unix.NLM_F_DUMP, func(b []byte) {
			if c.decode(b) && c.state == tcpListen && c.inode != 0 && !ours[uint64(c.inode)] && owns(uint64(c.inode)) {
				found = append(found, c.local)
			}
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range found {
		address := "tcp://" + at.String()
		if !slices.ContainsFunc(s.natives, func(n Native) bool { return n.Address == address }) {
			s.native(Native{Address: address, Exclusive: true, Why: "its bind could not be seen: it went through io_uring or the calls of a foreign ABI"})
		}
	}
}
