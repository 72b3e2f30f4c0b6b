// Package probe finds out whether a candidate works, before any client is sent to it.
//
// # Model
//
// A [Check] is one thing that must hold: the app said so, it accepted a connection, it answers HTTP, a command
// succeeds, or (the weakest) some time went by. [Parse] reads a list of them as users write it, [Wait] tries all of
// them side by side until every one has held once. How to reach the candidate, and nobody else, is not known here: the
// caller puts functions into a [Target], which lead to that one generation. So a check names the service's own
// address, "http://127.0.0.1:8080/healthz", and still never asks the generation that is serving.
//
// # Invariants
//
//   - Ready is shown, never guessed: a check holds because it was seen to, and "still alive" is no check.
//   - One try of a check at a time, each with a bound of its own; the next begins a period after the last ended. A slow
//     app is never buried under its own probes.
//   - When Wait returns, every goroutine and every connection it made is gone.
//   - No HTTP is spoken here. PID 1 dials, and hands the connection to a helper process of the same binary, whose code
//     is in the package httpget below this one.
//
// # What it does not do
//
// https and grpc checks are refused by name. Nothing is retried after it held once, and there is no threshold: health
// over time is another matter.
package probe

import (
	"net/url"
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
	HTTP   Kind = "http"   // a GET was answered with a status from 200 to 399
	TCP    Kind = "tcp"    // a connection was made
	Exec   Kind = "exec"   // a command exited with 0
)

// A Check is one condition. The zero value is not a check.
type Check struct {
	Kind  Kind
	Text  string        // as written, without surrounding space and without the password of a URL
	URL   *url.URL      // of HTTP and TCP
	Delay time.Duration // of Delay
	Argv  []string      // of Exec
}

// String is the check as it is written, except for a password.
func (c Check) String() string { return c.Text }
