package face

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// The media types of the two formats.
const (
	typeText        = "text/plain; version=0.0.4; charset=utf-8"
	typeOpenMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"
)

// The types of a family, in the words of OpenMetrics.
const (
	counter   = "counter"
	gauge     = "gauge"
	info      = "info"
	histogram = "histogram"
)

// maxLabel bounds a label's value, in bytes.
const maxLabel = 200

// family is a metric with all its samples. name has no suffix: "_total" of a counter and "_info" belong to its samples.
type family struct {
	name, kind, unit, help string
	samples                []sample
}

// sample is one line.
type sample struct {
	suffix string   // behind the family's name
	labels []string // names and values, in turn
	value  float64
}

// suffixOf is what the samples of a kind have behind the family's name.
func suffixOf(kind string) string {
	switch kind {
	case counter:
		return "_total"
	case info:
		return "_info"
	}
	return ""
}

// encode writes families in the Prometheus text format 0.0.4, or in that of OpenMetrics 1.0.0. The two differ in what a counter and an info
// are called in the lines about them, in the lines about units, and in the end.
func encode(families []family, open bool) []byte {
	var b bytes.Buffer
	for _, f := range families {
		name, kind := f.name, f.kind
		if !open {
			name += suffixOf(kind)
			if kind == info {
				kind = gauge
			}
		}
		line(&b, "# TYPE ", name, " ", kind)
		if open && f.unit != "" {
			line(&b, "# UNIT ", name, " ", f.unit)
		}
		line(&b, "# HELP ", name, " ", escapeHelp(f.help, open))
		for _, s := range f.samples {
			b.WriteString(f.name)
			b.WriteString(s.suffix)
			writeLabels(&b, s.labels)
			line(&b, " ", number(s.value))
		}
	}
	if open {
		line(&b, "# EOF")
	}
	return b.Bytes()
}

func line(b *bytes.Buffer, parts ...string) {
	for _, p := range parts {
		b.WriteString(p)
	}
	b.WriteByte('\n')
}

func writeLabels(b *bytes.Buffer, labels []string) {
	for i := 0; i+1 < len(labels); i += 2 {
		if i == 0 {
			b.WriteByte('{')
		} else {
			b.WriteByte(',')
		}
		b.WriteString(labels[i])
		b.WriteString(`="`)
		b.WriteString(escapeLabel(labels[i+1]))
		b.WriteByte('"')
	}
	if len(labels) > 1 {
		b.WriteByte('}')
	}
}

var (
	labelEscapes    = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	textHelpEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
)

// escapeLabel makes any bytes a label's value: UTF-8, of bounded length, escaped.
func escapeLabel(v string) string {
	v = strings.ToValidUTF8(v, "\ufffd")
	if len(v) > maxLabel {
		v = strings.ToValidUTF8(v[:maxLabel], "") // a character that was cut in two is left out
	}
	return labelEscapes.Replace(v)
}

func escapeHelp(v string, open bool) string {
	v = strings.ToValidUTF8(v, "\ufffd")
	if open {
		return labelEscapes.Replace(v)
	}
	return textHelpEscapes.Replace(v)
}

// number writes a value as both formats read it.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	case v == math.Trunc(v) && math.Abs(v) < 1<<53:
		return strconv.FormatInt(int64(v), 10) // a timestamp without an exponent is easier to read
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// bound writes the upper bound of a bucket in the canonical form of OpenMetrics, in both formats: it is a label, and must not depend on the
// format that was asked for.
func bound(v float64) string {
	s := strconv.FormatFloat(v, 'g', -1, 64)
	if v == math.Trunc(v) && !strings.ContainsAny(s, "e.I") {
		s += ".0"
	}
	return s
}

// wantsOpenMetrics reads an Accept header: OpenMetrics is given to whoever names it and does not like plain text better. Everybody else,
// people with browsers too, gets the old text.
func wantsOpenMetrics(accept string) bool {
	open, text := -1.0, 0.0
	for _, item := range strings.Split(accept, ",") {
		media, rest, _ := strings.Cut(item, ";")
		q, version := parameters(rest)
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "application/openmetrics-text":
			if version == "" || version == "1.0.0" || version == "0.0.1" {
				open = max(open, q)
			}
		case "text/plain":
			text = max(text, q)
		}
	}
	return open > 0 && open >= text
}

// parameters reads q (1 if it is not there, 0 if it is nonsense) and version of a media range.
func parameters(rest string) (q float64, version string) {
	q = 1
	for _, p := range strings.Split(rest, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		v = strings.Trim(strings.TrimSpace(v), `"`)
		switch strings.ToLower(strings.TrimSpace(k)) {
		case "q":
			f, err := strconv.ParseFloat(v, 64)
			if err != nil || !(f >= 0 && f <= 1) {
				f = 0
			}
			q = f
		case "version":
			version = v
		}
	}
	return q, version
}
