package artifact

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kind is how closely a program is tied to its file.
type kind int

const (
	ordinary   kind = iota // not at all: the app's own
	belongs                // it is part of the image, and is not what gets swapped
	byPlace                // it finds what it needs beside its file
	byName                 // somebody else opens it by its name
	privileged             // its file gives it rights that a copy has not
	unreadable             // there is nothing to copy
)

// nature is a kind, and the words for it.
type nature struct {
	kind kind
	text string
}

// why is the Info.Why of a program that runs from its path.
func (n nature) why(e Exec) string {
	if e == ExecPath {
		return "ENTRYPOINT_EXEC is path"
	}
	return n.text
}

// nature looks at everything that may tie a program to its file.
func (f *found) nature() nature {
	switch {
	case f.format.script:
		return nature{byName, "a script: its interpreter opens it by its path"}
	case f.format.emulated:
		return nature{byName, "a program for an emulator, which opens it by its path"}
	case !f.readable:
		return nature{unreadable, fmt.Sprintf("uid %d may execute but not read it", os.Geteuid())}
	case f.stat.Mode&unix.S_ISUID != 0:
		return nature{privileged, "it is set-uid, which a copy is not"}
	case f.stat.Mode&unix.S_ISGID != 0 && f.stat.Mode&unix.S_IXGRP != 0:
		return nature{privileged, "it is set-gid, which a copy is not"}
	case hasCapabilities(int(f.file.Fd())):
		return nature{privileged, "it has file capabilities, which a copy has not"}
	}
	if run := f.format.origin(f.file); run != "" {
		return nature{byPlace, fmt.Sprintf("it looks for libraries in %q, beside its file", run)}
	}
	if n := f.membership(); n.kind != ordinary {
		return n
	}
	if asksForItself(f.file, f.stat.Size) {
		return nature{belongs, "it asks for its own path (os.Executable), and may look for its files there"}
	}
	return nature{}
}

// hasCapabilities tells whether a file has any, without looking at which. An attribute that is there but too long to be
// read is one.
func hasCapabilities(fd int) bool {
	var b [64]byte
	err := retry(func() error {
		_, err := unix.Fgetxattr(fd, "security.capability", b[:])
		return err
	})
	return err == nil || err == unix.ERANGE
}

// membership tells the programs of the image from those of the app.
func (f *found) membership() nature {
	physical := physicalPath(f.program)
	for _, path := range []string{f.path, physical} {
		if name := filepath.Base(path); interprets(name) {
			return nature{belongs, fmt.Sprintf("%s runs other people's programs: they are what is swapped", name)}
		}
	}
	if ofDistribution(physical) {
		return nature{belongs, fmt.Sprintf("a program of the distribution, in %s", filepath.Dir(physical))}
	}
	return nature{}
}

// physicalPath is where the opened file lies, behind all symbolic links; without /proc, the path as it was found.
func physicalPath(p *program) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.file.Fd()))
	if err != nil || !filepath.IsAbs(path) {
		return p.path
	}
	return path
}

// ofDistribution goes by the file hierarchy standard: /usr/local, /opt, /srv, /home and what else there is are the
// image's maker's own.
func ofDistribution(path string) bool {
	top, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case top == "usr":
		return !strings.HasPrefix(rest, "local/")
	case top == "bin", top == "sbin":
		return true
	}
	return strings.HasPrefix(top, "lib")
}

// interpreters run what is in other files. A copy of them would keep nothing, and many find their own libraries by
// their path.
var interpreters = map[string]bool{
	"python": true, "pypy": true, "node": true, "nodejs": true, "npm": true, "npx": true, "yarn": true, "pnpm": true, "deno": true, "bun": true,
	"ruby": true, "jruby": true, "perl": true, "php": true, "php-fpm": true, "php-cgi": true, "frankenphp": true, "java": true, "dotnet": true, "mono": true,
	"lua": true, "luajit": true, "beam.smp": true, "erl": true, "erlexec": true, "escript": true, "elixir": true,
	"R": true, "Rscript": true, "julia": true, "tclsh": true, "wish": true, "guile": true, "racket": true, "sbcl": true, "ghci": true,
	"sh": true, "bash": true, "dash": true, "ash": true, "zsh": true, "ksh": true, "mksh": true, "fish": true, "busybox": true, "toybox": true,
}

// interprets tells whether name is an interpreter's, with or without a version behind it.
func interprets(name string) bool {
	return interpreters[name] || interpreters[strings.TrimRight(name, "0123456789.-")]
}

// decide tells whether a program is copied, or why it must not run at all.
func (s *Store) decide(n nature) (copied bool, err error) {
	switch {
	case s.exec == ExecPath && s.verify != nil:
		return false, errors.New("what runs from its path cannot be verified; set ENTRYPOINT_EXEC to auto or copy")
	case s.exec == ExecPath:
		return false, nil
	case s.copies(n.kind):
		return true, nil
	case s.exec == ExecCopy:
		return false, denied("no private copy of it can be run: %s; set ENTRYPOINT_EXEC=auto", n.text)
	case s.verify != nil:
		return false, denied("it would have to run from its path, where it cannot be verified: %s; %s", n.text, remedy(n.kind))
	}
	return false, nil
}

// copies tells which kinds are copied.
func (s *Store) copies(k kind) bool {
	switch k {
	case ordinary:
		return true
	case belongs:
		return s.exec == ExecCopy || s.verify != nil
	case byPlace, byName:
		return s.exec == ExecCopy
	}
	return false
}

func remedy(k kind) string {
	switch k {
	case byName:
		return "set ENTRYPOINT_EXEC=copy and ENTRYPOINT_STATE_DIR"
	case byPlace:
		return "link it statically, or set ENTRYPOINT_EXEC=copy if it finds its libraries elsewhere too"
	case unreadable:
		return "make it readable"
	}
	return "give it no rights by its file"
}
