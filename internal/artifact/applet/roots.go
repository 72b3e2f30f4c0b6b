package applet

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// denied are the kernel's own trees. A root inside of one, such as /dev/shm, opens that part.
var denied = []string{"/proc", "/sys", "/dev"}

// roots are the directories below which the applets may change something, and the files that they may not replace.
type roots struct {
	list []string // absolute, without symbolic links
	own  []fileID
}

// fileID says which file it is, whatever its names are.
type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), st.Ino} }

// rootsOf reads RootsVariable, or the file that the variable with _FILE names, as the init does.
func rootsOf(getenv func(string) string) (*roots, error) {
	text := getenv(RootsVariable)
	if file := getenv(RootsVariable + "_FILE"); text == "" && file != "" {
		var err error
		if text, err = readSmall(file); err != nil {
			return nil, fmt.Errorf("cannot read %s_FILE: %w", RootsVariable, err)
		}
	}
	r := &roots{own: ownBinaries()}
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if !filepath.IsAbs(entry) {
			return nil, fmt.Errorf("cannot use %s: %q is not an absolute path", RootsVariable, entry)
		}
		r.list = append(r.list, resolved(entry))
	}
	if len(r.list) == 0 {
		r.list = []string{"/"}
	}
	return r, nil
}

func readSmall(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return string(text), err
}

// resolved is path without symbolic links, or as it is while it does not exist.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// ownBinaries are the files that run as this process and as PID 1, as far as we may see that.
func ownBinaries() []fileID {
	var list []fileID
	for _, name := range []string{"/proc/self/exe", "/proc/1/exe"} {
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil {
			list = append(list, idOf(&st))
		}
	}
	return list
}

// below tells whether path is dir or inside of it; both are clean and absolute.
func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// refuse says why nothing may be made, replaced or removed at path, an absolute path without symbolic links.
func (r *roots) refuse(path string) error {
	best := ""
	for _, root := range r.list {
		if below(path, root) && path != root && len(root) > len(best) {
			best = root
		}
	}
	if best == "" {
		return fmt.Errorf("it is not below %s; %s says where this may write", strings.Join(r.list, " or "), RootsVariable)
	}
	for _, tree := range denied {
		if below(path, tree) && !below(best, tree) {
			return fmt.Errorf("%s is the kernel's", tree)
		}
	}
	return nil
}

// holds tells whether a root, or one of the kernel's trees, is path or inside of it: removing path would take it away.
func (r *roots) holds(path string) bool {
	for _, list := range [][]string{r.list, denied} {
		for _, dir := range list {
			if below(dir, path) {
				return true
			}
		}
	}
	return false
}

// isOwn tells whether the file is one of those that must stay: the init's own binary.
func (r *roots) isOwn(st *unix.Stat_t) bool {
	for _, id := range r.own {
		if id == idOf(st) {
			return true
		}
	}
	return false
}
