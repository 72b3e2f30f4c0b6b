package integration_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hotswap-init/entrypoint/envcfg"
	"github.com/hotswap-init/entrypoint/integration/pages"
)

// later are pages that others link to already, and that come with what they describe. One that is there does not need its line any more.
var later = []string{}

// TestPages looks at what the documents say: each link, variable, command, path and test that they name is there. The commands of
// README.md and of docs/ are run by TestBlocks.
func TestPages(t *testing.T) {
	all, err := pages.Repository("..")
	if err != nil {
		t.Fatal(err)
	}
	every, err := pages.Everything("..")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("links", func(t *testing.T) { testLinks(t, every) })
	t.Run("index", func(t *testing.T) { testIndex(t, all) })
	t.Run("blocks", func(t *testing.T) { testBlocks(t, all) })
	t.Run("variables", func(t *testing.T) { testVariables(t, every) })
	t.Run("commands", func(t *testing.T) { testCommands(t, every) })
	t.Run("paths", func(t *testing.T) { testPaths(t, every) })
	t.Run("tests", func(t *testing.T) { testTests(t, every) })
	t.Run("threats", func(t *testing.T) { testThreats(t, all) })
	t.Run("sentences", func(t *testing.T) { testSentences(t, all) })
}

func find(t *testing.T, all []*pages.Page, file string) *pages.Page {
	t.Helper()
	for _, p := range all {
		if p.File == file {
			return p
		}
	}
	t.Fatalf("there is no %s", file)
	return nil
}

// testLinks follows every link to a file and an anchor of this repository. Others are not asked for.
func testLinks(t *testing.T, all []*pages.Page) {
	for _, p := range all {
		for _, l := range p.Links() {
			if strings.Contains(l.Target, "://") {
				continue
			}
			if why := broken(all, p, l.Target); why != "" {
				t.Errorf("%s:%d: link to %q: %s", p.File, l.Line, l.Target, why)
			}
		}
	}
	for _, name := range later {
		if _, err := os.Stat(filepath.Join("..", name)); err == nil {
			t.Logf("%s is there now: its line in later can go", name)
		}
	}
}

// broken says why a link leads nowhere.
func broken(all []*pages.Page, from *pages.Page, target string) string {
	file, anchor, _ := strings.Cut(target, "#")
	name := from.File
	if file != "" {
		name = filepath.ToSlash(filepath.Join(filepath.Dir(from.File), file))
	}
	if _, err := os.Stat(filepath.Join("..", name)); err != nil {
		if slices.Contains(later, name) {
			return ""
		}
		return "there is no such file"
	}
	if anchor == "" {
		return ""
	}
	for _, p := range all {
		if p.File == name && p.HasAnchor(anchor) {
			return ""
		}
	}
	return "no heading has this anchor"
}

// testIndex: every page is on the map.
func testIndex(t *testing.T, all []*pages.Page) {
	index := find(t, all, "docs/index.md")
	for _, p := range all {
		name, ok := strings.CutPrefix(p.File, "docs/")
		linked := slices.ContainsFunc(index.Links(), func(l pages.Link) bool { return l.Target == name })
		if ok && p != index && !linked {
			t.Errorf("docs/index.md does not link to %s", name)
		}
	}
}

// commandWords begin a line that is to be typed.
var commandWords = []string{"$", "docker", "kubectl", "entrypoint", "/entrypoint", "curl", "make", "go", "git", "tar", "minisign", "cd", "mkdir"}

// testBlocks: what is to be typed is in a block that is run, or says by what it is held.
func testBlocks(t *testing.T, all []*pages.Page) {
	for _, p := range all {
		for _, b := range p.Blocks {
			switch b.Language {
			case "sh", "console":
				if why := wrongRun(t, b.Run); why != "" {
					t.Errorf("%s:%d: %s", p.File, b.Line, why)
				}
				if _, err := b.Steps(); err != nil {
					t.Errorf("%s: %v", p.File, err)
				}
			case "bash", "shell", "zsh", "shell-session", "terminal":
				t.Errorf("%s:%d: a block of %q: commands are in blocks of sh or console, which are run", p.File, b.Line, b.Language)
			case "":
				for line := range strings.Lines(b.Text) {
					if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); slices.Contains(commandWords, word) && b.Run == "" {
						t.Errorf("%s:%d: commands are in blocks of sh or console, which are run: %s", p.File, b.Line, strings.TrimSpace(line))
						break
					}
				}
			}
		}
	}
}

