//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFaultsPage compares docs/faults.md with the tables of the tests; FAULTS_PAGE=write writes it.
func TestFaultsPage(t *testing.T) {
	path := filepath.Join("..", "docs", "faults.md")
	want := faultsPage()
	if os.Getenv("FAULTS_PAGE") == "write" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("docs/faults.md is not what the tests do (%v): run FAULTS_PAGE=write go test -tags integration ./integration -run TestFaultsPage", err)
	}
}

const faultsHead = `# What happens when

<!-- Generated from the tables of integration/faults_test.go and integration/faults_denied_test.go: FAULTS_PAGE=write go test -tags integration ./integration -run TestFaultsPage -->

Each line is a test: a swap is held still at each of the phases that the line names, the fault happens while clients ask without pause,
and the swap is let go. Beside what the line says, the tests want that no request was lost that no killed process had accepted, that the next swap works, and
that the init holds as many descriptors, and the container as many processes, as before.

A swap goes through *check* (held before the start), *start* (the candidate has no socket yet), *ready* (it has not said that it is), *smoke*, *promote* (held before it
gets any traffic), *canary* and *bake*; then the old generation *drain*s (it waits for its connections) and *stop*s (it was told to); *after* is calm.

## Faults

| fault | at | what happens |
|---|---|---|
`

const callsHead = `
## System calls that a sandbox refuses

Each with ` + "`EPERM` and with `ENOSYS`" + `, for the init and all that it starts; swapped by the watch and by a command, under load.

| call | what happens |
|---|---|
`

const faultsTail = `
Not in the list: memory that ends while several ask for more, or a process of the app that uses up the processors of the container: the kernel decides who goes on. All durations are taken
from the monotonic clock.

` + "`make mutants`" + ` takes the handling of each fault out of the product, one at a time, and wants the row to fail. Rows for which there is nothing to take out are listed, with the
reason, in ` + "`integration/mutants/table.go`" + `.
`

func faultsPage() string {
	var page strings.Builder
	page.WriteString(faultsHead)
	for _, h := range hazards {
		fmt.Fprintf(&page, "| %s | %s | %s |\n", h.what, strings.Join(h.at, ", "), h.then)
	}
	page.WriteString(callsHead)
	for _, r := range refusals {
		fmt.Fprintf(&page, "| `%s` | %s |\n", r.name, r.then)
	}
	page.WriteString(faultsTail)
	return page.String()
}
