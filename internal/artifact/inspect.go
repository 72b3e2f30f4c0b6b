package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
)

// headSize is how much of a file the kernel reads to recognise it (BINPRM_BUF_SIZE, 256 since Linux 5.1).
const headSize = 256

// inspector looks into one file.
type inspector struct {
	file io.ReaderAt
	size int64
	dir  string // relative interpreters are relative to it
	misc string // where binfmt_misc is mounted
}

// format is what a file was recognised as.
type format struct {
	script   bool
	emulated bool    // a handler of binfmt_misc opens it
	elf      *header // nil: it is none, or not for this machine
}

// tells is the part of a format that decides how a program is run.
func (f format) tells() [3]bool { return [3]bool{f.script, f.emulated, f.elf != nil} }

// inspect recognises the format and asks what the kernel would ask.
func (i *inspector) inspect() (format, error) {
	head, err := readHead(i.file, i.size)
	if err != nil {
		return format{}, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		interp, err := shebang(head, i.size > headSize)
		if err != nil {
			return format{}, err
		}
		return format{script: true}, runnable("script interpreter", under(i.dir, interp))
	case looksELF(head):
		return i.elf(head)
	case emulated(i.misc, head):
		return format{emulated: true}, nil
	}
	return format{}, unknownFormat(head)
}

// readHead reads the first headSize bytes, or all of a smaller file.
func readHead(r io.ReaderAt, size int64) ([]byte, error) {
	head := make([]byte, min(headSize, size))
	if err := readFull(r, head, 0); err != nil {
		return nil, err
	}
	return head, nil
}

// readFull fills buf from off. A file that ends before is cut short: the caller has checked its size.
func readFull(r io.ReaderAt, buf []byte, off int64) error {
	n, err := r.ReadAt(buf, off)
	if n == len(buf) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return short(off+int64(n), uint64(off)+uint64(len(buf)))
	}
	return plain("it cannot be read", err)
}

// elf checks an ELF file: for which machine it is, whether all of it is there, and its interpreter.
func (i *inspector) elf(head []byte) (format, error) {
	h, err := parseHeader(head, i.size)
	if err != nil {
		return format{}, err
	}
	foreign := h.foreign(runtime.GOARCH)
	if foreign != nil && !emulated(i.misc, head) {
		return format{}, foreign
	}
	if err := h.kind(); err != nil {
		return format{}, err
	}
	if err := h.extent(i.file, i.size); err != nil {
		return format{}, err
	}
	if foreign != nil {
		return format{emulated: true}, nil // the emulator looks for the interpreter, in places of its own
	}
	return format{elf: h}, i.interpreter(h)
}

// interpreter checks the dynamic loader that the file asks for, if any.
func (i *inspector) interpreter(h *header) error {
	if h.interp.size == 0 {
		if h.dynamicOnly() {
			return noExec("it is a shared library, not a program")
		}
		return nil
	}
	name, err := h.interpName(i.file)
	if err != nil {
		return err
	}
	err = runnable("program interpreter", under(i.dir, name))
	if err == nil {
		return nil
	}
	if strings.Contains(name, "musl") {
		return &fault{text: err.Error() + "; it was linked for musl: link it statically, or run it in such an image", errno: errnoOf(err)}
	}
	return &fault{text: err.Error() + "; link it statically, or add the C library it was linked for to the image", errno: errnoOf(err)}
}

// looks are beginnings of files that people copy in place of a Linux program.
var looks = []struct{ magic, what string }{
	{"MZ", "it is a Windows program; build it for linux"},
	{"\xcf\xfa\xed\xfe", "it is a macOS program; build it for linux"},
	{"\xfe\xed\xfa\xcf", "it is a macOS program; build it for linux"},
	{"\xca\xfe\xba\xbe", "it is a macOS universal program or a Java class; build it for linux"},
	{"\x00asm", "it is a WebAssembly module; it needs a runtime"},
	{"\x1f\x8b", "it is a gzip archive; unpack it first"},
	{"PK\x03\x04", "it is a zip archive; unpack it first"},
	{"\x28\xb5\x2f\xfd", "it is a zstd archive; unpack it first"},
	{"\xfd7zXZ\x00", "it is an xz archive; unpack it first"},
	{"!<arch>\n", "it is a static library, not a program"},
	{"\xef\xbb\xbf#!", "it is a script with a byte order mark before its #!; save it without one"},
}

func unknownFormat(head []byte) error {
	for _, l := range looks {
		if bytes.HasPrefix(head, []byte(l.magic)) {
			return noExec("%s", l.what)
		}
	}
	return noExec("it has no known format (it begins with %s); a script needs a first line such as #!/bin/sh", sample(head))
}

// sample shows the beginning of a file: bounded, printable.
func sample(head []byte) string {
	const enough = 16
	return fmt.Sprintf("%q", head[:min(enough, len(head))])
}
