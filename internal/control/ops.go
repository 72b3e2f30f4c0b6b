package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// do does what a checked request asks for and blocks until that is decided or ctx is done.
func (s *Server) do(ctx context.Context, r Request, c *client) Result {
	result, err := s.decide(ctx, r, c)
	if err != nil {
		if r.Upload != nil {
			r.Upload.Close()
		}
		result = failure(codeOf(err), err)
	}
	result.Event, result.V, result.Op = "result", Version, r.Op
	return result
}

func (s *Server) decide(ctx context.Context, r Request, c *client) (result Result, err error) {
	var sup Supervisor
	if r.Op == OpStop {
		result.Result = s.stop(ctx, r.Now)
		return result, nil
	}
	if sup, err = s.of(r); err != nil {
		return Result{}, err
	}
	switch {
	case r.swaps():
		result.Result = s.swap(ctx, sup, r, c)
	case r.Op == OpPromote:
		result.Result = sup.Promote(ctx, c.cause(r.Op), r.Full)
	case r.Op == OpUpgrade:
		result.Text, err = s.upgrade(ctx, r, c)
	case r.Op == OpAbort:
		result.Result = sup.Abort(ctx, c.cause(r.Op))
	default:
		ctx, cancel := context.WithTimeout(ctx, s.limit.query)
		defer cancel()
		err = s.query(ctx, sup, r, &result)
	}
	return result, err
}

func (s *Server) stop(ctx context.Context, now bool) swap.Result {
	if s.o.Stop != nil {
		return s.o.Stop(ctx, now)
	}
	return s.o.Supervisor.Stop(ctx, now)
}

// whole are the operations that are about all apps where none is named.
var whole = []string{OpReopen, OpUpgrade, OpStatus, OpHealth, OpPS, OpConfig, OpVersion}

// of is the supervisor of the app that is meant.
func (s *Server) of(r Request) (Supervisor, error) {
	switch {
	case len(s.o.Apps) == 0 && r.App == "", r.App == "" && slices.Contains(whole, r.Op):
		return s.o.Supervisor, nil
	case len(s.o.Apps) == 0 && r.Op == OpReload:
		return nil, usagef("there is one app here, which has no name: got %q; for another command line: entrypoint run -- %s", r.App, r.App)
	case len(s.o.Apps) == 0:
		return nil, usagef("there is one app here, which has no name: got %q", r.App)
	case r.App == "":
		return nil, usagef("there are several apps here: name one of %s", s.names())
	}
	for _, a := range s.o.Apps {
		if a.Name == r.App {
			return a.Supervisor, nil
		}
	}
	return nil, usagef("there is no app %q here: name one of %s", r.App, s.names())
}

func (s *Server) names() string {
	var list []string
	for _, a := range s.o.Apps {
		list = append(list, a.Name)
	}
	return strings.Join(list, ", ")
}

// swap asks for a swap and passes its phases on. The end of ctx, be it the client's timeout, its death or the end of the
// server, ends the waiting only.
func (s *Server) swap(ctx context.Context, sup Supervisor, r Request, c *client) swap.Result {
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
	result := sup.Swap(ctx, c.wish(r), progress)
	if !waits && result.Code == swap.CodeTimeout {
		result.Text = "the swap has begun and was not waited for"
	}
	return result
}

// wish is the request as the supervisor understands it.
func (c *client) wish(r Request) swap.Request {
	q := swap.Request{
		Kind: swap.Kind(r.Op), Cause: c.cause(r.Op), Command: r.Command, Force: r.Force, Workers: r.Workers, Drained: r.Until == UntilDrained,
	}
	if r.Upload != nil {
		q.Upload = c.upload(r)
	}
	return q
}

func (c *client) upload(r Request) *swap.Upload {
	u := &swap.Upload{
		File: r.Upload, Path: r.Path, SHA256: strings.ToLower(r.SHA256), From: fmt.Sprintf("pid %d, uid %d", c.peer.Pid, c.peer.Uid),
	}
	if r.Signature != "" {
		u.Signature = []byte(r.Signature)
	}
	return u
}

