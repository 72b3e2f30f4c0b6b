package handoff

import (
	"net"
	"testing"
)

// BenchmarkSteer is the switch itself: one program replaced by another.
func BenchmarkSteer(b *testing.B) {
	s, err := Open([]Address{{Name: "a", Scheme: "tcp"}}, Config{Steer: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	h := s.held[0]
	for b.Loop() {
		if err := h.program(h.current); err != nil {
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
