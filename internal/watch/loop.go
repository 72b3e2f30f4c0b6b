package watch

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// watcher is the state of one Run. Its goroutine owns all of it.
type watcher struct {
	targets  []*target
	globs    []*glob
	ignored  map[string]bool // absolute paths
	settle   time.Duration
	interval time.Duration
	whole    func(string) error
	logf     func(string, ...any)
	backend  func(string) // may be nil
	told     string       // what it was told last
	inotify  *notifier    // nil: polling alone
	limits   limits

	ignoredGlobs []string // absolute, the last component is a pattern
}

// target is one watched path.
type target struct {
	path   Path
	abs    string
	effect string // see effectOf
	scout  *glob  // this is only the directory of a pattern
	member *glob  // this is one of the files of a pattern

	chain chain           // where it led when it was last looked at
	stamp stamp           // what was there then
	known content         // what the receiver knows
	open  map[string]bool // names that were written to and not closed since
	moved time.Time       // the last sign of a change
	quiet time.Duration   // how long it has to be still after that
	due   time.Time       // the next look; zero: nothing is going on
	said  string          // the last thing said about it, so that it is said once

	pending *Event    // not taken by the receiver yet
	since   time.Time // when it began to wait for that
	next    content
}

func (w *watcher) close() {
	if w.inotify != nil {
		w.inotify.close()
		w.inotify = nil
	}
}

