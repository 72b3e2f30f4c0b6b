package render

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestParseTargets(t *testing.T) {
	list, err := ParseTargets(" /a/x.tmpl:/b/x , /a/y:/b/y,")
	if err != nil || len(list) != 2 || list[0] != (Target{"/a/x.tmpl", "/b/x"}) {
		t.Errorf("%v, %v", list, err)
	}
	_, err = ParseTargets("/a,b:/c,/x:/x,/a:/t,/b:/t,:/z")
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("faults: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRender(t *testing.T) {
	dir := t.TempDir()
	target := Target{filepath.Join(dir, "t"), filepath.Join(dir, "out")}
	if err := target.Check(); err != nil {
		t.Errorf("a template that is not there yet: %v", err)
	}
	if _, err := target.Render(nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a template: %v", err)
	}
	write(t, target.Template, "gen {{.Generation}}\n")
	render := func(gen int, want bool) os.FileInfo {
		t.Helper()
		if wrote, err := target.Render(map[string]any{"Generation": gen}); err != nil || wrote != want {
			t.Fatalf("wrote %v, %v", wrote, err)
		}
		info, err := os.Stat(target.Path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := render(1, true)
	if first.Mode().Perm() != 0o644 {
		t.Errorf("a new target has mode %o", first.Mode())
	}
	if same := render(1, false); !os.SameFile(first, same) {
		t.Error("what is the same is written again")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(target.Path, 0o640))
	if os.Geteuid() == 0 {
		must(os.Chown(target.Path, 12, 34))
	}
	second := render(2, true)
	st := second.Sys().(*syscall.Stat_t)
	if second.Mode().Perm() != 0o640 || os.Geteuid() == 0 && (st.Uid != 12 || st.Gid != 34) {
		t.Errorf("mode %o, owner %d:%d", second.Mode().Perm(), st.Uid, st.Gid)
	}
	link := Target{target.Template, filepath.Join(dir, "link")}
	must(os.Symlink("out", link.Path))
	if _, err := link.Render(map[string]any{"Generation": 3}); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(link.Path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("a link was replaced by a file")
	}
	write(t, target.Template, "{{.Nope}}")
	if _, err := target.Render(map[string]any{"Generation": 4}); err == nil || !strings.Contains(err.Error(), "t:1: there is no .Nope") {
		t.Errorf("a template that fails: %v", err)
	}
	write(t, target.Template, "{{if}}")
	if err := target.Check(); err == nil {
		t.Error("a template with a fault passes the check")
	}
	if text, _ := os.ReadFile(target.Path); string(text) != "gen 3\n" {
		t.Errorf("after the failures it holds %q", text)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 3 {
		t.Errorf("files are left behind: %v", left)
	}
	must(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	if err := (Target{filepath.Join(dir, "fifo"), "/x"}).Check(); err == nil {
		t.Error("a FIFO is read")
	}
	if _, err := (Target{target.Template, filepath.Join(dir, "nodir", "x")}).Render(nil); err == nil {
		t.Error("a target without a directory")
	}
}
