//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// TestApplets: tools that bring files in by running tar and rm in the container can do so in an image from scratch.
func TestApplets(t *testing.T) {
	table(t, "docker", []row{{"hardened", appletsHardened}})
}

// appletDockerfile is what docs/uploads.md shows: a folder with nothing but links.
const appletDockerfile = `FROM scratch
COPY entrypoint /entrypoint
COPY links/ /bin/
COPY --chown=65534:65534 app/ /app/
USER 65534
ENTRYPOINT ["/entrypoint"]
`

// appletImage builds an image from scratch with /bin/tar and /bin/rm, links to the init.
func appletImage(t *testing.T, e engine.Engine) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"links", "app"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"tar", "rm"} {
		if err := os.Symlink("/entrypoint", filepath.Join(dir, "links", name)); err != nil {
			t.Fatal(err)
		}
	}
	init, err := os.ReadFile(binaries.Entrypoint)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"entrypoint": init, "Dockerfile": []byte(appletDockerfile), "app/server": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const name = "entrypoint-integration:applets"
	if err := e.(*engine.Docker).Daemon().Build(limit(t), name, dir); err != nil {
		t.Fatal(err)
	}
	return name
}

// execWith is `docker exec -i` with an input. It returns the code and both outputs.
func (s *scene) execWith(in io.Reader, argv ...string) (int, string, string) {
	s.t.Helper()
	cmd := s.c.Command(limit(s.t), argv...)
	cmd.Args = slices.Insert(cmd.Args, slices.Index(cmd.Args, "exec")+1, "-i")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	if err := cmd.Run(); err != nil {
		if _, exited := err.(*exec.ExitError); !exited {
			s.t.Fatalf("%q: %v", argv, err)
		}
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// archive is one with a small file and the app's, as a stream.
func (s *scene) archive(settings string) []byte {
	s.t.Helper()
	server, err := os.ReadFile(s.stamp(settings))
	if err != nil {
		s.t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range []struct {
		name string
		text []byte
	}{{"extra/note", []byte(settings)}, {"server", server}} {
		must(s, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.name, Mode: 0o755, Size: int64(len(m.text)), ModTime: time.Now()}))
		_, err := w.Write(m.text)
		must(s, err)
	}
	must(s, w.Close())
	return b.Bytes()
}

// slowly gives an archive out with pauses that are longer than the watch waits: after the small file, in the middle of the
// app's, and before the end mark.
func slowly(whole []byte) io.Reader {
	in, feed := io.Pipe()
	go func() {
		last := 0
		for _, at := range []int{1024, len(whole) / 2, len(whole) - 1024, len(whole)} {
			feed.Write(whole[last:at])
			last = at
			time.Sleep(500 * time.Millisecond)
		}
		feed.Close()
	}()
	return in
}

// download reads files of the container by the applet, as `kubectl cp` does.
func (s *scene) download(path string) map[string]string {
	s.t.Helper()
	code, out, errs := s.execWith(nil, "tar", "cf", "-", path)
	if code != 0 {
		s.t.Fatalf("tar cf - %s: %d %s", path, code, errs)
	}
	files := map[string]string{}
	for r := tar.NewReader(strings.NewReader(out)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		must(s, err)
		text, err := io.ReadAll(r)
		must(s, err)
		files[h.Name] = string(text)
	}
}

func appletsHardened(t *testing.T, e engine.Engine) {
	s := playSpec(t, e, "version=v1", engine.Spec{Image: appletImage(t, e), User: "65534:65534", DropCaps: true, Env: []string{"ENTRYPOINT_WATCH=auto"}})
	s.underLoad()
	if code, out, errs := s.execWith(slowly(s.archive("version=v2")), "tar", "xmf", "-", "-C", "/app"); code != 0 || out+errs != "" {
		t.Fatalf("upload: %d %s%s", code, out, errs)
	}
	s.waitVersion("v2")
	s.settled()

	cut := s.archive("version=v3")
	code, _, errs := s.execWith(bytes.NewReader(cut[:len(cut)/2]), "tar", "-C", "/", "-x", "-v", "-f", "-")
	if code != 2 || !strings.Contains(errs, "nothing was replaced") {
		t.Errorf("half an upload: %d %s", code, errs)
	}
	code, _, errs = s.execWith(bytes.NewReader(cut[:len(cut)-1024]), "tar", "-xmf", "-", "-C", "/app")
	if code != 2 || !strings.Contains(errs, "end mark") {
		t.Errorf("an upload without its end: %d %s", code, errs)
	}
	files := s.download("/app")
	if want, _ := os.ReadFile(s.stamp("version=v2")); files["app/server"] != string(want) || files["app/extra/note"] != "version=v2" || len(files) != 4 {
		t.Errorf("the old bytes are not there: %d files", len(files))
	}

	// One more swap shows that there was one for the first upload, and none for the halves.
	if code, out, errs := s.execWith(bytes.NewReader(s.archive("version=v4")), "tar", "-v", "-C", "/app", "-x", "-f", "-"); code != 0 || out != "extra/note\nserver\n" {
		t.Fatalf("upload: %d %s%s", code, out, errs)
	}
	s.waitVersion("v4")
	if st := s.settled(); st.Active != 3 || len(st.swaps()) != 2 {
		t.Errorf("two uploads made %d the active generation: %+v", st.Active, st.LastSwaps)
	}
	s.answered(50)
	s.lossless()
	s.appletRemoves()
}

// appletRemoves: what it may, and not the init.
func (s *scene) appletRemoves() {
	s.t.Helper()
	if code, out, errs := s.execWith(nil, "rm", "-rf", "/app/extra", "/app/missing"); code != 0 || out+errs != "" {
		s.t.Errorf("rm: %d %s%s", code, out, errs)
	}
	if files := s.download("/app"); len(files) != 2 {
		s.t.Errorf("still there: %d files", len(files))
	}
	code, _, errs := s.execWith(nil, "rm", "-rf", "/entrypoint", "/")
	if code != 1 || !strings.Contains(errs, "binary of the init") || strings.Count(errs, "\n") != 2 {
		s.t.Error(fmt.Sprint("rm /entrypoint /: ", code, errs))
	}
}
