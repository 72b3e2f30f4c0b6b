package swap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tailSize bounds what is kept of a generation's last words.
	tailSize = 4 << 10
	// tailWait is how long an answer waits for words that are on their way when the process is gone already.
	tailWait = 100 * time.Millisecond
	// behindWait is how long after that, where some are in a pipe and were not read yet.
	behindWait = time.Second
)

// Words is where one worker of a generation writes when somebody else reads that (package applog).
type Words interface {
	// Files are the descriptors for standard output and standard error, until Started.
	Files() (stdout, stderr *os.File)
	// Started is called once when the process has them.
	Started()
	// Tail waits a moment for the last words, and gives the end of what was said.
	Tail() string
	// Close frees what is left when nothing of the generation runs any more, or when it was not started.
	Close()
}

// output is where a generation writes: where App.Words says, our own descriptors, or pipes whose content is passed on byte for byte while the
// last part of it is remembered.
type output struct {
	read, write [2]*os.File // nil: inherited
	sinks       [2]io.Writer
	words       Words         // nil: we see to it
	left        atomic.Int32  // copies that go on
	caught      chan struct{} // closed by the last copy

	mu   sync.Mutex
	last []byte
}

// newOutput makes the output of the next generation. The first one writes to our descriptors: its words are in the
// container's log in any case, and nothing stands between. A terminal is never replaced by a pipe.
func (a *App) newOutput(gen, worker int) (*output, error) {
	o := &output{sinks: [2]io.Writer{a.Stdout, a.Stderr}, caught: make(chan struct{})}
	if a.Words != nil {
		var err error
		o.words, err = a.Words(gen, worker)
		return o, err
	}
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
		r, w, err := wordsPipe()
		if err != nil {
			o.close()
			return nil, fmt.Errorf("cannot open a pipe for its output: %w", err)
		}
		o.read[i], o.write[i] = r, w
	}
	return o, nil
}

// outputFor is the output of a worker: those of the first generation all write to our descriptors.
func (a *App) outputFor(gen, worker int) (*output, error) {
	a.mu.Lock()
	first := a.firstGen == gen
	a.mu.Unlock()
	if first && a.Words == nil {
		return &output{caught: make(chan struct{})}, nil
	}
	return a.newOutput(gen, worker)
}

// wordsPipe is a pipe for what a program says. Its writing end blocks: os.Pipe's does not, and programs that meet EAGAIN on their
// output, which is most, lose words or stop.
func wordsPipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	if err = unix.SetNonblock(rawFD(w), false); err != nil {
		r.Close()
		w.Close()
		return nil, nil, err
	}
	return r, w, nil
}

// belated reads a pipe, and past the reader's deadline what is in it already, so much as a pipe can hold: the deadline is for what is still to
// come, and whoever reads may be late himself.
type belated struct {
	pipe *os.File
	more int // bytes that were read past the deadline
}

func (l *belated) Read(b []byte) (n int, err error) {
	if n, err = l.pipe.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || l.more >= pipeSize {
		return n, err
	}
	if raw, e := l.pipe.SyscallConn(); e == nil {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), b) })
	}
	if n <= 0 {
		return 0, err
	}
	l.more += n
	return n, nil
}

// pipeSize is what a pipe holds (pipe(7)).
const pipeSize = 64 << 10

// files are the three standard descriptors.
func (o *output) files() []int {
	if o.words != nil {
		stdout, stderr := o.words.Files()
		return []int{0, rawFD(stdout), rawFD(stderr)}
	}
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
	if o.words != nil {
		o.words.Started()
		return
	}
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

// tail waits a moment for the copy to catch up, then gives the last whole lines. A second moment has the copy that is behind.
func (o *output) tail() string {
	if o.words != nil {
		return o.words.Tail()
	}
	if !o.copied(tailWait) && o.behind() {
		o.copied(behindWait)
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

func (o *output) copied(within time.Duration) bool {
	select {
	case <-o.caught:
		return true
	case <-time.After(within):
		return false
	}
}

// behind tells whether words of the app are in a pipe still.
func (o *output) behind() (yes bool) {
	for _, r := range o.read {
		if r == nil {
			continue
		}
		if raw, err := r.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
				yes = yes || err == nil && n > 0
			})
		}
	}
	return yes
}

// close closes what a start that failed has left open.
func (o *output) close() {
	if o.words != nil {
		o.words.Close()
		return
	}
	for i := range o.write {
		if o.write[i] != nil {
			o.write[i].Close()
			o.read[i].Close()
			o.write[i] = nil
		}
	}
}
