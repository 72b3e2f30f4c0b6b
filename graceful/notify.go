package graceful

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// notifyTimeout bounds one message: the manager reads its socket all the time, so a full one means that it hangs.
const notifyTimeout = 2 * time.Second

// notifier sends assignments as sd_notify(3) does. Without a path it does nothing.
type notifier struct{ path string }

// Ready says READY=1 to the manager: from now on it may send clients, and stop the predecessor. Without NOTIFY_SOCKET it does
// nothing and returns nil. It blocks for at most 2 s. Server says it by itself unless ManualReady is set. The
// error tells that the manager could not be reached. Safe for concurrent use.
func Ready() error { return std.sayReady() }

// Status says STATUS= and a text of one line for people ("loading 3 of 7"). Line ends become spaces. As for
// Ready, it does nothing without NOTIFY_SOCKET and blocks for at most 2 s.
func Status(text string) error {
	return std.notify.send("STATUS=" + strings.NewReplacer("\n", " ", "\r", " ", "\x00", " ").Replace(text))
}

// Stopping says STOPPING=1. The drain says it by itself; this is for programs that stop for another reason.
// It does not begin a drain. As for Ready, it does nothing without NOTIFY_SOCKET and blocks for at most 2 s.
func Stopping() error { return std.notify.send("STOPPING=1") }

func (p *process) sayReady() error {
	p.markReady()
	return p.notify.send("READY=1")
}

// firstReady says READY=1 unless that was said before.
func (p *process) firstReady() error {
	if !p.markReady() {
		return nil
	}
	return p.notify.send("READY=1")
}

// markReady is true the first time.
func (p *process) markReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.ready
	p.ready = true
	return first
}

func (n notifier) send(assignment string) error {
	if n.path == "" {
		return nil
	}
	if n.path[0] != '/' && n.path[0] != '@' {
		return fmt.Errorf("cannot notify %q: neither a path nor an abstract name", n.path)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	if _, err := c.Write([]byte(assignment)); err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	return nil
}
