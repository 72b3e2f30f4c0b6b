package applog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/helper"
	"github.com/hotswap-init/entrypoint/reaper"
)

const (
	// handTime bounds how long a pipe may wait to be taken by a helper, which does that before anything else.
	handTime = time.Second
	// tailTime is how long the answer about a failed candidate waits for its last words.
	tailTime = 300 * time.Millisecond
	// reopenTime bounds what opening files may take.
	reopenTime = 10 * time.Second
	// finishGrace is what the helper has at the end for what is still in the pipes.
	finishGrace = 2 * time.Second
)

// Options describe the log of one app. They are not changed after New.
type Options struct {
	Spec        Spec
	App         string
	Reaper      *reaper.Reaper
	Path        string             // the executable of this binary
	User        *reaper.Credential // whose the files are
	ParentDeath syscall.Signal
	Log         *slog.Logger
}

// Log is PID 1's side. Make it with New, then call Run once; the other methods may be called from any goroutine.
type Log struct {
	o       Options
	helper  *helper.Helper
	near    *net.UnixConn // pipes go in here
	far     *os.File      // and come out there, in the helper
	closing []*os.File

	mu      sync.Mutex
	conn    *helper.Conn // nil: no run
	run     int
	next    int
	pipes   map[int]*pipe
	seq     int
	waits   map[int]chan answer
	base    int64 // lines dropped in earlier runs
	dropped int64 // in this one
}

// pipe is one of a generation, from its start until its last line is written.
type pipe struct {
	newcomer
	r     *os.File // nil: it is over
	ended chan struct{}
	tail  string
}

// New makes the log of an app. Nothing runs until Run.
func New(o Options) (*Log, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket pair for the log: %w", err)
	}
	l := &Log{o: o, pipes: map[int]*pipe{}, waits: map[int]chan answer{}}
	f := os.NewFile(uintptr(pair[0]), "log")
	c, err := net.FileConn(f)
	f.Close()
	l.far = os.NewFile(uintptr(pair[1]), "log")
	l.closing = []*os.File{l.far}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("cannot use a socket pair for the log: %w", err)
	}
	l.near = c.(*net.UnixConn)
	files := []*os.File{l.far}
	for fd := 1; fd <= 2; fd++ {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil { // it is closed: nobody reads
			copied, err = unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			l.close()
			return nil, fmt.Errorf("cannot copy descriptor %d for the log: %w", fd, err)
		}
		f := os.NewFile(uintptr(copied), "output")
		files, l.closing = append(files, f), append(l.closing, f)
	}
	l.helper = helper.New(helper.Options{
		Reaper: o.Reaper, Path: o.Path, Role: Role, Files: files, User: o.User, ParentDeath: o.ParentDeath, Stderr: 2,
		Grace: finishGrace, Log: o.Log, Serve: l.serve,
	})
	return l, nil
}

func (l *Log) close() {
	if l.near != nil {
		l.near.Close()
	}
	for _, f := range l.closing {
		f.Close()
	}
}

// Run keeps the helper running until ctx ends, and until it has written what is in the pipes, for at most two seconds then. Nothing may
// be opened after the end of ctx.
func (l *Log) Run(ctx context.Context) error {
	err := l.helper.Run(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.pipes {
		l.over(id, "")
	}
	l.close()
	return err
}

// Dropped counts the lines that could not be written.
func (l *Log) Dropped() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.base + l.dropped
}

// PID is the process number of the helper; 0 while there is none.
func (l *Log) PID() int { return l.helper.PID() }

// serve talks with one run of the helper.
func (l *Log) serve(ctx context.Context, c *helper.Conn) error {
	l.mu.Lock()
	l.run++
	l.base, l.dropped = l.base+l.dropped, 0
	run := l.run
	l.mu.Unlock()
	if err := c.Send(order{Run: run, Spec: &l.o.Spec}); err != nil {
		return err
	}
	l.mu.Lock()
	l.conn = c
	err := error(nil)
	for _, p := range l.pipes {
		err = errors.Join(err, l.hand(p))
	}
	l.mu.Unlock()
	for err == nil {
		var a answer
		if err = c.Receive(&a); err == nil {
			l.answered(a)
		}
	}
	l.mu.Lock()
	l.conn = nil
	for seq, w := range l.waits {
		close(w)
		delete(l.waits, seq)
	}
	l.mu.Unlock()
	return err
}

func (l *Log) answered(a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case a.Ended != 0:
		l.over(a.Ended, a.Tail)
	case a.Seq != 0 && l.waits[a.Seq] != nil:
		l.waits[a.Seq] <- a // there is room
		delete(l.waits, a.Seq)
	case a.Dropped != 0:
		l.dropped = a.Dropped
	case a.Say != "":
		l.o.Log.Warn("app log", "why", a.Say)
	}
}

// over forgets a pipe. The caller has the lock.
func (l *Log) over(id int, tail string) {
	if p := l.pipes[id]; p != nil {
		p.tail = tail
		p.r.Close()
		close(p.ended)
		delete(l.pipes, id)
	}
}

