package applog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

// desk is the helper's work: sources come and go, their lines go into sinks.
type desk struct {
	spec    Spec
	streams [2]int    // our own outputs, for prefixed lines
	tell    func(any) // sends a message to PID 1
	first   bool      // the first run of the container
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of the sources, the archive and the count
	archive sync.WaitGroup

	mu      sync.Mutex
	sources map[int]*source
	sinks   map[string]*held
	dropped int64
	told    int64
	counted chan struct{}
	over    bool
	reads   bool // said that pipes cannot be looked into
}

// held is a sink and how many sources use it.
type held struct {
	sink
	users int
	full  chan struct{} // of a file: there is something to archive
}

func newDesk(spec Spec, first bool, streams [2]int, tell func(any)) *desk {
	d := &desk{spec: spec, first: first, streams: streams, tell: tell, sources: map[int]*source{}, sinks: map[string]*held{}, counted: make(chan struct{}, 1)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.archive.Go(d.count)
	return d
}

// add begins to read a pipe, which it takes over. One that is known already is left alone.
func (d *desk) add(id int, o Origin, r *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sources[id] != nil || d.over {
		r.Close()
		return
	}
	s, err := newSource(id, o, r)
	if err != nil {
		d.say("%v", err)
		return
	}
	d.sources[id] = s
	if s.reads && !d.reads {
		d.reads = true
		d.say("the sandbox refuses tee: the app's lines are read before they are written, and what was read is lost if this helper is killed")
	}
	key, k := d.sink(o)
	d.wg.Go(func() {
		ended := d.copy(s, k)
		d.mu.Lock()
		delete(d.sources, id)
		d.release(key)
		d.mu.Unlock()
		d.report()
		if ended {
			d.tell(answer{Ended: id, Tail: s.last()})
		}
		s.close()
	})
}

// sink finds or makes where an origin's lines go.
func (d *desk) sink(o Origin) (key string, k *held) {
	if d.spec.Kind == Prefix {
		key = o.Stream
	} else {
		key = d.spec.file(o)
	}
	if k = d.sinks[key]; k == nil {
		k = d.newSink(key, o)
		d.sinks[key] = k
	}
	k.users++
	return key, k
}

func (d *desk) newSink(key string, o Origin) *held {
	if d.spec.Kind == Prefix {
		fd := d.streams[0]
		if o.Stream == "stderr" {
			fd = d.streams[1]
		}
		return &held{sink: &streamSink{fd: fd, say: d.say, drop: d.drop}}
	}
	k := &held{full: make(chan struct{}, 1)}
	signal := func() {
		select {
		case k.full <- struct{}{}:
		default:
		}
	}
	f := &fileSink{path: key, spec: d.spec, say: d.say, drop: d.drop, full: signal, first: d.first}
	k.sink = f
	f.use()
	signal() // what an earlier run has left
	d.archive.Go(func() {
		for {
			select {
			case _, more := <-k.full:
				if err := archive(d.ctx, key, d.spec); err != nil && d.ctx.Err() == nil && !errors.Is(err, os.ErrNotExist) {
					d.say("cannot keep the rotated logs of %q in order: %v", key, err)
				}
				if !more {
					return
				}
			case <-d.ctx.Done():
				return
			}
		}
	})
	return k
}

// release closes a sink that nobody uses any more.
func (d *desk) release(key string) {
	k := d.sinks[key]
	if k.users--; k.users > 0 {
		return
	}
	delete(d.sinks, key)
	k.close()
	if k.full != nil {
		close(k.full)
	}
}

// copy takes lines out of a pipe until it ends, or until what is there is to be all. It is true if it has ended.
func (d *desk) copy(s *source, k sink) bool {
	for seen := 0; ; {
		waits, err := s.peek(seen)
		over := err != nil
		n, split := cut(waits, s.most, over)
		mend := ""
		switch {
		case split:
			mend = splitMark
		case over && errors.Is(err, errNothing) && s.reads:
			if n > 0 && waits[n-1] != '\n' {
				mend = splitMark // nobody after us can read it
			}
		case over && errors.Is(err, errNothing):
			n, _ = cut(waits, s.most, false) // half a line stays in the pipe: its writer is there
		case over && n > 0 && waits[n-1] != '\n':
			mend = "\n"
		}
		if n > 0 {
			k.write(s, waits[:n], mend)
		}
		if over {
			if err != io.EOF && err != errNothing {
				d.say("cannot read what generation %d says: %v", s.Generation, err)
			}
			return err == io.EOF
		}
		seen = len(waits) - n
	}
}

// reopen opens all files anew, and says how many, or why not.
func (d *desk) reopen() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(d.sinks)) {
		k := d.sinks[key]
		if k.full == nil {
			continue
		}
		if err := k.reopen(); err != nil {
			faults = append(faults, fmt.Errorf("cannot reopen %q: %w", key, err))
			continue
		}
		n++
	}
	return n, errors.Join(faults...)
}

// tail is the end of what a source has said so far.
func (d *desk) tail(id int) string {
	d.mu.Lock()
	s := d.sources[id]
	d.mu.Unlock()
	if s == nil {
		return ""
	}
	return s.last()
}

func (d *desk) say(format string, a ...any) { d.tell(answer{Say: fmt.Sprintf(format, a...)}) }

func (d *desk) drop(lines int) {
	d.mu.Lock()
	d.dropped += int64(lines)
	d.mu.Unlock()
	select {
	case d.counted <- struct{}{}:
	default:
	}
}

// countEvery bounds how often PID 1 hears of dropped lines.
const countEvery = time.Second

// count tells PID 1 of dropped lines.
func (d *desk) count() {
	for {
		select {
		case <-d.counted:
			d.report()
		case <-d.ctx.Done():
			return
		}
		select {
		case <-time.After(countEvery):
		case <-d.ctx.Done():
			return
		}
	}
}

func (d *desk) report() {
	d.mu.Lock()
	n := d.dropped
	news := n != d.told
	d.told = n
	d.mu.Unlock()
	if news {
		d.tell(answer{Dropped: n})
	}
}

// finish takes what is in the pipes and ends. It blocks until all is written, as long as that takes.
func (d *desk) finish() {
	d.mu.Lock()
	d.over = true
	for _, s := range d.sources {
		s.finish()
	}
	d.mu.Unlock()
	d.wg.Wait()
	d.cancel()
	d.archive.Wait()
}
