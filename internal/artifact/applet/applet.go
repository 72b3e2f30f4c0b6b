// Package applet is the part of tar(1) and of rm(1) that the tools need which bring files into a running container:
// `kubectl cp`, Tilt, Skaffold, the watch of Docker Compose. They run `tar` and `rm` by exec, and an image from scratch has
// neither. A link or a copy of our binary under one of these names answers instead. It runs in the exec session with the
// rights of that session, never in PID 1, and never because of a word on the command line.
//
// Both are strict where the originals are generous, because what they read came over a network and what they change is what
// the init executes:
//
//   - An archive is extracted whole or not at all. Each file is written beside its place under a temporary name, with its
//     mode and time, and only when the whole stream has been read and found complete are the names changed by rename(2),
//     one after the other, in the order of the archive. So a file is old or new and never in between, also one that is being
//     executed; a connection that breaks leaves everything as it was; and a watch sees one burst of renames at the end
//     instead of many changes over the length of an upload. The price is room for the old and the new bytes at once. The
//     renames together are not one step: if the system refuses one of them, those before it stay, and the message says how many.
//   - An archive without its end mark is incomplete. GNU tar takes it if it ends between two members.
//   - Whatever is refused (a name with "..", a link that leads out, a device) refuses the whole archive.
//   - Nothing is followed out of the directory given by -C (os.Root), and nothing is changed outside of ENTRYPOINT_TAR_ROOTS,
//     nor our own binary.
//   - Directories that exist keep their mode, owner and time, and a symbolic link to a directory inside stays one.
//
// Memory does not depend on the size of a file: names are kept, with a limit of their own, and one buffer. Descriptors do not
// depend on the number of members. Where a name leads to is asked of /proc/self/fd, which has to be mounted.
//
// Owners, as with GNU tar: root gives each file the owner that the archive names, by number, unless --no-same-owner is given;
// everybody else owns what they extract. Modes: root takes them from the archive, everybody else through the umask; the
// set-uid and set-gid bits need root and -p.
package applet

import (
	"fmt"
	"io"
	"os"
)

// RootsVariable names the variable with the directories below which the applets may write and remove, separated by commas.
const RootsVariable = "ENTRYPOINT_TAR_ROOTS"

// The exit codes of tar; rm knows 0 and 1, and we say 2 for its usage too.
const (
	done   = 0
	differ = 1 // created, but a file changed meanwhile or was left out
	failed = 2
)

// Is tells whether name is one of the names that Main answers to.
func Is(name string) bool { return name == "tar" || name == "rm" }

// Main runs the applet name with its arguments and returns its exit code: for tar 0, 1 (an archive was made, but not of all
// that was asked for) or 2, for rm 0, 1 or 2 (usage). It blocks until stdin has ended where it reads it. An error of stdin
// other than io.EOF undoes the extraction. getenv is asked for RootsVariable, and for that with _FILE at its end.
func Main(name string, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	s := streams{name: name, in: stdin, out: stdout, err: stderr}
	permitted, err := rootsOf(getenv)
	if err != nil {
		return s.fail(err)
	}
	switch name {
	case "tar":
		return s.tar(args, permitted)
	case "rm":
		return s.rm(args, permitted)
	}
	return s.fail(fmt.Errorf("cannot run the applet %q: only tar and rm exist", name))
}

// streams are where one run reads and writes.
type streams struct {
	name     string
	in       io.Reader
	out, err io.Writer
}

// say writes one line for people. What cannot be said changes nothing.
func (s streams) say(format string, args ...any) {
	fmt.Fprintf(s.err, s.name+": "+format+"\n", args...)
}

func (s streams) fail(err error) int {
	s.say("%v", err)
	return failed
}

func (s streams) tar(args []string, permitted *roots) int {
	a, err := parseTar(args)
	switch {
	case err != nil:
		return s.fail(err)
	case a.help:
		fmt.Fprint(s.out, tarHelp)
		return done
	case a.extract:
		return s.extract(a, permitted, defaultLimits, os.Geteuid() == 0)
	}
	return s.create(a)
}
