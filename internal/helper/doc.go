// Package helper keeps a process of this binary running in a role of its own, for work that PID 1 must not do: whatever parses
// bytes of the network, or copies many.
//
// A helper runs unprivileged, without capabilities and with no_new_privs. PID 1 and one run of it talk over a socket pair, one line
// of JSON a message ([Conn]); descriptors that outlive it, such as listening sockets, stay with PID 1 and are handed to each run.
// A run that ends is replaced at once, after a growing pause if it does not live for long, so that clients find the queue of a socket
// and never a closed door. [Helper.Replace] puts a new run in the place of one that works: the new one serves first, then the old
// one is told to finish, by the end of its Conn.
//
// On the side of the helper, [Parent] and [File] give what it was started with. It ends when its Conn does: then, and only then, PID 1
// is gone or does not want it any more.
package helper
