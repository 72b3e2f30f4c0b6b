package handoff

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff/transparent"
)

// Times of learned addresses.
const (
	// expectedWithin: what the active generation listened on so soon after its start is expected of its successor too.
	// Later ones come when they come.
	expectedWithin = 30 * time.Second
	// expectedAtLeast is how long a successor is given for them at least.
	expectedAtLeast = 5 * time.Second
	// unclaimedAtLeast and unclaimedAtMost bound how long a learned address is held that the active generation has not
	// listened on: a program may need minutes, and one that has given up a port must not leave its clients waiting.
	unclaimedAtLeast = time.Minute
	unclaimedAtMost  = 10 * time.Minute
)

const (
	maxNoted   = 1024 // sockets of a generation whose options, or places, are remembered
	maxOptions = 32   // of one socket
	maxNatives = 64   // that are remembered
	maxSaid    = 16   // sentences for a generation
)

// setting is one socket option as a program set it.
type setting struct {
	level, name int
	value       string
}

// bound is a socket that stands for a program's own one from its bind until it listens: bound to the place, a member of
// no group yet, and not ours any more. It may as well be connected, as clients with a fixed port do.
type bound struct {
	at      place
	options []setting
}

// notes are what is remembered of a generation's sockets, by inode. The oldest make room.
type notes struct {
	options map[uint64][]setting
	bound   map[uint64]bound
	paths   map[uint64]boundPath // our own; freed with the lease
	left    map[uint64]Native    // unix sockets bound by the program itself; with no address: nobody's affair
	said    []string             // what was logged
	order   []uint64
}

func (n *notes) remember(inode uint64) {
	if n.options == nil {
		n.options, n.bound = map[uint64][]setting{}, map[uint64]bound{}
		n.paths, n.left = map[uint64]boundPath{}, map[uint64]Native{}
	}
	if slices.Contains(n.order, inode) {
		return
	}
	if len(n.order) >= maxNoted {
		delete(n.options, n.order[0])
		delete(n.bound, n.order[0])
		delete(n.left, n.order[0])
		n.order = slices.Delete(n.order, 0, 1)
	}
	n.order = append(n.order, inode)
}

// Native is an address that a program has by itself: we hold nothing for it, so generations that both want it cannot overlap.
type Native struct {
	// Address is what it bound, as far as that is known.
	Address string `json:"address"`
	// Why it is not held.
	Why string `json:"why"`
	// Exclusive is true if a second generation could not bind it.
	Exclusive bool `json:"exclusive"`
}

// Natives lists what is not held, in the order in which it was met.
func (s *Set) Natives() []Native {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.natives)
}

// native notes an address that stays the program's own, and says so once.
func (s *Set) native(n Native) {
	if slices.Contains(s.natives, n) || len(s.natives) >= maxNatives {
		return
	}
	s.natives = append(s.natives, n)
	effect := ""
	if n.Exclusive {
		effect = "; swaps stop the old generation first"
	}
	s.logf("%s is not held: %s%s", n.Address, n.Why, effect)
}

// Handle answers a call of the generation's program: it is the transparent.Handler of a lease. What a program binds is
// looked up among the held addresses, or learned; when it listens it gets the slot of its generation.
func (l *Lease) Handle(c *transparent.Call) transparent.Answer {
	s := l.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.leases[l.at] != l {
		return transparent.Answer{}
	}
	switch {
	case c.Op == transparent.Nested:
		l.logOnce(fmt.Sprintf("process %d of generation %d asks for a seccomp notification descriptor of its own and gets EBUSY: only one is possible, and it shows us what the app binds; ENTRYPOINT_HANDOFF=inherit or none leaves it to the app", c.TID, l.gen))
		return transparent.Answer{}
	case c.Blind != nil:
		if c.Op == transparent.Listen { // many bind as clients, or what is no address of the internet
			s.native(Native{Address: "what a process of another identity listens on", Exclusive: true,
				Why: fmt.Sprintf("it cannot be looked into (%v): it changed its user without exec; start it as that user (ENTRYPOINT_USER), or grant CAP_SYS_PTRACE", c.Blind)})
		}
		return transparent.Answer{}
	case c.Op == transparent.Set:
		return l.set1(c)
	case c.Op == transparent.Unlink:
		return l.unlink(c)
	case c.Op == transparent.Bind && c.Family == unix.AF_UNIX:
		return l.bindPath(c)
	case c.Op == transparent.Bind:
		return l.bind(c)
	case c.Op == transparent.Listen:
		return l.listen(c)
	}
	return transparent.Answer{}
}

