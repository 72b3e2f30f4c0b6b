package artifact

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is searched when the app has no PATH, as a C library would.
const defaultPath = "/usr/local/bin:/bin:/usr/bin"

// find looks name up and returns it opened, with its type and permission checked.
func find(name, dir, search string) (*program, error) {
	if strings.Contains(name, "/") {
		path := under(dir, name)
		p, err := openProgram(path, true)
		if err != nil {
			return nil, refuse(path, err)
		}
		return p, nil
	}
	if search == "" {
		search = defaultPath
	}
	var first *Error // the first that is there but cannot be run
	for _, entry := range strings.Split(search, ":") {
		path := under(dir, filepath.Join(entry, name))
		p, err := openProgram(path, true)
		switch {
		case err == nil:
			return p, nil
		case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EISDIR):
			if first == nil {
				first = refuse(path, err)
			}
		case !passedOver(err):
			return nil, refuse(path, err)
		}
	}
	if first != nil {
		return nil, first
	}
	return nil, refuse(name, notInPath(name, dir, search))
}

// passedOver tells whether execvp goes on to the next entry of PATH after such an error.
func passedOver(err error) bool {
	for _, e := range []syscall.Errno{unix.ENOENT, unix.ENOTDIR, unix.ESTALE, unix.ENODEV, unix.ETIMEDOUT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func notInPath(name, dir, search string) error {
	hint := ""
	if st, err := os.Stat(under(dir, name)); err == nil && st.Mode().IsRegular() {
		hint = fmt.Sprintf("; for the one in the working directory write %q", "./"+name)
	}
	return missing("it is in no directory of PATH %q%s", search, hint)
}

// under makes name absolute within dir. Nothing is cleaned away: "link/.." is not always "".
func under(dir, name string) string {
	if filepath.IsAbs(name) || dir == "" {
		return name
	}
	return strings.TrimSuffix(dir, "/") + "/" + name
}

// workingDirectory is dir, or ours when it is empty, absolute and without symbolic links.
func workingDirectory(dir string) (string, error) {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "" // ours was removed, or is outside of our root: stay relative
	}
	if dir == "" {
		return cwd, nil
	}
	resolved, err := filepath.EvalSymlinks(under(cwd, dir))
	if err != nil {
		return "", plain(fmt.Sprintf("its working directory %q cannot be used", dir), err)
	}
	if st, err := os.Stat(resolved); err == nil && !st.IsDir() {
		return "", plain(fmt.Sprintf("its working directory %q cannot be used", dir), unix.ENOTDIR)
	}
	return resolved, nil
}

// plain says what failed and why in the kernel's words.
func plain(what string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return &fault{text: what + ": " + errno.Error(), errno: errno}
}
