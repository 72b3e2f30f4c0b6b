package watch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"
)

// hashChunk is read between two looks at the context.
const hashChunk = 128 << 10

// maxEntries bounds what is looked at in a watched directory. Of a larger one only the directory itself is.
const maxEntries = 10000

// stamp is what tells, without reading a file, that it is probably the same. The zero value is a missing one.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
	mode         uint32
	listing      string // of a directory, instead of size and times
}

// content is what a receiver knows of a path. The zero value is nothing.
type content struct {
	sum  string // SHA-256, or something that changes at least as often
	hash string // sum where it is a SHA-256
	exec bool
	dir  bool
	time unix.Timespec // when it was modified, if that is news as well; zero otherwise
}

// differs tells whether to is news for somebody who knows from, and in which words. A file that lost its execute
// permission is none: there is nothing new to run.
func (from content) differs(to content) (reason string, yes bool) {
	switch {
	case from.sum == "":
		return "appeared", true
	case from.sum != to.sum && to.dir:
		return "entries changed", true
	case from.sum != to.sum:
		return "content changed", true
	case to.exec && !from.exec:
		return "became executable", true
	case from.time != to.time:
		return "touched", true
	}
	return "", false
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{
		dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim, mode: st.Mode,
	}
}

// stampOf looks at where a path leads now.
func (w *watcher) stampOf(t *target) stamp {
	switch {
	case t.chain.isDir():
		return stamp{
			dev: uint64(t.chain.stat.Dev), ino: t.chain.stat.Ino, mode: t.chain.stat.Mode,
			listing: w.list(t),
		}
	case t.chain.isRegular():
		return stampOf(&t.chain.stat)
	}
	return stamp{}
}

// list digests the names, sizes and times of the direct entries of a directory, without those that are ignored.
func (w *watcher) list(t *target) string {
	d, err := os.Open(t.chain.final)
	if err != nil {
		return "unreadable"
	}
	defer d.Close()
	names, err := d.Readdirnames(maxEntries + 1)
	if err != nil && err != io.EOF || len(names) > maxEntries {
		return fmt.Sprintf("%v %v", t.chain.stat.Mtim, t.chain.stat.Size)
	}
	sort.Strings(names)
	sum := sha256.New()
	for _, name := range names {
		if w.ignores(filepath.Join(t.abs, name)) {
			continue
		}
		var st unix.Stat_t
		if lstat(filepath.Join(t.chain.final, name), &st) == nil {
			fmt.Fprintf(sum, "%q %d %d.%d %d\n", name, st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Mode)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// errMoved says that a file is not the one that was looked at before.
var errMoved = errors.New("the file has changed")

// read finds out what a settled target holds. errMoved: it has not settled after all.
func (t *target) read(ctx context.Context) (content, error) {
	if t.chain.isDir() {
		return content{sum: t.stamp.listing, dir: true}, nil
	}
	if !t.chain.isRegular() {
		return content{}, nil
	}
	sum, err := digest(ctx, t.chain.final, t.stamp)
	c := content{sum: sum, hash: sum, exec: t.stamp.mode&0o111 != 0}
	if t.path.Action == ActionTrigger {
		c.time = t.stamp.mtime
	}
	if err == nil || err == errMoved || ctx.Err() != nil {
		return c, err
	}
	s := t.stamp // it cannot be read: go by what can be seen
	c.sum, c.hash = fmt.Sprintf("%d %d %d %v", s.dev, s.ino, s.size, s.mtime), ""
	return c, nil
}

// digest is the SHA-256 of the regular file at path, as long as it is the one of the stamp, before and after.
func digest(ctx context.Context, path string, want stamp) (string, error) {
	flags := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_NOFOLLOW
	fd := -1
	err := retry(func() (err error) { fd, err = unix.Open(path, flags, 0); return err })
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENXIO:
		return "", errMoved
	default:
		return "", err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if !still(fd, want) {
		return "", errMoved
	}
	sum := sha256.New()
	if err := feed(ctx, sum, f); err != nil {
		return "", err
	}
	if !still(fd, want) {
		return "", errMoved
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func still(fd int, want stamp) bool {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(fd, &st) })
	return err == nil && stampOf(&st) == want
}

// feed copies r into sum, piece by piece, until its end or the end of ctx.
func feed(ctx context.Context, sum hash.Hash, r io.Reader) error {
	buf := make([]byte, hashChunk)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		sum.Write(buf[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
