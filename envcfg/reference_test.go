package envcfg

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kelseyhightower/envconfig"
)

var update = flag.Bool("update", false, "rewrite docs/environment.md")

const docFile = "../docs/environment.md"

func TestDocumentIsCurrent(t *testing.T) {
	if *update {
		if err := os.WriteFile(docFile, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), Markdown()); diff != "" {
		t.Errorf("docs/environment.md is not what the struct tags say; run go test ./envcfg -update:\n%s", diff)
	}
}

func TestTags(t *testing.T) {
	typ := reflect.TypeFor[Variables]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		if tag, has := f.Tag.Lookup("envconfig"); has {
			t.Errorf("%s has the tag envconfig:%q, with which envconfig reads the variable without prefix too", f.Name, tag)
		}
		if f.Tag.Get("split_words") != "true" || f.Tag.Get("ignored") != "" || f.Tag.Get("required") != "" {
			t.Errorf("%s: tags %q", f.Name, f.Tag)
		}
		if !strings.HasSuffix(string(f.Tag), ` doc:"`+f.Tag.Get("doc")+`"`) && !strings.Contains(f.Tag.Get("doc"), `"`) {
			t.Errorf("%s: doc is not the last tag", f.Name)
		}
		if doc := f.Tag.Get("doc"); !strings.HasSuffix(strings.TrimSpace(doc), ".") {
			t.Errorf("%s: doc %q is no sentence", f.Name, doc)
		}
		if GroupTitle(f.Tag.Get("group")) == "" {
			t.Errorf("%s: group %q has no title", f.Name, f.Tag.Get("group"))
		}
		if f.Type.Kind() == reflect.String && f.Type.Name() == "string" {
			continue
		}
		if !reflect.PointerTo(f.Type).Implements(reflect.TypeFor[envconfig.Decoder]()) {
			t.Errorf("%s: %s is decoded by envconfig itself", f.Name, f.Type)
		}
	}
}

// TestNamesAgree shows for each field that envconfig reads the very variable
// that the table names.
func TestNamesAgree(t *testing.T) {
	for _, f := range newTable().fields {
		t.Setenv(f.name, "\x01 no such value")
		var v Variables
		err := envconfig.Process("entrypoint", &v)
		text := reflect.ValueOf(v).Field(f.index).String()
		if isText := reflect.ValueOf(v).Field(f.index).Type().Name() == "string"; isText && text != "\x01 no such value" {
			t.Errorf("%s was not read: %q", f.name, text)
		}
		if err != nil && !strings.Contains(err.Error(), f.name) {
			t.Errorf("%s: %v", f.name, err)
		}
		if err := os.Unsetenv(f.name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFileNamesAreNoVariables(t *testing.T) {
	table := newTable()
	for _, f := range table.fields {
		if _, clash := table.byName[f.name+fileSuffix]; clash {
			t.Errorf("%s%s means two things", f.name, fileSuffix)
		}
		if table.byName[f.name] != f.index {
			t.Errorf("%s is there twice", f.name)
		}
	}
}

// TestDefaultsRoundTrip: the value shown for a default, set as a value, means
// the same; and likewise for every value that can be shown.
func TestDefaultsRoundTrip(t *testing.T) {
	c := load(t, `COMMAND=a "b c"`, "UMASK=27", "SIGNALS=15=3,RTMIN+1=ignore,QUIT=reload", "EXIT_REMAP=1=2", "STOP_SIGNAL=36")
	var environ []string
	for _, e := range c.Entries() {
		environ = append(environ, e.Name+"="+e.Value)
	}
	again, err := Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.Variables, again.Variables); diff != "" {
		t.Error(diff)
	}
}

func TestJSON(t *testing.T) {
	text, err := load(t, "READY=http://x/?a&b", "APP_ENV=A=hunter2").JSON()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Schema    int
		Variables []Entry
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Schema != 1 || len(doc.Variables) != len(Reference()) {
		t.Errorf("schema %d, %d variables", doc.Schema, len(doc.Variables))
	}
	if strings.Contains(string(text), "hunter2") || !strings.Contains(string(text), Hidden) {
		t.Errorf("a secret is not hidden: %s", text)
	}
}

func TestReference(t *testing.T) {
	for _, e := range Reference() {
		if e.Name == "" || e.Doc == "" || e.Source != FromDefault || e.Value != "" {
			t.Errorf("%+v", e)
		}
		if e.Choices != nil && !strings.Contains("|"+strings.Join(e.Choices, "|")+"|", "|"+e.Default+"|") {
			t.Errorf("%s: default %s is no choice", e.Name, e.Default)
		}
	}
	if table := Markdown(); strings.Count(table, "\n| `") != len(Reference()) {
		t.Error("the document does not have each variable once")
	}
}