// set1 remembers an option of a socket that may be bound later. On a socket of ours, those that concern its group are ours.
func (l *Lease) set1(c *transparent.Call) transparent.Answer {
	if ofGroup(c.Level, c.Name) && (l.slotByInode(c.Inode) != nil || l.isBound(c.Inode)) {
		return transparent.Answer{Done: true}
	}
	l.notes.remember(c.Inode)
	list := l.notes.options[c.Inode]
	list = slices.DeleteFunc(list, func(o setting) bool { return o.level == c.Level && o.name == c.Name && !repeats(c.Level) })
	if len(list) < maxOptions {
		l.notes.options[c.Inode] = append(list, setting{c.Level, c.Name, string(c.Value)})
	}
	return transparent.Answer{}
}

// repeats tells levels with options that add something each time, such as a multicast group.
func repeats(level int) bool { return level == unix.IPPROTO_IP || level == unix.IPPROTO_IPV6 }

// ofGroup tells options that decide which socket of a group gets a connection.
func ofGroup(level, name int) bool {
	if level != unix.SOL_SOCKET {
		return false
	}
	switch name {
	case unix.SO_REUSEPORT, unix.SO_ATTACH_REUSEPORT_CBPF, unix.SO_ATTACH_REUSEPORT_EBPF, unix.SO_DETACH_REUSEPORT_BPF, unix.SO_INCOMING_CPU:
		return true
	}
	return false
}

func (l *Lease) isBound(inode uint64) bool {
	_, ok := l.notes.bound[inode]
	return ok
}

// slotByInode is the slot of this generation with that socket.
func (l *Lease) slotByInode(inode uint64) *slot {
	for _, h := range l.set.held {
		if sl := h.slotOf(l.at); sl != nil && sl.inode == inode {
			return sl
		}
	}
	return nil
}

// bind puts a socket of ours under the program's: for TCP one that is bound and nothing else, for UDP, which knows no
// listen, the slot.
func (l *Lease) bind(c *transparent.Call) transparent.Answer {
	s := l.set
	if c.Family != unix.AF_INET && c.Family != unix.AF_INET6 || !c.TCP() && !c.UDP() || c.Addr.Port() == 0 {
		return transparent.Answer{}
	}
	if l.isBound(c.Inode) {
		return transparent.Answer{Done: true} // the same call once more: a signal interrupted it after it was answered
	}
	options := l.notes.options[c.Inode]
	b := bound{at: placeOf(c, options), options: options}
	text := scheme(c) + "://" + b.at.String()
	switch {
	case c.Foreign:
		s.native(Native{Address: text, Why: "it is in another network namespace"})
		return transparent.Answer{}
	case !c.TCP() && b.at.ip.IsMulticast():
		s.native(Native{Address: text, Why: "it is a multicast address"})
		return transparent.Answer{}
	case has(options, unix.SOL_SOCKET, unix.SO_BINDTODEVICE):
		return s.leave(b.at, c, "it is bound to a network device")
	case c.Polled:
		return s.leave(b.at, c, "the app had the socket in an epoll set before it was bound, and would lose that entry")
	}
	h := s.at(b.at, c.TCP())
	if h == nil && !s.mayLearn(l, b.at, c.TCP()) {
		return transparent.Answer{}
	}
	if !c.TCP() {
		return l.give(c, b)
	}
	fd, err := openBound(b, c.NonBlocking)
	if err != nil {
		return transparent.Answer{} // the kernel has the same to say, or better news
	}
	inode := inodeOf(fd)
	l.notes.remember(inode)
	l.notes.bound[inode], l.notes.options[inode] = b, options
	return transparent.Answer{Replace: true, FD: fd, Owned: true}
}

