package watch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links the kernel follows in one path.
const maxLinks = 40

// link is one name in one directory that takes part in where a path leads. dir is free of symbolic links.
type link struct{ dir, name string }

// chain is where a path leads, and over which names.
type chain struct {
	links []link // in the order of the walk; the last one that could be looked up is the first that is missing
	final string // the file, free of symbolic links; "" when it is missing
	stat  unix.Stat_t
	err   error  // why final is ""
	taboo string // where it leads, if that is nothing to watch; final is "" then
}

// last is the name under which the final file stands in its directory.
func (c *chain) last() link {
	if len(c.links) == 0 {
		return link{}
	}
	return c.links[len(c.links)-1]
}

func (c *chain) isDir() bool {
	return c.final != "" && c.stat.Mode&unix.S_IFMT == unix.S_IFDIR
}

func (c *chain) isRegular() bool {
	return c.final != "" && c.stat.Mode&unix.S_IFMT == unix.S_IFREG
}

// resolve walks an absolute path component by component, as the kernel would, and notes every name on the way.
func resolve(path string) chain {
	var c chain
	at, hops := "/", 0
	for rest := components(path); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		c.links = append(c.links, link{at, name})
		full := filepath.Join(at, name)
		if c.err = lstat(full, &c.stat); c.err != nil {
			return c
		}
		switch c.stat.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			to, err := os.Readlink(full)
			if hops++; err != nil || hops > maxLinks {
				c.err = errors.Join(err, unix.ELOOP)
				return c
			}
			if strings.HasPrefix(to, "/") {
				at = "/"
			}
			rest = append(components(to), rest...)
		case unix.S_IFDIR:
			at = full
		default:
			if len(rest) > 0 {
				c.err = unix.ENOTDIR
				return c
			}
			at = full
		}
	}
	return c.arrive(at)
}

// arrive ends the walk at a path without symbolic links.
func (c chain) arrive(at string) chain {
	if c.err = forbidden(at); c.err != nil {
		c.taboo = at
		return c
	}
	if c.err = lstat(at, &c.stat); c.err == nil {
		c.final = at
	}
	return c
}

// components splits a path and drops what means nothing.
func components(path string) []string {
	var parts []string
	for _, part := range strings.Split(path, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

func lstat(path string, st *unix.Stat_t) error {
	return retry(func() error { return unix.Lstat(path, st) })
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// mountPoint tells whether a file is mounted on its own: a rename on the other side of such a mount stays unseen.
func mountPoint(path string) bool {
	var st unix.Statx_t
	err := retry(func() error { return unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st) })
	return err == nil && st.Attributes_mask&st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
