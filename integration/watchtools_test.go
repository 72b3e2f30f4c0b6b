//go:build integration

package integration

import (
	"bytes"
	"errors"
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

// TestWatchTools changes the app's file with the tools that people use, in a real container and under load: each change is
// exactly one swap, and what is no change is none.
func TestWatchTools(t *testing.T) {
	table(t, "docker", []row{
		{"inside", watchInside},
		{"large", watchLarge},
		{"from-the-host", watchFromHost},
		{"volume-signal-hook", watchVolume},
	})
}

// series is a scene in which one change follows the other. The number of the active generation counts the swaps, so one
// too many shows at the next change at the latest.
type series struct {
	*scene
	version int
	active  int
}

// noSwap is how long nothing must happen after what is no change: some times what a swap takes.
const noSwap = 1500 * time.Millisecond

func newSeries(t *testing.T) *series {
	t.Helper()
	return &series{scene: &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}, version: 1, active: 1}
}

// begin starts a container with the machine's tools and a folder /stage, from which new versions are taken.
func (s *series) begin(e engine.Engine, spec engine.Spec) {
	s.t.Helper()
	spec.HostTools = true
	spec.Binds = append(spec.Binds, s.dir+":/stage:ro")
	spec.Env = append([]string{"ENTRYPOINT_LISTEN=web=tcp://" + s.addr, backToBack, "ENTRYPOINT_WATCH_POLL=1s"}, spec.Env...)
	s.start(e, "version=v1", spec)
	s.waitVersion("v1")
	s.underLoad()
}

// next stamps the next version and returns its name in /stage.
func (s *series) next() string {
	s.version++
	return filepath.Base(s.stamp(fmt.Sprint("version=v", s.version)))
}

