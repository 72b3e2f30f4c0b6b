package applet

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReplace: what is there is replaced as a whole: another file takes its name.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	server := filepath.Join(dir, "server")
	write(t, server, "old")
	held, err := os.Open(server)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	before := inode(t, server)
	m := regular("server", "new")
	m.Mode = 0o755
	if r := extract(dir, pack(t, m)); r.code != done || r.err != "" {
		t.Fatal(r)
	}
	old, _ := io.ReadAll(held)
	if read(t, server) != "new" || string(old) != "old" || inode(t, server) == before {
		t.Errorf("%q, and the old one reads %q", read(t, server), old)
	}
	if info, _ := os.Stat(server); info.Mode() != 0o755 || info.ModTime().Unix() != 1e9 {
		t.Errorf("%v %v", info.Mode(), info.ModTime())
	}
}

// TestReplaceRunning: a binary that runs can be replaced, as nothing is written into it.
func TestReplaceRunning(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	m := regular("sleep", string(binary))
	m.Mode = 0o755
	if r := extract(dir, pack(t, m)); r.code != done {
		t.Fatal(r)
	}
	cmd := exec.Command(filepath.Join(dir, "sleep"), "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if r := extract(dir, pack(t, m)); r.code != done {
		t.Error(r)
	}
}

// TestAtOnce: while a stream is on its way nothing has its name yet, and all have it at its end.
func TestAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), "old")
	whole := pack(t, regular("a", "new"), regular("sub/b", "new"))
	in, feed := io.Pipe()
	ended := make(chan result, 1)
	go func() { ended <- run("tar", in, "", "-xvf", "-", "-C", dir) }()
	if _, err := feed.Write(whole[:2048]); err != nil { // both members; only the end mark is missing
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); len(snapshot(t, dir)) < 5; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not staged: %q", snapshot(t, dir))
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "sub/b")); read(t, filepath.Join(dir, "a")) != "old" || err == nil {
		t.Error("a file has its name before the archive is known to be whole")
	}
	feed.Write(whole[2048:])
	feed.Close()
	if r := <-ended; r.code != done || r.out != "a\nsub/b\n" {
		t.Error(r)
	}
	if read(t, filepath.Join(dir, "a"))+read(t, filepath.Join(dir, "sub/b")) != "newnew" {
		t.Error("not extracted")
	}
	noTemporaries(t, dir)
}

// TestKinds: the ways in which one kind of thing takes the place of another.
func TestKinds(t *testing.T) {
	outer, inner := yard(t)
	before := inode(t, filepath.Join(inner, "full"))
	r := extract(inner, pack(t,
		folder("server"), regular("server/deep/x", "in a directory that was a file"), folder("server/deep"),
		regular("empty", "a file that was a directory"),
		linkTo("away", "full/x"), regular("dangling", "was a link"), linkTo("tofile", "full"),
		folder("full"), regular("in/y", "through a link that stays inside"), folder("in/"),
		regular("twice", "first"), hardLinkTo("first", "twice"), regular("twice", "second"),
		hardLinkTo("hard", "twice"), hardLinkTo("twice", "twice"), hardLinkTo("other", "full/x"),
	))
	if r.code != done || r.err != "" {
		t.Fatal(r)
	}
	for name, want := range map[string]string{
		"server/deep/x": "in a directory that was a file", "empty": "a file that was a directory", "away": "x", "dangling": "was a link",
		"full/y": "through a link that stays inside", "twice": "second", "first": "first", "hard": "second", "other": "x",
	} {
		if got := read(t, filepath.Join(inner, name)); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if inode(t, filepath.Join(inner, "hard")) != inode(t, filepath.Join(inner, "twice")) || inode(t, filepath.Join(inner, "full")) != before {
		t.Error("a hard link is a copy, or a directory that was there was replaced")
	}
	if read(t, filepath.Join(outer, "secret")) != "secret" {
		t.Error("something outside changed")
	}
	if r := extract(inner, pack(t, hardLinkTo("other", "full/x"))); r.code != done { // two names of one file: rename(2) does nothing
		t.Error(r)
	}
	noTemporaries(t, outer)
}

// TestModes: which bits of a mode come out.
func TestModes(t *testing.T) {
	base := regular("f", "x")
	base.Mode, base.Uid = 0o6777, os.Geteuid()
	archive := pack(t, base, member{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o1777}}, regular("made/x", "x"))
	for _, row := range []struct {
		root    bool
		options string
		f, d    uint32
	}{
		{true, "-x", 0o777, 0o1777},
		{true, "-xp", 0o6777, 0o1777},
		{true, "-x --no-same-permissions", 0o755, 0o755},
		{false, "-x", 0o755, 0o755},
		{false, "-xp", 0o777, 0o1777},
	} {
		dir := t.TempDir()
		var errs bytes.Buffer
		a, err := parseTar(append(strings.Fields(row.options), "-C", dir, "--no-same-owner"))
		if err != nil {
			t.Fatal(err)
		}
		s := streams{name: "tar", in: bytes.NewReader(archive), out: io.Discard, err: &errs}
		x := &extraction{streams: s, limits: defaultLimits, args: a, policy: policyOf(a, row.root, 0o022), buffer: make([]byte, 1000)}
		top, _ := os.OpenRoot(dir)
		if x.stage, err = newStage(top, &roots{list: []string{"/"}}, 0o022, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := x.run(); err != nil {
			t.Fatal(err)
		}
		x.stage.close()
		top.Close()
		for name, want := range map[string]uint32{"f": row.f, "d": row.d, "made": 0o755} {
			var st unix.Stat_t
			if unix.Stat(filepath.Join(dir, name), &st); st.Mode&0o7777 != want {
				t.Errorf("root %v, %s: %s has %o, want %o", row.root, row.options, name, st.Mode&0o7777, want)
			}
		}
	}
}

// TestTouch: with -m the time is now.
func TestTouch(t *testing.T) {
	dir := t.TempDir()
	if r := extract(dir, pack(t, regular("f", "x")), "-m"); r.code != done {
		t.Fatal(r)
	}
	if info, _ := os.Stat(filepath.Join(dir, "f")); time.Since(info.ModTime()) > time.Hour {
		t.Error(info.ModTime())
	}
}

// TestOwners needs root: it gives files away.
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: not root")
	}
	m := regular("f", "x")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	m.Uid, m.Gid, m.Size = 1234, 4321, 1
	w.WriteHeader(&m.Header)
	io.WriteString(w, m.text)
	w.Close()
	for options, want := range map[string]uint32{"": 1234, "-o": 0, "--no-same-owner": 0, "--same-owner": 1234} {
		dir := t.TempDir()
		if r := extract(dir, b.Bytes(), strings.Fields(options)...); r.code != done || r.err != "" {
			t.Fatal(r)
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, "f"), &st); st.Uid != want {
			t.Errorf("%q: uid %d, want %d", options, st.Uid, want)
		}
	}
}

