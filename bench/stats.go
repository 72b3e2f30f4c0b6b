package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// figure is a number of several rounds: their median, and the quartiles as the spread. A count has no spread.
type figure struct{ value, low, high float64 }

// figureOf makes a figure of rounds. None at all are no number.
func figureOf(rounds []float64) figure {
	return figure{quantile(rounds, 0.5), quantile(rounds, 0.25), quantile(rounds, 0.75)}
}

// count is a figure that was counted, or measured once.
func count(n float64) figure { return figure{n, n, n} }

// quantile of unordered numbers, between two of them by their distance; NaN of none.
func quantile(numbers []float64, q float64) float64 {
	if len(numbers) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(numbers))
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}

// pairs makes a number of each pair of rounds, as far as both have one: the rounds were made in turns, so what disturbed one
// disturbed the other.
func pairs(a, b []float64, of func(a, b float64) float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		out = append(out, of(a[i], b[i]))
	}
	return out
}

func over(a, b float64) float64 { return a / b }
func less(a, b float64) float64 { return a - b }

// in turns durations into numbers of a unit.
func in(unit time.Duration, took []time.Duration) []float64 {
	out := make([]float64, len(took))
	for i, d := range took {
		out[i] = float64(d) / float64(unit)
	}
	return out
}

// number is written with three digits that count, without an exponent.
func number(x float64) string {
	switch a := math.Abs(x); {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return "-"
	case a < 0.0005: // not -0, either
		return "0"
	case x == math.Trunc(x) && a < 1e9, a >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
	return strconv.FormatFloat(x, 'f', 3, 64)
}

// text is the figure with its unit, and its spread if it has one.
func (f figure) text(unit string) string {
	if unit != "" {
		unit = " " + unit
	}
	if f.low == f.high {
		return number(f.value) + unit
	}
	return fmt.Sprintf("%s%s (%s to %s)", number(f.value), unit, number(f.low), number(f.high))
}
