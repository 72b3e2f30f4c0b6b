package artifact

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Exec is how programs are executed.
type Exec string

// The ways of ENTRYPOINT_EXEC.
const (
	ExecAuto Exec = "auto" // a private copy, except of programs that need their path
	ExecCopy Exec = "copy" // a private copy, or a refusal
	ExecPath Exec = "path" // the file itself
)

// Where the bytes of an Artifact are, as Info.Exec says it.
const (
	inMemory = "memfd"
	inFile   = "file"
	atPath   = "path"
)

// StoreOptions say how a Store works. The zero value copies to memory and verifies nothing.
type StoreOptions struct {
	Exec Exec // "": ExecAuto
	// StateDir, if not empty, is an existing directory. Copies go to files below it where it can be written and executed
	// from, else to memory.
	StateDir string
	// Try asks the kernel whether it executes copies. nil: it is not asked, and taken to.
	Try Try
	// Verify is what a program has to show before it is run. nil: nothing.
	Verify *Verifier
	// Logf gets a sentence the first time that a copy was not made, or not in the usual place. nil drops it.
	Logf func(format string, args ...any)
}

// A Store makes private copies of programs, and verifies them. Its methods may be called from several goroutines at once.
// It has no goroutines of its own, and one descriptor where it keeps files.
type Store struct {
	exec   Exec
	verify *Verifier
	files  *stateFiles // nil: copies go to memory
	memory memoryView
	sealed func() error // whether the kernel executes memory files; asked once

	mu     sync.Mutex
	logf   func(string, ...any)
	said   map[string]bool
	closed bool
}

// NewStore prepares the directory for copies, if there is to be one, and removes what inits that are dead left in it. It
// fails only for a StateDir that cannot be used though o.Exec is ExecCopy; otherwise it says so through o.Logf and goes
// on without. Close has to be called in the end.
func NewStore(o StoreOptions) (*Store, error) {
	s := &Store{
		exec: o.Exec, verify: o.Verify, logf: o.Logf, memory: systemMemory,
		sealed: sync.OnceValue(func() error { return memoryExecutable(o.Try) }), said: map[string]bool{},
	}
	if s.exec == "" {
		s.exec = ExecAuto
	}
	if o.StateDir == "" || s.exec == ExecPath {
		return s, nil
	}
	files, err := newStateFiles(o.StateDir, o.Try)
	switch {
	case err == nil:
		s.files = files
	case s.exec == ExecCopy:
		return nil, err
	default:
		s.say(inFile, "%v; private copies are in memory", err)
	}
	return s, nil
}

// Close removes what the Store made below its StateDir, copies in use included: what runs goes on, what was not started
// yet cannot be started by path any more. Open and Adopt fail afterwards. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was || s.files == nil {
		return nil
	}
	return s.files.close()
}

// say logs the first sentence of a kind.
func (s *Store) say(kind, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said[kind] || s.logf == nil {
		return
	}
	s.said[kind] = true
	s.logf(format, args...)
}

func (s *Store) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Info says what a program runs from. It is a copy, for people to read.
type Info struct {
	Exec     string    `json:"exec"`              // "memfd", "file" or "path"
	Why      string    `json:"why,omitempty"`     // why from its path, or why not from the usual kind of copy
	Size     int64     `json:"size"`              // bytes
	Modified time.Time `json:"modified,omitzero"` // of the file that it came from; zero for an upload
	Changed  time.Time `json:"-"`                 // when the kernel last saw that file change in any way; zero for an upload
	Memory   int64     `json:"memory,omitempty"`  // bytes of memory that the copy occupies until Close
	Verified string    `json:"verified,omitempty"`
	Comment  string    `json:"comment,omitempty"` // the trusted comment of the signature
}

// copyTries bounds how often a program is copied again because its file changed meanwhile: a file that is written once
// is whole at the second try.
const copyTries = 3

// errChanged says that a file was not the same behind the copying as before.
var errChanged error = &fault{
	text:  fmt.Sprintf("it was written to each of the %d times that it was copied; try again when that is over", copyTries),
	errno: unix.EAGAIN,
}

// Open finds and checks a program like the function Open, decides whether it is copied, copies it, checks the copy, and
// verifies it. It blocks as long as reading the file takes; ctx ends that between two pieces of 8 MiB. Every error is an
// *Error. The caller closes the Artifact, which then frees the copy.
func (s *Store) Open(ctx context.Context, name, dir, path string) (*Artifact, error) {
	var err error
	for range copyTries {
		var a *Artifact
		a, err = s.open(ctx, name, dir, path)
		if err == nil {
			return a, nil
		}
		if !errors.Is(err, errChanged) {
			break
		}
	}
	return nil, err
}

