//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/pages"
)

// session is one shell in which the blocks of a page are typed. It is written down as a script first; each step leaves its
// output and its exit code in a file.
type session struct {
	work   string // the scratch folder
	notes  string // of the steps
	script strings.Builder
	steps  []pages.Step
	docker bool // some step is for the engine
	env    []string
}

func newSession(t *testing.T, dir string) *session {
	t.Helper()
	s := &session{work: filepath.Join(dir, "scratch"), notes: filepath.Join(dir, "notes")}
	for _, name := range []string{s.work, s.notes} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *session) note(name string) string { return filepath.Join(s.notes, name) }

// add takes one more block.
func (s *session) add(b *pages.Block) error {
	if _, _, not := pages.NotRun(b.Run); not {
		return nil
	}
	file := b.File
	if file == "" && b.Language == "dockerfile" {
		file = "Dockerfile"
	}
	if file != "" {
		return s.addFile(b, file)
	}
	if !runs(b) {
		return nil
	}
	steps, err := b.Steps()
	if err != nil {
		return err
	}
	switch b.Run {
	case "", "docker":
		s.docker = true
		for _, step := range steps {
			if err := s.addStep(&s.script, step); err != nil {
				return err
			}
		}
		return nil
	case "unshare":
		return s.addApart(steps)
	}
	return fmt.Errorf("line %d: cannot run it by %q: write docker, unshare, or `not, REASON; held by TestX`", b.Line, b.Run)
}

// addFile puts the text where the shell is then.
func (s *session) addFile(b *pages.Block, file string) error {
	from := s.note("file-" + strconv.Itoa(b.Line))
	fmt.Fprintf(&s.script, "mkdir -p \"$(dirname %s)\" && cp %s %s || exit\n", file, from, file)
	return os.WriteFile(from, []byte(b.Text), 0o644)
}

// addStep notes one step. What is run is read from a file, so that nothing in it can end the script but what ends a shell. A step
// that is not one of a dialogue ends with its first command that fails.
func (s *session) addStep(script *strings.Builder, step pages.Step) error {
	name := s.note(strconv.Itoa(len(s.steps)))
	s.steps = append(s.steps, step)
	fmt.Fprintf(script, ": >%s.begin; __text=$(cat %s); (exit ${__last:-0}); ", name, name)
	if step.Compare {
		fmt.Fprintf(script, "eval \"$__text\" >%s.out 2>%s.err </dev/null; __last=$?; echo $__last >%s.code\n", name, name, name)
	} else {
		fmt.Fprintf(script, "set -e; eval \"$__text\" >%s.out 2>%s.err </dev/null; set +e; __last=0; echo 0 >%s.code\n", name, name, name)
	}
	return os.WriteFile(name, []byte(step.Command), 0o644)
}

// addApart notes steps that run together in namespaces of their own, as PID 1 of a machine that has nothing but a loopback interface.
func (s *session) addApart(steps []pages.Step) error {
	var inner strings.Builder
	inner.WriteString("ip link set lo up\n")
	for _, step := range steps {
		if err := s.addStep(&inner, step); err != nil {
			return err
		}
	}
	name := s.note(fmt.Sprintf("apart-%d", len(s.steps)))
	fmt.Fprintf(&s.script, "PATH=%s:$PATH unshare -m -p -n -f --kill-child --mount-proc -- bash %s || exit\n", filepath.Dir(binaries.Entrypoint), name)
	return os.WriteFile(name, []byte(inner.String()), 0o644)
}

// preamble is what a person does that a page does not say: to look whether a container is up before going on.
const preamble = `cd "$SCRATCH" || exit
docker() {
	command docker "$@"; local code=$? container
	case $1 in run|start|restart)
		for container in $(command docker ps -q); do
			for _ in $(seq 200); do command docker exec "$container" /entrypoint health >/dev/null 2>&1 && break; sleep 0.05; done
		done;;
	esac
	return $code
}
`

// startWeb is what `<!-- begin: web -->` stands for, beside the files; see desk.prepare. The start is summed up in the log once the hash of the app is known.
const startWeb = `docker run -d --name web -p 8080:8080 web >/dev/null || exit
until command docker logs web 2>&1 | grep -a '"msg":"swap"' >/dev/null; do sleep 0.05; done
`

