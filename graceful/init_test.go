package graceful

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestStormUnderInit is TestStorm with the real init, which holds the socket and does the swaps. GRACEFUL_INIT names its binary:
//
//	go build -o /tmp/entrypoint ./cmd/entrypoint && GRACEFUL_INIT=/tmp/entrypoint go test -run UnderInit -v ./graceful
func TestStormUnderInit(t *testing.T) {
	bin := os.Getenv("GRACEFUL_INIT")
	if bin == "" {
		t.Skip("GRACEFUL_INIT is not set")
	}
	for _, proto := range stormProtocols() {
		t.Run(proto, func(t *testing.T) {
			s := newStorm(t, proto)
			s.sock.addr = freeAddress(t)
			s.env = append(s.env, "TEST_ADDR="+s.sock.addr)
			env := append(os.Environ(), s.env...)
			env = append(env, "GRACEFUL_HELPER="+s.helper, "ENTRYPOINT_LISTEN=tcp://"+s.sock.addr, "ENTRYPOINT_MAX_DRAINING=50", "ENTRYPOINT_DRAIN_QUIET=0s", // TERM at once, so that all clients move
				fmt.Sprintf("ENTRYPOINT_CONTROL=@graceful-test-%d-%s", os.Getpid(), proto))
			command := func(args ...string) *exec.Cmd {
				c := exec.Command(bin, args...)
				c.Env, c.Stderr = env, os.Stderr
				return c
			}
			container := command("--", os.Args[0])
			if err := container.Start(); err != nil {
				t.Fatal(err)
			}
			exited := make(chan error, 1)
			go func() { exited <- container.Wait() }()
			t.Cleanup(func() { _ = container.Process.Signal(syscall.SIGTERM); receive(t, exited, "the end of the init") })
			awaitAddress(t, s.sock.addr)
			s.clients(func() {
				for range rounds() {
					s.awaitTraffic()
					begun := time.Now()
					if out, err := command("reload").Output(); err != nil {
						t.Errorf("reload: %v %s", err, out)
					}
					s.slowest = max(s.slowest, time.Since(begun))
				}
			})
			s.report()
		})
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func awaitAddress(t *testing.T, addr string) {
	t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
