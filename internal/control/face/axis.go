package face

import (
	"math"
	"strings"
	"time"

	"github.com/hotswap-init/entrypoint/internal/swap"
)

// axis is a scale of time that ends now. It is logarithmic: what happened a moment ago has room, and a life of weeks is still whole.
type axis struct {
	now  time.Time
	span time.Duration
}

const (
	// axisUnit is the age up to which the scale is about linear.
	axisUnit = 5 * time.Second
	// axisLeast is the shortest time shown.
	axisLeast = 30 * time.Second
)

func newAxis(list []*swap.Generation, now time.Time) *axis {
	a := &axis{now: now, span: axisLeast}
	for _, g := range list {
		if !g.StartedAt.IsZero() {
			a.span = max(a.span, now.Sub(g.StartedAt))
		}
	}
	return a
}

// at is where a moment is, in hundredths of the width from the left.
func (a *axis) at(t time.Time) float64 {
	age := min(max(0, a.now.Sub(t)), a.span)
	scale := func(d time.Duration) float64 { return math.Log1p(float64(d) / float64(axisUnit)) }
	return 100 * (1 - scale(age)/scale(a.span))
}

// ticks are the ages that have a line.
func (a *axis) ticks() (ages []time.Duration) {
	last := 100.0
	for _, d := range []time.Duration{
		10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour,
		24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour,
	} {
		if x := a.at(a.now.Add(-d)); d < a.span && x > 4 && last-x > 13 {
			ages, last = append(ages, d), x
		}
	}
	return ages
}

func (a *axis) labels(m *markup) {
	m.WriteString(`<svg height="16" aria-hidden="true"><text x="100%" y="12" text-anchor="end">now</text>`)
	for _, d := range a.ticks() {
		m.f(`<text x="%.2f%%" y="12" text-anchor="middle">%s</text>`, a.at(a.now.Add(-d)), span(d))
	}
	m.WriteString(`</svg>`)
}

// lane draws the life of one generation.
func (a *axis) lane(m *markup, g *swap.Generation, seen map[swap.State]bool) {
	m.f(`<svg height="16" role="img" aria-label="%s">`, lifeText(g, a.now))
	for _, d := range a.ticks() {
		x := a.at(a.now.Add(-d))
		m.f(`<line class="grid" x1="%.2f%%" x2="%.2f%%" y1="-8" y2="24"/>`, x, x)
	}
	for _, part := range life(g, a.now) {
		seen[part.state] = true
		from, to := a.at(part.from), a.at(part.to)
		width := max(to-from, 0.6)
		m.f(`<rect class="s-%s" x="%.2f%%" width="%.2f%%" height="16"><title>%s, %s</title></rect>`,
			string(part.state), min(from, 100-width), width, string(part.state), span(part.to.Sub(part.from)))
	}
	m.WriteString(`</svg>`)
}

// stretch is a part of a generation's life in one state.
type stretch struct {
	state    swap.State
	from, to time.Time
}

// life is what the stamps of a generation tell.
func life(g *swap.Generation, now time.Time) (parts []stretch) {
	trial, signalled := swap.Canary, swap.Stopping
	if g.State == swap.Baking {
		trial = swap.Baking
	}
	if g.ActiveAt.IsZero() && g.DrainingAt.IsZero() {
		signalled = swap.Failed
	}
	end := now
	if !g.EndedAt.IsZero() {
		end = g.EndedAt
	}
	for _, s := range []stretch{
		{state: swap.Starting, from: g.StartedAt}, {state: swap.Ready, from: g.ReadyAt}, {state: trial, from: g.TriedAt}, {state: swap.Active, from: g.ActiveAt},
		{state: swap.Draining, from: g.DrainingAt}, {state: signalled, from: g.SignalledAt}, {state: swap.Killed, from: g.KilledAt},
	} {
		if !s.from.IsZero() && !s.from.After(end) {
			parts = append(parts, s)
		}
		for i := len(parts) - 1; i > 0 && parts[i].from.Before(parts[i-1].from); i-- { // out of order only after a recall
			parts[i-1], parts[i] = parts[i], parts[i-1]
		}
	}
	for i := range parts {
		parts[i].to = end
		if i+1 < len(parts) {
			parts[i].to = parts[i+1].from
		}
	}
	return parts
}

// lifeText says the same in words.
func lifeText(g *swap.Generation, now time.Time) string {
	var words []string
	for _, p := range life(g, now) {
		words = append(words, string(p.state)+" for "+span(p.to.Sub(p.from)))
	}
	return strings.Join(words, ", ")
}
