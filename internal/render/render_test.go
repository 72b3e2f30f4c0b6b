package render

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"text/template"
)

// sample is data of every kind.
func sample() map[string]any {
	worker := func(n int) map[string]any {
		return map[string]any{"Worker": n, "PID": 100 + n, "Port": 10000 + n, "Address": fmt.Sprintf("127.0.0.1:%d", 10000+n), "State": "active", "Up": n%2 == 0}
	}
	return map[string]any{
		"App": "shop", "Generation": 3, "Previous": 0, "Share": 0.25, "Ready": true, "Off": false, "Empty": "", "None": nil,
		"Workers": []any{worker(0), worker(1), worker(2)}, "NoWorkers": []any{}, "Names": []any{"a", "b", "ü"}, "Mixed": []any{1, "x", 2.5, true, nil, []any{1, 2}},
		"Sockets": map[string]any{"web": "tcp://0.0.0.0:80", "admin": "unix:///run/x"}, "NoSockets": map[string]any{}, "Nested": map[string]any{"A": map[string]any{"B": map[string]any{"C": 7}}},
	}
}

// corpus are templates that both understand, or both refuse.
var corpus = []string{
	"", "plain\n", "{{.App}} {{.Generation}} {{.Share}} {{.Ready}} {{.None}} [{{.Empty}}]", "{{.Workers}} {{.Sockets}} {{.Mixed}}",
	"{{range .Workers}}server {{.Address}}{{if not .Up}} down{{end}};\n{{else}}none{{end}}", "{{range $i, $w := .Workers}}{{$i}}={{$w.Port}} {{end}}",
	"{{range .NoWorkers}}x{{else}}none{{end}}", "{{range $k, $v := .Sockets}}{{$k}} {{$v}};{{end}}", "{{range .NoSockets}}x{{else}}none{{end}}", "{{range .None}}x{{else}}e{{end}}",
	"{{range 3}}{{.}}{{end}}", "{{range $x := 3}}{{$x}}{{end}}", "{{range $i, $x := 3}}{{end}}", "{{range 0}}x{{else}}no{{end}}", "{{range .App}}x{{end}}", "{{range .Share}}x{{end}}",
	"{{range .Names}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "{{range .Names}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}",
	"{{range .Workers}}{{$p := .Port}}{{range $.Names}}{{$p}}{{.}} {{if eq . \"b\"}}{{break}}{{end}}{{end}}{{end}}", "{{with .Empty}}x{{else with .App}}{{.}}{{else}}y{{end}}",
	"{{with $x := .Generation}}{{$x}}{{.}}{{end}}", "{{if .Off}}a{{else if .Ready}}b{{else}}c{{end}}", "{{$x := 1}}{{if true}}{{$x = 2}}{{$y := 3}}{{$y}}{{end}}{{$x}}",
	"{{$x := 1}}{{range $x = .Names}}{{end}}{{$x}}", "{{$i := 9}}{{$e := 0}}{{range $i, $e = .Names}}{{$i}}{{$e}}{{end}}{{$i}}{{$e}}", "{{$x := 1}}{{range .Names}}{{$x := .}}{{$x}}{{end}}{{$x}}",
	"{{.Nested.A.B.C}} {{(index .Nested \"A\").B.C}} {{$.Nested.A.B}}", "{{.Missing}}", "{{.App.X}}", "{{.None.X}}", "{{.Nested.A.X.Y}}", "{{.App 1}}", "{{1 | .App}}", "{{if .Missing}}{{end}}",
	"{{len .Workers}} {{len .App}} {{len .Sockets}} {{len .Nested}}", "{{len .Generation}}", "{{len .None}}", "{{len}}", "{{len 1 2}}",
	"{{index .Workers 1}} {{index .Mixed 5 1}} {{index .Sockets \"web\"}} {{index .Sockets \"zz\"}} {{index .Names 0}}", "{{index .Names 3}}", "{{index .Names -1}}", "{{index .Names \"x\"}}",
	"{{index .Sockets 1}}", "{{index .None 1}}", "{{index .App 1}} {{printf \"%c %v %#v\" (index .App 1) (index .App 1) (index .App 1)}}", "{{index .Generation 1}}", "{{index .App}}", "{{index}}", "{{index .Names 1.0}}", "{{index .Names nil}}",
	"{{slice .App 1}} {{slice .App 1 2}} {{slice .Names 1}} {{slice .Names 0 2 2}} {{slice .App}}", "{{slice .App 1 2 3}}", "{{slice .App 9}}", "{{slice .Names 2 1}}", "{{slice (slice .Names 0 1) 0 3}}", "{{slice .Generation}}", "{{slice .Names 0 1 2 3}}",
	"{{printf \"%s-%d %5.2f %q %v|%-6s|%06d|%x\" .App .Generation .Share .App .Ready .App .Generation 255}}", "{{printf \"%d\" .App}}", "{{printf .Generation}}", "{{printf}}", "{{.App | printf \"%s\"}}", "{{printf \"%v %v\" 1}}", "{{\"%d\" | printf}}",
	"{{print 1 2 \"a\" \"b\" 3 nil .None}}", "{{println .App 1}}", "{{print}}", "{{println}}", "{{print .Names .Sockets}}",
	"{{eq 1 1}} {{eq 1 2 1}} {{eq .App \"shop\"}} {{eq .None nil}} {{eq .None 1}} {{eq nil nil}} {{eq .Ready true}} {{eq .Share 0.25}}", "{{eq 1 1.0}}", "{{eq 1 \"1\"}}", "{{eq .Names .Names}}", "{{eq .Sockets .Names}}", "{{eq .Names nil}} {{eq nil .Names}}", "{{eq 1}}", "{{eq}}",
	"{{ne 1 2}} {{ne \"a\" \"a\"}}", "{{ne 1 2 3}}", "{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2 2}} {{lt \"a\" \"b\"}} {{lt 1.5 2.5}}", "{{lt 1 2.0}}", "{{lt true false}}", "{{lt nil 1}}", "{{lt 1}}", "{{le 1 nil}}", "{{gt \"a\" 1}}",
	"{{and 1 0 2}} {{and 1 2}} {{or 0 \"\" 3}} {{or 0 \"\"}} {{not 0}} {{not .App}}", "{{and}}", "{{or}}", "{{not}}", "{{not 1 2}}", "{{or .App (index .Names 9)}}", "{{and .Off (index .Names 9)}}", "{{0 | or 0}} {{5 | and 1}} {{.App | and 0}}", "{{and 1 .Missing}}",
	"{{define \"x\"}}[{{.}}]{{end}}{{template \"x\" .App}}{{template \"x\"}}{{block \"y\" .Generation}}<{{.}}>{{end}}", "{{define \"r\"}}{{if .}}{{len .}}{{template \"r\" (slice . 1)}}{{end}}{{end}}{{template \"r\" .Names}}",
	"{{define \"v\"}}{{$}}{{end}}{{$x := 5}}{{template \"v\" $x}}{{$x}}", "{{template \"v\" $y := 1}}",
	"{{- 1 -}}  \n x {{- /* c */ -}} y", "{{/* c */}}", "{{1.5}} {{1e3}} {{0x1F}} {{'a'}} {{1_000}} {{0b11}} {{-3}} {{+4}} {{.5}}", "{{99999999999999999999}}", "{{0xFFFFFFFFFFFFFFFF}}", "{{0x1p4}}", "{{\"a\\n\\u00fc\"}} {{`raw`}} {{'\\n'}}",
	"{{true}} {{false}} {{nil}}", "{{(1)}} {{((.App))}} {{(print 1) | print 2}}", "{{1 2}}", "{{\"a\" \"b\"}}", "{{.}}", "{{$}}", "{{$.App}}", "{{foo}}", "{{if}}{{end}}", "{{range}}", "{{end}}", "{{break}}", "{{.App", "{{if 1}}", "{{(nil).X}}", "{{(.Nested).A.B.C}}",
	"{{range $i, $c := .Mixed}}{{$i}}:{{with $c}}{{.}}{{else}}-{{end}} {{end}}", "{{with .Workers}}{{with index . 1}}{{.PID}}{{end}}{{end}}", "{{range .Mixed}}{{if .}}{{printf \"%v\" .}}{{end}},{{end}}", "{{html .App}}", "{{js 1}}", "{{urlquery 1}}", "{{call .App}}", "{{3i}}",
	"{{$a := 1}}{{$b := $a}}{{$a = 2}}{{$b}}{{$a}}", "{{if $x := .App}}{{$x}}{{end}}", "{{range $x := .Names}}{{$x}}{{end}}", "{{with $x := .None}}{{else}}{{$x}}{{end}}", "{{print (len .Names) (index .Names 0)}}", "{{eq (len .Names) 3}}", "{{if eq (index .App 0) 115}}s{{end}}", "{{lt (index .App 0) 116}}",
}

