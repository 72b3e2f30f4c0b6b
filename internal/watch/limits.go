package watch

import (
	"fmt"
	"time"
)

// retryEvery is the pause between two tries to get inotify after it could not be had: its limits are shared with the
// whole node, so what is missing now may be there later, and a try is one system call.
const retryEvery = time.Minute

// sayEvery bounds how often the coming and going of inotify is told: once, unless it goes on for hours.
const sayEvery = 10 * time.Minute

// limits is what is known of the limits of inotify.
type limits struct {
	pollOnly bool      // inotify is not wanted
	hit      bool      // something could not be watched by it
	told     bool      // and that was said
	toldAt   time.Time // when last
	retryAt  time.Time
}

func (w *watcher) startInotify() error {
	n, err := newNotifier()
	if err == nil {
		w.inotify = n
		return nil
	}
	return w.pollAlone(err)
}

// retryInotify tries again where there is none. What it finds out shows in the next follow.
func (w *watcher) retryInotify() {
	l := &w.limits
	if w.inotify != nil || l.pollOnly || time.Now().Before(l.retryAt) {
		return
	}
	l.retryAt = time.Now().Add(retryEvery)
	if n, err := newNotifier(); err == nil {
		w.inotify = n
	}
}

// pollAlone says why inotify is not enough. Without polling there is nothing left.
func (w *watcher) pollAlone(err error) error {
	if w.interval == 0 {
		return fmt.Errorf("cannot watch files: inotify: %w%s, or set a poll interval", err, limitHint(err))
	}
	w.tellBackend(BackendPoll)
	l := &w.limits
	if l.hit {
		return nil
	}
	now := time.Now()
	l.hit, l.told, l.retryAt = true, l.toldAt.IsZero() || now.Sub(l.toldAt) >= sayEvery, now.Add(retryEvery)
	if l.told {
		l.toldAt = now
		w.logf("inotify is not available (%v): watched files are looked at every %v only%s", err, w.interval, limitHint(err))
	}
	return nil
}

// complete notes that inotify watches everything.
func (w *watcher) complete() {
	w.tellBackend(BackendInotify)
	l := &w.limits
	if l.hit && l.told {
		w.logf("inotify is available again: changes of watched files are noticed at once")
	}
	l.hit, l.told = false, false
}

// tellBackend tells how files are watched from now on, if that is news.
func (w *watcher) tellBackend(name string) {
	if w.told == name {
		return
	}
	w.told = name
	if w.backend != nil {
		w.backend(name)
	}
}
