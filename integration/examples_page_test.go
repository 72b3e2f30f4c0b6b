//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hotswap-init/entrypoint/integration/load"
)

// exampleLine is one server of the page.
type exampleLine struct {
	version       string
	with, without load.Report
}

// exampleBook collects what TestExamples counts.
type exampleBook struct {
	mu    sync.Mutex
	lines map[string]*exampleLine
}

func (b *exampleBook) add(name string, note func(*exampleLine)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lines == nil {
		b.lines = map[string]*exampleLine{}
	}
	if b.lines[name] == nil {
		b.lines[name] = &exampleLine{}
	}
	note(b.lines[name])
}

// write makes the page, where INTEGRATION_TABLE asks for it.
func (b *exampleBook) write(t *testing.T) {
	target := os.Getenv("INTEGRATION_TABLE")
	if target == "" || len(b.lines) == 0 {
		return
	}
	text, err := os.ReadFile(filepath.Join("testdata", "keepalive.md"))
	if err != nil {
		t.Error(err)
		return
	}
	page := strings.ReplaceAll(string(text), "{table}", b.table())
	if err := os.WriteFile(target, []byte(page), 0o644); err != nil {
		t.Error(err)
	}
}

func (b *exampleBook) table() string {
	var out strings.Builder
	out.WriteString("| server | version | recipe | requests | swaps | lost without | lost with | new connections failed |\n|---|---|---|---:|---:|---:|---:|---:|\n")
	for _, x := range examples {
		if l := b.lines[x.name]; l != nil {
			fmt.Fprintf(&out, "| [%s](../examples/%s/) | %s | %s | %d | %d | %d | %d | %d |\n", x.name, x.name, l.version, x.recipe,
				l.with.Requests(), exampleSwaps, l.without.Failures(load.Reused), l.with.Failures(load.Reused), l.with.Failures(load.Fresh))
		}
	}
	return strings.TrimSpace(out.String())
}
