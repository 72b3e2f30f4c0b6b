//go:build integration

package integration

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotswap-init/entrypoint/integration/load"
)

// ledger collects the rows of TestStacks for the page about them.
type ledger struct {
	mu   sync.Mutex
	rows []*stackRun
}

func (b *ledger) add(r *stackRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows = append(b.rows, r)
}

// write makes the page, where INTEGRATION_TABLE asks for it.
func (b *ledger) write(t *testing.T) {
	target := os.Getenv("INTEGRATION_TABLE")
	if target == "" || len(b.rows) == 0 {
		return
	}
	text, err := os.ReadFile(filepath.Join("testdata", "stacks", "servers.md"))
	if err != nil {
		t.Error(err)
		return
	}
	page := strings.NewReplacer("{shapes}", shapeTable(), "{table}", b.table(t), "{caveats}", caveats()).Replace(string(text))
	if err := os.WriteFile(target, []byte(page), 0o644); err != nil {
		t.Error(err)
	}
}

// table is in the order of the stacks, and of the shapes for each.
func (b *ledger) table(t *testing.T) string {
	slices.SortStableFunc(b.rows, func(x, y *stackRun) int {
		return cmp.Or(cmp.Compare(stackIndex(x.name), stackIndex(y.name)), cmp.Compare(shapeIndex(x.form.name), shapeIndex(y.form.name)))
	})
	var out strings.Builder
	out.WriteString("| server | version | shape | requests | swaps | failures | longest wait | median swap |\n|---|---|---|---:|---:|---|---:|---:|\n")
	for _, r := range b.rows {
		fmt.Fprintf(&out, "| %s | %s | %s | %d | %d | %s | %v | %v |\n", r.name, r.printed(t), r.form.name,
			r.report.Requests(), len(r.took), r.report.FailedText(), r.report.Latency[load.Fresh].Max.Round(time.Millisecond), r.median())
	}
	return strings.TrimSpace(out.String())
}

func shapeTable() string {
	var lines []string
	for _, f := range shapes {
		lines = append(lines, fmt.Sprintf("| %s | %s |", f.name, f.means))
	}
	return strings.Join(lines, "\n")
}

func stackIndex(name string) int {
	return slices.IndexFunc(stacks, func(k stack) bool { return k.name == name })
}

func shapeIndex(name string) int {
	return slices.IndexFunc(shapes, func(f shape) bool { return f.name == name })
}

// caveats has a sentence for each server that needs one.
func caveats() string {
	var lines []string
	for _, k := range stacks {
		if k.caveat != "" {
			lines = append(lines, fmt.Sprintf("- **%s**: %s", k.name, k.caveat))
		}
	}
	return strings.Join(lines, "\n")
}

// number is a version in what a program prints.
var number = regexp.MustCompile(`\d+(\.\d+)+`)

// printed is the version as the server itself prints it.
func (r *stackRun) printed(t *testing.T) string {
	out, err := exec.Command("sh", "-c", strings.ReplaceAll(r.version, "{out}", r.made)).CombinedOutput()
	found := number.FindString(string(out))
	if found == "" {
		t.Errorf("%s prints no version: %q, %v", r.name, out, err)
	}
	return found
}
