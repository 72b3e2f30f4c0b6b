package carry

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/handoff"
	"github.com/hotswap-init/entrypoint/internal/proxy"
)

func tcp(text string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text)) }

func TestProxyHeader(t *testing.T) {
	four, six := tcp("192.0.2.7:1234"), tcp("[2001:db8::7]:1234")
	to4, to6 := tcp("198.51.100.1:80"), tcp("[2001:db8::1]:443")
	mapped := tcp("[::ffff:192.0.2.7]:1234")
	for _, tt := range []struct {
		p        proxy.Protocol
		src, dst net.Addr
		want     string
	}{
		{proxy.NoProtocol, four, to4, ""},
		{proxy.ProtocolV1, four, to4, "PROXY TCP4 192.0.2.7 198.51.100.1 1234 80\r\n"},
		{proxy.ProtocolV1, mapped, to4, "PROXY TCP4 192.0.2.7 198.51.100.1 1234 80\r\n"},
		{proxy.ProtocolV1, six, to6, "PROXY TCP6 2001:db8::7 2001:db8::1 1234 443\r\n"},
		{proxy.ProtocolV1, four, to6, "PROXY UNKNOWN\r\n"},
		{proxy.ProtocolV1, &net.UnixAddr{}, &net.UnixAddr{}, "PROXY UNKNOWN\r\n"},
		{proxy.ProtocolV2, four, to4, signature + "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x04\xd2\x00\x50"},
		{proxy.ProtocolV2, &net.UnixAddr{}, &net.UnixAddr{}, signature + "\x21\x00\x00\x00"},
	} {
		if got := string(proxyHeader(tt.p, tt.src, tt.dst)); got != tt.want {
			t.Errorf("%s %v: %q, want %q", tt.p, tt.src, got, tt.want)
		}
	}
}

// FuzzProxyHeader reads back what was written.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte{192, 0, 2, 7}, uint16(1234), []byte{198, 51, 100, 1}, uint16(80))
	f.Add([]byte(net.ParseIP("2001:db8::7")), uint16(1), []byte(net.ParseIP("::1")), uint16(65535))
	f.Fuzz(func(t *testing.T, a []byte, ap uint16, b []byte, bp uint16) {
		src, dst := &net.TCPAddr{IP: a, Port: int(ap)}, &net.TCPAddr{IP: b, Port: int(bp)}
		from, to := pairOf(src, dst)
		v1 := string(proxyHeader(proxy.ProtocolV1, src, dst))
		if len(v1) > 107 || strings.Count(v1, "\r\n") != 1 || !strings.HasSuffix(v1, "\r\n") {
			t.Fatalf("%q", v1)
		}
		if from.IsValid() {
			var family, s, d string
			var sp, dp uint16
			if _, err := fmt.Sscanf(v1, "PROXY %s %s %s %d %d\r\n", &family, &s, &d, &sp, &dp); err != nil {
				t.Fatalf("%q: %v", v1, err)
			}
			if netip.AddrPortFrom(netip.MustParseAddr(s), sp) != from || netip.AddrPortFrom(netip.MustParseAddr(d), dp) != to {
				t.Fatalf("%q of %v and %v", v1, from, to)
			}
		}
		v2 := proxyHeader(proxy.ProtocolV2, src, dst)
		if !bytes.HasPrefix(v2, []byte(signature)) || int(binary.BigEndian.Uint16(v2[14:]))+16 != len(v2) {
			t.Fatalf("%q", v2)
		}
	})
}

// TestReplay: a body can be read again from its beginning, from any point, until it is too long.
func TestReplay(t *testing.T) {
	r, _ := http.NewRequest("POST", "http://x", io.NopCloser(strings.NewReader("hello world")))
	r.GetBody = nil
	replayable(r)
	b := make([]byte, 5)
	io.ReadFull(r.Body, b)
	r.Body.Close()
	for range 2 {
		again, err := r.GetBody()
		if err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(again); err != nil || string(all) != "hello world" {
			t.Errorf("%q %v", all, err)
		}
	}
	long := strings.Repeat("x", keepBody+1)
	r, _ = http.NewRequest("POST", "http://x", io.NopCloser(strings.NewReader(long)))
	replayable(r)
	if all, err := io.ReadAll(r.Body); err != nil || string(all) != long {
		t.Errorf("%d bytes, %v", len(all), err)
	}
	if _, err := r.GetBody(); err == nil {
		t.Error("too long a body can be had again")
	}
	if kept := r.Body.(*playing).p.kept; kept != nil {
		t.Errorf("%d bytes are kept for nothing", len(kept))
	}
}

// pair is a way to a worker, and the worker's end.
func pair(t *testing.T) (*way, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	worker, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { worker.Close() })
	w, err := wayBack(c)
	if err != nil {
		t.Fatal(err)
	}
	return w.(*way), worker.(*net.TCPConn)
}

