package handoff

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// BenchmarkSplit is a change of shares and the way back over many held addresses, book-keeping included.
func BenchmarkSplit(b *testing.B) {
	most := Share{Portion: 0.05, Sticky: true}
	for i := range MaxNetworks {
		most.Always = append(most.Always, netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)}), 127).Masked())
	}
	for _, c := range []struct {
		name  string
		held  int
		share Share
	}{{"5%", 1, Share{Portion: 0.05}}, {"5%", 10, Share{Portion: 0.05}}, {"5%", 100, Share{Portion: 0.05}}, {"128networks", 1, most}} {
		b.Run(fmt.Sprintf("%s/%d", c.name, c.held), func(b *testing.B) { benchmarkSplit(b, c.held, c.share) })
	}
}

func benchmarkSplit(b *testing.B, held int, share Share) {
	var addrs []Address
	for i := range held {
		addrs = append(addrs, Address{Name: fmt.Sprint("a", i), Scheme: "tcp"})
	}
	s, err := Open(addrs, Config{Steer: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for gen := 1; gen <= 2; gen++ {
		if _, err := s.Lease(gen); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Steer(1); err != nil {
		b.Fatal(err)
	}
	var took [2][]time.Duration
	measure := func(i int, f func() error) {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		took[i] = append(took[i], time.Since(start))
	}
	for b.Loop() {
		measure(0, func() error { return s.Split(1, 2, share) })
		measure(1, func() error { return s.Steer(1) })
	}
	for i, what := range []string{"split", "steer"} {
		slices.Sort(took[i])
		n := len(took[i])
		b.ReportMetric(float64(took[i][n/2].Microseconds()), what+"-p50-µs")
		b.ReportMetric(float64(took[i][n*99/100].Microseconds()), what+"-p99-µs")
	}
}

// BenchmarkSteer is the switch itself: one program replaced by another.
func BenchmarkSteer(b *testing.B) {
	s, err := Open([]Address{{Name: "a", Scheme: "tcp"}}, Config{Steer: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	h := s.held[0]
	for b.Loop() {
		if err := h.program(h.aim); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLoad counts 5,000 connections beside as many client ends.
func BenchmarkLoad(b *testing.B) {
	s, err := Open([]Address{{Name: "a", Scheme: "tcp"}}, Config{Steer: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l, err := s.Lease(1)
	if err != nil {
		b.Fatal(err)
	}
	ln, err := listenerOf(l.Files()[0].FD)
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	for range 5000 {
		c, err := net.Dial("tcp", local(s))
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		sc, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer sc.Close()
	}
	b.ReportAllocs()
	for b.Loop() {
		if load, err := l.Load(); err != nil || load.Open != 5000 {
			b.Fatal(load, err)
		}
	}
}
