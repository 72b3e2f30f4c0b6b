package watch

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParsePaths(t *testing.T) {
	got, err := ParsePaths(" /app/server , auto=signal:HUP,/etc/app/=ignore,conf=signal:RTMIN+3,,/a=b=swap,/dev/shm/x," +
		`/go=trigger,/e=hook,/e/*.conf=signal:HUP,*~=ignore,/a\*b/\[x]=swap,/a\*b/[x]\*?,/c\,d,/q\\`)
	must(t, err)
	want := []Path{
		{Path: "/app/server", Action: "swap"}, {Path: "auto", Action: "signal:HUP"}, {Path: "/etc/app", Action: "ignore"},
		{Path: "conf", Action: "signal:RTMIN+3"}, {Path: "/a=b", Action: "swap"}, {Path: "/dev/shm/x", Action: "swap"},
		{Path: "/go", Action: "trigger"}, {Path: "/e", Action: "hook"},
		{Path: "/e/*.conf", Action: "signal:HUP", Glob: true}, {Path: "*~", Action: "ignore", Glob: true},
		{Path: "/a*b/[x]", Action: "swap"}, {Path: `/a*b/[x]\*?`, Action: "swap", Glob: true},
		{Path: "/c,d", Action: "swap"}, {Path: `/q\`, Action: "swap"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	none, err := ParsePaths(" ")
	if err != nil || len(none) != 0 {
		t.Errorf("empty list: %v, %v", none, err)
	}
}

func TestParsePathsRefuses(t *testing.T) {
	cases := map[string]string{
		"/app=hook:/x":     "HOOK_WATCH",
		"/app/*/x":         "last component only",
		"/app/[a":          "has no end",
		"/proc/*":          "/proc holds",
		"/app=signal:":     "needs a name",
		"/app=restart":     "unknown action",
		"=swap":            "empty",
		"/":                "root directory",
		"/app/..":          "root directory",
		"/proc/self":       "/proc holds",
		"/sys":             "/sys holds",
		"/dev/shm":         "/dev holds",
		"/app,/app/":       "twice",
		"/a=x,/b=y":        "\n", // both are named
		"/a\x00b":          "NUL",
		"/dev/shm/../null": "/dev holds",
	}
	for list, part := range cases {
		if _, err := ParsePaths(list); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %v", list, err)
		}
	}
}

func TestResolve(t *testing.T) {
	dir, app := place(t)
	must(t, os.Symlink("app", filepath.Join(dir, "link")))
	must(t, os.Symlink("../link/./server", filepath.Join(dir, "app", "back")))
	must(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	c := resolve(filepath.Join(dir, "link", "back"))
	if c.final != app || c.err != nil || c.last() != (link{filepath.Dir(app), "server"}) {
		t.Errorf("%+v", c)
	}
	for _, l := range []link{{dir, "link"}, {filepath.Dir(app), "back"}, {dir, "app"}, {"/", strings.Split(dir, "/")[1]}} {
		if !contains(c.links, l) {
			t.Errorf("%v is not on the way: %v", l, c.links)
		}
	}
	for path, want := range map[string]error{
		dir + "/loop": unix.ELOOP, dir + "/none/x": unix.ENOENT, app + "/x": unix.ENOTDIR,
	} {
		if c := resolve(path); c.final != "" || c.err == nil || !strings.Contains(c.err.Error(), want.Error()) {
			t.Errorf("%s: %+v", path, c)
		}
	}
}

func contains(all []link, one link) bool {
	for _, l := range all {
		if l == one {
			return true
		}
	}
	return false
}

// record writes one event as the kernel does.
func record(wd int32, mask uint32, name string, pad int) []byte {
	var b bytes.Buffer
	size := len(name) + pad
	for _, v := range []uint32{uint32(wd), mask, 0, uint32(size)} {
		b.Write(binary.NativeEndian.AppendUint32(nil, v))
	}
	b.WriteString(name)
	b.Write(make([]byte, pad))
	return b.Bytes()
}

func TestParseEvents(t *testing.T) {
	buf := append(record(7, unix.IN_CREATE, "server", 10), record(-1, unix.IN_Q_OVERFLOW, "", 0)...)
	got, err := parseEvents(buf)
	must(t, err)
	if len(got) != 2 || got[0] != (event{7, unix.IN_CREATE, "server"}) || got[1] != (event{-1, unix.IN_Q_OVERFLOW, ""}) {
		t.Errorf("%+v", got)
	}
	for n := 1; n < len(buf); n++ {
		got, err := parseEvents(buf[:n])
		if n != 32 && (err == nil || len(got) > 1) {
			t.Errorf("cut at %d: %+v, %v", n, got, err)
		}
	}
}

func FuzzParseEvents(f *testing.F) {
	f.Add(record(1, unix.IN_MODIFY, "name", 4))
	f.Add(record(1, unix.IN_MODIFY, "", 0)[:15])
	f.Fuzz(func(t *testing.T, buf []byte) {
		events, err := parseEvents(buf)
		if len(events)*unix.SizeofInotifyEvent > len(buf) {
			t.Errorf("%d events in %d bytes", len(events), len(buf))
		}
		if err == nil && len(buf) > 0 && len(events) == 0 {
			t.Error("bytes without an event and without an error")
		}
	})
}

func FuzzParsePaths(f *testing.F) {
	f.Add("/a=swap,/b=signal:HUP")
	f.Fuzz(func(t *testing.T, list string) {
		paths, err := ParsePaths(list)
		if err != nil && paths != nil {
			t.Error("paths beside an error")
		}
		for _, p := range paths {
			if p.Path == "" || checkAction(p.Action) != nil {
				t.Errorf("%+v", p)
			}
		}
	})
}
