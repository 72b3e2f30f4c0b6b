package envcfg

import (
	"reflect"
	"strings"
)

// field is one variable as the struct tags of Variables describe it.
type field struct {
	index   int    // of the struct field
	name    string // with prefix
	def     string
	choices []string // the only values of a text; nil for other types
	shared  bool     // of the container: one of several apps cannot have its own
}

// secret reports whether the variable's value is never shown, wherever it
// came from.
func (f field) secret() bool { return f.name == Prefix+"APP_ENV" }

// table is all variables in the order of the struct.
type table struct {
	fields []field
	byName map[string]int
}

// newTable reads the struct tags. It takes some microseconds; Load does it
// once.
func newTable() *table {
	typ := reflect.TypeFor[Variables]()
	t := &table{make([]field, 0, typ.NumField()), make(map[string]int, typ.NumField())}
	for i := range typ.NumField() {
		sf := typ.Field(i)
		tag, _, _ := strings.Cut(string(sf.Tag), ` doc:"`) // long and last: skipped, for speed
		f := field{index: i, name: Prefix + screaming(sf.Name), def: reflect.StructTag(tag).Get("default"), shared: reflect.StructTag(tag).Get("scope") != ""}
		if list := reflect.StructTag(tag).Get("choice"); list != "" {
			f.choices = strings.Split(list, "|")
		}
		t.byName[f.name] = i
		t.fields = append(t.fields, f)
	}
	return t
}

// screaming makes START_TIMEOUT of StartTimeout, as envconfig does with
// split_words for the names used here (a test compares the two).
func screaming(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if i > 0 && isUpper(name[i]) && !isUpper(name[i-1]) {
			b.WriteByte('_')
		}
		b.WriteByte(name[i])
	}
	return strings.ToUpper(b.String())
}

func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }

// knows reports whether name is a variable or the _FILE form of one.
func (t *table) knows(name string) bool {
	_, plain := t.byName[name]
	_, file := t.byName[strings.TrimSuffix(name, fileSuffix)]
	return plain || file
}

// nearest returns the variable that name, which is not one, was meant to be.
func (t *table) nearest(name string) string {
	upper := strings.ToUpper(name)
	bare, file := strings.CutSuffix(upper, fileSuffix)
	names := make([]string, len(t.fields))
	for i, f := range t.fields {
		names[i] = strings.TrimPrefix(f.name, Prefix)
	}
	if near := nearest(strings.TrimPrefix(upper, Prefix), names); near != "" {
		return Prefix + near
	}
	if near := nearest(strings.TrimPrefix(bare, Prefix), names); file && near != "" {
		return Prefix + near + fileSuffix
	}
	return ""
}
