package syslog

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// facility is "system daemons".
const facility = 3

// sender is what a message says of its sender.
type sender struct {
	Host string `json:"host"`
	Tag  string `json:"tag"`
	PID  int    `json:"pid"`
}

// severity is that of a line of slog: nothing of the message stands before its level, in JSON and in text.
func severity(line []byte) int {
	mark := "level="
	if bytes.HasPrefix(line, []byte("{")) {
		mark = `"level":"`
	}
	_, level, _ := bytes.Cut(line[:min(len(line), 80)], []byte(mark))
	for _, s := range severities {
		if bytes.HasPrefix(level, []byte(s.level)) {
			return s.number
		}
	}
	return 6
}

// severities are those of RFC 5424 for the levels of slog; any other line is informational.
var severities = [...]struct {
	level  string
	number int
}{{"DEBUG", 7}, {"WARN", 4}, {"ERROR", 3}}

// local is a line as syslog(3) sends it to the local socket: the server adds the name of the host.
func (s sender) local(line []byte, now time.Time) []byte {
	return fmt.Appendf(nil, "<%d>%s %s[%d]: %s", facility<<3|severity(line), now.Format("Jan _2 15:04:05"), s.Tag, s.PID, line)
}

// rfc5424 is a line for a server elsewhere.
func (s sender) rfc5424(line []byte, now time.Time) []byte {
	return fmt.Appendf(nil, "<%d>1 %s %s %s %d - - %s", facility<<3|severity(line), now.Format("2006-01-02T15:04:05.000000Z07:00"), word(s.Host, 255), word(s.Tag, 48), s.PID, line)
}

// counted frames a message by its length.
func counted(message []byte) []byte {
	return append(fmt.Appendf(nil, "%d ", len(message)), message...)
}

// word is a field of a header: printable ASCII without spaces, or "-".
func word(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}
