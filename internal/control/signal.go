package control

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The real-time signals that are free for programs; the C library keeps 32 and 33 for itself.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// parseSignal reads the signal of a request. It is strict and without hints: those are the business of the command,
// which has spoken to a person before it sends the request.
func parseSignal(s string) (syscall.Signal, error) {
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	base, offset := 0, name
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		base, offset = sigRTMin, rest
	} else if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		base, offset = sigRTMax, rest
	}
	n := 0
	if offset != "" || base == 0 {
		var err error
		if n, err = strconv.Atoi(offset); err != nil {
			return 0, usagef("unknown signal %q: give a name (HUP, SIGHUP, RTMIN+3) or a number", s)
		}
	}
	if base == 0 && n >= 1 && n <= sigRTMax {
		return syscall.Signal(n), nil
	}
	if sum := base + n; base != 0 && sum >= sigRTMin && sum <= sigRTMax {
		return syscall.Signal(sum), nil
	}
	return 0, usagef("unknown signal %q: numbers go from 1 to %d", s, sigRTMax)
}
