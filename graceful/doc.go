// Package graceful is for Go servers that are replaced while they serve: no request is lost, neither on a new connection nor on
// a kept-alive one. It takes its sockets from an init that holds them (entrypoint, systemd, Podman: LISTEN_FDS), tells it when it is
// ready (NOTIFY_SOCKET), and takes leave of its clients in the one order that loses nothing. Without such an init it binds
// its sockets itself and drains all the same, so the program is one for the container and for the desk.
//
//	func main() {
//		if err := graceful.ListenAndServe(":8080", handler); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// # The order of the drain
//
// TERM, INT or Drain begins it. Each step is a Phase; Hooks are called around it.
//
//  1. Announce. Every answer from now on says Connection: close. A client that reads it opens a new connection, which the
//     successor accepts. Idle connections stay open: a request may be on its way on each. HTTP/2 connections are
//     warned at once, by a GOAWAY that refuses nothing.
//  2. Stop accepting. The listeners are closed; the init holds the sockets, so nobody is refused. What was accepted is served.
//  3. Linger, 1 s by default. Idle connections may bring one more request, whose answer tells them to close. It ends early when
//     no connection is left, so a server without clients ends at once.
//  4. Drain. Idle connections are closed, each when it has been idle for the linger: one whose long answer began before
//     the drain, and so could not say that it is the last, has its linger after it. Connections without a first
//     request get 5 s from their beginning. Running handlers are waited for, also those of hijacked connections, and
//     holds (Server.Hold). The final GOAWAY of an HTTP/2 connection comes with its first answer after the linger, or at last
//     from http.Server.Shutdown.
//  5. Hammer, 60 s after the beginning by default, or a second signal: what is left is cut, and Serve returns ErrHammer.
//
// http.Server.Shutdown alone does step 4 first, and loses the requests that are on their way on connections that it takes for idle.
// SetKeepAlivesEnabled(false) closes idle connections too, and is not used for that reason.
//
// # What is guaranteed, and what not
//
// An HTTP/1 client that sends its next request within the linger is answered and told. One that sends its first
// request in the very instant in which a longer silence of its connection ends loses it, as with any server that closes idle connections;
// a longer Linger makes that rarer.
//
// HTTP/2 is told by the pair of GOAWAYs of RFC 9113, section 6.8: in step 1 a warning with the last stream 2^31-1, and not before a
// linger has passed the final one, which names the last stream that was served. net/http sends only the second, so this
// package puts the first between the frames that it writes, with TLS and without. A request that crosses the warning is answered, also one whose
// body cannot be sent twice. One that crosses the final GOAWAY, because its client did not listen for a whole linger, was
// not looked at, and the client may send it again.
//
// What is left is in the client: that of net/http (Go 1.26) fails a request, without having sent any of it, if GOAWAY comes when it has
// chosen the connection and not yet begun the stream, and the body has no GetBody. It takes many requests at once on one
// connection, and happens with every server.
//
// The pair is for the HTTP/2 server of net/http, and for that of golang.org/x/net/http2 if it was put in by its ConfigureServer. Others
// (x/net's h2c handler, which hijacks, or a TLSNextProto of your own) take leave as they are made to. In ConnState and
// ConnContext a connection is what was accepted, as ever. With TLS the server's SETTINGS come after the client's preface, not before it.
//
// WebSockets and other hijacked connections are the program's: it watches Draining, or WaitDraining with a spread so that ten
// thousand clients do not come back in one instant. Their handlers are waited for as long as they run.
//
// # Sockets
//
// The descriptors of LISTEN_FDS are taken if LISTEN_PID is this process, at the first Listen, ListenNamed, ListenPacket, Listeners,
// PacketConns or ListenAndServe. Listening and datagram sockets become this package's, and those that nobody asked for
// stay available from Listeners and PacketConns; every other descriptor is left open and untouched, except that all are made close-on-exec. The
// environment is left as it is. Only one package of a program should read LISTEN_FDS.
//
// # Signals and other effects
//
// Nothing happens at import. From the first Serve of any Server until the last has returned, TERM and INT (Server.Signals) are
// caught: the first begins the drain of all Servers, the second is the hammer. Afterwards they do what they did before. The first Serve also
// says READY=1 (unless Server.ManualReady) and, if WATCHDOG_USEC asks for it, pings until the process ends (unless
// Watchdog was called). The drain says STOPPING=1.
//
// The package works on every Unix; elsewhere it finds no inherited sockets. It does not start or replace
// processes: that is the init's part.
package graceful
