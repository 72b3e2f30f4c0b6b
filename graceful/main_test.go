package graceful

import (
	"os"
	"strconv"
	"testing"
)

// helpers are programs that the test binary becomes when GRACEFUL_HELPER names one.
var helpers = map[string]func() error{}

func TestMain(m *testing.M) {
	name := os.Getenv("GRACEFUL_HELPER")
	if name == "" {
		os.Exit(m.Run())
	}
	if os.Getenv("LISTEN_FDS") != "" { // entrypoint's trampoline does this
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	if err := helpers[name](); err != nil {
		_, _ = os.Stderr.WriteString(name + ": " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}
