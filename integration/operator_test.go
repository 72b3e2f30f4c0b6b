//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

// What an operator types: status, the log, completion, the manual page.

func TestStatus(t *testing.T) {
	table(t, "unshare,docker", []row{
		{"refused", statusRefused},
		{"trial", statusTrial},
	})
	t.Run("terminal", func(t *testing.T) { // an interrupt of docker's client does not reach what it runs
		table(t, "unshare", []row{{"in-place", statusInPlace}, {"pages", statusPages}})
	})
}

// fits fails for lines that are longer than the columns.
func fits(t *testing.T, text string, columns int) {
	t.Helper()
	for line := range strings.SplitSeq(text, "\n") {
		if n := utf8.RuneCountInString(line); n > columns {
			t.Errorf("%d columns, more than %d: %q", n, columns, line)
		}
	}
}

// unwrapped is text without its line breaks and columns: where a sentence is broken depends on the digits of a pid.
func unwrapped(text string) string { return strings.Join(strings.Fields(text), " ") }

// statusRefused: a swap that was refused is told with its reason and with what to type, and its phases are in the history.
func statusRefused(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "COLUMNS=60")
	s.begins()
	if _, page := s.exec("status"); strings.Contains(page, "\nnext ") || !strings.Contains(page, "\nlast swap ") {
		t.Errorf("nothing is to be done, and the page says:\n%s", page)
	}
	s.put("version=v2 fail=3")
	s.reload(1)
	_, page := s.exec("status")
	fits(t, page, 60)
	for _, want := range []string{"next mend what was refused and `entrypoint reload`", "rejected in phase", "exited with code 3", "last good ", " 100% "} {
		if !strings.Contains(unwrapped(page), want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	_, history := s.exec("status", "--history")
	fits(t, history, 60)
	if !regexp.MustCompile(`1 > 2 rejected.*check .*, start .*0 > 1 done.*by start; check .*promote `).MatchString(unwrapped(history)) {
		t.Errorf("the history is\n%s", history)
	}
	var h struct {
		Schema    int
		LastSwaps []struct {
			Code, From, To int
			ElapsedMS      float64 `json:"elapsed_ms"`
			Phases         []struct {
				Name      string
				ElapsedMS float64 `json:"elapsed_ms"`
			}
		} `json:"last_swaps"`
	}
	_, text := s.exec("status", "--history", "--json")
	if err := json.Unmarshal([]byte(text), &h); err != nil || h.Schema != 1 || len(h.LastSwaps) != 2 {
		t.Fatalf("%v: %s", err, text)
	}
	sum := 0.0
	for _, p := range h.LastSwaps[0].Phases {
		sum += p.ElapsedMS
	}
	if took := h.LastSwaps[0].ElapsedMS; sum < took-1 || sum > took+2 {
		t.Errorf("the phases are %v ms together, the swap took %v", sum, took)
	}
}

// statusTrial: a candidate that waits for somebody is told with its share and the word to type.
func statusTrial(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_CANARY=25%")
	s.begins()
	s.put("version=v2")
	s.signal(syscall.SIGHUP)
	s.waitStatus("the candidate is on trial", func(st status) bool { return st.stateOf(2) == "canary" })
	_, page := s.exec("status")
	fits(t, page, 80)
	for _, want := range []string{"`entrypoint promote` gives the candidate more", "`entrypoint abort` takes it out", " 25% ", " 75% ", "until it is promoted", "gen 1 75%, gen 2 25%"} {
		if !strings.Contains(unwrapped(page), want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	if code, out := s.exec("promote"); code != 0 {
		t.Fatalf("promote: %d %s", code, out)
	}
	s.settled()
}

// statusPages: without a terminal --watch writes a page an interval, an empty line between, until it is interrupted.
func statusPages(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.begins()
	cmd, out := s.watchStatus("--watch=50ms")
	s.eventually("a page tells of generation 1", func() error {
		if !strings.Contains(out.String(), "generation 1 is active") {
			return errAgain
		}
		return nil
	})
	s.put("version=v2")
	s.reload(0)
	s.eventually("a page tells of generation 2", func() error {
		if !strings.Contains(out.String(), "generation 2 is active") {
			return errAgain
		}
		return nil
	})
	s.end(cmd, syscall.SIGINT)
	text := out.String()
	fits(t, text, 80)
	if n := strings.Count(text, "\n\nstate "); n < 1 || strings.Contains(text, "\x1b") {
		t.Errorf("%d pages behind an empty line:\n%s", n, text)
	}
}

// watchStatus starts status inside, and gives what it has written so far.
func (s *scene) watchStatus(args ...string) (*exec.Cmd, *lockedBuffer) {
	s.t.Helper()
	cmd := s.c.Command(limit(s.t), append([]string{"/entrypoint", "status"}, args...)...)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd, out
}

// end sends a signal to the command's client inside and wants code 0.
func (s *scene) end(cmd *exec.Cmd, sig syscall.Signal) {
	s.t.Helper()
	pid := onlyChildOf(cmd.Process.Pid)
	if pid == 0 {
		pid = cmd.Process.Pid
	}
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("after %v: %v", sig, err)
	}
}

// onlyChildOf is the process that nsenter forked; 0 if it executed it in its own place.
func onlyChildOf(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child := 0
	_, _ = fmt.Sscan(string(text), &child)
	return child
}

// statusInPlace: on a terminal each page is drawn over the one before, cut to the screen, and the terminal is given back.
func statusInPlace(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1")
	s.begins()
	near, far := openTerminal(t)
	const columns, rows = 60, 12
	if err := unix.IoctlSetWinsize(int(near.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
	cmd := s.c.Command(limit(t), "/entrypoint", "status", "--watch=50ms")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = near, near, near
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.put("version=v2")
	s.reload(0)
	s.eventually("the screen tells of generation 2", func() error {
		if !strings.Contains(far.text(), "generation 2 is active") {
			return errAgain
		}
		return nil
	})
	s.end(cmd, syscall.SIGTERM)
	s.eventually("the terminal is given back", func() error {
		if _, behind, given := strings.Cut(far.text(), "\x1b[?25h\x1b[?1049l"); !given || len(behind) < len("state ") { // which is read as it comes
			return errAgain
		}
		return nil
	})
	seen := far.text()
	if !strings.HasPrefix(seen, "\x1b[?1049h\x1b[?25l\x1b[H") || strings.Contains(seen, "\x1b[2J") {
		t.Errorf("the screen begins with %q", seen[:min(40, len(seen))])
	}
	drawn, after, _ := strings.Cut(seen, "\x1b[?25h\x1b[?1049l")
	for frame := range strings.SplitSeq(strings.TrimPrefix(drawn, "\x1b[?1049h\x1b[?25l\x1b[H"), "\x1b[H") {
		lines := strings.Split(strings.TrimSuffix(frame, "\x1b[J"), "\x1b[K")
		if len(lines)-1 > rows {
			t.Errorf("a page of %d lines on a screen of %d", len(lines)-1, rows)
		}
		fits(t, strings.NewReplacer("\r\r\n", "", "\r\n", "", "\r", "").Replace(strings.Join(lines, "\n")), columns)
	}
	if !strings.HasPrefix(after, "state ") {
		t.Errorf("behind it there is %q", after[:min(40, len(after))])
	}
}

// logLine is one line of the init's own log.
type logLine map[string]any

// logLines are the init's lines so far.
func (s *scene) logLines() []logLine {
	var all []logLine
	for line := range strings.Lines(s.c.Logs()) {
		var l logLine
		if json.Unmarshal([]byte(line), &l) == nil && l["msg"] != nil {
			all = append(all, l)
		}
	}
	return all
}

// logKey is a line of the first table of docs/log.md.
var logKey = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|")

// TestLog runs a swap and reads what the init writes of it.
func TestLog(t *testing.T) {
	table(t, "unshare,docker", []row{{"swap", logOfASwap}})
}

func logOfASwap(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_DRAIN_QUIET=0", "ENTRYPOINT_WATCH=/app/server=ignore")
	s.begins()
	s.waitStatus("the hash of the first bytes", func(st status) bool { return st.Image != "" }) // which the summary has, if it is known by then
	s.put("version=v2")
	s.reload(0)
	st := s.settled()
	var lines []logLine
	s.eventually("the log is complete", func() error {
		lines = s.logLines()
		last := 0 // the two that have the hash of the new bytes come when it is known
		for _, l := range lines {
			if l["msg"] == "generation" && l["gen"] == 1.0 && l["to"] == "exited" || l["msg"] == "swap" && l["from"] == 1.0 || l["msg"] == "artifact" && l["gen"] == 2.0 {
				last++
			}
		}
		if last < 3 {
			return errAgain
		}
		return nil
	})
	var summaries []logLine
	moves := map[float64][]string{}
	for _, l := range lines {
		switch l["msg"] {
		case "swap":
			if l["from"] != 0.0 {
				summaries = append(summaries, l)
			}
		case "generation":
			moves[l["gen"].(float64)] = append(moves[l["gen"].(float64)], fmt.Sprint(l["from"], ">", l["to"]))
		}
	}
	if len(summaries) != 1 {
		t.Fatalf("%d lines sum the one swap up: %v", len(summaries), summaries)
	}
	l := summaries[0]
	if l["result"] != "done" || l["code"] != 0.0 || l["kind"] != "reload" || l["from"] != 1.0 || l["to"] != 2.0 || l["level"] != "INFO" ||
		l["from_sha256"] != st.Image || l["to_sha256"] == st.Image || len(l["to_sha256"].(string)) != 64 {
		t.Errorf("the line is %v", l)
	}
	total, err := time.ParseDuration(l["elapsed"].(string))
	sum := time.Duration(0)
	for _, name := range []string{"check", "start", "ready", "promote"} {
		text, _ := l["phases"].(map[string]any)[name].(string)
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Errorf("phase %s: %v in %v", name, err, l["phases"])
		}
		sum += d
	}
	if err != nil || sum > total+time.Millisecond || sum < total-time.Millisecond {
		t.Errorf("the phases are %v together, elapsed is %v", sum, l["elapsed"])
	}
	want := map[float64][]string{
		1: {">starting", "starting>ready", "ready>active", "active>draining", "draining>stopping", "stopping>exited"},
		2: {">starting", "starting>ready", "ready>active"},
	}
	for gen, moved := range want {
		if !slices.Equal(moves[gen], moved) {
			t.Errorf("generation %v: lines %q, want %q", gen, moves[gen], moved)
		}
	}
	page, err := os.ReadFile("../docs/log.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range logKey.FindAllStringSubmatch(string(page), -1) {
		known[m[1]] = true
	}
	for _, l := range lines {
		for key := range l {
			if !known[key] {
				t.Errorf("docs/log.md does not know the key %q of %v", key, l)
			}
		}
	}
	// Idle, it says nothing: longer than any poll or trim that it has.
	before := len(s.logLines())
	time.Sleep(3 * time.Second)
	if after := s.logLines(); len(after) != before {
		t.Errorf("while nothing happened it wrote %v", after[before:])
	}
}

// host runs a program of this machine.
func host(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestCompletion(t *testing.T) {
	script := func(shell string) string {
		text := host(t, "", binaries.Entrypoint, "completion", shell)
		file := t.TempDir() + "/" + shell
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	cases := []struct {
		words []string // as bash cuts the line
		want  string   // some of the answers, in any order
		not   string
	}{
		{[]string{"entrypoint", "st"}, "status stop", "reload"},
		{[]string{"entrypoint", ""}, "reload completion help doctor", "--json"},
		{[]string{"entrypoint", "reload", "--"}, "--wait --timeout --json --force --help", "--drain"},
		{[]string{"entrypoint", "reload", "--wait", ""}, "promoted drained", "--json"},
		{[]string{"entrypoint", "signal", "USR"}, "USR1 USR2", "HUP"},
		{[]string{"entrypoint", "completion", ""}, "bash zsh fish", ""},
		{[]string{"entrypoint", "help", "pro"}, "promote", "put"},
		{[]string{"entrypoint", "status", "--w"}, "--watch", ""},
	}
	t.Run("bash", func(t *testing.T) {
		file := script("bash")
		ask := func(words []string) []string {
			var b strings.Builder
			fmt.Fprintf(&b, "set -u; source %s; COMP_WORDS=(", file)
			for _, w := range words {
				fmt.Fprintf(&b, " '%s'", w)
			}
			fmt.Fprintf(&b, "); COMP_CWORD=%d; _entrypoint 2>&1; printf '%%s\\n' \"${COMPREPLY[@]-}\"", len(words)-1)
			return strings.Fields(host(t, "", "bash", "--norc", "-c", b.String()))
		}
		for _, c := range append(cases, struct {
			words     []string
			want, not string
		}{[]string{"entrypoint", "reload", "--wait", "=", "dr"}, "drained", "promoted"}) {
			compareWords(t, c.words, ask(c.words), c.want, c.not)
		}
		if got := ask([]string{"entrypoint", "/app/server", "--x"}); len(got) > 0 {
			t.Errorf("an app's arguments: %q", got)
		}
		if out := host(t, "", "bash", "--norc", "-c", "source "+file+"; complete -p entrypoint"); !strings.Contains(out, "-F _entrypoint entrypoint") {
			t.Errorf("bash knows %q", out)
		}
	})
	t.Run("zsh", func(t *testing.T) {
		file := script("zsh")
		host(t, "", "zsh", "-n", file)
		host(t, "", "zsh", "-f", "-c", "autoload -Uz compinit && compinit -D -u && source "+file+" && [[ $_comps[entrypoint] == _entrypoint ]]")
	})
	t.Run("fish", func(t *testing.T) {
		file := script("fish")
		host(t, "", "fish", "--no-config", "-n", file)
		for _, c := range cases {
			out := host(t, "", "fish", "--no-config", "-c", "source "+file+"; complete -C "+"'"+strings.Join(c.words, " ")+"'")
			var got []string
			for line := range strings.Lines(out) {
				word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
				got = append(got, word)
			}
			compareWords(t, c.words, got, c.want, c.not)
		}
	})
}

func compareWords(t *testing.T, words, got []string, want, not string) {
	t.Helper()
	for w := range strings.FieldsSeq(want) {
		if !slices.Contains(got, w) {
			t.Errorf("%q: %q is not offered, but %q", words, w, got)
		}
	}
	if not != "" && slices.Contains(got, not) {
		t.Errorf("%q: %q is offered", words, not)
	}
}

// TestManPage lets both formatters judge the page.
func TestManPage(t *testing.T) {
	page := host(t, "", binaries.Entrypoint, "help", "--man")
	file := t.TempDir() + "/entrypoint.1"
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := host(t, "", "mandoc", "-T", "lint", "-W", "all", file); out != "" {
		t.Errorf("mandoc says:\n%s", out)
	}
	if out := host(t, "", "groff", "-man", "-ww", "-z", file); out != "" {
		t.Errorf("groff says:\n%s", out)
	}
	text := host(t, "", "mandoc", "-T", "utf8", "-O", "width=100", file)
	text = regexp.MustCompile(".\b").ReplaceAllString(text, "") // bold is written twice
	help := host(t, "", "env", "-i", binaries.Entrypoint, "help")
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+) {2,}`).FindAllStringSubmatch(help, -1) {
		if !strings.Contains(text, "entrypoint "+m[1]) {
			t.Errorf("the page has no command %s", m[1])
		}
	}
	for line := range strings.Lines(host(t, "", "env", "-i", binaries.Entrypoint, "config")) {
		if name, _, _ := strings.Cut(line, " "); strings.HasPrefix(strings.TrimSpace(line), "ENTRYPOINT_") && !strings.Contains(text, strings.Fields(line)[0]) {
			t.Errorf("the page has no variable %s", name)
		}
	}
}

// lockedBuffer may be read while a command writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
