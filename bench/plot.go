package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// chart is lines over one axis each, small enough to be read beside a table. The axis of x is logarithmic where the numbers go over
// more than two orders; that of y begins at 0, so that what does not grow looks flat.
type chart struct {
	title, x, y string
	series      []series
}

type series struct {
	name   string
	points [][2]float64
}

// The picture, and the frame of the axes in it.
const (
	chartWidth, chartHeight = 640, 300
	left, right             = 70, 470
	top, bottom             = 40, 250
)

// style has colours that can be told apart by people who see few, for a light and for a dark page.
const style = `<style>
.page{fill:#fff}.text{fill:#1f2328;font:12px sans-serif}.head{fill:#1f2328;font:bold 14px sans-serif}.grid{stroke:#d1d9e0;stroke-width:1}
.c0{stroke:#0969da}.c1{stroke:#bc4c00}.c2{stroke:#1a7f37}.c3{stroke:#8250df}.f0{fill:#0969da}.f1{fill:#bc4c00}.f2{fill:#1a7f37}.f3{fill:#8250df}
@media (prefers-color-scheme:dark){.page{fill:#0d1117}.text,.head{fill:#f0f6fc}.grid{stroke:#3d444d}
.c0{stroke:#58a6ff}.c1{stroke:#f0883e}.c2{stroke:#3fb950}.c3{stroke:#bc8cff}.f0{fill:#58a6ff}.f1{fill:#f0883e}.f2{fill:#3fb950}.f3{fill:#bc8cff}}
</style>
`

// dashes tell the lines apart without colours.
var dashes = []string{"none", "6 3", "2 3", "9 3 2 3"}

// axis places numbers between two points of the picture.
type axis struct {
	low, high float64
	from, to  float64
	log       bool
}

func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log10(v), math.Log10(low), math.Log10(high)
	}
	if high == low {
		return (a.from + a.to) / 2
	}
	return a.from + (v-low)/(high-low)*(a.to-a.from)
}

// ticks are round numbers: powers of ten on a logarithmic axis, else a handful of equal steps.
func (a axis) ticks() (out []float64) {
	if a.log {
		for v := math.Pow(10, math.Ceil(math.Log10(a.low)-1e-9)); v <= a.high*1.0001; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := roundStep((a.high - a.low) / 5)
	for i := math.Ceil(a.low/step - 1e-9); i*step <= a.high*1.0001; i++ {
		out = append(out, i*step)
	}
	return out
}

// roundStep is the smallest of 1, 2 and 5 times a power of ten that is not below about.
func roundStep(about float64) float64 {
	if about <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(about)))
	for _, n := range []float64{1, 2, 5} {
		if n*power >= about*0.999 {
			return n * power
		}
	}
	return 10 * power
}

// axes fit all points.
func (c chart) axes() (x, y axis) {
	x = axis{math.Inf(1), math.Inf(-1), left, right, false}
	y = axis{0, 0, bottom, top, false}
	for _, s := range c.series {
		for _, p := range s.points {
			x.low, x.high, y.high = min(x.low, p[0]), max(x.high, p[0]), max(y.high, p[1])
		}
	}
	if math.IsInf(x.low, 0) {
		x.low, x.high = 0, 1
	}
	x.log = x.low > 0 && x.high/x.low > 100
	if y.high == 0 {
		y.high = 1
	}
	step := roundStep(y.high / 5)
	y.high = math.Ceil(y.high/step-1e-9) * step
	return x, y
}

// svg is the picture as a file of its own.
func (c chart) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n", chartWidth, chartHeight, chartWidth, chartHeight)
	fmt.Fprintf(&b, "<title>%s</title>\n%s", html.EscapeString(c.title), style)
	fmt.Fprintf(&b, `<rect class="page" width="%d" height="%d"/>`+"\n", chartWidth, chartHeight)
	label(&b, "head", left, 20, "start", c.title)
	x, y := c.axes()
	for _, v := range y.ticks() {
		fmt.Fprintf(&b, `<path class="grid" d="M%d %.1fH%d"/>`+"\n", left, y.at(v), right)
		label(&b, "text", left-6, y.at(v)+4, "end", number(v))
	}
	for _, v := range x.ticks() {
		fmt.Fprintf(&b, `<path class="grid" d="M%.1f %dV%d"/>`+"\n", x.at(v), bottom, bottom+5)
		label(&b, "text", x.at(v), bottom+18, "middle", number(v))
	}
	label(&b, "text", (left+right)/2, bottom+38, "middle", c.x)
	label(&b, "text", left, top-6, "end", c.y)
	for i, s := range c.series {
		s.draw(&b, i, x, y)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// draw makes the line, a dot where a number was measured, unless there are many, and the name beside the others on the right.
func (s series) draw(b *strings.Builder, i int, x, y axis) {
	color := i % 4
	var path strings.Builder
	for n, p := range s.points {
		command := 'L'
		if n == 0 {
			command = 'M'
		}
		fmt.Fprintf(&path, "%c%.1f %.1f", command, x.at(p[0]), y.at(p[1]))
		if len(s.points) <= 20 {
			fmt.Fprintf(b, `<circle class="f%d" cx="%.1f" cy="%.1f" r="3.5"/>`+"\n", color, x.at(p[0]), y.at(p[1]))
		}
	}
	fmt.Fprintf(b, `<path class="c%d" fill="none" stroke-width="2" stroke-dasharray="%s" d="%s"/>`+"\n", color, dashes[color], path.String())
	at := top + 12 + 20*i
	fmt.Fprintf(b, `<path class="c%d" stroke-width="2" stroke-dasharray="%s" d="M%d %dh24"/>`+"\n", color, dashes[color], right+12, at-4)
	label(b, "text", right+42, float64(at), "start", s.name)
}

func label(b *strings.Builder, class string, x, y float64, anchor, text string) {
	fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, html.EscapeString(text))
}
