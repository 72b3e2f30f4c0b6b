package syslog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/hotswap-init/entrypoint/internal/helper"
)

// Role is the role of the helper.
const Role = "syslog"

// maxLine is the longest line that PID 1 sends, its end included: so much goes into a pipe as a whole.
const maxLine = 4096

// hello is the one message to the helper.
type hello struct {
	Target
	sender
}

// farewell bounds the sending of the last lines.
const farewell = 500 * time.Millisecond

// Main is the helper: it forwards what comes out of its pipe until PID 1 does not want it any more, and then what is left.
func Main() int {
	conn, err := helper.Parent()
	var o hello
	if err == nil {
		err = conn.Receive(&o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint: syslog helper:", err)
		return 1
	}
	f := &forwarder{
		Target: o.Target, sender: o.sender, stderr: os.Stderr,
		dial: (&net.Dialer{}).DialContext,
	}
	_ = conn.Ready()
	pipe := helper.File(0)
	go func() {
		for conn.Receive(&hello{}) == nil {
		}
		_ = pipe.SetReadDeadline(time.Now().Add(lastLines))
	}()
	done := make(chan struct{})
	lines := make(chan []byte, room)
	go func() {
		defer close(done)
		f.run(lines)
	}()
	read(pipe, lines, os.Stderr)
	select {
	case <-done:
	case <-time.After(farewell):
		drain(lines, os.Stderr)
	}
	return 0
}

// lastLines is how long lines may be on their way that PID 1 has written before the end.
const lastLines = 50 * time.Millisecond

// read queues the lines of a pipe until it ends, and closes the queue. For those that find no room there is standard error.
func read(pipe io.Reader, lines chan<- []byte, stderr io.Writer) {
	defer close(lines)
	in := bufio.NewReaderSize(pipe, 2*maxLine)
	missed := 0
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			continue // no line of ours
		}
		if err != nil {
			return
		}
		line = append([]byte(nil), line[:len(line)-1]...)
		select {
		case lines <- line:
			if missed > 0 {
				select {
				case lines <- fmt.Appendf(nil, "level=WARN msg=\"%d log lines were not sent here: the syslog did not take them; they are on standard error\"", missed):
					missed = 0
				default:
				}
			}
		default:
			if missed == 0 {
				fmt.Fprintf(stderr, "entrypoint: log lines go to standard error, because the syslog takes none\n")
			}
			missed++
			_, _ = stderr.Write(append(line, '\n'))
		}
	}
}

// drain writes what could not be sent any more to standard error.
func drain(lines <-chan []byte, stderr io.Writer) {
	for line := range lines {
		_, _ = stderr.Write(append(line, '\n'))
	}
}
