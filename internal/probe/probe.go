// Package probe finds out whether a generation works: before any client is sent to it, and afterwards.
//
// # Model
//
// A [Check] is one thing that must hold: the app said so, it accepted a connection, it answers HTTP or gRPC's health
// protocol, a command succeeds, or (the weakest) some time went by. [Parse] reads a list of them as users write it. Three
// questions can be asked of a list: [Wait] tries all side by side until every one has held (is it ready?), [Run] each once
// and in order (does it pass the smoke test?), [Watch] again and again (is it still healthy?). How to reach the generation,
// and nobody else, is not known here: the caller puts functions into a [Target], which lead to that one generation. So a
// check names the service's own address, "http://127.0.0.1:8080/healthz", and still never asks another generation.
//
// # Invariants
//
//   - Ready is shown, never guessed: a check holds because it was seen to, and "still alive" is no check.
//   - One try of a check at a time, each with a bound of its own; the next begins a period after the last ended. A slow
//     app is never buried under its own probes.
//   - When Wait, Run and Watch return, every goroutine and every connection they made is gone.
//   - Nothing that comes from the network is parsed here. PID 1 dials, and hands the connection with a [Request] to a
//     helper process of the same binary, whose code is in the package netprobe below this one.
//   - What may be a secret (the password of a URL, a header) is in no text that is shown.
package probe

import (
	"slices"
	"time"
)

// Kind is the first word of a check.
type Kind string

// The kinds of check.
const (
	Auto   Kind = "auto"   // Accept, or Notify if it comes first; without a held stream socket a delay of one second
	Notify Kind = "notify" // the app sent READY=1
	Accept Kind = "accept" // the app accepted a connection on every held stream socket
	Delay  Kind = "delay"  // some time went by
	TCP    Kind = "tcp"    // a connection was accepted
	Unix   Kind = "unix"   // the same, at a path
	HTTP   Kind = "http"   // a request was answered as it should be
	HTTPS  Kind = "https"  // the same over TLS
	H2C    Kind = "h2c"    // the same in HTTP/2 without TLS
	GRPC   Kind = "grpc"   // grpc.health.v1.Health/Check was answered with SERVING
	GRPCS  Kind = "grpcs"  // the same over TLS
	Exec   Kind = "exec"   // a command exited with 0
)

// connects tells whether the check makes a connection.
func (k Kind) connects() bool { return k == TCP || k == Unix || k.asks() }

// asks tells whether the check sends a Request.
func (k Kind) asks() bool { return k.web() || k == GRPC || k == GRPCS }

// web tells whether it is a request for a page.
func (k Kind) web() bool { return k == HTTP || k == HTTPS || k == H2C }

// Encrypted tells whether the kind speaks TLS.
func (k Kind) Encrypted() bool { return k == HTTPS || k == GRPCS }

// A Check is one condition. The zero value is not a check.
type Check struct {
	Kind Kind
	Text string // as written, without surrounding space, options and the password of a URL

	Network, Address string        // where to connect, of kinds that do: tcp and host:port, or unix and a path
	Request          *Request      // of HTTP, HTTPS, H2C, GRPC and GRPCS
	Delay            time.Duration // of Delay
	Argv             []string      // of Exec

	// Successes is how many tries in a row must hold. 0: one.
	Successes int
	// Failures is after how many failed tries in a row the check is given up. 0: Wait goes on until its end, Run gives up
	// at the first.
	Failures int
	// Period is the pause between two tries, Timeout bounds one. 0: those of the Target.
	Period, Timeout time.Duration
	// Deadline bounds all tries together. 0: none but the caller's.
	Deadline time.Duration
}

// String is the check as it is written, except for what may be a secret.
func (c Check) String() string { return c.Text }

// Request is what the helper process asks over a connection, and which answer is a yes. It goes to the helper as JSON.
type Request struct {
	Kind       Kind
	URL        string // with the password, if there is one; of gRPC the path is the service
	Method     string // "": GET
	Host       string // the Host header; "": that of URL
	Header     []Field
	Status     []Range // "": 200 to 399
	Body       string  // a part of the body
	Pattern    string  // matches the body (RE2)
	Insecure   bool    // believe any certificate
	CA         string  // a file of certificates to believe; "": the system's
	ServerName string  // whom the certificate must name; "": the host of URL
	// Left is how long the helper has, and Timeout how long that was from the beginning, for its sentence. Left is no time of the day: the
	// clock may be set while the helper starts.
	Left    time.Duration
	Timeout time.Duration
}

// Field is one header of a request.
type Field struct{ Name, Value string }

// Range is a range of status codes, both ends included.
type Range struct{ From, To int }

// Accepts tells whether a status code is a yes.
func (r *Request) Accepts(code int) bool {
	if len(r.Status) == 0 {
		return code >= 200 && code <= 399
	}
	return slices.ContainsFunc(r.Status, func(s Range) bool { return s.From <= code && code <= s.To })
}
