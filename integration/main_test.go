//go:build integration

// Package integration shows the built binary at work: as PID 1 of real containers,
// swapping a real app under a load that counts every failure.
//
// One row on one back end:
//
//	go test -tags integration ./integration -run 'TestSwap/unshare/hup' -v
//
// REQUIRE_ENGINES=unshare,runc,docker makes an unusable back end, or one that ran no
// test, an error; without it such tests are skipped and say so.
// INTEGRATION_ENGINES=unshare runs only these. ENTRYPOINT_BINARY=FILE tests that file.
package integration

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

var (
	binaries engine.Binaries
	required = words(os.Getenv("REQUIRE_ENGINES"))
	chosen   = words(os.Getenv("INTEGRATION_ENGINES"))
)

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func TestMain(m *testing.M) {
	startClean()
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Println("integration: private PID namespaces and engines need root")
		return exitFor(len(required) > 0)
	}
	dir, err := os.MkdirTemp("", "epbin")
	if err != nil {
		fmt.Println("integration:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binaries, err = engine.Build(dir); err != nil {
		fmt.Println("integration:", err)
		return 1
	}
	code := m.Run()
	if err := closeEngines(); err != nil {
		fmt.Println("integration:", err)
		code = max(code, 1)
	}
	return max(code, countRequired())
}

func exitFor(failed bool) int {
	if failed {
		return 1
	}
	return 0
}

// countRequired fails a whole run in which a required back end ran nothing. A run of
// chosen tests only (-run) is left alone.
func countRequired() int {
	code := 0
	for _, b := range backends {
		fmt.Printf("integration: %d tests ran on %s\n", b.ran, b.name)
		if b.ran == 0 && slices.Contains(required, b.name) && !filtered() {
			fmt.Printf("integration: %s is required and ran no test\n", b.name)
			code = 1
		}
	}
	return code
}

func filtered() bool {
	return slices.ContainsFunc(os.Args, func(a string) bool {
		name, value, _ := strings.Cut(a, "=")
		return name == "-test.run" && value != "" && value != "."
	})
}

// backend starts its engine when the first test wants it.
type backend struct {
	name   string
	start  func() (engine.Engine, error)
	once   sync.Once
	engine engine.Engine
	err    error
	mu     sync.Mutex
	ran    int
}

var backends = []*backend{
	{name: "unshare", start: func() (engine.Engine, error) { return engine.NewUnshare(binaries) }},
	{name: "runc", start: func() (engine.Engine, error) { return engine.NewRunc(binaries) }},
	{name: "docker", start: func() (engine.Engine, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return engine.NewDocker(ctx, binaries)
	}},
}

// usable starts the engine once and proves it by a container with a known exit code.
func (b *backend) usable() (engine.Engine, error) {
	b.once.Do(func() {
		e, err := b.start()
		if err != nil {
			b.err = err
			return
		}
		if b.err = prove(e); b.err != nil {
			e.Close()
			return
		}
		b.engine = e
	})
	return b.engine, b.err
}

func prove(e engine.Engine) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := e.Start(ctx, engine.Spec{Init: []string{"/testapp", "tool", "exit", "42"}})
	if err != nil {
		return err
	}
	defer c.Close()
	if code, err := c.Wait(ctx); err != nil || code != 42 {
		return fmt.Errorf("a container that exits with 42 ended with %d (%v): %s", code, err, c.Logs())
	}
	return nil
}

func closeEngines() error {
	for _, b := range backends {
		if b.engine == nil {
			continue
		}
		if err := b.engine.Close(); err != nil {
			return fmt.Errorf("cannot end %s: %w", b.name, err)
		}
	}
	return nil
}

// on runs a test on the named back ends, or on all; each is a subtest.
func on(t *testing.T, names string, f func(t *testing.T, e engine.Engine)) {
	for _, b := range backends {
		if names != "" && !slices.Contains(words(names), b.name) || len(chosen) > 0 && !slices.Contains(chosen, b.name) {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			e, err := b.usable()
			if err != nil && slices.Contains(required, b.name) {
				t.Fatalf("%s is required and not usable: %v", b.name, err)
			}
			if err != nil {
				t.Skipf("SKIPPED: no %s: %v", b.name, err)
			}
			b.mu.Lock()
			b.ran++
			b.mu.Unlock()
			f(t, e)
		})
	}
}

// startClean gives the signals that were ignored when this program was started their default action, for everything that it
// starts: make ignores 32 and 33, nohup HUP, a background shell INT and QUIT. Container runtimes start clean.
func startClean() {
	const ignored = 1
	for sig := uintptr(1); sig <= 64; sig++ {
		var now, byDefault [4]uintptr
		_, _, err := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0)
		if err == 0 && now[0] == ignored {
			_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
		}
	}
}
