package applet

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// creation is one run of tar -c. It writes the format of GNU tar, which BusyBox reads too. A file with several names is
// written once for each: `kubectl cp` would make an empty file of a hard link.
type creation struct {
	streams
	verbose  bool
	archive  *tar.Writer
	buffer   []byte
	code     int
	stripped bool // it was said that slashes are taken off
}

// writeError is an error of the archive, after which nothing more can be written.
type writeError struct{ err error }

func (e *writeError) Error() string { return fmt.Sprintf("cannot write the archive: %v", e.err) }
func (e *writeError) Unwrap() error { return e.err }

// create runs tar -c: what cannot be read is said and left out, and the code is 2 then.
func (s streams) create(a tarArgs) int {
	out := bufio.NewWriterSize(s.out, 64<<10)
	var packed io.WriteCloser = nopCloser{out}
	if a.gzip {
		packed = gzip.NewWriter(out)
	}
	c := &creation{streams: s, verbose: a.verbose, archive: tar.NewWriter(packed), buffer: make([]byte, 128<<10)}
	for _, source := range a.sources {
		if err := c.source(source); err != nil {
			return s.fail(err)
		}
	}
	for _, end := range []func() error{c.archive.Close, packed.Close, out.Flush} {
		if err := end(); err != nil {
			return s.fail(&writeError{err})
		}
	}
	return c.code
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// source writes one operand and what is below it.
func (c *creation) source(from source) error {
	full := from.path
	if !filepath.IsAbs(full) {
		full = filepath.Join(from.dir, full)
	}
	above, base := filepath.Split(filepath.Clean(full))
	if base == "" || base == "." || base == ".." {
		above, base = filepath.Clean(full), "."
	}
	if above == "" {
		above = "."
	}
	parent, err := newDir(os.OpenFile(above, openFlags, 0))
	if err != nil {
		return c.lost(from.path, unwrapPath(err))
	}
	defer parent.close()
	return c.entry(parent, base, c.memberName(from.path), 0)
}

// memberName is the name that an operand has in the archive: without what would lead out of the place where it is extracted.
func (c *creation) memberName(path string) string {
	name := strings.TrimRight(path, "/")
	if strings.HasPrefix(path, "/") && !c.stripped {
		c.stripped = true
		c.say("leading slashes are taken off the names")
	}
	if at := strings.LastIndex("/"+name+"/", "/../"); at >= 0 {
		name = strings.TrimPrefix(("/" + name + "/")[at+len("/../"):], "/")
		name = strings.TrimRight(name, "/")
	}
	if name = strings.TrimLeft(name, "/"); name == "" {
		return "."
	}
	return name
}

// lost says that something is not in the archive. It returns nil: the rest will be.
func (c *creation) lost(name string, err error) error {
	c.code = failed
	c.say("cannot read %q: %v", shorten(name), err)
	return nil
}

func (c *creation) left(name, why string) {
	c.code = max(c.code, differ)
	c.say("%q %s", shorten(name), why)
}

// entry writes one name and what is below it. Its error ends the archive.
func (c *creation) entry(parent *dir, base, name string, depth int) error {
	st, err := parent.stat(base)
	switch {
	case err != nil:
		return c.lost(name, err)
	case st == nil:
		return c.lost(name, unix.ENOENT)
	case isDir(st):
		return c.directory(parent, base, name, st, depth)
	case isRegular(st):
		return c.file(parent, base, name)
	case isLink(st):
		return c.symlink(parent, base, name, st)
	}
	c.left(name, "is left out: it is neither a file nor a directory nor a symbolic link")
	return nil
}

// header writes what comes before the content.
func (c *creation) header(h *tar.Header, st *unix.Stat_t) error {
	h.Format = tar.FormatGNU
	h.Mode, h.Uid, h.Gid = int64(st.Mode&0o7777), int(st.Uid), int(st.Gid)
	h.ModTime = time.Unix(st.Mtim.Unix()).Truncate(time.Second)
	if err := c.archive.WriteHeader(h); err != nil {
		return &writeError{err}
	}
	if c.verbose {
		fmt.Fprintln(c.err, printable(h.Name))
	}
	return nil
}

func (c *creation) symlink(parent *dir, base, name string, st *unix.Stat_t) error {
	target := make([]byte, 4097)
	n, err := unix.Readlinkat(parent.fd(), base, target)
	if err != nil {
		return c.lost(name, err)
	}
	return c.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: string(target[:n])}, st)
}

func (c *creation) directory(parent *dir, base, name string, st *unix.Stat_t, depth int) error {
	if depth > maxDepth {
		return c.lost(name, fmt.Errorf("it is deeper than %d directories", maxDepth))
	}
	d, err := newDir(parent.openat(base, unix.O_RDONLY|unix.O_DIRECTORY, 0))
	if err != nil {
		return c.lost(name, err)
	}
	defer d.close()
	if err := c.header(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/"}, st); err != nil {
		return err
	}
	if depth > 0 && slices.Contains(denied, d.real) {
		c.left(name, "is left out: it is the kernel's")
		return nil
	}
	for {
		names, err := d.f.Readdirnames(256)
		for _, entry := range names {
			if err := c.entry(d, entry, name+"/"+entry, depth+1); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return c.lost(name, unwrapPath(err))
		}
	}
}

// file writes a file with the size that it had when it was opened.
func (c *creation) file(parent *dir, base, name string) error {
	f, err := parent.openat(base, unix.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO that took its place would be waited for
	if err != nil {
		return c.lost(name, err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return c.lost(name, err)
	}
	if !isRegular(&st) {
		return c.lost(name, errors.New("it was replaced meanwhile"))
	}
	if err := c.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: st.Size}, &st); err != nil {
		return err
	}
	return c.content(f, name, st.Size)
}

// content writes exactly size bytes: what is missing by then becomes zeros.
func (c *creation) content(f *os.File, name string, size int64) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{archiveWriter{c.archive}}, io.LimitReader(f, size), c.buffer)
	var broken *writeError
	if errors.As(err, &broken) {
		return broken
	}
	switch {
	case err != nil:
		c.lost(name, unwrapPath(err))
	case n < size:
		c.left(name, fmt.Sprintf("shrank by %d bytes while it was read; zeros take their place", size-n))
	default:
		if extra, _ := f.Read(c.buffer[:1]); extra > 0 {
			c.left(name, "grew while it was read; the rest is left out")
		}
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{archiveWriter{c.archive}}, io.LimitReader(zeros{}, size-n), c.buffer)
	return err
}

// archiveWriter marks the errors of the archive.
type archiveWriter struct{ w io.Writer }

func (a archiveWriter) Write(p []byte) (int, error) {
	n, err := a.w.Write(p)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
