package applet

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// stage is an extraction that has not happened yet: files, links and directories under temporary names, beside the places
// that they are for. It ends with commit or with undo.
type stage struct {
	root      *os.Root
	rootReal  string
	permitted *roots
	umask     uint32
	tag       string // begins every temporary name
	room      int    // bytes of names that may still be kept

	items    []item
	finals   map[string]int        // path of an item -> its index
	places   map[string]*place     // by real path
	made     map[string]*directory // by real path, what did not exist before
	order    []*directory          // made, parents first
	redirect map[string]string     // a directory that will replace a file: its name in the archive -> the temporary one

	open     *dir // the directory last used
	openName string
}

// place is a directory that holds items. name is what the root opens it by.
type place struct{ name, real string }

// item is one name to be changed.
type item struct {
	place      *place
	base, temp string
	kind       kind
}

type kind int

const (
	gone      kind = iota // replaced by a later member of the same name
	file                  // a file or a link
	tree                  // a directory that replaces a file
	committed             // it has its name
)

// directory is one that this extraction made. Its mode and time are set at the end: until then it has to be writable.
type directory struct {
	parent *place
	base   string // on disk
	name   string // in the archive, as it will be at the end
	attributes
}

func newStage(root *os.Root, permitted *roots, umask uint32, room int) (*stage, error) {
	s := &stage{
		root: root, permitted: permitted, umask: umask, room: room,
		finals: map[string]int{}, places: map[string]*place{}, made: map[string]*directory{}, redirect: map[string]string{},
	}
	s.tag = ".entrypoint-" + rand.Text() + "-"
	top, err := newDir(root.OpenFile(".", openFlags, 0))
	if err != nil {
		return nil, err
	}
	s.rootReal = top.real
	top.close()
	return s, nil
}

func (s *stage) close() {
	if s.open != nil {
		s.open.close()
	}
	s.open = nil
}

// directory opens a directory by its name in the archive, and makes it, and what is above it, where create says so. It stays
// open until the next call.
func (s *stage) directory(name string, create bool) (*dir, error) {
	if s.open != nil && s.openName == name {
		return s.open, nil
	}
	s.close()
	d, err := newDir(s.root.OpenFile(s.onDisk(name), openFlags, 0))
	if errors.Is(err, os.ErrNotExist) && create && name != "." {
		if err := s.makeIn(name); err != nil {
			return nil, err
		}
		s.close() // the parent
		d, err = newDir(s.root.OpenFile(s.onDisk(name), openFlags, 0))
	}
	if err != nil {
		return nil, leads(name, err)
	}
	s.open, s.openName = d, name
	return d, nil
}

// makeIn makes the directory name in its parent.
func (s *stage) makeIn(name string) error {
	parent, err := s.directory(filepath.Dir(name), true)
	if err != nil {
		return err
	}
	_, err = s.mkdir(parent, filepath.Base(name), filepath.Base(name), name)
	return err
}

// onDisk is where the directory name of the archive is for now.
func (s *stage) onDisk(name string) string {
	for from, to := range s.redirect {
		if name == from || strings.HasPrefix(name, from+"/") {
			return to + name[len(from):]
		}
	}
	return name
}