// run types all of it and returns what was not as the page says, each with its line.
func (s *session) run(shell func(argv ...string) *exec.Cmd, web bool) (faults []string) {
	text := preamble
	if web {
		text += startWeb
	}
	if err := os.WriteFile(s.note("script"), []byte(text+s.script.String()), 0o644); err != nil {
		return []string{"0: " + err.Error()}
	}
	cmd := shell("bash", s.note("script"))
	cmd.Env = append(append(bare(cmd.Env), s.env...), "SCRATCH="+s.work, "CURL_HOME="+s.notes)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a block leaves in the background ends with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	// As on a terminal, where curl shows no progress for a short answer.
	if err := os.WriteFile(s.note(".curlrc"), []byte("silent\nshow-error\n"), 0o644); err != nil {
		return []string{"0: " + err.Error()}
	}
	out, err := cmd.CombinedOutput()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	for i := range s.steps {
		fault, ended := s.judge(i)
		if fault != "" {
			faults = append(faults, fault)
		}
		if ended {
			return faults
		}
	}
	if err != nil && len(faults) == 0 {
		faults = append(faults, fmt.Sprintf("0: the shell ended with %v: %s", err, out))
	}
	return faults
}

// judge compares one step with the page. ended is true if the shell did not get beyond it.
func (s *session) judge(i int) (fault string, ended bool) {
	step, name := s.steps[i], s.note(strconv.Itoa(i))
	out, _ := os.ReadFile(name + ".out")
	errs, _ := os.ReadFile(name + ".err")
	output := string(errs) + string(out)
	code, err := os.ReadFile(name + ".code")
	about := fmt.Sprintf("%d: %s", step.Line, strings.TrimSpace(step.Command))
	switch {
	case err != nil:
		return fmt.Sprintf("%s\nfails, or does not end. It wrote:\n%s", about, output), true
	case step.Compare && !pages.Matches(step.Output, string(out), string(errs)):
		return fmt.Sprintf("%s\nwrote:\n%sbut the page shows:\n%s", about, output, step.Output), false
	case strings.TrimSpace(string(code)) != "0" && !step.May:
		return fmt.Sprintf("%s\nexits with %s, and the page does not show it by `echo $?`. It wrote:\n%s", about, code, output), false
	}
	return "", false
}

// slow lists the steps that took longer than a reader waits without looking up, by the times of the files that they left.
func (s *session) slow() (all []string) {
	for i, step := range s.steps {
		begin, err := os.Stat(s.note(strconv.Itoa(i) + ".begin"))
		end, err2 := os.Stat(s.note(strconv.Itoa(i) + ".code"))
		if err != nil || err2 != nil {
			continue
		}
		if took := end.ModTime().Sub(begin.ModTime()); took > 3*time.Second {
			first, _, _ := strings.Cut(step.Command, "\n")
			all = append(all, fmt.Sprintf("line %d took %v: %s", step.Line, took.Round(100*time.Millisecond), first))
		}
	}
	return all
}

// bare is the environment without what concerns these tests: nothing of it may reach an init.
func bare(environ []string) []string {
	if environ == nil {
		environ = os.Environ()
	}
	var out []string
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "ENTRYPOINT_") && !strings.HasPrefix(name, "INTEGRATION_") && name != "REQUIRE_ENGINES" {
			out = append(out, pair)
		}
	}
	return out
}

// TestSession: a page that is not true is found out.
func TestSession(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ name, text, want string }{
		{"true", "```sh\ncd /tmp\nx=1\n```\n```console\n$ echo $x $PWD; false\n1 /tmp\n$ echo $?\n1\n```\n", ""},
		{"file", "<!-- file: a/b -->\n```text\none\n```\n```console\n$ cat a/b\none\n```\n", ""},
		{"apart", "<!-- run: unshare -->\n```console\n$ echo $$; entrypoint version\n1\n…\n```\n", ""},
		{"fails", "```sh\ntrue\nfalse\ntrue\n```\n", "2: true\nfalse\ntrue\nfails"},
		{"other-output", "```console\n$ echo two\none\n```\n", "2: echo two\nwrote:\ntwo\nbut the page shows:\none"},
		{"other-status", "```console\n$ false\n$ true\n```\n", "2: false\nexits with 1"},
		{"exits", "```console\n$ exit 0\n$ true\n```\n", "2: exit 0\nfails, or does not end"},
		{"syntax", "```console\n$ echo (\n…\n```\n", "2: echo (\n"},
		{"unknown", "<!-- run: lxc -->\n```sh\ntrue\n```\n", "line 3: cannot run it by \"lxc\""},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := newSession(t, t.TempDir())
			got := strings.Join(typed(t, s, x.text), "\n")
			if x.want == "" && got != "" || !strings.Contains(got, x.want) {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
}

// typed runs a page without an engine.
func typed(t *testing.T, s *session, text string) []string {
	p, err := pages.Parse("x.md", text)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range p.Blocks {
		if err := s.add(&b); err != nil {
			return []string{err.Error()}
		}
	}
	ctx := limit(t)
	return s.run(func(argv ...string) *exec.Cmd { return exec.CommandContext(ctx, argv[0], argv[1:]...) }, false)
}
