package handoff

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Message is what a program told us, from any of the protocols.
type Message struct {
	// PID is the sender, as the kernel says (einhorn over an inherited descriptor: as the program says); 0 if unknown.
	PID int
	// Ready, Stopping and Reloading are READY=1, STOPPING=1 and RELOADING=1.
	Ready, Stopping, Reloading bool
	// Status is the last STATUS=, for people.
	Status string
	// MainPID and Errno are MAINPID= and ERRNO=; 0 if not given.
	MainPID, Errno int
	// ExtendTimeout is EXTEND_TIMEOUT_USEC=: the program asks for that much more time from now.
	ExtendTimeout time.Duration
	// Watchdog is WATCHDOG=1, WatchdogTrigger WATCHDOG=trigger; WatchdogTime is WATCHDOG_USEC=: how long the program may be silent.
	Watchdog, WatchdogTrigger bool
	WatchdogTime              time.Duration
	// Raw are all assignments, known or not.
	Raw []string
}

const (
	// maxDatagram is the longest message that is read; the rest of a longer one is cut off.
	maxDatagram = 4096
	// maxAssignments bounds the lines of one message.
	maxAssignments = 64
)

// parseNotify reads the assignments of one sd_notify datagram. barrier reports BARRIER=1, which must be alone. It never
// fails: what it does not know it leaves in Raw.
func parseNotify(data []byte) (m Message, barrier bool) {
	for _, line := range strings.Split(string(data), "\n") {
		if !strings.Contains(line, "=") || len(m.Raw) >= maxAssignments {
			continue
		}
		m.Raw = append(m.Raw, line)
		m.assign(line)
	}
	return m, len(m.Raw) == 1 && m.Raw[0] == "BARRIER=1"
}

func (m *Message) assign(line string) {
	key, value, _ := strings.Cut(line, "=")
	switch key {
	case "READY":
		m.Ready = m.Ready || value == "1"
	case "STOPPING":
		m.Stopping = m.Stopping || value == "1"
	case "RELOADING":
		m.Reloading = m.Reloading || value == "1"
	case "STATUS":
		m.Status = printable(value)
	case "MAINPID":
		m.MainPID = positive(value)
	case "ERRNO":
		m.Errno = positive(value)
	case "EXTEND_TIMEOUT_USEC":
		m.ExtendTimeout = max(m.ExtendTimeout, microseconds(value))
	case "WATCHDOG":
		m.Watchdog = m.Watchdog || value == "1"
		m.WatchdogTrigger = m.WatchdogTrigger || value == "trigger"
	case "WATCHDOG_USEC":
		m.WatchdogTime = microseconds(value)
	}
}

// microseconds is a time of at most maxExtend, 0 for anything that is none.
func microseconds(value string) time.Duration {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return 0
	}
	return time.Duration(min(n, uint64(maxExtend/time.Microsecond))) * time.Microsecond
}

// maxExtend keeps the conversion from overflowing; what is granted is the caller's decision.
const maxExtend = 365 * 24 * time.Hour

// positive is a number of at most 31 bits, 0 for anything else.
func positive(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// printable makes a text of a program safe for logs and terminals.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// parseCrank reads a message on NOTIFY_FD: READY=1 after trimming, anything else is only passed on.
func parseCrank(data []byte) Message {
	text := strings.TrimSpace(string(data))
	return Message{Ready: text == "READY=1", Raw: []string{printable(text)}}
}

// parseEinhorn reads one line of the einhorn worker protocol. Workers write JSON, in which YAML's reader
// finds the same; '%' and newlines inside are percent-escaped.
func parseEinhorn(line []byte) (Message, bool) {
	text, err := percentDecode(strings.TrimSpace(string(line)))
	if err != nil {
		return Message{}, false
	}
	var req struct {
		Command string `json:"command"`
		PID     int    `json:"pid"`
	}
	if json.Unmarshal([]byte(text), &req) != nil || req.Command != "worker:ack" || req.PID < 0 {
		return Message{}, false
	}
	return Message{PID: req.PID, Ready: true, Raw: []string{req.Command}}, true
}

// percentDecode undoes %25 and %0A; a stray '%' is an error.
func percentDecode(s string) (string, error) {
	var out strings.Builder
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			out.WriteString(s)
			return out.String(), nil
		}
		if len(s) < i+3 {
			return "", strconv.ErrSyntax
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", err
		}
		out.WriteString(s[:i])
		out.WriteByte(byte(n))
		s = s[i+3:]
	}
}
