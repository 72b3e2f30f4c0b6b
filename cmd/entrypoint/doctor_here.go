package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/handoff/transparent"
	"github.com/hotswap-init/entrypoint/internal/artifact"
	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/doctor/here"
	"github.com/hotswap-init/entrypoint/internal/swap"
	"github.com/hotswap-init/entrypoint/reaper"
)

// hereSchema is the version of the JSON form of hereReport. A field may be added without a new version; none is renamed or removed.
const hereSchema = 1

// hereReport is what doctor --json prints.
type hereReport struct {
	Schema    int           `json:"schema"`
	Code      int           `json:"code"`
	Text      string        `json:"text"`
	Follows   []here.Choice `json:"follows"`
	Running   *runningInit  `json:"running,omitempty"` // nil: no init was reached
	NoInit    string        `json:"no_init,omitempty"` // why none was reached
	Checks    []here.Row    `json:"checks"`
	ElapsedMS int64         `json:"elapsed_ms"`
}

// runningInit is what the init of this container chose.
type runningInit struct {
	PID        int      `json:"pid"`
	Handoff    string   `json:"handoff"`
	HandoffWhy string   `json:"handoff_why,omitempty"`
	Exec       string   `json:"exec,omitempty"` // memfd, file or path, of the active generation
	ExecWhy    string   `json:"exec_why,omitempty"`
	Sockets    []string `json:"sockets"` // name and mode of each
}

// examineHere is doctor without --drain.
func (c *call) examineHere() int {
	began := time.Now()
	setup, _, faults := loadAll(os.Environ(), nil)
	if faults != nil {
		setup, _ = load(nil, nil) // the defaults are without fault
	}
	r := hereReport{Schema: hereSchema}
	st := c.ask(control.Request{Op: control.OpStatus})
	if st.Code == codeDone && st.Status != nil {
		r.Running = runningOf(st.Status)
	} else {
		r.NoInit = sentence(st)
	}
	system := here.System{}
	if r.Running != nil {
		system.Init = r.Running.PID
	}
	report := here.Examine(system, setup.asked(), setup.tries())
	r.Follows, r.Checks = report.Follows, append([]here.Row{configurationRow(setup, faults)}, report.Rows...)
	r.ElapsedMS = time.Since(began).Milliseconds()
	r.conclude()
	if c.json {
		c.object(r)
	} else {
		columns, _ := terminalSize(c.getenv)
		c.text(herePage(&r, columns))
	}
	return r.Code
}

// conclude counts the rows.
func (r *hereReport) conclude() {
	count := map[here.State]int{}
	for _, row := range r.Checks {
		count[row.State]++
	}
	r.Text = "all that the configuration asks for works here"
	if n := count[here.Fails]; n > 0 {
		r.Code, r.Text = codeRejected, countOf(uint64(n), "thing", "things")+" that the configuration asks for cannot work here"
	}
	if n := count[here.Missing] + count[here.Limited]; n > 0 {
		r.Text += fmt.Sprintf("; %d more to know of", n)
	}
}

// configurationRow is whether the environment can be understood at all.
func configurationRow(s *setup, faults error) here.Row {
	row := here.Row{Name: "variables", State: here.Works, Found: "the variables have no faults"}
	warnings := s.cfg.Warnings()
	switch n := len(split(faults)); {
	case n > 0:
		row.State, row.Found = here.Fails, fmt.Sprintf("%s in the variables, so that what follows is about the defaults", countOf(uint64(n), "fault", "faults"))
		row.Remedy = "`entrypoint check` tells each with its remedy"
	case len(warnings) > 0:
		row.State, row.Found = here.Limited, countOf(uint64(len(warnings)), "warning", "warnings")+" about the variables"
		row.Remedy = "`entrypoint check` tells each"
	}
	return row
}

// asked is what the doctor compares with.
func (s *setup) asked() here.Asked {
	c := s.cfg
	a := here.Asked{
		Handoff: c.Handoff, Held: len(s.addresses), Exec: c.Exec, StateDir: c.StateDir, Steer: c.Steer == "auto", Canary: len(s.canary) > 0,
		Watch: len(s.watched) > 0, Poll: time.Duration(c.WatchPoll), Subreaper: c.Subreaper,
		Grace: time.Duration(c.Grace), Delay: time.Duration(c.ShutdownDelay), Timeout: time.Duration(c.ShutdownTimeout),
	}
	for _, address := range s.addresses {
		if address.Path == "" {
			a.Ports = append(a.Ports, address.Port)
		}
		a.Backlog = max(a.Backlog, address.Options.Backlog)
	}
	if s.user != nil {
		a.User = &here.ID{UID: int(s.user.UID), GID: int(s.user.GID)}
	}
	return a
}

