package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// maxOutput is the size of the largest result, and of the largest text within, in bytes.
	maxOutput = 4 << 20
	// maxSteps bounds how much is executed: loops may be inside loops.
	maxSteps = 1_000_000
	// bytesAStep is how much of a function's arguments counts as one step more: a loop that handles a large text is work too.
	bytesAStep = 64
	// maxDepth bounds templates that execute templates.
	maxDepth = 100
)

// Execute gives the text for data, which must be plain: nil, bool, int, float64, string, []any and map[string]any, at any
// depth. It is safe for concurrent use.
func (t *Template) Execute(data any) (text []byte, err error) {
	x := &execution{t: t, vars: []variable{{"$", data}}}
	defer t.caught(&x.spot, &err)
	x.list(data, t.trees[t.name])
	return x.out, nil
}

type variable struct {
	name  string
	value any
}

// execution is the state of one Execute. A fault ends it by a panic with a sentence, which is about the spot.
type execution struct {
	t *Template
	spot
	out   []byte
	vars  []variable
	steps int
	depth int
}

// step counts what is executed.
func (x *execution) step(n int) {
	if x.steps += n; x.steps > maxSteps {
		fail("more than %d steps", maxSteps)
	}
}

// list executes nodes. It returns breakNode or continueNode if it came to one, else 0.
func (x *execution) list(dot any, list []*node) byte {
	for _, n := range list {
		if f := x.node(dot, n); f != 0 {
			return f
		}
	}
	return 0
}

func (x *execution) node(dot any, n *node) byte {
	x.pos = n.pos
	x.step(1)
	switch n.kind {
	case textNode:
		x.write(n.text)
	case actionNode:
		v := x.pipeline(dot, n.pipe)
		if x.pos = n.pos; len(n.pipe.names) > 0 {
			break
		}
		if v == nil {
			v = "<no value>"
		}
		x.write(fmt.Sprint(v))
	case ifNode, withNode:
		return x.branch(dot, n)
	case rangeNode:
		return x.loop(dot, n)
	case templateNode:
		x.template(dot, n)
	default:
		return n.kind
	}
	return 0
}

func (x *execution) write(text string) {
	if len(x.out)+len(text) > maxOutput {
		fail("the result is larger than %d MiB", maxOutput>>20)
	}
	x.out = append(x.out, text...)
}

// branch is if and with.
func (x *execution) branch(dot any, n *node) byte {
	mark := len(x.vars)
	v, list := x.pipeline(dot, n.pipe), n.list
	if !truth(v) {
		list = n.other
	} else if n.kind == withNode {
		dot = v
	}
	f := x.list(dot, list)
	x.vars = x.vars[:mark]
	return f
}

// loop is range. What ends it early is for it alone, unless it is in its else.
func (x *execution) loop(dot any, n *node) (f byte) {
	before := len(x.vars)
	over := x.pipeline(dot, n.pipe)
	mark, none := len(x.vars), true
	turn := func(index, element any) bool {
		none = false
		x.pos = n.pos
		x.step(1)
		x.setLoop(n.pipe, index, element)
		stop := x.list(element, n.list) == breakNode
		x.vars = x.vars[:mark]
		return !stop
	}
	x.pos = n.pos
	switch v := over.(type) {
	case nil:
	case []any:
		for i := 0; i < len(v) && turn(i, v[i]); i++ {
		}
	case map[string]any:
		for _, k := range sortedKeys(v) {
			if !turn(k, v[k]) {
				break
			}
		}
	case int, byte:
		if len(n.pipe.names) > 1 {
			fail("range over a number has one variable")
		}
		for i, most := 0, whole(v); i < most && turn(nil, i); i++ {
		}
	default:
		fail("cannot range over %s", kindName(v))
	}
	if none {
		f = x.list(dot, n.other)
	}
	x.vars = x.vars[:before]
	return f
}

