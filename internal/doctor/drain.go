package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Options say what to load, and how.
type Options struct {
	Address string // host:port to connect to
	Host    string // of the request
	Path    string // with the query
	Post    int    // bytes of a POST; 0: GET

	Clients    int // with keep-alive, at least 1
	NewClients int // with a new connection for each request
	Swaps      int
	Pause      time.Duration // of a client between two requests, more than nothing
	Timeout    time.Duration // of one request, connecting included
}

// Init is what is asked of the init.
type Init struct {
	// Reload swaps and returns when the new generation is active.
	Reload func(context.Context) error
	// Lives are the generations that have been active, as far as they are remembered; Replaced is not looked at.
	Lives func(context.Context) ([]Life, error)
}

// ErrNoAnswer is wrapped by the error of an app that does not answer even before the load.
var ErrNoAnswer = errors.New("the app does not answer")

// lookEvery is how often the init is asked whether the old generation has ended.
const lookEvery = 50 * time.Millisecond

// Drain loads the app, swaps it, waits after each swap until the old generation has ended and every client has asked once more, and
// reports. It blocks that long, which the init's own deadlines bound. With an error that is not ErrNoAnswer, such as a swap
// that was refused or the end of ctx, the report holds what was counted until then; with ErrNoAnswer it is nil.
func Drain(ctx context.Context, o Options, i Init) (*Report, error) {
	usual, err := Ask(o)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	l := begin(ctx, &o, usual)
	v := &visit{o: &o, init: i, load: l, lives: map[int]Life{}}
	err = v.run(ctx)
	l.stop()
	r := &Report{Schema: Schema, Clients: o.Clients, NewClients: o.NewClients, Swaps: v.swaps, ElapsedMS: time.Since(begun).Milliseconds(),
		Requests: Count{l.requests[Kept], l.requests[New]}, Lost: Count{l.lost[Kept], l.lost[New]}}
	r.diagnose(l.losses, v.known())
	r.sum()
	return r, err
}

// Ask makes one request outside of any load and returns the status of the answer. An error wraps ErrNoAnswer.
func Ask(o Options) (status int, err error) {
	deadline := time.Now().Add(o.Timeout)
	l, err := dial(&o, deadline)
	if err == nil {
		defer l.conn.Close()
		err = l.conn.SetDeadline(deadline)
	}
	var a answer
	if err == nil {
		a, err = l.ask(request(&o, true))
	}
	if err != nil {
		return 0, fmt.Errorf("%w at %s: %w", ErrNoAnswer, o.Address, err)
	}
	return a.status, nil
}

// visit is one run of Drain.
type visit struct {
	o     *Options
	init  Init
	load  *load
	lives map[int]Life // all that were ever seen: the init forgets old ones
	swaps int
}

func (v *visit) run(ctx context.Context) error {
	if err := v.load.round(ctx); err != nil {
		return err
	}
	for range v.o.Swaps {
		if err := v.look(ctx); err != nil {
			return err
		}
		if err := v.init.Reload(ctx); err != nil {
			return errors.Join(err, v.look(ctx))
		}
		v.swaps++
		if err := v.drained(ctx); err != nil {
			return err
		}
		if err := v.load.round(ctx); err != nil {
			return err
		}
	}
	return v.look(ctx)
}

// look learns what has been done to the generations so far.
func (v *visit) look(ctx context.Context) error {
	lives, err := v.init.Lives(ctx)
	for _, l := range lives {
		v.lives[l.Number] = l
	}
	return err
}

// drained waits until only one generation is left.
func (v *visit) drained(ctx context.Context) error {
	for {
		if err := v.look(ctx); err != nil {
			return err
		}
		left := 0
		for _, l := range v.lives {
			if l.Ended.IsZero() {
				left++
			}
		}
		if left <= 1 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lookEvery):
		}
	}
}

func (v *visit) known() []Life {
	var all []Life
	for _, l := range v.lives {
		all = append(all, l)
	}
	return lineUp(all)
}
