package applet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// rmArgs are the options of one run of rm.
type rmArgs struct {
	recursive, force, verbose bool
	paths                     []string
}

func parseRm(args []string) (rmArgs, error) {
	var a rmArgs
	for i, word := range args {
		switch {
		case word == "--":
			a.paths = append(a.paths, args[i+1:]...)
			return a, a.check()
		case word == "-" || !strings.HasPrefix(word, "-"):
			a.paths = append(a.paths, word)
		default:
			if err := a.option(word); err != nil {
				return a, err
			}
		}
	}
	return a, a.check()
}

func (a *rmArgs) check() error {
	if len(a.paths) == 0 && !a.force {
		return errors.New("cannot remove anything: name a path")
	}
	return nil
}

var rmLong = map[string]string{"--recursive": "-r", "--force": "-f", "--verbose": "-v"}

func (a *rmArgs) option(word string) error {
	letters := word
	if short, known := rmLong[word]; known {
		letters = short
	}
	for _, letter := range letters[1:] {
		switch letter {
		case 'r', 'R':
			a.recursive = true
		case 'f':
			a.force = true
		case 'v':
			a.verbose = true
		default:
			return fmt.Errorf("cannot use the option %q: this rm only knows -r, -R, -f, -v and their long forms", word)
		}
	}
	return nil
}

// removal is one run of rm.
type removal struct {
	streams
	rmArgs
	permitted *roots
	failures  int
}

// rm removes what it can and says what it cannot: the code is 1 then, as that of rm(1).
func (s streams) rm(args []string, permitted *roots) int {
	a, err := parseRm(args)
	if err != nil {
		return s.fail(err)
	}
	r := &removal{streams: s, rmArgs: a, permitted: permitted}
	for _, path := range a.paths {
		if err := r.path(path); err != nil {
			r.failed(path, err)
		}
	}
	if r.failures > 0 {
		return differ
	}
	return done
}

func (r *removal) failed(path string, err error) {
	r.failures++
	r.say("cannot remove %q: %v", shorten(path), err)
}

// path removes one operand. Its directory is found as the kernel finds it; its last part is not followed.
func (r *removal) path(path string) error {
	trimmed := strings.TrimRight(path, "/")
	at := strings.LastIndexByte(trimmed, '/')
	base, above := trimmed[at+1:], trimmed[:at+1]
	switch base {
	case "", ".", "..":
		return errors.New("it is no name of its own: name the directory's whole path")
	}
	if above == "" {
		above = "."
	}
	parent, err := newDir(os.OpenFile(above, openFlags, 0))
	if err != nil {
		return r.forgive(err)
	}
	defer parent.close()
	real := parent.path(base)
	if err := r.permitted.refuse(real); err != nil {
		return err
	}
	if r.permitted.holds(real) {
		return errors.New("a directory that must stay is in it, or it is one")
	}
	st, err := parent.stat(base)
	switch {
	case err != nil:
		return explain(parent, err)
	case st == nil:
		return r.forgive(unix.ENOENT)
	}
	return r.entry(parent, base, st, 0)
}

// forgive turns the absence of a path into success where -f was given.
func (r *removal) forgive(err error) error {
	err = unwrapPath(err)
	if r.force && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
		return nil
	}
	return err
}

// maxDepth bounds the directories that are open at a time while a tree is walked.
const maxDepth = 512

// entry removes one name and what is below it.
func (r *removal) entry(parent *dir, base string, st *unix.Stat_t, depth int) error {
	switch {
	case r.permitted.isOwn(st):
		return errors.New("it is the binary of the init itself")
	case !isDir(st):
		if err := parent.unlink(base); err != nil {
			return explain(parent, err)
		}
	case !r.recursive:
		return errors.New("it is a directory: give -r")
	case depth > maxDepth:
		return fmt.Errorf("it is deeper than %d directories: remove it in parts", maxDepth)
	default:
		if removed, err := r.directory(parent, base, depth); err != nil || !removed {
			return err
		}
	}
	if r.verbose {
		fmt.Fprintf(r.out, "removed %s\n", printable(parent.path(base)))
	}
	return nil
}

// directory empties and removes a directory. Where something in it could not be removed, which has been said, it stays.
func (r *removal) directory(parent *dir, base string, depth int) (removed bool, err error) {
	f, err := parent.openat(base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, explain(parent, err)
	}
	defer f.Close()
	before := r.failures
	// Some file systems pass over names when others are removed meanwhile, so a directory is read until it stays empty.
	for range 10 {
		r.empty(&dir{f, parent.path(base)}, depth)
		if r.failures > before {
			return false, nil
		}
		if err = parent.rmdir(base); err == nil {
			return true, nil
		}
		if !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
	}
	return false, explain(parent, err)
}

// empty removes the entries of d once through.
func (r *removal) empty(d *dir, depth int) {
	for {
		names, err := d.f.Readdirnames(256)
		for _, name := range names {
			st, err := d.stat(name)
			if err == nil && st != nil {
				err = r.entry(d, name, st, depth+1)
			}
			if err != nil {
				r.failed(d.path(name), err)
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			r.failed(d.real, unwrapPath(err))
			return
		}
	}
}
