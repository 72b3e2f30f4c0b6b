//go:build integration

package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// putRefused sends what cannot be the app: each with its sentence, and what serves does not notice.
func putRefused(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	whole, err := os.ReadFile(s.stamp("version=v2"))
	if err != nil {
		t.Fatal(err)
	}
	s.underLoad()
	for _, bad := range []struct {
		name  string
		bytes []byte
		parts []string
	}{
		{"half", whole[:len(whole)/2], []string{"it is cut short", fmt.Sprint(len(whole) / 2)}},
		{"a header", whole[:64], []string{"it is cut short: 64 of"}},
		{"a byte", whole[:1], []string{"cannot run"}},
		{"nothing", nil, []string{"nothing came on standard input", "-i"}},
		{"text", []byte("version two\n"), []string{"cannot run"}},
		{"a script", []byte("#!/app/server\n"), []string{"it is a script", "write it there and reload"}},
		{"another machine", s.foreign(), []string{"it is an " + strangeMachine() + " binary on an " + runtime.GOARCH + " machine", "build it for " + runtime.GOARCH}},
		{"missing interpreter", s.dynamic(), []string{"its program interpreter", "does not exist"}},
	} {
		r := s.feed(bytes.NewReader(bad.bytes), "put")
		if s.says(r, 1, bad.parts...); t.Failed() {
			t.Fatalf("%s: %v", bad.name, r)
		}
	}
	s.says(s.upload("version=v3 lines=3 fail=3"), 1, "boot line 3 of 3 of v3")
	w, err := s.who()
	if err != nil || w.version != "v1" || w.gen != 1 {
		t.Errorf("%+v answers (%v)", w, err)
	}
	if st, err := s.status(); err != nil || st.Drift || len(st.Kept) != 0 || st.Candidate != 0 {
		t.Errorf("drift %v, kept %v, candidate %d (%v)", st.Drift, st.Kept, st.Candidate, err)
	}
	s.uploaded("version=v2")
	s.lossless()
}

// strangeMachine is one that this is not.
func strangeMachine() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}

// foreign is the test app for another machine.
func (s *scene) foreign() []byte {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // the first time, the compiler makes all of it
	defer cancel()
	file := filepath.Join(s.t.TempDir(), "testapp")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", file, "./testapp")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+strangeMachine())
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("cannot build for %s: %v: %s", strangeMachine(), err, out)
	}
	return s.read(file)
}

// dynamic is a program that needs a loader, which an image like ours has not.
func (s *scene) dynamic() []byte {
	s.t.Helper()
	name, err := exec.LookPath("env")
	if err != nil {
		s.t.Fatal(err)
	}
	return s.read(name)
}

func (s *scene) read(file string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// putInterrupted kills the client of an upload that is half way: nothing happens, and the next upload is taken.
func putInterrupted(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	whole := s.read(s.stamp("version=v2"))
	cmd := s.feeding("put")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(whole[:len(whole)/2]); err != nil {
		t.Fatal(err)
	}
	s.eventually("the upload has begun", func() error { return s.wantProcesses("put", 1) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	s.eventually("the killed upload is gone", func() error { return s.wantProcesses("put", 0) })
	s.serves("v1", 1)
	s.uploaded("version=v2")
	s.lossless()
}

// wantProcesses counts processes of the init's binary inside with this word.
func (s *scene) wantProcesses(word string, want int) error {
	dirs, err := filepath.Glob(s.inside("/proc/[0-9]*/cmdline"))
	if err != nil {
		return err
	}
	n := 0
	for _, name := range dirs {
		text, _ := os.ReadFile(name) // it may have ended
		if strings.HasPrefix(string(text), "/entrypoint\x00"+word) {
			n++
		}
	}
	if n != want {
		return fmt.Errorf("%d processes, want %d", n, want)
	}
	return nil
}

// putTwice puts two programs at once: one of them after the other, or one is told that it came too late.
func putTwice(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.begins()
	s.underLoad()
	served := 1
	for range 3 {
		replies := make(chan string, 2)
		for _, version := range []string{"v2", "v3"} {
			go func() {
				r := s.upload("version=" + version + " boot=100ms")
				if r.code == 0 {
					replies <- version
				} else {
					s.says(r, 3, "another swap is under way")
					replies <- ""
				}
			}()
		}
		done := []string{<-replies, <-replies}
		w, err := s.who()
		if err != nil || w.version == "" || w.version != done[0] && w.version != done[1] {
			t.Fatalf("%+v answers (%v), done was said to %q", w, err, done)
		}
		if _, sum := s.facts(); sum != fileSum(t, filepath.Join(s.dir, "server-"+w.version)) || sum != fileSum(t, s.inside(server)) {
			t.Errorf("%s serves with sha256 %s, the file has %s", w.version, sum, fileSum(t, s.inside(server)))
		}
		if w.gen <= served {
			t.Errorf("generation %d after %d", w.gen, served)
		}
		served = w.gen
	}
	s.lossless()
}

// putTooLarge: what would not fit into the container's memory is refused before the kernel kills somebody.
func putTooLarge(t *testing.T, e engine.Engine) {
	s := playSpec(t, e, "version=v1", engine.Spec{Args: []string{"--memory=96m", "--memory-swap=96m"}})
	s.underLoad()
	large := io.MultiReader(bytes.NewReader(s.read(binaries.TestApp)), io.LimitReader(zeros{}, 400<<20))
	s.says(s.feed(large, "put"), 1, "cannot take the upload", "the memory of the container is used up after")
	s.serves("v1", 1)
	s.uploaded("version=v2")
	s.lossless()
	if out, err := exec.Command("grep", "^oom_kill ", s.memoryFile("memory.oom_control")).Output(); err != nil || strings.TrimSpace(string(out)) != "oom_kill 0" {
		t.Errorf("the kernel killed for want of memory: %s (%v)", out, err)
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// putFullDisk: where there is no room for the new file, the swap is made and the old file stays, whole.
func putFullDisk(t *testing.T, e engine.Engine) {
	s, data := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}, t.TempDir()
	v1 := s.stamp("version=v1")
	size := len(s.read(v1)) + 1<<20
	if err := unix.Mount("tmpfs", data, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("SKIPPED: cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(data, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(data, "server"), s.read(v1), 0o755); err != nil {
		t.Fatal(err)
	}
	s.start(e, "version=v1", engine.Spec{
		Binds: []string{data + ":/data"}, Command: []string{"/data/server"}, Env: []string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr},
	})
	s.waitVersion("v1")
	s.underLoad()
	s.says(s.uploaded("version=v2"), 0, "a restart of the container runs the old program", `cannot replace "/data/server": no space left on device`)
	if got := s.names("/data"); got != "server" || fileSum(t, filepath.Join(data, "server")) != fileSum(t, v1) {
		t.Errorf("files %q, sha256 %s, want %s", got, fileSum(t, filepath.Join(data, "server")), fileSum(t, v1))
	}
	s.lossless()
}
