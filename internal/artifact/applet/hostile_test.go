package applet

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// yard is a directory to extract into, in one in which nothing may change: links that lead out, a file, a secret.
func yard(t testing.TB) (outer, inner string) {
	t.Helper()
	outer = t.TempDir()
	inner = filepath.Join(outer, "app")
	write(t, filepath.Join(outer, "secret"), "secret")
	write(t, filepath.Join(inner, "server"), "old")
	write(t, filepath.Join(inner, "full/x"), "x")
	if err := os.Mkdir(filepath.Join(inner, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"up": "..", "away": outer, "proc": "/proc/self/cwd", "in": "full", "dangling": "nothing", "loop": "loop", "tofile": "server",
	} {
		if err := os.Symlink(target, filepath.Join(inner, name)); err != nil {
			t.Fatal(err)
		}
	}
	return outer, inner
}

// hostile are archives of which nothing at all may be extracted.
var hostile = map[string]struct {
	members []member
	want    string // of the sentence
}{
	"climbs":                   {[]member{regular("../x", "x")}, `".."`},
	"climbs, dotted":           {[]member{regular("./../x", "x")}, `".."`},
	"climbs, absolute":         {[]member{regular("/../x", "x")}, `".."`},
	"climbs and comes back":    {[]member{regular("full/../../app/x", "x")}, `".."`},
	"through a link up":        {[]member{regular("up/x", "x")}, "leads out"},
	"through an absolute link": {[]member{regular("away/x", "x")}, "leads out"},
	"through a magic link":     {[]member{regular("proc/x", "x")}, "leads out"},
	"through a loop":           {[]member{regular("loop/x", "x")}, "is a loop"},
	"through a file":           {[]member{regular("server/x", "x")}, "not a directory"},
	"through a link to a file": {[]member{regular("tofile/x", "x")}, "not a directory"},
	"link, then through it":    {[]member{linkTo("l", "full"), regular("l/x", "new")}, "has a file or a link of the name"},
	"file, then through it":    {[]member{regular("f", "f"), regular("f/x", "new")}, "has a file or a link of the name"},
	"file, then folders in it": {[]member{regular("f", "f"), folder("f/g/h/")}, "has a file or a link of the name"},
	"file, then in the folder": {[]member{regular("empty", "f"), regular("empty/x", "new")}, "has a file or a link of the name"},
	"absolute target":          {[]member{linkTo("l", "/etc/passwd")}, "absolute"},
	"climbing target":          {[]member{linkTo("l", "../secret")}, "leads out"},
	"climbing target, deep":    {[]member{linkTo("a/b/l", "../../../secret")}, "leads out"},
	"climbing target, in link": {[]member{linkTo("in/l", "x/../../../secret")}, "leads out"},
	"no target":                {[]member{{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "l"}}}, "no target"},
	"hard link out":            {[]member{hardLinkTo("l", "../secret")}, `".."`},
	"hard link, absolute":      {[]member{hardLinkTo("l", "/etc/passwd")}, "cannot be opened"},
	"hard link through a link": {[]member{hardLinkTo("l", "up/secret")}, "leads out"},
	"hard link to a link":      {[]member{hardLinkTo("l", "away")}, "regular file"},
	"hard link to a directory": {[]member{hardLinkTo("l", "full")}, "regular file"},
	"hard link to nothing":     {[]member{hardLinkTo("l", "missing")}, "no such file"},
	"hard link to itself":      {[]member{hardLinkTo("l", "l")}, "itself"},
	"character device":         {[]member{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}}}, "device"},
	"block device":             {[]member{{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8}}}, "device"},
	"FIFO":                     {[]member{{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"}}}, "FIFO"},
	"unknown type":             {[]member{{Header: tar.Header{Typeflag: 'V', Name: "label"}}}, "of the type"},
	"the directory as a file":  {[]member{regular("./.", "x")}, "names the directory itself"},
	"file over a directory":    {[]member{regular("full", "x")}, "with something in it"},
	"link over a directory":    {[]member{linkTo("full", "server")}, "with something in it"},
	"file over a new folder":   {[]member{folder("new"), regular("new", "x")}, "has a directory of that name"},
	"folder over a new file":   {[]member{regular("new", "x"), folder("new")}, "has a file or a link of that name"},
	"folder over a dead link":  {[]member{folder("dangling")}, "file exists"},
	"long name":                {[]member{regular(strings.Repeat("x/", 2100)+"x", "x")}, "bytes"},
	"deep name":                {[]member{regular(strings.Repeat("x/", 300)+"x", "x")}, "directories"},
	"long component":           {[]member{regular(strings.Repeat("x", 300), "x")}, "file name too long"},
	"nobody's file":            {[]member{regular("ok", "x"), {tar.Header{Typeflag: tar.TypeReg, Name: "../y", Mode: 0o644}, "y"}}, `".."`},
}

// TestHostile: whatever an archive says, nothing outside changes and nothing of it stays, also not what was good in it.
func TestHostile(t *testing.T) {
	for name, row := range hostile {
		t.Run(name, func(t *testing.T) {
			outer, inner := yard(t)
			before := snapshot(t, outer)
			members := append([]member{regular("server", "new"), regular("made/for/it", "new")}, row.members...)
			r := extract(inner, pack(t, members...))
			if r.code != failed || !strings.Contains(r.err, row.want) || !strings.Contains(r.err, "nothing was replaced") {
				t.Errorf("want %q in: %v", row.want, r)
			}
			if strings.Count(r.err, "\n") != 1 {
				t.Errorf("more than one line: %q", r.err)
			}
			if diff := cmp.Diff(before, snapshot(t, outer)); diff != "" {
				t.Errorf("changed:\n%s", diff)
			}
		})
	}
}

// TestStrangeNames: what looks odd and is harmless comes in under exactly that name.
func TestStrangeNames(t *testing.T) {
	dir := t.TempDir()
	names := []string{"a\nb", "...", "..x", "-rf", "x\\y", "ü", " ", "a//b/./c", "/abs/olute", ".entrypoint-", strings.Repeat("d/", 100) + "x"}
	var members []member
	for _, name := range names {
		members = append(members, regular(name, name))
	}
	if r := extract(dir, pack(t, members...), "-v"); r.code != done || !strings.Contains(r.out, `a\nb`) {
		t.Fatal(r)
	}
	for _, name := range names {
		if got := read(t, filepath.Join(dir, name)); got != name {
			t.Errorf("%q holds %q", name, got)
		}
	}
}

// TestTruncated cuts an archive at every block, and inside of the blocks: nothing of it may stay.
func TestTruncated(t *testing.T) {
	outer, inner := yard(t)
	before := snapshot(t, outer)
	whole := pack(t, folder("new/"), regular("server", strings.Repeat("x", 1500)), linkTo("new/l", "../server"),
		regular(strings.Repeat("long", 40), "long"), hardLinkTo("h", "server"), regular("zeros", strings.Repeat("\x00", 2048)))
	for n := 0; n < len(whole)-512; n += 256 {
		r := extract(inner, whole[:n])
		if r.code != failed || !strings.Contains(r.err, "nothing was replaced") {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), r)
		}
		if diff := cmp.Diff(before, snapshot(t, outer)); diff != "" {
			t.Fatalf("%d of %d bytes:\n%s", n, len(whole), diff)
		}
	}
	if r := extract(inner, whole); r.code != done {
		t.Error(r)
	}
	if read(t, filepath.Join(inner, "h")) != strings.Repeat("x", 1500) {
		t.Error("the whole archive was not extracted")
	}
	noTemporaries(t, outer)
}

