package render

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxNesting bounds what stands inside each other in one template: blocks, else ifs in a row, parentheses.
const maxNesting = 1000

// What a node is. The zero is none of them: lists that were executed to their end return it.
const (
	textNode byte = iota + 1
	actionNode
	ifNode
	withNode
	rangeNode
	breakNode
	continueNode
	templateNode

	// Words of a command. Those before wordNodes can begin only the first command of a pipeline, and have no fields.
	constantNode
	nilNode
	dotNode
	wordNodes
	fieldNode
	variableNode
	callNode
	parenthesisNode
)

// node is anything in a template: a text, an action, a word of a command. Commands and pipelines are nodes too, of no kind.
type node struct {
	kind   byte
	assign bool                 // the variables of a pipeline are set, not declared
	pos    int                  // where it begins, in bytes
	text   string               // the text itself; a word as it is spelled; the name of the template that is executed
	name   string               // of a variable or a function
	value  any                  // of a constant; nil: a whole number that is too large
	call   func(args []any) any // a function
	names  []string             // the fields that are asked of a word's value; the variables of a pipeline
	list   []*node              // what is inside a block; the commands of a pipeline; the words of a command
	other  []*node              // what is executed else
	pipe   *node                // the pipeline of an action or in parentheses
}

// parser is the state of one Parse. It goes through the text once, by recursive descent; a fault ends it by a panic with a sentence.
type parser struct {
	t *Template
	spot
	vars  []string // that are known here
	uses  []*node  // of templates, which may be defined later
	loops int      // ranges around this place
	depth int
}

const spaces = " \t\r\n"

func isSpace(c byte) bool { return strings.IndexByte(spaces, c) >= 0 }

// rest is the text that was not read yet.
func (p *parser) rest() string { return p.t.text[p.pos:] }

// at is the byte that is i bytes ahead, or 0.
func (p *parser) at(i int) byte {
	if i += p.pos; i < len(p.t.text) {
		return p.t.text[i]
	}
	return 0
}

// skip reads s, if it comes next.
func (p *parser) skip(s string) bool {
	if !strings.HasPrefix(p.rest(), s) {
		return false
	}
	p.pos += len(s)
	return true
}

// unexpected refuses what comes next, where it does.
func (p *parser) unexpected(where string) {
	rest := p.rest()
	if rest == "" {
		fail("unexpected EOF %s", where)
	}
	fail("unexpected %.10q %s", rest, where)
}

// closing is the length of the end of an action, if s begins with one.
func closing(s string) int {
	switch {
	case strings.HasPrefix(s, "}}"):
		return 2
	case s != "" && isSpace(s[0]) && strings.HasPrefix(s[1:], "-}}"):
		return 4
	}
	return 0
}

// closed reads the end of an action, if it comes next, with the space that it trims.
func (p *parser) closed() bool {
	n := closing(p.rest())
	if p.pos += n; n > 2 {
		p.pos = len(p.t.text) - len(strings.TrimLeft(p.rest(), spaces))
	}
	return n > 0
}

// end reads the end of an action that has nothing more to say.
func (p *parser) end(word string) {
	if p.space(); !p.closed() {
		p.unexpected("in {{" + word + "}}")
	}
}

// space reads space, but not that of the end of an action.
func (p *parser) space() bool {
	start := p.pos
	for r := p.rest(); r != "" && isSpace(r[0]) && closing(r) == 0; r = r[1:] {
		p.pos++
	}
	return p.pos > start
}