// hand gives a pipe to the present run. The caller has the lock.
func (l *Log) hand(p *pipe) error {
	p.Run = l.run
	text, err := json.Marshal(p.newcomer)
	if err != nil {
		return fmt.Errorf("internal error: cannot encode a message: %w", err)
	}
	_ = l.near.SetWriteDeadline(time.Now().Add(handTime))
	rc, err := p.r.SyscallConn()
	if err != nil {
		return err
	}
	ctl := rc.Control(func(fd uintptr) {
		_, _, err = l.near.WriteMsgUnix(text, unix.UnixRights(int(fd)), nil)
	})
	if err = errors.Join(err, ctl); err != nil {
		return fmt.Errorf("cannot give a pipe to the log helper: %w", err)
	}
	return nil
}

// ask sends an order and waits for its answer.
func (l *Log) ask(o order, patience time.Duration) (answer, error) {
	l.mu.Lock()
	c := l.conn
	l.seq++
	o.Seq = l.seq
	w := make(chan answer, 1)
	if c != nil {
		l.waits[o.Seq] = w
	}
	l.mu.Unlock()
	if c == nil {
		return answer{}, errors.New("the log helper is not running: it is being started again")
	}
	if err := c.Send(o); err != nil {
		return answer{}, fmt.Errorf("cannot reach the log helper: %w", err)
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case a, ok := <-w:
		if !ok {
			return a, errors.New("the log helper has ended: it is being started again")
		}
		return a, nil
	case <-late.C:
		l.mu.Lock()
		delete(l.waits, o.Seq)
		l.mu.Unlock()
		return answer{}, fmt.Errorf("the log helper has not answered for %s", patience)
	}
}

// Reopen has all files opened anew, after somebody else has renamed them. It tells how many.
func (l *Log) Reopen() (int, error) {
	if l.o.Spec.Kind != File {
		return 0, errors.New("there is no log file: ENTRYPOINT_APP_LOG names none")
	}
	a, err := l.ask(order{Reopen: true}, reopenTime)
	if err == nil && a.Fault != "" {
		err = errors.New(a.Fault)
	}
	return a.Reopened, err
}

// Words is where one worker of a generation writes.
type Words struct {
	l     *Log
	write [2]*os.File // of stdout and stderr; the same where both go into one pipe
	pipes []*pipe
}

// Open makes the pipes of a worker. They end when the last process that has one of them for writing is gone; Close is to be called all the
// same.
func (l *Log) Open(generation, worker int) (*Words, error) {
	w := &Words{l: l}
	streams := []string{"output"}
	if l.o.Spec.apart() {
		streams = []string{"stdout", "stderr"}
	}
	for i, stream := range streams {
		r, write, err := newPipe()
		if err != nil {
			w.Close()
			return nil, fmt.Errorf("cannot open a pipe for its output: %w", err)
		}
		w.write[i] = write
		p := &pipe{r: r, ended: make(chan struct{}), newcomer: newcomer{Origin: Origin{App: l.o.App, Generation: generation, Worker: worker, Stream: stream}}}
		w.pipes = append(w.pipes, p)
		l.mu.Lock()
		l.next++
		p.ID = l.next
		l.pipes[p.ID] = p
		if l.conn != nil {
			if err := l.hand(p); err != nil {
				l.o.Log.Warn("app log", "why", err) // the next run gets it
			}
		}
		l.mu.Unlock()
	}
	if w.write[1] == nil {
		w.write[1] = w.write[0]
	}
	return w, nil
}

// newPipe is a pipe whose reading end does not block and whose writing end does, as programs expect of their output.
func newPipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeRoom) // the limit of the user may be used up: a smaller one will do
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, err
	}
	// A blocking file is never polled: it only carries the number.
	return os.NewFile(uintptr(fds[0]), "app"), os.NewFile(uintptr(fds[1]), "app"), nil
}

// Files are the descriptors for standard output and standard error, until Started.
func (w *Words) Files() (stdout, stderr *os.File) { return w.write[0], w.write[1] }

// Started closes our copies of the writing ends: the app has its own.
func (w *Words) Started() {
	for i, f := range w.write {
		if f != nil && (i == 0 || f != w.write[0]) {
			f.Close()
		}
	}
	w.write = [2]*os.File{}
}

// Close ends what a start that failed has left open.
func (w *Words) Close() { w.Started() }

// Tail waits a moment for the last words, and gives the end of what was said.
func (w *Words) Tail() string {
	text := ""
	late := time.NewTimer(tailTime)
	defer late.Stop()
	for _, p := range w.pipes {
		select {
		case <-p.ended:
			w.l.mu.Lock()
			text += p.tail
			w.l.mu.Unlock()
			continue
		case <-late.C:
			late.Reset(0) // none for the next one
		}
		if a, err := w.l.ask(order{Tail: p.ID}, tailTime); err == nil {
			text += a.Tail
		}
	}
	return text
}