// TestBrokenStream: an error of standard input, as after a signal, counts like an end that is too early.
func TestBrokenStream(t *testing.T) {
	outer, inner := yard(t)
	before := snapshot(t, outer)
	whole := pack(t, regular("server", strings.Repeat("x", 5000)))
	for _, n := range []int{0, 1, 512, 700, len(whole) - 1} {
		in := io.MultiReader(bytes.NewReader(whole[:n]), broken{})
		if r := run("tar", in, "", "xf", "-", "-C", inner); r.code != failed || !strings.Contains(r.err, "interrupted system call") {
			t.Errorf("after %d bytes: %v", n, r)
		}
	}
	if diff := cmp.Diff(before, snapshot(t, outer)); diff != "" {
		t.Error(diff)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, syscall.EINTR }

func TestNotAnArchive(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"text":  {strings.Repeat("no archive ", 100), "not a tar archive"},
		"ELF":   {"\x7fELF" + strings.Repeat("\x01", 2000), "not a tar archive"},
		"zstd":  {"\x28\xb5\x2f\xfd....", "zstd"},
		"xz":    {"\xfd7zXZ\x00", "xz"},
		"bzip2": {"BZh91AY", "bzip2"},
		"gzip":  {"\x1f\x8b\x08", "gzip"},
		"empty": {"", "end mark"},
	} {
		if r := extract(t.TempDir(), []byte(row.text)); r.code != failed || !strings.Contains(r.err, row.want) {
			t.Errorf("%s: %v", name, r)
		}
	}
}

