package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/control"
	"github.com/hotswap-init/entrypoint/internal/doctor"
	"github.com/hotswap-init/entrypoint/internal/swap"
)

var doctorCommand = &command{
	name:    "doctor",
	summary: "say what works here, or with --drain what clients lose in a swap",
	options: []option{
		jsonOption,
		{"drain", "", "examine how the app takes leave of its clients: swap it under load, and count"},
		{"url", "URL", "what to ask for, http:// only; else / at the first TCP address that is held"},
		{"clients", "N", "keep-alive clients, 1 to 1000; 16. A quarter as many make a new connection for each request"},
		{"swaps", "N", "1 to 1000; 3"},
		{"post", "N", "POST so many bytes, instead of GET"},
		{"pause", "D", "of a client between two requests; 10ms"},
		{"timeout", "D", "of one request; 10s"},
	},
	usage: "[--json] [--drain [OPTION]…]",
	details: "Without --drain it tries what the init would use: memory files, seccomp, steering, inotify, limits, rights, times. It says which mode " +
		"follows and what to change, needs no running init and changes nothing. Exit code 0: what the configuration asks for works; 1: something of it does not. " +
		"With --drain each swap is a reload of the bytes that the app's path has now, and the clients are real ones to the app: do not point it at a URL that changes something. " +
		"Nothing is asked twice, so each request that was lost is counted. Exit code 0: nothing was lost; 1: something was, or a swap was " +
		"refused; 2: the URL gives no answer; 3: a doctor or a swap is at work already.",
	run: runDoctor,
}

// The bounds of --clients and --swaps, and of --post: more would measure this process.
const (
	mostClients = 1000
	mostSwaps   = 1000
	mostPost    = 1 << 20
)