// setLoop gives the variables of a range their values for one turn. They were declared by its pipeline.
func (x *execution) setLoop(p *node, index, element any) {
	values := []any{index, element}[2-max(1, len(p.names)):]
	for i, name := range p.names {
		if p.assign {
			*x.find(name) = values[i]
		} else {
			x.vars[len(x.vars)-len(p.names)+i].value = values[i]
		}
	}
}

// find is the innermost variable of that name. The parser does not see in every case that there is none.
func (x *execution) find(name string) *any {
	for i := len(x.vars) - 1; i >= 0; i-- {
		if x.vars[i].name == name {
			return &x.vars[i].value
		}
	}
	fail("there is no variable %s", name)
	return nil
}

// template executes another template, which sees nothing of our variables.
func (x *execution) template(dot any, n *node) {
	if x.depth >= maxDepth {
		fail("templates are more than %d deep inside each other", maxDepth)
	}
	var data any
	if n.pipe != nil {
		data = x.pipeline(dot, n.pipe)
	}
	vars := x.vars
	x.vars = []variable{{"$", data}}
	x.depth++
	x.list(data, x.t.trees[n.text])
	x.depth--
	x.vars = vars
}

// pipeline gives the value of a pipeline, and declares or sets its variables.
func (x *execution) pipeline(dot any, p *node) (v any) {
	var final []any // what came through the pipe
	for _, c := range p.list {
		v = x.command(dot, c.list, final)
		final = []any{v}
	}
	for _, name := range p.names {
		if p.assign {
			*x.find(name) = v
		} else {
			x.vars = append(x.vars, variable{name, v})
		}
	}
	return v
}

func (x *execution) command(dot any, words []*node, final []any) any {
	first := words[0]
	x.pos = first.pos
	x.step(1)
	switch {
	case first.kind == callNode && len(first.names) == 0:
		return x.call(dot, first, words[1:], final)
	case len(words)+len(final) > 1:
		fail("%s is no function and takes no arguments", first.text)
	case first.kind == nilNode:
		fail("nil is not a command")
	}
	return x.value(dot, first)
}

// value is what a word stands for, as an argument or alone.
func (x *execution) value(dot any, n *node) (v any) {
	x.pos = n.pos
	switch n.kind {
	case constantNode:
		if v = n.value; v == nil {
			fail("%s is too large", n.text)
		}
	case dotNode, fieldNode:
		v = dot
	case variableNode:
		v = *x.find(n.name)
	case parenthesisNode:
		v = x.pipeline(dot, n.pipe)
	case callNode:
		v = x.call(dot, n, nil, nil)
	}
	for _, name := range n.names {
		m, ok := v.(map[string]any)
		if !ok {
			fail("cannot look for .%s in %s", name, kindName(v))
		}
		if v, ok = m[name]; !ok {
			fail("there is no .%s here, only %s", name, strings.Join(sortedKeys(m), ", "))
		}
	}
	return v
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// call calls a function. and and or stop at the first argument that decides.
func (x *execution) call(dot any, f *node, args []*node, final []any) any {
	and, or := f.name == "and", f.name == "or"
	var values []any
	for _, a := range args {
		v := x.value(dot, a)
		if (and || or) && truth(v) == or {
			return v
		}
		values = append(values, v)
	}
	values = append(values, final...)
	x.pos = f.pos
	for _, v := range values {
		x.step(weight(v) / bytesAStep)
	}
	x.word = f.name + ": "
	v := f.call(values)
	x.word = ""
	return v
}

// truth tells whether a value is not the zero of its kind.
func truth(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case int:
		return v != 0
	case byte:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return false
}

// whole is the value of an int or a byte.
func whole(v any) int {
	if b, ok := v.(byte); ok {
		return int(b)
	}
	n, _ := v.(int)
	return n
}

func kindName(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case bool:
		return "a truth value"
	case int, byte, float64:
		return "a number"
	case string:
		return "a text"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprintf("a %T", v)
}
