//go:build integration

package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// TestArtifact brings new bytes into containers as people do, trusts them or not, and goes back to the old ones.
func TestArtifact(t *testing.T) {
	table(t, "docker", []row{
		{"many-puts", manyPuts}, // the longest, so the first
		{"put-scratch", putScratch},
		{"put-writable", putWritable},
		{"put-words", putWords},
		{"refused", putRefused},
		{"interrupted", putInterrupted},
		{"two-at-once", putTwice},
		{"memory-limit", putTooLarge},
		{"full-disk", putFullDisk},
		{"signed", signed},
		{"signed-start", signedStart},
		{"signed-watch", signedWatch},
		{"pinned", pinnedSums},
		{"rollback", rolledBack},
		{"rollback-auto", rolledBackByItself},
		{"exec-auto", execAuto},
		{"exec-copy", execCopy},
		{"exec-path", execPath},
		{"state-dir", stateDir},
		{"state-dir-noexec", stateDirNoExec},
	})
}

// artifactFacts is what status says of the bytes of a generation.
type artifactFacts struct {
	Source, Exec, Verified string
	Why                    string `json:"exec_why"`
	Size, Memory           int64
	Comment                string `json:"trusted_comment"`
}

// reply is what a command inside said.
type reply struct {
	code     int
	out, err string
}

func (r reply) String() string { return fmt.Sprintf("code %d\n%s%s", r.code, r.out, r.err) }

// feed runs the init's own binary inside with something on its standard input, as `docker exec -i C /entrypoint …`.
func (s *scene) feed(in io.Reader, args ...string) reply {
	s.t.Helper()
	s.begins()
	cmd := s.feeding(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("entrypoint %q: %v: %s", args, err, errs.String())
	}
	return reply{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func (s *scene) feeding(args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := s.c.Command(limit(s.t), append([]string{"/entrypoint"}, args...)...)
	if filepath.Base(cmd.Path) == "docker" {
		cmd.Args = slices.Insert(cmd.Args, 2, "-i")
	}
	return cmd
}

// upload puts the test app with these settings, with further words of put.
func (s *scene) upload(settings string, words ...string) reply {
	s.t.Helper()
	return s.uploadFile(s.stamp(settings), words...)
}

func (s *scene) uploadFile(file string, words ...string) reply {
	s.t.Helper()
	s.begins()
	f, err := os.Open(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	return s.feed(f, append([]string{"put"}, words...)...)
}

// uploaded wants an upload to be done, and to serve at once: the code says so.
func (s *scene) uploaded(settings string, words ...string) reply {
	s.t.Helper()
	r := s.upload(settings, words...)
	if r.code != 0 {
		s.t.Fatalf("put %q: %v", words, r)
	}
	if w, err := s.who(); err != nil || w.version != versionOf(settings) {
		s.t.Errorf("after put said done, %q answers (%v), want %s", w.version, err, versionOf(settings))
	}
	return r
}

// says fails unless a reply has this code, and one sentence with all of these parts.
func (s *scene) says(r reply, code int, parts ...string) {
	s.t.Helper()
	if r.code != code {
		s.t.Errorf("want code %d, got %v", code, r)
	}
	for line := range strings.Lines(r.out + r.err) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			return
		}
	}
	s.t.Errorf("want a line with %q, got %v", parts, r)
}

// serves fails unless this generation, with this version, answers and is alone.
func (s *scene) serves(version string, gen int) {
	s.t.Helper()
	s.begins()
	w, err := s.who()
	if err != nil || w.version != version || w.gen != gen {
		s.t.Errorf("%s of generation %d answers (%v), want %s of %d", w.version, w.gen, err, version, gen)
	}
	if st, err := s.status(); err != nil || st.Active != gen || st.Candidate != 0 {
		s.t.Errorf("status: active %d, candidate %d (%v), want %d", st.Active, st.Candidate, err, gen)
	}
}

// facts are those of the active generation, once its hash is known.
func (s *scene) facts() (facts artifactFacts, sum string) {
	s.t.Helper()
	s.waitStatus("the hash of the active generation", func(st status) bool {
		for _, g := range st.Generations {
			if g.Gen == st.Active {
				facts, sum = g.Artifact, g.SHA256
			}
		}
		return sum != ""
	})
	return facts, sum
}

// fileSum is the SHA-256 of a file on the machine.
func fileSum(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// again restarts the container with its files as they are.
func (s *scene) again() {
	s.t.Helper()
	if err := s.c.(engine.Restarter).Restart(limit(s.t)); err != nil {
		s.t.Fatal(err)
	}
	s.begun = false
}

// dress builds an image that has nothing but the init and the app, the way that a README shows.
func (s *scene) dress(e engine.Engine, settings string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	link := func(file, name string) error { return os.Link(file, filepath.Join(dir, name)) }
	if err := errors.Join(link(s.stamp(settings), "server"), exec.Command("cp", binaries.Entrypoint, dir+"/entrypoint").Run(),
		os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(`FROM scratch
COPY entrypoint /entrypoint
COPY server /app/server
ENTRYPOINT ["/entrypoint"]
CMD ["/app/server"]
`), 0o644)); err != nil {
		s.t.Fatal(err)
	}
	name := strings.ToLower(filepath.Base(filepath.Dir(dir)))
	if err := e.(*engine.Docker).Daemon().Build(limit(s.t), name, dir); err != nil {
		s.t.Fatal(err)
	}
	return name
}

// putScratch is the hardest container there is: nothing in it but two files, none of which can be written to, and no rights.
func putScratch(t *testing.T, e engine.Engine) {
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.c = startPlain(t, e, engine.Spec{
		Image: s.dress(e, "version=v1"), User: "65534:65534", DropCaps: true, Args: []string{"--read-only"},
		Env: []string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr},
	})
	s.waitVersion("v1")
	s.underLoad()
	t.Cleanup(func() {
		if s.load != nil {
			s.load.Stop()
		}
	})
	s.says(s.uploaded("version=v2"), 0, `a restart of the container runs the old program: cannot replace "/app/server": read-only file system`)
	st := s.state()
	if link, err := os.Readlink(s.inside(fmt.Sprintf("/proc/%d/exe", st.PID))); err != nil || link != "/memfd:server (deleted)" {
		t.Errorf("the app runs from %q (%v)", link, err)
	}
	if st.UID != 65534 || st.Status["CapBnd"] != "0000000000000000" || st.Status["NoNewPrivs"] != "1" {
		t.Errorf("the new program has other rights: uid %d, %v", st.UID, st.Status)
	}
	facts, sum := s.facts()
	if facts.Exec != "memfd" || !strings.HasPrefix(facts.Source, "put by ") || sum != fileSum(t, s.stamp("version=v2")) {
		t.Errorf("status: %+v, sha256 %s", facts, sum)
	}
	differs := s.waitStatus("what runs is not what the container began with", func(st status) bool { return st.Drift }) // known with both hashes
	if len(differs.Kept) != 1 || differs.Image != fileSum(t, s.stamp("version=v1")) {
		t.Errorf("kept %v, image %s", differs.Kept, differs.Image)
	}
	s.uploaded("version=v3", "--wait", "drained")
	if st, err := s.status(); err != nil || st.stateOf(2) != "exited" {
		t.Errorf("after put --wait drained generation 2 is %s (%v)", st.stateOf(2), err)
	}
	s.putJSON()
	s.answered(50)
	s.lossless()
}

