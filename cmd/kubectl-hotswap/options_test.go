package main

import (
	"debug/elf"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	for line, want := range map[string]string{
		"frob deploy/web":                               `there is no action "frob"`,
		"push":                                          "needs the file",
		"push f":                                        "push needs a target",
		"push f deploy/web pod/x":                       "takes one target",
		"push f cronjob/x":                              "cannot use",
		"push f deploy/":                                "cannot use",
		"push f deploy/-x":                              "cannot use",
		"reload deploy/web -l a=b":                      "a name or a selector",
		"reload deploy/web --sha256 x":                  "reload takes no --sha256",
		"status deploy/web --undo-on-failure":           "status takes no --undo-on-failure",
		"rollback deploy/web --undo-on-failure":         "rollback takes no --undo-on-failure",
		"push f deploy/web --nonsense":                  `there is no option "--nonsense"`,
		"push f deploy/web --json=yes":                  "--json takes no value",
		"push f deploy/web --timeout":                   "--timeout needs a value",
		"push f deploy/web --timeout 0":                 "--timeout: cannot use",
		"push f deploy/web --max-unavailable 0":         "write a number of 1",
		"push f deploy/web --wait forever":              "promoted or drained",
		"push f deploy/web --sha256 12":                 "64 hexadecimal digits",
		"push f deploy/web --entrypoint bin/entrypoint": "not an absolute path",
	} {
		var errs strings.Builder
		if code := run(strings.Fields(line), os.Getenv, io.Discard, &errs); code != codeUsage || !strings.Contains(errs.String(), want) || !strings.Contains(errs.String(), "usage: kubectl hotswap ") {
			t.Errorf("%s: code %d: %s", line, code, errs.String())
		}
	}
	for _, line := range []string{"", "help", "--help", "push --help", "version"} {
		var out strings.Builder
		if code := run(strings.Fields(line), os.Getenv, &out, io.Discard); code != 0 || !strings.Contains(out.String(), "hotswap") {
			t.Errorf("%q: code %d: %s", line, code, out.String())
		}
	}
}

func TestParse(t *testing.T) {
	o, err := parse(strings.Fields("push f statefulset/db -nshop -c=app --max-unavailable=3 --timeout 1m30s --undo-on-failure"))
	if err != nil || o.kind != "statefulset" || o.name != "db" || o.namespace != "shop" || o.container != "app" || o.most != 3 || o.timeout != 90*time.Second || !o.undo {
		t.Errorf("%+v (%v)", o, err)
	}
	for words, target := range map[string]string{"ds/x": "daemonset/x", "x": "pod/x", "deploy x": "deployment/x", "Deployment/x": "deployment/x", "-l a=b,c": "-l a=b,c"} {
		o, err := parse(append([]string{"reload"}, strings.Fields(words)...))
		if err != nil || o.target() != target {
			t.Errorf("%s: %s (%v)", words, o.target(), err)
		}
	}
}

// TestHelp keeps the page and the table of options together.
func TestHelp(t *testing.T) {
	var a, b string
	var c bool
	for _, f := range (&options{}).flags(&a, &b, &c) {
		if f.long != "help" && !strings.Contains(help, "--"+f.long) {
			t.Errorf("help does not tell of --%s", f.long)
		}
	}
	for action := range usages {
		if !strings.Contains(help, "kubectl hotswap "+action) {
			t.Errorf("help does not tell of %s", action)
		}
	}
}

func TestSelector(t *testing.T) {
	var s labelSelector
	text := `{"matchLabels":{"b":"2","a":"1"},"matchExpressions":[{"key":"c","operator":"In","values":["x","y"]},{"key":"d","operator":"NotIn","values":["z"]},
		{"key":"e","operator":"Exists"},{"key":"f","operator":"DoesNotExist"}]}`
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	if got, want := s.String(), "!f,a=1,b=2,c in (x,y),d notin (z),e"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestForeign(t *testing.T) {
	for _, c := range []struct {
		machine elf.Machine
		data    elf.Data
		node    string
		want    bool
	}{
		{elf.EM_X86_64, elf.ELFDATA2LSB, "amd64", false}, {elf.EM_X86_64, elf.ELFDATA2LSB, "arm64", true}, {elf.EM_X86_64, elf.ELFDATA2LSB, "", false},
		{elf.EM_386, elf.ELFDATA2LSB, "amd64", false}, {elf.EM_ARM, elf.ELFDATA2LSB, "arm64", false}, {elf.EM_AARCH64, elf.ELFDATA2LSB, "arm", true},
		{elf.EM_PPC64, elf.ELFDATA2LSB, "ppc64le", false}, {elf.EM_PPC64, elf.ELFDATA2MSB, "ppc64le", true},
	} {
		p := program{arch: archOf(elf.FileHeader{Machine: c.machine, Data: c.data})}
		if got := p.foreign(c.node); got != c.want {
			t.Errorf("%v on %q: foreign %v", c.machine, c.node, got)
		}
	}
}

// TestSentence picks the line of kubectl's standard error that says most.
func TestSentence(t *testing.T) {
	for errs, want := range map[string]string{
		"Defaulted container \"a\" out of: a, b\nerror: no such thing\ncommand terminated with exit code 1\n": "no such thing",
		"E1 memcache.go: x\nError from server (NotFound): pods \"x\" not found\n":                             `Error from server (NotFound): pods "x" not found`,
		"E1 memcache.go: x\nThe connection was refused\n":                                                     "The connection was refused",
		"": "kubectl: EOF",
	} {
		if got := (answer{errs: errs}).sentence(io.EOF); got != want {
			t.Errorf("%q: %q, want %q", errs, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	rep := report{Pods: []*row{{Pod: "a", Result: done, Text: "x\x1b[2Jy\nz"}}}
	if table := rep.table(); strings.Contains(table, "\x1b") || strings.Count(table, "\n") != 2 {
		t.Errorf("%q", table)
	}
}
