//go:build integration

package integration

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/integration/engine"
)

func TestAppLog(t *testing.T) {
	table(t, "unshare", []row{
		{"rotation-under-load", logRotates},
		{"helper-killed", logHelperKilled},
		{"swaps", logOverSwaps},
		{"prefix", logPrefix},
		{"nobody-reads", logBackPressure},
		{"refused-calls", logRefusedCalls},
	})
}

// inContainer is the path of a file of a container, as the machine sees it.
func inContainer(s *scene, path string) string {
	return filepath.Join("/proc", strconv.Itoa(s.c.PID()), "root", path)
}

// logged reads a log with all its rotated files in order.
func logged(s *scene, path string) (text []byte, files int, err error) {
	names, err := filepath.Glob(inContainer(s, path) + "*")
	if err != nil {
		return nil, 0, err
	}
	slices.Sort(names)
	if len(names) > 1 && names[0] == inContainer(s, path) { // the present one is the last one
		names = append(names[1:], names[0])
	}
	for _, name := range names {
		part, err := os.ReadFile(name)
		if err == nil && strings.HasSuffix(name, ".gz") {
			var z *gzip.Reader
			if z, err = gzip.NewReader(bytes.NewReader(part)); err == nil {
				part, err = io.ReadAll(z)
			}
		}
		if err != nil {
			return nil, 0, err
		}
		text = append(text, part...)
	}
	return text, len(names), nil
}

// exactly checks that the log is these lines, each once and in order.
func exactly(s *scene, path string, n int) {
	s.t.Helper()
	last := fmt.Sprintf("line %d of %d: the quick brown fox jumps over the lazy dog\n", n-1, n)
	s.eventually("the last line is written", func() error {
		text, err := os.ReadFile(inContainer(s, path))
		if err == nil && !bytes.HasSuffix(text, []byte(last)) {
			err = errAgain
		}
		return err
	})
	var text []byte
	files := 0
	s.eventually("all is packed", func() (err error) {
		if waiting, _ := filepath.Glob(inContainer(s, path) + ".*[0-9]"); len(waiting) > 0 {
			return errAgain
		}
		text, files, err = logged(s, path)
		return err
	})
	i := 0
	for line := range strings.Lines(string(text)) {
		if want := fmt.Sprintf("line %d of %d: the quick brown fox jumps over the lazy dog\n", i, n); line != want {
			s.t.Fatalf("line %d is %q", i, line)
		}
		i++
	}
	s.t.Logf("%d lines, %d bytes in %d files", i, len(text), files)
	if i != n {
		s.t.Errorf("%d lines of %d", i, n)
	}
}

func playLines(t *testing.T, e engine.Engine, n, rate int, env ...string) *scene {
	t.Helper()
	s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
	s.start(e, "", engine.Spec{Env: append([]string{"ENTRYPOINT_READY=delay:10ms"}, env...), Command: []string{"/testapp", "tool", "lines", strconv.Itoa(n), strconv.Itoa(rate)}})
	return s
}

// logRotates: 100,000 lines a second for more than ten seconds.
func logRotates(t *testing.T, e engine.Engine) {
	const lines, rate = 1_100_000, 100_000
	s := playLines(t, e, lines, rate, "ENTRYPOINT_APP_LOG=file:///tmp/logs/{app}.log?size=4MiB&count=0&compress=gzip&stderr=/tmp/logs/err")
	began := time.Now()
	for took := []byte(nil); len(took) == 0; time.Sleep(100 * time.Millisecond) {
		took, _ = os.ReadFile(inContainer(s, "/tmp/logs/err"))
		if time.Since(began) > 3*time.Minute {
			t.Fatal("the app does not get rid of its lines")
		}
	}
	took, _ := os.ReadFile(inContainer(s, "/tmp/logs/err"))
	d, err := time.ParseDuration(strings.TrimSpace(strings.TrimPrefix(string(took), "took ")))
	if err != nil {
		t.Fatalf("the app said %q", took)
	}
	t.Logf("%.0f lines a second for %v", lines/d.Seconds(), d.Round(time.Millisecond))
	exactly(s, "/tmp/logs/app.log", lines)
	s.signal(syscall.SIGTERM)
	s.waitExit(143)
}

