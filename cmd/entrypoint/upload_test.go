package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/artifact"
)

func TestUploadIsSealed(t *testing.T) {
	f, err := receiveUpload(iotest.HalfReader(strings.NewReader(strings.Repeat("bytes", 1000))), "app")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20)); err != nil || string(b) != strings.Repeat("bytes", 1000) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("written to after sealing: %v", err)
	}
	const all = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&all != all {
		t.Errorf("seals %#x, %v", seals, err)
	}
}

func TestUploadsThatAreNotTaken(t *testing.T) {
	for name, c := range map[string]struct {
		from io.Reader
		want string
	}{
		"nothing": {strings.NewReader(""), "nothing came on standard input"},
		"broken":  {iotest.ErrReader(errors.New("the cable was cut")), "the cable was cut"},
		"large":   {strings.NewReader(strings.Repeat("x", 2<<20)), "larger than 1024 KiB"},
	} {
		f, err := artifact.NewMemory("test")
		if err != nil {
			t.Fatal(err)
		}
		if err := fill(f, c.from, 1<<20); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}

// names lists a folder.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func TestSaveUpload(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app")
	if err := os.WriteFile(path, []byte("old"), 0o750); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	f, err := receiveUpload(strings.NewReader("new"), "app")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := saveUpload(f, path, "signed", always); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	sig, _ := os.ReadFile(path + ".minisig")
	st, _ := os.Stat(path)
	was, _ := io.ReadAll(old)
	if string(b) != "new" || string(sig) != "signed" || st.Mode() != 0o750 || string(was) != "old" || names(t, dir) != "app app.minisig" {
		t.Errorf("file %q, signature %q, mode %v, the open one %q, folder %q", b, sig, st.Mode(), was, names(t, dir))
	}
}

// TestSaveUploadThatFails leaves the old file, and nothing else.
func TestSaveUploadThatFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app")
	if err := os.WriteFile(path, []byte("old"), 0o755); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left on device")
	_, err := prepare(path, 0o755, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return full
	})
	if b, _ := os.ReadFile(path); !errors.Is(err, full) || string(b) != "old" || names(t, dir) != "app" {
		t.Errorf("%v: file %q, folder %q", err, b, names(t, dir))
	}
	f, err := receiveUpload(strings.NewReader("new"), "app")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := saveUpload(f, filepath.Join(dir, "none", "app"), "", always); err == nil || strings.Contains(err.Error(), ".entrypoint-") {
		t.Errorf("into a folder that is not there: %v", err)
	}
}

// always is for an upload that nothing has overtaken.
func always() error { return nil }

// TestSaveUploadKeepsTheSignature: whatever keeps the program from being replaced leaves the signature of the old one.
func TestSaveUploadKeepsTheSignature(t *testing.T) {
	f, err := receiveUpload(strings.NewReader("new"), "app")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	overtaken := errors.New("overtaken")
	for _, c := range []struct {
		name, signature string
		current         func() error
	}{
		{"with an old one", "old", always}, {"without", "", always}, {"overtaken", "old", func() error { return overtaken }},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "app")
		if err := os.Mkdir(path, 0o755); err != nil { // no file can take its place
			t.Fatal(err)
		}
		want := "app"
		if c.signature != "" {
			want = "app app.minisig"
			if err := os.WriteFile(path+".minisig", []byte(c.signature), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := saveUpload(f, path, "new", c.current)
		if sig, _ := os.ReadFile(path + ".minisig"); err == nil || string(sig) != c.signature || names(t, dir) != want {
			t.Errorf("%s: %v: signature %q, folder %q", c.name, err, sig, names(t, dir))
		}
	}
}
