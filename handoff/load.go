package handoff

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/transparent"
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
	// Known is false where it cannot be counted: a shared socket with more than one generation, a share on a kernel that
	// shows no colours, or no way to ask the kernel.
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

// Load counts what is left of the worker's traffic; of a generation of one process that is the generation's. It asks the kernel once for each of a few TCP ports, or
// once for all, without holding up other methods, and allocates nothing for connections. With colours (Linux 5.10) the count is exact at any time. On older
// kernels it is the connections that existed when the traffic was switched away; a connection of the next generation
// that came within that instant is counted too, never one too few, and Known is false for a generation that has had a share
// beside another one. Handshakes show no colour: while two generations have the traffic, and of that time, each counts those of
// both. Open unix connections always count as busy, for
// the kernel keeps no times for them.
//
// A worker that shares a socket, or a colour, with its siblings is known by its processes (Lease.Processes): connections are counted that are
// among their descriptors. What waits in a queue that siblings accept from is theirs.
func (l *Lease) Load() (Load, error) {
	s := l.set
	s.mu.Lock()
	own := l.own
	jobs, load, err := s.loadJobs([]*Lease{l}, own != nil)
	s.mu.Unlock()
	if err == nil && slices.ContainsFunc(jobs, func(j loadJob) bool { return j.told }) {
		inodes := socketsOf(own())
		for i := range jobs {
			jobs[i].own = inodes
		}
	}
	return load.add(jobs, err)
}

// LoadAll counts what is left of the traffic of the worker's whole generation, with the questions of one Load.
func (l *Lease) LoadAll() (Load, error) {
	s := l.set
	s.mu.Lock()
	var all []*Lease
	for _, at := range s.seats(l.gen) {
		all = append(all, s.leases[at])
	}
	jobs, load, err := s.loadJobs(all, false)
	s.mu.Unlock()
	return load.add(jobs, err)
}

// socketsOf are the inodes of what processes have.
func socketsOf(pids []int) map[uint32]struct{} {
	all := map[uint32]struct{}{}
	for _, pid := range pids {
		for _, inode := range transparent.Sockets(pid) {
			all[uint32(inode)] = struct{}{}
		}
	}
	return all
}

// add counts jobs.
func (load Load) add(jobs []loadJob, err error) (Load, error) {
	if err != nil {
		return load, err
	}
	var list []watcher
	for i := range jobs {
		j := &jobs[i]
		j.load = &load
		if j.inet {
			list = append(list, j)
		} else if err = j.countUnix(); err != nil {
			break
		}
	}
	if err == nil {
		err = tell(list, liveStates, fewPorts)
	}
	for _, j := range jobs {
		load.Queued += max(j.waiting, j.queued) // one that was half open when the queue was read is in it by now
	}
	load.Known = load.Known && err == nil
	return load, err
}

// watcher is told of the TCP connections of a place's family and port.
type watcher interface {
	where() place
	see(*tcpConn)
}

// fewPorts are asked for one by one: to walk over all connections of the machine once more costs less than to be told of those of others.
const fewPorts = 4

// tell tells of all connections in one of the states, and returns the first error. The kernel looks at all connections each time that it is
// asked: once for each port where they are not more than few, else once for each family.
func tell(list []watcher, states uint32, few int) (failed error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		ports := map[uint16][]watcher{}
		for _, w := range list {
			if at := w.where(); at.family == family {
				ports[uint16(at.port)] = append(ports[uint16(at.port)], w)
			}
		}
		var asked []uint16
		if len(ports) > few {
			asked = []uint16{0}
		} else {
			for port := range ports {
				asked = append(asked, port)
			}
		}
		for _, port := range asked {
			err := eachTCP(family, int(port), states, func(c *tcpConn) {
				for _, w := range ports[c.local.Port()] {
					w.see(c)
				}
			})
			if failed == nil {
				failed = err
			}
		}
	}
	return failed
}

// loadJob is what counting one address needs, copied so that it runs without the lock.
type loadJob struct {
	inet   bool
	queued int // read before the dump
	at     place
	name   string              // of a unix socket, as its accepted connections show it
	colors uint16              // a bit for each colour
	all    bool                // every connection of the port: nobody else has any
	left   map[uint64]struct{} // see slot; never changed once made, nor is late
	late   map[uint64]struct{}
	others []map[uint64]struct{} // what other generations still have
	told   bool                  // siblings have what looks the same: only descriptors tell
	own    map[uint32]struct{}   // those, of one that is told
	load   *Load                 // what it is added to

	waiting int // those that it has seen in a queue
}