// bounds are the sentences about what only we refuse.
func ours(err error) bool {
	for _, s := range []string{"not supported", "more than", "larger than", "deep inside", "is defined"} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}

// compare runs a template by both.
func compare(t *testing.T, text string) {
	t.Helper()
	mine, err := Parse("x", text)
	var out []byte
	if err == nil {
		out, err = mine.Execute(sample())
	}
	if err != nil && strings.Contains(err.Error(), "internal error") {
		t.Fatalf("%q: %v", text, err)
	}
	if err != nil && ours(err) {
		return
	}
	var theirs bytes.Buffer
	other, theirErr := template.New("x").Option("missingkey=error").Parse(text)
	if theirErr == nil {
		theirErr = other.Execute(&theirs, sample())
	}
	switch {
	case (err == nil) != (theirErr == nil):
		t.Errorf("%q:\n ours   %q, %v\n theirs %q, %v", text, out, err, theirs.String(), theirErr)
	case err == nil && string(out) != theirs.String():
		t.Errorf("%q:\n ours   %q\n theirs %q", text, out, theirs.String())
	}
}

func TestLikeTextTemplate(t *testing.T) {
	for _, text := range corpus {
		compare(t, text)
	}
}

func FuzzLikeTextTemplate(f *testing.F) {
	for _, text := range corpus {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4<<10 {
			return
		}
		compare(t, text)
	})
}