func (s *Store) open(ctx context.Context, name, dir, path string) (*Artifact, error) {
	f, err := look(name, dir, path)
	if err != nil {
		return nil, err
	}
	if s.ended() {
		err = errors.New("the init is ending")
	} else {
		var a *Artifact
		if a, err = s.obtain(ctx, f); err == nil {
			return a, nil
		}
	}
	f.file.Close()
	return nil, refuse(f.path, err)
}

// obtain makes an Artifact of a found program. The program's file is still the caller's when it fails.
func (s *Store) obtain(ctx context.Context, f *found) (*Artifact, error) {
	n := f.nature()
	copied, err := s.decide(n)
	if err != nil {
		return nil, err
	}
	if !copied {
		return f.direct(n.why(s.exec)), nil
	}
	a, err := s.copy(ctx, f, n.kind == byName)
	var none *noCopy
	if errors.As(err, &none) && s.exec == ExecAuto && s.verify == nil {
		s.say(atPath, "%q runs from its path: %v", f.path, err)
		return f.direct(none.Error()), nil
	}
	if err != nil {
		return nil, err
	}
	if err := s.vouch(ctx, a, Want{}, beside(f.path)); err != nil {
		a.Close()
		return nil, err
	}
	f.file.Close()
	return a, nil
}

// noCopy says why there is no private copy.
type noCopy struct{ err error }

func (n *noCopy) Error() string { return "no private copy could be made: " + n.err.Error() }
func (n *noCopy) Unwrap() error { return n.err }

// copy makes a private copy in the first place that takes it.
func (s *Store) copy(ctx context.Context, f *found, fileOnly bool) (*Artifact, error) {
	if err := quiet(ctx, f.file); err != nil {
		return nil, err
	}
	var failed []error
	for _, place := range s.places(f.stat.Size, fileOnly) {
		c, err := place.make(ctx, f)
		if err == nil {
			return s.settle(f, c, errors.Join(failed...))
		}
		if errors.Is(err, errChanged) || ctx.Err() != nil {
			return nil, err
		}
		failed = append(failed, err)
	}
	if len(failed) == 0 {
		failed = append(failed, errors.New("a file is needed that can be opened by its name; set ENTRYPOINT_STATE_DIR"))
	}
	return nil, &noCopy{oneLine(failed...)}
}

// settle checks the copy by its own bytes: they are what runs.
func (s *Store) settle(f *found, c *copied, instead error) (*Artifact, error) {
	a := c.artifact(f)
	p := &program{path: f.path, file: a.file, stat: a.own, readable: true}
	got, err := p.check(f.dir)
	if err == nil && got.tells() != f.format.tells() {
		err = errChanged
	}
	if err != nil {
		a.Close()
		return nil, err
	}
	if instead != nil {
		a.info.Why = oneLine(instead).Error()
		s.say(inFile+inMemory, "the private copy of %q is a %s: %s", f.path, a.info.Exec, a.info.Why)
	}
	return a, nil
}

// direct is the Artifact of a program that runs from its path. It takes the file over.
func (f *found) direct(why string) *Artifact {
	return &Artifact{
		path: f.path, file: f.file, stat: f.stat, own: f.stat, readable: f.readable,
		script: f.format.script, byName: f.format.script || f.format.emulated,
		info: Info{Exec: atPath, Why: why, Size: f.stat.Size, Modified: modified(&f.stat), Changed: changed(&f.stat)},
	}
}

func modified(st *unix.Stat_t) time.Time { return time.Unix(st.Mtim.Unix()) }

// changed is the time that no tool can set, unlike that of the modification.
func changed(st *unix.Stat_t) time.Time { return time.Unix(st.Ctim.Unix()) }

// found is a program that was found, opened and checked.
type found struct {
	*program
	dir    string // working directory of the app
	format format
}

// look is what happens to every program, copied or not.
func look(name, dir, path string) (*found, error) {
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
	format, err := p.check(dir)
	if err != nil {
		p.file.Close()
		return nil, refuse(p.path, err)
	}
	return &found{program: p, dir: dir, format: format}, nil
}

// base is the name under which people know the program.
func (f *found) base() string { return filepath.Base(f.path) }
