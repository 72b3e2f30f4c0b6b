package face

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// aliveTime is how long PID 1 has to show that it lives.
	aliveTime = time.Second
	// factsTime is how long a page waits for its facts.
	factsTime = 5 * time.Second
)

// link is a helper's way to PID 1. Make it with newLink; receive runs until the end.
type link struct {
	c      Conn
	board  *board
	health flight
	facts  flight

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan tell
	gone    chan struct{} // closed when PID 1 is
}

func newLink(c Conn) *link {
	l := &link{c: c, board: newBoard(), waiting: map[uint64]chan tell{}, gone: make(chan struct{})}
	l.health.ask = func() (tell, error) { return l.question(wantHealth) }
	l.facts.ask = func() (tell, error) { return l.question(wantFacts) }
	return l
}

// receive passes on what PID 1 says, until it is gone or wants us to end.
func (l *link) receive() error {
	defer close(l.gone)
	for {
		var t tell
		if err := l.c.Receive(&t); err != nil {
			return err
		}
		if t.ID == 0 {
			l.board.add(t.Began, t.News, t.Lost)
			continue
		}
		l.mu.Lock()
		answer := l.waiting[t.ID]
		delete(l.waiting, t.ID)
		l.mu.Unlock()
		if answer != nil {
			answer <- t
		}
	}
}

var errGone = errors.New("the init does not answer")

// question asks PID 1 and blocks until the answer, or factsTime.
func (l *link) question(want string) (tell, error) {
	answer := make(chan tell, 1)
	l.mu.Lock()
	l.next++
	id := l.next
	l.waiting[id] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, id)
		l.mu.Unlock()
	}()
	if err := l.c.Send(ask{ID: id, Want: want}); err != nil {
		return tell{}, errGone
	}
	late := time.NewTimer(factsTime)
	defer late.Stop()
	select {
	case t := <-answer:
		if t.Error != "" {
			return tell{}, errors.New(t.Error)
		}
		return t, nil
	case <-l.gone:
	case <-late.C:
	}
	return tell{}, errGone
}

// Health asks whether the init is well: an error if it does not answer within a second.
func (l *link) Health(ctx context.Context) (Health, error) {
	ctx, cancel := context.WithTimeout(ctx, aliveTime)
	defer cancel()
	t, err := l.health.do(ctx)
	if err != nil || t.Health == nil {
		return Health{}, errGone
	}
	return *t.Health, nil
}

// Facts asks for the facts. They are shared: nobody may change them.
func (l *link) Facts(ctx context.Context) (*Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, factsTime)
	defer cancel()
	t, err := l.facts.do(ctx)
	switch {
	case err != nil:
		return nil, err
	case t.Facts == nil:
		return nil, errGone
	}
	return t.Facts, nil
}

// flight asks one question at a time. Who comes while it is on its way shares the next one: so no answer is older than its request.
type flight struct {
	ask func() (tell, error)

	mu   sync.Mutex
	busy bool
	next *call
}

// call is one question, and all who wait for its answer.
type call struct {
	done chan struct{}
	t    tell
	err  error
}

func (f *flight) do(ctx context.Context) (tell, error) {
	f.mu.Lock()
	if f.next == nil {
		f.next = &call{done: make(chan struct{})}
	}
	c := f.next
	if !f.busy {
		f.busy = true
		go f.run()
	}
	f.mu.Unlock()
	select {
	case <-c.done:
		return c.t, c.err
	case <-ctx.Done():
		return tell{}, errGone
	}
}

// run asks until nobody waits. It ends at most factsTime after the last one came.
func (f *flight) run() {
	for {
		f.mu.Lock()
		c := f.next
		f.next = nil
		if c == nil {
			f.busy = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		c.t, c.err = f.ask()
		close(c.done)
	}
}
