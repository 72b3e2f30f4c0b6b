// Command mutants shows that each row of the fault matrix can fail. It takes the handling of a fault out of the product, one place at a
// time, runs the row of that fault alone, and wants it to fail. Before that it runs the row with the product as it is: one that fails
// anyway would show nothing.
//
//	go run ./integration/mutants [-run REGEXP] [-known-good] [-v]
//
// The changes are in table.go, and the rows that have none, with the reason. It needs what the rows need: root, and for some a Docker engine.
// The exit code is 1 if a row did not fail that should have, or the other way round.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	// limit is what a row may take. One that is not over by then counts as failed: something in it hangs.
	limit = 2 * time.Minute
	// patience is how long a row waits for what should happen at once. Here it is what most mutants take, so it is shorter than elsewhere.
	patience = 15 * time.Second
)

func main() {
	only := flag.String("run", "", "only the mutants whose row matches this regular expression")
	good := flag.Bool("known-good", false, "do not run the rows with the product as it is first")
	verbose := flag.Bool("v", false, "show how each row failed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *only, *good, *verbose)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, good, verbose bool) error {
	chosen, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	caught, missed, broken := 0, 0, 0
	for _, m := range mutants {
		if !chosen.MatchString(m.row) {
			continue
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		begin := time.Now()
		verdict, text := b.try(ctx, m, good)
		switch verdict {
		case "caught":
			caught++
		case "MISSED":
			missed++
		default:
			broken++
		}
		fmt.Printf("%-7s %s: %s (%d s)\n", verdict, m.row, m.why, int(time.Since(begin).Seconds()))
		if text != "" && (verbose || verdict != "caught") {
			fmt.Println("        " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n        "))
		}
	}
	fmt.Printf("%d caught, %d missed", caught, missed)
	if broken > 0 {
		fmt.Printf(", %d could not be tried", broken)
	}
	fmt.Println()
	if caught+missed+broken == 0 {
		return fmt.Errorf("no row with a mutant matches %q", only)
	}
	if missed+broken > 0 {
		return errors.New("not each row fails without the handling that it is for")
	}
	return nil
}

// bench is what the mutants are tried on: a copy of the tree, the product made of it as it is, and the compiled tests.
type bench struct {
	root  string // of the repository
	dir   string // of all the rest
	rows  map[string]row
	whole map[string]error // the patterns that were run with the product as it is
}

func (b *bench) tree() string  { return filepath.Join(b.dir, "tree") }
func (b *bench) tests() string { return filepath.Join(b.dir, "integration.test") }
func (b *bench) own() string   { return filepath.Join(b.dir, "own", "entrypoint") }

func newBench(ctx context.Context) (*bench, error) {
	root, err := output(ctx, ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	b := &bench{root: strings.TrimSpace(root), whole: map[string]error{}}
	if b.rows, err = readRows(filepath.Join(b.root, "integration")); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "mut"); err != nil {
		return nil, err
	}
	if err := b.prepare(ctx); err != nil {
		os.RemoveAll(b.dir)
		return nil, err
	}
	return b, nil
}

func (b *bench) prepare(ctx context.Context) error {
	list, err := output(ctx, b.root, "git", "ls-files", "-z")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(list, "\x00"), "\x00") {
		if err := copyFile(filepath.Join(b.root, name), filepath.Join(b.tree(), name)); err != nil {
			return err
		}
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(b.tree(), "bin", "entrypoint"), b.own()); err != nil {
		return err
	}
	_, err = output(ctx, b.root, "go", "test", "-c", "-tags", "integration", "-o", b.tests(), "./integration")
	return err
}

// build makes bin/entrypoint of the tree as make does, for the runtime's defaults are linked in.
func (b *bench) build(ctx context.Context) error {
	_, err := output(ctx, b.tree(), "make", "-s", "build", "VERSION=mutant")
	return err
}

// try gives the verdict on a mutant, and what there is to say about it.
func (b *bench) try(ctx context.Context, m mutant, good bool) (verdict, text string) {
	r, known := b.rows[m.row]
	if !known {
		return "BROKEN", "there is no such row"
	}
	pattern, engine := r.pattern(m.part)
	if !good {
		if _, done := b.whole[pattern]; !done {
			b.whole[pattern] = b.passes(ctx, pattern, engine)
		}
		if err := b.whole[pattern]; err != nil {
			return "BROKEN", "with the product as it is: " + err.Error()
		}
	}
	for i, e := range m.edits() {
		undo, err := b.apply(e)
		if err != nil {
			return "BROKEN", fmt.Sprintf("change %d: %v", i+1, err)
		}
		defer undo()
	}
	if err := b.build(ctx); err != nil {
		return "BROKEN", err.Error()
	}
	out, err := b.test(ctx, filepath.Join(b.tree(), "bin", "entrypoint"), pattern, engine)
	var exit *exec.ExitError
	switch {
	case err == nil && !ran(out):
		return "BROKEN", fmt.Sprintf("nothing was tested by %s: %s", pattern, out)
	case err == nil:
		return "MISSED", ""
	case !errors.As(err, &exit) || !failed(out, r):
		return "BROKEN", fmt.Sprintf("%v, and it is not this row that failed: %s", err, out)
	}
	return "caught", complaints(out)
}

// complaints are the lines in which a test says why it fails.
func complaints(out string) string {
	var list []string
	for line := range strings.Lines(out) {
		if said := strings.TrimSpace(line); strings.Contains(said, "_test.go:") && !strings.Contains(said, "log of the container") {
			list = append(list, said[:min(len(said), 300)])
		}
	}
	return strings.Join(list, "\n")
}

// passes runs tests with the product as it is.
func (b *bench) passes(ctx context.Context, pattern, engine string) error {
	out, err := b.test(ctx, b.own(), pattern, engine)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s", err, out)
	case !ran(out):
		return fmt.Errorf("nothing was tested by %s: %s", pattern, out)
	}
	return nil
}

// apply makes a change to the tree, and gives back what takes it back.
func (b *bench) apply(e edit) (undo func(), err error) {
	path := filepath.Join(b.tree(), e.file)
	was, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(was, []byte(e.old)); n != 1 {
		return nil, fmt.Errorf("%s has what is to be changed %d times", e.file, n)
	}
	if err := os.WriteFile(path, bytes.Replace(was, []byte(e.old), []byte(e.new), 1), 0o644); err != nil {
		return nil, err
	}
	return func() { _ = os.WriteFile(path, was, 0o644) }, nil
}

// test runs the tests of a pattern with an init. What they leave behind in the folder of temporary files is removed.
func (b *bench) test(ctx context.Context, init, pattern, engine string) (out string, err error) {
	temp := filepath.Join(b.dir, "t")
	if err := os.Mkdir(temp, 0o777); err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	cmd := exec.CommandContext(ctx, b.tests(), "-test.count=1", "-test.v", "-test.run", pattern, "-test.timeout", limit.String())
	cmd.Dir = filepath.Join(b.root, "integration")
	cmd.Env = append(os.Environ(), "ENTRYPOINT_BINARY="+init, "INTEGRATION_ENGINES="+engine, "REQUIRE_ENGINES="+engine, "CI=true", "FAULTS=all",
		"INTEGRATION_PATIENCE="+patience.String(), "TMPDIR="+temp)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// ran tells whether a test was run, and not skipped.
func ran(out string) bool {
	return strings.Contains(out, "--- PASS:") && !strings.Contains(out, "--- SKIP:")
}

// failed tells whether it was this row that failed: it says so, or it was under way when the time was over.
func failed(out string, r row) bool {
	end := "[/ ]"
	if r.call {
		end = "-"
	}
	name := regexp.QuoteMeta(r.test()+"/"+r.engine()+"/"+r.testName()) + end
	return regexp.MustCompile(`(?m)^\s*--- FAIL: `+name).MatchString(out) ||
		strings.Contains(out, "panic: test timed out after") && regexp.MustCompile(`(?m)^\s+`+name).MatchString(out)
}

// output runs a command and returns what it writes; in an error that is too.
func output(ctx context.Context, dir string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", strings.Join(argv, " "), err, out, errs.Bytes())
	}
	return string(out), nil
}

// copyFile copies a file with its mode, or a symbolic link as it is.
func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(link, to)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, info.Mode().Perm())
}
