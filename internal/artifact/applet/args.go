package applet

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

const tarHelp = `tar of entrypoint: extracts an archive from standard input, or writes one to standard output.
  tar -x [-f -] [-C DIR] [-v] [-z] [-m] [-p] [--no-same-permissions] [--[no-]same-owner] < ARCHIVE
  tar -c [-f -] [-C DIR] [-v] [-z] PATH... > ARCHIVE
`

// source is one operand of -c: a path, taken from a directory.
type source struct{ dir, path string }

// A choice is a switch that has a default of its own when it was not given.
type choice int

const (
	unset choice = iota
	yes
	no
)

func (c choice) or(otherwise bool) bool {
	if c == unset {
		return otherwise
	}
	return c == yes
}

// tarArgs are the options of one run of tar.
type tarArgs struct {
	extract, create          bool
	verbose, gzip, touch     bool
	samePermissions, setBits choice // setBits: -p was written
	sameOwner                choice
	dir                      string // the sum of all -C so far
	sources                  []source
	help                     bool
	archive                  string
}

// Options without a letter of their own.
const (
	noSamePermissions = -1 - iota
	sameOwner
	accepted // changes nothing: it is what we do anyway
	version
)

var longOptions = map[string]rune{
	"extract": 'x', "get": 'x', "create": 'c', "file": 'f', "directory": 'C', "verbose": 'v',
	"gzip": 'z', "gunzip": 'z', "ungzip": 'z', "touch": 'm',
	"preserve-permissions": 'p', "same-permissions": 'p', "no-same-permissions": noSamePermissions,
	"same-owner": sameOwner, "no-same-owner": 'o', "help": version, "version": version,
	"unlink-first": accepted, "no-overwrite-dir": accepted, "keep-directory-symlink": accepted, "numeric-owner": accepted,
}

// parseTar reads a command line in any of the forms of GNU tar: letters without a dash as the first word, whose values
// follow in their order; bundles with a dash; long options with "=" or the next word; operands anywhere.
func parseTar(args []string) (tarArgs, error) {
	p := &tarParser{rest: args}
	if len(args) == 0 {
		return p.a, errors.New("cannot run without arguments: give -x or -c")
	}
	if !strings.HasPrefix(args[0], "-") {
		p.rest = args[1:]
		if err := p.oldStyle(args[0]); err != nil {
			return p.a, err
		}
	}
	for len(p.rest) > 0 && p.err == nil {
		p.word()
	}
	if p.err != nil {
		return p.a, p.err
	}
	return p.a, p.a.check()
}

type tarParser struct {
	a        tarArgs
	rest     []string
	operands bool // "--" was seen
	err      error
}

// oldStyle reads letters without a dash, each of which takes its value from the words that follow.
func (p *tarParser) oldStyle(letters string) error {
	for _, letter := range letters {
		p.apply(letter, string(letter), p.next)
	}
	return p.err
}

func (p *tarParser) next(option string) string {
	if len(p.rest) == 0 {
		p.fail(fmt.Errorf("cannot use the option %q: its value is missing", option))
		return ""
	}
	word := p.rest[0]
	p.rest = p.rest[1:]
	return word
}

func (p *tarParser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// word reads the next word and what belongs to it.
func (p *tarParser) word() {
	word := p.next("")
	switch {
	case p.operands || word == "-" || !strings.HasPrefix(word, "-"):
		p.a.sources = append(p.a.sources, source{p.a.dir, word})
	case word == "--":
		p.operands = true
	case strings.HasPrefix(word, "--"):
		p.long(word[2:])
	default:
		p.bundle(word[1:])
	}
}

func (p *tarParser) long(text string) {
	name, value, given := strings.Cut(text, "=")
	if name == "warning" && given { // there is none of ours that could be turned off
		return
	}
	letter, known := longOptions[name]
	if !known {
		p.fail(unknownOption("--" + name))
		return
	}
	if given && letter != 'f' && letter != 'C' {
		p.fail(fmt.Errorf("cannot use the option %q: it takes no value", "--"+name))
		return
	}
	p.apply(letter, "--"+name, func(option string) string {
		if given {
			return value
		}
		return p.next(option)
	})
}

// bundle reads letters behind one dash. A letter with a value takes the rest of the word, or the next word.
func (p *tarParser) bundle(letters string) {
	for i, letter := range letters {
		consumed := false
		p.apply(letter, "-"+string(letter), func(option string) string {
			consumed = true
			if rest := letters[i+len(string(letter)):]; rest != "" {
				return rest
			}
			return p.next(option)
		})
		if consumed || p.err != nil {
			return
		}
	}
}

func (p *tarParser) apply(letter rune, shown string, value func(string) string) {
	a := &p.a
	switch letter {
	case 'x':
		a.extract = true
	case 'c':
		a.create = true
	case 'v':
		a.verbose = true
	case 'z':
		a.gzip = true
	case 'm':
		a.touch = true
	case 'f':
		a.archive = value(shown)
	case 'C':
		a.enter(value(shown))
	default:
		p.applyRights(letter, shown)
	}
}

// applyRights are the options about owners and modes, and the rest.
func (p *tarParser) applyRights(letter rune, shown string) {
	a := &p.a
	switch letter {
	case 'p':
		a.samePermissions, a.setBits = yes, yes
	case noSamePermissions:
		a.samePermissions, a.setBits = no, no
	case 'o':
		a.sameOwner = no
	case sameOwner:
		a.sameOwner = yes
	case 'U', accepted:
	case version:
		a.help = true
	default:
		p.fail(unknownOption(shown))
	}
}

func unknownOption(shown string) error {
	return fmt.Errorf("cannot use the option %q: this tar only knows -x, -c, -f -, -C, -v, -z, -m, -p, -o, -U and their long forms", shown)
}

// enter is one more -C: relative to those before it.
func (a *tarArgs) enter(dir string) {
	if filepath.IsAbs(dir) {
		a.dir = dir
		return
	}
	a.dir = filepath.Join(a.dir, dir)
}

// check refuses what does not fit together.
func (a *tarArgs) check() error {
	switch {
	case a.help:
		return nil
	case a.extract == a.create:
		return errors.New("cannot tell what to do: give either -x or -c")
	case a.extract && len(a.sources) > 0:
		return fmt.Errorf("cannot extract only %q: this tar extracts whole archives", a.sources[0].path)
	case a.create && len(a.sources) == 0:
		return errors.New("cannot create an empty archive: name a file or a directory")
	}
	for _, name := range []string{"", "-", "/dev/stdin", "/dev/stdout"} {
		if a.archive == name && (name != "/dev/stdin" || a.extract) && (name != "/dev/stdout" || a.create) {
			return nil
		}
	}
	return fmt.Errorf("cannot use the archive %q: this tar reads standard input and writes standard output: give -f -", a.archive)
}