// tries are the questions that take other packages of ours: each is answered by what the init itself does.
func (s *setup) tries() here.Tries {
	try := reaper.New().TryExec
	t := here.Tries{Memfd: func() error { return artifact.MemoryExecutable(try) }, Filter: transparent.Probe, Rehearse: s.rehearseBind, Steer: trySteering}
	if dir := s.cfg.StateDir; dir != "" {
		t.StateDir = func() error { return artifact.DirectoryExecutable(dir, try) }
	}
	return t
}

// trySteering holds an address of the loopback interface for a moment.
func trySteering() error {
	set, err := handoff.Open([]handoff.Address{{Name: "try", Scheme: "tcp4", Host: "127.0.0.1"}}, handoff.Config{Steer: true})
	if err != nil {
		return err
	}
	held := set.Status()
	if err := set.Close(); err != nil {
		return err
	}
	if len(held) == 0 || held[0].Mode != "steered" {
		return errors.New(held[0].Why)
	}
	return nil
}

// hereRehearsal bounds the rehearsal, which takes some milliseconds.
const hereRehearsal = 5 * time.Second

// rehearseBind does what the init does before the first start: a process of the app's user binds, and is given our socket.
func (s *setup) rehearseBind() error {
	r := reaper.New()
	reaping, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(reaping) }) // its error is the end of its context
	defer running.Wait()
	defer stop()
	ctx, cancel := context.WithTimeoutCause(context.Background(), hereRehearsal, errors.New("the rehearsed bind took too long"))
	defer cancel()
	app := swap.App{Reaper: r, Helper: "/proc/self/exe", Credential: s.user, Umask: int(s.cfg.Umask), NoNewPrivs: bool(s.cfg.NoNewPrivs), TTY: -1}
	_, err := app.TryInterception(ctx)
	return err
}

func runningOf(s *swap.Status) *runningInit {
	r := &runningInit{PID: s.PID, Handoff: s.Handoff, HandoffWhy: s.HandoffWhy}
	if g := generation(s, s.Active); g != nil && g.Artifact != nil {
		r.Exec, r.ExecWhy = g.Artifact.Exec, g.Artifact.Why
	}
	for _, socket := range s.Sockets {
		r.Sockets = append(r.Sockets, socket.Name+" "+withWhy(socket.Mode, socket.Why))
	}
	return r
}

// line says it for people.
func (r *runningInit) line() string {
	parts := []string{fmt.Sprintf("pid %d chose %s", r.PID, withWhy(r.Handoff, r.HandoffWhy))}
	if r.Exec != "" {
		parts = append(parts, "the app runs from "+map[string]string{"memfd": "a private copy in memory", "file": "a private copy in the state directory", "path": "its own file"}[r.Exec])
	}
	if len(r.Sockets) > 0 {
		parts = append(parts, strings.Join(r.Sockets, ", "))
	}
	return strings.Join(parts, "; ")
}

// Where the texts of the rows begin.
const hereIndent = 23

// herePage is the report for people.
func herePage(r *hereReport, columns int) string {
	b := &page{columns: columns}
	b.label("result", "%s", r.Text)
	if r.Running != nil {
		b.label("init", "%s", r.Running.line())
	} else {
		b.label("init", "none was reached (%s); this is what one would choose:", r.NoInit)
	}
	for _, c := range r.Follows {
		b.label(c.What, "%s", withWhy(c.Value, c.Why))
	}
	b.WriteString("\n" + wrapTo(columns, fmt.Sprintf("  %-10s  %-7s", "CHECK", "RESULT"), hereIndent, "FOUND"))
	for _, row := range r.Checks {
		state := string(row.State)
		if row.State == here.Fails {
			state = "FAILS"
		}
		b.WriteString(wrapTo(columns, fmt.Sprintf("  %-10s  %-7s", row.Name, state), hereIndent, row.Found))
		if row.Remedy != "" {
			b.WriteString(wrapTo(columns, "", hereIndent, "cure: "+row.Remedy))
		}
	}
	return b.String()
}
