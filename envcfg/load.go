package envcfg

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/kelseyhightower/envconfig"
)

// Load turns environ (as os.Environ gives it) into a Config. The error joins a
// *Fault for every fault there is; then the Config is nil. Of a name that is
// in environ twice the first counts, as in os.Getenv.
//
// Load reads the files named by NAME_FILE variables, and ENTRYPOINT_ENV_FILE's
// to see that it can be used. It changes the process environment and restores
// it before it returns: see the package comment for when that is safe.
func Load(environ []string) (*Config, error) { return read(environ, true) }

// read is Load. Without whole, what goes with what is not looked at: the rest is still to come.
func read(environ []string, whole bool) (*Config, error) {
	l := &loader{
		table:   newTable(),
		values:  map[string]string{},
		paths:   map[string]string{},
		faulted: map[string]bool{},
		config:  &Config{sources: map[string]Source{}},
	}
	l.sort(environ)
	l.readFiles()
	l.decode()
	l.check()
	if whole {
		l.checkPairs()
	}
	if err := errors.Join(l.faults...); err != nil {
		return nil, err
	}
	return l.config, nil
}

// loader is the state of one Load.
type loader struct {
	table   *table
	values  map[string]string // by variable: what envconfig is to see
	paths   map[string]string // by variable: the value of its _FILE form
	faulted map[string]bool
	faults  []error
	config  *Config
}

// sort puts each entry of environ where it belongs: a value, a path, a service
// link, a fault, or nothing of ours.
func (l *loader) sort(environ []string) {
	seen := map[string]bool{}
	for _, kv := range environ {
		name, value, found := strings.Cut(kv, "=")
		if !found || !underPrefix(name) || seen[name] {
			continue
		}
		seen[name] = true
		l.sortOne(name, value)
	}
}

// underPrefix reports whether name begins with the prefix in any case.
func underPrefix(name string) bool {
	return len(name) >= len(Prefix) && strings.EqualFold(name[:len(Prefix)], Prefix)
}

func (l *loader) sortOne(name, value string) {
	variable, isFile := strings.CutSuffix(name, fileSuffix)
	_, plain := l.table.byName[name]
	_, file := l.table.byName[variable]
	switch {
	case plain && value != "":
		l.values[name], l.config.sources[name] = value, FromEnv
	case plain:
	case isFile && file && value != "":
		l.paths[variable] = value
	case isFile && file, handedDown(name):
	case isServiceLink(name):
		l.config.links = append(l.config.links, name)
		if strayLink(name, value) {
			l.config.stray = append(l.config.stray, name)
		}
	case !strings.HasPrefix(name, Prefix) && !l.table.knows(strings.ToUpper(name)):
		// the app's: it only looks like ours
	default:
		l.faults = append(l.faults, unknownFault(name, l.table))
	}
}

// readFiles resolves the _FILE forms, in a fixed order.
func (l *loader) readFiles() {
	for _, name := range slices.Sorted(maps.Keys(l.paths)) {
		if _, both := l.values[name]; both {
			l.reject(name, fmt.Sprintf("cannot use both %s and %s: unset one of them", name, name+fileSuffix))
			delete(l.values, name)
			continue
		}
		data, err := readBounded(l.paths[name])
		if err != nil {
			l.reject(name, fmt.Sprintf("cannot read %s of %s: %v", l.pathText(name), name+fileSuffix, err))
			continue
		}
		if text := trimNewline(string(data)); text != "" {
			l.values[name], l.config.sources[name] = text, FromFile
		}
	}
}

// trimNewline drops one line end.
func trimNewline(s string) string {
	if t, ok := strings.CutSuffix(s, "\n"); ok {
		return strings.TrimSuffix(t, "\r")
	}
	return s
}

// pathText quotes the path of a _FILE variable. Where the value itself is a
// secret, only what is plainly a path is shown: somebody may have put the
// secret there by mistake.
func (l *loader) pathText(name string) string {
	path := l.paths[name]
	if name == Prefix+"APP_ENV" && !strings.HasPrefix(path, "/") {
		return "the file (its name is not shown, it does not begin with /)"
	}
	return quote(path)
}

// decode fills the variables through envconfig, which stops at the first bad
// value: each round takes one of them out, until the rest is good.
func (l *loader) decode() {
	for _, f := range l.table.fields {
		if strings.Contains(l.values[f.name], "\x00") {
			l.fault(f.name, problem{"it has a zero byte", "", ""})
			delete(l.values, f.name)
		}
	}
	for {
		l.config.Variables = Variables{Umask: KeepUmask}
		err := l.process()
		if err == nil {
			return
		}
		var parse *envconfig.ParseError
		if !errors.As(err, &parse) || l.values[parse.KeyName] == "" {
			l.faults = append(l.faults, errors.New("internal error: cannot decode the variables"))
			return // the cause is left out: it may quote a value
		}
		l.decodeFault(parse)
		delete(l.values, parse.KeyName)
	}
}

func (l *loader) decodeFault(parse *envconfig.ParseError) {
	var known problems
	if !errors.As(parse.Err, &known) {
		known = problems{{why: "not understood"}}
	}
	for _, p := range known {
		l.fault(parse.KeyName, p)
	}
}

// environment serialises the times at which the process environment is ours.
var environment sync.Mutex

// process runs envconfig once, with the process environment set to l.values,
// and puts the environment back as it was.
func (l *loader) process() error {
	environment.Lock()
	defer environment.Unlock()
	for _, f := range l.table.fields {
		value, set := l.values[f.name]
		old, had := os.LookupEnv(f.name)
		switch {
		case had && !set:
			// Setting the default is like unsetting, but keeps the variable's
			// place in os.Environ.
			value = f.def
		case !had && !set:
			continue
		}
		if err := os.Setenv(f.name, value); err != nil {
			return err
		}
		if had {
			defer os.Setenv(f.name, old) // cannot fail: the value was there before
		} else {
			defer os.Unsetenv(f.name) // cannot fail: the name is ours
		}
	}
	return envconfig.Process(strings.TrimSuffix(Prefix, "_"), &l.config.Variables)
}

// fault records what is wrong with the value of name.
func (l *loader) fault(name string, p problem) {
	text := "cannot use " + name
	secret := name == Prefix+"APP_ENV"
	switch l.config.Source(name) {
	case FromFile:
		text += " as read from " + l.pathText(name)
		secret = true
	case FromEnv:
		if secret {
			text += " (its value is not shown)"
		} else {
			text += "=" + quote(l.values[name])
		}
	}
	l.reject(name, text+": "+p.text(secret))
}

// reject records a whole sentence about name.
func (l *loader) reject(name, text string) {
	l.faulted[name] = true
	l.faults = append(l.faults, &Fault{Name: name, Text: text})
}

// fieldValue gives access to the field of f.
func (l *loader) fieldValue(f field) reflect.Value {
	return reflect.ValueOf(&l.config.Variables).Elem().Field(f.index)
}

// number returns the value of a Duration or Count.
func (l *loader) number(name string) int64 {
	return l.fieldValue(l.table.fields[l.table.byName[name]]).Int()
}
