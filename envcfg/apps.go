package envcfg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// appPrefix begins the name of a variable of one of several apps.
const appPrefix = Prefix + "APP_"

// App is one of several apps in a container.
type App struct {
	Name   string
	Config *Config // the container's variables, with the app's own over them
}

// LoadApps is Load for an environment that may name several apps in ENTRYPOINT_APPS: apps are in the order in which they are named,
// and the first result is what is the container's, with Main filled in. Without ENTRYPOINT_APPS there are none, and the result is that of
// Load.
//
// The faults of all of them are in the error, each once, about the variable as it was written.
func LoadApps(environ []string) (*Config, []App, error) {
	names, main := declared(environ)
	if len(names) == 0 {
		c, err := Load(environ)
		return c, nil, err
	}
	t := newTable()
	plain, own, faults := divide(environ, names, t)
	shared, err := read(plain, false)
	faults = appendNew(faults, err)
	if main != "" && !slices.Contains(names, main) {
		faults = append(faults, &Fault{Name: Prefix + "MAIN", Text: fmt.Sprintf("cannot use %sMAIN=%s: not one of the apps %s", Prefix, quote(main), names)})
	}
	var apps []App
	for _, name := range names {
		env, spelled := over(plain, own[name], name)
		c, err := Load(env)
		if err != nil {
			faults = appendNew(faults, respell(err, spelled))
			continue
		}
		c.spelled = spelled
		apps = append(apps, App{name, c})
	}
	faults = append(faults, shareFaults(names, own, shared)...)
	if err := errors.Join(faults...); err != nil {
		return nil, nil, err
	}
	if shared.Main = main; main == "" {
		shared.Main = names[0]
	}
	return shared, apps, nil
}

// declared reads the names of the apps before anything else is read. What is wrong with them is Load's to say.
func declared(environ []string) (names Names, main string) {
	c, err := Load(only(environ, Prefix+"APPS", Prefix+"APPS"+fileSuffix, Prefix+"MAIN", Prefix+"MAIN"+fileSuffix))
	if err != nil {
		return nil, ""
	}
	return c.Apps, strings.ToLower(strings.TrimSpace(c.Main))
}

func only(environ []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return !slices.Contains(names, name)
	})
}

// divide takes the variables of single apps out of the environment.
func divide(environ []string, names Names, t *table) (plain []string, own map[string][]string, faults []error) {
	own = map[string][]string{}
	for _, kv := range environ {
		name, value, found := strings.Cut(kv, "=")
		if !found || !strings.HasPrefix(name, appPrefix) || t.knows(name) {
			plain = append(plain, kv)
			continue
		}
		app, variable := ofApp(strings.TrimPrefix(name, appPrefix), names, t)
		switch {
		case app == "" && isServiceLink(name):
			plain = append(plain, kv)
		case app == "":
			faults = append(faults, unknownOfApp(name, names, t))
		case t.fields[t.byName[strings.TrimSuffix(variable, fileSuffix)]].shared:
			faults = append(faults, &Fault{Name: name, Text: fmt.Sprintf("cannot use %s: it is the container's, the same for all apps: set %s", name, variable)})
		default:
			own[app] = append(own[app], variable+"="+value)
		}
	}
	return plain, own, faults
}

// ofApp tells whose variable it is, and which: of apps whose names begin alike, the one for which it is a variable.
func ofApp(rest string, names Names, t *table) (app, variable string) {
	for _, name := range names {
		if tail, ok := strings.CutPrefix(rest, UpperName(name)+"_"); ok && t.knows(Prefix+tail) && len(name) >= len(app) {
			app, variable = name, Prefix+tail
		}
	}
	return app, variable
}

// UpperName is the name of an app as it is in the names of variables.
func UpperName(name string) string { return strings.ReplaceAll(strings.ToUpper(name), "-", "_") }

