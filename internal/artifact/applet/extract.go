package applet

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// limits bound what one archive may do. Sizes are in bytes.
type limits struct {
	file, total int64 // of contents; a sparse file counts with its holes
	members     int
	name        int // one name, or the target of a link
	names       int // all names that have to be remembered
	depth       int // directories in one name
}

var defaultLimits = limits{file: 2 << 30, total: 8 << 30, members: 100_000, name: 4096, names: 16 << 20, depth: 256}

// umaskOf is the process's umask. Asking for it means setting it, so that happens once.
var umaskOf = sync.OnceValue(func() uint32 {
	mask := syscall.Umask(0o077)
	syscall.Umask(mask)
	return uint32(mask)
})

// extraction is one run of tar -x.
type extraction struct {
	streams
	policy
	limits limits
	args   tarArgs
	stage  *stage
	count  int
	total  int64
	buffer []byte
}

// extract runs tar -x. root says whether the rules for root apply.
func (s streams) extract(a tarArgs, permitted *roots, l limits, root bool) int {
	x := &extraction{streams: s, limits: l, args: a, policy: policyOf(a, root, umaskOf()), buffer: make([]byte, 128<<10)}
	into := a.dir
	if into == "" {
		into = "."
	}
	top, err := os.OpenRoot(into)
	if err != nil {
		return s.fail(fmt.Errorf("cannot extract into %q: %w", into, unwrapPath(err)))
	}
	defer top.Close()
	if x.stage, err = newStage(top, permitted, x.umask, l.names); err != nil {
		return s.fail(fmt.Errorf("cannot extract into %q: %w", into, err))
	}
	defer x.stage.close()
	if err := x.run(); err != nil {
		return s.fail(err)
	}
	if x.owners != nil && x.owners.refused != nil {
		s.say("the owners in the archive were not kept: %v; give --no-same-owner to say so", x.owners.refused)
	}
	return done
}

// run stages everything, then changes the names; or leaves nothing behind.
func (x *extraction) run() error {
	err := x.read()
	if err != nil {
		x.stage.undo()
		return fmt.Errorf("%w; nothing was replaced", err)
	}
	if err := x.stage.commit(); err != nil {
		x.stage.undo()
		return err
	}
	return nil
}

// read stages the whole stream.
func (x *extraction) read() error {
	in, err := openStream(x.in, x.args.gzip)
	if err != nil {
		return fmt.Errorf("cannot read the archive: %w", err)
	}
	if other := in.looksLike(); other != "" {
		return fmt.Errorf("cannot read the archive: it is compressed by %s, and this tar only knows gzip", other)
	}
	members := tar.NewReader(in)
	for {
		h, err := members.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return x.unreadable(err)
		}
		if err := x.member(h, members); err != nil {
			return fmt.Errorf("cannot extract %s: %w", strconv.Quote(shorten(h.Name)), err)
		}
	}
	if in.ended {
		return fmt.Errorf("cannot read the archive: it ends after %d members without its end mark, so it is not whole", x.count)
	}
	if err := in.drain(); err != nil {
		return x.unreadable(err)
	}
	return nil
}

// unreadable is an error between two members.
func (x *extraction) unreadable(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the stream ends too early")
	case errors.Is(err, tar.ErrHeader):
		err = errors.New("this is not a tar archive, or it is damaged")
	case errors.Is(err, gzip.ErrChecksum):
		err = errors.New("the checksum of gzip is wrong")
	}
	return fmt.Errorf("cannot read the archive after %d members: %w", x.count, err)
}

// shorten keeps a hostile name out of the log.
func shorten(name string) string {
	if len(name) > 256 {
		return name[:256] + "..."
	}
	return name
}

