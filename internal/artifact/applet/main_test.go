package applet

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// result is what one run of an applet answered.
type result struct {
	code     int
	out, err string
}

func (r result) String() string { return fmt.Sprintf("code %d\n%s%s", r.code, r.out, r.err) }

// run calls an applet with the roots given, none for the default.
func run(name string, stdin io.Reader, roots string, args ...string) result {
	var out, err bytes.Buffer
	code := Main(name, args, stdin, &out, &err, func(key string) string {
		if key == RootsVariable {
			return roots
		}
		return ""
	})
	return result{code, out.String(), err.String()}
}

// extract runs tar -x into dir.
func extract(dir string, archive []byte, args ...string) result {
	return run("tar", bytes.NewReader(archive), "", append([]string{"-xf", "-", "-C", dir}, args...)...)
}

// member is one of an archive made by the test.
type member struct {
	tar.Header
	text string
}

func regular(name, text string) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: time.Unix(1e9, 0)}, text}
}

func linkTo(name, target string) member {
	return member{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}}
}

func hardLinkTo(name, target string) member {
	return member{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}}
}

func folder(name string) member {
	return member{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

// pack makes an archive.
func pack(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := m.Header
		h.Size = int64(len(m.text))
		h.Uid, h.Gid = os.Geteuid(), os.Getegid()
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// snapshot describes everything below dir: type, mode, size or target, content, and time in seconds.
func snapshot(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		text := ""
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = fmt.Sprintf("%x %d", sha256.Sum256(content), info.ModTime().Unix())
		case info.Mode()&fs.ModeSymlink != 0:
			text, _ = os.Readlink(path)
		}
		list = append(list, fmt.Sprint(name, " ", info.Mode(), " ", text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// noTemporaries fails if an extraction left something behind.
func noTemporaries(t testing.TB, dir string) {
	t.Helper()
	for _, line := range snapshot(t, dir) {
		if strings.Contains(line, ".entrypoint-") {
			t.Errorf("left behind: %s", line)
		}
	}
}