// TestLimits has limits of its own: the real ones would need the disk that they protect.
func TestLimits(t *testing.T) {
	small := limits{file: 100, total: 150, members: 5, name: 4096, names: 2000, depth: 10}
	dir := t.TempDir()
	try := func(want string, members ...member) {
		t.Helper()
		var out, errs bytes.Buffer
		s := streams{name: "tar", in: bytes.NewReader(pack(t, members...)), out: &out, err: &errs}
		code := s.extract(tarArgs{extract: true, dir: dir}, &roots{list: []string{"/"}}, small, false)
		if code != failed || !strings.Contains(errs.String(), want) {
			t.Errorf("want %q: %d %s", want, code, errs.String())
		}
		if list := snapshot(t, dir); len(list) != 1 {
			t.Errorf("left behind: %q", list)
		}
	}
	hundred := strings.Repeat("x", 100)
	try("more than 100", regular("a", hundred+"x"))
	try("altogether", regular("a", hundred), regular("b", hundred))
	try("have 5 members", folder("a"), folder("."), folder("."), folder("."), folder("."), folder("."))
	try("directories", regular("1/2/3/4/5/6/7/8/9/10/11", ""))
	long := strings.Repeat("y", 200)
	try("too long altogether", regular(long+"1/"+long+"/"+long+"/"+long+"/"+long+"/x", ""), regular(long+"2/"+long+"/"+long+"/"+long+"/x", ""))
}

// TestHugeSize: a header that promises more than there may be is refused before anything is written.
func TestHugeSize(t *testing.T) {
	for _, size := range []int64{defaultLimits.file + 1, 1 << 62} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "huge", Size: size, Format: tar.FormatGNU}); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if r := extract(dir, b.Bytes()); r.code != failed || !strings.Contains(r.err, "more than") {
			t.Errorf("%d: %v", size, r)
		}
		noTemporaries(t, dir)
	}
}

// TestOddTimes: no time that an archive can name is an error.
func TestOddTimes(t *testing.T) {
	dir := t.TempDir()
	for _, sec := range []int64{-1, -1 << 33, 1 << 33, 1 << 60, -1 << 60} {
		m := regular("f", "x")
		m.ModTime, m.Format = time.Unix(sec, 0), tar.FormatGNU
		if r := extract(dir, pack(t, m)); r.code != done {
			t.Errorf("%d: %v", sec, r)
		}
	}
}

// TestDirectoryReplacedMeanwhile: somebody puts a link in the place of a directory while an archive comes in.
func TestDirectoryReplacedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	permitted, err := rootsOf(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	top, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	s, err := newStage(top, permitted, 0o022, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	x := &extraction{streams: streams{in: bytes.NewReader(pack(t, regular("a/f", "x"))), out: io.Discard}, limits: defaultLimits, stage: s, buffer: make([]byte, 1000)}
	if err := x.read(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")), os.Symlink("b", filepath.Join(dir, "a"))); err != nil {
		t.Fatal(err)
	}
	s.close() // what was open would still be the directory itself
	if err := s.commit(); err == nil || !strings.Contains(err.Error(), `meanwhile; nothing was replaced`) {
		t.Error(err)
	}
}
