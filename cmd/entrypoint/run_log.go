package main

import (
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/syslog"
)

// stream is one of our own output descriptors, written with raw calls: the runtime would end the process when nobody
// reads descriptor 1 or 2 any more, and PID 1 must not end for that.
// The SIGPIPE of such a write is ours and not forwarded: reaper.Notify leaves it out.
type stream struct{ fd int }

func newStream(fd int) *stream { return &stream{fd: fd} }

// Write blocks as long as the reader does. When nobody reads any more the error is EPIPE.
func (s *stream) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Write(s.fd, b[done:])
		done += max(n, 0)
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN: // somebody made it non-blocking
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, -1)
		default:
			return done, err
		}
	}
	return done, nil
}

// logRoom is how many lines wait while nobody reads; more are dropped and counted.
const logRoom = 256

// logFlush is how long the last lines get at the end: as long as that only where nobody reads.
const logFlush = time.Second

// logWriter passes whole log lines on from a goroutine of its own: the owner of the generations must never wait for
// whoever reads our log.
type logWriter struct {
	logger  *slog.Logger // that writes here
	lines   chan []byte
	done    chan struct{}
	dropped atomic.Int64
	lost    atomic.Uint64              // all that were ever dropped
	syslog  atomic.Pointer[syslog.Log] // nil: lines go to our standard error
}

func newLogWriter(to *stream) *logWriter {
	w := &logWriter{lines: make(chan []byte, logRoom), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for line := range w.lines {
			if w.syslog.Load().Write(line) {
				continue
			}
			_, _ = to.Write(line) // nobody reads: nobody to tell
			if n := w.dropped.Swap(0); n > 0 {
				_, _ = to.Write([]byte("entrypoint: " + strconv.FormatInt(n, 10) + " log lines were dropped: nobody read them\n"))
			}
		}
	}()
	return w
}

// Write takes one line; slog calls it once a record. It never blocks.
func (w *logWriter) Write(b []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), b...):
	default:
		w.dropped.Add(1)
		w.lost.Add(1)
	}
	return len(b), nil
}

// close writes what waits, for a moment at most. Nothing may be logged after it.
func (w *logWriter) close() {
	close(w.lines)
	select {
	case <-w.done:
	case <-time.After(logFlush):
	}
}

// openLog makes the one logger.
func (p *initProcess) openLog() {
	p.logs = newLogWriter(p.out[1])
	var level slog.Level
	_ = level.UnmarshalText([]byte(p.cfg.LogLevel)) // checked by envcfg
	o := &slog.HandlerOptions{Level: level}
	if f := p.cfg.LogFormat; f == "json" || f == "auto" && !isTerminal(2) {
		p.log = slog.New(slog.NewJSONHandler(p.logs, o))
	} else {
		p.log = slog.New(slog.NewTextHandler(p.logs, o))
	}
	p.logs.logger = p.log
}