// TestRefusals: each is a sentence with the template, the line and the word.
func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"\n\n{{html .App}}":                 `x:3: the function "html" is not supported`,
		"{{3i}}":                            "x:1: the complex number 3i is not supported",
		"a\n{{template \"nope\"}}":          `x:2: no template "nope" is defined`,
		"\n{{foo}}":                         `x:2: function "foo" not defined`,
		"{{if .App}}":                       "x:1: unexpected EOF",
		"\n{{.Apps}}":                       "x:2: there is no .Apps here, only App, Empty, ",
		"{{range .Workers}}\n{{.X}}{{end}}": "x:2: there is no .X here, only Address, ",
		"{{index .Names 7}}":                "x:1: index: no element 7 in a list of 3",
		"{{printf \"%99999d\" 1}}":          "x:1: printf: a number in its format has more than four digits: not supported",
		"{{define \"r\"}}{{template \"r\"}}{{end}}\n{{template \"r\"}}":                                                   "x:1: templates are more than 100 deep inside each other",
		"{{range 1000000}}{{range 1000000}}{{end}}{{end}}":                                                                "x:1: more than 1000000 steps",
		"{{$x := \"0123456789\"}}{{range 60}}{{$x = print $x $x}}{{end}}":                                                 "x:1: print: the text is larger than 4 MiB",
		"{{$x := \"0123456789\"}}{{range 18}}{{$x = print $x $x}}{{end}}{{printf \"%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s\" $x}}": "x:1: printf: the text is larger than 4 MiB",
		"{{range 1000000}}0123456789{{end}}":                                                                              "x:1: the result is larger than 4 MiB",
	} {
		tm, err := Parse("x", text)
		if err == nil {
			_, err = tm.Execute(sample())
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := Parse("x", strings.Repeat("x", maxTemplate+1)); err == nil {
		t.Error("a template of any size is read")
	}
}

func BenchmarkExecute(b *testing.B) {
	tm, err := Parse("x", corpus[4])
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := tm.Execute(sample()); err != nil {
			b.Fatal(err)
		}
	}
}
