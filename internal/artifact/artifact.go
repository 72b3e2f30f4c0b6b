// Package artifact finds the program of an app, opens it, and says in one sentence why it cannot be run, before
// anything that works is touched.
//
// # Model
//
// An Artifact is one opened file: the bytes that a generation is made of. [Open] finds it by the rules of execvp(3),
// opens it, and looks at what the kernel would look at: type, permission, format, class and machine of an ELF file,
// its program interpreter, the first line of a script. It also looks at what the kernel does not: whether the file is
// as long as its own headers say. A copy that is still being written (docker cp, tar and scp write under the final
// name, with the final mode) has a perfect beginning, and would be started and crash at the first missing page.
//
// A [Store] goes on from there: it copies the program to where nobody else writes, sealed memory or a file of its own,
// checks the copy, verifies it where a [Verifier] says what is demanded, and gives that to be executed. Programs that are
// tied to their file run from it, and [Info] says why. [Store.Adopt] does the same for bytes that came from a client.
//
// # Invariants
//
//   - No call blocks on the file: FIFOs and devices are recognised through O_PATH, which does not open them, and a file
//     that changes its kind in between is opened with O_NONBLOCK.
//   - Open reads headers only, a few kilobytes, whatever the size of the file; what it reads of a hostile file is
//     bounded too (64 KiB of program headers, 4 MiB of section headers). The bytes are hashed later, by Hash, on demand.
//   - What a Store checked and verified are the very bytes that are executed: of a copy that is sealed or read-only to us,
//     or of a file by its descriptor once its name leads elsewhere. If anything is demanded, nothing runs without it.
//   - Copying allocates next to nothing of our own memory, whatever the size of the file; what the copy itself takes from the
//     container's is bounded, and freed by Close.
//   - Every refusal is an *Error that names the file, what is wrong with it and, where there is one, the remedy.
//
// ELF headers are read here by hand, not with debug/elf: that package reads every section name and drags DWARF and
// zlib into the init, and it stops short of the one question that matters, whether all that is named lies in the file.
//
// # Kernel
//
// O_PATH is of Linux 2.6.39, its use with fstat of 3.6. Copies in memory need memfd_create (3.17) and execveat (3.19); MFD_EXEC
// (6.3) is used where it is known. copy_file_range (4.5) and sendfile are tried before reading and writing. The rules for ELF files are those of
// the kernel's fs/binfmt_elf.c and of the ELF specification, those for scripts of fs/binfmt_script.c (first line of at
// most 256 bytes since 5.1), those for emulators of the kernel's admin-guide/binfmt-misc.
//
// # What it does not do
//
// It does not run anything, and cannot promise that the kernel will: shared libraries may be missing, a security
// module may say no. A payload appended behind the end of an ELF file (self-extracting programs) is not described by
// its headers, so a cut inside it goes unseen. Checks are made with our own credentials, not those of the app's user.
package artifact

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// An Artifact is an opened program. Its methods may be called from several goroutines at once.
type Artifact struct {
	path     string
	file     *os.File    // the bytes: the program's own file, or a copy
	stat     unix.Stat_t // of the program's own file; zero for an upload
	own      unix.Stat_t // of file
	readable bool
	script   bool
	byName   bool // it runs by a name only: a script, or something for an emulator
	sum      hashOnce
	copy     *copied // nil: there is none
	info     Info
}

// Open finds the program called name the way execvp(3) does, opens it and checks that it can be run.
//
// A name with a slash is taken relative to dir; any other is looked up in path, the PATH of the app (empty: the
// default of a C library), whose relative entries are relative to dir as well. An entry that cannot be run does not
// end the search; if nothing better follows, it is what the error talks about. dir is resolved through its symbolic
// links once, so that the result stays the same when a "current" link is flipped; empty means our own directory.
//
// Every error is an *Error. Open does not block on the file, reads a few kilobytes and starts nothing. The caller
// closes the Artifact. Nothing is copied: that is [Store.Open].
func Open(name, dir, path string) (*Artifact, error) {
	f, err := look(name, dir, path)
	if err != nil {
		return nil, err
	}
	return f.direct(""), nil
}

// check looks into the file and tells what it is. A file that may only be executed is believed.
func (p *program) check(dir string) (format, error) {
	if p.stat.Size == 0 {
		return format{}, noExec("it is empty")
	}
	if !p.readable {
		return format{}, nil
	}
	i := inspector{file: p.file, size: p.stat.Size, dir: dir, misc: binfmtMisc}
	return i.inspect()
}

// Path is where the program was found, absolute wherever our own working directory is known. Symbolic links behind
// the directory given to Open are kept as they are.
func (a *Artifact) Path() string { return a.path }

// FD is the open program or its copy, O_RDONLY|O_CLOEXEC, or O_PATH when it may be executed but not read. It belongs to
// the Artifact and is good until Close. It can be given to execveat(2) with AT_EMPTY_PATH unless the program is a Script,
// whose interpreter has to open it by Path.
func (a *Artifact) FD() int { return int(a.file.Fd()) }

// Script tells whether the file starts with "#!" and is run by an interpreter.
func (a *Artifact) Script() bool { return a.script }

// Size is the length of the program in bytes when it was opened.
func (a *Artifact) Size() int64 { return a.own.Size }

// Same tells whether Path still leads to the very file that was opened, unchanged: same device, inode, size,
// modification and change time. It costs one stat(2). A chmod makes it false; equal bytes in a new file do too. It is
// false for an upload.
func (a *Artifact) Same() bool { return leadsTo(a.path, &a.stat) }

// leadsTo tells whether path is the file of st, unchanged.
func leadsTo(path string, st *unix.Stat_t) bool {
	var now unix.Stat_t
	err := retry(func() error { return unix.Stat(path, &now) })
	return err == nil && identical(st, &now)
}

// Exec is what to execute: path, if fd is 0, else the descriptor fd, which path then only names. fd belongs to the
// Artifact and is good until Close. It costs one stat(2) at most.
func (a *Artifact) Exec() (path string, fd int) {
	if a.info.Exec == inMemory {
		return a.path, a.FD()
	}
	path, st := a.path, &a.stat
	if a.copy != nil {
		path, st = a.copy.path, &a.own
	}
	if a.byName || a.reachable() && leadsTo(path, st) {
		return path, 0
	}
	return path, a.FD() // these are the bytes that were checked, whatever happened to the name
}

// reachable tells whether the app can be expected to find the file by its path.
func (a *Artifact) reachable() bool { return a.copy == nil || a.copy.public && a.info.Verified == "" }

// Info says what the program runs from.
func (a *Artifact) Info() Info { return a.info }

// Close closes the descriptor and frees the copy, if there is one. A Hash under way fails. A program that runs goes on.
func (a *Artifact) Close() error {
	err := a.file.Close()
	if a.copy == nil {
		return err
	}
	return errors.Join(err, a.copy.remove())
}

func identical(a, b *unix.Stat_t) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// Whole tells whether the file at path is as long as its own headers say. It returns nil for a file that is whole,
// that is no ELF file, or that cannot be read: it only ever objects to an ELF file that goes on where the file ends.
// It is meant for somebody who waits for a copy to be finished. It does not block and reads headers only.
func Whole(path string) error {
	p, err := openProgram(path, false)
	if err != nil {
		return nil
	}
	defer p.file.Close()
	if !p.readable || p.stat.Size == 0 {
		return nil
	}
	err = extent(p.file, p.stat.Size)
	if isShort(err) {
		return &Error{Path: path, Code: CannotRun, Err: err}
	}
	return nil
}

var _ io.Closer = (*Artifact)(nil)
