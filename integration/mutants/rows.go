package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// row is a line of the fault matrix, as the source of the tests has it.
type row struct {
	name string
	call bool // it is a refused system call
	at   string
}

// readRows reads the names out of the tables: they are in a package of tests behind a build tag.
func readRows(dir string) (map[string]row, error) {
	files, err := filepath.Glob(filepath.Join(dir, "faults_*test.go"))
	if err != nil {
		return nil, err
	}
	rows := map[string]row{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Names) != 1 || len(v.Values) != 1 || v.Names[0].Name != "hazards" && v.Names[0].Name != "refusals" {
				return true
			}
			table, ok := v.Values[0].(*ast.CompositeLit)
			if !ok {
				return true
			}
			for _, element := range table.Elts {
				r := row{name: text(element, "name"), call: v.Names[0].Name == "refusals"}
				if !r.call {
					r.at = text(element, "where")
				}
				rows[r.name] = r
			}
			return false
		})
	}
	if _, nameless := rows[""]; nameless || len(rows) == 0 {
		return nil, fmt.Errorf("no rows of faults can be read in %s", dir)
	}
	return rows, nil
}

// text is the value of a field that is a plain string.
func text(element ast.Expr, field string) string {
	fields, ok := element.(*ast.CompositeLit)
	if !ok {
		return ""
	}
	for _, f := range fields.Elts {
		pair, ok := f.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, ok := pair.Key.(*ast.Ident)
		value, plain := pair.Value.(*ast.BasicLit)
		if ok && plain && key.Name == field {
			s, _ := strconv.Unquote(value.Value) // it was parsed
			return s
		}
	}
	return ""
}

func (r row) test() string {
	switch {
	case r.call:
		return "TestFaultsRefusedCalls"
	case r.engine() == "docker":
		return "TestFaultsDocker"
	}
	return "TestFaults"
}

func (r row) engine() string {
	if r.at == "" {
		return "unshare"
	}
	return r.at
}

func (r row) testName() string { return strings.ReplaceAll(r.name, " ", "-") }

// pattern is what names the tests of the row, or those of its part: phases, or of a call the error and the kind of the app.
func (r row) pattern(part string) (pattern, engine string) {
	pattern = "^" + r.test() + "$/^" + r.engine() + "$/^" + r.testName()
	switch {
	case part == "" && r.call:
		pattern += "-"
	case part == "":
		pattern += "$"
	case r.call:
		pattern += "-(" + part + ")$"
	default:
		pattern += "$/^(" + part + ")$"
	}
	return pattern, r.engine()
}
