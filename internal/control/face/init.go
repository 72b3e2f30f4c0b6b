package face

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

const (
	// factsGap and healthGap are the least times between two answers of their kind: what a flood of requests can cost PID 1.
	factsGap  = 20 * time.Millisecond
	healthGap = time.Millisecond
	// answerTime bounds one answer. The owner of the state answers from memory.
	answerTime = 5 * time.Second
)

// Supervisor is what PID 1's side needs of the init; *swap.Supervisor is one.
type Supervisor interface {
	Health(ctx context.Context) error
	Status(ctx context.Context) (swap.Status, error)
	Counters(ctx context.Context) (swap.Counters, error)
	Subscribe(after uint64) *swap.Subscription
}

// Init is PID 1's side, for all the runs of the helper, one after the other or, for a moment, two at once.
type Init struct {
	supervisor Supervisor // of several apps, the main one's
	name       string
	others     []App
	extra      func() Extra
	began      time.Time

	mu    sync.Mutex // of what is counted across runs
	usage map[string]*accountant
}

// App is one of several apps.
type App struct {
	Name string
	Supervisor
}

// NewInit makes it. extra is called for each facts and must not block. Of several apps, s is the main one with the Health of all, which is
// that of /readyz, and name is its name.
func NewInit(s Supervisor, extra func() Extra, name string, others ...App) *Init {
	return &Init{supervisor: s, name: name, others: others, extra: extra, began: time.Now(), usage: map[string]*accountant{}}
}

// Serve answers one run of the helper until it is gone or ctx ends, and tells it the news. It blocks as long; nothing of it is left
// afterwards. The caller closes c when ctx ends.
func (i *Init) Serve(ctx context.Context, c Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	var news sync.WaitGroup
	defer news.Wait()
	defer cancel()
	news.Go(func() {
		if i.tellNews(ctx, c) != nil && ctx.Err() == nil {
			_ = c.Close() // it does not read: Receive below ends, and with it the run
		}
	})
	for {
		var a ask
		if err := c.Receive(&a); err != nil {
			return err
		}
		if err := c.Send(i.answer(ctx, a)); err != nil {
			return err
		}
	}
}

// tellNews passes the news on until ctx ends or nothing more happens.
func (i *Init) tellNews(ctx context.Context, c Conn) error {
	sub := i.supervisor.Subscribe(0)
	defer sub.Close()
	for first := true; ; first = false {
		news, lost, err := sub.Next(ctx)
		if errors.Is(err, swap.ErrEnded) {
			return nil
		}
		if err != nil {
			return err
		}
		if first {
			lost = 0 // it was not there
		}
		if err := c.Send(tell{Began: i.began, News: news, Lost: lost}); err != nil {
			return err
		}
	}
}

func (i *Init) answer(ctx context.Context, a ask) tell {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	t := tell{ID: a.ID}
	gap := healthGap
	switch a.Want {
	case wantHealth:
		h := i.health(ctx)
		t.Health = &h
	case wantFacts:
		gap = factsGap
		f, err := i.facts(ctx)
		if err != nil {
			t.Error = err.Error()
			break
		}
		t.Facts = f
	default:
		t.Error = fmt.Sprintf("unknown question %.20q", a.Want)
	}
	select {
	case <-time.After(gap): // the next question waits
	case <-ctx.Done():
	}
	return t
}

func (i *Init) health(ctx context.Context) Health { return healthOf(ctx, i.supervisor) }

func healthOf(ctx context.Context, s Supervisor) Health {
	if err := s.Health(ctx); err != nil {
		return Health{Why: err.Error()}
	}
	return Health{OK: true}
}

func (i *Init) facts(ctx context.Context) (*Facts, error) {
	all, err := i.of(ctx, App{i.name, i.supervisor})
	if err != nil {
		return nil, err
	}
	all.Extra = i.extra()
	for _, a := range i.others {
		f, err := i.of(ctx, a)
		if err != nil {
			return nil, err
		}
		all.Others = append(all.Others, f)
	}
	return all, nil
}

func (i *Init) of(ctx context.Context, a App) (*Facts, error) {
	st, err := a.Status(ctx)
	if err != nil {
		return nil, err
	}
	c, err := a.Counters(ctx)
	if err != nil {
		return nil, err
	}
	st.App = a.Name
	i.mu.Lock()
	defer i.mu.Unlock()
	books := i.usage[a.Name]
	if books == nil {
		books = &accountant{root: "/proc", last: map[int]time.Duration{}}
		i.usage[a.Name] = books
	}
	return &Facts{Health: healthOf(ctx, a), Status: st, Counters: c, Usage: books.look(&st), App: a.Name}, nil
}
