package applet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"
)

func TestRemove(t *testing.T) {
	outer, inner := yard(t)
	write(t, filepath.Join(inner, "tree/a/b/c"), "x")
	for i := range 600 { // more than are read at a time
		write(t, filepath.Join(inner, "many", fmt.Sprint(i)), "x")
	}
	if err := os.Symlink(outer, filepath.Join(inner, "tree/a/out")); err != nil {
		t.Fatal(err)
	}
	kept := snapshot(t, filepath.Join(inner, "full"))
	paths := []string{"tree", "many/", "missing", "server/not/a/directory", "away", "in", "dangling"}
	for i, p := range paths {
		paths[i] = filepath.Join(inner, p)
	}
	paths[1] += "/"
	if r := run("rm", nil, "", append([]string{"-rf", "--"}, paths...)...); r.code != done || r.err != "" {
		t.Fatal(r)
	}
	for i, p := range paths {
		if _, err := os.Lstat(p); err == nil && i != 3 {
			t.Errorf("%s is still there", p)
		}
	}
	if diff := cmp.Diff(kept, snapshot(t, filepath.Join(inner, "full"))); diff != "" || read(t, filepath.Join(outer, "secret")) != "secret" {
		t.Errorf("a link was followed: %s", diff)
	}
}

func TestRemoveRefuses(t *testing.T) {
	outer, inner := yard(t)
	full := filepath.Join(inner, "full")
	before := snapshot(t, outer)
	for _, row := range []struct{ roots, args, want string }{
		{"", full, "give -r"},
		{"", inner + "/missing", "no such file"},
		{"", "-rf /", "no name of its own"},
		{"", "-rf " + inner + "/.", "no name of its own"},
		{"", "-rf " + inner + "/..", "no name of its own"},
		{"", "-rf /proc", "must stay|kernel"},
		{"", "-rf /proc/self/fd/0", "kernel"},
		{"", "-rf /dev/null", "kernel"},
		{"", "-rf /sys/kernel", "kernel"},
		{inner, "-rf " + inner, "not below"},
		{inner, "-rf " + outer, "not below"},
		{inner, "-rf " + outer + "/secret", "not below"},
		{inner, "-rf " + inner + "/up/secret", "not below"},
		{inner, "-rf " + inner + "/full/../../secret", "not below"},
		{inner + "," + full, "-rf " + full, "must stay"},
		{outer + "," + full, "-rf " + inner, "must stay"},
		{inner + "x", "-rf " + full, "not below"},
		{"", "-rf /proc/self/exe/x", ""},
	} {
		r := run("rm", nil, row.roots, strings.Fields(row.args)...)
		if row.want == "" {
			continue
		}
		first, second, _ := strings.Cut(row.want, "|")
		if r.code != differ || !strings.Contains(r.err, first) && (second == "" || !strings.Contains(r.err, second)) {
			t.Errorf("roots %q, rm %s: want %q in %v", row.roots, row.args, row.want, r)
		}
	}
	if diff := cmp.Diff(before, snapshot(t, outer)); diff != "" {
		t.Error(diff)
	}
}

// TestRoots: tar writes below the roots only, also through a link inside of -C.
func TestRoots(t *testing.T) {
	outer, inner := yard(t)
	before := snapshot(t, outer)
	full := filepath.Join(inner, "full")
	for _, row := range []struct {
		roots, dir, name, want string
	}{
		{full, inner, "new", "not below"},
		{full, inner, "made/new", "not below"},
		{inner + "," + full, outer, "new", "not below"},
		{"relative", inner, "new", "absolute path"},
		{inner + ",,./x", inner, "new", "absolute path"},
		{"", "/", "proc/sys/kernel/x", "kernel"},
		{"", "/proc/self", "x", "kernel"},
		{"", "/dev", "null", "kernel"},
	} {
		r := run("tar", strings.NewReader(string(pack(t, regular(row.name, "x")))), row.roots, "xf", "-", "-C", row.dir)
		if r.code != failed || !strings.Contains(r.err, row.want) {
			t.Errorf("roots %q: want %q in %v", row.roots, row.want, r)
		}
	}
	if diff := cmp.Diff(before, snapshot(t, outer)); diff != "" {
		t.Error(diff)
	}
	link := filepath.Join(outer, "root")
	if err := os.Symlink(full, link); err != nil {
		t.Fatal(err)
	}
	for i, roots := range []string{full, " " + full + "/ ,", link, "/nowhere," + full} {
		name := fmt.Sprint("in/", i)
		if r := run("tar", strings.NewReader(string(pack(t, regular(name, "x")))), roots, "xf", "-", "-C", inner); r.code != done {
			t.Errorf("roots %q: %v", roots, r)
		}
	}
}