// putJSON wants exactly one object, also for a fault.
func (s *scene) putJSON() {
	s.t.Helper()
	var done struct {
		Op       string
		Code     int
		Gen      int
		File     string
		NotSaved string `json:"not_saved"`
	}
	r := s.uploaded("version=v4", "--json")
	if err := json.Unmarshal([]byte(r.out), &done); err != nil || r.err != "" || done.Op != "put" || done.Gen != 4 || done.File != "" || done.NotSaved == "" {
		s.t.Errorf("put --json: %+v (%v): %v", done, err, r)
	}
	r = s.feed(strings.NewReader("text"), "put", "--json")
	if err := json.Unmarshal([]byte(r.out), &done); err != nil || r.err != "" || r.code != 1 || done.Code != 1 {
		s.t.Errorf("put --json of text: %+v (%v): %v", done, err, r)
	}
}

// putWritable replaces the file as well, so that the container starts with the new bytes the next time.
func putWritable(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	v1 := fileSum(t, s.inside(server))
	s.says(s.uploaded("version=v2", "--keep-file"), 0, "generation 2")
	if got := fileSum(t, s.inside(server)); got != v1 {
		t.Errorf("put --keep-file changed the file: %s, was %s", got, v1)
	}
	before := s.names("/app")
	s.says(s.uploaded("version=v3"), 0, "replaced /app/server")
	if got, want := fileSum(t, s.inside(server)), fileSum(t, s.stamp("version=v3")); got != want {
		t.Errorf("the file has sha256 %s, want %s", got, want)
	}
	if info, err := os.Stat(s.inside(server)); err != nil || info.Mode() != 0o755 {
		t.Errorf("the file has mode %v (%v)", info.Mode(), err)
	}
	if after := s.names("/app"); after != before {
		t.Errorf("files left in /app: %s, before: %s", after, before)
	}
	s.waitStatus("what runs is not what the container began with", func(st status) bool { return st.Drift }) // known with the hash, which is read after the swap
	s.lossless()
	s.again()
	s.waitVersion("v3")
	s.serves("v3", 1)
	if st, err := s.status(); err != nil || st.Drift {
		t.Errorf("drift after a restart with the new file (%v)", err)
	}
}

// names are the entries of a folder inside.
func (s *scene) names(dir string) string {
	s.t.Helper()
	entries, err := os.ReadDir(s.inside(dir))
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// putWords: what guards against the wrong upload.
func putWords(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.underLoad()
	sum := fileSum(t, s.stamp("version=v2"))
	s.says(s.upload("version=v2", "/app/other"), 1, `cannot put "/app/other"`, `the app's program is "/app/server"`)
	s.says(s.upload("version=v2", "--sha256", strings.Repeat("0", 64)), 1, "its sha256 is "+sum)
	s.says(s.upload("version=v2", "--sha256", "123"), 2, "64 hexadecimal digits")
	s.says(s.upload("version=v2", "/app/server", "/app/other"), 2, "one path")
	s.says(s.upload("version=v2", "--signature", "/nowhere"), 2, "cannot read the signature", "/nowhere")
	s.serves("v1", 1)
	s.uploaded("version=v2", "/app/server", "--sha256", strings.ToUpper(sum))
	s.serves("v2", 2)
	s.lossless()
}
