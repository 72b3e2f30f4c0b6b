// Command cover runs the unit tests, and the integration tests on private namespaces with an init that counts, and tells of each package how
// many of its statements, and how many of its error paths, were run by any of them. An error path is the body of an if whose condition asks
// for an error. The table goes into docs/coverage.md; the error paths that nobody has taken are printed, each with its place.
package main

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const module = "github.com/hotswap-init/entrypoint/"

// product is what is measured: what users run or import.
const product = "./cmd/...,./reaper/...,./handoff/...,./graceful/...,./internal/..."

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot measure what the tests run:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "cover")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	profile := filepath.Join(dir, "profile")
	blocks := blocks{}
	if err := unitTests(profile); err != nil {
		return err
	}
	if err := blocks.read(profile); err != nil {
		return err
	}
	if err := integrationTests(dir, profile); err != nil {
		return err
	}
	if err := blocks.read(profile); err != nil {
		return err
	}
	table, untaken, err := measure(blocks)
	if err != nil {
		return err
	}
	for _, place := range untaken {
		fmt.Println(place)
	}
	return write("docs/coverage.md", table)
}

// unitTests runs them, and writes a profile of what they came to.
func unitTests(profile string) error {
	network, err := filepath.Abs("integration/network.sh")
	if err != nil {
		return err
	}
	return command(nil, "go", "test", "-timeout", "20m", "-exec", "bash "+network, "-covermode", "set", "-coverpkg", product, "-coverprofile", profile, "./...")
}

// integrationTests runs them, and writes a profile of what the init came to in all its processes that ended by themselves: one that is
// killed writes nothing. Tests that fail, because a binary that counts is larger, slower and writes, are told and no error; those that give
// it an environment of their own are left out.
func integrationTests(dir, profile string) error {
	counts := filepath.Join(dir, "counts")
	if err := os.Mkdir(counts, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(counts, 0o777); err != nil { // for inits that are not root
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := command([]string{"GOFLAGS=-cover -covermode=set -coverpkg=" + product}, "make", "-s", "build", "BIN="+dir, "MAXSIZE=1000000000"); err != nil {
		return err
	}
	env := []string{"ENTRYPOINT_BINARY=" + filepath.Join(dir, "entrypoint"), "INTEGRATION_ENGINES=unshare", "GOCOVERDIR=" + counts}
	if err := command(env, "go", "test", "-count=1", "-timeout", "45m", "-parallel", "4", "-tags", "integration", "-skip", "^(TestExample|TestBlocks$|TestDeploy|TestSavedCommand$|TestAdopted$)", "./integration"); err != nil {
		fmt.Fprintln(os.Stderr, "not all of the integration tests passed:", err)
	}
	return command(nil, "go", "tool", "covdata", "textfmt", "-i", counts, "-o", profile)
}

// command runs one, and shows what it has to say when it fails.
func command(env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "ok ") {
			fmt.Fprint(os.Stderr, line)
		}
	}
	return fmt.Errorf("%s %s: %w", name, args[0], err)
}

// block is a piece of a file without branches.
type block struct{ line, column, endLine, endColumn, statements int }

// blocks are those of each file.
type blocks map[string]map[block]bool // file: block: whether it was run

// read adds a profile, in which each binary has lines of its own for the same block.
func (bs blocks) read(profile string) error {
	f, err := os.Open(profile)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		file, rest, ok := strings.Cut(lines.Text(), ":")
		if !ok || file == "mode" {
			continue
		}
		var b block
		var count int
		if _, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &b.line, &b.column, &b.endLine, &b.endColumn, &b.statements, &count); err != nil {
			return fmt.Errorf("the profile says %q: %w", lines.Text(), err)
		}
		if bs[file] == nil {
			bs[file] = map[block]bool{}
		}
		bs[file][b] = bs[file][b] || count > 0
	}
	return lines.Err()
}

// score is of a package.
type score struct{ statements, run, paths, taken int }

// measure adds up, and lists the error paths that nobody took.
func measure(blocks blocks) (table string, untaken []string, err error) {
	scores := map[string]*score{}
	for _, file := range slices.Sorted(maps.Keys(blocks)) {
		name := strings.TrimPrefix(file, module)
		dir := filepath.Dir(name)
		if scores[dir] == nil {
			scores[dir] = &score{}
		}
		s := scores[dir]
		begins := map[[2]int]bool{} // line and column of a block: whether it was run
		for b, run := range blocks[file] {
			begins[[2]int{b.line, b.column}] = run
			s.statements += b.statements
			if run {
				s.run += b.statements
			}
		}
		places, err := errorPaths(name)
		if err != nil {
			return "", nil, err
		}
		for _, at := range places {
			run, ok := begins[[2]int{at.Line, at.Column}]
			if !ok {
				continue // without statements
			}
			s.paths++
			if run {
				s.taken++
			} else {
				untaken = append(untaken, fmt.Sprintf("%s:%d", name, at.Line))
			}
		}
	}
	var t strings.Builder
	all := score{}
	row := func(name string, s score) {
		paths := "none"
		if s.paths > 0 {
			paths = fmt.Sprintf("%d of %d", s.taken, s.paths)
		}
		fmt.Fprintf(&t, "| %s | %.1f %% | %s |\n", name, 100*float64(s.run)/float64(max(1, s.statements)), paths)
	}
	for _, dir := range slices.Sorted(maps.Keys(scores)) {
		s := *scores[dir]
		all.statements, all.run, all.paths, all.taken = all.statements+s.statements, all.run+s.run, all.paths+s.paths, all.taken+s.taken
		row("`"+dir+"`", s)
	}
	row("all", all)
	return t.String(), untaken, nil
}

// errorPaths are the beginnings of the bodies that follow from an error.
func errorPaths(file string) ([]token.Position, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var places []token.Position
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			if asksForError(n.Cond) {
				places = append(places, set.Position(n.Body.Lbrace))
			}
		case *ast.CaseClause:
			if slices.ContainsFunc(n.List, asksForError) {
				places = append(places, set.Position(n.Colon+1))
			}
		}
		return true
	})
	return places, nil
}

// asksForError tells whether a condition is true, in part, because of an error: err != nil, errors.Is(err, …), err == unix.EAGAIN.
func asksForError(cond ast.Expr) bool {
	found := false
	ast.Inspect(cond, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if nothing, ok := n.Y.(*ast.Ident); ok && nothing.Name == "nil" {
				found = found || n.Op == token.NEQ && isError(n.X)
			} else {
				found = found || n.Op == token.EQL && isError(n.X)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok {
				if pkg, ok := f.X.(*ast.Ident); ok && pkg.Name == "errors" {
					found = true
				}
			}
		}
		return !found
	})
	return found
}

// isError tells whether something has the name of an error.
func isError(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "err" || e.Name == "errno" || strings.HasSuffix(e.Name, "Err") || strings.HasSuffix(e.Name, "err")
	case *ast.CallExpr:
		f, ok := e.Fun.(*ast.SelectorExpr)
		return ok && f.Sel.Name == "Err"
	}
	return false
}

// write puts the table in the place of the one that the page has.
func write(page, table string) error {
	const head = "| package | statements | error paths |\n|---|---|---|\n"
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, _, _ := strings.Cut(string(text), "| package |")
	return os.WriteFile(page, []byte(strings.TrimRight(before, "\n")+"\n\n"+head+table), 0o644)
}
