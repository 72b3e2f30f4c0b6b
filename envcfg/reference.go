package envcfg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Entry is one variable, for listings. Its JSON form is part of what
// `entrypoint config --json` promises.
type Entry struct {
	Name    string   `json:"name"`              // with prefix
	Value   string   `json:"value"`             // as text in canonical spelling; Hidden if it may not be shown
	Source  Source   `json:"source"`            // default, env or file
	Default string   `json:"default"`           // empty: there is none
	Choices []string `json:"choices,omitempty"` // the only values, if it has such
	Secret  bool     `json:"secret"`            // the value is never shown
	Group   string   `json:"group"`
	Doc     string   `json:"doc"`
}

// Hidden stands where a value may not be shown.
const Hidden = "(not shown)"

// Reference returns all variables without values, in the order of the
// documentation.
func Reference() []Entry {
	fields, typ := newTable().fields, reflect.TypeFor[Variables]()
	out := make([]Entry, len(fields))
	for i, f := range fields {
		tag := typ.Field(i).Tag
		out[i] = Entry{Name: f.name, Source: FromDefault, Default: f.def, Choices: f.choices,
			Secret: f.secret(), Group: tag.Get("group"), Doc: tag.Get("doc")}
	}
	return out
}

// Entries returns all variables with the values of c. A value that came from a
// file and that of ENTRYPOINT_APP_ENV are Hidden unless empty.
func (c *Config) Entries() []Entry {
	out := Reference()
	values := reflect.ValueOf(c.Variables)
	for i := range out {
		e := &out[i]
		e.Value = fmt.Sprint(values.Field(i).Interface())
		e.Source = c.Source(e.Name)
		e.Secret = e.Secret || e.Source == FromFile
		if e.Secret && e.Value != "" {
			e.Value = Hidden
		}
	}
	return out
}

// Own returns the variables that one of several apps has of its own, by the names that they were written with.
func (c *Config) Own() []Entry {
	var own []Entry
	for _, e := range c.Entries() {
		if name, ok := c.spelled[e.Name]; ok {
			e.Name = name
			own = append(own, e)
		}
	}
	return own
}

// JSON returns Entries as a JSON document, {"schema":1,"variables":[…]}, and behind them what apps have of their own.
func (c *Config) JSON(apps ...App) ([]byte, error) {
	doc := struct {
		Schema    int     `json:"schema"`
		Variables []Entry `json:"variables"`
	}{1, c.Entries()}
	for _, a := range apps {
		doc.Variables = append(doc.Variables, a.Config.Own()...)
	}
	return json.MarshalIndent(doc, "", "  ")
}

// jsonText writes v as JSON on one line, < > & as they are.
func jsonText(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}
