package probe

import "strings"

// split cuts a list at its commas, and each check at its semicolons: the first part is the check itself, the others are
// options. Neither counts inside of a command's quotes, behind its backslash, in the JSON array of an exec check, or in an
// option's value that begins with a quote. Elsewhere there is no quoting, so that an apostrophe in a URL is only an
// apostrophe; in a URL both can be written as %2C and %3B.
func split(list string) [][]string {
	var checks [][]string
	for {
		check := []string{}
		n := headEnd(list)
		for {
			check = append(check, list[:n])
			if n == len(list) {
				return append(checks, check)
			}
			separator := list[n]
			list = list[n+1:]
			if separator == ',' {
				break
			}
			n = optionEnd(list)
		}
		checks = append(checks, check)
	}
}

// headEnd is the index of the separator that ends the check at the beginning of list, or the length of list.
func headEnd(list string) int {
	trimmed := strings.TrimLeft(list, " \t\r\n")
	command, ok := cutFold(trimmed, "exec:")
	if !ok {
		return plainEnd(list)
	}
	command = strings.TrimLeft(command, " \t\r\n")
	start := len(list) - len(command)
	if strings.HasPrefix(command, "[") {
		return start + arrayEnd(command)
	}
	return start + wordsEnd(command)
}

// optionEnd is the index of the separator behind the option at the beginning of list.
func optionEnd(list string) int {
	end := plainEnd(list)
	equals := strings.IndexByte(list[:end], '=')
	if equals < 0 {
		return end
	}
	value := strings.TrimLeft(list[equals+1:], " \t\r\n")
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return end
	}
	return len(list) - len(value) + wordsEnd(value)
}

func plainEnd(s string) int {
	if n := strings.IndexAny(s, ",;"); n >= 0 {
		return n
	}
	return len(s)
}

func cutFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// wordsEnd finds the first separator outside of a shell's quotes.
func wordsEnd(s string) int {
	var quote byte
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quote != '\'':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == ',' || c == ';':
			return i
		}
	}
	return len(s)
}

// arrayEnd finds the first separator outside of the brackets and strings of a JSON array.
func arrayEnd(s string) int {
	depth, inString := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[':
			depth++
		case c == ']':
			depth--
		case (c == ',' || c == ';') && depth <= 0:
			return i
		}
	}
	return len(s)
}
