package swap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Member is one of several apps in a container. Its supervisor has Options.Stay unless it is the main one, and no ShutdownDelay: the
// crew has that.
type Member struct {
	Name string
	*Supervisor
}

// CrewOptions say what the members have in common.
type CrewOptions struct {
	Members         []Member // in the order of their start; they are stopped in the opposite one
	Main            int      // whose end ends all
	Log             *slog.Logger
	ShutdownDelay   time.Duration // after a stop request all serve on for so long
	ShutdownTimeout time.Duration // then one deadline for all of them together
}

// Crew runs several apps side by side, each with generations of its own, and ends them one after the other. Make one with NewCrew, then
// call Run once; the other methods may be called from any goroutine.
type Crew struct {
	o    CrewOptions
	done chan struct{}

	mu       sync.Mutex
	stopping bool
	by       time.Time     // the one deadline; zero before it counts
	again    chan struct{} // closed by a second stop
	asked    chan string   // the cause of the first one
}

// NewCrew makes a crew. Nothing runs until Run.
func NewCrew(o CrewOptions) *Crew {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Crew{o: o, done: make(chan struct{}), again: make(chan struct{}), asked: make(chan string, 1)}
}

// Run starts all members, each without waiting for the one before to be ready, and blocks until all have ended: because one was asked to
// stop all, because the main one ended, or because ctx did. It returns how the main one ended.
func (c *Crew) Run(ctx context.Context) Ending {
	ended := make([]chan Ending, len(c.o.Members))
	for i, m := range c.o.Members {
		ended[i] = make(chan Ending, 1)
		go func() { ended[i] <- m.Run(context.WithoutCancel(ctx)) }() // received below, always
	}
	main, over := Ending{}, false
	select {
	case main = <-ended[c.o.Main]:
		over = true
		c.TriggerStop(fmt.Sprintf("the main app %q has ended", c.o.Members[c.o.Main].Name))
	case <-c.asked:
		c.serveOn()
	case <-ctx.Done():
		c.TriggerStop("cancelled")
	}
	c.mu.Lock()
	c.by = time.Now().Add(c.o.ShutdownTimeout)
	c.mu.Unlock()
	deadline, release := context.WithDeadline(context.Background(), c.by)
	defer release()
	for i := len(c.o.Members) - 1; i >= 0; i-- {
		if i == c.o.Main && over {
			continue
		}
		end := c.end(deadline, i, ended[i])
		if i == c.o.Main {
			main = end
		}
	}
	close(c.done)
	return main
}

// serveOn lets all go on for a while after the stop was asked for, without the candidates that they may have.
func (c *Crew) serveOn() {
	if c.o.ShutdownDelay <= 0 {
		return
	}
	for _, m := range c.o.Members {
		m.Abort(context.Background(), "the container is ending") // the answer, that there is nothing to abort, is the usual one
	}
	c.o.Log.Info("serving on before the stop", "for", c.o.ShutdownDelay.String())
	t := time.NewTimer(c.o.ShutdownDelay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.again:
	}
}

// end stops one member and waits for it. At the deadline of all, or at a second stop, it is killed.
func (c *Crew) end(deadline context.Context, i int, ended chan Ending) Ending {
	m := c.o.Members[i]
	c.o.Log.Info("stopping an app", "app", m.Name)
	m.TriggerStop("the container is ending")
	select {
	case e := <-ended:
		return e
	case <-deadline.Done():
	case <-c.again:
	}
	m.TriggerStop("the container's time is over") // a second one kills
	return <-ended
}

// TriggerStop asks for the end of all and waits for nothing. A second one kills.
func (c *Crew) TriggerStop(cause string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		select {
		case <-c.again:
		default:
			close(c.again)
			c.o.Log.Warn("a second stop: killing all apps", "why", cause)
		}
		return
	}
	c.stopping = true
	c.o.Log.Info("stopping all apps", "why", cause)
	c.asked <- cause
}

// Stop is TriggerStop, with now twice, and waits for the end or for ctx.
func (c *Crew) Stop(ctx context.Context, now bool) Result {
	c.TriggerStop("stop command")
	if now {
		c.TriggerStop("stop command: now")
	}
	select {
	case <-c.done:
		return Result{Code: CodeDone, Text: "stopped all apps"}
	case <-ctx.Done():
		return Result{Code: CodeTimeout, Text: "stopped waiting; the container is ending"}
	}
}

// StopDeadline is when the shutdown's one deadline is over; zero before it counts.
func (c *Crew) StopDeadline() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by
}

// Health says whether every member has an active generation that serves, and no stop was asked for: nil, or why not.
func (c *Crew) Health(ctx context.Context) error {
	c.mu.Lock()
	stopping := c.stopping
	c.mu.Unlock()
	if stopping {
		return errors.New("stopping")
	}
	var all []error
	for _, m := range c.o.Members {
		if err := m.Health(ctx); err != nil {
			all = append(all, fmt.Errorf("app %q: %w", m.Name, err))
		}
	}
	return errors.Join(all...)
}

// Status asks every member, in their order.
func (c *Crew) Status(ctx context.Context) ([]Status, error) {
	var all []Status
	for _, m := range c.o.Members {
		st, err := m.Supervisor.Status(ctx)
		if err != nil && !errors.Is(err, ErrEnded) {
			return nil, err
		}
		st.App = m.Name
		all = append(all, st)
	}
	return all, nil
}
