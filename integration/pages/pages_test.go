package pages

import (
	"strings"
	"testing"
)

const sample = "# A title, and `code`\n\nText with [a link](b.md#c) and `not a [link](x)`.\n\n" +
	"<!-- begin: web -->\n<!-- run: unshare -->\n```sh\ntrue\nfalse\n```\n\n<!-- file: app.py -->\n\n```python\npass\n```\n\n" +
	"    indented\n\n    still\n\n- an item\n\n      of an item\n\nText.\n    goes on\n\n## Again\n## Again\n"

func TestParse(t *testing.T) {
	p, err := Parse("x.md", sample)
	if err != nil {
		t.Fatal(err)
	}
	if p.Begin != "web" || len(p.Blocks) != 3 {
		t.Fatalf("begin %q, blocks %+v", p.Begin, p.Blocks)
	}
	want := []Block{
		{Language: "sh", Line: 8, Text: "true\nfalse\n", Run: "unshare"},
		{Language: "python", Line: 15, Text: "pass\n", File: "app.py"},
		{Line: 18, Text: "indented\n\nstill\n", Indented: true},
	}
	for i, b := range p.Blocks {
		if b != want[i] {
			t.Errorf("block %d: %+v, want %+v", i, b, want[i])
		}
	}
	if links := p.Links(); len(links) != 1 || links[0] != (Link{3, "b.md#c"}) {
		t.Errorf("links %+v", links)
	}
	var anchors []string
	for _, h := range p.Headings {
		anchors = append(anchors, h.Anchor)
	}
	if got := strings.Join(anchors, " "); got != "a-title-and-code again again-1" {
		t.Errorf("anchors %s", got)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"```sh\ntrue\n", "<!-- run: x\n", "<!-- file: ../x -->\n"} {
		if _, err := Parse("x.md", text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestSteps(t *testing.T) {
	b := Block{Language: "console", Line: 5, Text: "$ cat <<E\n> one\n> E\none\n$ false\n$ echo $?\n1\n"}
	steps, err := b.Steps()
	if err != nil || len(steps) != 3 {
		t.Fatalf("%+v, %v", steps, err)
	}
	if s := steps[0]; s.Command != "cat <<E\none\nE\n" || s.Output != "one\n" || s.May || !s.Compare {
		t.Errorf("%+v", s)
	}
	if s := steps[1]; !s.May || s.Line != 9 {
		t.Errorf("%+v", s)
	}
	if _, err := (&Block{Language: "console", Text: "true\n"}).Steps(); err == nil {
		t.Error("a block without a command is taken")
	}
}

func TestMatches(t *testing.T) {
	for _, x := range []struct {
		shown, got string
		want       bool
	}{
		{"", "", true},
		{"", "x\n", false},
		{"a … c\n", "a b c  \n\n", true},
		{"a … c\n", "a b d\n", false},
		{"a\n…\nz\n", "a\nb\nc\nz\n", true},
		{"a\n…\nz\n", "a\nz\n", true},
		{"a\n…\n", "a\n", true},
		{"…\nz\n", "z\ny\n", false},
		{"(a)\n", "(a)\n", true},
	} {
		if got := Matches(x.shown, x.got); got != x.want {
			t.Errorf("%q and %q: %v", x.shown, x.got, got)
		}
	}
}

func TestMatchesMixed(t *testing.T) {
	out, err := "answer\n", "phase 1\nphase 2\nnote\n"
	for shown, want := range map[string]bool{
		"phase 1\nphase 2\nanswer\nnote\n": true,
		"…\nanswer\nnote\n":                true,
		"answer\n…\n":                      true,
		"phase 2\nphase 1\nanswer\nnote\n": false,
		"phase 1\nphase 2\nanswer\n":       false,
		"…\nnothing\n":                     false,
	} {
		if got := Matches(shown, out, err); got != want {
			t.Errorf("%q: %v", shown, got)
		}
	}
}

func TestNotRun(t *testing.T) {
	reason, by, ok := NotRun("not, needs a cluster; held by TestX/docker/some-row")
	if !ok || reason != "needs a cluster" || by != "TestX/docker/some-row" {
		t.Errorf("%q %q %v", reason, by, ok)
	}
	for _, run := range []string{"not", "not, because", "not, because; held by nothing", "docker"} {
		if _, _, ok := NotRun(run); ok {
			t.Errorf("%q is taken", run)
		}
	}
}