// wrongRun says why a block cannot be run in that way. Whether a test that it names is there is looked at by testTests.
func wrongRun(t *testing.T, run string) string {
	if run == "" || run == "docker" || run == "unshare" {
		return ""
	}
	_, by, ok := pages.NotRun(run)
	if !ok {
		return strconv.Quote(run) + " is no way to run a block: write docker, unshare, or `not, REASON; held by TestX`"
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if target, ok := strings.CutPrefix(by, "make "); ok && !strings.Contains(string(makefile), "\n"+target+":") {
		return "the Makefile has no target " + target
	}
	return ""
}

var variable = regexp.MustCompile(`\bENTRYPOINT_[A-Z0-9_<>]*`)

// testVariables: every variable that is named is one of the configuration, or one that the code knows.
func testVariables(t *testing.T, all []*pages.Page) {
	known := map[string]bool{}
	for _, e := range envcfg.Reference() {
		known[e.Name] = true
	}
	literals := literals(t)
	told := slices.DeleteFunc(slices.Clone(literals), func(s string) bool { return !strings.Contains(s, "ENTRYPOINT_") })
	for _, p := range all {
		for i, line := range strings.Split(p.Text, "\n") {
			for _, name := range variable.FindAllString(line, -1) {
				if !variableExists(name, known, told) && !invented[name] {
					t.Errorf("%s:%d: there is no variable %s", p.File, i+1, name)
				}
			}
		}
	}
}

// invented are names that stand for others, or that are wrong on purpose.
var invented = map[string]bool{
	"ENTRYPOINT_": true, "ENTRYPOINT_X": true, "ENTRYPOINT_X_FILE": true, "ENTRYPOINT_REDAY": true,
	"ENTRYPOINT_PORT":                     true, // a service link
	"ENTRYPOINT_CANDIDATE_TCP1_ADDRESS":   true, // made of the name of an address
	"ENTRYPOINT_CANDIDATE_<NAME>_ADDRESS": true,
	"ENTRYPOINT_BINARY":                   true, // of the tests
}

// ofApp is a variable of one of several apps.
var ofApp = regexp.MustCompile(`^ENTRYPOINT_APP_(?:<NAME>|[A-Z0-9]+)_(.+)$`)

func variableExists(name string, known map[string]bool, told []string) bool {
	if known[name] || known[strings.TrimSuffix(name, "_FILE")] {
		return true
	}
	if own := ofApp.FindStringSubmatch(name); own != nil && (own[1] == "<VARIABLE>" || known["ENTRYPOINT_"+own[1]]) {
		return true
	}
	word := regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`)
	return slices.ContainsFunc(told, word.MatchString)
}

var (
	clientWord  = regexp.MustCompile("(?:^|[\\s/(\"'=$])entrypoint ([a-z][a-z-]*)\\b")
	noClient    = strings.NewReplacer("--from=entrypoint", "", "--entrypoint /entrypoint", "", "ENTRYPOINT_BINARY=$PWD/bin/entrypoint", "", "ln -s /entrypoint", "") // the image, and files
	commandName = regexp.MustCompile(`(?m)^\s*name:\s+"([a-z-]+)"`)
)

// testCommands: every word behind `entrypoint` is a command.
func testCommands(t *testing.T, all []*pages.Page) {
	known := map[string]bool{}
	files, err := filepath.Glob("../cmd/entrypoint/cmd_*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no commands", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range commandName.FindAllStringSubmatch(string(text), -1) {
			known[m[1]] = true
		}
	}
	for _, p := range all {
		for _, line := range p.Code() {
			if strings.Contains(line.Text, "docker build") {
				continue
			}
			for _, m := range clientWord.FindAllStringSubmatch(noClient.Replace(line.Text), -1) {
				if !known[m[1]] {
					t.Errorf("%s:%d: there is no command %q: %s", p.File, line.Number, m[1], line.Text)
				}
			}
		}
	}
}

var repositoryPath = regexp.MustCompile(`^(?:\.ci|bench|cmd|deploy|docs|envcfg|examples|graceful|handoff|integration|internal|reaper)/[\w./*-]*$`)

// testPaths: every file of this repository that is named is there.
func testPaths(t *testing.T, all []*pages.Page) {
	for _, p := range all {
		for _, span := range p.Spans() {
			if !repositoryPath.MatchString(span.Text) || slices.Contains(later, span.Text) {
				continue
			}
			found, err := filepath.Glob(filepath.Join("..", span.Text))
			if err != nil || len(found) == 0 {
				t.Errorf("%s:%d: there is no %s", p.File, span.Number, span.Text)
			}
		}
	}
}

var testName = regexp.MustCompile(`\b((?:Test|Fuzz)[A-Z]\w*)((?:/[\w.-]+)*)`)

// testTests: every test that is named is there, and so is each row of it.
func testTests(t *testing.T, all []*pages.Page) {
	tests := testFunctions(t)
	for _, p := range all {
		for i, line := range strings.Split(p.Text, "\n") {
			for _, m := range testName.FindAllStringSubmatch(line, -1) {
				if why := missing(tests, m[1], m[2]); why != "" {
					t.Errorf("%s:%d: %s", p.File, i+1, why)
				}
			}
		}
	}
}

// exampleTests stand for any test, in the rules.
var exampleTests = []string{"TestX"}

func missing(tests map[string][]string, name, rows string) string {
	if slices.Contains(exampleTests, name) {
		return ""
	}
	folders, ok := tests[name]
	if !ok {
		return "there is no test " + name
	}
	for row := range strings.SplitSeq(strings.Trim(rows, "/"), "/") {
		if row == "" || slices.Contains([]string{"unshare", "runc", "docker"}, row) || strings.HasSuffix(row, ".md") {
			continue
		}
		if !slices.ContainsFunc(folders, func(dir string) bool { return hasRow(dir, row) }) {
			return "the test " + name + " has no row " + row
		}
	}
	return ""
}

// hasRow tells whether some test of the folder has that text in quotes.
func hasRow(dir, row string) bool {
	files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	return slices.ContainsFunc(files, func(file string) bool {
		text, _ := os.ReadFile(file)
		return strings.Contains(string(text), strconv.Quote(row))
	})
}

// testFunctions are the tests of the repository, with the folders that they are in.
func testFunctions(t *testing.T) map[string][]string {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	tests := map[string][]string{}
	walk(t, func(file string) {
		if !strings.HasSuffix(file, "_test.go") {
			return
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			tests[m[1]] = append(tests[m[1]], filepath.Dir(file))
		}
	})
	return tests
}

// walk visits the Go files of the repository.
func walk(t *testing.T, visit func(file string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "testdata" || entry.Name() == "test-logs"):
			return fs.SkipDir
		case strings.HasSuffix(path, ".go"):
			visit(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// testThreats: each line of the tables of threats names a test, or says that nothing holds it.
func testThreats(t *testing.T, all []*pages.Page) {
	rows := 0
	for _, line := range find(t, all, "docs/security.md").Prose {
		cells := strings.Split(strings.Trim(line.Text, "|"), "|")
		if !strings.HasPrefix(line.Text, "|") || len(cells) < 3 || strings.HasPrefix(strings.TrimSpace(cells[0]), "---") || strings.TrimSpace(cells[0]) == "threat" {
			continue
		}
		rows++
		if !testName.MatchString(cells[2]) && !strings.Contains(cells[1], "not held") {
			t.Errorf("docs/security.md:%d: no test is named, and it is not said that it is not held", line.Number)
		}
	}
	if rows < 20 {
		t.Errorf("only %d lines of threats were found", rows)
	}
}

// testSentences: each symptom of the page is a sentence that the program says. Between its `…` stands what is fixed, and each such
// piece has to be in one text of the code.
func testSentences(t *testing.T, all []*pages.Page) {
	texts := literals(t)
	n := 0
	for _, h := range find(t, all, "docs/troubleshooting.md").Headings {
		if h.Level != 3 {
			continue
		}
		n++
		for _, piece := range pieces(h.Text) {
			if !slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, piece) }) {
				t.Errorf("docs/troubleshooting.md:%d: nothing says %q", h.Line, piece)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d symptoms were found", n)
	}
}

// pieces are the fixed parts of a sentence that are long enough to tell anything.
func pieces(sentence string) []string {
	var all []string
	for piece := range strings.SplitSeq(sentence, "…") {
		if piece = strings.TrimSpace(piece); len(piece) > 3 {
			all = append(all, piece)
		}
	}
	return all
}

var verb = regexp.MustCompile(`%[#+]?[0-9.]*[a-zA-Z]`)

// literals are the texts in the code of the program, each piece between two verbs of a format by itself, sums of texts as one.
func literals(t *testing.T) []string {
	t.Helper()
	var all []string
	files := token.NewFileSet()
	walk(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "../integration") || strings.HasPrefix(path, "../bench") || strings.HasPrefix(path, "../examples") {
			return
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text := constant(n); text != "" {
				all = append(all, verb.Split(strings.ReplaceAll(text, "%%", "%"), -1)...)
			}
			return true
		})
	})
	return all
}

// constant is the text of a literal, or of a sum of them; empty for anything else.
func constant(n ast.Node) string {
	switch n := n.(type) {
	case *ast.BasicLit:
		if n.Kind == token.STRING {
			text, _ := strconv.Unquote(n.Value)
			return text
		}
	case *ast.BinaryExpr:
		if left, right := constant(n.X), constant(n.Y); n.Op == token.ADD && left != "" && right != "" {
			return left + right
		}
	}
	return ""
}

// TestNothingOfTheNetwork: what PID 1 itself consists of has no parser of anything that comes over a network. The programs that have
// one run in processes of their own.
func TestNothingOfTheNetwork(t *testing.T) {
	for _, name := range []string{"envcfg", "handoff", "internal/artifact", "internal/control", "internal/probe", "internal/swap", "internal/watch", "reaper"} {
		cmd := exec.Command("go", "list", "-deps", "./"+name)
		cmd.Dir = ".."
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for _, needed := range strings.Fields(string(out)) {
			for _, parser := range []string{"net/http", "net/textproto", "crypto/tls", "golang.org/x/net", "encoding/xml", "mime"} {
				if needed == parser || strings.HasPrefix(needed, parser+"/") {
					t.Errorf("%s needs %s", name, needed)
				}
			}
		}
	}
}
