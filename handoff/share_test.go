package handoff

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestParseShare(t *testing.T) {
	nets := func(list ...string) (out []netip.Prefix) {
		for _, n := range list {
			out = append(out, netip.MustParsePrefix(n))
		}
		return out
	}
	for _, c := range []struct {
		text, again string
		want        Share
	}{
		{"1%", "1%", Share{Portion: 0.01}},
		{"0.5%", "0.5%", Share{Portion: 0.005}},
		{".5%", "0.5%", Share{Portion: 0.005}},
		{"7%", "7%", Share{Portion: 0.07}},
		{"100%", "100%", Share{Portion: 1}},
		{"12.5%", "12.5%", Share{Portion: 0.125}},
		{"10.1.0.0/16", "10.1.0.0/16", Share{Always: nets("10.1.0.0/16")}},
		{"192.0.2.7", "192.0.2.7", Share{Always: nets("192.0.2.7/32")}},
		{"2001:db8::/32+2001:db9::1", "2001:db8::/32+2001:db9::1", Share{Always: nets("2001:db8::/32", "2001:db9::1/128")}},
		{"5%+10.1.0.0/16", "5%+10.1.0.0/16", Share{Portion: 0.05, Always: nets("10.1.0.0/16")}},
		{" !192.0.2.7 + 5% ", "5%+!192.0.2.7", Share{Portion: 0.05, Never: nets("192.0.2.7/32")}},
		{"5%@source", "5%@source", Share{Portion: 0.05, Sticky: true}},
		{"::ffff:10.0.0.0/104+::ffff:10.0.0.1", "10.0.0.0/8+10.0.0.1", Share{Always: nets("10.0.0.0/8", "10.0.0.1/32")}},
		{"0.0.0.0/0", "0.0.0.0/0", Share{Always: nets("0.0.0.0/0")}},
	} {
		got, err := ParseShare(c.text)
		if err != nil || !reflect.DeepEqual(got, c.want) || got.String() != c.again {
			t.Errorf("%q = %+v (%s), %v; want %+v (%s)", c.text, got, got, err, c.want, c.again)
		}
	}
}

func TestShareRefusals(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "a term is empty"},
		{"5%+", "a term is empty"},
		{"5", "neither a percentage nor an address"},
		{"web", "neither a percentage nor an address"},
		{"-5%", "is no percentage"},
		{"1e1%", "is no percentage"},
		{"%", "is no percentage"},
		{"NaN%", "is no percentage"},
		{"0x1p-2%", "is no percentage"},
		{"5.00000000000000000001%", "is no percentage"},
		{"101%", "more than everything"},
		{"0%", "gives the candidate nothing"},
		{"!10.0.0.0/8", "gives the candidate nothing"},
		{"0.00000001%", "4 billion"},
		{"5%+6%", "two percentages"},
		{"0%+5%", "two percentages"},
		{"10.0.0.1@source", "belongs behind a percentage"},
		{"10.1.2.3/16", "write 10.1.0.0/16"},
		{"10.0.0.0/33", "is not a network"},
		{"fe80::1%eth0", "has a zone"},
		{"::ffff:0.0.0.0/90", "write 0.0.0.0/0"},
		{strings.Repeat("10.0.0.1+", MaxNetworks) + "10.0.0.1", "at most 128"},
		{strings.Repeat("x", maxShareText+1), "more than 16384"},
	} {
		_, err := ParseShare(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 400 {
			t.Errorf("%.40q: %v; want %q", c.text, err, c.want)
		}
	}
	for _, s := range []Share{{}, {Portion: 1.1}, {Portion: -0.1}, {Portion: math.NaN()}, {Always: []netip.Prefix{{}}},
		{Always: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}}} {
		if s.check() == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
}

func FuzzParseShare(f *testing.F) {
	for _, text := range []string{"5%+10.1.0.0/16+!192.0.2.7", "5%@source", "2001:db8::/32", "fe80::1%eth0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseShare(text)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		again, err := ParseShare(s.String())
		if err != nil || fmt.Sprint(again) != fmt.Sprint(s) || math.Abs(again.Portion-s.Portion) > 1e-12 {
			t.Errorf("%q = %+v, written %q, read back %+v, %v", text, s, s.String(), again, err)
		}
		(&plan{split: &division{share: s}}).build()
	})
}
