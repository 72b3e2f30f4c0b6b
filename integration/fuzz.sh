#!/bin/bash
# The fuzz targets of what comes from outside, each for FUZZTIME (1m), two at a time and at low priority. A finding fails it, and its
# file is named; so does a target that is not there, or that has tried nothing. `make fuzz FUZZ=all` takes every target of the repository.
set -uo pipefail
cd "$(dirname "$0")/.."
FUZZTIME=${FUZZTIME:-1m}
targets=(
	"./envcfg FuzzLoad"                        # the configuration
	"./envcfg FuzzSplitWords"                  # command lines
	"./handoff FuzzParseAddresses"             # ENTRYPOINT_LISTEN
	"./handoff FuzzParseNotify"                # what an app says of itself
	"./handoff FuzzProgram"                    # the program that steers, against an interpreter
	"./internal/control FuzzDecodeRequest"     # requests at the control socket
	"./internal/artifact/applet FuzzExtract"   # tar streams
	"./internal/artifact FuzzCheck"            # ELF files
	"./internal/artifact FuzzSignature"        # minisign
	"./reaper FuzzParseStat"                   # /proc
)
if [ "${FUZZ:-}" = all ]; then
	mapfile -t targets < <(grep -rn --include=*_test.go '^func Fuzz' . | sed -E 's|^(\./?.*)/[^/]+_test\.go:[0-9]+:func (Fuzz[A-Za-z0-9]+).*|\1 \2|' | sort -u)
fi
logs=${FUZZ_LOGS:-$(mktemp -d)}
mkdir -p "$logs"

# one runs a target and writes its verdict into a file of its own: PASS, or what is wrong.
one() {
	local package=$1 name=$2 log="$logs/fuzz-$(echo "$1-$2" | tr -c 'A-Za-z0-9\n' -).log"
	local tried crasher verdict=PASS
	nice -n 15 go test "$package" -run '^$' -fuzz "^$name\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 10s -parallel 1 >"$log" 2>&1
	local code=$?
	tried=$(sed -nE 's/.*execs: ([0-9]+).*/\1/p' "$log" | tail -1)
	crasher=$(sed -nE 's/.*Failing input written to (.*)/\1/p' "$log" | head -1)
	# A worker that is in the middle of an input when the time is over says so as if it were a failure. It is none: no input is named.
	if [ $code != 0 ] && [ -z "$crasher" ] && grep -q '^ *context deadline exceeded$' "$log" && ! grep -qE 'panic|fuzzing process|testdata|_test\.go' "$log"; then
		code=0
	fi
	[ $code = 0 ] || verdict="FAIL: $(tail -n 40 "$log")"
	[ -z "$crasher" ] || verdict="FAIL: a finding in $package/$crasher:
$(cat "$package/$crasher" 2>/dev/null)
$(grep -v '^fuzz: elapsed' "$log" | head -60)"
	[ "$verdict" != PASS ] || [ "${tried:-0}" -gt 0 ] || verdict="FAIL: it tried nothing: $(cat "$log")"
	echo "${package#./} $name: ${tried:-0} inputs: $verdict" | tee "$log.verdict"
}

for t in "${targets[@]}"; do
	while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n || true; done
	one $t &
done
wait

done=$(grep -lE ': PASS$' "$logs"/*.verdict 2>/dev/null | wc -l)
echo "fuzz: ${#targets[@]} targets, $done without a finding"
[ "${#targets[@]}" -ge 10 ] && [ "$done" = "${#targets[@]}" ]
