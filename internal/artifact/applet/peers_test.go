package applet

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// peers are other people's tar. Both write and read what we do.
var peers = map[string][]string{"GNU": {"tar"}, "BusyBox": {"busybox", "tar"}}

// command runs a tool with in as its input, and returns its output.
func command(t *testing.T, in []byte, argv ...string) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v: %s", argv, err, errs.String())
	}
	return out.Bytes()
}

func peer(t *testing.T, name string) []string {
	if _, err := exec.LookPath(peers[name][0]); err != nil {
		t.Skipf("SKIPPED: %s is not installed", peers[name][0])
	}
	return peers[name]
}

// furnish makes a tree with everything that may be in an archive.
func furnish(t *testing.T, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "plain"), "text")
	write(t, filepath.Join(dir, "empty"), "")
	write(t, filepath.Join(dir, "odd name\nü"), "x")
	write(t, filepath.Join(dir, "blocks"), strings.Repeat("0123456789abcdef", 512/16*3))
	write(t, filepath.Join(dir, "large"), strings.Repeat("y", 300<<10))
	long := filepath.Join(strings.Repeat("long/", 60), strings.Repeat("n", 200))
	write(t, filepath.Join(dir, long), "long")
	write(t, filepath.Join(dir, "locked/x"), "x")
	for name, mode := range map[string]os.FileMode{"plain": 0o640, "large": 0o755, "locked/x": 0o400, "locked": 0o500} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "locked"), 0o700) })
	for name, target := range map[string]string{"link": "plain", "locked-link": "locked/x", "long/up": "../plain", "to-long": long} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "plain"), filepath.Join(dir, "long/hard")); err != nil {
		t.Fatal(err)
	}
	for name, when := range map[string]time.Time{"plain": time.Unix(86400, 0), "large": time.Unix(2e9, 0), "long": time.Unix(1e9, 0)} {
		if err := os.Chtimes(filepath.Join(dir, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPeersWrite extracts what GNU tar and BusyBox write, in each of their formats.
func TestPeersWrite(t *testing.T) {
	src := t.TempDir()
	furnish(t, src)
	want := snapshot(t, src)
	for name, formats := range map[string][]string{
		"GNU": {"--format=gnu", "--format=oldgnu", "--format=pax", "--format=gnu --sparse", "-z"}, "BusyBox": {"-v"},
	} {
		for _, format := range formats {
			t.Run(name+format, func(t *testing.T) {
				argv := append(append(peer(t, name), "-c", "-f", "-", "-C", src), strings.Fields(format)...)
				archive := command(t, nil, append(argv, ".")...)
				dir := t.TempDir()
				t.Cleanup(func() { os.Chmod(filepath.Join(dir, "locked"), 0o700) })
				os.Chmod(dir, 0o755)
				if r := extract(dir, archive); r.code != done || r.err != "" {
					t.Fatal(r)
				}
				if diff := cmp.Diff(want, snapshot(t, dir)); diff != "" {
					t.Error(diff)
				}
				if inode(t, filepath.Join(dir, "plain")) != inode(t, filepath.Join(dir, "long/hard")) {
					t.Error("the hard link is a copy")
				}
				if info, _ := os.Lstat(filepath.Join(dir, "long")); name == "GNU" && info.ModTime().Unix() != 1e9 {
					t.Errorf("the directory's time is %v", info.ModTime())
				}
			})
		}
	}
}

// TestPeersRead has them extract what we write.
func TestPeersRead(t *testing.T) {
	src := t.TempDir()
	os.Chmod(src, 0o755)
	furnish(t, src)
	want := snapshot(t, src)
	for name := range peers {
		for _, z := range []string{"", "z"} {
			t.Run(name+z, func(t *testing.T) {
				argv := peer(t, name)
				r := run("tar", nil, "", "c"+z+"f", "-", "-C", src, ".")
				if r.code != done || r.err != "" {
					t.Fatal(r.err)
				}
				dir := t.TempDir()
				t.Cleanup(func() { os.Chmod(filepath.Join(dir, "locked"), 0o700) })
				command(t, []byte(r.out), append(append([]string{}, argv...), "-xp"+z+"f", "-", "-C", dir)...)
				if diff := cmp.Diff(want, snapshot(t, dir)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestRoundTrip is both of ours.
func TestRoundTrip(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	furnish(t, src)
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "locked"), 0o700) })
	in, feed := io.Pipe()
	go func() {
		var errs bytes.Buffer
		if code := Main("tar", []string{"-cvf", "-", "-C", src, "."}, nil, feed, &errs, os.Getenv); code != done || !strings.Contains(errs.String(), "./plain\n") {
			t.Errorf("%d %s", code, errs.String())
		}
		feed.Close()
	}()
	if r := run("tar", in, "", "-xf", "-", "-C", dir); r.code != done {
		t.Fatal(r)
	}
	if diff := cmp.Diff(snapshot(t, src)[1:], snapshot(t, dir)[1:]); diff != "" {
		t.Error(diff)
	}
}

// names lists an archive.
func names(t *testing.T, archive string) (list []string) {
	t.Helper()
	for r := tar.NewReader(strings.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h.Name)
	}
}

// TestNames: kubectl looks for what it asked for, without the slash at the beginning.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a/b"), "x")
	bare := strings.TrimPrefix(dir, "/")
	t.Chdir(dir)
	for _, row := range []struct{ args, want string }{
		{dir + "/a", bare + "/a/ " + bare + "/a/b"},
		{dir + "/a/", bare + "/a/ " + bare + "/a/b"},
		{dir + "/a/b", bare + "/a/b"},
		{"-C " + dir + " a", "a/ a/b"},
		{"-C " + dir + " ./a/b", "./a/b"},
		{"-C " + dir + "/a .", "./ ./b"},
		{"-C " + dir + " -C a b", "b"},
		{"a/b a", "a/b a/ a/b"},
		{dir + "/a/../a/b", "a/b"},
	} {
		r := run("tar", nil, "", append([]string{"cf", "-"}, strings.Fields(row.args)...)...)
		if got := strings.Join(names(t, r.out), " "); r.code != done || got != row.want {
			t.Errorf("%s: %q, want %q: %s", row.args, got, row.want, r.err)
		}
	}
}

// TestCreateLeavesOut: what cannot be in the archive is said, and the rest is in it.
func TestCreateLeavesOut(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "x")
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run("tar", nil, "", "cf", "-", "-C", dir, "fifo", "a")
	if list := names(t, r.out); r.code != differ || strings.Join(list, " ") != "a" || !strings.Contains(r.err, "left out") {
		t.Errorf("%q %d %s", list, r.code, r.err)
	}
	r = run("tar", nil, "", "cf", "-", "-C", dir, "missing", "missing/x", "a")
	if list := names(t, r.out); r.code != failed || strings.Join(list, " ") != "a" || strings.Count(r.err, "no such file") != 2 {
		t.Errorf("%q %d %s", list, r.code, r.err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	var errs bytes.Buffer
	if code := Main("tar", []string{"cf", "-", filepath.Join(dir, "a")}, nil, full, &errs, os.Getenv); code != failed || !strings.Contains(errs.String(), "cannot write the archive") {
		t.Errorf("%d %s", code, errs.String())
	}
}

// TestShrinks: a file whose size is a lie, as those of the kernel are, does not spoil the archive.
func TestShrinks(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "x")
	r := run("tar", nil, "", "cf", "-", "/proc/self/status", filepath.Join(dir, "a"))
	if list := names(t, r.out); r.code != differ || len(list) != 2 || !strings.Contains(r.err, "grew") {
		t.Errorf("%q %d %s", list, r.code, r.err)
	}
	var out, errs bytes.Buffer
	c := &creation{streams: streams{name: "tar", err: &errs}, archive: tar.NewWriter(&out), buffer: make([]byte, 100)}
	f, err := os.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.archive.WriteHeader(&tar.Header{Name: "a", Size: 1000}); err != nil {
		t.Fatal(err)
	}
	if err := c.content(f, "a", 1000); err != nil || c.archive.Close() != nil || !strings.Contains(errs.String(), "shrank by 999 bytes") {
		t.Errorf("%v %s", err, errs.String())
	}
}
