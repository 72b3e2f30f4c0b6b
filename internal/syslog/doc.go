// Package syslog forwards the init's own log lines to a syslog server, from a helper process (package helper, role "syslog"): it resolves names
// and waits for connections, which PID 1 must not.
//
// PID 1 writes lines into a pipe that never blocks it. The helper keeps a bounded queue. A line that the server does not take, because it is
// not there or has stalled, goes to standard error, where it would have been without a syslog; how many those were is said to the server
// when it is there again. To the local socket goes what syslog(3) would send, to others RFC 5424, over TCP with octet counting (RFC 6587).
package syslog