// leave lets the program have its address alone. What we hold there and nobody else uses is given up for it.
func (s *Set) leave(p place, c *transparent.Call, why string) transparent.Answer {
	for _, h := range slices.Clone(s.held) {
		if h.sameKind(c.TCP()) && h.at.overlaps(p) && len(s.leases) <= 1 {
			s.dropAddress(h)
		}
	}
	s.native(Native{Address: scheme(c) + "://" + p.String(), Why: why, Exclusive: true})
	return transparent.Answer{}
}

// listen gives the program the slot of its generation in place of the socket that it has bound.
func (l *Lease) listen(c *transparent.Call) transparent.Answer {
	if b, ok := l.notes.bound[c.Inode]; ok {
		b.options = l.notes.options[c.Inode]
		return l.give(c, b)
	}
	if b, ok := l.notes.paths[c.Inode]; ok {
		return l.listenPath(b)
	}
	if n, ok := l.notes.left[c.Inode]; ok {
		if n.Address != "" {
			l.set.native(n)
		}
		return transparent.Answer{}
	}
	if c.Protocol == unixStream && l.slotByInode(c.Inode) == nil {
		l.set.native(Native{Address: "a unix path of nine or ten letters", Exclusive: true,
			Why: "its bind was not seen, because it is as long as an address of another kind; a longer path is"})
		return transparent.Answer{}
	}
	for _, h := range l.set.held {
		sl := h.slotOf(l.at)
		if sl == nil || sl.inode != c.Inode || !h.addr.stream() {
			continue
		}
		// It listens already, with a queue of our length: the program's own might be too short for a swap. If the program
		// took it out of the group by shutdown(2), it comes back now.
		if err := l.set.relisten(h, sl); err != nil {
			l.set.logf("%v", err)
			return transparent.Answer{}
		}
		l.set.splitLate(h)
		return transparent.Answer{Done: true}
	}
	return transparent.Answer{}
}

func (s *Set) relisten(h *held, sl *slot) error {
	if err := s.check(h); err != nil {
		return err
	}
	if h.order.index(sl) >= 0 || sl.listening() {
		return nil
	}
	if err := unix.Listen(sl.fd, backlog(&h.addr)); err != nil {
		return fmt.Errorf("cannot listen on %q again: %w", h.String(), err)
	}
	if h.mode == modeSteered {
		h.join(sl)
	}
	return nil
}

// give answers with the generation's slot. If there is none to be had the program gets the error: on its own it would
// join the group as a stranger.
func (l *Lease) give(c *transparent.Call, b bound) transparent.Answer {
	sl, err := l.set.slotAt(l, b, c.TCP())
	if err != nil {
		l.set.logf("%v cannot have %s: %v", l.at, b.at, err)
		errno := unix.EADDRINUSE
		errors.As(err, &errno)
		return transparent.Answer{Errno: errno}
	}
	if c.NonBlocking {
		setNonBlocking(sl.fd)
	}
	l.set.grew()
	return transparent.Answer{Replace: true, FD: sl.fd}
}

// setNonBlocking follows the program, and never goes back: other processes of the generation may share the socket.
func setNonBlocking(fd int) { _ = unix.SetNonblock(fd, true) }

// slotAt is the worker's slot at a place; the address is learned if need be.
func (s *Set) slotAt(l *Lease, b bound, tcp bool) (*slot, error) {
	h := s.at(b.at, tcp)
	if h == nil {
		var err error
		if h, err = s.learn(l, b, tcp); err != nil {
			return nil, err
		}
	}
	if tcp && !l.met[h] {
		defer func() { assumeNoDelay(h.slotOf(l.at)) }()
	}
	if sl := h.slotOf(l.at); sl != nil {
		if tcp { // the program may have called shutdown on it before it closed it
			if err := s.relisten(h, sl); err != nil {
				return nil, err
			}
		}
		if !h.swappable() && !s.anyoneHas(h) { // in what mode a generation that is gone has left it
			if err := sl.refresh(); err != nil {
				return nil, err
			}
		}
		l.claim(h)
		s.splitLate(h)
		return sl, nil
	}
	l.claim(h)
	h.extra = b.options
	h.lag = time.Since(l.since)
	if err := s.leaseOne(h, l.at); err != nil {
		return nil, err
	}
	err := s.catchUp(h, l.at)
	s.splitLate(h)
	return h.slotOf(l.at), err
}

