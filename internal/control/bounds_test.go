package control

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

func TestRequestsThatMakeNoSense(t *testing.T) {
	s := start(t, ServerOptions{})
	hasty := start(t, ServerOptions{}, func(s *Server) { s.limit.request = 100 * time.Millisecond }) // for what never ends, and not for what comes late
	for name, c := range map[string]struct{ line, want string }{
		"garbage":        {"\x00\xff garbage\n", "cannot read the request: "},
		"not an object":  {"[1,2]\n", "cannot read the request: "},
		"empty line":     {"\n", "the line ends in the middle"},
		"half":           {`{"v":1,"op":` + "\n", "the line ends in the middle"},
		"two values":     {`{"v":1,"op":"health"}{}` + "\n", "more than one value"},
		"two lines":      {`{"v":1,"op":"health"}` + "\n" + `{"v":1}` + "\n", "more than one line"},
		"version":        {`{"v":2,"op":"teleport","where":"up"}` + "\n", "cannot answer protocol version 2: this init speaks version 1"},
		"no version":     {`{"op":"health"}` + "\n", "cannot answer protocol version 0"},
		"operation":      {`{"v":1,"op":"teleport"}` + "\n", `unknown operation "teleport": this init knows reload, run,`},
		"put of nothing": {`{"v":1,"op":"put"}` + "\n", "no program came with the request"},
		"relative path":  {`{"v":1,"op":"put","path":"app"}` + "\n", "the path must be absolute"},
		"short hash":     {`{"v":1,"op":"put","sha256":"ab"}` + "\n", "64 hexadecimal digits"},
		"until when":     {`{"v":1,"op":"reload","until":"noon"}` + "\n", `cannot wait until "noon"`},
		"field":          {`{"v":1,"op":"reload","fast":true}` + "\n", `unknown field "fast"`},
		"foreign field":  {`{"v":1,"op":"reload","now":true}` + "\n", `operation "reload" has no field "now"`},
		"no command":     {`{"v":1,"op":"run"}` + "\n", "cannot run an empty command line"},
		"NUL":            {`{"v":1,"op":"run","command":["a","b\u0000"]}` + "\n", "NUL byte"},
		"past timeout":   {`{"v":1,"op":"reload","timeout_ms":-1}` + "\n", "cannot wait -1 ms"},
		"long timeout":   {`{"v":1,"op":"reload","timeout_ms":9223372036854775807}` + "\n", "cannot wait 9223372036854775807 ms"},
		"too long":       {`{"v":1,"op":"` + strings.Repeat("x", MaxRequest) + `"}` + "\n", "longer than 65536 bytes"},
		"endless":        {strings.Repeat("x", 2*MaxRequest), "longer than 65536 bytes"},
		"never ends":     {`{"v":1,"op":"health"}`, "not complete after 100ms"},
	} {
		t.Run(name, func(t *testing.T) {
			at := s.address
			if name == "never ends" {
				at = hasty.address
			}
			conn := dialRaw(t, at)
			sent := make(chan bool)
			go func() { defer close(sent); conn.sendProven(c.line) }()
			if r := conn.result(); r.Code != swap.CodeUsage || !strings.Contains(r.Text, c.want) {
				t.Errorf("got %d %q, want code 2 and %q", r.Code, r.Text, c.want)
			}
			conn.Close()
			<-sent
		})
	}
}

func TestLongestRequestIsRead(t *testing.T) {
	s := start(t, ServerOptions{})
	frame := len(`{"v":1,"op":"run","command":["a",""]}` + "\n")
	c := dialRaw(t, s.address)
	c.sendProven(`{"v":1,"op":"run","command":["a","` + strings.Repeat("x", MaxRequest-frame) + `"]}` + "\n")
	if r := c.result(); r.Code != 0 {
		t.Errorf("got %d %q", r.Code, r.Text)
	}
}

// A request may come in any number of pieces; the proof comes with any of them.
func TestRequestInPieces(t *testing.T) {
	s := start(t, ServerOptions{})
	c := dialRaw(t, s.address)
	for i, b := range `{"v":1,"op":"health"}` + "\n" {
		if i == 5 {
			c.sendProven(string(b))
		} else {
			c.send(string(b))
		}
	}
	if r := c.result(); r.Code != 0 {
		t.Errorf("got %d %q", r.Code, r.Text)
	}
}

func TestSilentVisitors(t *testing.T) {
	s := start(t, ServerOptions{})
	for range 100 {
		dialRaw(t, s.address).Close()
	}
	if r, _ := ask(t, s.address, Request{Op: OpHealth}); r.Code != 0 {
		t.Errorf("got %d %q", r.Code, r.Text)
	}
	if log := s.log(); log != "" {
		t.Errorf("log %q", log)
	}
}

