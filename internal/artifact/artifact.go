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
// # Invariants
//
//   - No call blocks on the file: FIFOs and devices are recognised through O_PATH, which does not open them, and a file
//     that changes its kind in between is opened with O_NONBLOCK.
//   - Open reads headers only, a few kilobytes, whatever the size of the file; what it reads of a hostile file is
//     bounded too (64 KiB of program headers, 4 MiB of section headers). The bytes are hashed later, by Hash, on demand.
//   - Every refusal is an *Error that names the file, what is wrong with it and, where there is one, the remedy.
//
// ELF headers are read here by hand, not with debug/elf: that package reads every section name and drags DWARF and
// zlib into the init, and it stops short of the one question that matters, whether all that is named lies in the file.
//
// # Kernel
//
// O_PATH is of Linux 2.6.39, its use with fstat of 3.6. Nothing newer is needed. The rules for ELF files are those of
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
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// An Artifact is an opened program. Its methods may be called from several goroutines at once.
type Artifact struct {
	path     string
	file     *os.File
	stat     unix.Stat_t
	readable bool
	script   bool
	sum      hashOnce
}

// Open finds the program called name the way execvp(3) does, opens it and checks that it can be run.
//
// A name with a slash is taken relative to dir; any other is looked up in path, the PATH of the app (empty: the
// default of a C library), whose relative entries are relative to dir as well. An entry that cannot be run does not
// end the search; if nothing better follows, it is what the error talks about. dir is resolved through its symbolic
// links once, so that the result stays the same when a "current" link is flipped; empty means our own directory.
//
// Every error is an *Error. Open does not block on the file, reads a few kilobytes and starts nothing. The caller
// closes the Artifact.
func Open(name, dir, path string) (*Artifact, error) {
	if name == "" {
		return nil, refuse(name, missing("no program is named"))
	}
	dir, err := workingDirectory(dir)
	if err != nil {
		return nil, refuse(name, err)
	}
	p, err := find(name, dir, path)
	if err != nil {
		return nil, err
	}
	script, err := p.check(dir)
	if err != nil {
		p.file.Close()
		return nil, refuse(p.path, err)
	}
	return &Artifact{path: p.path, file: p.file, stat: p.stat, readable: p.readable, script: script}, nil
}

// check looks into the file and tells whether it is a script. A file that may only be executed is believed.
func (p *program) check(dir string) (script bool, err error) {
	if p.stat.Size == 0 {
		return false, noExec("it is empty")
	}
	if !p.readable {
		return false, nil
	}
	i := inspector{file: p.file, size: p.stat.Size, dir: dir, misc: binfmtMisc}
	return i.inspect()
}

// Path is where the program was found, absolute wherever our own working directory is known. Symbolic links behind
// the directory given to Open are kept as they are.
func (a *Artifact) Path() string { return a.path }

// FD is the open program, O_RDONLY|O_CLOEXEC, or O_PATH when it may be executed but not read. It belongs to the
// Artifact and is good until Close. It can be given to execveat(2) with AT_EMPTY_PATH unless the program is a Script,
// whose interpreter has to open it by Path.
func (a *Artifact) FD() int { return int(a.file.Fd()) }

// Script tells whether the file starts with "#!" and is run by an interpreter.
func (a *Artifact) Script() bool { return a.script }

// Size is the length of the file in bytes when it was opened.
func (a *Artifact) Size() int64 { return a.stat.Size }

// Same tells whether Path still leads to the very file that was opened, unchanged: same device, inode, size,
// modification and change time. It costs one stat(2). A chmod makes it false; equal bytes in a new file do too.
func (a *Artifact) Same() bool {
	var now unix.Stat_t
	err := retry(func() error { return unix.Stat(a.path, &now) })
	return err == nil && identical(&a.stat, &now)
}

// Close closes the descriptor. A Hash under way fails.
func (a *Artifact) Close() error { return a.file.Close() }

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
