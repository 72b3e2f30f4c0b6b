package envcfg

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Each type below decodes itself (envconfig calls Decode). An empty value
// leaves the field as it is: empty means unset everywhere.

// Duration is a length of time, never negative. It is written 30 (seconds),
// 30s or 1m30s.
type Duration time.Duration

// longest keeps sums of two durations far from overflowing.
const longest = 100 * 365 * 24 * time.Hour

const durationRemedy = "write 30, 30s or 1m30s"

// Decode reads the text of a duration.
func (d *Duration) Decode(value string) error {
	if value == "" {
		return nil
	}
	text := strings.TrimSpace(value)
	if strings.Trim(text, "0123456789.") == "" {
		text += "s"
	}
	v, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return refuse("not a duration", "", durationRemedy)
	case v < 0:
		return refuse("a duration cannot be negative", "", durationRemedy)
	case v > longest:
		return refuse("longer than 100 years", "", durationRemedy)
	}
	*d = Duration(v)
	return nil
}

// String writes the duration as time.Duration does, without parts that are
// zero at its end: 1m, not 1m0s.
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Bool is a switch, written true, false, yes, no, on, off, 1 or 0 in any case.
type Bool bool

// Decode reads one of the eight spellings.
func (b *Bool) Decode(value string) error {
	if value == "" {
		return nil
	}
	v, ok := parseBool(value)
	if !ok {
		return refuse("not a yes or no", "", "write true, false, yes, no, on, off, 1 or 0")
	}
	*b = Bool(v)
	return nil
}

// String writes true or false.
func (b Bool) String() string { return strconv.FormatBool(bool(b)) }

func parseBool(value string) (v, ok bool) {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "true", "yes", "on", "1":
		return true, true
	case "false", "no", "off", "0":
		return false, true
	}
	return false, false
}

// Count is a whole number, not negative, written in decimal.
type Count int

// Decode reads decimal digits.
func (c *Count) Decode(value string) error {
	if value == "" {
		return nil
	}
	v, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
	if err != nil {
		return refuse("not a whole number", "", "write digits only, such as 2")
	}
	*c = Count(v)
	return nil
}

// String writes decimal digits.
func (c Count) String() string { return strconv.Itoa(int(c)) }

// Umask is a file mode mask, 0 to 0777, or KeepUmask.
type Umask int

// KeepUmask means that the mask of the init stays in force.
const KeepUmask Umask = -1

// Decode reads octal digits, with or without a leading 0 or 0o.
func (u *Umask) Decode(value string) error {
	if value == "" {
		return nil
	}
	text := strings.TrimPrefix(strings.TrimSpace(value), "0o")
	v, err := strconv.ParseUint(text, 8, 32)
	if err != nil || v > 0o777 {
		return refuse("not an octal file mode mask", "", "write 000 to 777, such as 027")
	}
	*u = Umask(v)
	return nil
}

// String writes four octal digits, or nothing for KeepUmask.
func (u Umask) String() string {
	if u < 0 {
		return ""
	}
	return fmt.Sprintf("%04o", int(u))
}

// ExitRemap gives the exit status to report for one that the app ended with.
type ExitRemap map[int]int

const remapRemedy = "write FROM=TO with exit statuses from 0 to 255, such as 143=0,130=0"

// Decode reads FROM=TO pairs separated by commas.
func (m *ExitRemap) Decode(value string) error {
	if value == "" {
		return nil
	}
	out := ExitRemap{}
	var bad problems
	for _, item := range splitCommas(value) {
		from, to, found := strings.Cut(item, "=")
		a, okA := exitStatus(from)
		b, okB := exitStatus(to)
		switch _, twice := out[a]; {
		case !found || !okA || !okB:
			bad = append(bad, problem{"not a pair of exit statuses", quote(item), remapRemedy})
		case twice:
			bad = append(bad, problem{"an exit status is remapped twice", quote(item), ""})
		default:
			out[a] = b
		}
	}
	*m = out
	return bad.orNil()
}

func exitStatus(text string) (int, bool) {
	v, err := strconv.ParseUint(strings.TrimSpace(text), 10, 8)
	return int(v), err == nil
}

// Apply returns the status to report instead of code.
func (m ExitRemap) Apply(code int) int {
	if to, ok := m[code]; ok {
		return to
	}
	return code
}

// String writes the pairs in ascending order.
func (m ExitRemap) String() string {
	pairs := make([]string, 0, len(m))
	for _, from := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, fmt.Sprintf("%d=%d", from, m[from]))
	}
	return strings.Join(pairs, ",")
}

// splitCommas cuts a list without quotes; spaces around an item are not part
// of it, and empty items (a trailing comma) are left out.
func splitCommas(value string) []string {
	var items []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// Names is a list of the names of apps: lower-case letters, digits and dashes, a letter first, none twice.
type Names []string

// maxApps bounds how many apps one container may have: each has a supervisor and sockets of its own.
const maxApps = 32

// Decode reads names separated by commas.
func (n *Names) Decode(value string) error {
	if value == "" {
		return nil
	}
	var list Names
	var bad problems
	for name := range strings.SplitSeq(value, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case !appName(name):
			bad = append(bad, problem{"not the name of an app", quote(name), "write lower-case letters, digits and dashes, a letter first"})
		case name == "env" || name == "log":
			bad = append(bad, problem{"a name that variables have already", quote(name), "choose another one"})
		case slices.Contains(list, name):
			bad = append(bad, problem{"a name is there twice", quote(name), ""})
		default:
			list = append(list, name)
		}
	}
	if len(list) > maxApps {
		bad = append(bad, problem{fmt.Sprintf("more than %d apps", maxApps), "", ""})
	}
	*n = list
	return bad.orNil()
}

func appName(name string) bool {
	if name == "" || len(name) > 32 || name[0] < 'a' || name[0] > 'z' || strings.HasSuffix(name, "-") {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// String writes the names as Decode reads them.
func (n Names) String() string { return strings.Join(n, ",") }
