package watch

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Auto is the path that stands for the app's own file. Whoever knows that file puts it in before calling Run.
const Auto = "auto"

// What is to be done when a path has new content. Run itself acts on ActionIgnore, tells the other changes that
// ActionTrigger wants to know of, and knows which actions one event can be for; the rest is for the receiver.
const (
	ActionSwap    = "swap"
	ActionTrigger = "trigger" // a swap, also for a new modification time of the same content
	ActionHook    = "hook"
	ActionIgnore  = "ignore"
	// ActionSignal is the beginning of "signal:NAME".
	ActionSignal = "signal:"
)

const knownActions = "swap, trigger, signal:NAME, hook or ignore"

// A Path is a file or directory to watch and what its change is for.
type Path struct {
	Path   string // cleaned; relative ones are relative to our working directory; or Auto
	Action string // "swap", "trigger", "signal:NAME", "hook" or "ignore"
	// Glob says that the last component of Path is a pattern as of path/filepath.Match, and stands for the files of that
	// directory that match it, now and later. A * or ? at its beginning does not match a dot, except when it is ignored.
	Glob bool
}

// ParsePaths reads a comma-separated list of path[=action]. The action follows the last "="; without one it is swap.
// The last component may be a pattern of *, ? and […]; a backslash takes the meaning from one of these, from a comma and
// from another backslash. The name of a signal is not checked here. Empty elements are skipped. All faults are reported
// at once, joined.
func ParsePaths(list string) ([]Path, error) {
	var paths []Path
	var faults []error
	seen := map[string]bool{}
	for _, text := range splitList(list) {
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

// splitList cuts at the commas that have no backslash before them, and leaves the backslashes.
func splitList(list string) []string {
	var parts []string
	from := 0
	for i := 0; i < len(list); i++ {
		switch list[i] {
		case '\\':
			i++
		case ',':
			parts = append(parts, list[from:i])
			from = i + 1
		}
	}
	return append(parts, list[from:])
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
	return p.pattern()
}

// pattern finds out whether the path is one, and takes the backslashes out of what is none.
func (p Path) pattern() (Path, error) {
	dir, last := filepath.Split(strings.TrimRight(p.Path, "/"))
	if hasMeta(dir) {
		return p, errors.New("a pattern may stand in the last component only; write \\ before a *, ? or [ that is meant as it is")
	}
	if !hasMeta(last) {
		if p.Path = unescape(p.Path); p.Path == "" {
			return p, errors.New("the path is empty")
		}
		p.Path = filepath.Clean(p.Path)
		if p.Action == ActionIgnore {
			return p, nil
		}
		return p, forbidden(p.Path)
	}
	if _, err := filepath.Match(last, "x"); err != nil {
		return p, fmt.Errorf("the pattern %q has no end; close its [, or write \\ before a [ that is meant as it is", last)
	}
	p.Glob = true
	p.Path = filepath.Join(filepath.Clean(unescape(dir)+"."), last)
	if p.Action == ActionIgnore || filepath.Dir(p.Path) == "/" {
		return p, nil // the files of the root directory are no more than those of another
	}
	return p, forbidden(filepath.Dir(p.Path))
}

// hasMeta tells whether a *, ? or [ without a backslash before it is in text.
func hasMeta(text string) bool {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// unescape drops each backslash that stands before another character.
func unescape(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

func checkAction(action string) error {
	name, isSignal := strings.CutPrefix(action, ActionSignal)
	switch {
	case action == ActionSwap, action == ActionTrigger, action == ActionHook, action == ActionIgnore, isSignal && name != "":
		return nil
	case isSignal:
		return errors.New("a signal needs a name, such as signal:HUP")
	case strings.HasPrefix(action, "hook:"):
		return errors.New("the action hook takes no command; set it in ENTRYPOINT_HOOK_WATCH")
	}
	return fmt.Errorf("unknown action %q; use %s", action, knownActions)
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
