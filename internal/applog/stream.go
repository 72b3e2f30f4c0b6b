package applog

import (
	"bytes"
	"sync"

	"golang.org/x/sys/unix"
)

// streamSink is one of our own outputs: each line gets the name of its generation in front.
type streamSink struct {
	fd   int
	say  func(format string, a ...any)
	drop func(lines int)

	mu    sync.Mutex
	fault error
}

func (k *streamSink) write(s *source, text []byte, mend string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	prefix := s.prefix()
	out := make([]byte, 0, len(text)+len(prefix)*(bytes.Count(text, []byte{'\n'})+1)+len(mend))
	for line := range bytes.Lines(text) {
		out = append(append(out, prefix...), line...)
	}
	if err := writeAll(k.fd, append(out, mend...)); err != nil {
		if k.fault == nil {
			k.say("cannot write the app's lines to descriptor %d: %v; they are dropped", k.fd, err)
		}
		k.fault = err
		k.drop(lineCount(text))
	} else {
		k.fault = nil
	}
	if s.discard(len(text)) == nil { // nobody else takes anything out of the pipe
		s.took(text)
	}
}

// writeAll waits for whoever reads, also where somebody has made the descriptor non-blocking.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		b = b[max(n, 0):]
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		default:
			return err
		}
	}
	return nil
}

func (k *streamSink) reopen() error { return nil }
func (k *streamSink) close()        {}