// word reads letters, digits and underscores, maybe none. What comes next must be able to end a word.
func (p *parser) word() string {
	rest := p.rest()
	n := strings.IndexFunc(rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if n < 0 {
		n = len(rest)
	}
	p.pos += n
	if after := rest[n:]; after != "" && strings.IndexByte(spaces+".,|:()", after[0]) < 0 && closing(after) == 0 {
		p.unexpected("after a name")
	}
	return rest[:n]
}

// quoted reads a text in quotes.
func (p *parser) quoted() string {
	rest := p.rest()
	q, err := strconv.QuotedPrefix(rest)
	if err != nil || q[0] == '\'' {
		fail("%.10q is no text in quotes, or does not end, or has a wrong escape", rest)
	}
	p.pos += len(q)
	q, _ = strconv.Unquote(q)
	return q
}

// enter bounds the recursion; who calls it takes one off depth at its end.
func (p *parser) enter() {
	if p.depth++; p.depth > maxNesting {
		fail("blocks and parentheses are more than %d deep inside each other", maxNesting)
	}
}

// template reads a template until its end and adds it. The outermost one, and no other, ends with the text and defines others.
func (p *parser) template(name string, outermost bool) {
	p.enter()
	vars, loops := p.vars, p.loops
	p.vars, p.loops = []string{"$"}, 0
	list, word := p.list(outermost)
	if word != "end" && !outermost {
		fail("unexpected {{%s}} in a template", word)
	}
	p.vars, p.loops = vars, loops
	p.depth--
	if old := p.t.trees[name]; blank(old) {
		p.t.trees[name] = list
	} else if !blank(list) {
		fail("there are two templates %q", name)
	}
}

// blank tells whether a list is only space.
func blank(list []*node) bool {
	for _, n := range list {
		if n.kind != textNode || strings.TrimSpace(n.text) != "" {
			return false
		}
	}
	return true
}

// list reads texts and actions until the end or an else, and tells which; what follows the word else is not read. The outermost
// list has neither.
func (p *parser) list(outermost bool) (list []*node, word string) {
	for {
		n := &node{kind: textNode, pos: p.pos}
		text, action, found := strings.Cut(p.rest(), "{{")
		if p.pos += len(text); found {
			p.pos += 2
			if len(action) > 1 && action[0] == '-' && isSpace(action[1]) {
				p.pos += 2
				text = strings.TrimRight(text, spaces)
			}
		}
		if n.text = text; text != "" {
			list = append(list, n)
		}
		if !found && outermost {
			return list, ""
		} else if !found {
			fail("unexpected EOF, where an {{end}} is missing")
		}
		if p.skip("/*") {
			i := strings.Index(p.rest(), "*/")
			if i < 0 {
				fail("a comment has no end")
			}
			if p.pos += i + 2; !p.closed() {
				p.unexpected("in the end of a comment")
			}
			continue
		}
		p.space()
		n = &node{pos: p.pos}
		word := ""
		if c := p.at(0); c >= 'a' && c <= 'z' {
			word = p.word()
		}
		switch word {
		case "end":
			p.end(word)
			fallthrough
		case "else":
			if outermost {
				fail("unexpected {{%s}}", word)
			}
			return list, word
		case "if":
			p.control(n, ifNode, word)
		case "with":
			p.control(n, withNode, word)
		case "range":
			p.control(n, rangeNode, word)
		case "break", "continue":
			n.kind = breakNode
			if word == "continue" {
				n.kind = continueNode
			}
			if p.end(word); p.loops == 0 {
				fail("{{%s}} outside {{range}}", word)
			}
		case "define":
			if !outermost {
				fail("{{define}} inside of something else")
			}
			p.space()
			name := p.quoted()
			p.end(word)
			p.template(name, false)
			continue
		case "template", "block":
			n.kind = templateNode
			p.uses = append(p.uses, n)
			p.space()
			n.text = p.quoted()
			if p.space(); word == "block" || !p.closed() {
				n.pipe = p.pipeline(word)
			}
			if word == "block" {
				p.template(n.text, false)
			}
		default:
			p.pos = n.pos
			n.kind = actionNode
			n.pipe = p.pipeline("an action")
		}
		list = append(list, n)
	}
}

// control reads the rest of an if, a with or a range, until its end.
func (p *parser) control(n *node, kind byte, word string) {
	p.enter()
	vars := len(p.vars)
	n.kind = kind
	n.pipe = p.pipeline(word)
	if kind == rangeNode {
		p.loops++
	}
	list, last := p.list(false)
	n.list = list
	if kind == rangeNode {
		p.loops--
	}
	if last == "else" {
		p.space()
		m := &node{pos: p.pos}
		if p.word() == word && kind != rangeNode {
			p.control(m, kind, word) // its end is ours
			n.other = []*node{m}
		} else {
			p.pos = m.pos
			p.end("else")
			if n.other, last = p.list(false); last != "end" {
				fail("unexpected {{else}} after {{else}}")
			}
		}
	}
	p.vars = p.vars[:vars]
	p.depth--
}

// pipeline reads declarations and commands and the end of the action, or ")" if the word before is "(".
func (p *parser) pipeline(word string) *node {
	p.space()
	n := &node{pos: p.pos}
	for more := true; more; {
		start := p.pos
		if !p.skip("$") {
			break
		}
		p.word()
		name := p.t.text[start:p.pos]
		p.space()
		more = false
		switch {
		case p.skip("="):
			n.assign = true
		case p.skip(":="):
		case p.skip(","):
			if more = word == "range" && len(n.names) == 0; !more {
				fail("too many variables in %s", word)
			}
			if p.space(); p.at(0) != '$' {
				p.unexpected("in the variables of range")
			}
		default:
			p.pos = start
			continue
		}
		n.names = append(n.names, name)
		p.vars = append(p.vars, name)
	}
	for {
		p.space()
		if word == "(" {
			if p.skip(")") {
				break
			}
		} else if p.closed() {
			break
		}
		n.list = append(n.list, p.command(len(n.list) == 0))
	}
	if len(n.list) == 0 {
		fail("there is no value in %s", word)
	}
	return n
}

// command reads words until the end of the pipeline, or the sign of the next command.
func (p *parser) command(first bool) *node {
	c := &node{pos: p.pos}
	for {
		c.list = append(c.list, p.operand())
		if !first && c.list[0].kind < wordNodes {
			fail("%s cannot take what comes through the pipe", c.list[0].text)
		}
		spaced := p.space()
		if p.skip("|") || closing(p.rest()) > 0 || p.at(0) == ')' {
			return c
		}
		if !spaced {
			p.unexpected("in a command")
		}
	}
}

// operand reads one word of a command.
func (p *parser) operand() *node {
	n := &node{pos: p.pos, kind: constantNode}
	c := p.at(0)
	if d := p.at(1); c == '+' || c == '-' || c == '.' && d >= '0' && d <= '9' {
		c = '0'
	}
	switch {
	case c == '(':
		p.pos++
		p.enter()
		n.kind, n.pipe = parenthesisNode, p.pipeline("(")
		p.depth--
	case c == '"' || c == '`':
		n.value = p.quoted()
	case c == '\'':
		r, _, tail, err := strconv.UnquoteChar(p.rest()[1:], '\'')
		if err != nil || p.at(1) == '\n' || !strings.HasPrefix(tail, "'") {
			fail("%.10q is no character in quotes", p.rest())
		}
		n.value = int(r)
		p.pos = len(p.t.text) - len(tail) + 1
	case c >= '0' && c <= '9':
		text := p.rest()
		if end := strings.IndexAny(text, spaces+"|)}"); end >= 0 {
			text = text[:end]
		}
		n.value = number(text)
		p.pos += len(text)
	case c == '.':
		p.pos++
		n.kind = dotNode
		if w := p.word(); w != "" {
			n.kind, n.names = fieldNode, []string{w}
		}
	case c == '$':
		p.pos++
		p.word()
		n.kind, n.name = variableNode, p.t.text[n.pos:p.pos]
		if !slices.Contains(p.vars, n.name) {
			fail("there is no variable %s", n.name)
		}
	default:
		n.name = p.word()
		switch n.name {
		case "":
			p.unexpected("in a command")
		case "true", "false":
			n.value = n.name == "true"
		case "nil":
			n.kind = nilNode
		default:
			n.kind, n.call = callNode, function(n.name)
		}
	}
	for p.skip(".") {
		w := p.word()
		if n.kind < wordNodes || w == "" || w[0] <= '9' {
			fail("unexpected . after %s", p.t.text[n.pos:p.pos])
		}
		n.names = append(n.names, w)
	}
	n.text = p.t.text[n.pos:p.pos]
	return n
}

// number is the value of a number by Go's rules: its spelling says whether it is whole. It is nil for a whole number that fits into 64 bits but not
// into an int: that is a fault only where it is executed.
func number(text string) any {
	if strings.HasSuffix(text, "i") {
		fail("the complex number %s is not supported", text)
	}
	i, err := strconv.ParseInt(text, 0, 64)
	_, tooLarge := strconv.ParseUint(text, 0, 64)
	switch {
	case err == nil && text[0] != '0' && strings.ContainsAny(text, "eE"):
		return float64(i) // -0x1e: to text/template an e behind a sign is an exponent
	case err == nil && int64(int(i)) == i:
		return int(i)
	case err == nil || tooLarge == nil:
		return nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !strings.ContainsAny(text, ".eEpP") {
		fail("%s is no number, or too large", text)
	}
	return f
}
