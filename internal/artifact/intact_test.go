package artifact

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinksAreNoChange: others link and unlink the file all the time, which changes its change time, while it is copied.
func TestLinksAreNoChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app")
	binary, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(path, binary, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewStore(StoreOptions{Exec: ExecCopy})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stop, stopped := make(chan bool), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := errors.Join(os.Link(path, path+".link"), os.Remove(path+".link")); err != nil {
				<-stop
				stopped <- err
				return
			}
		}
	}()
	for range 20 {
		a, err := s.Open(t.Context(), path, "", "")
		if err != nil {
			t.Error(err)
			break
		}
		a.Close()
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestIntact(t *testing.T) {
	script := func(t *testing.T, name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		exec    Exec
		content string
		change  func(path string) error
		want    string
	}{
		"script left alone":   {ExecAuto, "#!/bin/sh\n", func(string) error { return nil }, ""},
		"script overwritten":  {ExecAuto, "#!/bin/sh\n", func(p string) error { return os.WriteFile(p, []byte("#!/bin/sh\n:\n"), 0) }, "another file is there"},
		"script gone":         {ExecAuto, "#!/bin/sh\n", os.Remove, "another file is there"},
		"program overwritten": {ExecPath, string(binary), func(p string) error { return os.Truncate(p, 4096) }, "was overwritten"},
		"program longer": {ExecPath, string(binary), func(p string) error { // with the time of before
			st, err := os.Stat(p)
			return errors.Join(err, os.Truncate(p, int64(len(binary)+1)), os.Chtimes(p, st.ModTime(), st.ModTime()))
		}, "was overwritten"},
		"program gone":      {ExecPath, string(binary), os.Remove, ""},
		"copy, and it gone": {ExecCopy, string(binary), os.Remove, ""},
		"copy, overwritten": {ExecCopy, string(binary), func(p string) error { return os.Truncate(p, 0) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewStore(StoreOptions{Exec: c.exec})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			path := script(t, "app", c.content)
			a, err := s.Open(t.Context(), path, "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			err = a.Intact()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestIntactScriptCopy has a copy that can only be opened by its name.
func TestIntactScriptCopy(t *testing.T) {
	s, _ := store(t, StoreOptions{Exec: ExecCopy, StateDir: tempDir(t)})
	a := opened(t, s, write(t, filepath.Join(tempDir(t), "app"), "#!/bin/sh\n", 0o755))
	must(t, a.Intact())
	must(t, os.Remove(a.copy.path))
	if err := a.Intact(); err == nil || !strings.Contains(err.Error(), "was changed or removed") {
		t.Error(err)
	}
}
