package envcfg

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Real-time signals are counted as the C libraries of glibc systems and
// `kill -l` do: the kernel's first two (32, 33) belong to the library.
const (
	sigRTMin = 34
	sigRTMax = 64
)

const signalRemedy = "write HUP, SIGHUP, 1 or RTMIN+3"

// Signal is one signal, written HUP, SIGHUP, 1, RTMIN+3 or RTMAX-2 in any
// case.
type Signal syscall.Signal

// Decode reads the name or number of a signal.
func (s *Signal) Decode(value string) error {
	if value == "" {
		return nil
	}
	sig, p := parseSignal(value)
	if p != nil {
		return problems{*p}
	}
	*s = Signal(sig)
	return nil
}

// String writes the name without SIG, or RTMIN+n, or the number.
func (s Signal) String() string { return signalName(syscall.Signal(s)) }

// The actions of a Binding.
const (
	ActionReload  = "reload"  // start a swap
	ActionStop    = "stop"    // end the container, as TERM does by default
	ActionForward = "forward" // pass Binding.Signal on to the active generation
	ActionIgnore  = "ignore"  // do nothing
)

// Binding is what happens when a signal arrives.
type Binding struct {
	Action string
	Signal syscall.Signal // for ActionForward: what the app gets; else 0
}

// Signals says what the init does with a signal. What is not in the map is
// forwarded unchanged: use For.
type Signals map[syscall.Signal]Binding

// defaultSignals is what holds before ENTRYPOINT_SIGNALS adds to it. INT and
// QUIT are forwarded, as by any plain init.
func defaultSignals() Signals {
	return Signals{
		syscall.SIGHUP:  {Action: ActionReload},
		syscall.SIGTERM: {Action: ActionStop},
	}
}

// For returns what to do with sig.
func (s Signals) For(sig syscall.Signal) Binding {
	if b, ok := s[sig]; ok {
		return b
	}
	return Binding{Action: ActionForward, Signal: sig}
}

// Decode reads SIGNAL=action or SIGNAL=SIGNAL pairs separated by commas. What
// they do not name keeps its default.
func (s *Signals) Decode(value string) error {
	if value == "" {
		return nil
	}
	out := defaultSignals()
	named := map[syscall.Signal]bool{}
	var bad problems
	for _, item := range splitCommas(value) {
		sig, b, p := parseBinding(item)
		if p == nil && named[sig] {
			p = &problem{"a signal is bound twice", quote(item), ""}
		}
		if p != nil {
			bad = append(bad, *p)
			continue
		}
		named[sig], out[sig] = true, b
	}
	*s = out
	return bad.orNil()
}

func parseBinding(item string) (syscall.Signal, Binding, *problem) {
	left, right, found := strings.Cut(item, "=")
	if !found {
		return 0, Binding{}, &problem{"not a binding of a signal", quote(item),
			"write HUP=reload, TERM=stop, QUIT=forward, WINCH=ignore or 15=3"}
	}
	sig, p := parseSignal(left)
	if p != nil {
		return 0, Binding{}, p
	}
	if sig == syscall.SIGKILL || sig == syscall.SIGSTOP || sig == syscall.SIGCHLD {
		return 0, Binding{}, &problem{"a signal that cannot be bound", quote(left),
			"KILL and STOP cannot be caught, CHLD is for the init alone"}
	}
	b, p := parseAction(sig, right)
	return sig, b, p
}

func parseAction(sig syscall.Signal, text string) (Binding, *problem) {
	text = strings.TrimSpace(text)
	switch word := strings.ToLower(text); word {
	case ActionReload, ActionStop, ActionIgnore:
		return Binding{Action: word}, nil
	case ActionForward:
		return Binding{Action: word, Signal: sig}, nil
	}
	other, p := parseSignal(text)
	if p != nil {
		return Binding{}, &problem{"neither an action nor a signal", quote(text),
			"write reload, stop, forward, ignore or the signal to forward instead"}
	}
	return Binding{Action: ActionForward, Signal: other}, nil
}

// String writes the bindings in the order of the signals' numbers.
func (s Signals) String() string {
	parts := make([]string, 0, len(s))
	for _, sig := range slices.Sorted(maps.Keys(s)) {
		b := s[sig]
		action := b.Action
		if b.Action == ActionForward && b.Signal != sig {
			action = signalName(b.Signal)
		}
		parts = append(parts, signalName(sig)+"="+action)
	}
	return strings.Join(parts, ",")
}

func parseSignal(text string) (syscall.Signal, *problem) {
	name := strings.ToUpper(strings.TrimSpace(text))
	if n, err := strconv.ParseUint(name, 10, 16); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, &problem{"not a signal number", quote(text), "signals go from 1 to 64"}
		}
		return syscall.Signal(n), nil
	}
	name = strings.TrimPrefix(name, "SIG")
	switch name { // second names
	case "CLD":
		name = "CHLD"
	case "IOT":
		name = "ABRT"
	case "POLL":
		name = "IO"
	}
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	if sig, ok := realTime(name); ok {
		return sig, nil
	}
	detail := quote(text)
	if near := nearest(name, signalNames()); near != "" {
		detail += fmt.Sprintf(", did you mean %s?", near)
	}
	return 0, &problem{"not a signal", detail, signalRemedy}
}

// realTime reads RTMIN, RTMIN+n, RTMAX and RTMAX-n.
func realTime(name string) (syscall.Signal, bool) {
	base, sign := sigRTMin, 1
	rest, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		base, sign = sigRTMax, -1
		if rest, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0, false
		}
	}
	if rest == "" {
		return syscall.Signal(base), true
	}
	if (rest[0] == '+') != (sign > 0) {
		return 0, false
	}
	n, err := strconv.ParseUint(rest[1:], 10, 8)
	if err != nil || n > sigRTMax-sigRTMin {
		return 0, false
	}
	return syscall.Signal(base + sign*int(n)), true
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	switch {
	case sig == sigRTMin:
		return "RTMIN"
	case sig > sigRTMin && sig <= sigRTMax:
		return fmt.Sprintf("RTMIN+%d", int(sig)-sigRTMin)
	}
	return strconv.Itoa(int(sig))
}

// signalNames lists the names for suggestions.
func signalNames() []string {
	var names []string
	for n := syscall.Signal(1); n < sigRTMin; n++ {
		if name := unix.SignalName(n); name != "" {
			names = append(names, strings.TrimPrefix(name, "SIG"))
		}
	}
	return names
}