// logRefusedCalls has a sandbox refuse what the copying is fast with, and what it would know of the disk.
func logRefusedCalls(t *testing.T, e engine.Engine) {
	const lines = 20_000
	for _, call := range []struct {
		name   string
		number int
	}{{"tee", unix.SYS_TEE}, {"splice", unix.SYS_SPLICE}, {"fallocate", unix.SYS_FALLOCATE}, {"statx", unix.SYS_STATX}} {
		for _, errno := range []syscall.Errno{unix.EPERM, unix.ENOSYS} {
			t.Run(call.name+"-"+unix.ErrnoName(errno), func(t *testing.T) {
				s := &scene{t: t, addr: freeAddress(t), dir: t.TempDir()}
				s.start(e, "", engine.Spec{
					Deny:    []string{fmt.Sprintf("%d:%d", call.number, errno)},
					Env:     []string{"ENTRYPOINT_READY=delay:10ms", "ENTRYPOINT_APP_LOG=file:///tmp/logs/{app}.log?size=256KiB&count=0&compress=gzip&age=1h&stderr=/tmp/logs/err"},
					Command: []string{"/testapp", "tool", "lines", strconv.Itoa(lines), "1000000"},
				})
				exactly(s, "/tmp/logs/app.log", lines)
				s.signal(syscall.SIGTERM)
				s.waitExit(143)
				if said := strings.Contains(s.c.Logs(), "the sandbox refuses tee"); said != (call.name == "tee") {
					t.Errorf("the log says that tee is refused: %v", said)
				}
			})
		}
	}
}

// logHelper is the process that copies; 0 while there is none.
func logHelper(s *scene) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		line, _ := os.ReadFile(dir + "/cmdline")
		stat, _ := os.ReadFile(dir + "/stat")
		behind := stat[bytes.LastIndexByte(stat, ')')+1:]
		fields := strings.Fields(string(behind))
		if strings.HasPrefix(string(line), "entrypoint:log\x00") && len(fields) > 1 && fields[1] == strconv.Itoa(s.c.PID()) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}

// logHelperKilled: again and again in the middle of it, and not a line is lost, or there twice.
func logHelperKilled(t *testing.T, e engine.Engine) {
	const lines, rate = 400_000, 40_000 // so that some are left for each, however late it is killed
	s := playLines(t, e, lines, rate, "ENTRYPOINT_APP_LOG=file:///tmp/logs/{app}.log?size=1MiB&count=0&compress=gzip")
	kills := 0
	for last := 0; kills < 8; {
		var pid int
		s.eventually("there is a new helper that has written", func() error {
			if pid = logHelper(s); pid == 0 || pid == last {
				return errAgain
			}
			return nil
		})
		size := func() int64 {
			names, _ := filepath.Glob(inContainer(s, "/tmp/logs/app.log") + "*")
			total := int64(len(names)) << 30
			for _, n := range names {
				if info, err := os.Stat(n); err == nil {
					total += info.Size()
				}
			}
			return total
		}
		before := size()
		s.eventually("it writes", func() error {
			if size() == before {
				return errAgain
			}
			return nil
		})
		must(s, syscall.Kill(pid, syscall.SIGKILL))
		kills++
		last = pid
	}
	// Of stderr, which is in the same file, comes the last line.
	s.eventually("the app is done", func() error {
		text, err := os.ReadFile(inContainer(s, "/tmp/logs/app.log"))
		if err == nil && !bytes.Contains(text, []byte("\ntook ")) {
			err = errAgain
		}
		return err
	})
	text, _ := os.ReadFile(inContainer(s, "/tmp/logs/app.log"))
	must(s, os.WriteFile(inContainer(s, "/tmp/logs/app.log"), text[:bytes.LastIndex(text, []byte("took "))], 0o600))
	exactly(s, "/tmp/logs/app.log", lines)
}

