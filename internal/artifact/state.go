package artifact

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// statePrefix begins the name of each init's directory below the state directory.
	statePrefix = "artifacts-"
	// stateLock is the file in it that the init has locked for as long as it lives.
	stateLock = "lock"
	// unlockedFor is the age from which a directory without a lock belongs to nobody: between making the one and the
	// other are microseconds, unless the machine stands still.
	unlockedFor = time.Minute
	// maxLeftovers bounds how many entries of the state directory are looked at.
	maxLeftovers = 10000
	// throughOnly lets everybody reach what is in a directory, and nobody but us list it.
	throughOnly = 0o711
	// copyMode lets everybody execute a copy, and nobody write to it.
	copyMode = 0o555
)

// stateFiles keeps copies in files below the state directory.
type stateFiles struct {
	dir    string   // ours alone: STATE_DIR/artifacts-<random>
	lock   *os.File // tells other inits that we live
	public bool     // every user may enter the directories on the way to it
	last   atomic.Int64
}

// newStateFiles makes a directory of our own below dir, and removes those of dead inits.
func newStateFiles(dir string, try Try) (*stateFiles, error) {
	sweep(dir)
	return openStateFiles(dir, try)
}

// openStateFiles makes a directory of our own below dir.
func openStateFiles(dir string, try Try) (*stateFiles, error) {
	cannot := func(err error) error {
		return fmt.Errorf("cannot keep private copies in %q: %w", dir, err)
	}
	if st, err := os.Stat(dir); err != nil {
		return nil, cannot(bare(err))
	} else if !st.IsDir() {
		return nil, cannot(unix.ENOTDIR)
	}
	s, err := claim(dir)
	if err != nil {
		return nil, cannot(bare(err))
	}
	if err := s.tryExec(try); err != nil {
		_ = s.close()
		return nil, cannot(err)
	}
	s.public = public(s.dir)
	return s, nil
}

// bare is the error without the call and the path that package os puts before it.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// claim makes a directory and locks it. It is taken away from us only if it stood without a lock for long.
func claim(dir string) (*stateFiles, error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	path := filepath.Join(dir, statePrefix+hex.EncodeToString(random[:]))
	if err := makeDir(path); err != nil {
		return nil, err
	}
	f, err := locked(path, os.O_CREATE)
	if err != nil {
		os.RemoveAll(path)
		return nil, err
	}
	return &stateFiles{dir: path, lock: f}, nil
}

// makeDir makes a directory whose mode does not depend on our umask.
func makeDir(path string) error {
	if err := os.Mkdir(path, throughOnly); err != nil {
		return err
	}
	return os.Chmod(path, throughOnly)
}

// locked opens and locks the lock file of a directory. It does not wait: EWOULDBLOCK says that somebody lives there.
func locked(dir string, create int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, stateLock), os.O_RDWR|create|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if err := retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes what dead inits left. Whatever cannot be looked at or removed stays.
func sweep(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxLeftovers)
	for _, name := range names {
		if isOurs(name) {
			sweepOne(filepath.Join(dir, name))
		}
	}
}

// isOurs tells whether an init of this kind gave the name.
func isOurs(name string) bool {
	random, ok := strings.CutPrefix(name, statePrefix)
	b, err := hex.DecodeString(random)
	return ok && err == nil && len(b) == 8
}

// sweepOne removes the directory of a dead init. The lock is held meanwhile, so that of two who clean up only one does.
func sweepOne(path string) {
	st, err := os.Lstat(path)
	if err != nil || !st.IsDir() {
		return
	}
	f, err := locked(path, 0)
	if err != nil && !(errors.Is(err, fs.ErrNotExist) && time.Since(st.ModTime()) > unlockedFor) {
		return
	}
	_ = os.RemoveAll(path)
	if f != nil {
		f.Close()
	}
}

// public tells whether every user may enter all directories of path, and all of where its symbolic links lead.
func public(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	return err == nil && enterable(path) && enterable(real)
}

// enterable tells whether every user may enter all directories that path names.
func enterable(path string) bool {
	for {
		st, err := os.Stat(path)
		if err != nil || st.Mode()&0o001 == 0 {
			return false
		}
		if path == "/" || path == "." {
			return true
		}
		path = filepath.Dir(path)
	}
}

// tryExec asks the kernel whether it would execute files here.
func (s *stateFiles) tryExec(try Try) error {
	path := filepath.Join(s.dir, "test")
	if err := os.WriteFile(path, []byte(noProgram), 0o700); err != nil {
		return bare(err)
	}
	defer os.Remove(path)
	f, err := os.Open(path)
	if err != nil {
		return bare(err)
	}
	defer f.Close()
	switch err := try.why(f); {
	case err == nil:
		return nil
	case mountedNoExec(path):
		return errors.New("it is on a filesystem that is mounted noexec; mount it with the option exec")
	default:
		return plain("the kernel executes nothing in it", err)
	}
}

// copy makes a copy in a directory of its own, under the name that people know.
func (s *stateFiles) copy(ctx context.Context, f *found) (*copied, error) {
	c := &copied{exec: inFile, public: s.public, dir: filepath.Join(s.dir, strconv.FormatInt(s.last.Add(1), 10))}
	c.path = filepath.Join(c.dir, f.base())
	if err := makeDir(c.dir); err != nil {
		return nil, inState(s.dir, err)
	}
	err := s.fill(ctx, c, f.program)
	if err != nil {
		_ = c.remove()
		return nil, inState(s.dir, err)
	}
	return c, nil
}

// inState says of which directory an error is.
func inState(dir string, err error) error {
	if errors.Is(err, errChanged) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return plain(fmt.Sprintf("in %q", filepath.Dir(dir)), bare(err))
}

// fill writes the copy and opens it for reading. A child that another thread forked meanwhile may hold the descriptor for
// writing until its exec, so that ours fails with ETXTBSY: who starts programs tries that again.
func (s *stateFiles) fill(ctx context.Context, c *copied, p *program) error {
	w, err := os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = transfer(ctx, w, p)
	if err == nil {
		err = w.Chmod(copyMode)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	c.file, err = os.Open(c.path)
	return err
}

// close removes all of it and lets go of the lock.
func (s *stateFiles) close() error {
	return errors.Join(os.RemoveAll(s.dir), s.lock.Close())
}