// sh runs a shell command inside; NEW in it is the file of the next version.
func (s *series) sh(script string, stdin io.Reader) {
	s.t.Helper()
	cmd := s.c.Command(limit(s.t), "/bin/sh", "-ec", script)
	if stdin != nil {
		cmd.Args = slices.Insert(cmd.Args, 2, "-i") // docker exec -i
		cmd.Stdin = stdin
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// swapped waits for the one swap that a change is.
func (s *series) swapped(how string) {
	s.t.Helper()
	s.active++
	s.eventually(fmt.Sprintf("%s: generation %d serves", how, s.active), func() error {
		w, err := s.who()
		if err == nil && w.gen != s.active {
			err = fmt.Errorf("generation %d serves", w.gen)
		}
		return err
	})
}

// changed is swapped, with a look at the version.
func (s *series) changed(how string) {
	s.t.Helper()
	s.swapped(how)
	if w, err := s.who(); err != nil || w.version != fmt.Sprint("v", s.version) {
		s.t.Errorf("%s: version %s serves, want v%d (%v)", how, w.version, s.version, err)
	}
}

// unchanged waits and sees that nothing was swapped.
func (s *series) unchanged(how string, wait time.Duration) {
	s.t.Helper()
	time.Sleep(wait) // that nothing happens has no event to wait for
	if w, err := s.who(); err != nil || w.gen != s.active {
		s.t.Errorf("%s: generation %d serves, want %d (%v)", how, w.gen, s.active, err)
	}
}

// over counts once more and ends the load.
func (s *series) over() {
	s.t.Helper()
	s.unchanged("after the last change", 2*noSwap)
	s.lossless()
	st, err := s.status()
	if err != nil || st.Active != s.active || st.Candidate != 0 || st.Restarts != 0 {
		s.t.Errorf("active %d, candidate %d, %d restarts, want %d, 0, 0 (%v)", st.Active, st.Candidate, st.Restarts, s.active, err)
	}
	for _, r := range st.swaps() {
		if r.Code != 0 || !strings.HasPrefix(r.Cause, "watch ") {
			s.t.Errorf("swap %+v", r)
		}
	}
}

// watchInside is everything that is done with tools inside of the container.
func watchInside(t *testing.T, e engine.Engine) {
	s := newSeries(t)
	s.begin(e, engine.Spec{Env: []string{"ENTRYPOINT_WATCH=auto,/app/reload=trigger,/app/assets=swap"}})
	for _, way := range []struct{ name, script string }{
		{"mv over", `cp /stage/NEW /app/n; mv /app/n /app/server`},
		{"cp --remove-destination", `cp --remove-destination /stage/NEW /app/server`},
		{"install", `install -m 755 /stage/NEW /app/server`},
		{"rsync", `rsync --ignore-times --times --perms /stage/NEW /app/server`},
		{"rsync --inplace to a new file", `rm /app/server; rsync --inplace /stage/NEW /app/server`},
		{"GNU tar", `tar -C /stage -c --transform s/.*/server/ NEW | tar -C /app -x`},
		{"BusyBox tar", `tar -C /stage -c --transform s/.*/server/ NEW | busybox tar -C /app -x`},
		{"ln -f", `cp /stage/NEW /app/n; ln -f /app/n /app/server; rm /app/n`},
		{"link instead of the file", `mkdir -p /app/r/1; cp /stage/NEW /app/r/1/server; ln -s r/1/server /app/l; mv -T /app/l /app/server`},
		{"link flip", `mkdir -p /app/r/2; cp /stage/NEW /app/r/2/server; ln -s r/2/server /app/l; mv -T /app/l /app/server`},
		{"ln -sfn", `mkdir -p /app/r/3; cp /stage/NEW /app/r/3/server; ln -sfn r/3/server /app/server; rm -r /app/r/1 /app/r/2`},
		{"behind the link", `cp /stage/NEW /app/n; mv /app/n /app/r/3/server`},
		{"file instead of the link", `cp --remove-destination /stage/NEW /app/server`},
	} {
		s.sh(strings.ReplaceAll(way.script, "NEW", s.next()), nil)
		s.changed(way.name)
	}
	slowTar(s)
	halfFile(s)
	for _, script := range []string{
		`touch /app/server`, `cp /app/server /app/n; mv /app/n /app/server`, `chmod 700 /app/server; chmod 755 /app/server`,
		`touch /app/other; rm /app/other`,
	} {
		s.sh(script, nil)
		s.unchanged(script, noSwap)
	}
	for _, script := range []string{
		`touch /app/reload`, `touch /app/reload`, `: >/app/n; mv /app/n /app/reload`, // a trigger
		`echo one >/app/assets`, `echo two, in place >/app/assets`, // a file that is not executed
	} {
		s.sh(script, nil)
		s.swapped(script)
	}
	s.over()
}

// slowTar sends an archive in 500 pieces with small pauses, and one that is longer than the quiet time.
func slowTar(s *series) {
	s.t.Helper()
	file := filepath.Join(s.dir, s.next())
	archive, err := exec.Command("tar", "-C", s.dir, "-c", "--transform", "s/.*/server/", filepath.Base(file)).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	const pieces = 500
	read, write := io.Pipe()
	go func() {
		size := len(archive)/pieces + 1
		for i := range pieces {
			piece := archive[min(i*size, len(archive)):min((i+1)*size, len(archive))]
			if _, err := write.Write(piece); err != nil {
				return
			}
			pause := 3 * time.Millisecond
			if i == pieces/2 {
				pause = time.Second
			}
			time.Sleep(pause) // the pauses are the case
		}
		write.Close()
	}()
	s.sh("tar -C /app -x", read)
	s.changed("GNU tar in 500 pieces")
}

// halfFile writes one half, closes it, and after a long pause appends the other.
func halfFile(s *series) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, s.next()))
	if err != nil {
		s.t.Fatal(err)
	}
	half := len(text) / 2
	s.sh("rm /app/server; cat >/app/server; chmod 755 /app/server", bytes.NewReader(text[:half]))
	s.unchanged("half a file", 3*time.Second)
	s.sh("cat >>/app/server", bytes.NewReader(text[half:]))
	s.changed("the other half")
}

// watchLarge copies a program of 200 MB in by docker cp.
func watchLarge(t *testing.T, e engine.Engine) {
	s := newSeries(t)
	s.begin(e, engine.Spec{Env: []string{"ENTRYPOINT_WATCH=auto"}})
	pad := filepath.Join(t.TempDir(), "pad")
	if err := errors.Join(os.WriteFile(pad, nil, 0o644), os.Truncate(pad, 200<<20)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.version++
		file := filepath.Join(filepath.Dir(pad), "server")
		if out, err := exec.Command("objcopy", "--add-section", ".pad="+pad, binaries.TestApp, file).CombinedOutput(); err != nil {
			t.Fatalf("objcopy: %v: %s", err, out)
		}
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(f, "\n#TESTAPP# version=v%d", s.version)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if err := s.c.Copy(file, server); err != nil {
			t.Fatal(err)
		}
		s.changed("docker cp of 200 MB")
	}
	s.over()
}

