package reaper

import (
	"errors"
	"os"
	"syscall"
)

// TryExec asks the kernel to execute the open file (execveat with an empty path, Linux 3.19), which is meant to be refused, and gives the
// reason: an error number. nil: it was executed, and killed at once, or could not be asked for want of a process. It blocks for about a
// millisecond, works before Run too, and leaves f to the caller.
//
// A child asks. In this process another thread could not be made meanwhile: as long as one is in execve(2), clone(2) refuses (EAGAIN) to share
// its working directory with one more, and the Go runtime ends a process whose threads do not suffice.
func (r *Reaper) TryExec(f *os.File) error {
	p, err := r.start(Spec{Path: f.Name(), FD: int(f.Fd()), Args: []string{"try"}, Files: []int{}, Umask: -1, Own: true})
	if err == nil {
		return p.Signal(syscall.SIGKILL)
	}
	var e *StartError
	if errors.As(err, &e) && e.Op == stepExec.String() {
		return e.Err
	}
	return nil
}
