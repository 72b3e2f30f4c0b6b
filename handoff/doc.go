// Package handoff holds listening sockets for longer than any program that serves them, and decides which
// generation of a program gets the next connection.
//
// # Model
//
// A [Set] holds addresses. A held TCP or UDP address is a SO_REUSEPORT group. Each generation leases a slot of every
// address: a socket of its own that we opened, that we keep a descriptor of, and that is a member of the group. A
// constant classic-BPF program attached to the group names the slot which takes new connections. [Set.Steer]
// replaces that program: one system call, atomic for the address, tens of microseconds. The old generation is told
// nothing, so going back is the same call again. [Set.Split] makes a program with two slots: it gives a candidate a
// [Share] of the new connections, by chance, by the client's address, or by networks.
//
// A generation of several workers leases a slot of every address for each of them ([Set.LeaseWorker]), and the program chooses
// among those by chance, for datagrams by a hash of the client's address and port. [Set.Spread] says which workers take part: one
// that is being started again does not, and while generations follow each other worker by worker they are of two.
//
// A unix path is held by giving each slot a hidden name of its own beside the path; the path is a second hard link
// to the current slot and steering is rename(2) over it.
//
// What cannot be steered (abstract names, adopted sockets, kernels or sandboxes without SO_ATTACH_REUSEPORT_CBPF) is
// one socket shared by all generations. [Set.Status] says which mode each address has and why.
//
// # Invariants
//
//   - A connection that the kernel has queued is never dropped. A slot outlives its processes; if it has the traffic
//     it is leased again with its queue, and if not, what is left in its queue is relayed to the current slot before
//     the slot is closed.
//   - The program never returns an index outside the group, and no close ever moves the current slot, or one with a share, to
//     another index: where the kernel would do that, a fresh spare slot joins first and is moved instead. The next lease
//     takes the spare.
//   - A fresh slot takes no connection until it is steered to or given a share. Our own probes reach it before that: the program may
//     hold pairs of source address and source port that go to another slot.
//   - Slots are plain descriptors, close-on-exec, outside of Go's network poller. A fresh slot is in blocking mode, as
//     systemd hands sockets out. What a generation does to the mode of its slot is its own affair, for each
//     slot is an open file description of its own. The mode of a shared socket is never touched.
//   - Sockets are plain TCP, never MPTCP, which refuses the program.
//   - Each live slot of a port has a colour, four per-socket flags without any effect on TCP (see colour), which accepted
//     connections inherit and sock_diag shows. So it is known exactly which generation a connection belongs to, at any
//     time and without reading a single process's descriptors. Workers of one generation may have to share a colour: what a single
//     one of those has is told by its descriptors ([Lease.Processes]).
//   - With the capability to do so (root), slots are opened under the filesystem uid [GroupUID], which nobody else has:
//     only sockets of one uid may form a group, so no other process can join or steer it.
//
// # Kernel needs
//
// Linux 4.5 for steering TCP (SO_ATTACH_REUSEPORT_CBPF), 4.2 for counting by sock_diag, 5.10 for exact colours (older:
// connections are told apart by a snapshot of their cookies taken when the traffic was switched, and those of generations that
// share cannot be). No privilege is
// needed for any of it, except for [GroupUID] and for ports below net.ipv4.ip_unprivileged_port_start.
//
// # What it does not do
//
// A share is of new connections, not of requests or bytes, and its networks are of the addresses that the kernel sees: behind a
// proxy that is the proxy's.
//
// It does not start processes, does not wait for them and has no timers about them. It does not keep QUIC or other
// UDP conversations with the old generation: after a switch every datagram goes to the new one, and datagrams left in the
// receive queue of a released UDP or unixgram slot are lost, as UDP may. It does not resolve names through DNS.
// A program that calls shutdown(2) on the listening socket it was given takes its slot out of the group. One such slot
// at a time does no harm (a spare stands behind the current slot and is moved instead), and the next call of any method mends
// the group; several at once may send connections astray until then.
package handoff
