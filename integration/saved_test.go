//go:build integration

package integration

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// life is one life of the init as a plain process of this machine, with a directory that outlives it.
type life struct {
	t   *testing.T
	cmd *exec.Cmd
	env []string
}

func live(t *testing.T, dir string, command ...string) *life {
	t.Helper()
	l := &life{t: t, env: []string{"PATH=" + os.Getenv("PATH"), "ENTRYPOINT_HANDOFF=none", "ENTRYPOINT_STATE_DIR=" + dir, "ENTRYPOINT_CONTROL=" + filepath.Join(dir, "control")}}
	l.cmd = exec.Command(binaries.Entrypoint, command...)
	l.cmd.Env, l.cmd.SysProcAttr = l.env, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.cmd.Process.Kill(); l.cmd.Wait() })
	return l
}

// client runs the same binary as a client of it.
func (l *life) client(args ...string) ([]byte, error) {
	cmd := exec.Command(binaries.Entrypoint, args...)
	cmd.Env = l.env
	return cmd.CombinedOutput()
}

func (l *life) runs(want ...string) {
	l.t.Helper()
	var st status
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		out, err := l.client("status", "--json")
		if err == nil && json.Unmarshal(out, &st) == nil && st.Active > 0 && slices.Equal(st.Command, want) {
			return
		}
	}
	l.t.Fatalf("%v does not run: %+v", want, st)
}

func (l *life) end() {
	l.t.Helper()
	if out, err := l.client("stop"); err != nil {
		l.t.Fatalf("stop: %v: %s", err, out)
	}
	l.cmd.Wait()
}

// TestSavedCommand: what `run` made current is in force in the next life of the container, while the configured command
// line is the one that it replaced.
func TestSavedCommand(t *testing.T) {
	dir := t.TempDir()
	l := live(t, dir, "/bin/sleep", "1001")
	l.runs("/bin/sleep", "1001")
	if out, err := l.client("run", "--", "/bin/sleep", "2002"); err != nil {
		t.Fatalf("run: %v: %s", err, out)
	}
	s := &scene{t: t}
	s.eventually("it is written down", func() error { _, err := os.Stat(filepath.Join(dir, "command.json")); return err })
	l.end()
	l = live(t, dir, "/bin/sleep", "1001")
	l.runs("/bin/sleep", "2002")
	l.end()
	l = live(t, dir, "/bin/sleep", "3003") // a new configuration wins
	l.runs("/bin/sleep", "3003")
	l.end()
}

// TestAdopted: sockets that we were activated with are held, and passed on to each generation.
func TestAdopted(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &scene{t: t, addr: l.Addr().String()}
	l.Close()
	in := &life{t: t, env: []string{"PATH=" + os.Getenv("PATH"), "ENTRYPOINT_CONTROL=" + filepath.Join(t.TempDir(), "control")}}
	in.cmd = exec.Command("/bin/sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=front exec "$0" -- "$1" version=v1`, binaries.Entrypoint, binaries.TestApp)
	in.cmd.Env, in.cmd.ExtraFiles, in.cmd.SysProcAttr = in.env, []*os.File{f}, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := in.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.cmd.Process.Kill(); in.cmd.Wait() })
	if w := s.waitVersion("v1"); w.gen != 1 {
		t.Errorf("generation %d answers", w.gen)
	}
	in.runs(binaries.TestApp, "version=v1") // it answers from a held socket before it is judged to be ready
	for gen := 2; gen <= 3; gen++ {
		if out, err := in.client("reload"); err != nil {
			t.Fatalf("reload: %v: %s", err, out)
		}
	}
	s.eventually("the newest generation answers", func() error {
		w, err := s.who()
		if err == nil && w.gen != 3 {
			err = errAgain
		}
		return err
	})
	in.end()
}
