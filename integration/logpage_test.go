package integration_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// logFolders are the packages that write log lines of the init.
var logFolders = []string{"../cmd/entrypoint", "../internal/swap"}

// TestLogPage compares docs/log.md with the calls of the logger in the sources: every message that is a constant, and every key.
func TestLogPage(t *testing.T) {
	page, err := os.ReadFile("../docs/log.md")
	if err != nil {
		t.Fatal(err)
	}
	messages, keys := map[string]string{}, map[string]string{}
	for _, dir := range logFolders {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				collectLogWords(t, file, messages, keys)
			}
		}
	}
	if len(messages) < 20 || len(keys) < 20 {
		t.Fatalf("found only %d messages and %d keys: the search has lost them", len(messages), len(keys))
	}
	for message, where := range messages {
		if !strings.Contains(string(page), "| `"+message+"` |") {
			t.Errorf("docs/log.md has no line for the message %q of %s", message, where)
		}
	}
	for key, where := range keys {
		if !strings.Contains(string(page), "| `"+key+"` |") {
			t.Errorf("docs/log.md has no line for the key %q of %s", key, where)
		}
	}
}

// collectLogWords finds calls of X.log.Info and its like, and lists of their arguments.
func collectLogWords(t *testing.T, file string, messages, keys map[string]string) {
	t.Helper()
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		where := ""
		if n != nil {
			where = set.Position(n.Pos()).String()
		}
		switch n := n.(type) {
		case *ast.CallExpr:
			switch {
			case isLogCall(n.Fun):
				args := n.Args
				if n.Fun.(*ast.SelectorExpr).Sel.Name == "Log" { // behind a context and a level
					args = args[2:]
				}
				if word, ok := text(args[0]); ok {
					messages[word] = where
				}
				addKeys(args[1:], keys, where)
			case isAppendToArgs(n):
				addKeys(n.Args[1:], keys, where)
			}
		case *ast.CompositeLit:
			if a, ok := n.Type.(*ast.ArrayType); ok && a.Len == nil {
				if id, ok := a.Elt.(*ast.Ident); ok && id.Name == "any" {
					addKeys(n.Elts, keys, where)
				}
			}
		}
		return true
	})
}

// isLogCall tells x.log.Info and log.Info from everything else.
func isLogCall(f ast.Expr) bool {
	method, ok := f.(*ast.SelectorExpr)
	if !ok || !strings.Contains(" Debug Info Warn Error Log ", " "+method.Sel.Name+" ") {
		return false
	}
	switch x := method.X.(type) {
	case *ast.SelectorExpr:
		return x.Sel.Name == "log" || x.Sel.Name == "Log"
	case *ast.Ident:
		return x.Name == "log"
	}
	return false
}

func isAppendToArgs(c *ast.CallExpr) bool {
	f, ok := c.Fun.(*ast.Ident)
	if !ok || f.Name != "append" || len(c.Args) < 3 {
		return false
	}
	to, ok := c.Args[0].(*ast.Ident)
	return ok && to.Name == "args"
}

// addKeys takes every other argument.
func addKeys(args []ast.Expr, keys map[string]string, where string) {
	for i := 0; i < len(args); i += 2 {
		if word, ok := text(args[i]); ok {
			keys[word] = where
		}
	}
}

func text(e ast.Expr) (string, bool) {
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	word, err := strconv.Unquote(literal.Value)
	return word, err == nil
}
