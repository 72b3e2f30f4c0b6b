package artifact

import "golang.org/x/sys/unix"

// Intact tells whether the bytes that were checked can still be started: nil, or an *Error. A private copy always can be, as long as
// nobody takes away one that is opened by its name; a program that runs from its path can unless it was overwritten in place or, if it runs
// by its name only, replaced. It costs one system call.
func (a *Artifact) Intact() error {
	if a.copy != nil {
		if a.byName && !leadsTo(a.copy.path, &a.own) {
			return refuse(a.path, denied("its private copy %q was changed or removed", a.copy.path))
		}
		return nil
	}
	if a.byName || a.script {
		var now unix.Stat_t
		if err := retry(func() error { return unix.Stat(a.path, &now) }); err == nil && sameBytes(&now, &a.stat) {
			return nil
		}
		return refuse(a.path, denied("it runs from its path, and another file is there now; put the old one back"))
	}
	var now unix.Stat_t
	if err := a.fstat(&now); err != nil {
		return refuse(a.path, plain("it cannot be looked at", err))
	}
	if now.Size != a.stat.Size || now.Mtim != a.stat.Mtim {
		return refuse(a.path, denied("it runs from its path, and was overwritten; ENTRYPOINT_EXEC=copy keeps a copy"))
	}
	return nil
}
