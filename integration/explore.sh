#!/bin/bash
# The supervisor and its table, looked at from all sides in fake time and without the race detector, which would take ten times as long:
# every state of the model, every event after each short sequence of others (EXPLORE_DEPTH), and walks by chance (EXPLORE_WALKS).
# The unit tests do a little of the same with it. See internal/swap/explore_test.go for how a finding is had again.
set -uo pipefail
cd "$(dirname "$0")/.."
export EXPLORE_WALKS=${EXPLORE_WALKS:-20000} EXPLORE_DEPTH=${EXPLORE_DEPTH:-3}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
go test -count=1 -timeout 10m -v -run '^(TestModel|TestModelSeesMutants|TestExplore|TestWalks|TestCells)$' ./internal/swap >"$log" 2>&1
code=$?
if [ $code != 0 ]; then
	head -c 20000 "$log"
	exit 1
fi
grep -E 'states|sequences|walks|cells|tables' "$log" | sed -E 's/^ *[a-z_]+_test.go:[0-9]+: /explore: /'
for test in TestModel TestModelSeesMutants TestExplore TestWalks TestCells; do
	grep -q "^--- PASS: $test " "$log" || { echo "explore: $test did not run"; exit 1; }
done
