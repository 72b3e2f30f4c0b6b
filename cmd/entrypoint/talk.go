package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

const (
	// queryTime is what a question may take that the init answers from memory. It also bounds connecting.
	queryTime = 10 * time.Second
	// guardTime is what an init that answers in time may need beyond --timeout to say so.
	guardTime = 2 * time.Second
)

// ask sends a question that is answered at once, and reports faults. The result is good if its code is 0.
func (c *call) ask(r control.Request) control.Result {
	ctx, cancel := context.WithTimeout(context.Background(), queryTime)
	defer cancel()
	return c.do(ctx, r, nil)
}

// do sends a request to the init and returns its result. What kept us from it becomes a result too, with the code of that.
func (c *call) do(ctx context.Context, r control.Request, event func(control.Event)) control.Result {
	dialing, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	address, err := c.address()
	if err != nil {
		return failed(r, codeNoInit, err.Error())
	}
	client, err := control.Dial(dialing, address)
	if err != nil {
		return failed(r, codeNoInit, err.Error())
	}
	result, err := client.Do(ctx, r, event)
	switch {
	case errors.Is(err, context.Canceled):
		return failed(r, codeTimeout, "interrupted: the "+r.Op+" goes on; `entrypoint status` shows what becomes of it")
	case errors.Is(err, context.DeadlineExceeded):
		return failed(r, codeTimeout, err.Error())
	case err != nil:
		return failed(r, codeNoInit, err.Error())
	}
	return result
}

// failed is a result that the init did not give.
func failed(r control.Request, code int, text string) control.Result {
	return control.Result{Event: "result", V: control.Version, Op: r.Op, Result: swap.Result{Code: code, Text: text}}
}

// address is where the configuration of the container says that the init listens. An exec session has the environment of the
// container; no other variable of it is looked at, so that a fault elsewhere in it does not keep anybody from talking to the init.
func (c *call) address() (string, error) {
	file := c.getenv("ENTRYPOINT_CONTROL_FILE")
	if address := c.getenv("ENTRYPOINT_CONTROL"); address != "" || file == "" {
		return address, nil
	}
	b, err := os.ReadFile(file)
	return strings.TrimSuffix(string(b), "\n"), err
}

// change asks for a swap, shows its phases while they happen, and says at the end what happened. An interrupt ends the waiting and
// not the swap.
func (c *call) change(r control.Request) int { return c.changeThen(r, c.end) }

// changeThen leaves the end to the command.
func (c *call) changeThen(r control.Request, end func(control.Result) int) int {
	switch until := c.values["wait"]; until {
	case "", control.UntilPromoted:
	case control.UntilDrained:
		r.Until = until
	default:
		return c.usage("--wait: cannot wait until %q: write promoted or drained", until)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if text, ok := c.values["timeout"]; ok {
		d, err := duration(text)
		if err != nil {
			return c.usage("--timeout: %v", err)
		}
		r.TimeoutMS = d.Milliseconds()
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d+guardTime)
		defer cancel()
	}
	return end(c.do(ctx, r, c.phases()))
}

// phases prints each event with the time since the first one.
func (c *call) phases() func(control.Event) {
	var first time.Time
	return func(e control.Event) {
		if c.json {
			return
		}
		if first.IsZero() {
			first = e.Time
		}
		c.phase(e.Time.Sub(first), e.Generation, e.Phase, e.Text)
	}
}

// end prints a result and returns its code.
func (c *call) end(r control.Result) int {
	switch {
	case c.json:
		c.object(r)
	case r.Code == codeDone:
		c.answer("%s", sentence(r))
	default:
		c.fault(sentence(r))
		c.tail(r.Output)
	}
	return r.Code
}

// sentence is the text of a result; every code has one, also where the init said nothing.
func sentence(r control.Result) string {
	if r.Text != "" {
		return r.Text
	}
	switch r.Code {
	case codeDone:
		return "done"
	case codeRejected:
		return "rejected: it failed, the old one serves on"
	case codeBusy:
		return "busy: another swap is under way"
	case codeRolledBack:
		return "rolled back after promotion"
	case codeTimeout:
		return "timed out waiting: the swap goes on"
	}
	return "the init refused, and did not say why"
}