func TestGzip(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(pack(t, regular("f", "x")))
	w.Close()
	for _, options := range [][]string{nil, {"-z"}} {
		if r := extract(t.TempDir(), b.Bytes(), options...); r.code != done {
			t.Error(r)
		}
	}
	if r := extract(t.TempDir(), pack(t, regular("f", "x")), "-z"); r.code != failed || !strings.Contains(r.err, "-z") {
		t.Error(r)
	}
	dir := t.TempDir()
	for n := 0; n < b.Len(); n++ { // the checksum at the end included
		if r := extract(dir, b.Bytes()[:n]); r.code != failed {
			t.Errorf("cut at %d of %d: %v", n, b.Len(), r)
		}
	}
	damaged := bytes.Clone(b.Bytes())
	damaged[len(damaged)-5] ^= 1
	if r := extract(dir, damaged); r.code != failed || len(snapshot(t, dir)) != 1 {
		t.Error(r)
	}
}

// TestPadding: everything is read, as the writer waits for that.
func TestPadding(t *testing.T) {
	in := bytes.NewReader(append(pack(t, regular("f", "x")), make([]byte, 1<<20)...))
	if r := run("tar", in, "", "xf", "-", "-C", t.TempDir()); r.code != done || in.Len() != 0 {
		t.Errorf("%v, %d bytes were not read", r, in.Len())
	}
}

// generated is an archive of n members of size bytes each, all of one name, that is nowhere as a whole.
func generated(n int, size int64) io.Reader {
	in, feed := io.Pipe()
	go func() {
		block := make([]byte, 64<<10)
		w := tar.NewWriter(feed)
		for range n {
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: size, Mode: 0o644})
			for left := size; left > 0; left -= int64(len(block)) {
				w.Write(block)
			}
		}
		w.Close()
		feed.Close()
	}()
	return in
}

