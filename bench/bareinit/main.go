// Command bareinit is the yardstick for what the language costs: the plain job of PID 1 as one would write it in Go in an
// afternoon, on package syscall alone. It starts a program, forwards every signal to it, reaps, and exits with its status.
// It has the fault of such programs, too: the signals by which the runtime preempts itself are forwarded like any other.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 256)
	signal.Notify(signals)
	path := os.Args[1]
	pid, err := syscall.ForkExec(path, os.Args[1:], &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		os.Stderr.WriteString("bareinit: cannot start " + path + ": " + err.Error() + "\n")
		os.Exit(127)
	}
	for s := range signals {
		if s != syscall.SIGCHLD {
			_ = syscall.Kill(pid, s.(syscall.Signal)) // it may be gone; then a SIGCHLD follows
			continue
		}
		reap(pid)
	}
}

// reap collects all that is dead, and exits when the program is among it.
func reap(pid int) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil || got <= 0:
			return
		case got == pid && status.Signaled():
			os.Exit(128 + int(status.Signal()))
		case got == pid:
			os.Exit(status.ExitStatus())
		}
	}
}
