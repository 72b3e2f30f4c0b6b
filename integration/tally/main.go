// Command tally reads logs of `go test -json`, prints what failed and what was skipped,
// and ends with one line: `N passed, N failed, N skipped`. Its exit code is 1 when a
// test failed, when a log holds no passed test, or when -failed says that something
// outside the logs has failed.
//
// A skipped test is an error where -required names back ends: nothing may hide there.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
)

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
}

// result is the tally of all logs.
type result struct {
	passed, failed, skipped int
	trouble                 []string
	output                  map[string][]string
	parents                 map[string]bool
}

func main() {
	required := flag.String("required", "", "back ends that had to run")
	outside := flag.Int("failed", 0, "how many steps outside the logs failed")
	flag.Parse()
	r := result{output: map[string][]string{}, parents: map[string]bool{}}
	for _, name := range flag.Args() {
		r.read(name)
	}
	r.require(*required)
	for _, line := range r.trouble {
		fmt.Println(line)
	}
	if *outside > 0 {
		r.failed += *outside
	}
	if len(r.trouble) > 0 && r.failed == 0 {
		r.failed = 1
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	if r.failed > 0 {
		os.Exit(1)
	}
}

// require takes every skipped test for trouble where back ends are required.
func (r *result) require(engines string) {
	if engines != "" && r.skipped > 0 {
		r.trouble = append(r.trouble, fmt.Sprintf("%d tests were skipped though %s are required", r.skipped, engines))
	}
}

// read adds one log. A log without a passed test is trouble: a suite ran nothing.
func (r *result) read(name string) {
	f, err := os.Open(name)
	if err != nil {
		r.trouble = append(r.trouble, err.Error())
		return
	}
	defer f.Close()
	before := r.passed
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		r.add(e)
	}
	if r.passed == before {
		r.trouble = append(r.trouble, name+": no test passed")
	}
}

// add counts leaf tests: a test with subtests is the sum of them, unless it failed
// while none of them did.
func (r *result) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "run":
		if parent, _, ok := cutLast(e.Test); ok {
			r.parents[e.Package+" "+parent] = true
		}
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "pass":
		if e.Test != "" && !r.parents[key] {
			r.passed++
		}
		delete(r.output, key)
	case "skip":
		r.skip(e, key)
	case "fail":
		r.fail(e, key)
	}
}

func (r *result) skip(e event, key string) {
	if e.Test == "" || r.parents[key] { // a package without test files
		return
	}
	r.skipped++
	fmt.Printf("--- SKIP %s\n%s", key, strings.Join(r.output[key], ""))
	delete(r.output, key)
}

func (r *result) fail(e event, key string) {
	counts := e.Test != "" && !r.parents[key] || e.Test == "" && r.failed == 0
	if !counts && len(r.output[key]) < 8 { // a parent, or the package: its children said it
		return
	}
	if counts {
		r.failed++
	}
	fmt.Printf("--- FAIL %s\n%s", key, strings.Join(lastLines(r.output[key], 120), ""))
	delete(r.output, key)
}

func lastLines(lines []string, n int) []string {
	return slices.Clone(lines[max(0, len(lines)-n):])
}

func cutLast(test string) (parent, name string, ok bool) {
	at := strings.LastIndex(test, "/")
	if at < 0 {
		return "", test, false
	}
	return test[:at], test[at+1:], true
}
