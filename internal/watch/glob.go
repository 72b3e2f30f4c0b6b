package watch

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxMembers bounds how many files one pattern stands for: a directory of a mail queue must not fill our memory.
const maxMembers = 1000

// glob is a watched pattern. Its directory has a target that is never looked at for its own sake: its events say which
// files begin to match. Each of these is a target of its own, until it has vanished.
type glob struct {
	path    Path
	pattern string
	dir     *target
	members map[string]*target // by name
	full    bool               // there are more, and that was said
}

// addGlob takes a pattern into the watcher.
func (w *watcher) addGlob(p Path, abs string) {
	g := &glob{path: p, pattern: filepath.Base(abs), members: map[string]*target{}}
	g.dir = &target{path: p, abs: filepath.Dir(abs), scout: g}
	w.globs = append(w.globs, g)
	w.targets = append(w.targets, g.dir)
}

// matches tells whether a name in the directory is one of the pattern's. Hidden files are so for a reason: tools write
// there what is not finished, and a projected volume keeps its links.
func (g *glob) matches(name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(g.pattern, ".") && !strings.HasPrefix(g.pattern, `\.`) {
		return false
	}
	ok, _ := filepath.Match(g.pattern, name) // its form was checked
	return ok
}

// ignores tells whether a path, or what a pattern of such paths stands for, is to be left alone.
func (w *watcher) ignores(path string) bool {
	if w.ignored[path] {
		return true
	}
	for _, pattern := range w.ignoredGlobs {
		dir, last := filepath.Split(pattern)
		if d, name := filepath.Split(path); d == dir {
			if ok, _ := filepath.Match(last, name); ok {
				return true
			}
		}
	}
	return false
}

// expand finds the files that have begun to match and makes them targets, which it returns. Their way is known, what
// they hold is not.
func (w *watcher) expand(g *glob) []*target {
	var fresh []*target
	for _, name := range w.names(g) {
		if g.members[name] != nil {
			continue
		}
		t := &target{path: g.path, abs: filepath.Join(g.dir.abs, name), member: g}
		t.effect = effectOf(t.path, t.abs)
		if w.walk(t); !t.chain.isRegular() {
			continue
		}
		if len(g.members) >= maxMembers {
			if !g.full {
				g.full = true
				w.logf("watched pattern %q matches more than %d files: the rest is not watched", g.path.Path, maxMembers)
			}
			break
		}
		g.members[name] = t
		w.targets = append(w.targets, t)
		fresh = append(fresh, t)
	}
	return fresh
}

// names lists what matches now, in order.
func (w *watcher) names(g *glob) []string {
	if !g.dir.chain.isDir() {
		return nil
	}
	d, err := os.Open(g.dir.chain.final)
	if err != nil {
		w.say(g.dir, "is waited for: "+err.Error())
		return nil
	}
	defer d.Close()
	all, err := d.Readdirnames(maxEntries)
	if err != nil && err != io.EOF {
		return nil // it vanishes: the events, or the next poll, say more
	}
	g.dir.said = ""
	all = slices.DeleteFunc(all, func(name string) bool {
		return !g.matches(name) || w.ignores(filepath.Join(g.dir.abs, name))
	})
	slices.Sort(all)
	return all
}

// vanish takes a member whose file is gone out. That is news, except for a swap: there is nothing new to run.
func (w *watcher) vanish(t *target) {
	if t.known.sum == "" || t.path.Action == ActionSwap {
		w.forget(t)
		return
	}
	t.pending, t.next = &Event{Path: t.path, File: t.abs, Reason: "vanished"}, content{}
	t.since = firstOf(t.since, time.Now())
}

func (w *watcher) forget(t *target) {
	delete(t.member.members, filepath.Base(t.abs))
	w.targets = slices.DeleteFunc(w.targets, func(other *target) bool { return other == t })
}
