package render

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Target is a file that is written from a template.
type Target struct {
	Template string // its path
	Path     string // of what is written
}

// ParseTargets reads "template:target[,template:target…]". All faults are reported at once.
func ParseTargets(text string) ([]Target, error) {
	var list []Target
	var faults []error
	seen := map[string]bool{}
	for _, word := range strings.Split(text, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		from, to, colon := strings.Cut(word, ":")
		t := Target{filepath.Clean(from), filepath.Clean(to)}
		why := ""
		switch {
		case !colon || from == "" || to == "":
			why = "%q is not a template and a target: write TEMPLATE:TARGET, two absolute paths"
		case !filepath.IsAbs(t.Template) || !filepath.IsAbs(t.Path):
			why = "the paths of %q are not absolute: begin each with /"
		case t.Template == t.Path:
			word, why = t.Path, "%q would be written over itself: give the template another name"
		case seen[t.Path]:
			word, why = t.Path, "%q is written twice: name each target once"
		}
		if why != "" {
			faults = append(faults, fmt.Errorf(why, word))
			continue
		}
		seen[t.Path] = true
		list = append(list, t)
	}
	return list, errors.Join(faults...)
}

// Check reads the template, if it is there already, to find what is wrong with it before anything is started.
func (t Target) Check() error {
	_, err := t.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t Target) read() (*Template, error) {
	f, err := os.OpenFile(t.Template, os.O_RDONLY|syscall.O_NONBLOCK, 0) // somebody may have put a FIFO there
	if err != nil {
		return nil, fmt.Errorf("cannot read the template: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the template: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("cannot read the template %q: it is not a regular file", t.Template)
	}
	text := make([]byte, maxTemplate+2)
	n := 0
	for n < len(text) {
		m, err := f.Read(text[n:])
		n += m
		if err != nil || m == 0 {
			break
		}
	}
	return Parse(t.Template, string(text[:n]))
}

// Render reads the template again, and writes the target if its content is to change: whole or not at all, with the mode and the
// owner that it has, or else with mode 0644. It reports whether it has written.
func (t Target) Render(data any) (bool, error) {
	tm, err := t.read()
	if err != nil {
		return false, err
	}
	text, err := tm.Execute(data)
	if err != nil {
		return false, err
	}
	path := t.Path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a link stays one
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return false, nil
	}
	if err := replace(path, text); err != nil {
		return false, fmt.Errorf("cannot write %q: %w", t.Path, err)
	}
	return true, nil
}

// replace writes a new file beside path and renames it.
func replace(path string, text []byte) error {
	mode, owner := fs.FileMode(0o644), (*syscall.Stat_t)(nil)
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() {
			return errors.New("it is not a regular file")
		}
		mode = info.Mode().Perm()
		owner, _ = info.Sys().(*syscall.Stat_t)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && owner != nil && (int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid()) {
		err = f.Chown(int(owner.Uid), int(owner.Gid))
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
