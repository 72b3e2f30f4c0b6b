package render

import (
	"strings"
	"testing"
	"text/template"
)

// corners are templates at the edges of the syntax. Executed or not, both read them or both refuse them.
var corners = []string{
	"{{1 |}}", "{{1 | }}", "{{| 1}}", "{{1 || 2}}", "{{1 | 2}}", "{{1 | .}}", "{{1 | .A}}", "{{1 | nil}}", "{{1 | (2)}}", "{{1 | print | print}}", "{{1|print}}", "{{(1 |)}}",
	"{{if(1)}}{{end}}", "{{if.App}}{{end}}", "{{if\"a\"}}{{end}}", "{{if$}}{{end}}", "{{end.}}", "{{if 1}}{{end 1}}", "{{if 1}}{{else 1}}{{end}}", "{{if 1}}{{else}}{{else}}{{end}}", "{{if 1}}{{else if}}{{end}}",
	"{{if 1}}{{else if 2}}{{else if 3}}{{else}}{{end}}", "{{if 1}}{{else with 2}}{{end}}", "{{with 1}}{{else if 2}}{{end}}", "{{range 1}}{{else range 2}}{{end}}", "{{range 1}}{{else if 2}}{{end}}", "{{else}}", "{{if 1}}{{elseif 2}}{{end}}",
	"{{range 1}}{{if 1}}{{break}}{{end}}{{end}}", "{{range 1}}{{else}}{{break}}{{end}}", "{{range 1}}{{range 1}}{{else}}{{continue}}{{end}}{{end}}", "{{continue}}", "{{range 1}}{{break 1}}{{end}}", "{{range 1}}{{block \"b\" 1}}{{break}}{{end}}{{end}}", "{{print break}}",
	"{{$x=1}}", "{{$x =1}}", "{{$x:=1}}", "{{$x := 1}}{{$x=2}}", "{{$x :1}}", "{{$x : = 1}}", "{{$ := 1}}{{$}}", "{{$x.A := 1}}", "{{$x, $y := 1}}", "{{$x := $x}}", "{{$x}}", "{{if true}}{{$x := 1}}{{end}}{{$x}}", "{{if true}}{{$x := 1}}{{else}}{{$x}}{{end}}", "{{$x := 1 | $y := 2}}", "{{($x := 1)}}{{$x}}", "{{print ($x := 1) $x}}", "{{$x := }}",
	"{{range $x, $y}}{{end}}", "{{range $x, $x}}{{end}}", "{{range $x, $}}{{end}}", "{{range $x, $.Names}}{{$x}}{{end}}", "{{range $x, .Names}}{{end}}", "{{range $x,}}{{end}}", "{{range $x , $y := .Names}}{{end}}", "{{range $x,$y:=.Names}}{{end}}", "{{range $x, $y, $z := .Names}}{{end}}", "{{range $a, $b = .Names}}{{end}}", "{{range print ($i, $e := 1)}}{{end}}",
	"{{..}}", "{{..A}}", "{{.A.}}", "{{.A..B}}", "{{.A.5}}", "{{.5.A}}", "{{1.A}}", "{{1..}}", "{{nil.A}}", "{{true.A}}", "{{\"a\".A}}", "{{'a'.A}}", "{{$.A.B}}", "{{$.}}", "{{$.5}}", "{{(.).A}}", "{{(1) .A}}", "{{(.A).5}}", "{{print.A}}", "{{print.A 1}}", "{{.A(1)}}", "{{print(1)}}", "{{(1)(2)}}", "{{\"a\"\"b\"}}", "{{1\"b\"}}", "{{. .}}", "{{.A .B}}", "{{.é}}", "{{.\u0663}}", "{{.A.\u0663}}", "{{\u0663}}", "{{.a-b}}", "{{$-}}", "{{.-}}",
	"{{- }}", "{{-}}", "{{ -}}", "{{- -}}", "{{-  -}}", "{{ - }}", "{{-1}}", "{{ -1 -}}", "{{1-}}", "{{1 -}} a", "{{1\t-}} a", "{{1  -}}", "{{1 - }}", "a {{- 1}}", "a {{-1}}", "{{- 1 -}}{{- 2 -}}", "  {{- /* c */ -}}  ", "{{-  /* c */}}", "{{ /* c */}}", "{{/* c */ }}", "{{/* c */-}}", "{{/*", "{{/*/}}", "{{/**/}}", "{{/* */ */}}", "{{-/* c */}}", "{{/*\n*/\n-}}\n x", "{{", "{{{1}}}", "}}", "{{}}", "{{ }}", "{{1}", "{{\n1\n}}", "{{\r\n1}}", "{{\v1}}", "{{\xff}}", "{{#}}", "{{é}}", "{{,}}", "{{1,2}}", "{{)}}", "{{(}}", "{{()}}", "{{(1}}", "{{(1))}}", "{{(1 -}})",
	"{{0}} {{-0}} {{+0}} {{00}} {{017}} {{0o17}} {{0O17}} {{0X1f}} {{0B1}} {{1_0}} {{0x_1f}}", "{{089}}", "{{0b2}}", "{{0x}}", "{{1__0}}", "{{1_}}", "{{_1}}", "{{1e}}", "{{1e5}}", "{{1E-5}}", "{{1e400}}", "{{0x1e}} {{-0x1e}} {{+0X1E}}", "{{printf \"%d %d %d\" 0x1e -0x1e 0X1E}}", "{{index .Names -0x0e}}", "{{0x1e+5}}", "{{0x1.8p3}}", "{{0x1.8}}", "{{-0x1p-2}}", "{{0x1_0p0}}", "{{1_0.5}}", "{{1_0e1}}", "{{1p5}}", "{{1.}} {{.1e1}}", "{{+Inf}}", "{{+inf}}", "{{-infinity}}", "{{nan}}", "{{.e5}}", "{{9223372036854775807}}", "{{-9223372036854775808}}", "{{9223372036854775808}}", "{{if false}}{{9223372036854775808}}{{end}}", "{{if false}}{{18446744073709551616}}{{end}}", "{{if false}}{{-9223372036854775809}}{{end}}", "{{1e19}}", "{{1a}}", "{{1;}}", "{{--1}}", "{{+}}", "{{0xg}}",
	"{{''}}", "{{'ab'}}", "{{'é'}} {{'\\''}} {{'\\xff'}} {{'\\377'}} {{'\\u00e9'}}", "{{'\\ud800'}}", "{{'\\\"'}}", "{{'\"'}}", "{{'\xff'}}", "{{'\n'}}", "{{'}}", "{{'a}}", "{{\"a}}", "{{\"a\nb\"}}", "{{\"\\'\"}}", "{{\"\\q\"}}", "{{\"\\\n\"}}", "{{\"\xff\"}}", "{{\"}}\"}}", "{{`a\nb\r\"\\`}}", "{{`a}}", "{{\"\\x41\\101\\U0001F600\"}}",
	"{{template}}", "{{template 1}}", "{{template x}}", "{{template \"x\"1}}", "{{template \"x\".App}}", "{{template \"x\" 1 2}}", "{{template 'x'}}", "{{template \"x\\q\"}}", "{{template `x`}}", "{{template\"x\"}}", "{{template \"x\" |}}", "{{define \"a\"}}{{end}}{{template \"a\"}}",
	"{{define}}{{end}}", "{{define \"a\" 1}}{{end}}", "{{define \"a\"}}", "{{define \"a\"}}{{else}}{{end}}", "{{ define `a` -}} b {{- end }}{{template \"a\"}}", "{{define 'a'}}{{end}}", "{{if 1}}{{define \"a\"}}{{end}}{{end}}", "{{define \"a\"}}{{define \"b\"}}{{end}}{{end}}", "{{define \"a\"}}1{{end}}{{define \"a\"}}2{{end}}", "{{define \"a\"}} {{end}}{{define \"a\"}}2{{end}}{{template \"a\"}}", "{{define \"a\"}}2{{end}}{{define \"a\"}} {{/* c */}}{{end}}{{template \"a\"}}", "{{define \"a\"}}2{{end}}{{block \"a\" 1}}3{{end}}", "{{define \"a\"}}2{{end}}{{block \"a\" 1}}{{end}}",
	"{{define \"x\"}}1{{end}}", "{{define \"x\"}}1{{end}}2", "{{define \"x\"}} {{end}}2", "{{define \"x\"}}1{{end}} \n", "{{$x := 1}}{{define \"a\"}}{{$x}}{{end}}", "{{$x := 1}}{{define \"a\"}}{{$x := 2}}{{end}}{{$x}}", "{{define \"a\"}}{{$y := 2}}{{end}}{{$y}}",
	"{{block \"b\"}}{{end}}", "{{block \"b\" 1}}", "{{block \"b\" 1}}{{else}}{{end}}", "{{block \"b\" $x := 1}}{{end}}{{$x}}", "{{$x := 1}}{{block \"b\" $x}}{{$x}}{{end}}", "{{if 1}}{{block \"b\" 1}}{{.}}{{end}}{{end}}", "{{block \"b\" 1}}{{block \"c\" .}}{{.}}{{end}}{{end}}", "{{with $y := 1}}{{block \"b\" $y}}{{.}}{{end}}{{$y}}{{end}}",
	"{{print if}}", "{{print end}}", "{{nil}}", "{{nil 1}}", "{{print nil}}", "{{true false}}", "{{iff}}", "{{if1}}", "{{if|1}}", "{{break|1}}", "{{range}}{{end}}", "{{with}}{{end}}", "{{if 1 }}{{ end }}", "{{if 1 -}} a {{- else -}} b {{- end -}} c",
}

