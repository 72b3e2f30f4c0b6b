package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/handoff"
)

func TestParseRange(t *testing.T) {
	if r, err := ParseRange(" 10000 - 11000 "); err != nil || r != (Range{10000, 11000}) || r.String() != "10000-11000" {
		t.Errorf("%v %v", r, err)
	}
	for _, bad := range []string{"", "10000", "-", "80-90", "2000-1999", "2000-70000", "a-b", "2000-3000-4000"} {
		if _, err := ParseRange(bad); err == nil || !strings.Contains(err.Error(), "10000-11000") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestClients(t *testing.T) {
	c, all := Range{1024, 65535}.Clients()
	if !all || c.From == 0 {
		t.Skipf("SKIPPED: the kernel does not say what it takes for clients")
	}
	if _, yes := (Range{c.To, c.To}).Clients(); !yes {
		t.Errorf("%v is one of %v", c.To, c)
	}
	if _, yes := (Range{c.From - 2, c.From - 1}).Clients(); yes {
		t.Errorf("%v is none of %v", c.From-1, c)
	}
}

// free is a range of ports that nobody has at the moment, tests before this one included.
func free(t *testing.T, n int) Range {
	t.Helper()
	taken.Lock()
	taken.ports = map[int]bool{}
	taken.Unlock()
	for from := 8800 + os.Getpid()%300; from < 9900; from += n {
		used := false
		for port := from; port < from+n; port++ {
			used = used || vacant(port) != nil
		}
		if !used {
			return Range{from, from + n - 1}
		}
	}
	t.Skip("SKIPPED: no free range of ports")
	return Range{}
}

// TestPorts: one that is in use, by whomever and in whatever way, is not given away, and one that was given back comes last.
func TestPorts(t *testing.T) {
	r := free(t, 6)
	p := newPorts(r)
	stranger, err := net.Listen("tcp4", fmt.Sprint("127.0.0.1:", r.From))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if six, err := net.Listen("tcp6", fmt.Sprint("[::1]:", r.From+1)); err == nil {
		defer six.Close()
	} else {
		taken.ports[r.From+1] = true // no IPv6 here
	}
	lingering(t, r.From+2)
	var got []int
	for range 3 {
		port, err := p.take()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, port)
	}
	if want := []int{r.From + 3, r.From + 4, r.From + 5}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if port, err := p.take(); err == nil {
		t.Errorf("port %d, and all are in use", port)
	} else if !strings.Contains(err.Error(), "ENTRYPOINT_PROXY_RANGE") {
		t.Error(err)
	}
	p.give(r.From + 4)
	if port, err := p.take(); err != nil || port != r.From+4 {
		t.Errorf("%d %v", port, err)
	}
	p.give(r.From + 3)
	p.give(r.From + 5)
	if port, err := p.take(); err != nil || port != r.From+5 {
		t.Errorf("%d %v, and the one that was given back before is used first", port, err)
	}
}

// lingering leaves a connection in TIME_WAIT on the port.
func lingering(t *testing.T, port int) {
	t.Helper()
	l, err := net.Listen("tcp4", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close() // first: so its side lingers
	c.Read(make([]byte, 1))
}

func TestParseTLS(t *testing.T) {
	list, err := ParseTLS("/c.pem:/k.pem, web=/a:/b,")
	if want := []Files{{"", "/c.pem", "/k.pem"}, {"web", "/a", "/b"}}; err != nil || !slices.Equal(list, want) {
		t.Errorf("%+v %v", list, err)
	}
	for _, bad := range []string{"/c.pem", ":/k", "/c:", "=/c:/k", "/a:/b:/c", "/a:/b,/c:/d"} {
		if list, err := ParseTLS(bad); err == nil {
			t.Errorf("%q: %+v", bad, list)
		}
	}
}

// TestReadPairs: the files are read when they have changed, and a fault is said and changes nothing.
func TestReadPairs(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(cert, "one")
	write(key, "secret")
	f, r := &Front{o: Options{TLS: []Files{{"", cert, key}}}}, &run{}
	if p := f.readPairs(r, 1); p.For != 1 || p.Same || p.Err != "" || len(p.List) != 1 || string(p.List[0].Cert) != "one" || string(p.List[0].Key) != "secret" {
		t.Errorf("%+v", p)
	}
	if p := f.readPairs(r, 2); !p.Same || p.List != nil {
		t.Errorf("%+v", p)
	}
	write(filepath.Join(dir, "new"), "two")
	if err := os.Rename(filepath.Join(dir, "new"), cert); err != nil {
		t.Fatal(err)
	}
	if p := f.readPairs(r, 3); p.Same || string(p.List[0].Cert) != "two" {
		t.Errorf("%+v", p)
	}
	os.Remove(key)
	if p := f.readPairs(r, 4); p.Err == "" || strings.Contains(p.Err, "secret") {
		t.Errorf("%+v", p)
	}
}

// TestWords: what no run of ours would say is refused, and what it says for the log cannot forge lines.
func TestWords(t *testing.T) {
	for _, w := range []Word{
		{Report: &Report{Clients: -1}}, {Report: &Report{Workers: make([]Count, maxWorkers+1)}},
		{Report: &Report{Workers: []Count{{Busy: maxCount + 1}}}}, {Log: strings.Repeat("x", 5000)},
	} {
		if w.check() == nil {
			t.Errorf("%.80v is believed", w)
		}
	}
	if got := printable("a\nb\x1b[0m\u00e9"); got != "a?b?[0m??" {
		t.Errorf("%q", got)
	}
}

// FuzzWord: no word of a run makes PID 1 panic, or believe what cannot be.
func FuzzWord(f *testing.F) {
	f.Add([]byte(`{"applied":3,"report":{"for":1,"clients":2,"generations":[{"generation":1,"requests":2}]}}`))
	f.Add([]byte(`{"pairs":18446744073709551615,"log":"x"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var w Word
		if json.Unmarshal(line, &w) != nil || w.check() != nil {
			return
		}
		front, r := &Front{news: make(chan struct{}), o: Options{Log: quiet}}, &run{wake: make(chan struct{}, 1), asking: 1}
		front.runs = []*run{r}
		front.hear(r, &w)
		if r.applied > front.route.Seq {
			t.Errorf("applied %d of %d", r.applied, front.route.Seq)
		}
	})
}

// FuzzOrder: no order makes a run panic, and none leads away from loopback.
func FuzzOrder(f *testing.F) {
	f.Add([]byte(`{"route":{"seq":1,"backends":[{"generation":1,"worker":0,"address":"127.0.0.1:80"}],"active":1,"candidate":2,"share":"5%"}}`))
	f.Add([]byte(`{"setup":{"kind":"http","listeners":[{"name":"web"}],"protocol":"off"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var o Order
		if json.Unmarshal(line, &o) != nil || o.Check() != nil || o.Route == nil || o.Setup != nil {
			return
		}
		for _, b := range o.Route.Backends {
			if !b.Address.Addr().IsLoopback() {
				t.Errorf("%v", b)
			}
		}
	})
}

func TestRouteIsChecked(t *testing.T) {
	for _, r := range []Route{
		{Backends: []Backend{{Generation: 1, Address: netip.MustParseAddrPort("192.0.2.1:80")}}},
		{Backends: []Backend{{Generation: 1}}},
		{Candidate: 2, Share: "everything"},
	} {
		if err := (&Order{Route: &r}).Check(); err == nil {
			t.Errorf("%+v is obeyed", r)
		}
	}
	for _, s := range []Setup{{Kind: "udp", Protocol: NoProtocol}, {Kind: TCP, Protocol: "v3"}, {Kind: TCP, Protocol: NoProtocol}} {
		if err := (&Order{Setup: &s}).Check(); err == nil {
			t.Errorf("%+v is obeyed", s)
		}
	}
}

// TestStuckHelper: a run that does not answer fails the switch, and what was in force is so again.
func TestStuckHelper(t *testing.T) {
	f := &Front{ports: newPorts(free(t, 4)), leases: map[handoff.Seat]*Lease{}, news: make(chan struct{}), route: Route{Seq: 1}, o: Options{Log: quiet}}
	for gen := 1; gen <= 2; gen++ {
		if _, err := f.Lease(handoff.Seat{Generation: gen}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Steer(1); err != nil { // nobody is there: the next run will hear it first
		t.Fatal(err)
	}
	f.runs = []*run{{wake: make(chan struct{}, 1)}}
	if err := f.Steer(2); err == nil || f.active != 1 || len(f.route.Lead) != 1 || f.route.Lead[0].Generation != 1 {
		t.Errorf("%v, generation %d is active, %v lead", err, f.active, f.route.Lead)
	}
	if l, err := f.leases[handoff.Seat{Generation: 1}].Load(); err != nil || l.Known {
		t.Errorf("%+v %v: nobody has said that", l, err)
	}
	if _, err := f.ask(); !errors.Is(err, errSilent) {
		t.Error(err)
	}
}

// TestPortsAreGivenBack with the lease.
func TestPortsAreGivenBack(t *testing.T) {
	f := &Front{ports: newPorts(free(t, 4)), leases: map[handoff.Seat]*Lease{}, news: make(chan struct{}), route: Route{Seq: 1}, o: Options{Log: quiet}}
	for gen := 1; gen <= 10; gen++ {
		var held []*Lease
		for worker := range 4 {
			l, err := f.Lease(handoff.Seat{Generation: gen, Worker: worker})
			if err != nil {
				t.Fatalf("generation %d, worker %d: %v", gen, worker, err)
			}
			held = append(held, l)
		}
		if _, err := f.Lease(handoff.Seat{Generation: gen + 100}); err == nil {
			t.Fatal("more ports than there are")
		}
		for _, l := range held {
			l.Release()
			l.Release()
		}
		if len(f.route.Backends) != 0 || len(f.leases) != 0 {
			t.Fatalf("%+v", f.route)
		}
	}
}
