// Package control is how people and programs talk to a running init: a server inside the init, and the client that every
// command of the binary uses.
//
// # Model
//
// One unix stream socket, one request a connection. The client sends one JSON line; the server answers with a line for each
// phase of the swap, as it happens, and then with exactly one result line, and closes. The protocol is versioned and written
// down in docs/control-protocol.md. There is no session and no state between two requests, so a client may die at any byte
// without a trace: what it started goes on.
//
// # Where
//
// The default address needs no writable path, no root and no configuration: an abstract socket whose name is made of the
// inode number of the mount namespace and of the pid of the init, see [SocketName]. A process that `docker exec` put beside the
// init can compute it; two inits in one pod, which share a network namespace and therefore all abstract names, never collide.
//
// # Who may talk
//
// Abstract names are visible to every container of a pod, so being able to connect proves nothing. The server asks for three things,
// in this order, and reads not one byte before the first two are shown:
//
//   - SO_PEERCRED names a pid that is not zero. The kernel translates it into our pid namespace and says zero for a process
//     that has no number there, that is, for one in another container.
//   - SO_PEERCRED names our own uid, or root.
//   - The peer shows that it is in our mount namespace: with the request line it sends, as SCM_RIGHTS, a descriptor of its
//     own /proc/self/ns/mnt. The server compares device and inode number with those of its own file.
//
// The third proof was chosen over reading /proc/<pid>/ns/mnt of the peer because that needs the right to trace the peer, which an init
// with all capabilities dropped does not have over root, nor over a process that changed its uid; and over a pid lookup because
// a pid can be reused between two system calls, while the descriptor is a fact about the sender. It proves enough: a descriptor of
// our namespace can be had by being in it, by being allowed to trace somebody who is, or from somebody who hands it on; each of
// the three could do all that this socket offers without asking us.
//
// The client checks the server in turn, since anybody in the pod may squat a name: the pid of the listening process must be
// the one in the name, and its uid root's or ours. Root may talk to an init of any uid.
//
// # Bounds
//
// At most 16 clients are served at once, the next ones wait in the kernel's short listen queue. A request line has at most 64 KiB and
// must be complete after 5 seconds. A client that lets the kernel's buffer for it fill with unread phases (some hundred), or does not
// take its result within 5 seconds, loses its connection, and what it asked for goes on. All writes are made with MSG_NOSIGNAL: an init that forwards signals must not
// make a SIGPIPE of its own. When [Server.Serve] returns, none of its goroutines is left.
//
// # Needs
//
// /proc of the own pid namespace must be mounted, on both sides. SO_PEERCRED is in every kernel that Go runs on.
//
// # Not here
//
// What a swap is (package swap), what the user sees (cmd/entrypoint), and anything that comes from a network.
package control