// Sixteen are served at once, the seventeenth waits for a place and is then served.
func TestPlaces(t *testing.T) {
	begun, release := make(chan bool), make(chan bool)
	s := start(t, ServerOptions{Supervisor: &fake{swap: func(ctx context.Context, _ swap.Request, _ func(swap.Progress)) swap.Result {
		begun <- true
		<-release
		return swap.Result{}
	}}})
	var clients sync.WaitGroup
	results := make(chan Result, maxClients)
	for range maxClients {
		clients.Go(func() { r, _ := ask(t, s.address, Request{Op: OpReload}); results <- r })
		within(t, 5*time.Second, begun)
	}
	late := make(chan Result, 1)
	clients.Go(func() { r, _ := ask(t, s.address, Request{Op: OpHealth}); late <- r })
	select {
	case <-late:
		t.Error("a client was served without a place")
	case <-time.After(50 * time.Millisecond): // it waits, as far as one can see
	}
	release <- true
	if r := within(t, 5*time.Second, late); r.Code != 0 {
		t.Errorf("got %+v", r)
	}
	close(release)
	clients.Wait()
}

// More clients than places and listen queue together: all are answered in the end.
func TestFlood(t *testing.T) {
	s := start(t, ServerOptions{})
	var clients sync.WaitGroup
	for range 400 {
		clients.Go(func() {
			if r, _ := ask(t, s.address, Request{Op: OpStatus}); r.Code != 0 {
				t.Errorf("got %d %q", r.Code, r.Text)
			}
		})
	}
	for range 50 {
		clients.Go(func() {
			if c, err := net.Dial("unix", s.address); err == nil { // else the listen queue is full
				_, _ = c.Write([]byte(strings.Repeat("garbage", 1000)))
				c.Close()
			}
		})
	}
	clients.Wait()
}

func TestSlowReaderLosesItsConnection(t *testing.T) {
	const lines = 20_000
	lost := make(chan time.Duration, 1)
	s := start(t, ServerOptions{Supervisor: &fake{swap: func(ctx context.Context, _ swap.Request, p func(swap.Progress)) swap.Result {
		begun := time.Now()
		for range lines {
			p(swap.Progress{Phase: "started", Text: strings.Repeat("x", 100)})
		}
		<-ctx.Done() // the connection is lost, so the waiting ends
		lost <- time.Since(begun)
		return swap.Result{}
	}}})
	c := dialRaw(t, s.address)
	c.sendProven(`{"v":1,"op":"reload"}` + "\n")
	if took := within(t, 5*time.Second, lost); took > 2*time.Second {
		t.Errorf("%d events took %v: the swap was held up", lines, took)
	}
	rest, err := io.ReadAll(c)
	if err != nil || strings.Contains(string(rest), `"result"`) {
		t.Errorf("read %d bytes, %v", len(rest), err)
	}
}

func TestReaderOfALongResultHasABoundedTime(t *testing.T) {
	asked := make(chan bool, 2)
	long := &fake{status: func() (swap.Status, error) {
		asked <- true
		return swap.Status{State: strings.Repeat("x", 1<<20)}, nil
	}}
	s := start(t, ServerOptions{Supervisor: long}, func(s *Server) { s.limit.answer = 50 * time.Millisecond })
	slow := dialRaw(t, s.address)
	slow.sendProven(`{"v":1,"op":"status"}` + "\n")
	within(t, 5*time.Second, asked)
	eventually(t, "the slow client is dropped", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) == 0
	})
	patient := start(t, ServerOptions{Supervisor: long})
	if r, _ := ask(t, patient.address, Request{Op: OpStatus}); len(r.Status.State) != 1<<20 {
		t.Errorf("a quick reader got %d bytes", len(r.Status.State))
	}
}

// Descriptors that come uninvited are closed, at any byte of a request.
func TestUninvitedDescriptorsAreClosed(t *testing.T) {
	s := start(t, ServerOptions{})
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := descriptorsOpen(t)
	fd := int(null.Fd())
	for i := range 50 {
		c := dialRaw(t, s.address)
		switch i % 5 {
		case 0:
			c.send("{", fd)
			c.send("}", fd)
		case 1:
			c.send("{}\n", fd, fd, fd, fd, fd, fd, fd, fd)
		case 2:
			c.send(`{"v":1,"op":"health"}`+"\n", fd)
		case 3:
			c.sendProven(`{"v":1,"op":"health"}` + "\n")
			c.send("x", fd, fd)
		case 4:
			c.send("half", fd)
		}
		c.Close()
	}
	eventually(t, "no descriptor is left", func() bool { return descriptorsOpen(t) <= before })
	if r, _ := ask(t, s.address, Request{Op: OpHealth}); r.Code != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestLogOfRefusalsIsBounded(t *testing.T) {
	s := start(t, ServerOptions{})
	for range 100 {
		c := dialRaw(t, s.address)
		c.send("{}\n")
		c.result()
	}
	if n := strings.Count(s.log(), "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, s.log())
	}
}
