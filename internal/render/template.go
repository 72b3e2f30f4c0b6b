package render

import (
	"fmt"
	"strings"
)

// maxTemplate is the size of the largest template, in bytes.
const maxTemplate = 256 << 10

// Template is a template that was read and can be executed any number of times, also at once.
type Template struct {
	name  string
	text  string
	trees map[string][]*node // of this template and those that it defines
}

// Parse reads a template. The error is a sentence that begins with the name and the line.
func Parse(name, text string) (t *Template, err error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("%s: larger than %d KiB", name, maxTemplate>>10)
	}
	p := &parser{t: &Template{name: name, text: text, trees: map[string][]*node{}}}
	defer p.t.caught(&p.spot, &err)
	p.template(name, true)
	for _, n := range p.uses {
		if _, ok := p.t.trees[n.text]; !ok {
			p.pos = n.pos
			fail("no template %q is defined", n.text)
		}
	}
	return p.t, nil
}

// spot is what a fault is about: a place in the text, in bytes, and the function that is called, with a colon.
type spot struct {
	pos  int
	word string
}

// sentence is the value of a panic that ends Parse or Execute with an error. Each way in catches it.
type sentence string

func fail(format string, a ...any) { panic(sentence(fmt.Sprintf(format, a...))) }

// caught turns a panic into an error, and is deferred itself. A sentence may quote the template: not all of it.
func (t *Template) caught(at *spot, err *error) {
	switch p := recover().(type) {
	case nil:
	case sentence:
		line := 1 + strings.Count(t.text[:at.pos], "\n")
		*err = fmt.Errorf("%s:%d: %s%.500s", t.name, line, at.word, string(p))
	default:
		*err = fmt.Errorf("%s: internal error: %v", t.name, p)
	}
}