// TestMemory: a gibibyte goes through in less than a megabyte.
func TestMemory(t *testing.T) {
	in := generated(64, 16<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if r := run("tar", in, "", "xf", "-", "-C", t.TempDir()); r.code != done {
		t.Fatal(r)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 2<<20 {
		t.Errorf("%d KiB were allocated in all", used>>10)
	}
}

// TestDescriptors: as many are open afterwards as before, whatever the end.
func TestDescriptors(t *testing.T) {
	_, inner := yard(t)
	open := func() (targets []string) {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			target, _ := os.Readlink("/proc/self/fd/" + e.Name())
			targets = append(targets, target)
		}
		return targets
	}
	run("tar", nil, "", "cf", "-", inner) // the runtime opens descriptors of its own at the first one that does not block
	before := open()
	for name, row := range hostile {
		if r := extract(inner, pack(t, row.members...)); r.code != failed {
			t.Errorf("%s: %v", name, r)
		}
	}
	extract(inner, pack(t, regular("a/b/c", "x"), hardLinkTo("a/d", "a/b/c")))
	run("rm", nil, "", "-rf", filepath.Join(inner, "a"))
	run("tar", nil, "", "cf", "-", inner)
	if after := open(); len(after) != len(before) {
		t.Errorf("%q are open, %q before", after, before)
	}
}

// TestDiskFull runs out of room in the middle of a file, on a small file system of its own.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: not root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	write(t, filepath.Join(dir, "server"), "old")
	before := snapshot(t, dir)
	r := extract(dir, pack(t, regular("other", strings.Repeat("x", 700<<10)), regular("server", strings.Repeat("y", 700<<10))))
	if r.code != failed || !strings.Contains(r.err, "no space left") || !strings.Contains(r.err, "room for the old and the new") {
		t.Error(r)
	}
	if after := snapshot(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%q before, %q now", before, after)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if r := extract(dir, pack(t, regular("server", "new"))); r.code != failed || !strings.Contains(r.err, "mount a volume") {
		t.Error(r)
	}
	if r := run("rm", nil, "", "-rf", filepath.Join(dir, "server")); r.code != differ || !strings.Contains(r.err, "read-only") {
		t.Error(r)
	}
}

// TestMountPoint: a file that is mounted by itself cannot be renamed over, and says so; what came before it stays.
func TestMountPoint(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: not root")
	}
	dir := t.TempDir()
	target := filepath.Join(dir, "b")
	write(t, target, "old")
	if err := unix.Mount(target, target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	r := extract(dir, pack(t, regular("a", "new"), regular("b", "new"), regular("c", "new")))
	if r.code != failed || !strings.Contains(r.err, "mount point") || !strings.Contains(r.err, "1 of 3 names were replaced") {
		t.Error(r)
	}
	if read(t, target) != "old" {
		t.Error("the mounted file changed")
	}
	noTemporaries(t, dir)
}

// TestNotAllowed runs as somebody else, who may not write to the directory.
func TestNotAllowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: not root")
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	os.Chmod(filepath.Dir(dir), 0o755)
	write(t, filepath.Join(dir, "server"), "old")
	os.Chmod(filepath.Join(dir, "server"), 0o666)
	archive := pack(t, regular("server", "new"))
	done := make(chan result)
	go func() { // the thread ends with the goroutine, as it stays locked
		runtime.LockOSThread()
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); e != 0 {
			t.Error(e)
		}
		done <- extract(dir, archive)
	}()
	r := <-done
	if r.code != failed || !strings.Contains(r.err, "permission denied") || !strings.Contains(r.err, "not only to the file") {
		t.Error(r)
	}
	if read(t, filepath.Join(dir, "server")) != "old" {
		t.Error("it changed")
	}
}

// TestRefusedOwner: a file that could not be given to its owner does not get the right to run as that owner.
func TestRefusedOwner(t *testing.T) {
	own := uint32(os.Geteuid())
	for _, row := range []struct {
		uid     int
		refused error
		want    uint32
	}{{os.Geteuid() + 1, unix.EPERM, 0o755}, {os.Geteuid(), unix.EPERM, 0o6755}, {os.Geteuid(), nil, 0o6755}} {
		d, err := newDir(os.OpenFile(t.TempDir(), openFlags, 0))
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		f, err := d.create("f")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		a := attributes{mode: 0o6755, uid: row.uid, gid: os.Getegid(), owners: &owners{refused: row.refused}}
		if err := a.apply(d, "f", f); err != nil {
			t.Fatal(err)
		}
		if st, _ := d.stat("f"); st.Mode&0o7777 != row.want || st.Uid != own {
			t.Errorf("uid %d, refused %v: mode %o, uid %d", row.uid, row.refused, st.Mode&0o7777, st.Uid)
		}
	}
}

// TestNamesAreNotKept: of a member's name, however long, only the last part stays.
func TestNamesAreNotKept(t *testing.T) {
	d, err := newDir(os.OpenFile(t.TempDir(), openFlags, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	s := &stage{room: 1 << 20, finals: map[string]int{}}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for n := range 64 {
		name := fmt.Sprintf("%03d", n) + strings.Repeat("x", 1<<20)
		if err := s.add(d, item{place: &place{}, base: name[:3], kind: file}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 8<<20 {
		t.Errorf("%d KiB are kept", kept>>10)
	}
	runtime.KeepAlive(s)
}
