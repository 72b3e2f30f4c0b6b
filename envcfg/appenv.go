package envcfg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// AppEnv is a list of K=V texts for the app, in the order written. Forms:
//
//	A=1,B="x,y",'C=a b'        items separated by commas; an item or a value may be quoted
//	{"A":"1","PORT":8080}      a JSON object of texts, numbers and booleans
//	["A=1","B=x,y"]            a JSON array of K=V texts
//
// Inside "…" a backslash keeps the next " or \; inside '…' nothing is special.
// A value without quotes ends at the comma, and spaces around it are dropped.
type AppEnv []string

// Decode reads any of the three forms. Its errors hold no piece of the value.
func (e *AppEnv) Decode(value string) error {
	if value == "" {
		return nil
	}
	var items []string
	var err error
	switch text := strings.TrimSpace(value); {
	case strings.HasPrefix(text, "{"):
		items, err = jsonObjectEnv(text)
	case strings.HasPrefix(text, "["):
		err = json.Unmarshal([]byte(text), &items)
	default:
		items, err = splitItems(text)
	}
	var known problems
	if errors.As(err, &known) {
		return known
	}
	if err != nil {
		return refuse("not valid JSON for variables", "", `write {"A":"1"} or ["A=1"] or A=1,B=2`)
	}
	*e = items
	return checkEnv(items).orNil()
}

// String says only how many variables there are: their values are secrets.
func (e AppEnv) String() string {
	if len(e) == 0 {
		return ""
	}
	return fmt.Sprintf("(%d variables, not shown)", len(e))
}

// checkEnv finds the items that are not K=V and names that come twice.
func checkEnv(items []string) problems {
	var bad problems
	first := map[string]int{}
	for i, item := range items {
		key, value, found := strings.Cut(item, "=")
		switch at, twice := first[key]; {
		case !found || !validName(key):
			bad = append(bad, problem{fmt.Sprintf("item %d is not NAME=value", i+1), "",
				"quote a value that has commas, or write JSON"})
		case strings.Contains(value, "\x00"):
			bad = append(bad, problem{fmt.Sprintf("item %d has a zero byte", i+1), "", ""})
		case twice:
			bad = append(bad, problem{fmt.Sprintf("items %d and %d set the same variable", at, i+1), "", ""})
		default:
			first[key] = i + 1
		}
	}
	return bad
}

// validName reports whether name can be that of an environment variable:
// printable ASCII without space, = and quotes.
func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || strings.IndexByte("=\"'`", c) >= 0 {
			return false
		}
	}
	return name != ""
}

// jsonObjectEnv reads an object in the order written.
func jsonObjectEnv(text string) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	var items []string
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		value, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch value.(type) {
		case string, json.Number, bool:
		default:
			return nil, refuse(fmt.Sprintf("item %d is not a text, number or boolean", len(items)+1), "", "")
		}
		name := key.(string)
		if !validName(name) {
			return nil, refuse(fmt.Sprintf("item %d has no usable name", len(items)+1), "", "")
		}
		items = append(items, fmt.Sprintf("%s=%v", name, value))
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("text after the object")
	}
	return items, nil
}

// splitItems cuts the comma form.
func splitItems(text string) ([]string, error) {
	var items []string
	for text = strings.TrimLeft(text, " \t\n,"); text != ""; text = strings.TrimLeft(text, " \t\n,") {
		item, rest, err := cutItem(text)
		if err != nil {
			return nil, refuse(fmt.Sprintf("item %d: %v", len(items)+1, err), "", "")
		}
		items, text = append(items, item), rest
	}
	return items, nil
}

// cutItem takes one item and its comma off the front of text, which does not
// begin with a blank. Its errors hold nothing of the text.
func cutItem(text string) (item, rest string, err error) {
	name := ""
	if at := strings.IndexAny(text, "=,\"'"); at >= 0 && text[at] == '=' {
		name, text = text[:at+1], strings.TrimLeft(text[at+1:], " \t")
	}
	if text == "" || (text[0] != '"' && text[0] != '\'') {
		raw, rest, _ := strings.Cut(text, ",")
		return name + strings.TrimSpace(raw), rest, nil
	}
	value, rest, err := cutQuoted(text)
	if err != nil {
		return "", "", err
	}
	rest = strings.TrimLeft(rest, " \t\n")
	if rest != "" && rest[0] != ',' {
		return "", "", errors.New("there is text after the closing quote")
	}
	return name + value, strings.TrimPrefix(rest, ","), nil
}

// cutQuoted reads the quoted text at the front of text.
func cutQuoted(text string) (value, rest string, err error) {
	quote, unclosed := text[0], errors.New("a quote is not closed")
	if quote == '\'' {
		value, rest, found := strings.Cut(text[1:], "'")
		if !found {
			return "", "", unclosed
		}
		return value, rest, nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == quote:
			return b.String(), text[i+1:], nil
		case c == '\\' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\'):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", unclosed
}