// loadJobs are what has to be counted for leases of one generation: a single one, or all that it has. told says that its processes are
// known. The Set is locked.
func (s *Set) loadJobs(leases []*Lease, told bool) ([]loadJob, Load, error) {
	load := Load{Known: true}
	if s.closed || len(leases) == 0 || s.leases[leases[0].at] != leases[0] {
		return nil, Load{}, errClosed
	}
	alone := s.cfg.Shared && len(leases) == len(s.seats(leases[0].gen)) || len(s.leases) == len(leases)
	var jobs []loadJob
	for _, h := range s.held {
		if err := s.check(h); err != nil {
			s.logf("%v", err)
		}
		slots, lacks := slotsOf(leases, h)
		if len(slots) == 0 && h.learned {
			continue // it has nothing there
		}
		if lacks || !h.swappable() && !alone && !told {
			load.Known = false
			continue
		}
		counted := h.addr.stream() && h.addr.Scheme != ""
		var port loadJob
		for i, sl := range slots {
			divided := s.divided(h, sl, len(leases), alone)
			queued := sl.queue(&h.addr)
			if sl.unsettled != nil {
				load.HalfOpen++ // there may be one
			}
			load.Known = load.Known && !sl.blurred && (!divided || told)
			switch {
			case !counted && (h.swappable() || h.addr.stream()):
				load.Queued += queued
			case counted:
				j := h.loadJob(sl)
				if j.told = divided && told; divided && (!h.swappable() || h.mode == modeRenamed) {
					queued = 0
				}
				if i > 0 {
					j.colors, queued = j.colors|port.colors, queued+port.queued
				}
				j.queued = queued
				port = j
			}
		}
		if counted && len(slots) > 0 {
			jobs = append(jobs, port)
		}
	}
	return jobs, load, nil
}

// slotsOf are the different slots that the leases have of an address; lacks tells whether one should have one, and has none.
func slotsOf(leases []*Lease, h *held) (slots []*slot, lacks bool) {
	for _, l := range leases {
		sl := l.slotOf(h)
		lacks = lacks || sl == nil && !h.learned
		if sl != nil && !slices.Contains(slots, sl) {
			slots = append(slots, sl)
		}
	}
	return slots, lacks
}

// divided tells whether workers that are not asked about have connections that look like those of the slot: n of its generation are.
func (s *Set) divided(h *held, sl *slot, n int, alone bool) bool {
	switch {
	case !h.swappable():
		return !alone
	case n == len(s.seats(sl.gen)):
		return false
	case h.mode == modeRenamed:
		return true
	}
	return sl.color != 0 && s.usedColors(h, sl)[sl.color] > 0
}

func (h *held) loadJob(sl *slot) loadJob {
	j := loadJob{inet: h.addr.inet(), at: h.at, left: sl.left, late: sl.late, all: !h.swappable(), name: sl.hidden}
	if sl.color != 0 {
		j.colors = 1 << sl.color
	}
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
		if other != sl && other.left != nil && !other.mixed {
			j.others = append(j.others, other.left)
		}
	}
	if !h.leads(sl) && j.left == nil {
		j.left = map[uint64]struct{}{} // a candidate: nothing yet but what its colour shows
	}
	return j
}

func (j *loadJob) countUnix() error {
	return dumpUnix(func(c *unixConn) {
		if c.state == tcpEstablished && c.inode != 0 && c.sameName(j.name) && j.has(uint32(c.inode)) {
			j.load.Open++
			j.load.Busy++
		}
	})
}

func (j *loadJob) where() place { return j.at }

// see counts a connection if it is the slot's.
func (j *loadJob) see(c *tcpConn) {
	if !j.mine(c) {
		return
	}
	switch {
	case c.state == tcpSynRecv:
		j.load.HalfOpen++
	case c.inode == 0 && (c.state == tcpEstablished || c.state == tcpCloseWait):
		j.waiting++ // neither accepted nor, as in the other states, closed by the program
	case c.inode != 0:
		j.load.Open++
		if busy(c) {
			j.load.Busy++
		}
	}
}

// mine reports whether a connection belongs to the job's slot.
func (j *loadJob) mine(c *tcpConn) bool {
	switch {
	case !j.here(c.local.Addr()):
		return false
	case j.told && j.own != nil && (c.state != tcpSynRecv || j.all):
		return j.has(c.inode)
	case j.all:
		return true
	case j.colors != 0 && c.colored:
		return j.colors>>c.color&1 == 1
	case j.left != nil:
		_, ok := j.left[c.key]
		_, late := j.late[c.key]
		return ok || late && c.state == tcpSynRecv
	}
	for _, other := range j.others {
		if _, ok := other[c.key]; ok {
			return false
		}
	}
	return true
}

