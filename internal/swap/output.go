package swap

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tailSize bounds what is kept of a generation's last words.
	tailSize = 4 << 10
	// tailWait is how long an answer waits for words that are on their way when the process is gone already.
	tailWait = 100 * time.Millisecond
)

// output is where a generation writes: our own descriptors, or pipes whose content is passed on byte for byte while the
// last part of it is remembered.
type output struct {
	read, write [2]*os.File // nil: inherited
	sinks       [2]io.Writer
	left        atomic.Int32  // copies that go on
	caught      chan struct{} // closed by the last copy

	mu   sync.Mutex
	last []byte
}

// newOutput makes the output of the next generation. The first one writes to our descriptors: its words are in the
// container's log in any case, and nothing stands between. A terminal is never replaced by a pipe.
func (a *App) newOutput() (*output, error) {
	o := &output{sinks: [2]io.Writer{a.Stdout, a.Stderr}, caught: make(chan struct{})}
	a.mu.Lock()
	first := !a.first
	a.mu.Unlock()
	if first {
		return o, nil
	}
	for i, w := range o.sinks {
		if w == nil {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			o.close()
			return nil, fmt.Errorf("cannot open a pipe for its output: %w", err)
		}
		o.read[i], o.write[i] = r, w
	}
	return o, nil
}

// files are the three standard descriptors.
func (o *output) files() []int {
	fds := []int{0, 1, 2}
	for i, w := range o.write {
		if w != nil {
			fds[i+1] = rawFD(w)
		}
	}
	return fds
}

// rawFD is the descriptor of f without making it blocking, as Fd would.
func rawFD(f *os.File) int {
	fd := -1
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(n uintptr) { fd = int(n) })
	}
	return fd
}

// started closes our copies of the app's ends and begins to pass on. The goroutines end when the last process that
// holds the other end is gone.
func (o *output) started() {
	o.left.Add(1) // so that the first copy to end is not taken for the last
	defer o.over()
	for i, r := range o.read {
		if r == nil {
			continue
		}
		o.write[i].Close()
		o.write[i] = nil
		o.left.Add(1)
		go func() {
			defer o.over()
			defer r.Close()
			_, _ = io.Copy(pass{o, o.sinks[i]}, onlyReader{r})
		}()
	}
}

func (o *output) over() {
	if o.left.Add(-1) == 0 {
		close(o.caught)
	}
}

// onlyReader hides that a file can write itself out: splice would leave no tail.
type onlyReader struct{ io.Reader }

// pass hands on and remembers. When nobody takes what is handed on, the copy ends and the app learns it as it would have
// from our descriptor: its pipe is broken.
type pass struct {
	o *output
	w io.Writer
}

func (p pass) Write(b []byte) (int, error) {
	p.o.remember(b)
	return p.w.Write(b)
}

func (o *output) remember(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = append(o.last, b[max(0, len(b)-tailSize):]...)
	if n := len(o.last); n > tailSize {
		o.last = append(o.last[:0], o.last[n-tailSize:]...)
	}
}

// tail waits a moment for the copy to catch up, then gives the last whole lines.
func (o *output) tail() string {
	select {
	case <-o.caught:
	case <-time.After(tailWait):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.last
	if len(b) == tailSize {
		if i := bytes.IndexByte(b, '\n'); i >= 0 && i+1 < len(b) {
			b = b[i+1:]
		}
	}
	return string(bytes.ToValidUTF8(b, []byte("\uFFFD")))
}

// close closes what a start that failed has left open.
func (o *output) close() {
	for i := range o.write {
		if o.write[i] != nil {
			o.write[i].Close()
			o.read[i].Close()
			o.write[i] = nil
		}
	}
}