// on runs a shell command of the machine in a folder; NEW in it is the file of the next version.
func (s *series) on(dir, script string) {
	s.t.Helper()
	if strings.Contains(script, "NEW") {
		script = strings.ReplaceAll(script, "NEW", filepath.Join(s.dir, s.next()))
	}
	cmd := exec.CommandContext(limit(s.t), "sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// watchFromHost changes a bind mount from the machine's side: by the compiler, and as a kubelet does.
func watchFromHost(t *testing.T, e engine.Engine) {
	s, data := newSeries(t), t.TempDir()
	s.on(data, "cp "+s.stamp("version=v1")+" server")
	s.begin(e, engine.Spec{Env: []string{"ENTRYPOINT_WATCH=auto"}, Binds: []string{data + ":/data"}, Command: []string{"/data/server"}})
	for i := range 2 {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", fmt.Sprint("-s -w -buildid=b", i), "-o", filepath.Join(data, "server"), "./testapp")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v: %s", err, out)
		}
		s.swapped("go build -o")
	}
	for _, way := range []struct{ name, script string }{
		{"mv on the host", `cp NEW n; mv n server`},
		{"volume in place of the file", `mkdir ..1; cp NEW ..1/server; ln -s ..1 ..data; ln -s ..data/server l; mv -T l server`},
		{"first flip of ..data", `mkdir ..2; cp NEW ..2/server; ln -s ..2 ..data_tmp; mv -T ..data_tmp ..data; rm -r ..1`},
		{"second flip of ..data", `mkdir ..3; cp NEW ..3/server; ln -s ..3 ..data_tmp; mv -T ..data_tmp ..data; rm -r ..2`},
		{"third flip of ..data", `mkdir ..4; cp NEW ..4/server; ln -s ..4 ..data_tmp; mv -T ..data_tmp ..data; rm -r ..3`},
	} {
		s.on(data, way.script)
		s.changed(way.name)
	}
	s.on(data, `mkdir ..5; cp ..4/server ..5/server; ln -s ..5 ..data_tmp; mv -T ..data_tmp ..data; rm -r ..4`)
	s.unchanged("a flip to the same bytes", noSwap)
	s.over()
}

// watchVolume sends a signal for an update of a volume of settings, and runs a hook: as the app's user, without the app's
// sockets, its output in our log.
func watchVolume(t *testing.T, e engine.Engine) {
	s, data := newSeries(t), t.TempDir()
	s.on(data, `mkdir -p conf/..1 hooks; echo 1 >conf/..1/a.yaml; echo 1 >conf/..1/b.yaml; cd conf
		ln -s ..1 ..data; ln -s ..data/a.yaml a.yaml; ln -s ..data/b.yaml b.yaml`)
	s.begin(e, engine.Spec{
		Env: []string{
			"ENTRYPOINT_WATCH=auto,/data/conf/*=signal:USR1,/data/hooks/*=hook,*~=ignore", "ENTRYPOINT_USER=65534:65534", "MINE=app's",
			`ENTRYPOINT_HOOK_WATCH=["/bin/sh","-c","echo $(id -u) $MINE $ENTRYPOINT_HOOK_PATH $ENTRYPOINT_HOOK_REASON fdvar=$LISTEN_FDS; exit ${X:-0}"]`,
		},
		Binds: []string{data + ":/data"},
	})
	for i := 2; i <= 4; i++ {
		s.on(filepath.Join(data, "conf"), fmt.Sprintf(`mkdir ..%[1]d; echo %[1]d >..%[1]d/a.yaml; echo %[1]d >..%[1]d/b.yaml
			ln -s ..%[1]d ..data_tmp; mv -T ..data_tmp ..data; rm -r ..%[2]d`, i, i-1))
		s.eventually(fmt.Sprintf("USR1 number %d arrives", i-1), func() error {
			if got, want := strings.Join(s.state().Signals, " "), strings.TrimSpace(strings.Repeat("10 ", i-1)); got != want {
				return fmt.Errorf("signals %q", got)
			}
			return nil
		})
	}
	for i, script := range []string{`echo >hooks/new`, `echo more >>hooks/new`, `rm hooks/new`} {
		reason := []string{"appeared", "content changed", "vanished"}[i]
		s.on(data, script)
		want := "65534 app's /data/hooks/new " + reason + " fdvar="
		s.eventually("the hook says "+want, func() error {
			if n := strings.Count(s.c.Logs(), want+`"`); n != 1 {
				return fmt.Errorf("said %d times", n)
			}
			return nil
		})
	}
	s.unchanged("signals and hooks", noSwap)
	if got := strings.Join(s.state().Signals, " "); got != "10 10 10" {
		t.Errorf("signals %q", got)
	}
	s.over()
}
