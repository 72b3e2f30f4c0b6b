package engine

import (
	"os/exec"
	"runtime"
	"syscall"
)

// starts is served by one goroutine that stays on one thread for ever: the kernel
// sends a parent-death signal when the *thread* that forked ends, not the process.
var starts = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for f := range starts {
			f()
		}
	}()
}

// startTied starts cmd so that it is told to end when this process is gone, even by
// SIGKILL or a test timeout. Back ends pass the end on to their containers.
func startTied(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	result := make(chan error)
	starts <- func() { result <- cmd.Start() }
	return <-result
}