// upgradeTimeout bounds how long a run of the new program has to show that it works.
const upgradeTimeout = 15 * time.Second

func (s *Server) upgrade(ctx context.Context, r Request, c *client) (string, error) {
	if s.o.Upgrade == nil {
		return "", errors.New("there is no proxy to upgrade: ENTRYPOINT_HANDOFF is not proxy")
	}
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	text, err := s.o.Upgrade(ctx, c.upload(r))
	if err == nil {
		err = r.Upload.Close()
	}
	return text, err
}

// cause is how the history of swaps names the requester.
func (c *client) cause(op string) string {
	return fmt.Sprintf("command %s (pid %d, uid %d)", op, c.peer.Pid, c.peer.Uid)
}

// query answers the operations that return at once.
func (s *Server) query(ctx context.Context, sup Supervisor, r Request, out *Result) error {
	switch r.Op {
	case OpSignal:
		return signalTo(ctx, sup, r.Signal, out)
	case OpStatus:
		return s.status(ctx, sup, r.App, out)
	case OpHealth:
		out.Text = "healthy"
		if r.App == "" && s.o.Health != nil {
			return s.o.Health(ctx)
		}
		return sup.Health(ctx)
	case OpReopen:
		return s.reopen(out)
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

func (s *Server) reopen(out *Result) (err error) {
	if s.o.Reopen == nil {
		return errors.New("there is no log file to reopen: ENTRYPOINT_APP_LOG names none")
	}
	out.Text, err = s.o.Reopen()
	return err
}

func signalTo(ctx context.Context, sup Supervisor, name string, out *Result) error {
	sig, err := parseSignal(name)
	if err != nil {
		return err
	}
	label := unix.SignalName(sig)
	if label == "" {
		label = fmt.Sprintf("signal %d", int(sig))
	}
	out.Text = "sent " + label + " to the active generation"
	return sup.Signal(ctx, sig)
}

func (s *Server) status(ctx context.Context, sup Supervisor, app string, out *Result) error {
	st, err := s.statusOf(ctx, sup, app)
	if err != nil {
		return err
	}
	out.Status, out.Text = &st, st.State
	if app != "" {
		return nil
	}
	for _, a := range s.o.Apps {
		st, err := s.statusOf(ctx, a.Supervisor, a.Name)
		if err != nil {
			return err
		}
		if a.Supervisor == s.o.Supervisor {
			out.Status.App = a.Name
		}
		out.Apps = append(out.Apps, st)
	}
	return nil
}

func (s *Server) statusOf(ctx context.Context, sup Supervisor, app string) (swap.Status, error) {
	st, err := sup.Status(ctx)
	if st.Version == "" {
		st.Version = s.o.Version
	}
	st.App = app
	return st, err
}

// processes lists the main processes of the generations that still have one, then the other descendants.
func (s *Server) processes(ctx context.Context, out *Result) error {
	out.Processes = []Process{{PID: os.Getpid(), State: "init"}}
	apps := s.o.Apps
	if len(apps) == 0 {
		apps = []App{{"", s.o.Supervisor}}
	}
	for _, a := range apps {
		st, err := a.Status(ctx)
		if err != nil {
			return err
		}
		for _, g := range st.Generations {
			for _, w := range g.Workers {
				if w.PID != 0 && w.State != swap.Exited {
					out.Processes = append(out.Processes, Process{PID: w.PID, App: a.Name, Generation: g.Number, Worker: w.Number, State: string(w.State)})
				}
			}
			if g.PID != 0 && g.EndedAt.IsZero() && len(g.Workers) == 0 {
				out.Processes = append(out.Processes, Process{PID: g.PID, App: a.Name, Generation: g.Number, State: string(g.State)})
			}
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