// begin takes down what the paths hold now. Watches come first: a change meanwhile is found afterwards.
func (w *watcher) begin(ctx context.Context) error {
	for _, t := range w.targets {
		if w.walk(t); t.chain.taboo != "" {
			return fmt.Errorf("cannot watch %q: it leads to %q: %w", t.path.Path, t.chain.taboo, t.chain.err)
		}
	}
	if err := w.follow(w.targets...); err != nil {
		return err
	}
	var members []*target
	for _, g := range w.globs {
		members = append(members, w.expand(g)...)
	}
	if err := w.follow(members...); err != nil {
		return err
	}
	for _, t := range w.targets {
		if err := w.know(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// know takes what a path holds for what the receiver knows.
func (w *watcher) know(ctx context.Context, t *target) error {
	if t.scout != nil {
		return nil
	}
	c, err := t.read(ctx)
	if err == errMoved {
		w.touch(t, w.settle)
	} else if err != nil {
		return err
	}
	t.known = c
	if t.chain.isRegular() && mountPoint(t.chain.final) {
		w.logf("watched file %q is mounted by itself: a replacement outside of the container stays unseen; mount its directory", t.abs)
	}
	return nil
}

// loop waits for the first of: an event, a poll, a look that is due, a receiver, the end.
func (w *watcher) loop(ctx context.Context, events chan<- Event) error {
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	poll, stop := w.ticker()
	defer stop()
	for {
		w.arm(alarm)
		batches, failed := w.sources()
		offer, out, event := w.offer(events)
		var err error
		select {
		case <-ctx.Done():
			return nil
		case batch := <-batches:
			err = w.take(batch)
		case e := <-failed:
			w.close()
			err = w.pollAlone(e)
		case <-poll:
			err = w.poll()
		case <-alarm.C:
			err = w.lookAtDue(ctx)
		case out <- event:
			w.taken(offer)
		}
		if err != nil {
			return err
		}
	}
}

func (w *watcher) ticker() (<-chan time.Time, func()) {
	if w.interval == 0 || len(w.targets) == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(w.interval)
	return t.C, t.Stop
}

func (w *watcher) sources() (<-chan []event, <-chan error) {
	if w.inotify == nil {
		return nil, nil
	}
	return w.inotify.batches, w.inotify.failed
}

// arm sets the alarm to the look that is due first.
func (w *watcher) arm(alarm *time.Timer) {
	var first time.Time
	for _, t := range w.targets {
		if !t.due.IsZero() && (first.IsZero() || t.due.Before(first)) {
			first = t.due
		}
	}
	if first.IsZero() {
		alarm.Stop()
		return
	}
	alarm.Reset(time.Until(first))
}

// touch notes a sign of change: the next look comes once it has been quiet for so long.
func (w *watcher) touch(t *target, quiet time.Duration) {
	t.moved, t.quiet = time.Now(), quiet
	t.due = t.moved.Add(quiet)
}

// maxFollow bounds how often a path is walked again because a directory on its way was new.
const maxFollow = 16

// follow walks paths again and moves the watches along. A directory that was not watched until now may have changed
// before it was, so the walk is repeated until none is new.
func (w *watcher) follow(targets ...*target) error {
	for range maxFollow {
		for _, t := range targets {
			w.walk(t)
			t.stamp = w.stampOf(t)
		}
		if w.inotify == nil || len(targets) == 0 {
			return nil
		}
		fresh, err := w.inotify.sync(w.targets, w.logf)
		if err == nil {
			w.complete()
		} else if err := w.pollAlone(err); err != nil {
			return err
		}
		if !fresh {
			return nil
		}
	}
	return nil
}

// walk finds out where a path leads. A pattern stands for files only.
func (w *watcher) walk(t *target) {
	t.chain = resolve(t.abs)
	if t.member != nil && t.chain.isDir() {
		t.chain.final, t.chain.err = "", unix.EISDIR
	}
}

// take works through what inotify reported.
func (w *watcher) take(batch []event) error {
	hit, again := map[*target]bool{}, map[*target]bool{}
	for _, e := range batch {
		for _, u := range w.concerned(e) {
			hit[u.target] = true
			if e.mask&rearranged != 0 {
				again[u.target] = true
			}
			u.mark(e)
		}
	}
	var moved []*target
	for _, t := range w.targets {
		switch {
		case again[t]:
			moved = append(moved, t)
		case hit[t]:
			w.restat(t)
		}
	}
	if err := w.follow(moved...); err != nil {
		return err
	}
	for t := range hit {
		if t.scout == nil {
			w.touch(t, w.settle)
		} else if err := w.discover(t.scout, w.settle, batch); err != nil {
			return err
		}
	}
	return nil
}

// discover takes in the files that have begun to match. Who writes to them may show in the events so far.
func (w *watcher) discover(g *glob, quiet time.Duration, batch []event) error {
	fresh := w.expand(g)
	if err := w.follow(fresh...); err != nil {
		return err
	}
	for _, t := range fresh {
		w.touch(t, quiet)
		at := use{target: t, at: link{g.dir.chain.final, filepath.Base(t.abs)}}
		for _, e := range batch {
			if e.name == at.at.name && len(w.concerned(e)) > 0 {
				at.mark(e)
			}
		}
	}
	return nil
}

// concerned finds out for whom an event is.
func (w *watcher) concerned(e event) []use {
	if e.mask&unix.IN_Q_OVERFLOW != 0 {
		var all []use
		for _, t := range w.targets {
			all = append(all, use{target: t})
		}
		return all
	}
	var found []use
	for _, u := range w.inotify.uses[e.wd] {
		if u.at.name == e.name || e.name == "" || u.at.name == "" && w.counts(u.target, e.name) {
			found = append(found, u)
		}
	}
	if e.mask&unix.IN_IGNORED != 0 {
		delete(w.inotify.uses, e.wd)
	}
	return found
}

// counts tells whether an entry of a watched directory is one of those that matter.
func (w *watcher) counts(t *target, name string) bool {
	return (t.scout == nil || t.scout.matches(name)) && !w.ignores(filepath.Join(t.abs, name))
}

// mark keeps account of who may still be writing.
func (u use) mark(e event) {
	t := u.target
	if t.scout != nil || e.name == "" || (u.at.name != "" && u.at != t.chain.last()) {
		return
	}
	switch {
	case e.mask&(unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM|unix.IN_DELETE) != 0:
		delete(t.open, e.name)
	case e.mask&unix.IN_MODIFY != 0, e.mask&unix.IN_CREATE != 0 && opened(u.at.dir+"/"+e.name):
		if t.open == nil {
			t.open = map[string]bool{}
		}
		t.open[e.name] = true
	}
}

// opened tells whether what was created is something that its creator has open for writing: a file, and not a further
// name of one.
func opened(path string) bool {
	var st unix.Stat_t
	return lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1
}

// restat looks at the final file again, when the way to it is known to be the same.
func (w *watcher) restat(t *target) {
	if t.chain.final == "" || lstat(t.chain.final, &t.chain.stat) != nil {
		return // the event that says why is on its way
	}
	t.stamp = w.stampOf(t)
}

// poll looks at every path that nothing is known to happen to.
func (w *watcher) poll() error {
	w.retryInotify()
	quiet := max(w.settle, w.interval)
	var calm []*target
	var before []stamp
	for _, t := range w.targets {
		if t.due.IsZero() {
			calm, before = append(calm, t), append(before, t.stamp)
		}
	}
	if err := w.follow(calm...); err != nil {
		return err
	}
	for i, t := range calm {
		if t.scout == nil && t.stamp != before[i] {
			w.touch(t, quiet)
		}
	}
	for _, g := range w.globs {
		if err := w.discover(g, quiet, nil); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) lookAtDue(ctx context.Context) error {
	now := time.Now()
	var due []*target
	var before []stamp
	for _, t := range w.targets {
		if !t.due.IsZero() && !t.due.After(now) {
			due, before = append(due, t), append(before, t.stamp)
		}
	}
	if err := w.follow(due...); err != nil {
		return err
	}
	for i, t := range due {
		if t.stamp != before[i] {
			w.touch(t, t.quiet)
		} else if err := w.look(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// look finds out whether a path that was just followed has settled, and on what.
func (w *watcher) look(ctx context.Context, t *target) error {
	if until := t.moved.Add(openPatience * w.settle); len(t.open) > 0 && time.Now().Before(until) {
		t.due = until
		return nil
	}
	t.due, t.open = time.Time{}, nil
	if why := w.unusable(t); why != "" {
		t.withdraw()
		if t.member != nil && t.stamp == (stamp{}) {
			w.vanish(t)
			return nil
		}
		w.say(t, why)
		return nil
	}
	c, err := t.read(ctx)
	if err == errMoved {
		w.touch(t, t.quiet)
		return nil
	}
	if err != nil {
		return err
	}
	t.said = ""
	t.settleOn(c)
	return nil
}

func (t *target) withdraw() { t.pending, t.since = nil, time.Time{} }

// unusable says why there is nothing to compare: the file is missing, or not all there.
func (w *watcher) unusable(t *target) string {
	switch {
	case t.chain.err != nil:
		return fmt.Sprintf("is waited for: %v", t.chain.err)
	case t.stamp == (stamp{}):
		return "is waited for: it is neither a file nor a directory"
	case w.whole == nil || !t.chain.isRegular():
		return ""
	}
	if err := w.whole(t.chain.final); err != nil {
		return fmt.Sprintf("is waited for: %v", err)
	}
	return ""
}

// settleOn compares settled content with what the receiver knows.
func (t *target) settleOn(c content) {
	reason, news := t.known.differs(c)
	if !news {
		t.withdraw()
		return
	}
	t.pending, t.next = &Event{Path: t.path, File: t.abs, Reason: reason, Hash: c.hash}, c
	t.since = firstOf(t.since, time.Now())
}

// say logs something about a path, once until something else happens to it.
func (w *watcher) say(t *target, text string) {
	if text == t.said {
		return
	}
	t.said = text
	w.logf("watched path %q %s", t.abs, text)
}