// assumeNoDelay sets TCP_NODELAY, which accepted connections inherit. Programs set it before they listen and rely on that, but as
// others set it on every connection it is not watched. To lose it costs 40 ms for many an answer; to have it unasked
// costs some packets more.
func assumeNoDelay(sl *slot) {
	if sl != nil {
		_ = unix.SetsockoptInt(sl.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
}

// catchUp gives a worker of the active generation its part of the traffic of an address on which it listens only now: until here its
// predecessor, or its siblings, had that.
func (s *Set) catchUp(h *held, at Seat) error {
	if s.leases[at] == nil || !slices.Contains(s.lead, at) {
		return nil
	}
	before, lead := h.aim, leadAim(h, s.lead)
	to := before
	to.current, to.others = lead.current, lead.others
	if to.current == before.current && slices.Equal(to.others, before.others) {
		h.owned = true // it may have been a candidate's alone until now, with a first slot that waited for somebody
		return nil
	}
	if err := s.aimOne(h, to); err != nil {
		return err
	}
	h.owned = true
	s.traded(trade{h, before})
	return nil
}

// learn begins to hold an address. What a candidate brings gets no client before it is promoted: until then they wait in
// a slot that nobody serves.
func (s *Set) learn(l *Lease, b bound, tcp bool) (*held, error) {
	kind := "udp"
	if tcp {
		kind = "tcp"
	}
	name, options := s.freshName(kind), Options{}
	for _, h := range slices.Clone(s.held) {
		if h.sameKind(tcp) && h.at.overlaps(b.at) {
			s.logf("%s is held in place of %s: that is what the app binds", b.at, h.String())
			s.dropAddress(h)
			name, options = h.addr.Name, h.addr.Options
		}
	}
	h := &held{at: b.at, learned: true, grouped: true, mode: modeSteered, extra: b.options, lag: time.Since(l.since)}
	h.addr = Address{Name: name, Scheme: kind, Host: b.at.ip.String(), Port: b.at.port, Options: options}
	h.addr.Raw = h.String()
	switch {
	case s.cfg.Shared:
		h.share("one socket serves all generations, as asked for")
	case !s.cfg.Steer:
		h.share("steering is switched off")
	}
	if tcp && s.cfg.Steer && !s.cfg.Shared && !s.colorsTried {
		s.colored = colorsWork()
	}
	s.colorsTried = true
	if err := s.openFirst(h); err != nil {
		return nil, err
	}
	s.held = append(s.held, h)
	if h.swappable() && s.isCandidate(l.gen) {
		if _, err := s.addSlot(h); err != nil { // leased next; the current one stays without a generation
			s.dropAddress(h)
			return nil, err
		}
		spare := h.spare()
		spare.phase, spare.gen, spare.worker = leased, l.gen, l.at.Worker
	} else {
		h.owned = !s.isCandidate(l.gen)
	}
	if s.cfg.Learned != nil {
		s.cfg.Learned(l.gen, h.status())
	}
	return h, nil
}

// slotOf is the worker's slot of an address; of a shared one that was learned only once it has listened.
func (l *Lease) slotOf(h *held) *slot {
	if h.learned && !l.met[h] {
		return nil
	}
	return h.slotOf(l.at)
}

// claim notes that the worker listens on a learned address.
func (l *Lease) claim(h *held) {
	if l.met[h] {
		return
	}
	l.met[h] = true
	if h.claimer != l.gen {
		h.claimer = l.gen
		h.claims++
	}
}

// activeHas tells whether the active generation has a slot of the address.
func (s *Set) activeHas(h *held) bool {
	return slices.ContainsFunc(s.seats(s.active), func(at Seat) bool { return s.leases[at].slotOf(h) != nil })
}

// expected tells whether a worker is likely to listen on the address. Of a successor of the active generation that is what the same worker of
// that one has, less what only one of several generations ever had: it may have a name that is new each time. A worker that is started again,
// or added, is expected where all of its siblings with traffic are.
func (s *Set) expected(l *Lease, h *held) bool {
	switch {
	case !h.learned || h.lag > expectedWithin:
		return false
	case s.steered == 0: // the first generation: its worker 0 was there before the others
		first := s.leases[Seat{Generation: l.gen}]
		return first != nil && first != l && first.slotOf(h) != nil
	case h.claims < 2 && s.steered != 1:
		return false
	case l.gen == s.active:
		return !slices.Contains(s.lead, l.at) && s.leadHas(h)
	}
	model := s.leases[Seat{s.active, l.at.Worker}]
	if model == nil {
		return s.leadHas(h)
	}
	return model.slotOf(h) != nil
}

// leadHas tells whether everybody who has traffic listens on the address.
func (s *Set) leadHas(h *held) bool {
	return len(s.lead) > 0 && !slices.ContainsFunc(s.lead, func(at Seat) bool { return s.leases[at] == nil || s.leases[at].slotOf(h) == nil })
}

// anyoneHas tells whether some generation listens on a learned address.
func (s *Set) anyoneHas(h *held) bool {
	for _, l := range s.leases {
		if l.slotOf(h) != nil {
			return true
		}
	}
	return false
}

// isCandidate tells whether a newer generation than the active one has not been steered to yet.
func (s *Set) isCandidate(gen int) bool { return len(s.seats(s.active)) > 0 && gen > s.active }

// freshName is kind and number, the lowest that is free.
func (s *Set) freshName(kind string) string {
	for i := 1; ; i++ {
		name := kind + strconv.Itoa(i)
		if !slices.ContainsFunc(s.held, func(h *held) bool { return h.addr.Name == name }) {
			return name
		}
	}
}

// mayLearn tells whether a new address could be held. Where it lies over one that another generation has, or that a
// stranger has, the kernel's own answer to the bind is the right one.
func (s *Set) mayLearn(l *Lease, p place, tcp bool) bool {
	over := false
	for _, h := range s.held {
		if !h.sameKind(tcp) || !h.at.overlaps(p) {
			continue
		}
		over = true
		if h.learned && h.slotOf(l.at) != nil {
			return false // it has that already: EADDRINUSE
		}
		for other := range s.leases {
			if other != l.at && h.slotOf(other) != nil {
				l.logOnce(fmt.Sprintf("%v binds %s while %v has %s: one socket cannot serve both; use `entrypoint restart`", l.at, p, other, h.String()))
				return false
			}
		}
	}
	kind := "udp"
	if tcp {
		kind = "tcp"
	}
	return over || vacant(&Address{Scheme: kind, Port: p.port, Host: p.ip.String()}, p) == nil
}

// logOnce says what a program that tries again and again would make us say again and again.
func (l *Lease) logOnce(text string) {
	if slices.Contains(l.notes.said, text) || len(l.notes.said) >= maxSaid {
		return
	}
	l.notes.said = append(l.notes.said, text)
	l.set.logf("%s", text)
}

// at is the held internet address of exactly that place.
func (s *Set) at(p place, tcp bool) *held {
	for _, h := range s.held {
		if h.sameKind(tcp) && h.at == p {
			return h
		}
	}
	return nil
}

// sameKind tells whether h is an internet address of TCP, or of UDP.
func (h *held) sameKind(tcp bool) bool {
	return h.addr.Scheme != "" && h.addr.inet() && h.addr.stream() == tcp
}

// dropAddress gives an address up: its sockets are closed, what waited there is reset.
func (s *Set) dropAddress(h *held) {
	if h.expiry != nil {
		h.expiry.Stop()
	}
	s.held = slices.DeleteFunc(s.held, func(x *held) bool { return x == h })
	if h.mode == modeRenamed {
		_ = h.unlinkPath()
	}
	for _, sl := range slices.Clone(h.slots) {
		s.closeSlot(h, sl)
	}
}

// grew tells those who wait that some generation has got a slot.
func (s *Set) grew() {
	close(s.growth)
	s.growth = make(chan struct{})
}

var _ transparent.Handler = (*Lease)(nil)