// member stages one member.
func (x *extraction) member(h *tar.Header, content io.Reader) error {
	if x.count++; x.count > x.limits.members {
		return fmt.Errorf("an archive may have %d members: upload it in parts", x.limits.members)
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := x.clean(h.Name)
	if err != nil {
		return err
	}
	attributes, err := x.attributes(h)
	if err != nil {
		return err
	}
	if err := x.byType(h, name, attributes, content); err != nil {
		return err
	}
	if x.args.verbose {
		fmt.Fprintln(x.out, printable(h.Name))
	}
	return nil
}

func (x *extraction) byType(h *tar.Header, name string, a attributes, content io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return x.directory(name, a)
	}
	if name == "." {
		return errors.New("it names the directory itself and is no directory")
	}
	parent, err := x.stage.directory(path.Dir(name), true)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.file(h, parent, name, a, content)
	case tar.TypeSymlink:
		return x.symlink(h, parent, name, a)
	case tar.TypeLink:
		return x.hardLink(h, parent, name)
	}
	return fmt.Errorf("it is %s, and only files, directories and links are extracted", typeName(h.Typeflag))
}

func typeName(flag byte) string {
	switch flag {
	case tar.TypeChar, tar.TypeBlock:
		return "a device"
	case tar.TypeFifo:
		return "a FIFO"
	}
	return fmt.Sprintf("of the type %q", flag)
}

// clean makes a member's name relative to the directory of extraction: leading slashes go, as tar does it.
func (x *extraction) clean(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("it has no name")
	case len(name) > x.limits.name:
		return "", fmt.Errorf("its name has %d bytes, more than %d", len(name), x.limits.name)
	case strings.ContainsRune(name, 0):
		return "", errors.New("its name has a zero byte")
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New(`its name has a ".."`)
		}
		depth++
	}
	if depth > x.limits.depth {
		return "", fmt.Errorf("its name has more than %d directories", x.limits.depth)
	}
	return path.Clean("./" + strings.TrimLeft(name, "/")), nil
}

// directory makes one, or takes the one that is there as it is.
func (x *extraction) directory(name string, a attributes) error {
	if name == "." {
		return nil
	}
	s, base := x.stage, path.Base(name)
	parent, err := s.directory(path.Dir(name), true)
	if err != nil {
		return err
	}
	st, err := parent.stat(base)
	if err != nil {
		return explain(parent, err)
	}
	earlier, found := s.finals[parent.path(base)]
	switch {
	case found && s.items[earlier].kind != tree:
		return errors.New("the archive has a file or a link of that name")
	case !found && st != nil && !isDir(st) && !isLink(st):
		return x.tree(parent, name, a)
	}
	d, err := s.directory(name, true)
	if err != nil {
		return err
	}
	if made := s.made[d.real]; made != nil {
		made.attributes = a
	}
	return nil
}

// tree stages a directory that will replace a file.
func (x *extraction) tree(parent *dir, name string, a attributes) error {
	s, base, temp := x.stage, path.Base(name), x.stage.temporary()
	made, err := s.mkdir(parent, base, temp, name)
	if err != nil {
		return err
	}
	made.attributes = a
	if err := s.add(parent, item{place: made.parent, base: base, temp: temp, kind: tree}); err != nil {
		return err
	}
	s.redirect[name] = filepath.Join(made.parent.name, temp)
	return nil
}

// file writes a regular file under a temporary name.
func (x *extraction) file(h *tar.Header, parent *dir, name string, a attributes, content io.Reader) error {
	if h.Size > x.limits.file {
		return fmt.Errorf("it has %d bytes, more than %d", h.Size, x.limits.file)
	}
	if x.total += h.Size; x.total > x.limits.total {
		return fmt.Errorf("the files of the archive have more than %d bytes altogether", x.limits.total)
	}
	base := path.Base(name)
	p, temp, err := x.stage.target(parent, path.Dir(name), base)
	if err != nil {
		return err
	}
	if err := x.write(parent, temp, a, h.Size, content); err != nil {
		return err
	}
	return x.stage.addOrRemove(parent, item{place: p, base: base, temp: temp, kind: file})
}

// write makes the file temp with its content and attributes, or leaves nothing.
func (x *extraction) write(parent *dir, temp string, a attributes, size int64, content io.Reader) error {
	f, err := parent.create(temp)
	if err != nil {
		return explain(parent, err)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{content}, x.buffer)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the stream ends after %d of its %d bytes", n, size)
	}
	if err == nil {
		err = a.apply(parent, temp, f)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		parent.unlink(temp)
		return explain(parent, err)
	}
	return nil
}