// has reports whether a connection is the worker's, where siblings have what looks the same. One without a socket waits in a
// queue, whose length is known.
func (j *loadJob) has(inode uint32) bool {
	if !j.told || j.own == nil {
		return true
	}
	_, ok := j.own[inode]
	return ok
}

// here reports whether a connection to the local address could be one of the place.
func (j *loadJob) here(local netip.Addr) bool {
	return j.at.host().IsUnspecified() || j.at.host().WithZone("") == local
}

// loss is a slot that has just lost the traffic, or its share of it.
type loss struct {
	h     *held
	sl    *slot
	mixed bool // see slot
	job   loadJob
	found map[uint64]struct{}
	upTo  int // how many had joined the group by then
}

// writeDown notes what slots had at the moment in which they lost the traffic, taken just after the switch: for a
// coloured slot the half-open connections, which show no colour; else everything that no other slot had lost
// before.
func writeDown(losses []*loss) {
	var list []watcher
	states := uint32(0)
	for _, l := range losses {
		if l.h.mode == modeSteered && l.h.addr.stream() {
			list = append(list, l)
			states |= l.begin()
		}
	}
	_ = tell(list, states, 1)
	for _, l := range losses {
		if l.found != nil {
			l.sl.left, l.sl.mixed = l.found, l.mixed
		}
	}
}

// settle looks once more at the half-open connections of slots that have lost their traffic, when no processor is left that had
// begun a handshake by the old program, for such a one shows only when it is made. Those that the next generation has got meanwhile
// are taken for theirs too: a little patience is the price.
func (s *Set) settle(losses []*loss) {
	list := slices.DeleteFunc(slices.Clone(losses), func(l *loss) bool { return l.found == nil })
	if len(list) == 0 {
		return
	}
	for _, l := range list {
		l.sl.unsettled, l.upTo = l, l.h.joins
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.quiesce()
		s.lookAgain(list)
	}()
}

// latecomers are the half-open connections that a second look finds.
type latecomers struct {
	*loss
	job  loadJob
	keys map[uint64]struct{}
}

func (l *latecomers) see(c *tcpConn) {
	if l.job.mine(c) {
		l.keys[c.key] = struct{}{}
	}
}

func (s *Set) lookAgain(losses []*loss) {
	var all []*latecomers
	var list []watcher
	s.mu.Lock()
	for _, l := range losses {
		l.h.unseen = max(l.h.unseen, l.upTo)
		if l.sl.unsettled == l { // else it has the traffic again
			late := &latecomers{l, l.h.loadJob(l.sl), map[uint64]struct{}{}}
			late.job.colors, late.job.left = 0, nil
			all, list = append(all, late), append(list, late)
		}
	}
	s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	_ = tell(list, 1<<tcpSynRecv, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range all {
		if l.sl.unsettled == l.loss {
			l.sl.late, l.sl.unsettled = l.keys, nil
		}
	}
}

// quiesce waits until no processor is in the middle of a packet that it had begun with before: that is a grace period of the kernel's
// RCU, some 10 ms as a rule (membarrier(2), MEMBARRIER_CMD_GLOBAL, Linux 4.3). Where that is refused, a pause has to do.
func quiesce() {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		time.Sleep(quiescePause)
	}
}

const (
	membarrierGlobal = 1
	quiescePause     = 100 * time.Millisecond
)

// begin prepares for see, and is the states that matter.
func (l *loss) begin() uint32 {
	l.found = map[uint64]struct{}{}
	l.job = l.h.loadJob(l.sl)
	l.job.colors, l.job.left = 0, nil
	if l.sl.color != 0 {
		return 1 << tcpSynRecv
	}
	return liveStates
}

func (l *loss) where() place { return l.h.at }

// see notes a connection if it is the slot's.
func (l *loss) see(c *tcpConn) {
	if (l.sl.color == 0 || c.state == tcpSynRecv) && l.job.mine(c) {
		l.found[c.key] = struct{}{}
	}
}

// halfOpen counts the handshakes that may still end in the slot's queue; ok is false if that cannot be known.
func (h *held) halfOpen(left, late map[uint64]struct{}) (n int, ok bool) {
	if left != nil && len(left)+len(late) == 0 {
		return 0, true
	}
	err := eachTCP(h.at.family, h.at.port, 1<<tcpSynRecv, func(c *tcpConn) {
		_, mine := left[c.key]
		_, perhaps := late[c.key]
		if mine || perhaps || left == nil {
			n++
		}
	})
	return n, err == nil
}
