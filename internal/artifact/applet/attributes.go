package applet

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// attributes are what a member says of itself. The zero value leaves time and owner alone.
type attributes struct {
	mode     uint32
	mtime    time.Time // zero: leave it
	uid, gid int
	owners   *owners // nil: leave the owner
}

// owners is the decision to give files away, shared by all members.
type owners struct {
	strict  bool  // it was asked for: a refusal is an error
	refused error // the kernel's first refusal, after which nothing is given away
}

// A policy says what of a member's attributes is used.
type policy struct {
	root, samePermissions, setBits, touch bool
	umask                                 uint32
	owners                                *owners
}

func policyOf(a tarArgs, root bool, umask uint32) policy {
	p := policy{root: root, samePermissions: a.samePermissions.or(root), setBits: root && a.setBits == yes, touch: a.touch, umask: umask}
	if a.sameOwner.or(root) {
		p.owners = &owners{strict: a.sameOwner == yes}
	}
	return p
}

func (p *policy) attributes(h *tar.Header) (attributes, error) {
	a := attributes{mode: uint32(h.Mode & 0o777), mtime: h.ModTime, uid: h.Uid, gid: h.Gid, owners: p.owners}
	if !p.samePermissions {
		a.mode &^= p.umask
	}
	if p.setBits {
		a.mode |= uint32(h.Mode & 0o7000)
	} else if p.samePermissions && h.Typeflag == tar.TypeDir {
		a.mode |= uint32(h.Mode & unix.S_ISVTX)
	}
	if p.touch {
		a.mtime = time.Time{}
	}
	if p.owners != nil && (!isID(h.Uid) || !isID(h.Gid)) {
		return a, fmt.Errorf("its owner %d:%d is no user and group: give --no-same-owner", h.Uid, h.Gid)
	}
	return a, nil
}

// isID tells whether the number can be an owner: 32 bits, and not the one that means "nobody was named".
func isID(n int) bool { return n >= 0 && int64(n) < 1<<32-1 }

// apply sets the time, owner and mode of a file that is open as f and is called base in d. The name is used where no call on
// descriptors exists, without following it; the mode comes last, because a change of the owner clears bits of it.
func (a *attributes) apply(d *dir, base string, f *os.File) error {
	if err := a.setTime(d, base); err != nil {
		return err
	}
	if err := a.own(d, func() error { return unix.Fchown(int(f.Fd()), a.uid, a.gid) }); err != nil {
		return err
	}
	mode := a.mode
	if a.owners != nil && a.owners.refused != nil && !a.ours() {
		mode &^= unix.S_ISUID | unix.S_ISGID // they would give our rights, and were meant to give those of its owner
	}
	return again(func() error { return unix.Fchmod(int(f.Fd()), mode) })
}

// ours tells whether the owner is who a new file belongs to anyway.
func (a *attributes) ours() bool { return a.uid == os.Geteuid() && a.gid == os.Getegid() }

// applyToLink is apply for a symbolic link, which has no mode.
func (a *attributes) applyToLink(d *dir, base string) error {
	if err := a.setTime(d, base); err != nil {
		return err
	}
	return a.own(d, func() error { return unix.Fchownat(d.fd(), base, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW) })
}

// setTime leaves the time of the last access alone. A time that the kernel cannot take becomes the beginning of 1970.
func (a *attributes) setTime(d *dir, base string) error {
	if a.mtime.IsZero() {
		return nil
	}
	modified, err := unix.TimeToTimespec(a.mtime)
	if err != nil {
		modified = unix.Timespec{}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, modified}
	return again(func() error { return unix.UtimesNanoAt(d.fd(), base, times, unix.AT_SYMLINK_NOFOLLOW) })
}

// own gives a file away. Root without the capability, or with a number that its user namespace does not have, keeps the
// files, unless the owner was asked for.
func (a *attributes) own(d *dir, chown func() error) error {
	if a.owners == nil || a.owners.refused != nil || a.ours() {
		return nil
	}
	err := again(chown)
	if (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL)) && !a.owners.strict {
		a.owners.refused = err
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot give it to %d:%d: %w", a.uid, a.gid, err)
	}
	return nil
}
