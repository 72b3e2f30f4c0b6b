package applog

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is what becomes of the app's output.
type Kind string

// The kinds of output.
const (
	Inherit Kind = "inherit" // the app writes to our own descriptors: nothing stands between
	Prefix  Kind = "prefix"  // lines on our own output, with the generation in front
	File    Kind = "file"
)

// Spec is a parsed ENTRYPOINT_APP_LOG. Paths may hold {app}, {worker}, {generation} and {stream}.
type Spec struct {
	Kind   Kind          `json:"kind"`
	Path   string        `json:"path,omitempty"`
	Stderr string        `json:"stderr,omitempty"` // "": both go to Path
	Size   int64         `json:"size,omitempty"`   // bytes; 0: a file is not rotated for its size
	Age    time.Duration `json:"age,omitempty"`    // 0: nor for its age
	Count  int           `json:"count,omitempty"`  // rotated files that are kept; 0: all
	Gzip   bool          `json:"gzip,omitempty"`
	Mode   uint32        `json:"mode,omitempty"`
}

const (
	defaultCount = 7
	defaultMode  = 0o640
	// minSize keeps a file from being rotated at each line.
	minSize = 4 << 10
	// minAge keeps the names of rotated files apart, and the disk from being full of small ones.
	minAge = time.Second
)

// Parse reads the text of ENTRYPOINT_APP_LOG. All faults are reported at once.
func Parse(text string) (Spec, error) {
	text = strings.TrimSpace(text)
	switch k := Kind(strings.ToLower(text)); k {
	case "", Inherit:
		return Spec{Kind: Inherit}, nil
	case Prefix:
		return Spec{Kind: Prefix}, nil
	}
	rest, ok := strings.CutPrefix(text, "file://")
	if !ok {
		return Spec{}, fmt.Errorf("%q is not a place for a log: write inherit, prefix, or file:///PATH with options", text)
	}
	path, query, _ := strings.Cut(rest, "?")
	s := Spec{Kind: File, Count: defaultCount, Mode: defaultMode}
	var faults []error
	var err error
	if s.Path, err = checkPath("the path", path); err != nil {
		faults = append(faults, err)
	}
	seen := map[string]bool{}
	for word := range strings.SplitSeq(query, "&") {
		if word == "" {
			continue
		}
		key, value, _ := strings.Cut(word, "=")
		if seen[key] {
			faults = append(faults, fmt.Errorf("the option %q is there twice", key))
			continue
		}
		seen[key] = true
		if err := s.set(key, value); err != nil {
			faults = append(faults, err)
		}
	}
	if s.Stderr != "" && s.Stderr == s.Path {
		faults = append(faults, errors.New("the option stderr names the same file: leave it out to have both in one"))
	}
	return s, errors.Join(faults...)
}

func (s *Spec) set(key, value string) (err error) {
	if value, err = url.PathUnescape(value); err != nil {
		return fmt.Errorf("the option %q cannot be read: %w", key, err)
	}
	bad := func(remedy string) error { return fmt.Errorf("%s=%s is not understood: write %s", key, value, remedy) }
	switch key {
	case "size":
		if s.Size, err = parseSize(value); err != nil || s.Size < minSize {
			return bad("a size of 4KiB or more, such as 10MiB")
		}
	case "age":
		if s.Age, err = time.ParseDuration(value); err != nil || s.Age < minAge {
			return bad("a time of 1s or more, such as 24h")
		}
	case "count":
		if s.Count, err = strconv.Atoi(value); err != nil || s.Count < 0 {
			return bad("how many rotated files are kept, 0 for all")
		}
	case "compress":
		if value != "gzip" && value != "none" {
			return bad("gzip or none")
		}
		s.Gzip = value == "gzip"
	case "mode":
		mode, err := strconv.ParseUint(value, 8, 32)
		if err != nil || mode > 0o777 {
			return bad("a file mode in octal, such as 0640")
		}
		s.Mode = uint32(mode)
	case "stderr":
		s.Stderr, err = checkPath("the path of stderr", value)
		return err
	default:
		return fmt.Errorf("there is no option %q: the options are age, compress, count, mode, size, stderr", key)
	}
	return nil
}

// marks may stand in a path.
var marks = []string{"{app}", "{worker}", "{generation}", "{stream}"}

func checkPath(what, path string) (string, error) {
	if !filepath.IsAbs(path) || strings.HasSuffix(path, "/") {
		return path, fmt.Errorf("%s %q is not that of a file: write an absolute one, as in file:///var/log/app.log", what, path)
	}
	for rest := path; ; {
		_, after, found := strings.Cut(rest, "{")
		if !found {
			return filepath.Clean(path), nil
		}
		word, behind, closed := strings.Cut(after, "}")
		if !closed || !slices.Contains(marks, "{"+word+"}") {
			return path, fmt.Errorf("%s %q holds a { that begins none of %s", what, path, strings.Join(marks, ", "))
		}
		rest = behind
	}
}

// parseSize reads 10MiB, 10M, 512k or plain bytes; the letters stand for powers of 1024.
func parseSize(text string) (int64, error) {
	number := strings.TrimRight(text, "KMGTkmgtiBb")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return 0, err
	}
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text[len(number):]), "B"), "I")
	shift := strings.Index("_KMG", unit)
	if unit == "" {
		shift = 0
	}
	if len(unit) > 1 || shift < 0 {
		return 0, errors.New("no such unit")
	}
	return int64(n) << (10 * shift), nil
}

// Origin is who writes.
type Origin struct {
	App        string `json:"app"`
	Generation int    `json:"gen"`
	Worker     int    `json:"worker"`
	Stream     string `json:"stream"` // stdout, stderr, or both in one pipe: output
}

// file is the path of what an origin writes.
func (s Spec) file(o Origin) string {
	path := s.Path
	if s.Stderr != "" && o.Stream == "stderr" {
		path = s.Stderr
	}
	return strings.NewReplacer("{app}", o.App, "{worker}", strconv.Itoa(o.Worker), "{generation}", strconv.Itoa(o.Generation), "{stream}", o.Stream).Replace(path)
}

// apart tells whether the two outputs of an app need a pipe each.
func (s Spec) apart() bool {
	return s.Kind == Prefix || s.Stderr != "" || strings.Contains(s.Path, "{stream}")
}

// prefix is what stands before a line.
func (o Origin) prefix() string {
	text := "gen " + strconv.Itoa(o.Generation)
	if o.App != "" && o.App != "app" {
		text = o.App + " " + text
	}
	if o.Worker > 0 {
		text += " worker " + strconv.Itoa(o.Worker)
	}
	return "[" + text + "] "
}
