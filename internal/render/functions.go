package render

import (
	"fmt"
	"strings"
)

// function is the one of text/template of that name, if it makes sense of plain data.
func function(name string) func(args []any) any {
	switch name {
	case "and", "or":
		return last
	case "not":
		return func(args []any) any { want(args, 1); return !truth(args[0]) }
	case "eq":
		return eq
	case "ne":
		return func(args []any) any { want(args, 2); return !same(args[0], args[1]) }
	case "lt":
		return func(args []any) any { return less(args) }
	case "le":
		return func(args []any) any { return lessOrEqual(args) }
	case "gt":
		return func(args []any) any { return !lessOrEqual(args) }
	case "ge":
		return func(args []any) any { return !less(args) }
	case "len":
		return length
	case "index":
		return index
	case "slice":
		return slice
	case "print":
		return func(args []any) any { bounded(args); return fmt.Sprint(args...) }
	case "println":
		return func(args []any) any { bounded(args); return fmt.Sprintln(args...) }
	case "printf":
		return printf
	case "call", "html", "js", "urlquery":
		fail("the function %q is not supported", name)
	}
	fail("function %q not defined", name)
	return nil
}

// want refuses another number of arguments.
func want(args []any, n int) {
	if len(args) != n {
		fail("it takes %d arguments and has %d", n, len(args))
	}
}

// last is what and and or give when no argument before it has decided.
func last(args []any) any {
	if len(args) == 0 {
		fail("it needs an argument")
	}
	return args[len(args)-1]
}

// kind sorts values into those that can be compared with each other.
type kind int

const (
	noKind kind = iota // nothing, a list, a map
	boolKind
	intKind
	floatKind
	stringKind
)

func kindOf(v any) kind {
	switch v.(type) {
	case bool:
		return boolKind
	case int, byte:
		return intKind
	case float64:
		return floatKind
	case string:
		return stringKind
	}
	return noKind
}

func unlike(a, b any) { fail("cannot compare %s with %s", kindName(a), kindName(b)) }

func same(a, b any) bool {
	ka, kb := kindOf(a), kindOf(b)
	switch {
	case a == nil || b == nil:
		return a == nil && b == nil
	case ka != kb && (ka == floatKind || kb == floatKind):
		fail("cannot compare a whole number with one that is not")
	case ka != kb || ka == noKind:
		unlike(a, b)
	case ka == intKind:
		return whole(a) == whole(b)
	}
	return a == b
}

// eq tells whether the first argument equals one of the others.
func eq(args []any) any {
	if len(args) < 2 {
		fail("it takes two arguments or more")
	}
	for _, b := range args[1:] {
		if same(args[0], b) {
			return true
		}
	}
	return false
}

func less(args []any) bool {
	want(args, 2)
	a, b := args[0], args[1]
	ka := kindOf(a)
	switch {
	case ka != kindOf(b) || ka == noKind || ka == boolKind:
		unlike(a, b)
	case ka == intKind:
		return whole(a) < whole(b)
	case ka == floatKind:
		return a.(float64) < b.(float64)
	}
	return a.(string) < b.(string)
}

func lessOrEqual(args []any) bool { return less(args) || same(args[0], args[1]) }

func length(args []any) any {
	want(args, 1)
	switch v := args[0].(type) {
	case string:
		return len(v)
	case []any:
		return len(v)
	case map[string]any:
		return len(v)
	}
	fail("%s has no length", kindName(args[0]))
	return nil
}

// index goes one step into its first argument for each of the others. A key that is not in a map gives nothing.
func index(args []any) any {
	if len(args) == 0 || args[0] == nil {
		fail("there is nothing to look into")
	}
	v := args[0]
	for _, at := range args[1:] {
		if m, ok := v.(map[string]any); ok {
			key, ok := at.(string)
			if !ok {
				fail("a key of a map is a text, not %s", kindName(at))
			}
			v = m[key]
			continue
		}
		v = element(v, at)
	}
	return v
}

func element(v, at any) any {
	if kindOf(at) != intKind {
		fail("cannot count with %s", kindName(at))
	}
	i := whole(at)
	switch v := v.(type) {
	case []any:
		if i >= 0 && i < len(v) {
			return v[i]
		}
		fail("no element %d in a list of %d", i, len(v))
	case string:
		if i >= 0 && i < len(v) {
			return v[i]
		}
		fail("no byte %d in a text of %d", i, len(v))
	}
	fail("cannot look into %s", kindName(v))
	return nil
}

func slice(args []any) any {
	if len(args) == 0 || len(args) > 4 {
		fail("it takes a list or a text, and up to three numbers")
	}
	list, isList := args[0].([]any)
	text, isText := args[0].(string)
	most, at := cap(list), [3]int{0, len(list), cap(list)}
	switch {
	case isText && len(args) == 4:
		fail("a text takes two numbers")
	case isText:
		most, at = len(text), [3]int{0, len(text), len(text)}
	case !isList:
		fail("cannot take a part of %s", kindName(args[0]))
	}
	for i, a := range args[1:] {
		if at[i] = whole(a); kindOf(a) != intKind || at[i] < 0 || at[i] > most {
			fail("%v is no place in it", a)
		}
	}
	if at[0] > at[1] || at[1] > at[2] {
		fail("the places %v are not in order", args[1:])
	}
	if isText {
		return text[at[0]:at[1]]
	}
	return list[at[0]:at[1]:at[2]]
}

// bounded refuses what is too large to be put together: a text that doubles itself in a loop shall not fill the memory.
func bounded(args []any) {
	n := 0
	for _, a := range args {
		if n += weight(a); n > maxOutput {
			tooLarge()
		}
	}
}

// tooLarge is what every text beyond the bound gets.
func tooLarge() { fail("the text is larger than %d MiB", maxOutput>>20) }

// weight is about how many bytes a value has as a text.
func weight(v any) int {
	n := 24
	switch v := v.(type) {
	case string:
		n = len(v)
	case []any:
		for _, e := range v {
			n += weight(e)
		}
	case map[string]any:
		for k, e := range v {
			n += len(k) + weight(e)
		}
	}
	return n
}

// maxWidth is the longest number of a format: a width or a precision beyond it is a mistake.
const maxWidth = 4

func printf(args []any) any {
	if len(args) == 0 {
		fail("it takes a format")
	}
	format, ok := args[0].(string)
	if !ok {
		fail("its format is %s, not a text", kindName(args[0]))
	}
	digits, widths := 0, 0
	for _, r := range format {
		if r >= '0' && r <= '9' {
			digits++
		} else {
			digits = 0
		}
		if digits == maxWidth {
			widths += 10_000
		}
		if digits > maxWidth {
			fail("a number in its format has more than four digits: not supported")
		}
	}
	if strings.Contains(format, "*") {
		fail("a width by * is not supported")
	}
	// A verb makes of a byte six at most, and with [1] an argument can be there as often as there are verbs.
	times := 6
	if strings.Contains(format, "[") {
		times *= strings.Count(format, "%")
	}
	for _, a := range args[1:] {
		widths += times * weight(a)
	}
	if widths+len(format) > 16*maxOutput {
		tooLarge()
	}
	text := fmt.Sprintf(format, args[1:]...)
	if len(text) > maxOutput {
		tooLarge()
	}
	return text
}
