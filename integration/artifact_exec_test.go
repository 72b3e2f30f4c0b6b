//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// reads fails unless the app reads this of itself.
func (s *scene) reads(exe, executable, comm string) {
	s.t.Helper()
	a := s.state()
	if a.Exe != exe || a.Executable != executable || a.Status["Name"] != comm || len(a.Args) == 0 || a.Args[0] != server {
		s.t.Errorf("the app reads: exe %q, os.Executable %q, comm %q, arguments %q; want %q, %q, %q, [%q]",
			a.Exe, a.Executable, a.Status["Name"], a.Args, exe, executable, comm, server)
	}
}

func execAuto(t *testing.T, e engine.Engine) { copiedOver(t, e, "auto") }
func execCopy(t *testing.T, e engine.Engine) { copiedOver(t, e, "copy") }

// copiedOver writes over the running program in place: as what runs is a copy, that is one swap, and no fault.
func copiedOver(t *testing.T, e engine.Engine, mode string) {
	s := newSeries(t)
	s.begin(e, engine.Spec{Env: []string{"ENTRYPOINT_WATCH=auto", "ENTRYPOINT_EXEC=" + mode}})
	comm := s.state().Status["Name"] // a number before Linux 6.14
	if comm != "memfd:server" && strings.Trim(comm, "0123456789") != "" {
		t.Errorf("the app is called %q", comm)
	}
	s.reads("/memfd:server (deleted)", "/memfd:server", comm)
	for range 2 {
		s.sh("cp /stage/"+s.next()+" /app/server", nil)
		s.changed("cp over the running program")
	}
	s.over()
}

// execPath runs the file itself, so that the kernel keeps it from being written to.
func execPath(t *testing.T, e engine.Engine) {
	s := newSeries(t)
	s.begin(e, engine.Spec{Env: []string{"ENTRYPOINT_WATCH=auto", "ENTRYPOINT_EXEC=path"}})
	s.reads(server, server, "server")
	cmd := s.c.Command(limit(t), "/bin/cp", "/stage/"+s.next(), server)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "Text file busy") {
		t.Errorf("cp over the running file: %v: %s", err, out)
	}
	s.sh("cp --remove-destination /stage/"+filepath.Base(s.stamp("version=v2"))+" /app/server", nil)
	s.changed("cp --remove-destination")
	facts, _ := s.facts()
	if facts.Exec != "path" || facts.Why != "ENTRYPOINT_EXEC is path" || facts.Memory != 0 {
		t.Errorf("status: %+v", facts)
	}
	s.says(s.upload("version=v9"), 0, "generation 3") // an upload has no path yet: it runs from memory, and is a file the next time
	s.active++
	s.reads("/memfd:server (deleted)", "/memfd:server", s.state().Status["Name"])
	s.lossless()
}

// stateDir keeps the copies in files of a volume; those of a container that was killed are gone at the next start.
func stateDir(t *testing.T, e engine.Engine) {
	volume := t.TempDir()
	if err := os.Chmod(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	s := playSpec(t, e, "version=v1", engine.Spec{Binds: []string{volume + ":/state"}, Env: []string{"ENTRYPOINT_STATE_DIR=/state"}})
	s.underLoad()
	first := s.copies(volume, 1)
	s.reads("/state/"+first[0], "/state/"+first[0], "server")
	s.put("version=v2")
	s.reload(0)
	second := s.copies(volume, 2)
	if sum := fileSum(t, filepath.Join(volume, second[len(second)-1])); sum != fileSum(t, s.stamp("version=v2")) {
		t.Errorf("the copy %s has sha256 %s", second[len(second)-1], sum)
	}
	if facts, _ := s.facts(); facts.Exec != "file" || facts.Memory != 0 {
		t.Errorf("status: %+v", facts)
	}
	s.lossless()
	s.signal(syscall.SIGKILL)
	s.waitExit(137)
	s.copies(volume, 2) // nobody was there to remove them
	s.again()
	s.waitVersion("v2")
	if third := s.copies(volume, 1); filepath.Dir(filepath.Dir(third[0])) == filepath.Dir(filepath.Dir(first[0])) {
		t.Errorf("%q is of the container that was killed", third)
	}
	if err := s.c.Stop(patience); err != nil {
		t.Fatal(err)
	}
	s.waitExit(0)
	s.copies(volume, 0)
	if left := s.artifacts(volume); len(left) > 0 {
		t.Errorf("left by an init that ended: %q", left)
	}
}

// copies waits until there are so many in a volume, and returns their names below it.
func (s *scene) copies(volume string, want int) []string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(volume, "artifacts-*", "*", "server"))
	if err != nil || len(found) != want {
		s.t.Fatalf("copies: %q (%v), want %d", found, err, want)
	}
	for i := range found {
		found[i] = strings.TrimPrefix(found[i], volume+"/")
	}
	return found
}

func (s *scene) artifacts(volume string) []string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(volume, "artifacts-*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// stateDirNoExec: Docker mounts a tmpfs noexec. Copies are in memory then, and that is said.
func stateDirNoExec(t *testing.T, e engine.Engine) {
	s := playSpec(t, e, "version=v1", engine.Spec{Args: []string{"--tmpfs", "/state"}, Env: []string{"ENTRYPOINT_STATE_DIR=/state"}})
	s.underLoad()
	if facts, _ := s.facts(); facts.Exec != "memfd" {
		t.Errorf("status: %+v", facts)
	}
	const sentence = "mounted noexec; mount it with the option exec; private copies are in memory"
	waitLog(t, s.c, sentence)
	s.uploaded("version=v2")
	s.lossless()
	if strings.Count(s.c.Logs(), sentence) != 1 {
		t.Error("the log does not say once that copies are in memory")
	}
}
