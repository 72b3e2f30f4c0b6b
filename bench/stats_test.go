package main

import (
	"math"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		numbers []float64
		q, want float64
	}{
		{[]float64{7}, 0.5, 7}, {[]float64{3, 1, 2}, 0.5, 2}, {[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{5, 1, 2, 4, 3}, 0.25, 2}, {[]float64{5, 1, 2, 4, 3}, 0.75, 4}, {[]float64{1, 2}, 0, 1}, {[]float64{1, 2}, 1, 2},
	} {
		if got := quantile(c.numbers, c.q); got != c.want {
			t.Errorf("%v of %v: want %v, got %v", c.q, c.numbers, c.want, got)
		}
	}
	if got := quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: want no number, got %v", got)
	}
	given := []float64{3, 1, 2}
	quantile(given, 0.5)
	if given[0] != 3 {
		t.Errorf("the numbers were put in order for their owner too: %v", given)
	}
}

// TestPairs: a ratio is of the numbers of one round, so a disturbance that lasts a round is in both of them.
func TestPairs(t *testing.T) {
	ours, theirs := []float64{10, 100, 12, 8}, []float64{5, 50, 6, 4}
	if f := figureOf(pairs(ours, theirs, over)); f != count(2) {
		t.Errorf("want 2 in each round, got %+v", f)
	}
	if got := pairs(ours, theirs[:2], less); len(got) != 2 || got[1] != 50 {
		t.Errorf("want two differences, got %v", got)
	}
}

func TestTexts(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{number(50000), "50000"}, {number(0.0132), "0.013"}, {number(1.2345), "1.23"}, {number(37.26), "37.3"}, {number(123.9), "124"},
		{number(math.NaN()), "-"}, {number(-2.5), "-2.50"}, {count(0).text(""), "0"}, {count(9.598).text("MiB"), "9.60 MiB"},
		{figure{1, 0.5, 2}.text("ms"), "1 ms (0.500 to 2)"}, {figureOf(nil).text("ms"), "- ms (- to -)"},
		{figureOf(in(time.Millisecond, []time.Duration{time.Second, 2 * time.Second, 3 * time.Second})).text("ms"), "2000 ms (1500 to 2500)"},
	} {
		if c.got != c.want {
			t.Errorf("want %q, got %q", c.want, c.got)
		}
	}
}

func TestMedianLeavesTheOrder(t *testing.T) {
	took := []time.Duration{3, 1, 2}
	if got := median(took); got != 2 || took[0] != 3 {
		t.Errorf("want 2 and the rounds in their order, got %v of %v", got, took)
	}
}
