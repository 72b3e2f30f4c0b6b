package artifact

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Want is what whoever uploads a program says of it.
type Want struct {
	SHA256    string // of its bytes, in hexadecimal; "": nothing was said
	Signature []byte // the contents of a minisign signature file; nil: none was sent
}

// Adopt takes a program that another process uploaded: a sealed memory file, whose bytes nobody can change any more. Of fd
// a copy is kept; fd itself stays the caller's. name, taken relative to dir, is the path under which the app is known.
//
// What Open checks of a file is checked here too. Scripts, programs for an emulator and programs with libraries beside
// them are refused: they need a place of their own. With a Verifier, the program must have a pin or come with a
// signature; a SHA256 or Signature that is given is checked in any case.
//
// It blocks as long as hashing takes, where that is demanded, else for microseconds. Every error is an *Error. The caller
// closes the Artifact.
func (s *Store) Adopt(ctx context.Context, fd int, name, dir string, want Want) (*Artifact, error) {
	path := name
	dir, err := workingDirectory(dir)
	if err == nil {
		path = under(dir, name)
		if s.ended() {
			err = errors.New("the init is ending")
		}
	}
	var a *Artifact
	if err == nil {
		a, err = s.adopt(ctx, fd, path, dir, want)
	}
	if err != nil {
		return nil, refuse(path, err)
	}
	return a, nil
}

func (s *Store) adopt(ctx context.Context, fd int, path, dir string, want Want) (*Artifact, error) {
	f, err := openUpload(fd, path, dir)
	if err != nil {
		return nil, err
	}
	a, err := s.place(ctx, f)
	if err != nil {
		f.file.Close()
		return nil, err
	}
	a.stat, a.info.Modified, a.info.Changed = unix.Stat_t{}, time.Time{}, time.Time{}
	if err := s.vouch(ctx, a, want, nil); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// place leaves the upload where it is, or copies it to a file where memory is not executed. It takes f.file over.
func (s *Store) place(ctx context.Context, f *found) (*Artifact, error) {
	if err := s.holes(f); err != nil {
		return nil, err
	}
	err := s.sealed()
	if err == nil {
		return (&copied{file: f.file, exec: inMemory}).artifact(f), nil
	}
	if s.files == nil {
		return nil, oneLine(err, errors.New("set ENTRYPOINT_STATE_DIR, for a copy on disk"))
	}
	c, cerr := s.files.copy(ctx, f)
	if cerr != nil {
		return nil, oneLine(err, cerr)
	}
	a, cerr := s.settle(f, c, err)
	if cerr != nil {
		return nil, cerr
	}
	f.file.Close()
	return a, nil
}

// holes refuses an upload that is larger than the memory it occupies and the rest that there is room for: a hole takes memory once it
// is looked at, by a check of the signature or by the program.
func (s *Store) holes(f *found) error {
	missing := f.stat.Size - f.stat.Blocks*blockSize
	if missing <= 0 {
		return nil
	}
	if err := s.fits(missing); err != nil {
		return denied("the upload has holes, and %v", err)
	}
	return nil
}

// openUpload checks that fd is what it is said to be, and that it can be run.
func openUpload(fd int, path, dir string) (*found, error) {
	p := &program{path: path, readable: true}
	if err := retry(func() error { return unix.Fstat(fd, &p.stat) }); err != nil {
		return nil, plain("the upload cannot be looked at", err)
	}
	if err := constant(fd, &p.stat); err != nil {
		return nil, err
	}
	own, err := reopenMemory(fd, path)
	if err != nil {
		return nil, err
	}
	p.file = own
	f := &found{program: p, dir: dir}
	if f.format, err = p.check(dir); err == nil {
		err = f.selfContained()
	}
	if err != nil {
		own.Close()
		return nil, err
	}
	return f, nil
}

// constant refuses everything whose bytes somebody could still change.
func constant(fd int, st *unix.Stat_t) error {
	if err := regular(st); err != nil {
		return err
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || !ordinaryMemory(fd) {
		return denied("the upload is no memory file")
	}
	if seals&allSeals != allSeals {
		return denied("the upload is not sealed (seals %#x of %#x): it could still be changed", seals&allSeals, allSeals)
	}
	if st.Mode&0o111 == 0 {
		return denied("the upload is a memory file that may not be executed (mode %04o)", st.Mode&0o7777)
	}
	return nil
}

// ordinaryMemory tells a memory file from one of huge pages, which are not executed everywhere.
func ordinaryMemory(fd int) bool {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd, &st) })
	return err == nil && uint32(st.Type) == unix.TMPFS_MAGIC
}

// reopenMemory gets us a read-only description of our own.
func reopenMemory(fd int, name string) (*os.File, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, plain("the upload cannot be kept", err)
	}
	f := os.NewFile(uintptr(dup), name)
	defer f.Close()
	return readOnly(f)
}

// selfContained refuses what does not run from memory.
func (f *found) selfContained() error {
	switch {
	case f.format.script:
		return noExec("it is a script: it runs from its path only, so write it there and reload")
	case f.format.emulated:
		return noExec("it is a program for an emulator, which opens it by its path: write it there and reload")
	}
	if run := f.format.origin(f.file); run != "" {
		return noExec("it looks for libraries in %q, beside its file: write it there and reload, or link it statically", run)
	}
	return nil
}