// symlink stages a symbolic link that stays inside.
func (x *extraction) symlink(h *tar.Header, parent *dir, name string, a attributes) error {
	if err := x.inside(parent, h.Linkname); err != nil {
		return err
	}
	base := path.Base(name)
	p, temp, err := x.stage.target(parent, path.Dir(name), base)
	if err != nil {
		return err
	}
	if err := again(func() error { return unix.Symlinkat(h.Linkname, parent.fd(), temp) }); err != nil {
		return explain(parent, err)
	}
	if err := a.applyToLink(parent, temp); err != nil {
		parent.unlink(temp)
		return explain(parent, err)
	}
	return x.stage.addOrRemove(parent, item{place: p, base: base, temp: temp, kind: file})
}

// inside refuses a target that is absolute or that climbs out of the directory of extraction. It counts steps and looks at
// no file: whatever a link says, nothing is written through one that leads out.
func (x *extraction) inside(parent *dir, target string) error {
	switch {
	case target == "":
		return errors.New("the link has no target")
	case len(target) > x.limits.name || strings.ContainsRune(target, 0):
		return errors.New("the link's target is too long, or has a zero byte")
	case path.IsAbs(target):
		return fmt.Errorf("the link's target %q is absolute", shorten(target))
	}
	depth := 0
	if inner, ok := strings.CutPrefix(parent.real, strings.TrimSuffix(x.stage.rootReal, "/")+"/"); ok && inner != "" {
		depth = strings.Count(inner, "/") + 1
	}
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "..":
			depth--
		case "", ".":
		default:
			depth++
		}
		if depth < 0 {
			return fmt.Errorf("the link's target %q leads out", shorten(target))
		}
	}
	return nil
}

// hardLink stages one more name of a file of this archive, or of one that is there.
func (x *extraction) hardLink(h *tar.Header, parent *dir, name string) error {
	source, err := x.clean(h.Linkname)
	if err != nil {
		return fmt.Errorf("it is a link to %q: %w", shorten(h.Linkname), err)
	}
	base := path.Base(name)
	if source == name {
		return x.itself(parent, base)
	}
	p, temp, err := x.stage.target(parent, path.Dir(name), base)
	if err != nil {
		return err
	}
	if err := x.link(source, parent, temp); err != nil {
		return fmt.Errorf("it is a link to %q: %w", shorten(h.Linkname), err)
	}
	if parent, err = x.stage.directory(path.Dir(name), false); err != nil {
		return err
	}
	return x.stage.addOrRemove(parent, item{place: p, base: base, temp: temp, kind: file})
}

// itself is a link of a file to itself: nothing to do, if the file is there.
func (x *extraction) itself(parent *dir, base string) error {
	_, staged := x.stage.finals[parent.path(base)]
	if st, err := parent.stat(base); !staged && (err != nil || !isRegular(st)) {
		return errors.New("it is a link to itself")
	}
	return nil
}

// link makes temp another name of source, which is a name of the archive.
func (x *extraction) link(source string, parent *dir, temp string) error {
	target, err := unix.FcntlInt(uintptr(parent.fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	from, err := x.stage.directory(path.Dir(source), false)
	if err != nil {
		return err
	}
	base := path.Base(source)
	if err := x.stage.permitted.refuse(from.path(base)); err != nil {
		return err
	}
	if staged, found := x.stage.finals[from.path(base)]; found {
		base = x.stage.items[staged].temp
	}
	st, err := from.stat(base)
	switch {
	case err != nil:
		return err
	case st == nil:
		return errors.New("there is no such file")
	case !isRegular(st) || x.stage.permitted.isOwn(st):
		return errors.New("only a regular file can be linked to, and not the init's own")
	}
	return again(func() error { return unix.Linkat(from.fd(), base, target, temp, 0) })
}

// addOrRemove is add for a temporary that nobody else would remove.
func (s *stage) addOrRemove(parent *dir, i item) error {
	err := s.add(parent, i)
	if err != nil {
		parent.unlink(i.temp)
	}
	return err
}

// printable is a name on one line.
func printable(name string) string {
	quoted := strconv.Quote(name)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
