package syslog

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// room is how many lines wait while the server takes none.
	room = 1000
	// dialTime bounds resolving a name and connecting, sendTime one message: a server on a busy network is slower than that only
	// when it has stalled.
	dialTime, sendTime = 5 * time.Second, 3 * time.Second
	// firstPause and mostPause pace further attempts to connect.
	firstPause, mostPause = 200 * time.Millisecond, 15 * time.Second
)

// forwarder sends lines to a server.
type forwarder struct {
	Target
	sender
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	stderr io.Writer // where lines go that the server does not take

	conn   net.Conn      // nil: none
	broken chan struct{} // closed when the server has hung up
	pause  time.Duration
	again  time.Time // no attempt to connect before that
	missed int       // lines that went to stderr since the server took one
}

// run sends what comes until lines is closed.
func (f *forwarder) run(lines <-chan []byte) {
	for line := range lines {
		f.one(line)
	}
	f.hangUp()
}

// one sends a line, or writes it to standard error.
func (f *forwarder) one(line []byte) {
	if f.conn != nil && f.hungUp() {
		f.hangUp()
	}
	err := f.connect()
	if err == nil {
		err = f.say(line)
	}
	if err != nil {
		f.fallBack(line, err)
	}
}

// say sends a line, and before it how many are missing.
func (f *forwarder) say(line []byte) error {
	if n := f.missed; n > 0 {
		note := fmt.Appendf(nil, "level=WARN msg=\"%d log lines were not sent here: they are on standard error\"", n)
		if err := f.send(note); err != nil {
			return err
		}
		f.missed = 0
	}
	return f.send(line)
}

func (f *forwarder) send(line []byte) error {
	var message []byte
	switch f.Network {
	case "unixgram":
		message = f.local(line, time.Now())
	case "tcp":
		message = counted(f.rfc5424(line, time.Now()))
	default:
		message = f.rfc5424(line, time.Now())
	}
	_ = f.conn.SetWriteDeadline(time.Now().Add(sendTime))
	_, err := f.conn.Write(message)
	if err != nil {
		f.hangUp()
	}
	return err
}

// connect makes sure that there is a connection, unless the last attempt was a moment ago.
func (f *forwarder) connect() error {
	if f.conn != nil {
		return nil
	}
	if time.Now().Before(f.again) {
		return errPaused
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	c, err := f.dial(ctx, f.Network, f.Address)
	if err != nil {
		f.pause = min(max(2*f.pause, firstPause), mostPause)
		f.again = time.Now().Add(f.pause)
		return err
	}
	f.pause = 0
	f.conn, f.broken = c, make(chan struct{})
	if f.Network == "tcp" {
		broken := f.broken
		go func() { // ends with the connection
			defer close(broken)
			_, _ = io.Copy(io.Discard, c) // a syslog server says nothing; its end is what we wait for
		}()
	}
	return nil
}

var errPaused = fmt.Errorf("the syslog could not be reached a moment ago")

func (f *forwarder) hungUp() bool {
	select {
	case <-f.broken:
		return true
	default:
		return false
	}
}

func (f *forwarder) hangUp() {
	if f.conn == nil {
		return
	}
	f.conn.Close()
	if f.Network == "tcp" {
		<-f.broken
	}
	f.conn = nil
}

// fallBack keeps a line readable.
func (f *forwarder) fallBack(line []byte, err error) {
	if f.missed == 0 {
		fmt.Fprintf(f.stderr, "entrypoint: log lines go to standard error, because they cannot be sent to the syslog at %s %s: %v\n", f.Network, f.Address, err)
	}
	f.missed++
	_, _ = f.stderr.Write(append(line, '\n')) // nobody reads: nobody to tell
}
