// Package netprobe asks one question over a connection that somebody else made.
//
// It is the part of the probes that parses what comes from the network, so it runs in a helper process of its own, with
// the app's or an unprivileged user: PID 1 dials the candidate, starts the helper with the connection and the question as
// descriptors, and reads one sentence and an exit status. It is a package of its own so that nothing else imports net/http.
//
// HTTP and HTTPS are asked in HTTP/1.1 with "Connection: close" (over TLS in HTTP/2 if the server prefers it), h2c in HTTP/2
// without TLS, both grpc kinds in HTTP/2: one call of grpc.health.v1.Health/Check, whose two small messages are written and
// read by hand. No redirect is followed, there is no proxy and no compression. Header and body are read up to 64 KiB each; what
// is searched in a body must be in that part of it.
package netprobe
