package swap

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/artifact"
	"github.com/hotswap-init/entrypoint/reaper"
)

// setForeground makes pgrp the foreground group of a terminal. A background process that does so is sent SIGTTOU unless
// the calling thread blocks it; then the kernel lets it. Errors are dropped: the terminal may be gone, and that is the
// terminal's own news to tell (SIGHUP).
func setForeground(tty, pgrp int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var set, old unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGTTOU - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old) != nil {
		return
	}
	_ = unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, pgrp)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
}

// GiveTerminal makes the active generation the terminal's foreground group again, after we were stopped and continued.
func (a *App) GiveTerminal() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.TTY >= 0 && a.foreground != nil && !ended(a.foreground) {
		setForeground(a.TTY, a.foreground.PID())
	}
}

// TakeTerminal makes our own group the foreground group, before we are stopped.
func (a *App) TakeTerminal() {
	if a.TTY >= 0 {
		setForeground(a.TTY, unix.Getpgrp())
	}
}

// watchStops reports each time that the terminal stopped the generation (Ctrl-Z), until it ends.
func (a *App) watchStops(p *reaper.Process) {
	if a.TTY < 0 || a.Stopped == nil {
		return
	}
	go func() {
		for {
			select {
			case <-p.Stopped():
				a.Stopped()
			case <-p.Done():
				return
			}
		}
	}()
}

// Find gives the file that a command line names now.
func (a *App) Find(command []string) (string, error) {
	dir, path, err := a.place()
	if err != nil {
		return "", err
	}
	file, err := artifact.Open(command[0], dir, path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	return file.Path(), nil
}
