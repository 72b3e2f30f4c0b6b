package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// do does what a checked request asks for and blocks until that is decided or ctx is done.
func (s *Server) do(ctx context.Context, r Request, c *client) Result {
	var result Result
	switch {
	case r.swaps():
		result.Result = s.swap(ctx, r, c)
	case r.Op == OpStop:
		result.Result = s.o.Supervisor.Stop(ctx, r.Now)
	default:
		ctx, cancel := context.WithTimeout(ctx, s.limit.query)
		defer cancel()
		if err := s.query(ctx, r, &result); err != nil {
			result = failure(codeOf(err), err)
		}
	}
	result.Event, result.V, result.Op = "result", Version, r.Op
	return result
}

// swap asks for a swap and passes its phases on. The end of ctx, be it the client's timeout, its death or the end of the
// server, ends the waiting only.
func (s *Server) swap(ctx context.Context, r Request, c *client) swap.Result {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.TimeoutMS > 0 {
		ctx, cancel = context.WithTimeout(ctx, r.Timeout())
		defer cancel()
	}
	waits := r.Wait == nil || *r.Wait
	progress := func(p swap.Progress) {
		c.event(p)
		if !waits {
			cancel()
		}
	}
	result := s.o.Supervisor.Swap(ctx, swap.Request{Kind: swap.Kind(r.Op), Cause: c.cause(r.Op), Command: r.Command}, progress)
	if !waits && result.Code == swap.CodeTimeout {
		result.Text = "the swap has begun and was not waited for"
	}
	return result
}

// cause is how the history of swaps names the requester.
func (c *client) cause(op string) string {
	return fmt.Sprintf("command %s (pid %d, uid %d)", op, c.peer.Pid, c.peer.Uid)
}

// query answers the operations that return at once.
func (s *Server) query(ctx context.Context, r Request, out *Result) error {
	switch r.Op {
	case OpSignal:
		return s.signal(ctx, r.Signal, out)
	case OpStatus:
		return s.status(ctx, out)
	case OpHealth:
		out.Text = "healthy"
		return s.o.Supervisor.Health(ctx)
	case OpPS:
		return s.processes(ctx, out)
	case OpConfig:
		return s.config(out)
	case OpVersion:
		out.Version, out.Text = s.o.Version, "entrypoint "+s.o.Version
		return nil
	}
	return fmt.Errorf("internal error: operation %q has no answer", r.Op)
}

func (s *Server) signal(ctx context.Context, name string, out *Result) error {
	sig, err := parseSignal(name)
	if err != nil {
		return err
	}
	label := unix.SignalName(sig)
	if label == "" {
		label = fmt.Sprintf("signal %d", int(sig))
	}
	out.Text = "sent " + label + " to the active generation"
	return s.o.Supervisor.Signal(ctx, sig)
}

func (s *Server) status(ctx context.Context, out *Result) error {
	st, err := s.o.Supervisor.Status(ctx)
	if err != nil {
		return err
	}
	if st.Version == "" {
		st.Version = s.o.Version
	}
	out.Status, out.Text = &st, st.State
	return nil
}

// processes lists the main processes of the generations that still have one, then the other descendants.
func (s *Server) processes(ctx context.Context, out *Result) error {
	st, err := s.o.Supervisor.Status(ctx)
	if err != nil {
		return err
	}
	out.Processes = []Process{{PID: os.Getpid(), State: "init"}}
	for _, g := range st.Generations {
		if g.PID != 0 && g.EndedAt.IsZero() {
			out.Processes = append(out.Processes, Process{PID: g.PID, Generation: g.Number, State: string(g.State)})
		}
	}
	if s.o.Descendants == nil {
		return nil
	}
	known := slices.Clone(out.Processes)
	for _, pid := range s.o.Descendants() {
		if !slices.ContainsFunc(known, func(p Process) bool { return p.PID == pid }) {
			out.Processes = append(out.Processes, Process{PID: pid})
		}
	}
	return nil
}

func (s *Server) config(out *Result) (err error) {
	if s.o.Config == nil {
		return usagef("operation %q is not offered by this init", OpConfig)
	}
	out.Config, err = s.o.Config()
	return err
}

// failure is the result line of an error.
func failure(code int, err error) Result {
	return Result{Event: "result", V: Version, Result: swap.Result{Code: code, Text: err.Error()}}
}

// codeOf is the exit code that an error of a query stands for.
func codeOf(err error) int {
	switch {
	case errors.As(err, new(usageError)):
		return swap.CodeUsage
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return swap.CodeTimeout
	}
	return swap.CodeRejected
}
