package probe

import "strings"

// split cuts a list at its commas, except those that belong to a command: in quotes, behind a backslash, or in the JSON
// array of an exec check. Other kinds have no quoting, so that an apostrophe in a URL is only an apostrophe.
func split(list string) []string {
	var parts []string
	for {
		n := elementEnd(list)
		parts = append(parts, list[:n])
		if n == len(list) {
			return parts
		}
		list = list[n+1:]
	}
}

// elementEnd is the index of the comma that ends the first element of list, or the length of list.
func elementEnd(list string) int {
	trimmed := strings.TrimLeft(list, " \t\r\n")
	command, ok := cutFold(trimmed, "exec:")
	if !ok {
		if n := strings.IndexByte(list, ','); n >= 0 {
			return n
		}
		return len(list)
	}
	command = strings.TrimLeft(command, " \t\r\n")
	start := len(list) - len(command)
	if strings.HasPrefix(command, "[") {
		return start + arrayEnd(command)
	}
	return start + wordsEnd(command)
}

func cutFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// wordsEnd finds the first comma outside of a shell's quotes.
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
		case c == ',':
			return i
		}
	}
	return len(s)
}

// arrayEnd finds the first comma outside of the brackets and strings of a JSON array.
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
		case c == ',' && depth <= 0:
			return i
		}
	}
	return len(s)
}
