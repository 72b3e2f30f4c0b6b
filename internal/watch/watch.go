// Package watch turns what happens to files into "this one has new content, and its writer is done".
//
// # Model
//
// A watched path is followed through all of its symbolic links, component by component. Every directory on the way is
// watched with inotify, for the one name in it that matters: so the package sees a rename over the file, a link that
// is flipped, the two-level "..data" flip of a Kubernetes volume, a parent directory that is replaced, and a directory
// that does not exist yet. The file itself is never watched: such a watch dies with the first replacement.
//
// An event only says "look". A look happens once the path has been quiet for Options.Settle, and finds either that the
// file still moves (then it waits again), that somebody has it open for writing, that it is not whole, or that its
// content, by SHA-256, is new to the receiver. Only the last becomes an [Event]. So a touch is nothing, a tar archive
// unpacked over the path in five hundred writes is one event, and so is an editor's save in four steps.
//
// A pattern ([Path].Glob) is a watch of its directory, which finds the files that begin to match; each of these is then
// followed like any other path until it has vanished, which is an event as well, though not for a swap. What settles at
// the same time and has the same effect is one [Event], because it is one save.
//
// Beside inotify the paths are looked at every Options.Poll, because events are lost in principle, not by accident:
// changes on the other side of a bind mount, network and FUSE file systems, an overlay's upper directory. A change that
// no event announced has to be still for a whole Poll interval. Where inotify cannot be had (its limits are per user
// and node-wide in practice), polling goes on alone, after one line that names the limit, and inotify is tried again once a minute.
//
// # Invariants
//
//   - One settled change of content, one event. Of several that the receiver has not taken yet only the newest is kept,
//     one for each path, and one that turned out to lead back to what the receiver knows is withdrawn.
//   - A file that is missing is no event, unless a pattern stood for it: it is waited for.
//   - Memory is bounded: by the paths, by 1,000 files a pattern, by 10,000 entries read of a directory.
//   - Run never blocks on a receiver or on a file, and leaves no goroutine and no descriptor behind.
//
// # Kernel
//
// inotify with IN_EXCL_UNLINK (Linux 2.6.36), statx for one hint (4.11, else no hint). Format and meaning of the events
// are those of inotify(7).
//
// # What it does not do
//
// It does not recurse into directories; a watched directory stands for its direct entries. It cannot see that a file is
// open for writing unless inotify reported a write to it. A file that never comes to rest, such as a log, never leads
// to an event. Writes through another hard link, in another directory, are found by polling only.
package watch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// DefaultSettle is the quiet time when Options has none: longer than the pauses of tools that write in pieces, shorter
// than anybody waits for.
const DefaultSettle = 300 * time.Millisecond

// openPatience times Settle is how long a file that was written to but not closed has to be still, before it counts as
// settled all the same: a writer may hold it open for ever.
const openPatience = 10

// Options says what to watch. Paths must not be changed while Run uses it.
type Options struct {
	Paths  []Path
	Settle time.Duration // quiet time before a look; 0: DefaultSettle
	Poll   time.Duration // between two looks without an event; 0: only inotify is used
	// Whole, if set, is asked before a settled regular file counts: an error says that the file is visibly not all
	// there, and postpones it until it changes again.
	Whole func(path string) error
	// PollOnly leaves inotify alone.
	PollOnly bool
	// Backend, if set, is told how files are watched, at the beginning and when that changes: BackendInotify or BackendPoll. It must not
	// block.
	Backend func(name string)
	// Begun, if set, is called once what the paths hold is known: no change is missed from then on. It must not block.
	Begun func()
	// Logf, if set, is given what a user may want to know: a limit that was hit, a file waited for. One line a call.
	Logf func(format string, args ...any)
}

// What Options.Backend is told. With inotify the paths are polled too, if Options.Poll says so.
const (
	BackendInotify = "inotify"
	BackendPoll    = "poll"
)

// Event says that a watched path has new, settled content.
type Event struct {
	Path   Path   // as given in Options
	File   string // the absolute path; of a pattern, the file that matches
	Reason string // "content changed", "appeared", "became executable", "entries changed", "touched", "vanished"
	Hash   string // SHA-256 of a file in hexadecimal; "" for a directory, or when the file is gone or cannot be read
	// Also are further paths that settled with this one and whose change has the same effect: the same action, swap and
	// trigger being one. Hooks are always alone. Their own Also is nil.
	Also []Event
}

// Run watches until ctx is done, and returns nil then. What the paths hold when Run begins is what the receiver is
// taken to know: the content should not be used before Options.Begun. It reads each file once at the beginning and once after each
// change, in its own goroutine. Paths with the action "ignore" are not watched, and do not count as entries of a
// watched directory. It fails at once when a path may not be watched, and when there is neither inotify nor polling.
// The events channel may be unbuffered; it is not closed.
func Run(ctx context.Context, o Options, events chan<- Event) error {
	w, err := newWatcher(o)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.begin(ctx); err != nil {
		return ended(ctx, err)
	}
	if o.Begun != nil {
		o.Begun()
	}
	return ended(ctx, w.loop(ctx, events))
}

// ended drops the error of a context that is done: it is how Run is told to return.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func newWatcher(o Options) (*watcher, error) {
	if o.Settle < 0 || o.Poll < 0 {
		return nil, fmt.Errorf("cannot watch: settle time %v or poll interval %v is negative", o.Settle, o.Poll)
	}
	w := &watcher{settle: o.Settle, interval: o.Poll, whole: o.Whole, logf: o.Logf, backend: o.Backend, ignored: map[string]bool{}}
	w.limits.pollOnly = o.PollOnly
	if w.settle == 0 {
		w.settle = DefaultSettle
	}
	if w.logf == nil {
		w.logf = func(string, ...any) {}
	}
	var faults []error
	for _, p := range o.Paths {
		faults = append(faults, w.add(p))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if o.PollOnly {
		w.tellBackend(BackendPoll)
	}
	if len(w.targets) == 0 || o.PollOnly {
		return w, nil
	}
	return w, w.startInotify()
}

// add takes one path into the watcher.
func (w *watcher) add(p Path) error {
	abs, err := filepath.Abs(p.Path)
	if err != nil {
		return fmt.Errorf("cannot watch %q: %w", p.Path, err)
	}
	switch {
	case p.Action == ActionIgnore && p.Glob:
		w.ignoredGlobs = append(w.ignoredGlobs, abs)
		return nil
	case p.Action == ActionIgnore:
		w.ignored[abs] = true
		return nil
	case p.Glob && filepath.Dir(abs) == "/":
		w.addGlob(p, abs)
		return nil
	}
	if err := forbidden(abs); err != nil {
		return fmt.Errorf("cannot watch %q: %w", p.Path, err)
	}
	if p.Glob {
		w.addGlob(p, abs)
		return nil
	}
	w.targets = append(w.targets, &target{path: p, abs: abs, effect: effectOf(p, abs)})
	return nil
}
