package applet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// explain adds to an error of the system, met in a directory, what can be done about it.
func explain(d *dir, err error) error {
	err = unwrapPath(err)
	if hint := remedy(err); hint != "" {
		return fmt.Errorf("%w in %q: %s", err, d.real, hint)
	}
	return err
}

func remedy(err error) string {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Sprintf("uid %d runs this, and to replace a file it must be allowed to write to the directory, not only to the file", os.Geteuid())
	case errors.Is(err, unix.EROFS):
		return "the file system is read-only: mount a volume there"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "there must be room for the old and the new bytes at once"
	case errors.Is(err, unix.EBUSY):
		return "a mount point cannot be replaced: mount its directory"
	}
	return ""
}

// leads says why a directory of the archive cannot be opened.
func leads(name string, err error) error {
	var path *fs.PathError
	if !errors.As(err, &path) {
		return err
	}
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%q is not a directory", name)
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%q is a loop of symbolic links", name)
	case isErrno(path.Err):
		return fmt.Errorf("%q cannot be opened: %w", name, path.Err)
	}
	return fmt.Errorf("%q leads out of the directory to extract into, by a symbolic link that is absolute or climbs: give its target to -C", name)
}

func isErrno(err error) bool {
	var errno unix.Errno
	return errors.As(err, &errno)
}
