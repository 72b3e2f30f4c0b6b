package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// settings say what the app does; the zero value is not useful, see defaults.
type settings struct {
	version   string
	listen    string        // auto, systemd, einhorn, starter, none, fd:N, tcp:ADDR, unix:PATH, udp:ADDR; several with commas
	later     string        // the same, opened after the app has begun to serve
	after     time.Duration // so long after that
	reopen    time.Duration // so long after that all of listen is closed and opened again; 0: never
	health    int           // status of /healthz
	status    int           // status of every page
	witness   bool          // say when the first client, and the first probe, has reached it
	deaf      bool          // listen, and accept nothing
	feed      time.Duration // send WATCHDOG=1 so often; 0: never
	ready     bool          // say READY=1 on NOTIFY_SOCKET or NOTIFY_FD
	boot      time.Duration // sleep before anything else
	lines     int           // print so many lines at boot
	holds     string        // moments at which it waits for a gate: start (before its sockets), ready (before READY=1), term (before it ends)
	eat       int           // MiB of memory that it takes before it serves
	gorge     int           // MiB of memory that it takes when it gets USR2
	fail      int           // exit with this code at boot; -1: do not
	hang      bool          // never accept, never say anything
	crash     time.Duration // so long after the boot
	crashCode int           // exit with it, or die of signal -crashCode
	term      string        // drain, now, ignore
	exit      int           // exit code after a drain
	linger    time.Duration // at least, between closing the listeners and Shutdown; 0: not at all
	drain     time.Duration // limit of Shutdown
	orphans   int           // left behind at boot, each living for `orphanLife`
	orphan    time.Duration
}

func defaults() settings {
	return settings{
		version: "v0", listen: "auto", health: 200, status: 200, ready: true, fail: -1, term: "drain", crashCode: 7,
		linger: 250 * time.Millisecond, drain: 10 * time.Second, orphan: 50 * time.Millisecond,
	}
}

// readSettings merges trailer, environment, file and arguments.
func readSettings(args []string) (settings, error) {
	s := defaults()
	words := strings.Fields(trailer() + " " + os.Getenv("TESTAPP"))
	if name := os.Getenv("TESTAPP_FILE"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			return s, err
		}
		words = append(words, strings.Fields(string(text))...)
	}
	for _, word := range append(words, args...) {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return s, fmt.Errorf("%q is not key=value", word)
		}
		if err := s.set(key, value); err != nil {
			return s, fmt.Errorf("cannot take %q: %v", word, err)
		}
	}
	return s, nil
}

func (s *settings) set(key, value string) (err error) {
	switch key {
	case "version":
		s.version = value
	case "listen":
		s.listen = value
	case "holds":
		s.holds = value
	case "term":
		s.term = value
	case "later":
		s.later = value
	case "after":
		s.after, err = time.ParseDuration(value)
	case "reopen":
		s.reopen, err = time.ParseDuration(value)
	case "health":
		s.health, err = strconv.Atoi(value)
	case "status":
		s.status, err = strconv.Atoi(value)
	case "witness":
		s.witness, err = strconv.ParseBool(value)
	case "deaf":
		s.deaf, err = strconv.ParseBool(value)
	case "feed":
		s.feed, err = time.ParseDuration(value)
	case "ready":
		s.ready, err = strconv.ParseBool(value)
	case "hang":
		s.hang, err = strconv.ParseBool(value)
	case "boot":
		s.boot, err = time.ParseDuration(value)
	case "crash":
		s.crash, err = time.ParseDuration(value)
	case "linger":
		s.linger, err = time.ParseDuration(value)
	case "drain":
		s.drain, err = time.ParseDuration(value)
	case "orphan":
		s.orphan, err = time.ParseDuration(value)
	case "eat":
		s.eat, err = strconv.Atoi(value)
	case "gorge":
		s.gorge, err = strconv.Atoi(value)
	case "lines":
		s.lines, err = strconv.Atoi(value)
	case "fail":
		s.fail, err = strconv.Atoi(value)
	case "fail-worker": // as fail=3, in the worker of that number
		if value == os.Getenv("ENTRYPOINT_WORKER") {
			s.fail = 3
		}
	case "exit":
		s.exit, err = strconv.Atoi(value)
	case "crashcode":
		s.crashCode, err = strconv.Atoi(value)
	case "orphans":
		s.orphans, err = strconv.Atoi(value)
	default:
		err = fmt.Errorf("no such setting")
	}
	return err
}

// trailerMark begins the settings stamped behind the ELF image of this executable.
// It is put together at run time, so that it does not occur in the image itself.
var trailerMark = strings.Join([]string{"\n", "TESTAPP", " "}, "#")

// trailer returns the stamped settings, or nothing.
func trailer() string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	tail := make([]byte, min(4096, info.Size()))
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil && err != io.EOF {
		return ""
	}
	at := bytes.LastIndex(tail, []byte(trailerMark))
	if at < 0 {
		return ""
	}
	return string(tail[at+len(trailerMark):])
}
