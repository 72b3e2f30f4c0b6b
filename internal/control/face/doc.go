// Package face is what the outside may see of an init: metrics, liveness, readiness, status and a page for people, over HTTP, read only.
//
// # Model
//
// Two sides talk over a [Conn]. PID 1 ([Init]) holds the listening socket and answers two small questions, "is it well" and "what are the facts",
// with copies of bounded size, and tells the [swap.News] as they come. A helper process ([Main]), unprivileged and replaced when it dies, accepts, parses
// HTTP, and lays out every answer from such copies. It holds nothing that would be lost with it: counters and the ring of news are PID 1's.
//
// Questions are not answered from memory of an earlier answer: readiness is what it is at the moment of the request. Requests that come while
// a question is on its way share the next one, and PID 1 answers at most some fifty times a second, so that a flood of requests costs PID 1 little.
//
// # Bounds
//
// At most 64 connections; when one more comes, the one gives way that has been silent the longest without a whole request. A request
// has at most 16 KiB and 5 seconds; a kept connection may be idle for 60 seconds; an answer must be taken within 10. At most 16 readers of events
// at once; one that does not read loses its connection, comes back with its Last-Event-ID, and is told how many it missed. GET and HEAD only.
//
// # Not here
//
// TLS and passwords: bind it to loopback, to a unix socket, or to a network that is yours.
package face
