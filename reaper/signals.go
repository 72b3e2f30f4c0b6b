package reaper

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Signal numbers at the ends of the range.
const (
	sigRTMin  = syscall.Signal(34) // the first one that libcs leave to programs
	sigRTMax  = syscall.Signal(64)
	maxSignal = 64
)

// preemptOff is set to "1" by the linker in a build whose Go runtime does not preempt goroutines by signals:
//
//	-X=runtime.godebugDefault=asyncpreemptoff=1 -X github.com/hotswap-init/entrypoint/reaper.preemptOff=1
var preemptOff string

// RuntimePreempts tells whether the Go runtime may send SIGURG to its own threads. Such a signal cannot be told from one
// that somebody sent, so Notify then leaves SIGURG out.
func RuntimePreempts() bool { return preempts(preemptOff, godebug) }

// godebug is what the runtime has read at its start; a later change changes nothing.
var godebug = os.Getenv("GODEBUG")

// preempts is the runtime's own rule: the environment is stronger than what is linked in, and the last word counts.
func preempts(linked, env string) bool {
	off := linked == "1"
	for word := range strings.SplitSeq(env, ",") {
		if v, ok := strings.CutPrefix(word, "asyncpreemptoff="); ok {
			if n, err := strconv.ParseInt(v, 10, 32); err == nil {
				off = n != 0
			}
		}
	}
	return !off
}

// Notify delivers to c every signal that can be caught, except SIGCHLD, which is Run's, and SIGURG where the runtime may
// send it to itself. c needs room: a fault signal (ILL, TRAP, ABRT, BUS, FPE, SEGV) that meets a full channel is lost, as
// with signal.Notify; the others wait.
//
// On amd64 and arm64 a handler of our own takes all but the fault signals. os/signal would never deliver SIGPROF and 34,
// would merge those that queue (35 to 64), and takes a millisecond to be set up for all of them. Of SIGPIPE, one that a
// write of ours caused is not delivered, one that somebody sent is. So it is with 32 and 33, which the runtime and the C
// libraries use inside a process: the process's own go where they went before; in a program with cgo both are left alone.
// Other users of signal.Notify do not get these signals any more, and a CPU profile started later takes SIGPROF back. On
// other machines SIGPIPE is never delivered, 27 and 32 to 34 are not covered, and 35 to 64 may merge.
//
// Notify is for the whole life of the process and must be called once.
func Notify(c chan<- os.Signal) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // that somebody asks for it keeps the runtime from exiting for one
	var list []os.Signal
	for n := syscall.Signal(1); n <= maxSignal; n++ {
		if catchable(n) && (!hasRaw && deliverable(n) || fault(n)) {
			list = append(list, n)
		}
	}
	signal.Notify(c, list...)
	catchRaw(c)
}

// catchable leaves out what nobody can have, and what is not for the caller of Notify.
func catchable(sig syscall.Signal) bool {
	switch sig {
	case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD:
		return false
	case syscall.SIGURG:
		return !RuntimePreempts()
	}
	return true
}

// deliverable tells whether os/signal can deliver it to somebody who does not want the process's own.
func deliverable(sig syscall.Signal) bool {
	switch sig {
	case syscall.SIGPIPE, syscall.SIGPROF, 32, 33, sigRTMin:
		return false
	}
	return true
}

// fault tells the signals that the processor, or the runtime itself, raises: the runtime's handler must see them first.
func fault(sig syscall.Signal) bool {
	switch sig {
	case syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV:
		return true
	}
	return false
}

// SignalName is the name with SIG, such as SIGTERM or SIGRTMIN+3. The two below SIGRTMIN, which have no name, get a number.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	switch {
	case sig == sigRTMin:
		return "SIGRTMIN"
	case sig > sigRTMin && sig <= sigRTMax:
		return fmt.Sprintf("SIGRTMIN+%d", sig-sigRTMin)
	}
	return strconv.Itoa(int(sig))
}

// otherNames are second names of some signals.
var otherNames = map[string]syscall.Signal{"CLD": syscall.SIGCHLD, "POLL": syscall.SIGIO, "IOT": syscall.SIGABRT}

// ParseSignal reads a name with or without SIG in any case, a number, RTMIN+n or RTMAX-n.
func ParseSignal(s string) (syscall.Signal, error) {
	full := strings.ToUpper(strings.TrimSpace(s))
	if n, err := strconv.Atoi(full); err == nil && full[0] != '+' {
		if n < 1 || n > maxSignal {
			return 0, fmt.Errorf("there is no signal %d: numbers go from 1 to %d", n, maxSignal)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(full, "SIG")
	if sig := max(realTime(name), otherNames[name], unix.SignalNum("SIG"+name)); sig != 0 {
		return sig, nil
	}
	if near := nearest(name); near != "" {
		return 0, fmt.Errorf("there is no signal %q: did you mean %s?", s, near)
	}
	return 0, fmt.Errorf("there is no signal %q: write a name such as TERM, a number, or RTMIN+3", s)
}

// nearest is the name, without SIG, that is one slip of the keyboard away; "": there is none.
func nearest(name string) string {
	for n := syscall.Signal(1); n < sigRTMin; n++ {
		if good := strings.TrimPrefix(unix.SignalName(n), "SIG"); good != "" && oneSlip(name, good) {
			return good
		}
	}
	return ""
}

// oneSlip tells whether a becomes b by one letter more, less or other, or by two neighbours changing places.
func oneSlip(a, b string) bool {
	for a != "" && b != "" && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for a != "" && b != "" && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return len(a) <= 1 && len(b) <= 1 || len(a) == 2 && len(b) == 2 && a[0] == b[1] && a[1] == b[0]
}

// realTime reads RTMIN, RTMIN+n, RTMAX and RTMAX-n; 0: it is none of them.
func realTime(name string) syscall.Signal {
	for prefix, from := range map[string]syscall.Signal{"RTMIN": sigRTMin, "RTMAX": sigRTMax} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		if rest == "" {
			return from
		}
		n, err := strconv.Atoi(rest)
		if sig := from + syscall.Signal(n); err == nil && (rest[0] == '+' || rest[0] == '-') && sig >= sigRTMin && sig <= sigRTMax {
			return sig
		}
	}
	return 0
}
