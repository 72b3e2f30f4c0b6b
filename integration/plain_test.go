//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// startPlain starts a container without a scene and removes it after the test.
func startPlain(t *testing.T, e engine.Engine, spec engine.Spec) engine.Container {
	t.Helper()
	c, err := e.Start(limit(t), spec)
	if err != nil {
		t.Fatalf("cannot start on %s: %v", e.Name(), err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLog(t, c)
		}
		if err := c.Close(); err != nil {
			t.Errorf("cannot remove the container: %v", err)
		}
	})
	return c
}

// waitLog waits for a line of the container's log with this text.
func waitLog(t *testing.T, c engine.Container, text string) {
	t.Helper()
	s := &scene{t: t, c: c}
	s.eventually(fmt.Sprintf("the log has %q", text), func() error {
		if logs := c.Logs(); !strings.Contains(logs, text) {
			return fmt.Errorf("it ends with %q", tail(logs, 3))
		}
		return nil
	})
}

// appState is what /state of the test app tells.
type appState struct {
	Version    string
	Generation string
	PID, PPID  int
	PGID, SID  int
	Args, Env  []string
	Dir        string
	UID, GID   int
	Groups     []int
	Inherited  map[string]string
	Status     map[string]string
	Signals    []string
	Executable string // os.Executable
	Exe        string // the link /proc/self/exe
}

func (a appState) env(key string) string {
	for _, pair := range a.Env {
		if value, ok := strings.CutPrefix(pair, key+"="); ok {
			return value
		}
	}
	return ""
}

// state asks the app about itself.
func (s *scene) state() appState {
	s.t.Helper()
	text, err := s.get("/state")
	if err != nil {
		s.t.Fatal(err)
	}
	var a appState
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		s.t.Fatalf("state: %v: %s", err, text)
	}
	return a
}
