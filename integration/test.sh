#!/bin/bash
# All tests, as `make test` and CI run them: lint, unit tests with the race detector,
# the whole on every back end, the generated docs, and with KUBERNETES=yes a real
# Kubernetes node, with FUZZING=yes fuzzing. JSON logs go to test-logs/; the last line counts them. With CI=true,
# or as root on Debian, every back end is required.
set -uo pipefail
cd "$(dirname "$0")/.."
logs=test-logs
rm -rf "$logs"
mkdir -p "$logs"
failed=0

say() { echo "== $* =="; }
fail() { echo "make test: $*" >&2; failed=1; }

say "packages"
if bash integration/packages.sh; then
	export REQUIRE_ENGINES=${REQUIRE_ENGINES-unshare,runc,docker}
elif [ "${CI:-}" = true ]; then
	export REQUIRE_ENGINES=${REQUIRE_ENGINES-unshare,runc,docker}
	fail "packages are missing"
fi
if [ "$(id -u)" != 0 ] && [ "${CI:-}" != true ]; then
	echo "not root: the tests on real containers are left out (private namespaces and a Docker engine need it)" >&2
	REQUIRE_ENGINES=
fi

say "build"
make -s build || fail "the build failed"
bin/entrypoint version >/dev/null || fail "the built binary does not run"

say "lint"
bash integration/lint.sh || fail "lint"

say "docs"
go run ./cmd/entrypoint config --markdown >"$logs/environment.md" && diff -u docs/environment.md "$logs/environment.md" ||
	fail "docs/environment.md is not what the code says: run make docs"

# What counts lost requests runs alone: beside a storm of 20,000 orphans its clients stand still for seconds.
alone="./graceful ./examples/... ./internal/proxy"

# Each package has a network to itself: no other test takes its ports.
apart="-exec $PWD/integration/network.sh"

say "unit tests"
go test -json -race -shuffle=on -timeout 20m $apart $(go list ./... | grep -vE '/(graceful|examples/.*|internal/proxy)$') >"$logs/unit.json" 2>"$logs/unit.err" || fail "unit tests"

say "the supervisor in fake time"
bash integration/explore.sh || fail "exploration"

if [ "${FUZZING:-}" = yes ]; then
	say "fuzzing"
	FUZZ_LOGS="$logs/fuzz" bash integration/fuzz.sh || fail "fuzzing"
fi

say "requests across swaps"
GRACEFUL_INIT="$PWD/bin/entrypoint" go test -json -race -shuffle=on -timeout 20m -p 1 $apart $alone >"$logs/graceful.json" 2>"$logs/graceful.err" || fail "requests across swaps"

say "examples, and the commands of the documents"
for name in Examples ExampleBuilds Blocks; do # the first one counts lost requests too
	ENTRYPOINT_BINARY="$PWD/bin/entrypoint" go test -json -tags integration -timeout 20m -parallel 4 -run "^Test$name\$" ./integration \
		>"$logs/$name.json" 2>"$logs/$name.err" || fail "$name"
done

say "integration tests" # those that need kubectl come with the node
ENTRYPOINT_BINARY="$PWD/bin/entrypoint" go test -json -tags integration -timeout 45m -parallel 4 -skip '^(TestExample|TestBlocks$|TestDeployFields$|TestDeployKustomize$)' ./integration \
	>"$logs/integration.json" 2>"$logs/integration.err" || fail "integration tests"

if [ "${KUBERNETES:-}" = yes ]; then # the last: it is told on by no other, and disturbs none
	bash integration/kubernetes/test.sh || fail "kubernetes"
	more=$logs/kubernetes.json
fi

cat "$logs"/*.err >&2
go run ./integration/tally -required "${REQUIRE_ENGINES-}" -failed "$failed" "$logs"/unit.json "$logs"/graceful.json "$logs"/Examples.json "$logs"/ExampleBuilds.json "$logs"/Blocks.json "$logs"/integration.json ${more:+"$more"}
exit