// logOverSwaps: each generation a file, as the app's user; the tail of a failed one is in the answer; files are reopened.
func logOverSwaps(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_APP_LOG=file:///tmp/gen-{generation}.log", "ENTRYPOINT_USER=65534:65533")
	s.begins()
	s.put("version=v2 lines=3 boot=1s fail=4") // what it says is waited for only a moment once it has ended
	if out := s.reload(1); !strings.Contains(out, "  | boot line 3 of 3 of v2") {
		t.Errorf("reload said %s", out)
	}
	text, err := os.ReadFile(inContainer(s, "/tmp/gen-2.log"))
	if err != nil || string(text) != "boot line 1 of 3 of v2\nboot line 2 of 3 of v2\nboot line 3 of 3 of v2\n" {
		t.Errorf("the log of generation 2: %q, %v", text, err)
	}
	s.eventually("the log of generation 2 is closed", func() error {
		if code, out := s.exec("reopen"); code != 0 || out != "reopened 1 log files\n" {
			return fmt.Errorf("%d %s", code, out)
		}
		return nil
	})
	info, err := os.Stat(inContainer(s, "/tmp/gen-1.log"))
	must(s, err)
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 65534 || st.Gid != 65533 || info.Mode().Perm() != 0o640 {
		t.Errorf("the log of generation 1 is of %d:%d, mode %o", st.Uid, st.Gid, info.Mode().Perm())
	}
	must(s, os.Rename(inContainer(s, "/tmp/gen-1.log"), inContainer(s, "/tmp/moved")))
	if code, out := s.exec("reopen"); code != 0 || out != "reopened 1 log files\n" {
		t.Errorf("reopen: %d %s", code, out)
	}
	if _, err := os.Stat(inContainer(s, "/tmp/gen-1.log")); err != nil {
		t.Error(err)
	}
	descriptors := func() int { list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.c.PID())); return len(list) }
	s.put("version=v3")
	s.reload(0)
	s.settled()
	before := descriptors()
	for range 5 {
		s.reload(0)
		s.settled()
	}
	s.eventually("the init has no more descriptors than before", func() error {
		if n := descriptors(); n > before {
			return fmt.Errorf("%d, before %d", n, before)
		}
		return nil
	})
	s.signal(syscall.SIGUSR1)
	s.eventually("the line is in the log of its generation", func() error {
		text, err := os.ReadFile(inContainer(s, "/tmp/gen-8.log"))
		if err == nil && !strings.Contains(string(text), "signal 10") {
			err = errAgain
		}
		return err
	})
	s.signal(syscall.SIGTERM)
	s.waitExit(0)
}

func logPrefix(t *testing.T, e engine.Engine) {
	s := play(t, e, "version=v1", "ENTRYPOINT_APP_LOG=prefix")
	s.put("version=v2")
	s.reload(0)
	s.settled()
	s.signal(syscall.SIGTERM)
	s.waitExit(0)
	for _, want := range []string{"[gen 1] testapp v1 ", "[gen 2] testapp v2 ", "gen 2: drained"} {
		if !strings.Contains(s.c.Logs(), want) {
			t.Errorf("%q is not in the log", want)
		}
	}
}

// logBackPressure: a helper that does not take lines holds the app up, and not the init; nothing is lost.
func logBackPressure(t *testing.T, e engine.Engine) {
	const lines = 100_000
	s := playLines(t, e, lines, 1_000_000, "ENTRYPOINT_APP_LOG=file:///tmp/logs/app.log?stderr=/tmp/logs/err")
	var pid int
	s.eventually("there is a helper", func() error {
		if pid = logHelper(s); pid == 0 {
			return errAgain
		}
		return nil
	})
	must(s, syscall.Kill(pid, syscall.SIGSTOP))
	for range 10 {
		if _, err := s.status(); err != nil {
			t.Errorf("the init does not answer: %v", err)
		}
	}
	must(s, syscall.Kill(pid, syscall.SIGCONT))
	exactly(s, "/tmp/logs/app.log", lines)
}