func unknownOfApp(name string, names Names, t *table) error {
	for _, app := range names {
		tail, ok := strings.CutPrefix(strings.TrimPrefix(name, appPrefix), UpperName(app)+"_")
		if !ok {
			continue
		}
		text := fmt.Sprintf("cannot use %s: the app %q has no such variable", quote(name), app)
		if near := t.nearest(Prefix + tail); near != "" {
			text += fmt.Sprintf(": did you mean %s?", appPrefix+UpperName(app)+"_"+strings.TrimPrefix(near, Prefix))
		}
		return &Fault{Name: name, Text: text}
	}
	return &Fault{Name: name, Text: fmt.Sprintf("cannot use %s: it begins with the name of no app: %sAPPS has %s", quote(name), Prefix, names)}
}

// over is the environment of one app, with its own variables in the place of the container's, and how those were written. The
// _FILE form of one replaces the plain form of the other.
func over(plain, own []string, app string) (env []string, spelled map[string]string) {
	spelled = map[string]string{}
	for _, kv := range own {
		name, value, _ := strings.Cut(kv, "=")
		if value != "" {
			spelled[strings.TrimSuffix(name, fileSuffix)] = appPrefix + UpperName(app) + "_" + strings.TrimPrefix(strings.TrimSuffix(name, fileSuffix), Prefix)
		}
	}
	for _, kv := range plain {
		name, _, _ := strings.Cut(kv, "=")
		if _, replaced := spelled[strings.TrimSuffix(name, fileSuffix)]; !replaced {
			env = append(env, kv)
		}
	}
	return append(env, own...), spelled
}

// shareFaults finds what several apps cannot all get from the plain name.
func shareFaults(names Names, own map[string][]string, shared *Config) []error {
	if shared == nil || shared.Listen == "" {
		return nil
	}
	var without []string
	for _, name := range names {
		if !slices.ContainsFunc(own[name], func(kv string) bool {
			return strings.HasPrefix(kv, Prefix+"LISTEN=") || strings.HasPrefix(kv, Prefix+"LISTEN"+fileSuffix+"=")
		}) {
			without = append(without, name)
		}
	}
	if len(without) < 2 {
		return nil
	}
	return []error{&Fault{Name: Prefix + "LISTEN", Text: fmt.Sprintf("cannot give the addresses of %sLISTEN to several apps (%s): write %s for the one that serves them",
		Prefix, strings.Join(without, ", "), appPrefix+UpperName(without[0])+"_LISTEN")}}
}

// appendNew adds the faults of a joined error that are not there yet: what is wrong with the container's variables is wrong for each app.
func appendNew(faults []error, err error) []error {
	if err == nil {
		return faults
	}
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	for _, e := range list {
		if !slices.ContainsFunc(faults, func(f error) bool { return f.Error() == e.Error() }) {
			faults = append(faults, e)
		}
	}
	return faults
}

// respell writes the names in faults as they were written.
func respell(err error, spelled map[string]string) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return respellOne(err, spelled)
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, respell(e, spelled))
	}
	return errors.Join(out...)
}

func respellOne(err error, spelled map[string]string) error {
	f, ok := err.(*Fault)
	if !ok {
		return err
	}
	out := &Fault{Name: f.Name, Text: respellText(f.Text, spelled)}
	if name, ok := spelled[f.Name]; ok {
		out.Name = name
	}
	return out
}

// respellText replaces whole names only: ENTRYPOINT_HEALTH is not a part of ENTRYPOINT_HEALTH_TIMEOUT.
func respellText(text string, spelled map[string]string) string {
	var b strings.Builder
	for {
		at := strings.Index(text, Prefix)
		if at < 0 {
			return b.String() + text
		}
		end := at + len(Prefix)
		for end < len(text) && (isUpper(text[end]) || text[end] == '_' || text[end] >= '0' && text[end] <= '9') {
			end++
		}
		name := text[at:end]
		b.WriteString(text[:at])
		base, file := strings.CutSuffix(name, fileSuffix)
		switch {
		case spelled[name] != "":
			name = spelled[name]
		case file && spelled[base] != "":
			name = spelled[base] + fileSuffix
		}
		b.WriteString(name)
		text = text[end:]
	}
}