// mkdir makes a directory under the name onDisk; base is what it will be called.
func (s *stage) mkdir(parent *dir, base, onDisk, name string) (*directory, error) {
	if err := s.check(parent, base); err != nil {
		return nil, err
	}
	p, err := s.place(parent, filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	if err := s.keep(parent.path(onDisk)); err != nil {
		return nil, err
	}
	if err := again(func() error { return unix.Mkdirat(parent.fd(), onDisk, 0o700) }); err != nil {
		return nil, explain(parent, err)
	}
	d := &directory{parent: p, base: onDisk, name: name, attributes: attributes{mode: 0o777 &^ s.umask}}
	s.made[parent.path(onDisk)] = d
	s.order = append(s.order, d)
	return d, nil
}

// place remembers a directory as one of items. It refuses one that is below a name of the archive that is no directory.
func (s *stage) place(d *dir, name string) (*place, error) {
	if p := s.places[d.real]; p != nil {
		return p, nil
	}
	for at := d.real; at != "/"; at = filepath.Dir(at) {
		if _, taken := s.finals[at]; taken {
			return nil, errors.New("the archive has a file or a link of the name of its directory")
		}
	}
	if err := s.keep(d.real); err != nil {
		return nil, err
	}
	p := &place{name: s.onDisk(name), real: d.real}
	s.places[d.real] = p
	return p, nil
}

// keep counts a name that has to be remembered.
func (s *stage) keep(name string) error {
	if s.room -= len(name); s.room < 0 {
		return errors.New("the names in the archive are too long altogether: upload it in parts")
	}
	return nil
}

// check refuses what may not be made or replaced at base.
func (s *stage) check(parent *dir, base string) error {
	if err := s.permitted.refuse(parent.path(base)); err != nil {
		return err
	}
	st, err := parent.stat(base)
	switch {
	case err != nil:
		return explain(parent, err)
	case st != nil && s.permitted.isOwn(st):
		return errors.New("it is the binary of the init itself")
	}
	return nil
}

// target prepares base to be replaced by something that is no directory, and returns its place and a free temporary name.
func (s *stage) target(parent *dir, parentName, base string) (*place, string, error) {
	if err := s.check(parent, base); err != nil {
		return nil, "", err
	}
	earlier, found := s.finals[parent.path(base)]
	if s.made[parent.path(base)] != nil || found && s.items[earlier].kind == tree {
		return nil, "", errors.New("the archive has a directory of that name")
	}
	if st, _ := parent.stat(base); isDir(st) {
		if empty, err := parent.isEmpty(base); err != nil || !empty {
			return nil, "", errors.New("there is a directory of that name with something in it: remove it first, or name the file's whole path")
		}
	}
	p, err := s.place(parent, parentName)
	return p, s.temporary(), err
}

func (s *stage) temporary() string { return fmt.Sprint(s.tag, len(s.items)) }

// add takes a finished temporary over. One of an earlier member of the same name is removed.
func (s *stage) add(parent *dir, i item) error {
	path := parent.path(i.base)
	i.base = strings.Clone(i.base) // else it keeps all of the member's name, and a name may come again and again
	s.items = append(s.items, i)
	if earlier, found := s.finals[path]; found {
		old := &s.items[earlier]
		old.kind = gone
		if err := parent.unlink(old.temp); err != nil {
			return explain(parent, err)
		}
	} else if err := s.keep(path); err != nil {
		return err
	}
	s.finals[path] = len(s.items) - 1
	return nil
}

// commit gives everything its name. Directories that replace files come last, because the others are still found by their
// temporary names; then those that were made get their modes and times, children first.
func (s *stage) commit() error {
	total, count := s.staged(), 0
	for _, kind := range []kind{file, tree} {
		for i := range s.items {
			if s.items[i].kind != kind {
				continue
			}
			if err := s.finish(&s.items[i]); err != nil {
				return s.partly(&s.items[i], count, total, err)
			}
			count++
		}
	}
	s.redirect = nil
	for i := len(s.order) - 1; i >= 0; i-- {
		if err := s.settle(s.order[i]); err != nil {
			return fmt.Errorf("cannot set the mode, time or owner of the directory %q: %w; all files are in place", s.order[i].name, err)
		}
	}
	return nil
}

// staged counts the names that are to be changed.
func (s *stage) staged() int {
	n := 0
	for _, i := range s.items {
		if i.kind == file || i.kind == tree {
			n++
		}
	}
	return n
}

func (s *stage) partly(i *item, count, total int, err error) error {
	already := "nothing was replaced"
	if count > 0 {
		already = fmt.Sprintf("%d of %d names were replaced before it, the rest was not", count, total)
	}
	return fmt.Errorf("cannot put %q in place: %w; %s", filepath.Join(i.place.real, i.base), err, already)
}

// reopen opens the place of an item again; the directory must be the one that it was.
func (s *stage) reopen(p *place) (*dir, error) {
	if s.open != nil && s.openName == p.name && s.open.real == p.real {
		return s.open, nil
	}
	s.close()
	d, err := newDir(s.root.OpenFile(p.name, openFlags, 0))
	if err != nil {
		return nil, err
	}
	s.open, s.openName = d, p.name
	if d.real != p.real {
		return nil, fmt.Errorf("its directory became %q meanwhile", d.real)
	}
	return d, nil
}

// finish renames one item. A directory in its place, which was seen to be empty, gives way; so does a file to a tree.
func (s *stage) finish(i *item) error {
	d, err := s.reopen(i.place)
	if err != nil {
		return err
	}
	st, err := d.stat(i.base)
	if err != nil {
		return err
	}
	switch {
	case st != nil && i.kind == tree && !isDir(st):
		err = d.unlink(i.base)
	case isDir(st) && i.kind == file:
		err = d.rmdir(i.base)
	}
	if err == nil {
		err = d.rename(i.temp, i.base)
	}
	if err != nil {
		return explain(d, err)
	}
	if i.kind == file && isRegular(st) && st.Nlink > 1 { // two names of one file: rename(2) does nothing then
		d.unlink(i.temp)
	}
	i.kind = committed
	return nil
}

// settle sets the attributes of a directory that was made.
func (s *stage) settle(made *directory) error {
	d, err := newDir(s.root.OpenFile(made.name, openFlags, 0))
	if err != nil {
		return err
	}
	defer d.close()
	f, err := d.openat(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return made.apply(d, ".", f)
}

// undo removes everything that is there under a temporary name, and the directories that were made.
func (s *stage) undo() {
	for n := range s.items {
		i := &s.items[n]
		if i.kind == file {
			if d, err := s.reopen(i.place); err == nil {
				d.unlink(i.temp)
			}
		}
	}
	for n := len(s.order) - 1; n >= 0; n-- {
		if d, err := s.reopen(s.order[n].parent); err == nil {
			d.rmdir(s.order[n].base) // it stays if something was put in place in it
		}
	}
}
