package watch

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Auto is the path that stands for the app's own file. Whoever knows that file puts it in before calling Run.
const Auto = "auto"

// What is to be done when a path has new content. Run knows only ActionIgnore; the rest is for the receiver.
const (
	ActionSwap   = "swap"
	ActionIgnore = "ignore"
	// ActionSignal is the beginning of "signal:NAME".
	ActionSignal = "signal:"
)

// A Path is a file or directory to watch and what its change is for.
type Path struct {
	Path   string // cleaned; relative ones are relative to our working directory; or Auto
	Action string // "swap", "signal:NAME" or "ignore"
}

// ParsePaths reads a comma-separated list of path[=action]. The action follows the last "="; without one it is swap.
// The name of a signal is not checked here. Empty elements are skipped. All faults are reported at once, joined.
func ParsePaths(list string) ([]Path, error) {
	var paths []Path
	var faults []error
	seen := map[string]bool{}
	for _, text := range strings.Split(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := parsePath(text)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("cannot watch %q: %w", text, err))
		case seen[p.Path]:
			faults = append(faults, fmt.Errorf("cannot watch %q: the path is listed twice", text))
		default:
			seen[p.Path] = true
			paths = append(paths, p)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return paths, nil
}

func parsePath(text string) (Path, error) {
	p := Path{Path: text, Action: ActionSwap}
	if i := strings.LastIndexByte(text, '='); i >= 0 {
		p.Path, p.Action = strings.TrimSpace(text[:i]), strings.TrimSpace(text[i+1:])
	}
	if err := checkAction(p.Action); err != nil {
		return p, err
	}
	if p.Path == "" {
		return p, errors.New("the path is empty")
	}
	if strings.ContainsRune(p.Path, 0) {
		return p, errors.New("a path cannot hold a NUL")
	}
	if p.Path == Auto {
		return p, nil
	}
	p.Path = filepath.Clean(p.Path)
	if p.Action == ActionIgnore {
		return p, nil
	}
	return p, forbidden(p.Path)
}

func checkAction(action string) error {
	name, isSignal := strings.CutPrefix(action, ActionSignal)
	switch {
	case action == ActionSwap, action == ActionIgnore, isSignal && name != "":
		return nil
	case isSignal:
		return errors.New("a signal needs a name, such as signal:HUP")
	case action == "hook" || strings.HasPrefix(action, "hook:"):
		return errors.New("hooks are not in this version; use swap, signal:NAME or ignore")
	}
	return fmt.Errorf("unknown action %q; use swap, signal:NAME or ignore", action)
}

// forbidden refuses paths whose changes are no changes of files, or are all changes there are.
func forbidden(path string) error {
	if path == "/" {
		return errors.New("the root directory is too much; name a file or a directory below it")
	}
	if strings.HasPrefix(path, "/dev/shm/") {
		return nil
	}
	for _, top := range []string{"/proc", "/sys", "/dev"} {
		if path == top || strings.HasPrefix(path, top+"/") {
			return fmt.Errorf("%s holds no ordinary files", top)
		}
	}
	return nil
}
