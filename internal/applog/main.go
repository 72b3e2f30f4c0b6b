package applog

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/helper"
)

// Role is the role of the helper.
const Role = "log"

// The files of the helper: where pipes come from, our standard output and our standard error.
const (
	channelFile = iota
	stdoutFile
	stderrFile
)

// order is a message to the helper: the first one tells the run and its spec.
type order struct {
	Run    int   `json:"run,omitempty"`
	Spec   *Spec `json:"spec,omitempty"`
	Seq    int   `json:"seq,omitempty"` // of what is to be answered
	Tail   int   `json:"tail,omitempty"`
	Reopen bool  `json:"reopen,omitempty"`
}

// answer is a message of the helper.
type answer struct {
	Seq      int    `json:"seq,omitempty"`
	Ended    int    `json:"ended,omitempty"` // a source whose last line is written
	Tail     string `json:"tail,omitempty"`
	Reopened int    `json:"reopened,omitempty"`
	Fault    string `json:"fault,omitempty"`
	Dropped  int64  `json:"dropped,omitempty"` // lines, in this run
	Say      string `json:"say,omitempty"`
}

// newcomer comes with the reading end of a pipe.
type newcomer struct {
	Run int `json:"run"`
	ID  int `json:"id"`
	Origin
}

// Main is the helper: it copies until PID 1 does not want it any more, and then what is left.
func Main() int {
	conn, err := helper.Parent()
	var hello order
	if err == nil {
		err = conn.Receive(&hello)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint: log helper:", err)
		return 1
	}
	unix.Umask(0) // the mode of a file is what was asked for
	out := [2]*os.File{helper.File(stdoutFile), helper.File(stderrFile)}
	d := newDesk(*hello.Spec, hello.Run == 1, [2]int{int(out[0].Fd()), int(out[1].Fd())}, func(v any) { _ = conn.Send(v) })
	channel, err := net.FileConn(helper.File(channelFile))
	if err != nil {
		fmt.Fprintln(os.Stderr, "entrypoint: log helper:", err)
		return 1
	}
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		arrivals(channel.(*net.UnixConn), hello.Run, d)
	}()
	_ = conn.Ready()
	for {
		var o order
		if conn.Receive(&o) != nil {
			break
		}
		serve(d, o, func(a answer) { _ = conn.Send(a) })
	}
	_ = channel.SetReadDeadline(time.Now().Add(lastArrivals))
	<-arrived
	d.finish()
	return 0
}

// lastArrivals is how long a pipe that PID 1 has sent before the end may be on its way.
const lastArrivals = 20 * time.Millisecond

func serve(d *desk, o order, send func(answer)) {
	switch {
	case o.Tail != 0:
		send(answer{Seq: o.Seq, Tail: d.tail(o.Tail)})
	case o.Reopen:
		n, err := d.reopen()
		a := answer{Seq: o.Seq, Reopened: n}
		if err != nil {
			a.Fault = err.Error()
		}
		send(a)
	}
}

// arrivals takes pipes that come for this run; those that an earlier one has not taken are there too.
func arrivals(c *net.UnixConn, run int, d *desk) {
	for {
		n, fd, err := receive(c)
		if err != nil {
			return
		}
		if fd < 0 {
			continue
		}
		if n.Run != run {
			_ = unix.Close(fd)
			continue
		}
		d.add(n.ID, n.Origin, os.NewFile(uintptr(fd), "app"))
	}
}

func receive(c *net.UnixConn) (n newcomer, fd int, err error) {
	text, oob := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(4))
	size, oobn, _, _, err := c.ReadMsgUnix(text, oob)
	if err != nil || size == 0 {
		return n, -1, fmt.Errorf("no more pipes come: %w", err)
	}
	fd = -1
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err == nil && len(messages) == 1 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
		}
	}
	if bad := json.Unmarshal(text[:size], &n); bad != nil && fd >= 0 {
		_ = unix.Close(fd)
		fd = -1
	}
	return n, fd, nil
}