// TestWay: nothing of a new request is written to a worker that has gone, and what it does not want of one that has begun is no error.
func TestWay(t *testing.T) {
	w, worker := pair(t)
	w.fresh.Store(true)
	if n, err := w.Write([]byte("request")); n != 7 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	io.ReadFull(worker, make([]byte, 7))
	worker.Close()
	ended := 0 // here it may be known a moment later
	if err := w.raw.Control(func(fd uintptr) { ended, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 30_000) }); err != nil || ended != 1 {
		t.Fatal(ended, err)
	}
	w.fresh.Store(true)
	if n, err := w.Write([]byte("next one")); n != 0 || err == nil {
		t.Errorf("%d bytes to a closed connection: %v", n, err)
	}
	w, worker = pair(t)
	w.fresh.Store(true)
	w.Write([]byte("head"))
	io.ReadFull(worker, make([]byte, 4))
	io.WriteString(worker, "no more")
	worker.CloseRead()
	worker.Close()
	for range 20 { // the first ones may still go into the kernel
		if n, err := w.Write([]byte("body")); n != 4 || err != nil {
			t.Fatalf("%d %v", n, err)
		}
		time.Sleep(time.Millisecond)
	}
}

func backend(gen, worker int) proxy.Backend {
	return proxy.Backend{Generation: gen, Worker: worker, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(1000+10*gen+worker))}
}

// TestLeast: the least load, by turns where it is equal, and not at one that is down while there is another.
func TestLeast(t *testing.T) {
	tb := newTable(false)
	tb.apply(&proxy.Route{Seq: 1, Lead: []handoff.Seat{{Generation: 1, Worker: 0}, {Generation: 1, Worker: 1}, {Generation: 1, Worker: 2}}, Backends: []proxy.Backend{backend(1, 0), backend(1, 1), backend(1, 2)}})
	v := &visitor{}
	enter := func() *seat {
		s, err := tb.enter(t.Context(), v, time.Now().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	met := map[netip.AddrPort]int{}
	var seats []*seat
	for range 9 {
		s := enter()
		met[s.at]++
		seats = append(seats, s)
	}
	if len(met) != 3 || met[backend(1, 0).Address] != 3 || met[backend(1, 2).Address] != 3 {
		t.Errorf("%v", met)
	}
	free := seats[4].w
	seats[4].leave()
	if s := enter(); s.w != free {
		t.Error("the one with the least load was not taken")
	}
	enter().failed()
	for range 20 {
		if s := enter(); s.w.down.After(time.Now()) {
			t.Error("one that is down was taken")
		}
	}
}

// TestShareOfClients: chance and hash keep to the share, whom it has it keeps when it grows, and another candidate has others.
func TestShareOfClients(t *testing.T) {
	const n = 20000
	for _, sticky := range []string{"", "@source"} {
		tb := newTable(true)
		route := proxy.Route{Seq: 1, Lead: []handoff.Seat{{Generation: 1, Worker: 0}}, Candidate: 2, Seed: 7, Backends: []proxy.Backend{backend(1, 0), backend(2, 0)}}
		led := func(share string, seed uint32) map[int]bool {
			route.Share, route.Seed = share+sticky, seed
			tb.apply(&route)
			m := map[int]bool{}
			for i := range n {
				v := &visitor{addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), luck: uint32(i) * 2654435761}
				if tb.led(v) {
					m[i] = true
				}
			}
			return m
		}
		few, more, others := led("5%", 7), led("25%", 7), led("5%", 8)
		for want, got := range map[float64]int{0.05: len(few), 0.25: len(more)} {
			if spread := 4 * math.Sqrt(n*want*(1-want)); math.Abs(float64(got)-want*n) > spread {
				t.Errorf("%q: %d of %d for %v", sticky, got, n, want)
			}
		}
		both := 0
		for i := range few {
			if !more[i] {
				t.Fatalf("%q: client %d was taken back", sticky, i)
			}
			if others[i] {
				both++
			}
		}
		if both > len(few)/5 {
			t.Errorf("%q: %d of %d clients are the same for the next candidate", sticky, both, len(few))
		}
	}
	if _, err := handoff.ParseShare("5%@source"); err != nil {
		t.Fatal(err)
	}
}

// TestOldGenerationIsForgotten once the last of it has left.
func TestOldGenerationIsForgotten(t *testing.T) {
	tb := newTable(true)
	tb.apply(&proxy.Route{Seq: 1, Lead: []handoff.Seat{{Generation: 1, Worker: 0}}, Backends: []proxy.Backend{backend(1, 0)}})
	s, err := tb.enter(t.Context(), &visitor{}, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	tb.apply(&proxy.Route{Seq: 2, Lead: []handoff.Seat{{Generation: 2, Worker: 0}}, Backends: []proxy.Backend{backend(2, 0)}})
	if r, _ := tb.report(); len(r.Workers) != 2 {
		t.Errorf("%+v", r)
	}
	s.leave()
	if r, _ := tb.report(); len(r.Workers) != 1 || tb.carried() != 0 {
		t.Errorf("%+v", r)
	}
}
