package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestAxes(t *testing.T) {
	c := chart{series: []series{{"a", [][2]float64{{1, 3}, {1000, 17}}}, {"b", [][2]float64{{10, 0}}}}}
	x, y := c.axes()
	if !x.log || x.low != 1 || x.high != 1000 || y.log || y.low != 0 || y.high != 20 {
		t.Errorf("axes: %+v %+v", x, y)
	}
	if got := x.ticks(); !slices.Equal(got, []float64{1, 10, 100, 1000}) {
		t.Errorf("ticks of x: %v", got)
	}
	if got := y.ticks(); !slices.Equal(got, []float64{0, 5, 10, 15, 20}) {
		t.Errorf("ticks of y: %v", got)
	}
	if x.at(1) != left || x.at(1000) != right || y.at(0) != bottom || y.at(20) != top || math.Abs(x.at(10)-(left+(right-left)/3.0)) > 1e-6 {
		t.Errorf("places: %v %v %v %v %v", x.at(1), x.at(10), x.at(1000), y.at(0), y.at(20))
	}
	few := chart{series: []series{{"a", [][2]float64{{0, 0}, {200, 0}}}}}
	x, y = few.axes()
	if x.log || y.high != 1 || x.at(200) != right {
		t.Errorf("of zeros: %+v %+v", x, y)
	}
}

func TestRoundStep(t *testing.T) {
	for about, want := range map[float64]float64{0.9: 1, 1: 1, 1.1: 2, 3: 5, 5: 5, 7: 10, 130: 200, 0.03: 0.05, 0: 1} {
		if got := roundStep(about); math.Abs(got-want) > want/1e6 {
			t.Errorf("from %v: want %v, got %v", about, want, got)
		}
	}
}

// TestPicture: what is drawn is a whole document within its frame, in colours for both kinds of page.
func TestPicture(t *testing.T) {
	var points [][2]float64
	for n := 1.0; n <= 50000; n *= 7 {
		points = append(points, [2]float64{n, n / 3})
	}
	text := chart{"5 < 6 & more", "n", "ms", []series{{"one", points}, {"<two>", points[:1]}, {"none", nil}}}.svg()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("no XML: %v\n%s", err, text)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			inFrame(t, e)
		}
	}
	for _, want := range []string{"prefers-color-scheme:dark", "5 &lt; 6 &amp; more", "&lt;two&gt;", "viewBox="} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Errorf("a place that is no number:\n%s", text)
	}
	if empty := (chart{}).svg(); strings.Contains(empty, "NaN") || strings.Contains(empty, "Inf") {
		t.Errorf("of nothing:\n%s", empty)
	}
}

func inFrame(t *testing.T, e xml.StartElement) {
	t.Helper()
	for _, a := range e.Attr {
		var at float64
		switch a.Name.Local {
		case "cx":
			at = parse(t, a.Value) - left
			if at < 0 || at > right-left {
				t.Errorf("a dot at x = %s", a.Value)
			}
		case "cy":
			at = parse(t, a.Value) - top
			if at < 0 || at > bottom-top {
				t.Errorf("a dot at y = %s", a.Value)
			}
		}
	}
}
