package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/artifact"
)

const (
	// maxUpload bounds what put takes: far beyond any program, and less than what fills a node's memory.
	maxUpload = 1 << 30
	// memoryMargin is left for everybody else.
	memoryMargin = 8 << 20
	// uploadChunk is read at once.
	uploadChunk = 1 << 20
)

// receiveUpload reads a program into memory of this process, to the end, and seals it: nobody can change it after it was checked. The caller closes the file.
func receiveUpload(from io.Reader, name string) (*os.File, error) {
	f, err := artifact.NewMemory(name)
	if err != nil {
		return nil, err
	}
	if err := fill(f, from, maxUpload); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := artifact.Seal(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// fill copies at most so many bytes.
func fill(f *os.File, from io.Reader, most int64) error {
	var size int64
	buf := make([]byte, uploadChunk)
	for {
		n, err := io.ReadFull(from, buf)
		if size += int64(n); size > most {
			return fmt.Errorf("it is larger than %s", sizeOf(most))
		}
		if artifact.FreeMemory(memoryMargin) < memoryMargin { // the kernel would not refuse: it would kill somebody
			return fmt.Errorf("the memory of the container is used up after %s", sizeOf(size))
		}
		if _, e := f.Write(buf[:n]); e != nil {
			return fmt.Errorf("there is no room for it after %s: %w", sizeOf(size), e)
		}
		switch {
		case err == io.EOF && size == 0:
			return errors.New("nothing came on standard input; with docker and kubectl exec the option -i is needed")
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// saveUpload replaces the file at path, which is free of symbolic links, by an upload: in one step, with the old one's mode and, as
// far as we may, its owner. Its signature, if there is one, is put beside it. current is asked right before: an error of it, like every
// other, leaves both files as they were.
func saveUpload(upload *os.File, path, signature string, current func() error) error {
	size, err := upload.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	file, err := prepare(path, 0o755, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(upload, 0, size))
		return err
	})
	if err != nil {
		return err
	}
	undo := func() error { return nil }
	if err = current(); err == nil && signature != "" {
		undo, err = saveSignature(path+".minisig", signature)
	}
	if err == nil {
		if err = rename(file, path); err != nil {
			err = errors.Join(err, undo())
		}
	}
	if err != nil {
		_ = os.Remove(file) // the fault is the better news
	}
	return err
}

// saveSignature replaces a signature file and tells how to have the old one again: the old program does not start with the new one.
func saveSignature(path, text string) (undo func() error, err error) {
	put := func(text string) error {
		file, err := prepare(path, 0o644, func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
		if err != nil {
			return err
		}
		return rename(file, path)
	}
	undo = func() error { return os.Remove(path) }
	if old, err := readSignature(path); err == nil {
		undo = func() error { return put(old) }
	}
	return undo, put(text)
}

// prepare writes what is to replace the file at path under another name, and syncs it. A fault leaves nothing.
func prepare(path string, mode fs.FileMode, write func(io.Writer) error) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".entrypoint-*")
	if err != nil {
		return "", cannotReplace(path, err)
	}
	var old unix.Stat_t
	if unix.Stat(path, &old) == nil {
		mode = fs.FileMode(old.Mode) & fs.ModePerm
		_ = f.Chown(int(old.Uid), int(old.Gid)) // only root may; the file is ours otherwise
	}
	err = write(f)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", cannotReplace(path, err)
	}
	return f.Name(), nil
}

// rename puts a prepared file into its place, or removes it.
func rename(name, path string) error {
	if err := os.Rename(name, path); err != nil {
		_ = os.Remove(name)
		return cannotReplace(path, err)
	}
	return nil
}

func cannotReplace(path string, err error) error {
	return fmt.Errorf("cannot replace %q: %w", path, reason(err))
}

// reason is the error without the name of the temporary file.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}
