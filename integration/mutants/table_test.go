package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestTable: each row has a mutant or a reason, and each change can be made.
func TestTable(t *testing.T) {
	root := filepath.Join("..", "..")
	rows, err := readRows(filepath.Join(root, "integration"))
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for _, m := range mutants {
		has[m.row] = true
		if _, known := rows[m.row]; !known {
			t.Errorf("there is no row %q", m.row)
		}
		if _, err := regexp.Compile(m.part); err != nil {
			t.Errorf("%s: part: %v", m.row, err)
		}
		if m.why == "" {
			t.Errorf("%s: it is not said what is taken out", m.row)
		}
		for _, e := range m.edits() {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Errorf("%s: %v", m.row, err)
				continue
			}
			if n := bytes.Count(b, []byte(e.old)); n != 1 {
				t.Errorf("%s: %s has %q %d times, not once", m.row, e.file, e.old, n)
			}
			if e.new == e.old {
				t.Errorf("%s: nothing is changed in %s", m.row, e.file)
			}
		}
	}
	for name := range rows {
		switch reason := without[name]; {
		case has[name] && reason != "":
			t.Errorf("%s has a mutant, and a reason to have none", name)
		case !has[name] && reason == "":
			t.Errorf("%s has no mutant, and no reason to have none", name)
		}
	}
	for name := range without {
		if _, known := rows[name]; !known {
			t.Errorf("there is no row %q", name)
		}
	}
}

// TestFailed: a row counts as failed when it says so, or hangs; not when another one does.
func TestFailed(t *testing.T) {
	for _, c := range []struct {
		row  row
		out  string
		want bool
	}{
		{row{name: "stop"}, "    --- FAIL: TestFaults/unshare/stop (1.20s)\n", true},
		{row{name: "stop"}, "        --- FAIL: TestFaults/unshare/stop/start (1.20s)\n", true},
		{row{name: "stop"}, "    --- PASS: TestFaults/unshare/stop (1.20s)\nFAIL\n", false},
		{row{name: "stop"}, "    --- FAIL: TestFaults/unshare/stop-first (1.20s)\n", false},
		{row{name: "socket AF_NETLINK", call: true}, "    --- FAIL: TestFaultsRefusedCalls/unshare/socket-AF_NETLINK-EPERM-inherited (1.20s)\n", true},
		{row{name: "paused", at: "docker"}, "    --- FAIL: TestFaultsDocker/docker/paused (1.20s)\n", true},
		{row{name: "stop"}, "panic: test timed out after 2m0s\n\trunning tests:\n\t\tTestFaults/unshare/stop (1m59s)\n", true},
		{row{name: "stop"}, "panic: test timed out after 2m0s\n\trunning tests:\n\t\tTestFaults/unshare/storm (1m59s)\n", false},
	} {
		if got := failed(c.out, c.row); got != c.want {
			t.Errorf("%+v: %v for %q", c.row, got, c.out)
		}
	}
}

// TestPattern: what the tests are called.
func TestPattern(t *testing.T) {
	for _, c := range []struct {
		row        row
		part, want string
	}{
		{row{name: "stop"}, "", "^TestFaults$/^unshare$/^stop$"},
		{row{name: "stop"}, "check|start", "^TestFaults$/^unshare$/^stop$/^(check|start)$"},
		{row{name: "paused", at: "docker"}, "", "^TestFaultsDocker$/^docker$/^paused$"},
		{row{name: "socket AF_NETLINK", call: true}, "", "^TestFaultsRefusedCalls$/^unshare$/^socket-AF_NETLINK-"},
		{row{name: "splice", call: true}, "EPERM-inherited", "^TestFaultsRefusedCalls$/^unshare$/^splice-(EPERM-inherited)$"},
	} {
		if got, _ := c.row.pattern(c.part); got != c.want {
			t.Errorf("%+v, part %q: %s, want %s", c.row, c.part, got, c.want)
		}
	}
}
