// Package carry is the helper process of the proxy mode: it accepts from the sockets that PID 1 holds, and carries what comes to the workers
// of the generation that PID 1 names.
//
// # Model
//
// A run has one table: the generations with their workers, and who of them gets what is new. PID 1 sends it whole ([proxy.Route]), and it is
// in force, in one step, before that is confirmed. Whoever is to be served takes a seat in the table in the same step in which it looks who
// serves, so there is no moment in which a client is on its way to a generation and not counted as its own.
//
// Of HTTP each request takes a seat, and a client's connection belongs to nobody: it survives every swap. Each generation has transports of
// its own, so that no request is ever put on a connection to another one; the idle ones of a generation without traffic are closed at
// once. Of TCP a connection takes a seat when it is accepted, and keeps it.
//
// # Invariants
//
//   - A request, or a connection, of which a worker has not got a byte may go to another worker: when one cannot be reached, when it has reset a
//     connection before a byte was passed, when net/http says that nothing was written and the body can be sent again from its beginning.
//     What may have reached one is never sent again, except by net/http what the method allows to repeat.
//   - While nobody serves, clients wait: for the connect timeout, or until the container ends.
//   - A run leads to the addresses of the route and nowhere else, which are on loopback; what a request says about hosts is passed on and not
//     followed. CONNECT is refused.
//   - Connections of clients are bounded by the descriptors that there are; more wait in the queue of the held socket.
//   - The end of the Conn is a request to finish: nothing new is accepted, HTTP clients are told to go by their next answer, what is
//     in flight is finished. How long that may take is PID 1's to say.
//
// # What it does not do
//
// It looks into no body, changes no answer but for the headers of the hop, keeps no cookies, and has no memory beyond buffers on the way.
package carry