func runDoctor(c *call) int {
	switch {
	case len(c.args) > 0:
		return c.usage("doctor takes no words: got %q", c.args[0])
	case !c.has("drain"):
		for _, name := range slices.Sorted(maps.Keys(c.values)) {
			if name != "json" {
				return c.usage("--%s is of doctor --drain", name)
			}
		}
		return c.examineHere()
	}
	o, err := c.doctorOptions()
	if err != nil {
		return c.usage("%v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	st := c.ask(control.Request{Op: control.OpStatus})
	if st.Code != codeDone || st.Status == nil {
		return c.end(st)
	}
	lock, err := soleDoctor(st.Status.PID)
	switch {
	case errors.Is(err, errBusy):
		return c.noDoctor(codeBusy, err)
	case err != nil:
		return c.noDoctor(codeRejected, err)
	}
	defer lock.Close()
	if err := c.target(&o, st.Status.Sockets); err != nil {
		return c.noDoctor(codeUsage, err)
	}
	return c.examine(ctx, o)
}

// noDoctor ends a doctor that has not begun.
func (c *call) noDoctor(code int, err error) int {
	return c.end(failed(control.Request{Op: c.command.name}, code, err.Error()))
}

// doctorOptions reads all options but --url.
func (c *call) doctorOptions() (o doctor.Options, err error) {
	o = doctor.Options{Clients: 16, Swaps: 3, Pause: 10 * time.Millisecond, Timeout: queryTime}
	for _, n := range []struct {
		name string
		most int
		to   *int
	}{{"clients", mostClients, &o.Clients}, {"swaps", mostSwaps, &o.Swaps}, {"post", mostPost, &o.Post}} {
		text, ok := c.values[n.name]
		if !ok {
			continue
		}
		if *n.to, err = strconv.Atoi(text); err != nil || *n.to < 1 || *n.to > n.most {
			return o, fmt.Errorf("--%s: cannot use %q: write a number from 1 to %d", n.name, text, n.most)
		}
	}
	for _, d := range []struct {
		name string
		to   *time.Duration
	}{{"pause", &o.Pause}, {"timeout", &o.Timeout}} {
		text, ok := c.values[d.name]
		if !ok {
			continue
		}
		if *d.to, err = duration(text); err != nil {
			return o, fmt.Errorf("--%s: %w", d.name, err)
		}
	}
	o.NewClients = max(1, o.Clients/4)
	return o, nil
}

// soleDoctor keeps a second one away from the same init: they would count each other's swaps. The name is free again
// when the one that it returns is closed, or the process has ended.
func soleDoctor(init int) (net.Listener, error) {
	namespace, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", fmt.Sprintf("@entrypoint-doctor/%s/%d", namespace, init))
	if errors.Is(err, syscall.EADDRINUSE) {
		err = errBusy
	}
	return l, err
}

var errBusy = errors.New("busy: another doctor is at work")

// target says where the requests go: to --url, or to the first held address that answers.
func (c *call) target(o *doctor.Options, sockets []handoff.SocketStatus) error {
	if text, ok := c.values["url"]; ok {
		return parseURL(o, text)
	}
	o.Path = "/"
	addresses := heldTCP(sockets)
	if len(addresses) == 0 {
		return errors.New("no TCP address is held: name what to ask for with --url http://127.0.0.1:PORT/")
	}
	for _, o.Address = range addresses {
		o.Host = o.Address
		conn, err := net.DialTimeout("tcp", o.Address, o.Timeout)
		if err == nil {
			return conn.Close()
		}
	}
	o.Address, o.Host = addresses[0], addresses[0]
	return nil
}

func parseURL(o *doctor.Options, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" {
		return fmt.Errorf("--url: cannot use %q: write http://127.0.0.1:8080/path", text)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	o.Address, o.Host, o.Path = net.JoinHostPort(u.Hostname(), port), u.Host, strings.ReplaceAll(u.RequestURI(), " ", "%20")
	return nil
}

// heldTCP is where the first held TCP address can be reached from inside.
func heldTCP(sockets []handoff.SocketStatus) []string {
	for _, s := range sockets {
		text, tcp := strings.CutPrefix(s.Address, "tcp://")
		a, err := netip.ParseAddrPort(text)
		if !tcp || err != nil {
			continue
		}
		port := strconv.Itoa(int(a.Port()))
		if a.Addr().IsUnspecified() {
			return []string{"127.0.0.1:" + port, "[::1]:" + port}
		}
		return []string{a.String()}
	}
	return nil
}

// examine runs the doctor and prints what it found.
func (c *call) examine(ctx context.Context, o doctor.Options) int {
	refused := control.Result{}
	phases := c.phases()
	r, err := doctor.Drain(ctx, o, doctor.Init{
		Reload: func(ctx context.Context) error {
			if refused = c.do(ctx, control.Request{Op: control.OpReload}, phases); refused.Code != codeDone {
				return errors.New("a swap was not done: " + sentence(refused))
			}
			return nil
		},
		Lives: c.lives,
	})
	if errors.Is(err, doctor.ErrNoAnswer) {
		return c.noDoctor(codeUsage, fmt.Errorf("%w: name what to ask for with --url", err))
	}
	r.URL = "http://" + o.Host + o.Path
	switch {
	case ctx.Err() != nil:
		r.Code, r.Text = codeTimeout, "interrupted: "+r.Text
	case err != nil:
		r.Code, r.Text = max(refused.Code, codeRejected), err.Error()+"; until then, "+r.Text
	case r.Lost.Total() > 0:
		r.Code = codeRejected
	}
	if c.json {
		c.object(r)
		return r.Code
	}
	c.text(doctorPage(r))
	if err != nil {
		c.fault(r.Text)
	}
	return r.Code
}

// lives asks the init what became of its generations.
func (c *call) lives(context.Context) ([]doctor.Life, error) {
	r := c.ask(control.Request{Op: control.OpStatus})
	if r.Code != codeDone || r.Status == nil {
		return nil, errors.New(sentence(r))
	}
	var lives []doctor.Life
	for _, g := range r.Status.Generations {
		if g.ActiveAt.IsZero() {
			continue
		}
		lives = append(lives, lifeOf(g))
	}
	return lives, nil
}

func lifeOf(g swap.Generation) doctor.Life {
	return doctor.Life{Number: g.Number, Active: g.ActiveAt, Signalled: g.SignalledAt, Killed: g.KilledAt, Ended: g.EndedAt, Died: g.Reason != ""}
}

// doctorPage is the report for people.
func doctorPage(r *doctor.Report) string {
	var b strings.Builder
	label := func(name, format string, a ...any) {
		b.WriteString(wrap(name, labelWidth, fmt.Sprintf(format, a...)))
	}
	label("result", "%s", r.Text)
	label("load", "%s, %s, %s", r.URL, countOf(uint64(r.Clients), "keep-alive client", "keep-alive clients"),
		countOf(uint64(r.NewClients), "client with new connections", "clients with new connections"))
	label("keep-alive", "%d of %d lost", r.Lost.Kept, r.Requests.Kept)
	label("new", "%d of %d lost", r.Lost.New, r.Requests.New)
	if len(r.Generations) > 0 {
		label("leave", "%s", leaves(r.Generations))
	}
	if len(r.Losses) > 0 {
		b.WriteString("\n" + lossTable(r.Losses))
	}
	for _, a := range r.Advice {
		b.WriteString("\n")
		label("cure of "+strconv.Itoa(a.Count), "%s", a.Text)
	}
	return b.String()
}

// leaves says how long generations took to end, and how many of them had to be killed.
func leaves(all []doctor.Ended) string {
	longest, killed := int64(0), 0
	for _, g := range all {
		longest = max(longest, g.EndMS-g.SignalMS)
		if g.KillMS != 0 {
			killed++
		}
	}
	text := fmt.Sprintf("at most %s from the stop signal to the end", time.Duration(longest)*time.Millisecond)
	if killed > 0 {
		text += fmt.Sprintf(", %d of %d by KILL", killed, len(all))
	}
	return text
}

func lossTable(losses []doctor.Row) string {
	var rows [][]string
	for _, l := range losses {
		rows = append(rows, []string{strconv.Itoa(l.Count), string(l.Class), string(l.Kind), l.Span(), string(l.Cause)})
	}
	return table([]column{{"LOST", true}, {"CLIENTS", false}, {"KIND", false}, {"WHEN", false}, {"CAUSE", false}}, rows, width)
}
