package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRead: a suite that ran nothing is trouble, and so is one whose log is not there, and a skipped test where back ends are required.
func TestRead(t *testing.T) {
	const pass = `{"Action":"run","Package":"p","Test":"A"}` + "\n" + `{"Action":"pass","Package":"p","Test":"A"}` + "\n"
	const skip = `{"Action":"skip","Package":"p","Test":"B"}` + "\n"
	for name, c := range map[string]struct {
		log                             string
		required                        string
		passed, failed, skipped, faults int
	}{
		"one test":      {log: pass, passed: 1},
		"nothing ran":   {log: `{"Action":"pass","Package":"p"}` + "\n", faults: 1},
		"empty":         {log: "", faults: 1},
		"all skipped":   {log: skip, skipped: 1, faults: 1},
		"one skipped":   {log: pass + skip, passed: 1, skipped: 1},
		"not allowed":   {log: pass + skip, required: "docker", passed: 1, skipped: 1, faults: 1},
		"a failed test": {log: pass + `{"Action":"fail","Package":"p","Test":"B"}` + "\n", passed: 1, failed: 1},
		"no build":      {log: `{"Action":"fail","Package":"p"}` + "\n", failed: 1, faults: 1},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "log.json")
			if err := os.WriteFile(file, []byte(c.log), 0o600); err != nil {
				t.Fatal(err)
			}
			r := result{output: map[string][]string{}, parents: map[string]bool{}}
			r.read(file)
			r.require(c.required)
			if r.passed != c.passed || r.failed != c.failed || r.skipped != c.skipped || len(r.trouble) != c.faults {
				t.Errorf("got %d passed, %d failed, %d skipped, trouble %q", r.passed, r.failed, r.skipped, r.trouble)
			}
		})
	}
	r := result{}
	if r.read(filepath.Join(t.TempDir(), "nothing.json")); len(r.trouble) != 1 {
		t.Errorf("a log that is not there: trouble %q", r.trouble)
	}
}
