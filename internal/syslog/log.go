package syslog

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/helper"
	"github.com/hotswap-init/entrypoint/reaper"
)

// grace is what the helper has for the last lines, when it is not wanted any more.
const grace = time.Second

// Options describe the way to a syslog. They are not changed after New.
type Options struct {
	Target
	Tag         string
	Reaper      *reaper.Reaper
	Path        string // the executable of this binary
	User        *reaper.Credential
	ParentDeath syscall.Signal
	Log         *slog.Logger
}

// Log is PID 1's side. Make it with New, then call Run once; Write may be called from any goroutine.
type Log struct {
	helper *helper.Helper
	from   *os.File

	mu sync.Mutex
	to int // the writing end of the helper's pipe; -1: closed
}

// New makes the way; lines wait in it until Run.
func New(o Options) (*Log, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("cannot open a pipe: %w", err)
	}
	l := &Log{from: os.NewFile(uintptr(fds[0]), "syslog"), to: fds[1]}
	host, _ := os.Hostname() // without one, the message has none
	first := hello{Target: o.Target, sender: sender{Host: host, Tag: o.Tag, PID: os.Getpid()}}
	l.helper = helper.New(helper.Options{
		Reaper: o.Reaper, Path: o.Path, Role: Role, Files: []*os.File{l.from}, User: o.User, ParentDeath: o.ParentDeath, Stderr: 2, Grace: grace, Log: o.Log,
		Serve: func(_ context.Context, c *helper.Conn) error {
			if err := c.Send(first); err != nil {
				return err
			}
			return c.Receive(&struct{}{}) // it says nothing: this waits for its end
		},
	})
	return l, nil
}

// cutShort ends a line that is too long.
const cutShort = "...\n"

// Write is false if the line must go elsewhere: the helper takes none. It never blocks. A line of more than 4 KiB is cut.
func (l *Log) Write(line []byte) bool {
	if l == nil {
		return false
	}
	if len(line) > maxLine { // it would not go in as a whole
		line = append(append([]byte(nil), line[:maxLine-len(cutShort)]...), cutShort...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.to >= 0 {
		if _, err := unix.Write(l.to, line); err != unix.EINTR {
			return err == nil
		}
	}
	return false
}

// Run keeps the helper running until ctx ends, and until it has sent what was written before, for at most a second then.
func (l *Log) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	err := l.helper.Run(ctx)
	l.close()
	_ = l.from.Close()
	return err
}

func (l *Log) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to >= 0 {
		_ = unix.Close(l.to)
		l.to = -1
	}
}
