package doctor

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Class says what was new about the connection of a request.
type Class string

// The classes.
const (
	Kept Class = "keep-alive" // it had answered before
	New  Class = "new"        // it was made for this request
)

// Loss is a request that got no answer.
type Loss struct {
	Class  Class
	Kind   Kind
	Opened time.Time // when its connection was begun; zero: there was none
	Began  time.Time // when the request was begun
	At     time.Time // when it was lost
	HungUp bool      // the app had closed the connection before the request was sent
	Begun  bool      // some of the answer had come
	Text   string
}

// maxLosses bounds what is remembered of single losses: an app that is down fails every request. The rest is counted.
const maxLosses = 10_000

// load is a running load.
type load struct {
	o       *Options
	usual   int             // the app's status before the load
	cut     context.Context // its end cuts the requests under way
	ending  chan struct{}
	stopped sync.Once
	running sync.WaitGroup
	clients []*client

	mu       sync.Mutex
	requests map[Class]int // lost ones too
	lost     map[Class]int
	losses   []Loss
}

// client is one loop of requests.
type client struct {
	load    *load
	keep    bool
	request []byte
	line    *line
	rounds  atomic.Int64 // requests that have ended
}

// begin starts the clients. They run until stop, or until ctx is done, which cuts what is under way and does not count it.
func begin(ctx context.Context, o *Options, usual int) *load {
	l := &load{o: o, usual: usual, cut: ctx, ending: make(chan struct{}), requests: map[Class]int{}, lost: map[Class]int{}}
	for i := range o.Clients + o.NewClients {
		keep := i < o.Clients
		l.clients = append(l.clients, &client{load: l, keep: keep, request: request(o, !keep)})
	}
	for i, c := range l.clients {
		first := o.Pause * time.Duration(i) / time.Duration(len(l.clients)) // so that they do not ask all at once
		l.running.Go(func() { c.run(first) })
	}
	return l
}

// stop lets the requests under way end.
func (l *load) stop() {
	l.stopped.Do(func() { close(l.ending) })
	l.running.Wait()
}

// round waits until every client has ended a request that it began after the call.
func (l *load) round(ctx context.Context) error {
	goals := make([]int64, len(l.clients))
	for i, c := range l.clients {
		goals[i] = c.rounds.Load() + 2
	}
	for i, c := range l.clients {
		for c.rounds.Load() < goals[i] {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(min(l.o.Pause, 5*time.Millisecond)):
			}
		}
	}
	return nil
}

func (c *client) run(first time.Duration) {
	defer c.hangUp()
	for pause := first; c.pause(pause); pause = c.load.o.Pause {
		c.once()
		c.rounds.Add(1)
	}
}

// pause returns false when there is to be no other request.
func (c *client) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.load.ending:
		return false
	case <-c.load.cut.Done():
		return false
	case <-t.C:
		return true
	}
}

func (c *client) hangUp() {
	if c.line != nil {
		_ = c.line.conn.Close() // what it was good for has been read
	}
	c.line = nil
}

// once makes one request and counts it.
func (c *client) once() {
	l := Loss{Class: New, Began: time.Now()}
	a, err := c.exchange(&l)
	if c.load.cut.Err() != nil {
		return
	}
	if err == nil && a.status/100 != c.load.usual/100 {
		err = wrong{fmt.Sprintf("status %d, before the load it was %d", a.status, c.load.usual)}
	}
	if err != nil || a.last || !c.keep {
		c.hangUp()
	}
	if err != nil {
		l.Kind, l.At, l.Begun, l.Text = kindOf(err), time.Now(), a.begun, err.Error()
	}
	c.load.count(l)
}

// exchange makes the request on the connection that is there, or on a new one, and notes in l what is known of the connection.
func (c *client) exchange(l *Loss) (answer, error) {
	deadline := time.Now().Add(c.load.o.Timeout)
	if c.line == nil {
		made, err := dial(c.load.o, deadline)
		if err != nil {
			return answer{}, err
		}
		c.line = made
	}
	l.Opened = c.line.opened
	if c.line.asked > 0 {
		l.Class, l.HungUp = Kept, c.line.hungUp()
	}
	conn := c.line.conn
	if err := conn.SetDeadline(deadline); err != nil {
		return answer{}, err
	}
	defer context.AfterFunc(c.load.cut, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	return c.line.ask(c.request)
}

func (l *load) count(one Loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests[one.Class]++
	if one.Kind == "" {
		return
	}
	l.lost[one.Class]++
	if len(l.losses) < maxLosses {
		l.losses = append(l.losses, one)
	}
}
