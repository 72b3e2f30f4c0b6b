// Package proxy leads clients to generations of an app by a proxy in front of them, for programs that take a port of our choice, and for HTTP
// services whose clients must not notice a swap on any connection.
//
// # Model
//
// A [Front] is PID 1's side. It holds nothing that came from the network: the sockets are held by package handoff, and a helper process (package
// carry) accepts from them. Each worker of a generation gets a port of its own on loopback ([Front.Lease]); Front tells the helper by one message
// who serves whom ([Route]), and asks it how much is left of a generation ([Lease.Load]).
//
// # Invariants
//
//   - A switch is one message. Steer and Split return when the helper has confirmed it: who comes from then on is led by it.
//   - The sockets outlive the helper. When it dies, connections through it die with it, and no other: new ones wait in the queue of the socket
//     until the next run accepts them. [Front.Replace] replaces it without losing any.
//   - A port is used by one worker at a time, and by nobody else when it is given away.
//   - Nothing waits for the helper for longer than a moment: if it does not answer, nothing is claimed to be known.
package proxy
