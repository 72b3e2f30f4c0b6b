package handoff

import (
	"net/netip"
)

// Load is what is left of a generation's traffic.
type Load struct {
	// Queued connections wait to be accepted (a UDP or unixgram slot counts 1 if any datagram waits).
	Queued int `json:"queued"`
	// HalfOpen connections are in their handshake.
	HalfOpen int `json:"half_open"`
	// Open connections are accepted and not closed by the program.
	Open int `json:"open"`
	// Busy ones among Open are not idle; see busy for what that means.
	Busy int `json:"busy"`
	// Known is false where it cannot be counted: a shared socket with more than one generation, or no way to ask the kernel.
	Known bool `json:"known"`
}

// Milliseconds after which a connection whose last data both ways is that old is idle.
const (
	// busyRecent: something was sent lately. An answer may come in pieces, with pauses; and where request and answer came in one
	// tick of the kernel's clock, or the request in the tick of the last answer, only time can tell.
	busyRecent = 1000
	busyNew    = 1000 // accepted, and nobody has said anything: the request is on its way, or the program has not looked yet
)

// busy reports whether there is, or may be, work on an open connection: bytes that the program has not read, bytes that
// the client has not confirmed, a request without an answer, which is data received later than the last data sent, or an answer
// that may not be at its end. So does one that was accepted and on which nobody has said anything yet: programs drop those most
// easily. Where there are no times (no sock_diag), every open connection counts as busy.
func busy(c *tcpConn) bool {
	switch {
	case c.rqueue > 0 || c.wqueue > 0 || !c.timed:
		return true
	case c.segsIn == 0 && c.segsOut == 0:
		return c.recvAge < busyNew // both ages count from the handshake then
	case c.segsIn > 0 && c.segsOut == 0:
		return true
	case c.recvAge < c.sentAge:
		return true
	}
	return c.sentAge < busyRecent
}

// Load counts what is left of the generation's traffic. It asks the kernel once for each TCP port, without holding up
// other methods, and allocates nothing for connections. With colours (Linux 5.10) the count is exact at any time. On older
// kernels it is the connections that existed when the traffic was switched away; a connection of the next generation
// that came within that instant is counted too, never one too few. Open unix connections always count as busy, for
// the kernel keeps no times for them.
func (l *Lease) Load() (Load, error) {
	jobs, load, err := l.loadJobs()
	if err != nil {
		return load, err
	}
	for _, j := range jobs {
		if err := j.count(&load); err != nil {
			load.Known = false
			return load, err
		}
	}
	return load, nil
}

// loadJob is what counting one address needs, copied so that it runs without the lock.
type loadJob struct {
	inet   bool
	queued int // read before the dump
	at     place
	name   string // of a unix socket, as its accepted connections show it
	color  uint8
	all    bool                  // every connection of the port: nobody else has any
	left   map[uint64]struct{}   // see slot; never changed once made
	others []map[uint64]struct{} // what other generations still have
}

func (l *Lease) loadJobs() ([]loadJob, Load, error) {
	s, load := l.set, Load{Known: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.leases[l.gen] != l {
		return nil, Load{}, errClosed
	}
	var jobs []loadJob
	for _, h := range s.held {
		if err := h.check(); err != nil {
			s.logf("%v", err)
		}
		sl := l.slotOf(h)
		if sl == nil && h.learned {
			continue // it has nothing there
		}
		alone := s.cfg.Shared || len(s.leases) == 1
		if sl == nil || !h.swappable() && !alone {
			load.Known = false
			continue
		}
		counted := h.addr.stream() && h.addr.Scheme != ""
		if counted {
			j := h.loadJob(sl)
			j.queued = sl.queue(&h.addr)
			jobs = append(jobs, j)
		} else if h.swappable() || h.addr.stream() {
			load.Queued += sl.queue(&h.addr)
		}
	}
	return jobs, load, nil
}

func (h *held) loadJob(sl *slot) loadJob {
	j := loadJob{inet: h.addr.inet(), at: h.at, color: sl.color, left: sl.left, all: !h.swappable(), name: sl.hidden}
	if sl.name != "" {
		j.name = sl.name
	}
	if j.name == "" {
		j.name = h.addr.Path
	}
	if h.addr.abstract() {
		j.name = "\x00" + j.name[1:]
	}
	for _, other := range h.slots {
		if other != sl && other.left != nil {
			j.others = append(j.others, other.left)
		}
	}
	if sl != h.current && j.left == nil {
		j.left = map[uint64]struct{}{} // a candidate: nothing yet but what its colour shows
	}
	return j
}

func (j *loadJob) count(load *Load) error {
	if !j.inet {
		load.Queued += j.queued
		return dumpUnix(func(c *unixConn) {
			if c.state == tcpEstablished && c.inode != 0 && c.sameName(j.name) {
				load.Open++
				load.Busy++
			}
		})
	}
	queued := 0
	err := eachTCP(j.at.family, j.at.port, liveStates, func(c *tcpConn) {
		if !j.mine(c) {
			return
		}
		switch {
		case c.state == tcpSynRecv:
			load.HalfOpen++
		case c.inode == 0 && (c.state == tcpEstablished || c.state == tcpCloseWait):
			queued++ // neither accepted nor, as in the other states, closed by the program
		case c.inode != 0:
			load.Open++
			if busy(c) {
				load.Busy++
			}
		}
	})
	load.Queued += max(queued, j.queued) // one that was half open when the queue was read is in it by now
	return err
}

// mine reports whether a connection belongs to the job's slot.
func (j *loadJob) mine(c *tcpConn) bool {
	switch {
	case !j.here(c.local.Addr()):
		return false
	case j.all:
		return true
	case j.color != 0 && c.colored:
		return c.color == j.color
	case j.left != nil:
		_, ok := j.left[c.key]
		return ok
	}
	for _, other := range j.others {
		if _, ok := other[c.key]; ok {
			return false
		}
	}
	return true
}

// here reports whether a connection to the local address could be one of the place.
func (j *loadJob) here(local netip.Addr) bool {
	return j.at.host().IsUnspecified() || j.at.host().WithZone("") == local
}

// snapshot writes down what a slot has at the moment in which it lost the traffic, taken just after the switch: for a
// coloured slot the half-open connections, which show no colour; else everything that no other slot had lost
// before.
func (h *held) snapshot(sl *slot) map[uint64]struct{} {
	states := uint32(liveStates)
	if sl.color != 0 {
		states = 1 << tcpSynRecv
	}
	j := h.loadJob(sl)
	j.color, j.left = 0, nil
	out := map[uint64]struct{}{}
	_ = eachTCP(h.at.family, h.at.port, states, func(c *tcpConn) {
		if j.mine(c) {
			out[c.key] = struct{}{}
		}
	})
	return out
}

// halfOpen counts the handshakes that may still end in the slot's queue; ok is false if that cannot be known.
func (h *held) halfOpen(left map[uint64]struct{}) (n int, ok bool) {
	err := eachTCP(h.at.family, h.at.port, 1<<tcpSynRecv, func(c *tcpConn) {
		if _, mine := left[c.key]; mine || left == nil {
			n++
		}
	})
	return n, err == nil
}