// alikeRead compares what is read and what is refused, whatever comes of it when it is executed.
func alikeRead(t *testing.T, text string) {
	t.Helper()
	_, err := Parse("x", text)
	if err != nil && (strings.Contains(err.Error(), "internal error") || !strings.HasPrefix(err.Error(), "x:")) {
		t.Fatalf("%q: %v", text, err)
	}
	if err != nil && ours(err) {
		return
	}
	if _, theirs := template.New("x").Parse(text); (err == nil) != (theirs == nil) {
		t.Errorf("%q:\n ours   %v\n theirs %v", text, err, theirs)
	}
}

func TestReadLikeTextTemplate(t *testing.T) {
	for _, text := range corners {
		alikeRead(t, text)
		compare(t, text)
	}
}

func FuzzReadLikeTextTemplate(f *testing.F) {
	for _, text := range corpus {
		f.Add(text)
	}
	for _, text := range corners {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) <= 4<<10 {
			alikeRead(t, text)
		}
	})
}

// TestNesting: what is too deep is refused with a sentence, at the size of the largest template too; what is deep enough for anybody is executed.
func TestNesting(t *testing.T) {
	for what, c := range map[string]struct{ open, value, shut string }{
		"parentheses":   {"(", "1", ")"},
		"an open end":   {"(", "1", ""},
		"if":            {"{{if 1}}", "1", "{{end}}"},
		"else if":       {"{{else if 0}}", "1", ""},
		"range in with": {"{{with 1}}{{range 1}}", "1", "{{end}}{{end}}"},
		"block":         {"{{block `b` 1}}", "1", "{{end}}"},
		"print":         {"(print (", "1", "))"},
	} {
		build := func(depth int) string {
			text := strings.Repeat(c.open, depth) + c.value + strings.Repeat(c.shut, depth)
			switch {
			case c.open[0] == '(':
				return "{{" + text + "}}"
			case what == "else if":
				return "{{if 0}}" + text + "{{end}}"
			}
			return text
		}
		fits := maxTemplate / (len(c.open) + len(c.shut) + 1)
		if _, err := Parse("x", build(fits)); err == nil || err.Error() != "x:1: blocks and parentheses are more than 1000 deep inside each other" {
			t.Errorf("%s, %d deep: %v", what, fits, err)
		}
		if c.shut == "" && what != "else if" || what == "block" { // it defines one name again and again
			continue
		}
		tm, err := Parse("x", build(maxNesting/3))
		if err == nil {
			_, err = tm.Execute(nil)
		}
		if err != nil {
			t.Errorf("%s, %d deep: %v", what, maxNesting/3, err)
		}
	}
}