// TestRootsFile reads the variable from a file, as the init does.
func TestRootsFile(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "roots"), dir+"/a\n")
	for file, ok := range map[string]bool{"roots": true, "missing": false} {
		r, err := rootsOf(func(name string) string {
			if name == RootsVariable+"_FILE" {
				return filepath.Join(dir, file)
			}
			return ""
		})
		if (err == nil) != ok || ok && r.list[0] != dir+"/a" {
			t.Errorf("%s: %v %v", file, r, err)
		}
	}
}

// TestOwnBinary: neither applet touches the binary that it is, also by another name of it.
func TestOwnBinary(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "keep/entrypoint"), "init")
	if err := os.Link(filepath.Join(dir, "keep/entrypoint"), filepath.Join(dir, "tar")); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "tar"), &st); err != nil {
		t.Fatal(err)
	}
	permitted := &roots{list: []string{"/"}, own: []fileID{idOf(&st)}}
	var errs strings.Builder
	for _, m := range []member{regular("tar", "x"), linkTo("tar", "x"), folder("tar"), hardLinkTo("x", "tar"), hardLinkTo("tar", "x")} {
		errs.Reset()
		s := streams{name: "tar", in: strings.NewReader(string(pack(t, m))), out: &errs, err: &errs}
		if code := s.extract(tarArgs{dir: dir}, permitted, defaultLimits, false); code != failed || !strings.Contains(errs.String(), "init") {
			t.Errorf("%s: %d %s", m.Name, code, errs.String())
		}
	}
	errs.Reset()
	s := streams{name: "rm", out: &errs, err: &errs}
	if code := s.rm([]string{"-rf", dir}, permitted); code != differ || strings.Count(errs.String(), "binary of the init") != 2 {
		t.Errorf("%d %s", code, errs.String())
	}
	if read(t, filepath.Join(dir, "keep/entrypoint")) != "init" || read(t, filepath.Join(dir, "tar")) != "init" {
		t.Error("it is gone")
	}
	if list := ownBinaries(); len(list) == 0 {
		t.Error("the running binary was not found")
	}
}

// TestRootInKernelTree: a root that lies in one of the kernel's trees opens that part, and no other.
func TestRootInKernelTree(t *testing.T) {
	for _, row := range []struct {
		roots, path string
		allowed     bool
	}{
		{"/dev/shm", "/dev/shm/x", true}, {"/,/dev/shm", "/dev/shm/x", true}, {"/dev/shm,/", "/dev/null", false}, {"", "/dev/shm/x", false}, {"/", "/devel", true},
	} {
		r, err := rootsOf(func(name string) string { return map[string]string{RootsVariable: row.roots}[name] })
		if err != nil {
			t.Fatal(err)
		}
		if err := r.refuse(row.path); (err == nil) != row.allowed {
			t.Errorf("roots %q, %q: %v", row.roots, row.path, err)
		}
	}
}

// TestHardLinkOutOfRoots: what lies outside of the roots gets no name inside of them.
func TestHardLinkOutOfRoots(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "theirs"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := run("tar", strings.NewReader(string(pack(t, hardLinkTo("mine/x", "theirs")))), filepath.Join(dir, "mine"), "xf", "-", "-C", dir)
	if left, _ := os.ReadDir(filepath.Join(dir, "mine")); r.code != failed || !strings.Contains(r.err, "not below") || len(left) > 0 {
		t.Errorf("%v, left %v", r, left)
	}
}
